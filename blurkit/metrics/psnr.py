"""Peak signal-to-noise ratio, as deblurring papers report it."""

from __future__ import annotations

import math

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.records import Image, to_float


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


def psnr_y(restored: Image, sharp: Image) -> float:
    """PSNR in dB of the luma alone (`luma`), white being 255: BasicSR's `test_y_channel`.

    As `psnr` otherwise. Deraining and super-resolution report it; deblurring does not.
    """
    check_comparable(restored, sharp)
    return psnr(luma(restored), luma(sharp))


def luma(image: Image) -> np.ndarray:
    """Y of ITU-R BT.601 in studio range, 16/255 to 235/255, as (H, W, 1) float64, not rounded.

    `image` (H, W, C) of any depth; a gray one is what all three channels would hold. Computed in
    float32 as BasicSR does, whose rounding shows in the PSNR of images that hardly differ.
    """
    values = to_float(image)
    weights = np.array([65.481, 128.553, 24.966])
    weighted = values @ weights[:, None] if image.shape[2] == 3 else values * weights.sum()
    y = ((weighted + 16) / 255).astype(np.float32) * np.float32(255)
    return y.astype(np.float64) / 255


def check_comparable(restored: Image, sharp: Image) -> None:
    """Raises BlurkitError unless both images have one shape and one depth."""
    if restored.shape != sharp.shape:
        sizes = " and ".join(f"{i.shape[1]}x{i.shape[0]}x{i.shape[2]}" for i in (restored, sharp))
        raise BlurkitError(f"sizes differ: {sizes} (width x height x channels)")
    if restored.dtype != sharp.dtype:
        raise BlurkitError(f"depths differ: {restored.dtype} and {sharp.dtype}")
