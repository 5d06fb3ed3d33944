"""Training crops: the right pixels, alike in a pair, blurred or not, the same for a step."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from blurkit.data.sampler import CropSampler, UnpairedSampler, find_shards, map_scenes
from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.synthesis import BlurKind
from blurkit.synthesis.drawing import Synthesis, draw_exposure, expose
from blurkit.synthesis.exposure import Exposure, Unblurred
from blurkit.synthesis.rendering import render_crops
from tests.cli.pictures import photo
from tests.io.scenes import write_shard

PAIR = ("blur", "sharp")
HEIGHT, WIDTH = 40, 56


def located(scene: int, height: int = HEIGHT, width: int = WIDTH) -> Record:
    """A pair whose pixels say where they are: (scene, row, column); the blurred one adds 100."""
    rows, columns = np.mgrid[:height, :width]
    sharp = np.stack([np.full_like(rows, scene), rows, columns], axis=2).astype(np.uint8)
    return Record(f"scene {scene}", {"blur": sharp + np.uint8(100), "sharp": sharp})


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Seven scenes in two shards."""
    return [
        write_shard(tmp_path / "train-00000.h5", map(located, range(4))),
        write_shard(tmp_path / "train-00001.h5", map(located, range(4, 7))),
    ]


def place(crop: np.ndarray) -> tuple[int, int, int]:
    """Scene, top and left of a located crop, after checking all its pixels."""
    scene, top, left = crop[0, 0].tolist()
    size = crop.shape[0]
    window = located(scene).images["sharp"][top : top + size, left : left + size]
    np.testing.assert_array_equal(crop, window)
    return scene, top, left


def test_a_share_of_the_crops_is_sharp_in_both(shards: list[Path]) -> None:
    sampler, plain = CropSampler(shards, 16, PAIR, same=0.25), CropSampler(shards, 16, PAIR)
    same = []
    for step in range(100):
        blur, sharp = sampler.batch(seed=1, step=step, size=8)
        wanted_blur, wanted_sharp = plain.batch(seed=1, step=step, size=8)
        np.testing.assert_array_equal(sharp, wanted_sharp)
        same += [bool((a == b).all()) for a, b in zip(blur, sharp, strict=True)]
        for image, is_same, wanted in zip(blur, same[-8:], wanted_blur, strict=True):
            assert is_same or (image == wanted).all()
        again = sampler.batch(seed=1, step=step, size=8, part=slice(3, 6))
        np.testing.assert_array_equal(again[0], blur[3:6])
    assert 0.2 < np.mean(same) < 0.3  # 800 draws: five standard deviations
    assert not (sampler.batch(seed=2, step=0, size=64)[0] == sampler.batch(1, 0, 64)[0]).all()


def test_crops_are_windows_of_the_stored_images(shards: list[Path]) -> None:
    sampler = CropSampler(shards, 16, PAIR)
    places = []
    for step in range(120):
        blur, sharp = sampler.batch(seed=1, step=step, size=8)
        assert blur.shape == sharp.shape == (8, 16, 16, 3) and sharp.dtype == np.uint8
        assert sharp.flags.c_contiguous
        np.testing.assert_array_equal(blur, sharp + np.uint8(100))  # the same window of both
        places += [place(crop) for crop in sharp]
    scenes, tops, lefts = (set(values) for values in zip(*places, strict=True))
    assert scenes == set(range(7))
    assert tops == set(range(HEIGHT - 16 + 1))
    assert lefts == set(range(WIDTH - 16 + 1))


def test_every_orientation_comes_as_often(shards: list[Path]) -> None:
    sampler = CropSampler(shards, 16, PAIR)
    drawn = np.concatenate([sampler.turns(1, step, 8) for step in range(120)])
    assert set(drawn) == set(range(8))
    assert np.bincount(drawn).min() > 0.7 * len(drawn) / 8
    np.testing.assert_array_equal(sampler.turns(1, 5, 8)[2:6], sampler.turns(1, 5, 8, slice(2, 6)))


def test_the_same_seed_and_step_give_the_same_batch(shards: list[Path]) -> None:
    first, second = (CropSampler(shards, 16, PAIR) for _ in range(2))
    forward = {step: first.batch(3, step, 5) for step in range(10)}
    for step in (7, 2, 9, 0):  # in any order, as after resuming
        np.testing.assert_equal(forward[step], second.batch(3, step, 5))
    assert not np.array_equal(forward[0][1], first.batch(4, 0, 5)[1])
    assert not np.array_equal(forward[0][1], forward[1][1])


@pytest.mark.parametrize("count", [2, 3])
def test_processes_share_one_batch(shards: list[Path], count: int) -> None:
    sampler = CropSampler(shards, 16, PAIR)
    share = 12 // count
    slices = [slice(start, start + share) for start in range(0, 12, share)]
    for step in range(5):
        whole = sampler.batch(0, step, 12)
        parts = [CropSampler(shards, 16, PAIR).batch(0, step, 12, part) for part in slices]
        np.testing.assert_equal([*map(np.concatenate, zip(*parts, strict=True))], whole)


@pytest.mark.parametrize("size", [1, 3, 5, 7, 20])
def test_every_record_comes_once_an_epoch(shards: list[Path], size: int) -> None:
    sampler = CropSampler(shards, 16, PAIR)
    assert len(sampler) == 7
    steps = -(-7 * 6 // size)
    order = [place(c)[0] for step in range(steps) for c in sampler.batch(5, step, size)[1]]
    epochs = [order[i : i + 7] for i in range(0, 7 * 6, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


@pytest.mark.parametrize("size", [(10, 56), (40, 9), (5, 6), (1, 1), (1, 30), (16, 16)])
def test_images_below_the_crop_are_reflected(tmp_path: Path, size: tuple[int, int]) -> None:
    sampler = CropSampler([write_shard(tmp_path / "a.h5", [located(0, *size)])], 16, PAIR)
    blur, sharp = sampler.cut(0, 0.0, 0.0)
    assert sharp.shape == (16, 16, 3)
    np.testing.assert_array_equal(blur, sharp + np.uint8(100))
    for there, length in zip((sharp[:, 0, 1], sharp[0, :, 2]), size, strict=True):
        bounce = [*range(length), *range(length - 2, 0, -1)] or [0]
        np.testing.assert_array_equal(there, [bounce[i % len(bounce)] for i in range(16)])
    assert sampler.batch(0, 0, 4)[0].shape == (4, 16, 16, 3)


def test_gray_fills_all_channels(tmp_path: Path) -> None:
    color = located(3)
    record = Record("a", {"blur": color.images["blur"][:, :, 1:2], "sharp": color.images["sharp"]})
    blur, sharp = CropSampler([write_shard(tmp_path / "a.h5", [record])], 16, PAIR).batch(0, 0, 6)
    assert blur.shape == (6, 16, 16, 3)
    for channel in range(3):
        np.testing.assert_array_equal(blur[..., channel], sharp[..., 1] + np.uint8(100))


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_depth_is_kept(tmp_path: Path, dtype: type) -> None:
    scale = np.uint16(257) if dtype == np.uint16 else np.float32(1 / 255)
    record = located(0)
    deep = {key: (image * scale).astype(dtype) for key, image in record.images.items()}
    shards = [write_shard(tmp_path / f"{r.name}.h5", [r]) for r in (record, Record("deep", deep))]
    plain, stored = (CropSampler([shard], 16, PAIR).batch(2, 0, 6) for shard in shards)
    for eight, other in zip(plain, stored, strict=True):
        assert other.dtype == dtype
        np.testing.assert_array_equal(other, (eight * scale).astype(dtype))


def test_mixed_depths_become_float(tmp_path: Path) -> None:
    record = located(0)
    deep = {key: image.astype(np.uint16) * 257 for key, image in record.images.items()}
    mixed = write_shard(tmp_path / "a.h5", [record, Record("deep", deep)])
    plain = write_shard(tmp_path / "b.h5", [record, record])
    both = (CropSampler([shard], 16, PAIR).batch(0, 0, 2) for shard in (mixed, plain))
    for images, eight in zip(*both, strict=True):
        assert images.dtype == np.float32
        np.testing.assert_allclose(images, eight / 255, atol=1e-6)


@pytest.mark.parametrize("compression", ["gzip", "lzf"])
def test_packed_shards_are_the_same(tmp_path: Path, shards: list[Path], compression: str) -> None:
    packed = write_shard(tmp_path / "packed.h5", map(located, range(7)), compression)
    with h5py.File(packed) as file:
        assert file["00000000/blur"].chunks is not None
    plain, other = CropSampler(shards, 16, PAIR), CropSampler([packed], 16, PAIR)
    for step in range(8):
        np.testing.assert_equal(plain.batch(0, step, 5), other.batch(0, step, 5))


def test_one_image_and_records_without_it(tmp_path: Path) -> None:
    only_blur = Record("blurred", {"blur": located(9).images["blur"]})
    path = write_shard(tmp_path / "a.h5", [located(0), only_blur, located(1)])
    assert [scene.name for scene in map_scenes([path], PAIR)] == ["scene 0", "scene 1"]
    (blur,) = CropSampler([path], 16, ("blur",)).batch(0, 0, 3)
    assert sorted({int(crop[0, 0, 0]) for crop in blur}) == [100, 101, 109]
    with pytest.raises(BlurkitError, match=r"a\.h5: no record holds sharp and restored"):
        CropSampler([path], 16, ("sharp", "restored"))
    with pytest.raises(BlurkitError, match="no shard: no record holds blur"):
        CropSampler([], 16, ("blur",))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_nothing_is_printed_if_closing_fails(shards: list[Path]) -> None:
    folder, path = shards[0].parent, str(shards[0])
    code = "from blurkit.data.sampler import *; map_scenes([Path(sys.argv[1])], ['sharp'])"
    fail = "inject=close:error=ENOSPC:when=4"  # that of h5py
    command = ["strace", "-f", "-o", "calls", "-e", fail, "-P", path, sys.executable, "-c"]
    command += [f"import sys; {code}", path]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder)
    assert ran.stderr == "" and "INJECTED" in (folder / "calls").read_text()


def test_images_of_two_sizes_are_refused(tmp_path: Path) -> None:
    record = located(0)
    record.images["blur"] = record.images["blur"][1:]
    with pytest.raises(BlurkitError, match=r"a\.h5: record 'scene 0' has images of two sizes"):
        CropSampler([write_shard(tmp_path / "a.h5", [record])], 16, PAIR)


def test_broken_shards_are_refused(shards: list[Path]) -> None:
    data = shards[0].read_bytes()
    shards[0].write_bytes(data[:-100])
    with pytest.raises(BlurkitError, match=r"00000\.h5: truncated, 100 bytes.*blurkit prepare"):
        CropSampler(shards, 16, PAIR)
    for content, expected in ((b"", "is empty"), (b"text " * 50, "is not a shard")):
        shards[0].write_bytes(content)
        with pytest.raises(BlurkitError, match=rf"train-00000\.h5: {expected}"):
            CropSampler(shards, 16, PAIR)


def test_finding_the_shards_of_a_split(tmp_path: Path, shards: list[Path]) -> None:
    val = write_shard(tmp_path / "val-00000.h5", [located(8)])
    deep = write_shard(tmp_path / "more" / "train-00010.h5", [located(9)])
    own = write_shard(tmp_path / "elsewhere" / "mine.h5", [located(10)])
    assert sorted(find_shards([tmp_path], "train")) == sorted([*shards, deep])
    assert find_shards([tmp_path], "val") == [val]
    assert find_shards([own], "train") == [own]
    assert find_shards([own], "val") == []
    with pytest.raises(BlurkitError, match="none: no such shard or folder; make it with"):
        find_shards([tmp_path / "none"], "train")


def test_crops_of_other_photos_stand_beside(shards: list[Path], tmp_path: Path) -> None:
    """Which ones is chance alone: every scene meets every photo."""
    photos = [Record(f"photo {n}", {"blur": located(20 + n).images["sharp"]}) for n in range(3)]
    other = write_shard(tmp_path / "train-photos.h5", photos)
    paired = CropSampler(shards, 16, PAIR)
    sampler = UnpairedSampler(paired, CropSampler([other], 16, ("blur",)))
    assert sampler.images == ("blur", "sharp", "real") and len(sampler) == 7
    met = set()
    for step in range(60):
        *pair, real = sampler.batch(1, step, 4)
        np.testing.assert_equal(pair, paired.batch(1, step, 4))
        met |= {(place(a)[0], place(b)[0]) for a, b in zip(pair[1], real, strict=True)}
        halves = [sampler.batch(1, step, 4, part)[2] for part in (slice(0, 2), slice(2, 4))]
        np.testing.assert_array_equal(np.concatenate(halves), real)
    assert met == {(scene, photo) for scene in range(7) for photo in (20, 21, 22)}


# ---- blur made for every step --------------------------------------------------------------------

CPU = torch.device("cpu")
STILL = Synthesis("camera", extent=(1, 1))
"""Blur that is none."""


def scene(number: int, paired: bool, height: int = 90, width: int = 120) -> Record:
    sharp = photo(number, height, width)
    images = {"blur": 255 - sharp, "sharp": sharp} if paired else {"sharp": sharp}
    return Record(f"{'pair' if paired else 'photo'} {number}", images)


@pytest.fixture
def mixed(tmp_path: Path) -> list[Path]:
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


def test_photos_without_blur_are_used_only_when_it_is_made(mixed: list[Path]) -> None:
    assert len(CropSampler(mixed, 32, PAIR)) == 3
    assert len(CropSampler(mixed, 32, PAIR, synthesis=Synthesis("camera"))) == 8
    assert CropSampler(mixed, 32, PAIR).unblurred(0, 0, 8) == []
    empty = write_shard(mixed[0].with_name("empty.h5"), [Record("a", {"blur": photo(0)})])
    with pytest.raises(BlurkitError, match=r"empty\.h5: no record holds sharp"):
        CropSampler([empty], 32, PAIR, synthesis=Synthesis())


@pytest.mark.parametrize("crop", [32, 96])
def test_what_is_not_blurred_is_the_crop_itself(mixed: list[Path], crop: int) -> None:
    """With blur that is none, made pairs are twice the sharp window, found pairs as they are."""
    sampler = CropSampler(mixed, crop, PAIR, synthesis=STILL)
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


def test_a_margin_brings_in_what_lies_beside_the_crop(mixed: list[Path]) -> None:
    """A crop blurred with its surroundings is the same crop of the whole photo blurred."""
    sampler = CropSampler(mixed, 32, PAIR, synthesis=Synthesis("camera", extent=(9, 15)))
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


def test_a_share_of_the_pairs_is_blurred_anew(mixed: list[Path]) -> None:
    for share, low, high in ((0.0, 0.62, 0.63), (0.4, 0.74, 0.82), (1.0, 1.0, 1.0)):
        sampler = CropSampler(mixed, 16, PAIR, synthesis=STILL, made=share)
        made = np.mean([len(sampler.unblurred(1, step, 8)) / 8 for step in range(150)])
        assert low <= made <= high
    sampler = CropSampler(mixed, 16, PAIR, same=0.5, synthesis=STILL, made=1.0)
    made = np.mean([len(sampler.unblurred(1, step, 8)) / 8 for step in range(150)])
    assert 0.45 < made < 0.55  # sharp pairs stay sharp


@pytest.mark.parametrize("count", [1, 4])
def test_step_and_seed_alone_decide_the_blur(mixed: list[Path], count: int) -> None:
    synthesis = Synthesis("realistic", extent=(1, 15))
    sampler = CropSampler(mixed, 32, PAIR, synthesis=synthesis, made=0.5)
    for step in (3, 0, 5):
        whole = sampler.unblurred(2, step, 8)
        size = 8 // count
        for part in range(count):
            share = slice(part * size, (part + 1) * size)
            alone = CropSampler(mixed, 32, PAIR, synthesis=synthesis, made=0.5)
            ones = alone.unblurred(2, step, 8, share)
            wanted = [one for one in whole if part * size <= one.place < (part + 1) * size]
            assert [one.place + part * size for one in ones] == [one.place for one in wanted]
            if ones:
                both = (render_crops(crops, 32, CPU) for crops in (ones, wanted))
                assert all(torch.equal(made, other) for made, other in zip(*both, strict=True))
    blur, other = (render_crops(sampler.unblurred(2, step, 8), 32, CPU)[0] for step in (0, 1))
    assert not torch.equal(blur, other)


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
def test_a_gpu_renders_what_the_cpu_does(mixed: list[Path]) -> None:
    synthesis = Synthesis("realistic", noise=0.0, shot=0.0)  # whose noise is the device's own
    unblurred = CropSampler(mixed, 32, PAIR, synthesis=synthesis, made=1.0).unblurred(2, 0, 32)
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
