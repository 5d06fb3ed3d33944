"""Records with synthetic blur: told by their attributes, and the same whatever the order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.data

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.io.streams import ShardWriter
from blurkit.synthesis import BLUR_KINDS, BlurKind
from blurkit.synthesis.drawing import Synthesis, expose, rescaled, synthesize
from blurkit.synthesis.exposure import Exposure


@pytest.fixture
def record() -> Record:
    return Record("coffee/1", {"sharp": skimage.data.coffee()[:80, :100]}, {"source": "coffee.png"})


def direct(image: np.ndarray, kernel: np.ndarray, gamma: float) -> np.ndarray:
    channels = [
        scipy.ndimage.convolve(image[:, :, c].astype(float) ** gamma, kernel, mode="reflect")
        for c in range(image.shape[2])
    ]
    return np.stack(channels, axis=2) ** (1 / gamma)


def test_the_record_tells_how_it_was_blurred(record: Record) -> None:
    made = synthesize(record, Synthesis("shake", extent=(15, 15)), seed=3)
    assert (made.name, list(made.images)) == ("coffee/1", ["sharp", "blur"])
    kernel = made.attrs.pop("kernel")
    assert kernel.shape == (15, 15)
    told = {key: made.attrs[key] for key in ("source", "seed", "gamma", "blur_kind", "blur_extent")}
    assert told == {
        "source": "coffee.png",
        "seed": 3,
        "gamma": 2.2,
        "blur_kind": "shake",
        "blur_extent": 15,
    }
    assert not {"noise", "blur_poses", "blur_focal", "blur_jpeg"} & made.attrs.keys()
    assert list(record.images) == ["sharp"] and record.attrs == {"source": "coffee.png"}
    assert made.images["sharp"] is record.images["sharp"]
    expected = direct(record.images["sharp"] / 255.0, kernel, 2.2)
    assert np.abs(made.images["blur"] - 255 * expected).max() <= 0.501


@pytest.mark.parametrize("kind", [*BLUR_KINDS])
def test_a_stored_record_tells_how_to_make_it_again(
    record: Record, tmp_path: Path, kind: BlurKind
) -> None:
    curve = np.linspace(0, 1, 256) ** 1.8
    options = [Synthesis(kind), Synthesis(kind, response=curve, highlights=3.0, noise=0.01)]
    made = [synthesize(record, s, copy=copy) for s in options for copy in range(4)]
    for number, one in enumerate(made):
        one.name = str(number)
    with ShardWriter(tmp_path / "made.h5") as shard:
        for one in made:
            shard.write(one)
    for stored in read_records([tmp_path / "made.h5"]):
        blur, sharp = expose(record.images["sharp"], Exposure.from_attributes(stored.attrs))
        np.testing.assert_array_equal(blur, stored.images["blur"])
        np.testing.assert_array_equal(sharp, stored.images["sharp"])
    with pytest.raises(KeyError, match="blur_kind"):
        Exposure.from_attributes(record.attrs)


def test_objects_are_put_into_the_sharp_image_too(record: Record) -> None:
    changed = 0
    for copy in range(12):
        made = synthesize(record, Synthesis("objects"), copy=copy)
        objects = Exposure.from_attributes(made.attrs).objects
        same = np.array_equal(made.images["sharp"], record.images["sharp"])
        assert same == (not any(m.shift_x or m.shift_y for m in objects))
        changed += not same
    assert 2 < changed < 12
    assert np.array_equal(record.images["sharp"], skimage.data.coffee()[:80, :100])


@pytest.mark.parametrize("kind", [*BLUR_KINDS])
def test_depth_and_channels_stay(record: Record, kind: BlurKind) -> None:
    for image in (
        skimage.data.coffee()[:30, :40].astype(np.uint16) * 257,
        (skimage.data.camera()[:30, :40, None] / 255).astype(np.float32),
        skimage.data.coffee()[:1, :1],
    ):
        for copy in range(3):
            made = synthesize(Record("a", {"sharp": image}), Synthesis(kind), copy=copy).images
            for name in ("blur", "sharp"):
                assert (made[name].shape, made[name].dtype) == (image.shape, image.dtype)


def test_sixteen_bits_are_not_made_of_eight() -> None:
    ramp = np.linspace(20000, 21000, 64 * 64).astype(np.uint16).reshape(64, 64, 1)
    blur = synthesize(Record("a", {"sharp": ramp}), Synthesis("camera")).images["blur"]
    assert len(np.unique(blur)) > 500


@pytest.mark.parametrize("kind", ["shake", "camera", "realistic"])
def test_seed_name_and_copy_alone_decide(record: Record, kind: BlurKind) -> None:
    synthesis = Synthesis(kind, noise=0.02)
    one = synthesize(record, synthesis, seed=1)
    other = Record("other", record.images)
    variants = [
        synthesize(record, synthesis, seed=2),
        synthesize(other, synthesis, seed=1),
        synthesize(record, synthesis, seed=1, copy=1),
    ]
    again = synthesize(record, synthesis, seed=1)
    np.testing.assert_array_equal(one.images["blur"], again.images["blur"])
    for variant in variants:
        assert not np.array_equal(variant.images["blur"], one.images["blur"])
    assert variants[2].name == "coffee/1-copy1"


def test_given_kernels(record: Record) -> None:
    kernels = tuple((f"k{n}", np.full((1, n), 1 / n)) for n in (3, 5, 7))
    made = [synthesize(record, Synthesis(kernels=kernels), copy=copy) for copy in range(12)]
    assert {m.attrs["kernel_name"] for m in made} == {"k3", "k5", "k7"}
    for one in made:
        np.testing.assert_array_equal(one.attrs["kernel"], dict(kernels)[one.attrs["kernel_name"]])


def test_photos_are_resized_before(record: Record) -> None:
    record.images["alpha"] = np.full((80, 100, 1), 255, np.uint8)
    synthesis = Synthesis("camera", scale=(0.5, 1.5))
    made = [synthesize(record, synthesis, copy=copy) for copy in range(8)]
    scales = [one.attrs["scale"] for one in made]
    assert 0.5 <= min(scales) < 0.8 and 1.2 < max(scales) <= 1.5
    for one, scale in zip(made, scales, strict=True):
        sizes = {image.shape[:2] for image in one.images.values()}
        assert sizes == {(round(80 * scale), round(100 * scale))}
        np.testing.assert_array_equal(one.images["sharp"], rescaled(record.images["sharp"], scale))
    assert "scale" not in synthesize(record, Synthesis("camera")).attrs
    ramp = np.repeat(np.linspace(50, 200, 64)[None, :, None], 32, axis=0).astype(np.uint8)
    half = rescaled(ramp, 0.5)
    mean = ramp.reshape(16, 2, 32, 2, 1).mean(axis=(1, 3))
    assert np.abs(half - mean)[:, 2:-2].max() <= 1


def test_wrong_use(record: Record) -> None:
    with pytest.raises(UsageError, match="a seed is 0 or more, got -1"):
        synthesize(record, Synthesis(), seed=-1)
    with pytest.raises(BlurkitError, match="sharp is needed"):
        synthesize(Record("a", {"blur": record.images["sharp"]}), Synthesis())
