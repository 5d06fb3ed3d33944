"""Products of spectra are convolutions, gradients and divergence fit, borders meet in a frame,
noise is that of the photo.
"""

import numpy as np
import pytest
import scipy.signal
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.systems.deconvolution.fourier import (
    centred,
    divergence,
    fast_length,
    framed,
    gradient_power,
    gradients,
    irfft2,
    measured_noise,
    offsets,
    rfft2,
    transfer_function,
    unframed,
)
from blurkit.systems.deconvolution.networks import LEAST_NOISE
from tests.systems.deconvolution.photos import batch, grey, noise, shake

SIZES = [(48, 64), (45, 64), (48, 61), (45, 61)]


def scene(height: int, width: int) -> Tensor:
    return torch.from_numpy(grey("camera", height, width))


def product(image: Tensor, transfer: Tensor) -> np.ndarray:
    return irfft2(rfft2(image) * transfer, s=image.shape[-2:]).numpy()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("sides", [(1, 1), (3, 3), (15, 15), (5, 9), (4, 4), (6, 3)])
def test_products_convolve_round_the_border(size: tuple[int, int], sides: tuple[int, int]) -> None:
    image, kernel = scene(*size), np.random.default_rng(0).random(sides)
    result = product(image, transfer_function(torch.from_numpy(kernel), *size))
    expected = ndimage.convolve(image.numpy(), kernel, mode="wrap")
    np.testing.assert_allclose(result, expected, rtol=1e-12)
    if sides[0] % 2 and sides[1] % 2:
        other = scipy.signal.convolve2d(image.numpy(), kernel, mode="same", boundary="wrap")
        np.testing.assert_allclose(result, other, rtol=1e-12)


def test_every_kernel_of_a_batch_has_its_transfer_function() -> None:
    image, kernels = scene(48, 64), batch(shake(0, 15), shake(1, 15), shake(2, 15))
    transfer = transfer_function(kernels, 48, 64)
    assert transfer.shape == (3, 48, 33)
    for kernel, own in zip(kernels, transfer, strict=True):
        expected = ndimage.convolve(image.numpy(), kernel.double().numpy(), mode="wrap")
        np.testing.assert_allclose(product(image, own), expected, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
def test_centred_is_a_shift_by_fractions_of_a_pixel(size: tuple[int, int]) -> None:
    kernel = np.zeros((11, 13))
    kernel[1:5, 4:13] = np.random.default_rng(0).random((4, 9))
    kernel /= kernel.sum()
    away = np.subtract(ndimage.center_of_mass(kernel), (5, 6))
    assert np.abs(away).min() > 0.2
    transfer = transfer_function(torch.from_numpy(kernel), *size)
    moved = centred(transfer, torch.from_numpy(kernel), size[1])
    expected = ndimage.fourier_shift(transfer.numpy(), -away, n=size[1])
    np.testing.assert_allclose(moved.numpy(), expected, atol=1e-7)
    # What was a round spot is blurred, but its centroid stays where it was.
    spot = ndimage.gaussian_filter(np.eye(1, size[0] * size[1], 24 * size[1] + 30).reshape(size), 3)
    blurred = [product(torch.from_numpy(spot), by) for by in (transfer, moved)]
    before, without, after = map(ndimage.center_of_mass, (spot, *blurred))
    np.testing.assert_allclose(after, before, atol=1e-3)
    np.testing.assert_allclose(np.subtract(without, before), away, atol=1e-3)


def test_every_kernel_of_a_batch_is_centred() -> None:
    kernels = torch.roll(batch(shake(0, 15), shake(1, 15)), (3, 0), (0, 1))
    kernels[1] = torch.roll(kernels[1], (-2, 1), (0, 1))
    transfer = transfer_function(kernels, 48, 64)
    together = centred(transfer, kernels, 64)
    for kernel, own, result in zip(kernels, transfer, together, strict=True):
        torch.testing.assert_close(result, centred(own, kernel, 64))


@pytest.mark.parametrize("size", SIZES)
def test_divergence_is_the_adjoint_of_gradients(size: tuple[int, int]) -> None:
    image = scene(*size)
    across, down = gradients(image)
    np.testing.assert_array_equal(across[:, :-1], np.diff(image.numpy(), axis=1))
    np.testing.assert_array_equal(down[:-1], np.diff(image.numpy(), axis=0))
    np.testing.assert_array_equal(across[:, -1], image[:, 0] - image[:, -1])
    np.testing.assert_array_equal(down[-1], image[0] - image[-1])
    first, second = torch.from_numpy(noise((2, *size), 1))
    there = (across * first).sum() + (down * second).sum()
    back = (image * divergence(first, second)).sum()
    assert abs(float(there)) > 0.1
    assert float(back) == pytest.approx(float(there), rel=1e-9)


@pytest.mark.parametrize("size", SIZES)
def test_gradient_power_is_that_of_the_differences(size: tuple[int, int]) -> None:
    point = torch.zeros(size, dtype=torch.float64)
    point[0, 0] = 1
    expected = sum(np.abs(np.fft.rfft2(gradient.numpy())) ** 2 for gradient in gradients(point))
    power = gradient_power(*size)
    np.testing.assert_allclose(power.numpy(), expected, atol=1e-5)
    image = scene(*size)
    twice = divergence(*gradients(image))
    np.testing.assert_allclose(product(image, power), twice.numpy(), atol=1e-5)


def test_fast_lengths_are_the_next_even_ones_of_small_factors() -> None:
    powers = [2**a * 3**b * 5**c for a in range(1, 13) for b in range(8) for c in range(6)]
    for length in range(1, 4000):
        assert fast_length(length) == min(power for power in powers if power >= length), length


@pytest.mark.parametrize("name", ["camera", "coffee"])
@pytest.mark.parametrize("margin", [5, 16, 41])
@pytest.mark.parametrize("size", [(180, 250), (193, 221)])
def test_a_frame_holds_the_photo_and_its_borders_meet(
    name: str, margin: int, size: tuple[int, int]
) -> None:
    image = batch(grey(name, *size))[0]
    frame = framed(image, margin)
    sides = list(frame.shape)
    for side, length in zip(sides, size, strict=True):
        assert side >= length + 2 * margin and side == fast_length(side)
    back = unframed(frame, *size)
    assert back.shape == size
    change = (back - image).abs()
    inside = (slice(margin, -margin), slice(margin, -margin))
    assert change[inside].max() < 1e-4  # what is changed is next to the border
    assert change[inside].max() < change.max() / 10
    top, left = offsets(image, sides)
    assert torch.equal(back, frame[top : top + size[0], left : left + size[1]])
    assert image.min() - 1e-4 <= frame.min() and frame.max() <= image.max() + 1e-4
    for one, other in ((image, frame), (image.T, frame.T)):
        jump = (other[0] - other[-1]).abs()
        assert jump.mean() < 0.2 * (one[0] - one[-1]).abs().mean()
        if margin > 5:
            assert jump.mean() < (one[1:] - one[:-1]).abs().mean()  # no edge: as any neighbours


def test_framing_a_batch_frames_every_image() -> None:
    images = batch(grey("camera", 60, 75), grey("coffee", 60, 75)).reshape(2, 1, 60, 75)
    frames = framed(images, 12)
    assert frames.shape[:2] == (2, 1)
    for (image,), (frame,) in zip(images, frames, strict=True):
        torch.testing.assert_close(framed(image, 12), frame)
        exact = framed(image.double(), 12).float()
        torch.testing.assert_close(frame, exact, atol=1e-5, rtol=0)


def test_gradients_flow_through_a_frame_that_inference_made_first() -> None:
    image = batch(grey("camera", 52, 57))
    with torch.inference_mode():
        framed(image, 6)
    leaf = image.clone().requires_grad_()
    framed(leaf, 6).square().sum().backward()
    assert leaf.grad is not None and leaf.grad.abs().min() > 0


def haar_noise(image: np.ndarray) -> float:
    """Donoho's estimate: the median of the finest diagonal wavelet coefficients."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    detail = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / 0.6745)


@pytest.mark.parametrize(("deviation", "tolerance"), [(0.002, 0.3), (0.01, 0.1), (0.05, 0.05)])
def test_noise_of_blurry_photos_is_measured(deviation: float, tolerance: float) -> None:
    """What is left of the photo itself, a thousandth, shows beside the least noise."""
    blurry = [
        ndimage.convolve(grey(name), shake(seed, 17)) + noise((256, 256), deviation, seed)
        for seed, name in enumerate(("camera", "coffee", "astronaut"))
    ]
    found = measured_noise(batch(*blurry)[:, None])
    assert found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), deviation, rtol=tolerance)
    np.testing.assert_allclose(found.numpy(), [*map(haar_noise, blurry)], rtol=tolerance)


def test_noise_is_that_of_all_channels() -> None:
    colour = np.stack([grey("coffee", 128, 128)] * 3)
    smooth = ndimage.gaussian_filter(colour, (0, 4, 4))
    noisy = smooth + noise(smooth.shape, 0.02)
    both = torch.from_numpy(np.stack([smooth, noisy])).float()
    none, some = measured_noise(both).tolist()
    assert none < LEAST_NOISE < 0.018 < some < 0.022
