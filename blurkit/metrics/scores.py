"""Scoring records: the numbers of one image pair, and of a whole set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.psnr import psnr
from blurkit.metrics.ssim import ssims

PROTOCOL = {
    "values": "rounded to 8 bits, RGB, whole image",
    "psnr": "all channels together, mean of the images' PSNR",
    "ssim": "per channel, Gaussian 11x11, sigma 1.5, valid region (scikit-image, BasicSR)",
    "ssim_matlab": "3-D Gaussian 11x11x11 over the RGB volume, replicated (MATLAB ssim, papers)",
}
"""How the scores are made; printed and stored with them."""

SCORES = ("psnr", "ssim", "ssim_matlab")


def score(record: Record) -> dict[str, float | None]:
    """PSNR and both SSIMs of a record's `restored` against its `sharp`, and PSNR of its `blur`.

    Keys `psnr`, `ssim`, `ssim_matlab`, `psnr_blur`; a record without a restored image is scored
    by its blurry one. SSIM under 11 pixels a side is None. 8-bit values whatever the depth.
    Raises BlurkitError when there is nothing to compare or the sizes differ.
    """
    sharp = eight_bit(record.image("sharp"))
    restored = eight_bit(record.image("restored", "reblurred", "blur"))
    scores: dict[str, float | None] = {"psnr": psnr(restored, sharp)}
    scores["ssim"], scores["ssim_matlab"] = ssims(restored, sharp)
    if "blur" in record.images:
        scores["psnr_blur"] = psnr(eight_bit(record.images["blur"]), sharp)
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
