"""Crops whose blur is made for every step: the right pixels, the right share, the same again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from blurkit.data.sampler import CropSampler
from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.synthesis import BlurKind
from blurkit.synthesis.drawing import Synthesis, draw_exposure, expose
from blurkit.synthesis.exposure import Exposure, Unblurred
from blurkit.synthesis.rendering import render_crops
from tests.cli.command import photo
from tests.io.scenes import write_shard

PAIR = ("blur", "sharp")
CPU = torch.device("cpu")
STILL = Synthesis("camera", extent=(1, 1))
"""Blur that is none."""


def scene(number: int, paired: bool, height: int = 90, width: int = 120) -> Record:
    sharp = photo(number, height, width)
    images = {"blur": 255 - sharp, "sharp": sharp} if paired else {"sharp": sharp}
    return Record(f"{'pair' if paired else 'photo'} {number}", images)


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Three pairs, whose blur is the negative, and five sharp photos."""
    scenes = [scene(number, paired=number < 3) for number in range(8)]
    return [write_shard(tmp_path / "train-00000.h5", scenes)]


def batches(sampler: CropSampler, step: int, size: int = 8) -> list[np.ndarray]:
    """The crops of a step as training sees them, before they are turned."""
    crops = [images.astype(np.float32) / 255 for images in sampler.batch(7, step, size)]
    if unblurred := sampler.unblurred(7, step, size):
        places = [one.place for one in unblurred]
        for images, made in zip(crops, render_crops(unblurred, sampler.crop, CPU), strict=True):
            images[places] = made.permute(0, 2, 3, 1).numpy()
    return crops


def test_photos_without_blur_are_used_only_when_it_is_made(shards: list[Path]) -> None:
    assert len(CropSampler(shards, 32, PAIR)) == 3
    assert len(CropSampler(shards, 32, PAIR, synthesis=Synthesis("camera"))) == 8
    assert CropSampler(shards, 32, PAIR).unblurred(0, 0, 8) == []
    empty = write_shard(shards[0].with_name("empty.h5"), [Record("a", {"blur": photo(0)})])
    with pytest.raises(BlurkitError, match=r"empty\.h5: no record holds sharp"):
        CropSampler([empty], 32, PAIR, synthesis=Synthesis())


@pytest.mark.parametrize("crop", [32, 96])
def test_what_is_not_blurred_is_the_crop_itself(shards: list[Path], crop: int) -> None:
    """With blur that is none, made pairs are twice the sharp window, found pairs as they are."""
    sampler = CropSampler(shards, crop, PAIR, synthesis=STILL)
    sampler.margin = 20
    found = 0
    for step in range(6):
        blur, sharp = batches(sampler, step)
        _, stored = (images.astype(np.float32) / 255 for images in sampler.batch(7, step, 8))
        if crop <= 90:  # larger ones are mirrored beyond the photo, otherwise than in rendering
            np.testing.assert_allclose(sharp, stored, atol=1e-6)
        for one, other in zip(blur, sharp, strict=True):
            paired = np.allclose(one, 1 - other, atol=1e-6)
            assert paired or np.allclose(one, other, atol=1e-6)
            found += paired
    assert found == 3 * 6  # every record once an epoch of eight


def test_a_margin_brings_in_what_lies_beside_the_crop(shards: list[Path]) -> None:
    """A crop blurred with its surroundings is the same crop of the whole photo blurred."""
    sampler = CropSampler(shards, 32, PAIR, synthesis=Synthesis("camera", extent=(9, 15)))
    assert sampler.margin == 9
    photos, compared = [photo(number, 90, 120) for number in range(8)], 0
    for step in range(12):
        for one in sampler.unblurred(7, step, 8):
            wide = 32 + 2 * sampler.margin
            assert one.sharp.shape == (wide, wide, 3)
            corner = (round(45 - one.exposure.y), round(60 - one.exposure.x))
            if min(corner) < 0 or corner[0] + wide > 90 or corner[1] + wide > 120:
                continue
            window = (slice(corner[0], corner[0] + wide), slice(corner[1], corner[1] + wide))
            assert any(np.array_equal(one.sharp, whole[window]) for whole in photos)
            compared += 1
    assert compared > 5


def test_a_share_of_the_pairs_is_blurred_anew(shards: list[Path]) -> None:
    for share, low, high in ((0.0, 0.62, 0.63), (0.4, 0.74, 0.82), (1.0, 1.0, 1.0)):
        sampler = CropSampler(shards, 16, PAIR, synthesis=STILL, made=share)
        made = np.mean([len(sampler.unblurred(1, step, 8)) / 8 for step in range(150)])
        assert low <= made <= high
    sampler = CropSampler(shards, 16, PAIR, same=0.5, synthesis=STILL, made=1.0)
    made = np.mean([len(sampler.unblurred(1, step, 8)) / 8 for step in range(150)])
    assert 0.45 < made < 0.55  # sharp pairs stay sharp


@pytest.mark.parametrize("count", [1, 2, 4])
def test_step_and_seed_alone_decide(shards: list[Path], count: int) -> None:
    synthesis = Synthesis("realistic", extent=(1, 15))
    sampler = CropSampler(shards, 32, PAIR, synthesis=synthesis, made=0.5)
    for step in (3, 0, 5):
        whole = sampler.unblurred(2, step, 8)
        size = 8 // count
        for part in range(count):
            share = slice(part * size, (part + 1) * size)
            alone = CropSampler(shards, 32, PAIR, synthesis=synthesis, made=0.5)
            ones = alone.unblurred(2, step, 8, share)
            wanted = [one for one in whole if part * size <= one.place < (part + 1) * size]
            assert [one.place + part * size for one in ones] == [one.place for one in wanted]
            if not ones:
                continue
            both = (render_crops(crops, 32, CPU) for crops in (ones, wanted))
            assert all(torch.equal(made, other) for made, other in zip(*both, strict=True))
    blur = render_crops(sampler.unblurred(2, 0, 8), 32, CPU)[0]
    other = render_crops(sampler.unblurred(2, 1, 8), 32, CPU)[0]
    assert blur.shape != other.shape or not torch.equal(blur, other)


@pytest.mark.parametrize("kind", ["shake", "camera"])
def test_crops_are_blurred_as_prepare_blurs_the_whole_photo(kind: BlurKind) -> None:
    """Against `expose`, which `prepare --synthesize` calls, of the photo that a crop is part of."""
    whole, crop, margin, corner = photo(3, 120, 160), 48, 12, (20, 40)
    synthesis = Synthesis(kind, extent=(7, 19))
    for seed in range(4):
        exposure = draw_exposure(np.random.default_rng(seed), synthesis, (120, 160))
        window = tuple(slice(start, start + crop + 2 * margin) for start in corner)
        part = replace(exposure, x=exposure.x - corner[1], y=exposure.y - corner[0])
        blur, sharp = render_crops([Unblurred(0, whole[window], part)], crop, CPU)
        inside = tuple(slice(start + margin, start + margin + crop) for start in corner)
        for made, stored in ((blur, expose(whole, exposure)[0]), (sharp, whole)):
            levels = 255 * made[0].permute(1, 2, 0).numpy() - stored[inside].astype(np.float32)
            assert np.abs(levels).max() <= 1.001  # rounding may go either way
            assert np.abs(levels).mean() < 0.01


def test_a_kernel_of_one_pixel_gives_the_photo_back() -> None:
    whole = photo(3, 72, 72)
    for side in (1, 15):
        kernel = np.zeros((side, side))
        kernel[side // 2, side // 2] = 1
        one = Unblurred(0, whole, Exposure("shake", 0, kernel=kernel))
        for made in render_crops([one], 48, CPU):
            levels = (255 * made[0].permute(1, 2, 0)).numpy()
            np.testing.assert_allclose(levels, whole[12:60, 12:60], atol=1e-3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_gpu_renders_what_the_cpu_does(shards: list[Path]) -> None:
    synthesis = Synthesis("realistic", noise=0.0, shot=0.0)  # whose noise is the device's own
    unblurred = CropSampler(shards, 32, PAIR, synthesis=synthesis, made=1.0).unblurred(2, 0, 32)
    pairs = (render_crops(unblurred, 32, device) for device in (CPU, torch.device("cuda")))
    for here, there in zip(*pairs, strict=True):
        assert (255 * (here - there.cpu())).abs().mean() < 0.05


def test_grey_and_deep_photos_are_blurred_too(tmp_path: Path) -> None:
    grey = Record("grey", {"sharp": photo(1, 60, 60)[:, :, :1]})
    deep = Record("deep", {"sharp": photo(2, 60, 60).astype(np.uint16) * 257})
    path = write_shard(tmp_path / "train-00000.h5", [grey, deep])
    sampler = CropSampler([path], 32, PAIR, synthesis=STILL)
    (grey,), (deep,) = (
        [one for one in sampler.unblurred(0, 0, 2) if one.sharp.dtype == dtype]
        for dtype in (np.uint8, np.uint16)
    )
    blur, sharp = render_crops([grey, deep], 32, CPU)
    assert blur.shape == sharp.shape == (2, 3, 32, 32)
    assert torch.equal(blur[0, 0], blur[0, 2]) and not torch.equal(blur[1, 0], blur[1, 2])
    stored = sampler.batch(0, 0, 2)[1][[grey.place, deep.place]].transpose(0, 3, 1, 2)
    torch.testing.assert_close(sharp, torch.from_numpy(stored), atol=1e-6, rtol=0)
