"""`--compare`: a picture of before and after beside each result."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from PIL import Image

from blurkit.io.records import Record
from blurkit.reports.pictures import PANEL_SIDE, RESTORED, before_after, most_changed
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    files,
    photo,
    run,
    write,
)
from tests.cli.invoke import invoke


def test_beside_the_photo_and_not_taken_as_input(checkpoint: Path, tmp_path: Path) -> None:
    before = write(tmp_path / "photo.png", blurred(photo(0)))
    command = ["deblur", tmp_path, "-c", checkpoint, "--compare"]
    assert_done(run(*command))
    made = files(tmp_path)
    assert list(made) == ["photo.compare.jpg", "photo.deblurred.png", "photo.png"]
    with Image.open(tmp_path / "photo.compare.jpg") as opened:
        assert opened.format == "JPEG"
        picture = np.asarray(opened).astype(int)
    for image, left in ((before, 0), (tmp_path / "photo.deblurred.png", 64 + 8)):
        shown = picture[:48, left : left + 64]
        assert np.abs(shown - imageio.imread(image)).mean() < 6, "a JPEG of it"
    assert (picture[48:] < 128).any(), "a caption"

    again = invoke(*command)
    assert_failed(again, "photo", "photo.deblurred.png: exists already")
    (tmp_path / "photo.deblurred.png").unlink()
    again = invoke(*command)
    assert_failed(again, "photo", "photo.compare.jpg: exists already; give --force")
    assert files(tmp_path).keys() == {"photo.compare.jpg", "photo.png"}, "nothing is half done"
    ran = invoke(*command, "--force", "--json")
    assert_done(ran)
    assert [line["name"] for line in ran.json] == ["photo"] and files(tmp_path) == made


def test_results_in_a_folder_can_be_evaluated(checkpoint: Path, tree: Path, tmp_path: Path) -> None:
    ran = run("deblur", tree, "-c", checkpoint, "-o", f"{tmp_path}/out/", "--compare", "-q")
    assert_done(ran)
    names = [f"scene{n // 2}/{n % 2}" for n in range(4)]
    assert list(files(tmp_path / "out")) == sorted(
        f"{name}{end}" for name in names for end in (".png", ".compare.jpg")
    )
    for name in names:
        write(tmp_path / f"sharp/{name}.png", imageio.imread(tmp_path / f"out/{name}.png"))
    ran = run("eval", tmp_path / "out", tmp_path / "sharp", "--json", "-q")
    assert_done(ran)
    assert [line["name"] for line in ran.json[:-1]] == names
    picture = imageio.imread(tmp_path / "out/scene0/0.compare.jpg")
    assert picture.shape[1] == 3 * 64 + 2 * 8, "before, after and reference"


def test_two_results_never_share_a_comparison(checkpoint: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.png", photo(0))
    write(tmp_path / "a.jpg", photo(1))
    ran = invoke("deblur", tmp_path / "a.png", tmp_path / "a.jpg", "-c", checkpoint, "--compare",
                 "--force")  # fmt: skip
    assert_failed(ran, "a", "a.compare.jpg: the comparison of another result was written there")


def test_reblur_and_transfer(joint: Path, tmp_path: Path) -> None:
    sharp, blur = (write(tmp_path / f"{n}.png", i) for n, i in
                   (("sharp", photo(0)), ("blur", blurred(photo(0)))))  # fmt: skip
    ran = run("reblur", sharp, "--like", blur, "-c", joint, "--compare")
    assert_done(ran)
    ran = run("transfer", sharp, sharp, blur, "-c", joint, "-o", tmp_path / "t.png", "--compare")
    assert_done(ran)
    assert files(tmp_path).keys() == {
        *("sharp.png", "blur.png", "t.png", "t.compare.jpg"),
        *("sharp.reblurred.png", "sharp.compare.jpg"),
    }


@pytest.mark.parametrize("output", ["out.h5", "-"])
def test_only_images_have_comparisons(checkpoint: Path, tmp_path: Path, output: str) -> None:
    photo_file = write(tmp_path / "photo.png", photo(0))
    ran = run("deblur", photo_file, "-c", checkpoint, "-o", output, "--compare", cwd=tmp_path)
    assert_refused(ran, "--compare requires images", status=2)
    assert list(files(tmp_path)) == ["photo.png"]


def test_a_large_photo_also_shows_the_part_that_changed_most() -> None:
    blur = np.full((1500, 2400, 3), 90, np.uint8)
    restored = blur.copy()
    restored[1200:1300, 2000:2100] = 250
    picture = before_after(Record("a", {"blur": blur, "restored": restored}), RESTORED)
    assert picture.shape[1] == 2 * PANEL_SIDE + 8 and picture.dtype == np.uint8
    top, left = most_changed(blur, restored, 960)
    assert top.start <= 1200 and top.stop >= 1300 and top.stop <= 1500
    assert left.start <= 2000 and left.stop >= 2100 and left.stop <= 2400
    changed = (picture[:, PANEL_SIDE + 8 :] == 250).all(axis=2).sum()
    assert changed == pytest.approx(100 * 100 * (1 + (PANEL_SIDE / 2400) ** 2), rel=0.05)
