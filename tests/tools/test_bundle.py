"""Bundles of training data: what fits, in its place, and word of the rest."""

import shutil
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.io.images import read_image
from blurkit.metrics.psnr import psnr
from tests.cli.pictures import blurred, photo, write
from tests.tools.bundle import main

MIB = 2**20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two pairs, four frames, eight PNG photos and two JPEGs."""
    data = tmp_path / "data"
    for number in range(2):
        write(data / f"pairs/x/train/blur/{number}.png", blurred(photo(number, 96, 128)))
        write(data / f"pairs/x/train/sharp/{number}.png", photo(number, 96, 128))
    for number in range(4):
        write(data / f"video/y/{number:03}.png", photo(2, 96, 128))
    for number in range(8):
        write(data / f"sharp/z/{number}.png", photo(number, 96, 128))
    for number in range(2):
        write(data / f"sharp/jpeg/{number}.jpg", photo(number, 96, 128))
    return data


def bundle(data: Path, *options: object) -> list[str]:
    """The files of a bundle of everything, after it was made."""
    output = data.parent / "bundle"
    folders = ["--pairs", "pairs/x", "--frames", "video/y", "--photos", "sharp/jpeg", "sharp/z"]
    assert main([str(data), "-o", str(output), *folders, *map(str, options)]) == 0
    files = (file for file in output.rglob("*") if file.is_file())
    return sorted(str(file.relative_to(output)) for file in files)


def test_everything_keeps_its_place_and_its_look(data: Path) -> None:
    files = bundle(data)
    assert len(files) == 4 + 4 + 8 + 2 + 1
    assert {"pairs/x/train/blur/0.jpg", "video/y/003.jpg", "sharp/z/7.jpg"} < set(files)
    output = data.parent / "bundle"
    assert (output / "left_out.txt").read_text() == ""
    own, there = (root / "sharp/jpeg/1.jpg" for root in (data, output))
    assert own.read_bytes() == there.read_bytes()
    made = read_image(output / "sharp/z/3.jpg").pixels
    assert psnr(made / 255.0, read_image(data / "sharp/z/3.png").pixels / 255.0) > 36


def test_limits_hold_and_the_rest_is_named(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = bundle(data)
    output = data.parent / "bundle"
    sizes = {name: (output / name).stat().st_size for name in whole}
    pairs = sum(size for name, size in sizes.items() if name.startswith("pairs"))
    shutil.rmtree(output)
    capsys.readouterr()
    limit = (pairs + 1.5 * max(sizes.values())) / MIB
    files = bundle(data, "--limit", limit)
    taken = sum((output / name).stat().st_size for name in files if name != "left_out.txt")
    assert taken <= limit * MIB
    assert sum(name.startswith("pairs") for name in files) == 4
    assert not any(name.startswith("video") for name in files)  # whole or not at all
    dropped = (output / "left_out.txt").read_text().splitlines()
    assert len(files) - 1 + len(dropped) == 18 and "video/y/000.png" in dropped
    told = capsys.readouterr().err
    assert "pairs/x: 2 of 2" in told and "video/y: 0 of 1" in told
    assert f"{len(dropped)} files left out" in told


def test_large_photos_are_shrunk(data: Path) -> None:
    files = bundle(data, "--longest", 64, "--quality", 90)
    pictures = [name for name in files if name != "left_out.txt"]
    sizes = {imageio.imread(data.parent / "bundle" / name).shape for name in pictures}
    assert sizes == {(48, 64, 3)}


def test_errors_are_one_line(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = str(data.parent / "out")
    for options, words in (
        (["--photos", "sharp/none"], "no such folder"),
        (["--pairs", "sharp/z"], "holds no pairs"),
    ):
        assert main([str(data), "-o", output, *options]) == 1
        told = capsys.readouterr().err
        assert words in told and told.count("\n") == 1
    np.savetxt(data / "sharp/z/broken.png", [1.0])
    assert main([str(data), "-o", output, "--photos", "sharp/z"]) == 1
    assert "broken.png" in capsys.readouterr().err.splitlines()[-1]
