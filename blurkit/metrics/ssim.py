"""Structural similarity: the numbers that papers and tools call SSIM, named apart.

`ssim` is the per-channel one of BasicSR, which scikit-image gives with Gaussian weights.
`ssim_matlab` is what MATLAB's `ssim` gives for a colour image, the one in the GoPro and HIDE
tables: it takes height, width and colour for a volume. On blurry photos it is 0.05 to 0.17 higher.
`ssim_skimage` is scikit-image's own default, and `ssim_y` is `ssim` of the luma.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import correlate1d, uniform_filter

from blurkit.errors import BlurkitError
from blurkit.io.records import Image
from blurkit.metrics.psnr import check_comparable, luma, peak

WINDOW_RADIUS = 5
WINDOW_SIGMA = 1.5
UNIFORM = 7
"""The side of scikit-image's default window."""

SSIM_KINDS = {
    "basicsr": "ssim",
    "matlab": "ssim_matlab",
    "scikit-image": "ssim_skimage",
    "basicsr-y": "ssim_y",
}
"""Every kind of SSIM, with the name of its score."""


def ssim(restored: Image, sharp: Image) -> float:
    """SSIM per channel with an 11-tap Gaussian (sigma 1.5), where the window fits, then the mean.

    (Wang et al. 2004; population covariance, K 0.01 and 0.03.) Both (H, W, C) of one depth, at
    least 11 pixels a side. Raises BlurkitError for smaller or unlike images.
    """
    check_comparable(restored, sharp)
    _check_size(sharp, 2 * WINDOW_RADIUS + 1)
    return _mean_similarity(_inner(_blurred_moments(restored, sharp)), peak(sharp))


def ssim_matlab(restored: Image, sharp: Image) -> float:
    """SSIM of the H x W x C volume with an 11x11x11 Gaussian, replicated borders, full size.

    What MATLAB's `ssim(a, b)` computes for colour images. Both (H, W, C) of one depth, any size;
    computed in float64, since float32 exceeds 1 on flat areas. Raises BlurkitError for unlike
    images.
    """
    check_comparable(restored, sharp)
    return _volume(_blurred_moments(restored, sharp), peak(sharp))


def ssim_skimage(restored: Image, sharp: Image) -> float:
    """SSIM per channel with a uniform 7x7 window, where it fits, and sample covariances.

    What scikit-image's `structural_similarity` gives when nothing but the channel axis is named.
    Both (H, W, C) of one depth, at least 7 pixels a side. Raises BlurkitError otherwise.
    """
    check_comparable(restored, sharp)
    _check_size(sharp, UNIFORM)
    x, y = _channels_first(restored), _channels_first(sharp)
    inner = slice(UNIFORM // 2, -(UNIFORM // 2))
    mean_x, mean_y, squares, product = (
        uniform_filter(values, (1, UNIFORM, UNIFORM))[:, inner, inner]
        for values in (x, y, x * x + y * y, x * y)
    )
    # The sample covariance is n / (n - 1) of the population's, here put into the moments.
    larger = UNIFORM**2 / (UNIFORM**2 - 1)
    crossed, both_squared = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    squares = both_squared + larger * (squares - both_squared)
    product = crossed + larger * (product - crossed)
    return _mean_similarity([mean_x, mean_y, squares, product], peak(sharp))


def ssim_y(restored: Image, sharp: Image) -> float:
    """`ssim` of the luma alone (`psnr.luma`), white being 255: BasicSR's `test_y_channel`."""
    check_comparable(restored, sharp)
    return ssim(luma(restored), luma(sharp))


def ssim_map(restored: Image, sharp: Image) -> np.ndarray:
    """The map (H - 10, W - 10, C) whose mean is `ssim`, with its conditions and errors."""
    check_comparable(restored, sharp)
    _check_size(sharp, 2 * WINDOW_RADIUS + 1)
    luminance, structure = _terms(_inner(_blurred_moments(restored, sharp)), peak(sharp))
    return (luminance * structure).transpose(1, 2, 0)


def ssims(
    restored: Image, sharp: Image, kinds: Sequence[str] = ("basicsr", "matlab")
) -> dict[str, float | None]:
    """Return the SSIMs of some `SSIM_KINDS` by their scores' names, the first two at once.

    One whose window does not fit into the image is None. Raises BlurkitError for unlike images.
    """
    check_comparable(restored, sharp)
    white = peak(sharp)
    moments = _blurred_moments(restored, sharp) if {"basicsr", "matlab"} & {*kinds} else []
    found: dict[str, float | None] = {}
    for kind in kinds:
        score = None
        if kind == "matlab":
            score = _volume(moments, white)
        elif kind == "basicsr" and fits(sharp):
            score = _mean_similarity(_inner(moments), white)
        elif kind == "basicsr-y" and fits(sharp):
            score = ssim_y(restored, sharp)
        elif kind == "scikit-image" and fits(sharp, UNIFORM):
            score = ssim_skimage(restored, sharp)
        found[SSIM_KINDS[kind]] = score
    return found


def fits(image: Image, window: int = 2 * WINDOW_RADIUS + 1) -> bool:
    """Whether the window, 11 pixels of the Gaussian, fits into the image."""
    return min(image.shape[:2]) >= window


def _check_size(image: Image, window: int) -> None:
    if not fits(image, window):
        height, width = image.shape[:2]
        raise BlurkitError(f"SSIM needs {window} pixels a side; this image is {width}x{height}")


def _channels_first(image: Image) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float64)


def _taps() -> np.ndarray:
    taps = np.exp(-0.5 * (np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1) / WINDOW_SIGMA) ** 2)
    return taps / taps.sum()


def _blurred_moments(restored: Image, sharp: Image) -> list[np.ndarray]:
    """The local means of x, y, x^2 + y^2 and x y over height and width, each (C, H, W) float64."""
    x, y = _channels_first(restored), _channels_first(sharp)
    moments = []
    for values in (x, y, x * x + y * y, x * y):
        for axis in (1, 2):
            values = correlate1d(values, _taps(), axis, mode="nearest")
        moments.append(values)
    return moments


def _inner(moments: list[np.ndarray]) -> list[np.ndarray]:
    """The part of the maps over which the whole Gaussian window lay in the image."""
    inner = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
    return [moment[:, inner, inner] for moment in moments]


def _volume(moments: list[np.ndarray], white: float) -> float:
    """The window's third axis: across the colours, the first and last replicated."""
    across = correlate1d(np.eye(len(moments[0])), _taps(), 0, mode="nearest")
    return _mean_similarity([np.tensordot(across, moment, 1) for moment in moments], white)


def _mean_similarity(moments: list[np.ndarray], white: float) -> float:
    luminance, structure = _terms(moments, white)
    return float(np.vdot(luminance, structure) / luminance.size)


def _terms(moments: list[np.ndarray], white: float) -> tuple[np.ndarray, np.ndarray]:
    """SSIM's luminance and contrast-structure factors of local means, with few copies: they are
    large.
    """
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
    return crossed, structure
