"""Scoring records: the numbers of one image pair, and of a whole set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.psnr import check_comparable, psnr
from blurkit.metrics.ssim import RADIUS, ssim, ssim_matlab

PROTOCOL = {
    "values": "rounded to 8 bits, RGB, whole image",
    "psnr": "all channels together, mean of the images' PSNR",
    "ssim": "per channel, Gaussian 11x11, sigma 1.5, valid region (scikit-image, BasicSR)",
    "ssim_matlab": "3-D Gaussian 11x11x11 over the RGB volume, replicated (MATLAB ssim, papers)",
}
"""How the scores are made; printed and stored with them."""

SCORES = ("psnr", "ssim", "ssim_matlab")


def score(record: Record) -> dict[str, float | None]:
    """PSNR and both SSIMs of a record's `restored`, and of its `blur`, against its `sharp`.

    Keys `psnr`, `ssim`, `ssim_matlab` and, with the suffix `_blur`, those of the blurry input;
    what cannot be had (SSIM under 11 pixels a side) is None. 8-bit values whatever the depth.
    Raises BlurkitError when there is nothing to compare or the sizes differ.
    """
    sharp = eight_bit(record.image("sharp"))
    restored = record.image("restored", "reblurred", "blur")
    scores: dict[str, float | None] = {}
    for suffix, image in (("", restored), ("_blur", record.images.get("blur"))):
        if image is None:
            continue
        image = eight_bit(image)
        check_comparable(image, sharp)
        small = min(sharp.shape[:2]) < 2 * RADIUS + 1
        scores[f"psnr{suffix}"] = psnr(image, sharp)
        scores[f"ssim{suffix}"] = None if small else ssim(image, sharp)
        scores[f"ssim_matlab{suffix}"] = ssim_matlab(image, sharp)
    return scores


def eight_bit(image: Image) -> Image:
    """`image` rounded to uint8, as an 8-bit file of it would hold."""
    return image if image.dtype == np.uint8 else from_float(to_float(image), np.uint8)


def summary(scores: Sequence[dict[str, float | None]]) -> dict[str, Any]:
    """The mean of each score over the images that have a finite one, with how many had not.

    An identical pair has infinite PSNR: it is counted in `infinite` and left out of the mean
    instead of making it infinite.
    """
    keys = [key for row in scores for key in row]
    means: dict[str, Any] = {}
    for key in dict.fromkeys(keys):
        values = [row[key] for row in scores if row.get(key) is not None]
        finite = [value for value in values if value is not None and math.isfinite(value)]
        means[key] = float(np.mean(finite)) if finite else None
    infinite = sum(row.get("psnr") == math.inf for row in scores)
    return {"images": len(scores), "infinite": infinite, **means}
