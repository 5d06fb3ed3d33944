"""Rendered exposures against SciPy, scikit-image and plain arithmetic."""

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
import skimage.transform
import torch
from scipy.spatial.transform import Rotation

from blurkit.synthesis.exposure import Exposure
from blurkit.synthesis.rendering import (
    brightened,
    convolve,
    convolve_each,
    disk,
    outline_mask,
    render,
)
from tests.synthesis.exposures import circle, exposure, photo


def rendered(image: np.ndarray, one: Exposure) -> np.ndarray:
    """The blurry image (H, W, C) of an exposure of `image`."""
    return both(image, one)[0]


def both(image: np.ndarray, one: Exposure) -> tuple[np.ndarray, np.ndarray]:
    tensor = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None]
    blur, sharp = (result[0].permute(1, 2, 0).numpy() for result in render(tensor, [one]))
    return blur, sharp


def each_channel(function: Any, image: np.ndarray, *arguments: Any, **options: Any) -> np.ndarray:
    channels = [function(channel, *arguments, **options) for channel in np.moveaxis(image, 2, 0)]
    return np.stack(channels, axis=2)


# ---- uniform blur -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(5, 9), (6, 9), (8, 4), (1, 1), (31, 31)])
def test_a_kernel_is_a_convolution_in_linear_light(shape: tuple[int, int]) -> None:
    kernel = np.random.default_rng(0).random(shape)
    kernel /= kernel.sum()
    for image in (photo(60, 90), photo(61, 40, grey=True), photo(17, 1), photo(1, 1)):
        direct = each_channel(scipy.ndimage.convolve, image, kernel, mode="reflect")
        exact = convolve(torch.from_numpy(image).permute(2, 0, 1), kernel).permute(1, 2, 0)
        np.testing.assert_allclose(exact, direct, atol=1e-12)
        for gamma in (1.0, 2.2):
            direct = each_channel(scipy.ndimage.convolve, image**gamma, kernel, mode="reflect")
            one = exposure(image.shape[:2], kernel=kernel, gamma=gamma)
            np.testing.assert_allclose(rendered(image, one), direct ** (1 / gamma), atol=1e-5)


def test_many_kernels_at_once_are_each_alone() -> None:
    rng = np.random.default_rng(1)
    kernels = [rng.random(shape) for shape in ((5, 9), (8, 4), (1, 1), (31, 3))]
    images = torch.from_numpy(rng.random((4, 3, 40, 50)))
    together = convolve_each(images, kernels)
    for image, kernel, made in zip(images, kernels, together, strict=True):
        torch.testing.assert_close(made, convolve(image, kernel), atol=1e-12, rtol=0)


def test_a_shifted_point_shifts_the_image_the_same_way() -> None:
    kernel = np.zeros((3, 3))
    kernel[1, 2] = 1
    image = photo(20, 20)
    for one in (exposure((20, 20), kernel=kernel), exposure((20, 20), [(1, 0, 0, 0)] * 2)):
        np.testing.assert_allclose(rendered(image, one)[:, 1:], image[:, :-1], atol=1e-5)


@pytest.mark.parametrize("radius", [0.6, 1.0, 2.3, 6.5])
def test_a_disk_is_round(radius: float) -> None:
    """Against the share of each pixel that lies in the circle, by counting fine points."""
    kernel, fine = disk(radius), 40
    reach = (len(kernel) - 1) // 2
    points = (np.arange((2 * reach + 1) * fine) + 0.5) / fine - reach - 0.5
    inside = np.hypot(points[:, None], points) <= radius
    shares = inside.reshape(2 * reach + 1, fine, 2 * reach + 1, fine).mean(axis=(1, 3))
    np.testing.assert_allclose(kernel, shares / shares.sum(), atol=0.25 / shares.sum())
    assert kernel.sum() == pytest.approx(1)
    image = photo(40, 40)
    direct = each_channel(scipy.ndimage.convolve, image**2.2, kernel, mode="reflect") ** (1 / 2.2)
    one = exposure((40, 40), defocus=radius)
    np.testing.assert_allclose(rendered(image, one), direct, atol=1e-5)


# ---- a moving camera ----------------------------------------------------------------------------


def looked_at(image: np.ndarray, pose: Any, one: Exposure) -> np.ndarray:
    """`image` in one pose, by rays through the pixels of a camera that SciPy turns."""
    right, down, roll, growth = pose
    ways = [np.arctan(right / one.focal), -np.arctan(down / one.focal)]
    turn = Rotation.from_euler("z", roll) * Rotation.from_euler("yx", ways)

    def back(points: np.ndarray) -> np.ndarray:
        x, y = ((points + 0.5 - [one.x, one.y]) / np.exp(growth)).T
        rays = turn.inv().apply(np.stack([x, y, np.full(len(x), one.focal)], axis=1))
        return one.focal * rays[:, :2] / rays[:, 2:] + [one.x, one.y] - 0.5

    return each_channel(skimage.transform.warp, image, back, order=1, mode="symmetric")


@pytest.mark.parametrize(
    "poses",
    [
        [(-2.5, 1.0, 0, 0), (0.5, -0.25, 0, 0), (2.0, -0.75, 0, 0)],
        [(0, 0, -0.04, 0), (0, 0, 0.04, 0)],
        [(0, 0, 0, -0.05), (0, 0, 0, 0.05)],
        [(-6, 3, -0.03, 0.02), (1, -4, 0.01, -0.03), (5, 1, 0.02, 0.01), (0, 0, 0, 0)],
    ],
)
@pytest.mark.parametrize("focal", [90.0, 1e5])
def test_poses_are_averaged_in_linear_light(poses: Any, focal: float) -> None:
    weights = np.arange(1, len(poses) + 1) / sum(range(len(poses) + 1))
    for image in (photo(70, 100), photo(61, 41, grey=True)):
        one = exposure(image.shape[:2], poses, weights=weights, focal=focal)
        frames = [looked_at(image**2.2, pose, one) for pose in poses]
        direct = np.average(frames, axis=0, weights=weights) ** (1 / 2.2)
        np.testing.assert_allclose(rendered(image, one), direct, atol=2e-4)


def test_a_camera_that_stands_still_changes_nothing() -> None:
    image = photo(20, 30)
    np.testing.assert_allclose(rendered(image, exposure((20, 30))), image, atol=1e-6)
    moving = exposure((20, 30), [(0, 0, 0, 0)] * 5)
    np.testing.assert_allclose(rendered(image, moving), image, atol=1e-4)


def test_a_batch_is_rendered_as_each_alone() -> None:
    image = photo(40, 50)
    size = image.shape[:2]
    ways = [[(x, -x / 2, x / 300, 0) for x in np.linspace(-4, 4, n)] for n in (3, 1, 9, 5)]
    objects = [(), (), (circle(20, 20, 9, ways[2], shift_x=8),), (circle(30, 9, 12, ways[3]),)]
    ones = [exposure(size, w, objects=o, focal=60) for w, o in zip(ways, objects, strict=True)]
    images = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).repeat(4, 1, 1, 1)
    images *= torch.tensor([1, 0.9, 0.8, 0.7])[:, None, None, None]
    together = render(images, ones)
    for number, one in enumerate(ones):
        for batch, alone in zip(together, render(images[number : number + 1], [one]), strict=True):
            torch.testing.assert_close(batch[number], alone[0], atol=1e-6, rtol=0)


# ---- objects ------------------------------------------------------------------------------------


def test_the_mask_of_an_object() -> None:
    mask = outline_mask(circle(30.5, 20.5, 12, feather=4.0), 41, 61)
    distance = np.hypot(*np.mgrid[-20:21, -30:31])
    assert (mask[distance < 9.9] == 1).all() and (mask[distance > 14.1] == 0).all()
    assert mask[20, 42] == pytest.approx(0.5) and mask[20, 18] == pytest.approx(0.5)
    assert mask.sum() == pytest.approx(np.pi * 12**2, rel=0.02)
    wavy = outline_mask(circle(30.5, 20.5, 12, outline=(0.2, 0, 0, 0.0, 0, 0)), 41, 61)
    assert wavy[20, 30 + 13] == 1 and wavy[20 + 13, 30] == 0  # twice round it: wide, not high


@pytest.mark.parametrize("shift", [(0, 0), (15, -6)])
def test_an_object_moves_in_front_of_the_scene(shift: tuple[int, int]) -> None:
    image = photo(60, 80)
    camera = [(-2, 0, 0, 0), (0, 1, 0, 0), (2, -1, 0, 0)]
    own = [(0, -3, 0, 0), (1, 0, 0, 0), (-1, 3, 0, 0)]
    moving = circle(45.0, 25.0, 14, own, feather=5.0, shift_x=shift[0], shift_y=shift[1])
    blur, sharp = both(image, exposure((60, 80), camera, objects=(moving,)))
    light = image**2.2
    mask = outline_mask(moving, 60, 80)[:, :, None]
    texture = np.roll(light, (-shift[1], -shift[0]), axis=(0, 1))
    frames = []
    for (x, y, _, _), (dx, dy, _, _) in zip(camera, own, strict=True):
        behind = each_channel(scipy.ndimage.shift, light, (y, x), order=1, mode="reflect")
        cover = np.roll(mask, (y + dy, x + dx), axis=(0, 1))
        front = np.roll(texture, (y + dy, x + dx), axis=(0, 1))
        frames.append(front * cover + (1 - cover) * behind)
    direct = np.mean(frames, axis=0) ** (1 / 2.2)
    np.testing.assert_allclose(blur, direct, atol=3e-4)
    seen = (texture * mask + (1 - mask) * light) ** (1 / 2.2)
    np.testing.assert_allclose(sharp, seen if any(shift) else image, atol=1e-5)


def test_an_object_outside_the_image_is_not_seen() -> None:
    image = photo(30, 40)
    way = [(-2, 0, 0, 0), (2, 0, 0, 0)]
    far = circle(500.0, -300.0, 10, way, shift_x=9)
    without = rendered(image, exposure((30, 40), way))
    found = both(image, exposure((30, 40), way, objects=(far,)))
    np.testing.assert_allclose(found, (without, image), atol=1e-6)


# ---- light and sensor ---------------------------------------------------------------------------


def test_saturated_pixels_streak() -> None:
    """A white pixel five times as bright as it looks, spread over nine: 5/9 of its light each."""
    image = np.zeros((21, 41, 3))
    image[10, 20] = 1
    image[3, 5] = 0.5
    way = [(x, 0, 0, 0) for x in range(-4, 5)]
    for gain, left in ((1, 1 / 9), (5, 5 / 9), (30, 1.0)):
        blur = rendered(image, exposure((21, 41), way, highlights=gain)) ** 2.2
        np.testing.assert_allclose(blur[10, 16:25], left, rtol=1e-3)
        np.testing.assert_allclose(blur[3, 1:10], 0.5**2.2 / 9, rtol=1e-3)  # not saturated
        assert blur[10, :15].max() < 1e-3 and blur[10, 26:].max() < 1e-3


def test_highlights_are_few() -> None:
    """Half of the image is white: a camera would not have shown so much light too dark."""
    image = torch.zeros(3, 20, 20)
    image[:, :10] = 1
    bright = brightened(image, exposure((20, 20), highlights=10.0))
    assert float(bright.mean()) == pytest.approx(0.5 + 0.05)
    assert float(bright[:, 10:].max()) == 0


@pytest.mark.parametrize(("noise", "shot"), [(0.02, 0.0), (0.0, 0.001), (0.01, 0.0005)])
def test_noise_has_the_variance_asked_for(noise: float, shot: float) -> None:
    for level in (0.2, 0.6):
        image = np.full((300, 300, 3), level)
        made = rendered(image, exposure((300, 300), noise=noise, shot=shot, gamma=1.0))
        assert np.var(made) == pytest.approx(noise**2 + shot * level, rel=0.02)
        assert np.mean(made) == pytest.approx(level, abs=2e-4)
        covariance = np.corrcoef(made[:, 1:].ravel(), made[:, :-1].ravel())[0, 1]
        assert abs(covariance) < 0.01  # each pixel has its own


def test_noise_comes_in_linear_light() -> None:
    made = rendered(np.full((300, 300, 3), 0.5), exposure((300, 300), noise=0.01, gamma=2.2))
    slope = 0.5 ** (1 - 2.2) / 2.2  # of the curve from light to pixel values
    assert np.std(made) == pytest.approx(0.01 * slope, rel=0.02)


def test_a_response_curve_takes_the_place_of_the_gamma() -> None:
    levels = np.linspace(0, 1, 256)
    curve = 7 + 3 * (np.exp(3 * levels) - 1)
    image, kernel = photo(40, 50), np.full((1, 7), 1 / 7)
    light = np.interp(image, levels, curve)
    light = each_channel(scipy.ndimage.convolve, light, kernel, mode="reflect")
    direct = np.interp(light, curve, levels)
    one = exposure((40, 50), kernel=kernel, response=curve)
    np.testing.assert_allclose(rendered(image, one), direct, atol=1e-5)


@pytest.mark.parametrize("grey", [False, True])
def test_jpeg_loses_the_more_the_lower_its_quality(grey: bool) -> None:
    image = photo(80, 80, grey)
    errors = []
    for quality in (95, 70, 30):
        made = rendered(image, exposure((80, 80), jpeg=quality)) * 255
        np.testing.assert_allclose(made, made.round(), atol=1e-4)  # a file of 8 bits
        errors.append(np.abs(made - 255 * image).mean())
    assert 0 < errors[0] < errors[1] < errors[2] < 12
