"""Peak signal-to-noise ratio, as deblurring papers report it."""

from __future__ import annotations

import math

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.records import Image


def peak(image: Image) -> float:
    """The value of white: 255, 65535, or 1 for float. Never guessed from the content."""
    return 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)


def psnr(restored: Image, sharp: Image) -> float:
    """PSNR in dB over all pixels and channels together, no border cropped.

    Both (H, W, C) of the same depth; infinite for identical images. Raises BlurkitError for
    different shapes or depths.
    """
    check_comparable(restored, sharp)
    difference = restored.astype(np.float64) - sharp.astype(np.float64)
    mse = float(np.mean(difference * difference))
    return math.inf if mse == 0 else 10 * math.log10(peak(sharp) ** 2 / mse)


def check_comparable(restored: Image, sharp: Image) -> None:
    """Raises BlurkitError unless both images have one shape and one depth."""
    if restored.shape != sharp.shape:
        sizes = " and ".join(f"{i.shape[1]}x{i.shape[0]}x{i.shape[2]}" for i in (restored, sharp))
        raise BlurkitError(f"sizes differ: {sizes} (width x height x channels)")
    if restored.dtype != sharp.dtype:
        raise BlurkitError(f"depths differ: {restored.dtype} and {sharp.dtype}")
