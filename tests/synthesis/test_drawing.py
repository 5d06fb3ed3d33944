"""Exposures drawn at random: centred, as large as asked for, and all of a kind's own."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import skimage.data
from skimage.registration import phase_cross_correlation

from blurkit.errors import UsageError
from blurkit.synthesis import BLUR_KINDS, BlurKind
from blurkit.synthesis.drawing import MIXTURE, Synthesis, draw_exposure, expose
from blurkit.synthesis.exposure import Exposure

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
    for share in (
        np.mean([one.highlights > 1 for one in ones]),
        np.mean([one.noise > 0 for one in ones]),
        np.mean([one.jpeg > 0 for one in ones]),
        np.mean([one.defocus > 0 for one in ones]),
    ):
        assert 0.15 < share < 0.75
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


def test_the_same_generator_draws_the_same() -> None:
    for kind in ("shake", "camera", "objects", "realistic"):
        one, again = (drawn(Synthesis(kind), 2)[1].attributes(*SIZE) for _ in range(2))
        assert one.keys() == again.keys()
        assert all(np.array_equal(one[key], again[key]) for key in one)
        other = drawn(Synthesis(kind), 3)[2].attributes(*SIZE)
        assert other["blur_seed"] != one["blur_seed"]


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
