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
    if not fits(sharp):
        height, width = sharp.shape[:2]
        raise BlurkitError(f"SSIM needs 11 pixels a side; this image is {width}x{height}")
    return _per_channel(_blurred_moments(restored, sharp), peak(sharp))


def ssim_matlab(restored: Image, sharp: Image) -> float:
    """SSIM of the H x W x C volume with an 11x11x11 Gaussian, replicated borders, full size.

    What MATLAB's `ssim(a, b)` computes for colour images. Both (H, W, C) of one depth, any size;
    computed in float64, since float32 exceeds 1 on flat areas. Raises BlurkitError for unlike
    images.
    """
    check_comparable(restored, sharp)
    return _volume(_blurred_moments(restored, sharp), peak(sharp))


def ssims(restored: Image, sharp: Image) -> tuple[float | None, float]:
    """(`ssim`, `ssim_matlab`) in the time of one; the first is None when the image is too small."""
    check_comparable(restored, sharp)
    moments = _blurred_moments(restored, sharp)
    per_channel = _per_channel(moments, peak(sharp)) if fits(sharp) else None
    return per_channel, _volume(moments, peak(sharp))


def fits(image: Image) -> bool:
    """Whether the 11-pixel window fits into the image."""
    return min(image.shape[:2]) >= 2 * RADIUS + 1


def _taps() -> np.ndarray:
    taps = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    return taps / taps.sum()


def _blurred_moments(restored: Image, sharp: Image) -> list[np.ndarray]:
    """The local means of x, y, x^2 + y^2 and x y over height and width, each (C, H, W) float64."""
    x, y = (np.ascontiguousarray(i.transpose(2, 0, 1), np.float64) for i in (restored, sharp))
    moments = []
    for values in (x, y, x * x + y * y, x * y):
        for axis in (1, 2):
            values = correlate1d(values, _taps(), axis, mode="nearest")
        moments.append(values)
    return moments


def _per_channel(moments: list[np.ndarray], white: float) -> float:
    inner = slice(RADIUS, -RADIUS)
    return _mean_similarity([moment[:, inner, inner] for moment in moments], white)


def _volume(moments: list[np.ndarray], white: float) -> float:
    """The window's third axis: across the colours, the first and last replicated."""
    across = correlate1d(np.eye(len(moments[0])), _taps(), 0, mode="nearest")
    return _mean_similarity([np.tensordot(across, moment, 1) for moment in moments], white)


def _mean_similarity(moments: list[np.ndarray], white: float) -> float:
    """The mean SSIM of maps of local means, of which it makes few copies: they are large."""
    mean_x, mean_y, squares, product = moments
    c1, c2 = (0.01 * white) ** 2, (0.03 * white) ** 2
    crossed = mean_x * mean_y
    both_squared = mean_x * mean_x
    both_squared += mean_y * mean_y
    structure = product - crossed
    structure *= 2
    structure += c2
    variances = squares - both_squared
    variances += c2
    structure /= variances
    crossed *= 2
    crossed += c1
    both_squared += c1
    crossed /= both_squared
    return float(np.vdot(crossed, structure) / crossed.size)
