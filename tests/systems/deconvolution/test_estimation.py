"""Kernels estimated from photos that a known one has blurred."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.systems.deconvolution.config import Estimation
from blurkit.systems.deconvolution.estimation import (
    _least_squares,
    blurry_print,
    estimate_kernels,
    ink,
    kernels_between,
    scales,
    two_coloured,
    two_toned,
)
from blurkit.systems.deconvolution.fourier import (
    gradient_power,
    kernel_agreement,
    rfft2,
    shape,
)
from tests.systems.deconvolution.photos import batch, grey, noise, photo, shake, taken

PHOTOS = ("camera", "coffee", "astronaut")
SIZES = (13, 17, 21, 25)


def blurry(name: str, kernel: np.ndarray, seed: int = 0) -> np.ndarray:
    """The middle (256, 256) of a photo that was blurred with what is round it, and noise."""
    whole = ndimage.convolve(grey(name, 296, 296), kernel)[20:-20, 20:-20]
    return whole + noise(whole.shape, 1 / 255, seed)


def estimated(*photos: np.ndarray, size: int = 27, **options: float) -> Tensor:
    weights = torch.full((len(photos),), 2e-3)
    return estimate_kernels(batch(*photos), size, weights, Estimation(**options))


@pytest.mark.slow
def test_shaken_photos_tell_their_kernels() -> None:
    found = {}
    for name in PHOTOS:
        for seed, size in enumerate(SIZES):
            kernel = shake(seed, size)
            (result,) = estimated(blurry(name, kernel, seed))
            found[name, seed] = float(kernel_agreement(result[None], batch(kernel)))
            assert result.shape == (27, 27) and result.min() >= 0
            assert float(result.sum()) == pytest.approx(1, abs=1e-5)
            away = np.subtract(ndimage.center_of_mass(result.numpy()), 13)
            assert np.abs(away).max() <= 0.5 + 1e-4
            others = [kernel_agreement(result[None], batch(shake(s, size))) for s in range(4)]
            assert np.argmax(others) == seed, (name, seed)
    assert np.median(list(found.values())) >= 0.85, found
    assert sum(alike >= 0.8 for alike in found.values()) >= len(found) - 2, found


@pytest.mark.parametrize("name", PHOTOS)
def test_a_sharp_photo_has_hardly_a_blur(name: str) -> None:
    sharp, shaken = estimated(grey(name), blurry(name, shake(1, 13)), size=15)
    assert shape(sharp).length < 4.5 < 6 < shape(shaken).length
    assert sharp.max() > 2 * shaken.max()


def test_photos_are_estimated_together_as_they_are_alone() -> None:
    """Each has a kernel of its own; only rounding differs, which the turns may make larger."""
    photos = [blurry(name, shake(seed, 13), seed) for seed, name in enumerate(PHOTOS)]
    together = estimated(*photos, size=15)
    for image, kernel in zip(photos, together, strict=True):
        assert float(kernel_agreement(estimated(image, size=15), kernel[None])) > 0.98
    assert float(kernel_agreement(together[:1], together[1:2])) < 0.95


def test_options_reach_the_estimation() -> None:
    """Its floor, here."""
    photo = blurry("coffee", shake(1, 13))
    faint, bright = (estimated(photo, size=15, floor=floor) for floor in (0.0, 0.4))
    assert 0 < faint[faint > 0].min() < 0.05 * faint.max()
    assert bright[bright > 0].min() >= 0.4 * bright.max()


@pytest.mark.parametrize("size", [0, 2, 26])
def test_an_even_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"odd number of pixels, not {size}"):
        estimated(grey("camera", 64, 64), size=size)


@pytest.mark.parametrize("ratio", [1.2, 1.4142, 2.0, 3.0])
def test_scales_grow_by_the_ratio_up_to_the_size(ratio: float) -> None:
    for size in range(3, 100, 2):
        found = scales(size, ratio)
        assert found[-1] == size and 3 <= found[0] <= 5
        for small, large in pairwise(found):
            assert small % 2 == 1 and small < large
            assert small == 3 or abs(small - large / ratio) <= 1
    assert scales(3, ratio) == [3] and scales(5, ratio) == [5]
    assert scales(41, 1.4142) == [5, 7, 11, 15, 21, 29, 41]


def least_squares(
    sharp: np.ndarray, blurred: np.ndarray, size: int, ridge: float, steps: int = 300
) -> Tensor:
    spectra = [rfft2(batch(image)) for image in (sharp, blurred)]
    power, weight = gradient_power(*sharp.shape), torch.full((1, 1, 1), ridge)
    options = Estimation(kernel_steps=steps)
    return _least_squares(*spectra, power, sharp.shape, size, weight, options)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [13, 19])
def test_the_sharp_photo_tells_its_kernel_exactly(seed: int, size: int) -> None:
    sharp, kernel = grey("camera", 160, 180), shake(seed, 13)
    blurred = ndimage.convolve(sharp, kernel, mode="wrap")
    (result,) = least_squares(sharp, blurred, size, 1e-4).numpy()
    np.testing.assert_allclose(result, np.pad(kernel, (size - 13) // 2), atol=1e-3 * kernel.max())


def test_the_ridge_is_that_of_linear_least_squares() -> None:
    """Against the normal equations, written out, of a kernel with all values above 0."""
    sharp = grey("coffee", 40, 48)
    kernel = np.random.default_rng(0).uniform(0.5, 1, (5, 5))
    kernel /= kernel.sum()
    blurred = ndimage.convolve(sharp, kernel, mode="wrap") + noise(sharp.shape, 1e-3)
    moves = [(down, right) for down in range(-2, 3) for right in range(-2, 3)]

    def edges(image: np.ndarray) -> np.ndarray:
        return np.concatenate([(np.roll(image, -1, axis) - image).ravel() for axis in (0, 1)])

    matrix = np.stack([edges(np.roll(sharp, move, (0, 1))) for move in moves], 1)
    target = edges(blurred)
    for ridge in (0.01, 1.0):
        square = matrix.T @ matrix + ridge * np.eye(25)
        expected = np.linalg.solve(square, matrix.T @ target).reshape(5, 5)
        assert expected.min() > 0
        (result,) = least_squares(sharp, blurred, 5, ridge, 3000).numpy()
        np.testing.assert_allclose(result, expected, atol=2e-3 * expected.max())


def test_no_value_is_below_zero() -> None:
    """Where unbounded least squares would have them: for a blur with a negative lobe."""
    sharp = grey("camera", 96, 96)
    kernel = np.zeros((9, 9))
    kernel[4, 2:7] = 0.25
    kernel[2, 4] = -0.25
    blurred = ndimage.convolve(sharp, kernel, mode="wrap")
    (result,) = least_squares(sharp, blurred, 9, 1e-3).numpy()
    assert result.min() == 0 and result[2, 4] == 0
    assert result[4, 2:7].min() > 0.1


@pytest.mark.parametrize("name", PHOTOS)
def test_the_kernel_between_a_sharp_photo_and_its_blur(name: str) -> None:
    kernel = shake(1, 17)
    sharp, photo = batch(grey(name)), batch(blurry(name, kernel))
    (found,) = kernels_between(sharp, photo, 27, Estimation())
    assert found.shape == (27, 27) and float(found.sum()) == pytest.approx(1, abs=1e-5)
    assert float(kernel_agreement(found[None], batch(kernel))) > 0.95


def test_all_gradients_may_count_in_a_refinement() -> None:
    kernel = shake(1, 17)
    sharp, photo = batch(grey("camera")), batch(blurry("camera", kernel))
    found = kernels_between(sharp, photo, 27, Estimation(edges=1))
    assert float(kernel_agreement(found, batch(kernel))) > 0.9


def test_weak_gradients_do_not_count_in_a_refinement() -> None:
    """Texture that is still blurry would lead to a smaller kernel, next to a sharp outline."""
    kernel = shake(1, 17)
    texture = ndimage.gaussian_filter(noise((256, 256), 1, 3), 1.5) * 0.6
    outline = np.where(ndimage.gaussian_filter(noise((256, 256), 1, 4), 20) > 0, 0.75, 0.25)
    whole = ndimage.convolve(outline + texture, kernel)
    half = batch(outline + ndimage.convolve(texture, kernel))
    assert np.abs(np.gradient(texture)).max() < 0.25 <= np.abs(np.gradient(outline)).max()
    options = [Estimation(edge=edge, edges=1e-4) for edge in (0.3, 0)]
    found = [kernels_between(half, batch(whole), 27, option) for option in options]
    strong, every = (float(kernel_agreement(each, batch(kernel))[0]) for each in found)
    assert strong > 0.95 > every


# ---- print ---------------------------------------------------------------------------------------

INK, PAPER = np.array([0.1, 0.15, 0.4]), np.array([0.9, 0.85, 0.7])


def printed() -> np.ndarray:
    """A page (190, 256, 3) in blue ink on yellow paper."""
    return PAPER + (INK - PAPER) * (grey("page", 190, 256) < 0.5)[..., None]


@pytest.mark.parametrize("deviation", [1 / 255, 4 / 255])
@pytest.mark.parametrize("size", [1, 13, 25])
def test_the_colours_of_print_stay_on_one_line_under_blur_shade_and_noise(
    size: int, deviation: float
) -> None:
    shade = np.linspace(0.7, 1, 256)[None, :, None]
    assert two_coloured(taken(printed() * shade, shake(1, size), deviation))
    for name in ("coffee", "astronaut", "chelsea"):
        assert not two_coloured(taken(photo(name), shake(1, size), deviation))
    assert not two_coloured(taken(np.full((190, 256, 3), PAPER), shake(1, size), deviation))


@pytest.mark.parametrize("deviation", [1 / 255, 2 / 255])
def test_blurry_print_has_no_steep_edges_in_some_direction(deviation: float) -> None:
    sharp = taken(printed(), np.ones((1, 1)), deviation)
    enlarged = ndimage.zoom(sharp, (2, 2, 1), order=3).astype(np.float32)  # hardly steep
    assert not blurry_print(sharp) and not blurry_print(enlarged)
    for name in ("camera", "text"):  # grey photos are of two colours
        assert not blurry_print(np.stack([grey(name, 172, 256)] * 3, 2).astype(np.float32))
    for kernel in (np.full((1, 21), 1 / 21), np.full((21, 1), 1 / 21), np.eye(15) / 15):
        blurry = taken(printed(), kernel, deviation)
        assert blurry_print(blurry) and blurry_print(blurry[::-1, ::-1])
    assert not blurry_print(taken(photo("coffee"), np.full((1, 15), 1 / 15), deviation))


def test_a_blurry_page_in_two_tones_has_the_edges_of_the_sharp_one() -> None:
    large = np.kron(printed().mean(2)[:64, :64], np.ones((4, 4)))
    sharp = large * np.linspace(0.8, 1, 256)[None]
    soft = ndimage.gaussian_filter(sharp, 1.5)
    toned = two_toned(batch(soft), 41)[0].numpy()
    wanted, before, after = (np.diff(image, axis=1) for image in (sharp, soft, toned))
    assert np.abs(after - wanted).mean() < 0.75 * np.abs(before - wanted).mean()


def test_ink_is_the_same_on_a_dark_page() -> None:
    light = batch(printed().mean(2) ** 2.2)
    found = ink(light)[0].numpy()
    np.testing.assert_allclose(ink(1 - light)[0].numpy(), found, atol=1e-5)
    letters = grey("page", 190, 256) < 0.5
    inside = np.s_[8:-8, 8:-8]
    assert found[inside][letters[inside]].min() > 0.8 > 0.2 > np.median(found[~letters])


def test_sparse_ink_tells_the_kernel_of_print() -> None:
    kernel = shake(0, 15)
    inked = ink(batch(taken(printed(), kernel).mean(2) ** 2.2))
    found = [
        estimate_kernels(inked, 15, torch.tensor([8e-3]), Estimation(turns=4), sparse)
        for sparse in (False, True)
    ]
    alike = [float(kernel_agreement(each, batch(kernel))) for each in found]
    assert alike[1] > max(0.85, alike[0] + 0.05), alike
