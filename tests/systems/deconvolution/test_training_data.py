"""Training data of the deconvolution network: pictures that repeat, windows that are sharp."""

from __future__ import annotations

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data
import torch
from scipy import ndimage, signal

from blurkit.data.sources import read_records
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.records import to_float
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.system import shipped_file
from tests.cli.command import assert_done, run
from tests.tools.deconvolution_data import WALL_SIDE, main

JOINING = ("three.", "draft_")
"""How the names of weights begin that only join drafts."""


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo" / "coffee.png"
    path.parent.mkdir()
    imageio.imwrite(path, skimage.data.coffee()[:256, 100:356])
    return path


def repetition(image: np.ndarray) -> float:
    """How alike an image (H, W) and a copy shifted by 8 to 110 pixels are, at the best shift."""
    detail = image - ndimage.gaussian_filter(image, 3)
    products = signal.fftconvolve(detail, detail[::-1, ::-1], mode="same") / np.square(detail).sum()
    rows, columns = np.indices(image.shape)
    far = np.hypot(rows - image.shape[0] // 2, columns - image.shape[1] // 2)
    return float(products[(far >= 8) & (far <= 110)].max())


def made(photos: Path, output: Path, count: int, seed: int = 0) -> list[np.ndarray]:
    """The walls that the command makes, (H, W, 3) in [0, 1]."""
    options = ["--count", str(count), "--seed", str(seed)]
    assert main(["walls", str(photos), "-o", str(output), *options]) == 0
    return [to_float(record.image("sharp")) for record in read_records([output], image="sharp")]


def test_walls_repeat_a_piece_of_a_photo(photo: Path, tmp_path: Path) -> None:
    pictures = made(photo.parent, tmp_path / "walls.h5", 6)
    assert [picture.shape for picture in pictures] == [(WALL_SIDE, WALL_SIDE, 3)] * 6
    found = [repetition(picture.mean(2)) for picture in pictures]
    assert min(found) > 4 * repetition(to_float(imageio.imread(photo)).mean(2))


def test_walls_depend_on_the_seed_alone(photo: Path, tmp_path: Path) -> None:
    first, again, other = (
        made(photo, tmp_path / f"{number}.h5", 2, seed) for number, seed in enumerate((1, 1, 2))
    )
    assert np.array_equal(first, again)
    assert not any(np.array_equal(*pair) for pair in zip(first, other, strict=True))


def test_sharp_windows_come_with_the_kernels_found_there(photo: Path, tmp_path: Path) -> None:
    output = tmp_path / "windows.h5"
    options = ["--sharp", "--side", "128", "--count", "2", "--jobs", "1"]
    assert main(["windows", str(photo), "-o", str(output), *options]) == 0
    records = list(read_records([output]))
    assert len(records) == 2
    for record in records:
        noise = to_float(record.image("blur")) - to_float(record.image("sharp"))
        assert 0 < noise.std() < 2.5 / 255
        assert record.attrs["estimates"].sum((1, 2)) == pytest.approx(1, abs=1e-3)
        assert "kernel" not in record.attrs


def shaken_windows(photo: Path, folder: Path, *options: str, side: int = 128) -> Path:
    """A shard with a window of a shaken photo."""
    pairs, few = folder / "pairs.h5", folder / "windows.h5"
    kind = ["--synthesize", "shake", "--kernel-size", "5", "9", "-q", "--force"]
    assert_done(run("prepare", photo.parent, *kind, "-o", pairs))
    usual = ["--side", str(side), "--jobs", "1", "--force"]
    assert main(["windows", str(pairs), "-o", str(few), *usual, *options]) == 0
    return few


def test_estimates_may_be_followed_by_refined_ones(photo: Path, tmp_path: Path) -> None:
    refine = ["--refine", str(shipped_file("deconvolution"))]
    plain, both = (
        next(iter(read_records([shaken_windows(photo, tmp_path, *options, side=256)]))).attrs
        for options in ([], refine)
    )
    given, refined = torch.from_numpy(both["estimates"]).chunk(2)
    np.testing.assert_array_equal(given, plain["estimates"])
    assert refined.sum((1, 2)).numpy() == pytest.approx(1, abs=1e-3)
    true = padded(torch.from_numpy(both["kernel"])[None], given.shape[-1])
    before, after = (kernel_agreement(kernels, true) for kernels in (given, refined))
    assert (after > before).all()
    assert after.min() > 0.8


def trained(photo: Path, few: Path, start: Path, output: Path, *options: str) -> Checkpoint:
    """The checkpoint of one step."""
    sharp = photo.parent.with_name("sharp.h5")
    assert_done(run("prepare", photo.parent, "--as", "sharp", "-q", "--force", "-o", sharp))
    data = ["train-deblur", sharp, few, "--system", "deconvolution", "-o", output]
    small = ["--start", start, "--iterations", "1", "--batch", "1", "--crop", "64", "--ema", "0"]
    assert_done(run(*data, *small, *options))
    return load_checkpoint(output)


@pytest.mark.slow
def test_a_result_may_keep_some_of_the_initial_weights(photo: Path, tmp_path: Path) -> None:
    few, start = shaken_windows(photo, tmp_path), shipped_file("deconvolution")
    given = load_checkpoint(start)
    for share in (0.0, 0.5, 1.0):
        made = trained(photo, few, start, tmp_path / f"{share}.pt", "--keep", str(share))
        assert made.provenance["start"] == given.provenance
        first, second = (c.networks["deconvolution"] for c in (given, made))
        moved = [key for key in first if not key.startswith(JOINING)]
        same = [torch.allclose(first[k].float(), second[k], atol=0, rtol=1e-5) for k in moved]
        assert all(same) == (share == 1)


@pytest.mark.slow
def test_with_drafts_only_the_step_that_joins_them_is_trained(photo: Path, tmp_path: Path) -> None:
    few, start = shaken_windows(photo, tmp_path), shipped_file("deconvolution")
    given = load_checkpoint(start).networks["deconvolution"]
    drafting = shipped_file()
    options = ["--draft", str(drafting), "--learning-rate", "1"]
    made = trained(photo, few, start, tmp_path / "joined.pt", *options)
    assert made.provenance["draft"] == load_checkpoint(drafting).provenance
    for key, values in made.networks["deconvolution"].items():
        assert torch.equal(values, given[key].float()) != key.startswith(JOINING), key


def test_a_folder_without_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("walls", "windows"):
        assert main([command, str(tmp_path), "-o", str(tmp_path / "out.h5")]) == 1
        assert str(tmp_path) in capsys.readouterr().err
