"""Exposures drawn at random, and the records that they make."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
from skimage.registration import phase_cross_correlation

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.synthesis import BLUR_KINDS, BlurKind
from blurkit.synthesis.drawing import (
    MIXTURE,
    Synthesis,
    draw_exposure,
    expose,
    rescaled,
    synthesize,
)
from blurkit.synthesis.exposure import Exposure
from tests.io.scenes import write_shard

SIZE = 150, 200


def drawn(synthesis: Synthesis, count: int, size: tuple[int, int] = SIZE) -> list[Exposure]:
    return [draw_exposure(np.random.default_rng(n), synthesis, size) for n in range(count)]


def displaced(one: Exposure, x: float, y: float) -> np.ndarray:
    """(T, 2): how far the camera's poses take the point at x, y."""
    points = one.camera_matrices() @ np.array([x, y, 1])
    return points[:, :2] / points[:, 2:] - [x, y]


@pytest.mark.parametrize("kind", ["camera", "linear", "objects"])
def test_movement_is_centred_and_fine(kind: BlurKind) -> None:
    for one in drawn(Synthesis(kind, extent=(5, 30)), 30):
        assert one.weights.sum() == pytest.approx(1) and (one.weights > 0).all()
        for poses in (one.poses, *(moving.poses for moving in one.objects)):
            np.testing.assert_allclose(one.weights @ poses, 0, atol=1e-9)
        ways = [displaced(one, x, y) for x in (0, SIZE[1]) for y in (0, SIZE[0])]
        for way in ways:
            assert np.abs(one.weights @ way).max() < 0.3
        steps = [np.hypot(*np.diff(way, axis=0).T).max() for way in ways]
        if len(one.poses) < 0.95 * 2 * one.extent(*SIZE):
            assert max(steps) < 1.1


@pytest.mark.parametrize("kind", ["camera", "linear", "objects", "realistic"])
def test_blur_stays_where_the_sharp_image_is(kind: BlurKind) -> None:
    """Phase correlation of the blurry and the sharp image in linear light, over many exposures."""
    image = skimage.data.astronaut()[60 : 60 + SIZE[0], 150 : 150 + SIZE[1]]
    window = np.outer(np.hanning(SIZE[0]), np.hanning(SIZE[1]))
    shifts = []
    for one in drawn(replace(Synthesis(kind), extent=(3, 15)), 24):
        light = [(side / 255.0) ** 2.2 for side in expose(image, one)]
        pair = [(side.mean(2) - side.mean()) * window for side in light]
        shifts.append(phase_cross_correlation(*pair, upsample_factor=20, normalization=None)[0])
    assert np.abs(shifts).mean() < 0.3


@pytest.mark.parametrize("kind", [*BLUR_KINDS])
def test_extents_are_those_asked_for(kind: BlurKind) -> None:
    found = [one.extent(*SIZE) for one in drawn(Synthesis(kind, extent=(7, 25)), 60)]
    assert min(found) > 5.4 and max(found) < 26.1
    assert min(found) < 11 and max(found) > 18
    none = [one.extent(*SIZE) for one in drawn(Synthesis(kind, extent=(1, 1)), 6)]
    # Realistic blur may be a little out of focus all the same.
    assert none == [1] * 6 or (kind == "realistic" and 1 < max(none) <= 4)


def test_a_camera_that_turns_blurs_corners_unlike_the_middle() -> None:
    differences = []
    for one in drawn(Synthesis("camera", extent=(20, 20)), 20):
        middle, corner = (np.ptp(displaced(one, x, y), axis=0) for x, y in ((100, 75), (0, 0)))
        differences.append(np.abs(middle - corner).max())
    assert np.median(differences) > 2 and max(differences) > 6


def test_linear_paths_are_straight_and_others_are_not() -> None:
    """By the ratio of the path's widths across and along its main axis."""
    widths = {}
    for kind in ("linear", "camera"):
        paths = [displaced(one, 100, 75).T for one in drawn(Synthesis(kind, extent=(20, 20)), 60)]
        across, along = np.transpose([np.linalg.eigvalsh(np.cov(path)) for path in paths])
        widths[kind] = np.sqrt(across / along)
    assert np.median(widths["linear"]) < 0.05 and np.quantile(widths["linear"], 0.9) < 0.15
    assert np.median(widths["camera"]) > 0.08 and np.quantile(widths["camera"], 0.9) > 0.3


def test_kinds_have_what_is_theirs() -> None:
    for one in drawn(Synthesis("camera"), 10):
        assert one.kernel is None and not one.objects and len(one.poses) > 5
    for one in drawn(Synthesis("objects"), 10):
        assert 1 <= len(one.objects) <= 3
        assert all(moving.poses.shape == one.poses.shape for moving in one.objects)
    for one in drawn(Synthesis("defocus"), 10):
        assert one.defocus >= 4 and len(one.poses) == 1
    for kind in ("shake", "camera", "linear", "objects", "defocus"):
        for one in drawn(Synthesis(kind), 5):
            assert (one.highlights, one.noise, one.shot, one.jpeg) == (1, 0, 0, 0)
    asked = Synthesis("camera", highlights=3.0, noise=0.01, shot=0.001, jpeg=(40, 42))
    for one in drawn(asked, 10):
        assert (one.highlights, one.noise, one.shot) == (3.0, 0.01, 0.001)
        assert 40 <= one.jpeg <= 42


def test_realistic_blur_is_a_mixture() -> None:
    ones = drawn(Synthesis("realistic"), 400)
    kinds = Counter(one.kind for one in ones)
    for kind, share in MIXTURE.items():
        assert kinds[kind] / 400 == pytest.approx(share, abs=0.08)
    for name, none in {"highlights": 1, "noise": 0, "jpeg": 0, "defocus": 0}.items():
        assert 0.15 < np.mean([getattr(one, name) > none for one in ones]) < 0.75
    extents = [one.extent(*SIZE) for one in ones]
    assert np.quantile(extents, 0.05) < 4 and 22 < np.median(extents) < 34 < max(extents) < 62
    plain = drawn(Synthesis("realistic", highlights=1.0, noise=0.0, shot=0.0), 50)
    assert {(one.highlights, one.noise, one.shot) for one in plain} == {(1.0, 0.0, 0.0)}


def test_a_part_is_seen_as_the_whole_would_be() -> None:
    """The camera turns about the middle of the photo that a crop is cut from."""
    synthesis = Synthesis("camera", extent=(12, 12))
    part = draw_exposure(np.random.default_rng(5), synthesis, (64, 64), (400, 600), (300, 20))
    assert (part.x, part.y) == (280, -100)
    assert part.focal >= 0.7 * 600
    assert part.extent(64, 64) == pytest.approx(12, abs=1)


def test_tiny_images_can_be_blurred() -> None:
    for size in ((1, 1), (1, 30), (7, 3)):
        for one in drawn(Synthesis("realistic"), 12, size):
            image = np.full((*size, 3), 100, np.uint8)
            blur, sharp = expose(image, replace(one, noise=0.0, shot=0.0, jpeg=0))
            assert np.abs(blur.astype(int) - 100).max() <= 1
            assert np.abs(sharp.astype(int) - 100).max() <= 1


def test_wrong_options() -> None:
    with pytest.raises(UsageError, match="unknown blur 'spin'; use shake, camera"):
        Synthesis("spin")  # type: ignore[arg-type]
    for options, words in (
        ({"extent": (9, 3)}, "the smaller first"),
        ({"extent": (0, 3)}, "sizes of 1 pixel or more"),
        ({"gamma": 0.0}, "gamma above 0"),
        ({"noise": -1.0}, "0 or more"),
        ({"shot": -1.0}, "0 or more"),
        ({"highlights": 0.5}, "highlights 1 or more"),
        ({"highlights": 0.0}, "highlights 1 or more"),
        ({"jpeg": (0, 50)}, "1 to 100"),
        ({"jpeg": (80, 50)}, "the lower first"),
        ({"scale": (0.0, 1.0)}, "above 0"),
        ({"scale": (2.0, 1.0)}, "the smaller first"),
        ({"kind": "camera", "kernels": (("k", np.ones((1, 1))),)}, "'shake', not 'camera'"),
    ):
        with pytest.raises(UsageError, match=words):
            Synthesis(**options)  # type: ignore[arg-type]


# ---- records -------------------------------------------------------------------------------------


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
    told = {"source": "coffee.png", "seed": 3, "gamma": 2.2}
    told |= {"blur_kind": "shake", "blur_extent": 15}
    assert {key: made.attrs[key] for key in told} == told
    assert not {"noise", "blur_poses", "blur_focal", "blur_jpeg"} & made.attrs.keys()
    assert list(record.images) == ["sharp"] and record.attrs == {"source": "coffee.png"}
    assert made.images["sharp"] is record.images["sharp"]
    expected = direct(record.images["sharp"] / 255.0, kernel, 2.2)
    assert np.abs(made.images["blur"] - 255 * expected).max() <= 0.501


@pytest.mark.parametrize("kind", [*BLUR_KINDS])
def test_a_record_says_how_to_make_it_again(record: Record, tmp_path: Path, kind: BlurKind) -> None:
    curve = np.linspace(0, 1, 256) ** 1.8
    options = [Synthesis(kind), Synthesis(kind, response=curve, highlights=3.0, noise=0.01)]
    made = [synthesize(record, s, copy=copy) for s in options for copy in range(4)]
    for number, one in enumerate(made):
        one.name = str(number)
    write_shard(tmp_path / "made.h5", made)
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
    again = synthesize(record, synthesis, seed=1)
    np.testing.assert_array_equal(one.images["blur"], again.images["blur"])
    copied = synthesize(record, synthesis, seed=1, copy=1)
    assert copied.name == "coffee/1-copy1"
    other = synthesize(Record("other", record.images), synthesis, seed=1)
    for variant in (synthesize(record, synthesis, seed=2), other, copied):
        assert not np.array_equal(variant.images["blur"], one.images["blur"])


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
