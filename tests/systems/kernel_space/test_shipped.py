"""The kernel space that comes with blurkit: found without -c, and as good as it is said to be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blurkit.io.image_sinks import open_sink
from blurkit.io.images import read_image, write_image
from blurkit.io.records import Record
from blurkit.metrics.psnr import psnr
from blurkit.systems.system import shipped_file
from tests.benchmarks.real_pairs import held_out
from tests.cli.command import assert_done, photo, records
from tests.cli.invoke import invoke

pytestmark = pytest.mark.usefixtures("one_thread")
USING = "using the weights that come with blurkit (encoded blur kernel space, "


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The middles of real pairs that were not trained on."""
    path = tmp_path_factory.mktemp("real") / "pairs.h5"
    with open_sink(str(path), ("blur",), "made") as sink:
        for record in held_out("gopro"):
            cut = {role: image[232:488, 512:768] for role, image in record.images.items()}
            sink.write(Record(record.name, cut, {}))
    return path


def test_it_reblurs_real_pairs_as_they_are(pairs: Path, tmp_path: Path) -> None:
    ran = invoke("reblur", pairs, "--system", "kernel-space", "-o", tmp_path / "made.h5")
    assert_done(ran)
    assert ran.lines[0].startswith(USING)
    for record in records(tmp_path / "made.h5"):
        reblurred, sharp = record.attrs["reblurred_psnr"], record.attrs["reblurred_psnr_sharp"]
        assert reblurred > 30 and reblurred > sharp + 6


def test_a_pairs_own_blur_suits_it_better_than_anothers(pairs: Path, tmp_path: Path) -> None:
    ran = invoke("reblur", pairs, "--system", "kernel-space", "--shuffle", "-o", tmp_path / "s.h5")
    assert_done(ran)
    others = {record.name: record.images["blur"] for record in records(tmp_path / "s.h5")}
    ran = invoke("reblur", pairs, "--system", "kernel-space", "-o", tmp_path / "own.h5", "-q")
    assert_done(ran)
    for record in records(tmp_path / "own.h5"):
        own = psnr(record.images["reblurred"], record.images["blur"])
        assert own > psnr(others[record.name], record.images["blur"]) + 1


def test_new_blurs_are_drawn(tmp_path: Path) -> None:
    sharp = np.tile(photo(1, 256, 256), (1, 1, 1))
    write_image(tmp_path / "sharp.png", sharp)
    made = ["reblur", tmp_path / "sharp.png", "--random", "--copies", 3]
    ran = invoke(*made, "-o", f"{tmp_path}/drawn/")
    assert_done(ran)
    assert ran.lines[0].startswith(USING)
    drawn = [read_image(path).pixels for path in sorted((tmp_path / "drawn").iterdir())]
    assert len(drawn) == 3
    for number, image in enumerate(drawn):
        assert 12 < psnr(image, sharp) < 40
        assert all(psnr(image, other) < 45 for other in drawn[:number])


def test_it_says_where_it_comes_from() -> None:
    (told,) = invoke("info", shipped_file("kernel-space"), "--json", "-q").json
    assert list(told["networks"]) == ["kernel_space", "codes"] and told["system"] == "kernel-space"
    about = told["provenance"]
    assert about["agreement"]["kernel_space"] >= 60 and len(about["trained_on"]) == 5
    assert about["kernel_space"]["iterations"] == 16_000
    assert shipped_file("kernel-space").stat().st_size < 4_000_000
