"""Kernels are cleaned, compared, measured and resized as what they are: strokes."""

import math

import numpy as np
import pytest
import scipy.signal
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.synthesis.kernels import CARRIED, random_trajectory, scaled_path, splat
from blurkit.systems.deconvolution.fourier import (
    cleaned,
    halfway,
    kernel_agreement,
    padded,
    resized_kernels,
    shape,
    trimmed,
)
from blurkit.systems.deconvolution.windows import STRAIGHT
from tests.systems.deconvolution.photos import batch, noise, shake


def line(down: int, right: int, count: int, size: int = 41) -> np.ndarray:
    """An even stroke of `count` pixels, each (down, right) from the one before."""
    kernel = np.zeros((size, size))
    for step in range(count):
        row, column = (size // 2 + d * (step - count // 2) for d in (down, right))
        kernel[row, column] = 1 / count
    return kernel


def within(kernel: np.ndarray, size: int) -> np.ndarray:
    """A kernel in the middle of a square of zeros."""
    return np.pad(kernel, (size - kernel.shape[0]) // 2)


def turn(one: float, other: float) -> float:
    """The degrees between two directions of strokes."""
    return abs((one - other + 90) % 180 - 90)


def test_specks_and_faint_values_are_removed() -> None:
    stroke = np.zeros((21, 21))
    stroke[8:13, 5:16] = np.random.default_rng(0).uniform(0.3, 1, (5, 11))
    rough = stroke.copy()
    rough[2, 2] = 0.9  # a speck as bright as the stroke, with little of the sum
    rough[17:19, 17] = 0.5
    rough[8:13, 4] = 0.02  # joined to it, but faint
    rough[0, :] = -0.5
    (result,) = cleaned(batch(rough), 0.05, 0.1).numpy()
    assert result.sum() == pytest.approx(1, abs=1e-6) and result.min() == 0
    np.testing.assert_allclose(result, stroke / stroke.sum(), atol=1e-6)


def test_the_faint_path_of_a_camera_that_rested_is_kept() -> None:
    rested = np.zeros((21, 21))
    rested[10, 4:17] = 0.3 / 13
    rested[10, 10] += 0.7
    rough = rested.copy()
    rough[16, 3] = 0.004  # a speck
    (usual,) = cleaned(batch(rough), 0.05, 0.1).numpy()
    assert np.count_nonzero(usual) == 1
    (result,) = cleaned(batch(rough), 0.2, 0.1, resting=True).numpy()
    np.testing.assert_allclose(result, rested, atol=1e-6)


def test_a_second_part_is_kept_if_it_holds_enough() -> None:
    parts = np.zeros((15, 15))
    parts[7, 3:7], parts[7, 9:12] = 1, 1
    (both,) = cleaned(batch(parts), 0.05, 0.4).numpy()
    (one,) = cleaned(batch(parts), 0.05, 0.45).numpy()
    assert ndimage.label(both)[1] == 2 and np.count_nonzero(both) == 7
    assert ndimage.label(one)[1] == 1 and np.count_nonzero(one) == 4
    parts[8, 7], parts[7, 8] = 1, 1  # corners join too
    (whole,) = cleaned(batch(parts), 0.05, 0.45).numpy()
    assert np.count_nonzero(whole) == 9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift", [(0, 0), (5, -4), (-3, 6)])
def test_cleaned_kernels_are_in_the_middle(seed: int, shift: tuple[int, int]) -> None:
    kernel = within(shake(seed, 11), 33)
    moved = np.roll(kernel, shift, (0, 1))
    (result,) = cleaned(batch(moved), 0, 0)
    (original,) = cleaned(batch(kernel), 0, 0)
    away = np.subtract(ndimage.center_of_mass(result.numpy()), 16)
    assert np.abs(away).max() <= 0.5 + 1e-5
    torch.testing.assert_close(result, original)


def test_nothing_left_is_no_blur() -> None:
    rough = np.stack([np.zeros((9, 9)), np.full((9, 9), -1.0), shake(0, 9)])
    none, negative, stroke = cleaned(torch.from_numpy(rough), 0.05, 0.1)
    point = torch.zeros(9, 9, dtype=torch.float64)
    point[4, 4] = 1
    assert torch.equal(none, point) and torch.equal(negative, point)
    assert stroke.dtype == torch.float64 and stroke.max() < 1


def test_cleaning_leaves_what_it_is_given() -> None:
    kernels = batch(shake(0, 15), shake(1, 15)) - 0.01
    before = kernels.clone()
    cleaned(kernels, 0.05, 0.1)
    assert torch.equal(kernels, before)


def strokes() -> Tensor:
    return batch(*(within(shake(seed, 15), 31) for seed in range(6)))


@pytest.mark.parametrize("shift", [(0, 0), (7, -5), (-8, -8)])
def test_shifted_copies_agree(shift: tuple[int, int]) -> None:
    alike = kernel_agreement(strokes(), torch.roll(strokes(), shift, (1, 2)))
    np.testing.assert_allclose(alike.numpy(), 1, atol=1e-5)


def test_agreement_is_the_largest_normalised_correlation() -> None:
    kernels = strokes()
    for other in (kernels.flip(0), kernels.flip(1), kernels.mT, batch(*[line(0, 1, 15, 25)] * 6)):
        alike = kernel_agreement(kernels, other)
        for one, two, found in zip(kernels.numpy(), other.numpy(), alike, strict=True):
            most = scipy.signal.correlate2d(one, two).max()
            expected = most / np.linalg.norm(one) / np.linalg.norm(two)
            assert float(found) == pytest.approx(expected, abs=1e-5)
        assert alike.max() < 0.95
        torch.testing.assert_close(kernel_agreement(other, kernels), alike)


def test_opposite_borders_are_no_neighbours() -> None:
    ends, pair = np.zeros((9, 9)), np.zeros((9, 9))
    ends[4, [0, 8]], pair[4, [4, 5]] = 0.5, 0.5
    assert float(kernel_agreement(batch(ends), batch(pair))) == pytest.approx(0.5, abs=1e-5)


def test_no_other_kernel_agrees_as_well() -> None:
    kernels = strokes()
    noisy = cleaned(kernels + batch(*noise((6, 31, 31), 0.001)), 0.05, 0.1)
    own = kernel_agreement(kernels, noisy)
    for step in range(1, 6):
        assert (kernel_agreement(kernels, kernels.roll(step, 0)) < own - 0.05).all()


@pytest.mark.parametrize(
    ("down", "right"), [(0, 1), (-1, 2), (-1, 1), (-2, 1), (1, 0), (1, 1), (1, 3)]
)
@pytest.mark.parametrize("count", [3, 12])
def test_lines_have_their_length_and_angle(down: int, right: int, count: int) -> None:
    angle = math.degrees(math.atan2(-down, right))  # rows run downwards
    for sign in (1, -1):  # a stroke has no direction
        kernel = line(sign * down, sign * right, count, 81)
        for moved in (kernel, np.roll(kernel, (5, -9), (0, 1))):
            form = shape(torch.from_numpy(moved))
            # The variance of n even steps of length d is d^2 (n^2 - 1) / 12.
            length = math.hypot(down, right) * math.sqrt(count**2 - 1)
            assert form.length == pytest.approx(length)
            assert turn(form.angle, angle) < 1e-3 and 0 <= form.angle < 180
            assert form.straightness == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("angle", [0, 20, 45, 70, 90, 135, 160])
def test_smooth_strokes_have_their_length_and_angle(angle: float) -> None:
    rows, columns = np.mgrid[-30:31, -30:31]
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    along, across = columns * cosine - rows * sine, columns * sine + rows * cosine
    stroke = np.exp(-((along / 8) ** 2 + (across / 2) ** 2) / 2)
    form = shape(torch.from_numpy(stroke / stroke.sum()))
    assert form.length == pytest.approx(8 * math.sqrt(12), rel=0.01)
    assert turn(form.angle, angle) < 0.1
    assert form.straightness == pytest.approx(1 - 2 / 8, abs=0.01)


def middles(seeds: range) -> tuple[list[float], list[float]]:
    """How far kernels' centroids, and what `halfway` finds, are from where paths are halfway."""
    centroids, found = [], []
    for seed in seeds:
        path = scaled_path(random_trajectory(np.random.default_rng(seed), movement=CARRIED), 10)
        kernel = splat(path.imag + 12, path.real + 12, 25)
        middle = np.array([path[1000].imag, path[1000].real])
        if shape(torch.from_numpy(kernel)).straightness > STRAIGHT:
            centroids.append(math.hypot(*middle))
            found.append(math.hypot(*(halfway(torch.from_numpy(kernel)) - middle)))
    return centroids, found


def test_the_middle_of_an_exposure_is_seen_in_paths_that_are_nearly_straight() -> None:
    centroids, found = middles(range(60))
    assert len(found) > 30
    assert np.mean(found) < 0.6 * np.mean(centroids)


def test_the_middle_of_an_exposure_turns_with_the_kernel() -> None:
    path = np.linspace(-1, 1, 500) + 0.2j * np.linspace(-1, 1, 500) ** 2
    kernel = splat(9 * path.imag + 14, 9 * path.real + 14, 29)
    down, right = halfway(torch.from_numpy(kernel))
    # A parabola's vertex is a third of its height from its mean, here 0.6 pixels.
    assert down == pytest.approx(-0.6, abs=0.25) and right == pytest.approx(0, abs=0.05)
    for turned, expected in [
        (kernel[::-1], (-down, right)),
        (kernel.T, (right, down)),
        (np.roll(kernel, (3, -4), (0, 1)), (down, right)),
    ]:
        moved = halfway(torch.from_numpy(turned.copy()))
        np.testing.assert_allclose(moved, expected, atol=0.02)


def test_a_disk_and_a_point_are_not_straight() -> None:
    rows, columns = np.mgrid[-10:11, -10:11]
    disk = (np.hypot(rows, columns) <= 8).astype(float)
    form = shape(torch.from_numpy(disk / disk.sum()))
    assert form.straightness == pytest.approx(0, abs=1e-6)
    assert form.length == pytest.approx(math.sqrt(3) * 8, rel=0.02)  # its variance is r^2 / 4
    point = torch.zeros(5, 5)
    point[2, 2] = 1
    assert (shape(point).length, shape(point).straightness) == (0, 0)


def test_trimmed_to_the_smallest_square_of_all() -> None:
    kernels = torch.zeros(2, 31, 31)
    kernels[0, 15, 13:18] = 0.2
    kernels[1, 10:16, 15] = 1 / 6
    both = trimmed(kernels)
    assert both.shape == (2, 11, 11)
    assert torch.equal(padded(both, 31), kernels)
    assert torch.equal(both, kernels[:, 10:21, 10:21])
    assert trimmed(kernels[:1]).shape == (1, 5, 5)
    assert trimmed(both[1:]).shape == (1, 11, 11)
    point = torch.zeros(1, 9, 9)
    point[0, 4, 4] = 1
    assert torch.equal(trimmed(point), torch.ones(1, 1, 1))


@pytest.mark.parametrize("size", [15, 17, 9, 1])
def test_padded_keeps_the_middle(size: int) -> None:
    (kernel,) = batch(shake(0, 15))
    result = padded(kernel, size)
    assert result.shape == (size, size) and result[size // 2, size // 2] == kernel[7, 7]
    if size < 15:
        cut = (15 - size) // 2
        assert torch.equal(result, kernel[cut : cut + size, cut : cut + size])
    else:
        np.testing.assert_array_equal(result.numpy(), within(kernel.numpy(), size))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [29, 41, 61])
def test_resized_keeps_sum_and_form(seed: int, size: int) -> None:
    kernels = cleaned(batch(within(shake(seed, 21), 25)), 0, 0)
    grown = resized_kernels(kernels, size)
    assert grown.shape == (1, size, size) and grown.min() >= 0
    assert float(grown.sum()) == pytest.approx(1, abs=1e-5)
    before, after = shape(kernels[0]), shape(grown[0])
    assert after.length == pytest.approx(before.length * size / 25, rel=0.05)
    assert turn(after.angle, before.angle) < 2
    assert after.straightness == pytest.approx(before.straightness, abs=0.1)
    small = np.subtract(ndimage.center_of_mass(kernels[0].numpy()), 12)
    large = np.subtract(ndimage.center_of_mass(grown[0].numpy()), size // 2)
    np.testing.assert_allclose(large, small * size / 25, atol=0.2)
    assert float(kernel_agreement(resized_kernels(grown, 25), kernels)) > 0.97
