"""Peak signal-to-noise ratio, as deblurring papers report it."""

from __future__ import annotations

import math

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.records import Image, to_float


def peak(image: Image) -> float:
    """Return the value of white by the image's type: 255, 65535, or 1 for float."""
    return 1.0 if image.dtype.kind == "f" else float(np.iinfo(image.dtype).max)


def psnr(restored: Image, sharp: Image) -> float:
    """Return the PSNR in dB over all pixels and channels together, with no border cropped.

    Both images are (H, W, C) and have the same depth; the PSNR of identical images is infinite.
    Raises BlurkitError if their shapes or depths differ.
    """
    check_comparable(restored, sharp)
    difference = restored.astype(np.float64) - sharp.astype(np.float64)
    mse = float(np.mean(difference * difference))
    return math.inf if mse == 0 else 10 * math.log10(peak(sharp) ** 2 / mse)


def psnr_y(restored: Image, sharp: Image) -> float:
    """Return the PSNR in dB of the `luma`, with white at 255: BasicSR's `test_y_channel`.

    Arguments and errors are those of `psnr`. Papers on deraining and super-resolution report it;
    papers on deblurring do not.
    """
    check_comparable(restored, sharp)
    return psnr(luma(restored), luma(sharp))


def luma(image: Image) -> np.ndarray:
    """Return Y of ITU-R BT.601 in studio range, 16/255 to 235/255, as float64 (H, W, 1).

    `image` is (H, W, C) of any depth; a gray image is treated as three equal channels. The result
    is not rounded to levels, but passes through float32 as in BasicSR, whose rounding affects the
    PSNR of nearly identical images.
    """
    values = to_float(image)
    weights = np.array([65.481, 128.553, 24.966])
    weighted = values @ weights[:, None] if image.shape[2] == 3 else values * weights.sum()
    y = ((weighted + 16) / 255).astype(np.float32) * np.float32(255)
    return y.astype(np.float64) / 255


def check_comparable(restored: Image, sharp: Image) -> None:
    """Raise BlurkitError unless both images have the same shape and the same depth."""
    if restored.shape != sharp.shape:
        sizes = " and ".join(f"{i.shape[1]}x{i.shape[0]}x{i.shape[2]}" for i in (restored, sharp))
        raise BlurkitError(f"sizes differ: {sizes} (width x height x channels)")
    if restored.dtype != sharp.dtype:
        raise BlurkitError(f"depths differ: {restored.dtype} and {sharp.dtype}")
