"""ONNX files that read their weights from a checkpoint beside them."""

from __future__ import annotations

import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.io.checkpoints import load_checkpoint, save_checkpoint
from blurkit.systems.system import WEIGHTS
from tests.cli.command import assert_done, photo, write
from tests.cli.invoke import invoke
from tests.engine.networks import steered
from tests.tools.convert import main
from tests.tools.pack import pack
from tests.tools.test_pack import first_stage, second_stage, whole


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An ONNX file beside its checkpoint, net.pt."""
    folder = tmp_path_factory.mktemp("exported")
    joint = steered()
    stages = [first_stage(joint), second_stage(whole(joint))]
    save_checkpoint(pack(stages, {"date": "2026-01-03"}), folder / "net.pt")
    assert_done(invoke("export", folder / "net.pt", "--half", "-o", folder / "net.onnx"))
    return folder / "net.onnx"


def test_results_are_the_same_and_the_file_is_small(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, weights = tmp_path / "net.onnx", tmp_path / "net.pt"
    shutil.copy(exported, network)
    shutil.copy(exported.with_suffix(".pt"), weights)
    image = write(tmp_path / "photo.png", photo(0, 96, 128))
    assert_done(invoke("deblur", image, "-c", network, "-o", tmp_path / "before.png"))
    before = network.stat().st_size
    assert main(["refer", str(network), str(weights)]) == 0
    assert network.stat().st_size < before / 3
    assert f"{network.stat().st_size:,} bytes" in capsys.readouterr().err
    assert_done(invoke("deblur", image, "-c", network, "-o", tmp_path / "after.png"))
    for file in (network, weights):  # as some installers put them
        (tmp_path / "links").mkdir(exist_ok=True)
        (tmp_path / "links" / file.name).symlink_to(file)
    link = tmp_path / "links" / "net.onnx"
    assert_done(invoke("deblur", image, "-c", link, "-o", tmp_path / "linked.png"))
    names = ("before", "after", "linked")
    expected, *others = (imageio.imread(tmp_path / f"{name}.png") for name in names)
    for other in others:
        np.testing.assert_array_equal(other, expected)
    weights.unlink()
    ran = invoke("deblur", image, "-c", network, "-o", tmp_path / "without.png")
    assert ran.status == 1 and "net.onnx" in ran.lines[-1]


def test_the_shipped_network_refers_to_the_shipped_weights() -> None:
    assert (WEIGHTS / "msdi.onnx").stat().st_size < 1_000_000
    assert load_checkpoint(WEIGHTS / "msdi.pt").networks["deblur"]


def test_errors_are_one_line(
    exported: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, weights = tmp_path / "net.onnx", tmp_path / "other.pt"
    shutil.copy(exported, network)
    before = network.read_bytes()
    weights.write_bytes(b"no weights")
    broken = write(tmp_path / "broken.png", photo(0)).rename(tmp_path / "broken.onnx")
    for arguments, words in (
        ((network, weights), "contains no weights of"),
        ((network, exported.with_suffix(".pt")), "has to be in the folder"),
        ((network, tmp_path / "missing.pt"), "cannot be read"),
        ((tmp_path / "missing.onnx", weights), "cannot be read"),
        ((broken, weights), "damaged, or not an ONNX file"),
    ):
        assert main(["refer", *map(str, arguments)]) == 1
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1
    assert network.read_bytes() == before
