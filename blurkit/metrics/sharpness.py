"""How sharp an image looks, measured without a reference."""

from __future__ import annotations

import numpy as np

from blurkit.io.records import Image, to_float

SECOND_BLUR = 11
"""The length in pixels of the box filter that blurs the image again, as in scikit-image."""

LUMINANCE = (0.2125, 0.7154, 0.0721)


def sharpness(image: Image) -> float:
    """Return how sharp an image (H, W, C) of any depth looks, from 0 (blurry) to 1 (sharp).

    It is 1 minus the perceptual blur metric of Crete et al., "The blur effect: perception and
    estimation with a new no-reference perceptual blur metric" (SPIE 6492, 2007): the fraction of
    the luminance's gradients that a second blur removes, along the axis where it is smaller. The
    gradients are Sobel's and the filter has 11 taps, as in scikit-image's `blur_effect`. It is 0
    for an image without gradients or with a side below 4 pixels.
    """
    values = to_float(image)
    grey = values @ np.array(LUMINANCE, np.float32) if image.shape[2] == 3 else values[:, :, 0]
    if min(grey.shape) < 4:
        return 0.0
    return min(_kept(grey, axis) for axis in (0, 1))


def _kept(grey: np.ndarray, axis: int) -> float:
    """Return the fraction of the gradients along an axis that vanishes in a second blur."""
    from scipy import ndimage  # imported when used, so that wrong usage is refused at once

    inner = slice(2, -1), slice(2, -1)
    before = np.abs(ndimage.sobel(grey, axis))[inner]
    again = ndimage.uniform_filter1d(grey, SECOND_BLUR, axis)
    after = np.abs(ndimage.sobel(again, axis))[inner]
    total = before.sum(dtype=np.float64)
    lost = np.maximum(before - after, 0).sum(dtype=np.float64)
    return float(lost / total) if total > 0 else 0.0
