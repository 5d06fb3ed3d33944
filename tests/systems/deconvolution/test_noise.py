"""The noise of photos, whatever else is in them."""

import numpy as np
import pytest
import torch
from scipy import ndimage

from blurkit.systems.deconvolution.fourier import measured_noise
from blurkit.systems.deconvolution.networks import LEAST_NOISE
from tests.systems.deconvolution.photos import batch, grey, noise, shake


def haar_noise(image: np.ndarray) -> float:
    """Donoho's estimate: the median of the finest diagonal wavelet coefficients."""
    even = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
    detail = (even[::2, ::2] - even[1::2, ::2] - even[::2, 1::2] + even[1::2, 1::2]) / 2
    return float(np.median(np.abs(detail)) / 0.6745)


@pytest.mark.parametrize(("deviation", "tolerance"), [(0.002, 0.3), (0.01, 0.1), (0.05, 0.05)])
def test_noise_of_blurry_photos_is_measured(deviation: float, tolerance: float) -> None:
    """What is left of the photo itself, a thousandth, shows beside the least noise."""
    names = ("camera", "coffee", "astronaut")
    blurry = [
        ndimage.convolve(grey(name), shake(seed, 17)) + noise((256, 256), deviation, seed)
        for seed, name in enumerate(names)
    ]
    found = measured_noise(batch(*blurry)[:, None])
    assert found.shape == (3,)
    np.testing.assert_allclose(found.numpy(), deviation, rtol=tolerance)
    others = [haar_noise(image) for image in blurry]
    np.testing.assert_allclose(found.numpy(), others, rtol=tolerance)


def test_noise_is_that_of_all_channels() -> None:
    colour = np.stack([grey("coffee", 128, 128)] * 3)
    smooth = ndimage.gaussian_filter(colour, (0, 4, 4))
    noisy = smooth + noise(smooth.shape, 0.02)
    both = torch.from_numpy(np.stack([smooth, noisy])).float()
    none, some = measured_noise(both).tolist()
    assert none < LEAST_NOISE < 0.018 < some < 0.022
