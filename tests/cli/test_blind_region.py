"""`blurkit blind-deblur --region`: one search in a part, and the whole photo by what it found."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import blurkit
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import save_checkpoint
from blurkit.io.records import Record, to_float
from blurkit.metrics.psnr import psnr
from blurkit.systems import blind_search
from blurkit.systems.blind_search import SavedSearches, TiledSearch, run_searches
from blurkit.systems.kernel_space.search import advance
from blurkit.tasks.blind_deblur import deblur_by_search
from tests.cli.command import Ran, assert_done, assert_failed, assert_refused, photo, records, write
from tests.cli.invoke import invoke
from tests.systems.kernel_space.searches import (
    QUICK_CONFIG,
    context,
    kernel_checkpoint,
    search_config,
    shaken,
)
from tests.systems.kernel_space.searches import photo as astronaut
from tests.systems.kernel_space.test_search import KERNEL

QUICK: list[object] = ["--precision", "fp32", "--config", QUICK_CONFIG, "--iterations", 3]
PLAIN: list[object] = ["--operator", "convolution", "--kernel-size", 5, *QUICK]
MOVES = [(down, right) for down in (-1, 0, 1) for right in (-1, 0, 1)]
REGION = ["--region", "40,30,64,48"]


@pytest.fixture
def source(one_thread: None, tmp_path: Path) -> Path:
    """A photo of 200x160."""
    return write(tmp_path / "photo.png", photo(0, 160, 200))


def blind(*arguments: object) -> Ran:
    """A blind search in this process, on one thread."""
    return invoke("blind-deblur", *arguments)


def test_the_whole_photo_is_deblurred_by_the_kernel_of_a_region(
    source: Path, tmp_path: Path
) -> None:
    found, cut = tmp_path / "found.h5", tmp_path / "cut.h5"
    ran = blind(source, *PLAIN, *REGION, "--keep-kernel", "-o", found, "--json")
    assert_done(ran)
    (record,) = records(found)
    assert record.images["restored"].shape == (160, 200, 3)
    assert tuple(record.attrs["blind_region"]) == (40, 30, 64, 48)
    assert "region=40,30,64,48; by its kernel" in record.attrs["restored_with"]
    assert record.attrs["blind_kernel_reproduced"] == record.attrs["blind_reproduced"]
    (line,) = ran.json
    assert (line["width"], line["height"], line["iterations"]) == (200, 160, 3)
    # The search saw the region alone.
    part = write(tmp_path / "part/photo.png", photo(0, 160, 200)[30:78, 40:104])
    assert_done(blind(part, *PLAIN, "--keep-kernel", "-o", cut))
    (alone,) = records(cut)
    np.testing.assert_array_equal(record.attrs["kernel"], alone.attrs["kernel"])
    # What it found is undone everywhere, as the command for known kernels does.
    np.save(tmp_path / "kernel.npy", record.attrs["kernel"])
    known = [
        "--kernel",
        tmp_path / "kernel.npy",
        "--gamma",
        1,
        "--precision",
        "fp32",
        "-o",
        tmp_path / "known.png",
    ]
    assert_done(invoke("deblur", source, *known))
    np.testing.assert_array_equal(imageio.imread(tmp_path / "known.png"), record.images["restored"])
    options = {
        "operator": "convolution",
        "kernel_size": 5,
        "prior_width": 8,
        "warm_up": 1,
        "iterations": 3,
    }
    with pytest.warns(UserWarning, match="reproduce the photo|explains the region"):
        given = blurkit.load(precision="fp32").blind_deblur(
            record, region=(40, 30, 64, 48), **options
        )
    np.testing.assert_array_equal(given.images["restored"], record.images["restored"])


def test_a_code_of_a_region_becomes_the_nearest_kernel(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blind_search, "NEAREST", replace(blind_search.NEAREST, iterations=2))
    save_checkpoint(kernel_checkpoint(), tmp_path / "kernel.pt")
    options = ["-c", tmp_path / "kernel.pt", *QUICK, "--kernel-size", 5, *REGION]
    warned = search_config(tmp_path, warn_below=60)
    ran = blind(source, *options, *warned, "--keep-kernel", "-o", tmp_path / "out.png")
    assert_done(ran)
    assert "one kernel explains the region with only" in ran.err
    assert "image and blur reproduce the photo with only" in ran.err
    assert imageio.imread(tmp_path / "out.png").shape == (160, 200, 3)
    assert imageio.imread(tmp_path / "out.blind/kernel.png").shape == (256, 256)


def test_the_kernel_is_shown_beside_the_result(source: Path, tmp_path: Path) -> None:
    assert_done(blind(source, *PLAIN, *REGION, "--keep-kernel"))
    assert imageio.imread(tmp_path / "photo.deblurred.blind/kernel.png").shape == (40, 40)
    shard = [*PLAIN, *REGION, "--keep-kernel", "-o", tmp_path / "out.h5"]
    assert_done(blind(source, *shard, "--save-to", tmp_path / "shown"))
    assert (tmp_path / "shown/photo.blind/kernel.png").exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--region", "1,2,3"], "--region 1,2,3: give four numbers of pixels, X,Y,W,H"),
        (["--region", "1,2,3,x"], "--region 1,2,3,x: give four numbers"),
        (["--region", "1,2,0,3"], "width and height must be at least 1"),
        ([*REGION, "--tile", 128], "--region is searched without tiles"),
        ([*REGION, "--operator", "downsampling"], "--operator downsampling has no kernel"),
    ],
)
def test_regions_that_make_no_sense(source: Path, options: list[object], words: str) -> None:
    assert_refused(invoke("blind-deblur", source, *PLAIN, *options), words, status=2)


def test_a_region_beyond_the_photo_is_reported(source: Path) -> None:
    ran = blind(source, *PLAIN, "--region", "150,0,64,48")
    assert_failed(ran, "photo", "is 200x160, but --region ends at 214,48")


def test_a_search_in_a_region_is_resumed(tmp_path: Path) -> None:
    shared = context(iterations=20, patience=0)
    record = Record("photo", {"blur": astronaut(96, 96)})
    whole, half, rest = (TiledSearch(record, shared, region=(10, 20, 64, 64)) for _ in range(3))
    list(run_searches([whole]))
    half.searches[0].begin()
    for _ in range(12):
        advance(half.searches)
    saved, file = SavedSearches({"region": "10,20,64,64"}), tmp_path / "state.pt"
    saved.save(file, [half])
    rest.load_state_dict(saved.load(file).searches["photo"])
    assert rest.iteration == 10  # two of the steps were the warm-up
    list(run_searches([rest]))
    kernels = [each.searches[0].found.blur for each in (whole, rest)]
    assert torch.equal(*kernels)
    with pytest.raises(BlurkitError, match="now 1,2,3,4"):
        SavedSearches({"region": "1,2,3,4"}).load(file)


@pytest.mark.slow
def test_the_nearest_kernel_is_the_one_that_blurred() -> None:
    job = TiledSearch(Record("photo", {"blur": astronaut(256, 256)}), context("kernel-space"))
    (search,) = job.searches
    sharp = astronaut(256, 256) / np.float32(255)
    blurry = torch.from_numpy(shaken(sharp, KERNEL).astype(np.float32)).permute(2, 0, 1)[None]
    search.found = replace(
        search.found,
        picture=torch.from_numpy(sharp).permute(2, 0, 1)[None],
        blur=torch.zeros(1, 16, 2, 2),
    )
    search.photo = blurry
    kernel, reproduced = job.nearest_kernel()
    # The picture was aligned first, which moves the kernel.
    moved = [np.roll(kernel, move, (0, 1)) for move in MOVES]
    assert max(np.corrcoef(each.ravel(), KERNEL.ravel())[0, 1] for each in moved) > 0.9
    assert reproduced > 35


@pytest.mark.slow
def test_the_kernel_of_a_region_sharpens_the_whole_photo() -> None:
    sharp = astronaut(256, 256)
    blurry = np.rint(255 * shaken(sharp, KERNEL).clip(0, 1)).astype(np.uint8)
    rates = {"image_rate": 5e-3, "kernel_rate": 5e-4}
    shared = context(iterations=1200, prior_width=32, patience=0, **rates)
    search = TiledSearch(Record("photo", {"blur": blurry}), shared, region=(64, 64, 128, 128))
    list(run_searches([search]))
    restored = deblur_by_search(search, "test").images["restored"]
    inside = (slice(8, -8), slice(8, -8))
    before, after = (
        max(psnr(np.roll(image, move, (0, 1))[inside], sharp[inside]) for move in MOVES)
        for image in (blurry, restored)
    )
    assert after > before + 0.3, (before, after)  # measured: 28.69 and 29.19 dB
    assert to_float(restored).shape == (256, 256, 3)
