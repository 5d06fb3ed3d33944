"""Structural similarity: the different measures that papers and tools call SSIM."""

from collections.abc import Sequence

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.records import Image
from blurkit.metrics.psnr import check_comparable, luma, peak

WINDOW_RADIUS = 5
WINDOW_SIGMA = 1.5
GAUSSIAN, UNIFORM = 2 * WINDOW_RADIUS + 1, 7
"""The sides of the Gaussian and of scikit-image's default window."""

SSIM_KINDS = {
    "basicsr": "ssim",
    "matlab": "ssim_matlab",
    "scikit-image": "ssim_skimage",
    "basicsr-y": "ssim_y",
}
"""The name of the score of each kind of SSIM."""


def ssim(restored: Image, sharp: Image) -> float:
    """Return the mean SSIM of the channels, with an 11x11 Gaussian window (sigma 1.5).

    Wang et al. 2004, with population covariance and K 0.01 and 0.03, like BasicSR's; pixels where
    the window does not fit are left out. Both images are (H, W, C) of the same depth, at least 11
    pixels a side. Raises BlurkitError if they are smaller or differ in shape or depth.
    """
    _check(restored, sharp, GAUSSIAN)
    return _mean_similarity(_inner(_blurred_moments(restored, sharp)), peak(sharp))


def ssim_matlab(restored: Image, sharp: Image) -> float:
    """Return the SSIM of the H x W x C volume, with an 11x11x11 Gaussian and replicated borders.

    This is what MATLAB's `ssim(a, b)` computes for colour images, and the tables of GoPro and HIDE
    report. Both images are (H, W, C) of any size. It is computed in float64, because float32
    exceeds 1 on flat areas. Raises BlurkitError if the images differ in shape or depth.
    """
    check_comparable(restored, sharp)
    return _volume(_blurred_moments(restored, sharp), peak(sharp))


def ssim_skimage(restored: Image, sharp: Image) -> float:
    """Return the mean SSIM of the channels, with a uniform 7x7 window and sample covariances.

    This is scikit-image's `structural_similarity` with defaults and a channel axis; pixels where
    the window does not fit are left out. Both images are (H, W, C) of the same depth, at least 7
    pixels a side. Raises BlurkitError otherwise.
    """
    from scipy.ndimage import uniform_filter

    _check(restored, sharp, UNIFORM)
    x, y = _channels_first(restored), _channels_first(sharp)
    inner = slice(UNIFORM // 2, -(UNIFORM // 2))
    mean_x, mean_y, squares, product = (
        uniform_filter(values, (1, UNIFORM, UNIFORM))[:, inner, inner]
        for values in (x, y, x * x + y * y, x * y)
    )
    # Scale the moments so that they yield sample covariances, n / (n - 1) times the population's.
    larger = UNIFORM**2 / (UNIFORM**2 - 1)
    crossed, both_squared = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    squares = both_squared + larger * (squares - both_squared)
    product = crossed + larger * (product - crossed)
    return _mean_similarity([mean_x, mean_y, squares, product], peak(sharp))


def ssim_y(restored: Image, sharp: Image) -> float:
    """Return the `ssim` of the `luma`, with white at 255: BasicSR's `test_y_channel`."""
    check_comparable(restored, sharp)
    return ssim(luma(restored), luma(sharp))


def ssim_map(restored: Image, sharp: Image) -> np.ndarray:
    """Return the map (H - 10, W - 10, C) whose mean is `ssim`, with its arguments and errors."""
    _check(restored, sharp, GAUSSIAN)
    luminance, structure = _terms(_inner(_blurred_moments(restored, sharp)), peak(sharp))
    return (luminance * structure).transpose(1, 2, 0)


def ssims(
    restored: Image, sharp: Image, kinds: Sequence[str] = ("basicsr", "matlab")
) -> dict[str, float | None]:
    """Return the SSIMs of the given `SSIM_KINDS` by the names of their scores.

    `basicsr` and `matlab` share most of their computation. An SSIM is None if its window does not
    fit into the image. Raises BlurkitError if the images differ in shape or depth.
    """
    check_comparable(restored, sharp)
    white = peak(sharp)
    moments = _blurred_moments(restored, sharp) if {"basicsr", "matlab"} & {*kinds} else []
    measured = {
        "matlab": (1, lambda: _volume(moments, white)),
        "basicsr": (GAUSSIAN, lambda: _mean_similarity(_inner(moments), white)),
        "basicsr-y": (GAUSSIAN, lambda: ssim_y(restored, sharp)),
        "scikit-image": (UNIFORM, lambda: ssim_skimage(restored, sharp)),
    }
    chosen = {SSIM_KINDS[kind]: measured[kind] for kind in kinds}
    return {name: score() if fits(sharp, side) else None for name, (side, score) in chosen.items()}


def fits(image: Image, window: int = GAUSSIAN) -> bool:
    """Return whether a window of `window` pixels a side, by default the Gaussian's 11, fits."""
    return min(image.shape[:2]) >= window


def _check(restored: Image, sharp: Image, window: int) -> None:
    check_comparable(restored, sharp)
    if not fits(sharp, window):
        height, width = sharp.shape[:2]
        raise BlurkitError(f"SSIM needs {window} pixels a side; this image is {width}x{height}")


def _channels_first(image: Image) -> np.ndarray:
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float64)


def _taps() -> np.ndarray:
    taps = np.exp(-0.5 * (np.arange(-WINDOW_RADIUS, WINDOW_RADIUS + 1) / WINDOW_SIGMA) ** 2)
    return taps / taps.sum()


def _blurred_moments(restored: Image, sharp: Image) -> list[np.ndarray]:
    """Return the local means of x, y, x^2 + y^2 and x y, each float64 (C, H, W)."""
    from scipy.ndimage import correlate1d  # imported when used: wrong usage is refused at once

    x, y = _channels_first(restored), _channels_first(sharp)
    moments = []
    for values in (x, y, x * x + y * y, x * y):
        for axis in (1, 2):
            values = correlate1d(values, _taps(), axis, mode="nearest")
        moments.append(values)
    return moments


def _inner(moments: list[np.ndarray]) -> list[np.ndarray]:
    """Return the part of the maps where the whole Gaussian window is inside the image."""
    inner = slice(WINDOW_RADIUS, -WINDOW_RADIUS)
    return [moment[:, inner, inner] for moment in moments]


def _volume(moments: list[np.ndarray], white: float) -> float:
    """Return the SSIM of the volume: the window also spans the colours, with replicated borders."""
    from scipy.ndimage import correlate1d

    across = correlate1d(np.eye(len(moments[0])), _taps(), 0, mode="nearest")
    return _mean_similarity([np.tensordot(across, moment, 1) for moment in moments], white)


def _mean_similarity(moments: list[np.ndarray], white: float) -> float:
    luminance, structure = _terms(moments, white)
    return float(np.vdot(luminance, structure) / luminance.size)


def _terms(moments: list[np.ndarray], white: float) -> tuple[np.ndarray, np.ndarray]:
    """Return SSIM's luminance and contrast-structure factors, computed from local means."""
    # In place where possible, because the maps are large.
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
