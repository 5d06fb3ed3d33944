"""Structural similarity: the two numbers that papers call SSIM, named apart.

`ssim` is the per-channel one of scikit-image and BasicSR. `ssim_matlab` is what MATLAB's `ssim`
gives for a colour image, the one in the GoPro and HIDE tables: it takes height, width and colour
for a volume. On blurry photos it is 0.05 to 0.17 higher.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import correlate1d

from blurkit.errors import BlurkitError
from blurkit.io.records import Image
from blurkit.metrics.psnr import check_comparable, peak

RADIUS = 5
SIGMA = 1.5


def ssim(restored: Image, sharp: Image) -> float:
    """SSIM per channel with an 11-tap Gaussian (sigma 1.5), where the window fits, then the mean.

    (Wang et al. 2004; population covariance, K 0.01 and 0.03.) Both (H, W, C) of one depth, at
    least 11 pixels a side. Raises BlurkitError for smaller or unlike images.
    """
    check_comparable(restored, sharp)
    if min(sharp.shape[:2]) < 2 * RADIUS + 1:
        height, width = sharp.shape[:2]
        raise BlurkitError(f"SSIM needs 11 pixels a side; this image is {width}x{height}")
    inner = slice(RADIUS, -RADIUS)
    return float(np.mean(_similarity(restored, sharp, axes=(0, 1))[inner, inner]))


def ssim_matlab(restored: Image, sharp: Image) -> float:
    """SSIM of the H x W x C volume with an 11x11x11 Gaussian, replicated borders, full size.

    What MATLAB's `ssim(a, b)` computes for colour images. Both (H, W, C) of one depth, any size;
    computed in float64, since float32 exceeds 1 on flat areas. Raises BlurkitError for unlike
    images.
    """
    check_comparable(restored, sharp)
    return float(np.mean(_similarity(restored, sharp, axes=(0, 1, 2))))


def _similarity(restored: Image, sharp: Image, axes: tuple[int, ...]) -> np.ndarray:
    """The SSIM map of two images, Gaussian windows along `axes`, replicated borders."""
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    taps /= taps.sum()

    def blurred(values: np.ndarray) -> np.ndarray:
        for axis in axes:
            values = correlate1d(values, taps, axis, mode="nearest")
        return values

    x, y = restored.astype(np.float64), sharp.astype(np.float64)
    mean_x, mean_y = blurred(x), blurred(y)
    variances = blurred(x * x + y * y) - mean_x * mean_x - mean_y * mean_y
    covariance = blurred(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak(sharp)) ** 2, (0.03 * peak(sharp)) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)
