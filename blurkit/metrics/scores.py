"""Scoring records: what to measure, and the numbers of one image pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from blurkit.errors import UsageError
from blurkit.io.opencv import opencv
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.alignment import ALIGNMENT_PURPOSE, aligned_scores
from blurkit.metrics.psnr import psnr, psnr_y
from blurkit.metrics.ssim import SSIM_KINDS, ssims

if TYPE_CHECKING:
    from blurkit.metrics.lpips import Lpips

Scores = dict[str, float | None]

PROTOCOL = {
    "values": "rounded to 8 bits, RGB, whole image",
    "psnr": "all channels together, mean of the images' PSNR",
    "ssim": "per channel, Gaussian 11x11, sigma 1.5, valid region (scikit-image, BasicSR)",
    "ssim_matlab": "3-D Gaussian 11x11x11 over the RGB volume, replicated (MATLAB ssim, papers)",
    "ssim_skimage": "per channel, uniform 7x7, sample covariance (scikit-image's default)",
    "ssim_y": "as ssim, luma of BT.601 alone (BasicSR test_y_channel)",
    "psnr_y": "luma of BT.601 alone (BasicSR test_y_channel)",
    "psnr_aligned": "after gain and ECC homography, inside the mask, not rounded again (RealBlur)",
    "ssim_aligned": "as ssim, after gain and ECC homography, inside the mask (RealBlur)",
}
"""How each score is made; printed and stored with it."""

MEASURED_IMAGES = {"sharp": ("restored", "reblurred", "blur"), "blur": ("reblurred", "sharp")}
"""By target, the images that may be held to it, the first that is there; the last of them is what
the others were made from."""


@dataclass(frozen=True)
class Measures:
    """What to measure: kinds of SSIM (of `SSIM_KINDS`), and what is asked for beyond PSNR and SSIM.

    `image` of a record is held to its `target`, `sharp` or `blur`; by default the first of
    `MEASURED_IMAGES` that is there. Raises UsageError for an unknown kind, BlurkitError for `align`
    without OpenCV.
    """

    ssim: Sequence[str] = ("basicsr", "matlab")
    y_psnr: bool = False
    align: bool = False
    lpips: Lpips | None = None
    image: str | None = None
    target: str = "sharp"
    keys: tuple[str, ...] = field(init=False)
    """The names of the scores, in the order in which they are shown."""

    def __post_init__(self) -> None:
        for kind in self.ssim:
            if kind not in SSIM_KINDS:
                raise UsageError(f"--ssim {kind}: choose from {', '.join(SSIM_KINDS)}")
        if self.align:
            opencv(ALIGNMENT_PURPOSE)
        keys = ["psnr", *dict.fromkeys(SSIM_KINDS[kind] for kind in self.ssim)]
        keys += ["psnr_y"] * self.y_psnr + ["psnr_aligned", "ssim_aligned"] * self.align
        keys += ["lpips"] * (self.lpips is not None)
        object.__setattr__(self, "keys", tuple(keys))

    @property
    def ranking(self) -> str:
        """The score by which images and runs are ranked: PSNR, aligned where that is measured."""
        return "psnr_aligned" if self.align else "psnr"

    def protocol(self) -> dict[str, str]:
        """How these scores are made, one line each."""
        lines = {key: PROTOCOL[key] for key in ("values", *self.keys) if key in PROTOCOL}
        if self.image or self.target != "sharp":
            images = self.image or " or ".join(MEASURED_IMAGES[self.target])
            lines["compared"] = f"{images} with {self.target}"
        return lines if self.lpips is None else {**lines, "lpips": self.lpips.protocol}

    def role(self, record: Record) -> str:
        """The name of the record's image that is measured; raises BlurkitError without one."""
        roles = (self.image,) if self.image else MEASURED_IMAGES[self.target]
        record.image(*roles)
        return next(role for role in roles if role in record.images)

    def score(self, record: Record) -> Scores:
        """The scores of a record's `image` against its `target`, and PSNR of what it was made from.

        By `keys`, and `psnr_blur`, or `psnr_sharp` where the target is `blur`; a record without a
        restored image is scored by its blurry one. An SSIM whose window does not fit is None. 8-bit
        values whatever the depth. Raises BlurkitError when there is nothing to compare, the sizes
        differ, or alignment fails.
        """
        target = eight_bit(record.image(self.target))
        made = eight_bit(record.images[self.role(record)])
        scores: Scores = {"psnr": psnr(made, target), **ssims(made, target, self.ssim)}
        if self.y_psnr:
            scores["psnr_y"] = psnr_y(made, target)
        if self.align:
            scores["psnr_aligned"], scores["ssim_aligned"] = aligned_scores(made, target)
        if self.lpips is not None:
            scores["lpips"] = self.lpips(made, target)
        if (before := MEASURED_IMAGES[self.target][-1]) in record.images:
            scores[f"psnr_{before}"] = psnr(eight_bit(record.images[before]), target)
        return scores


def eight_bit(image: Image) -> Image:
    """`image` rounded to uint8, as an 8-bit file of it would hold."""
    return image if image.dtype == np.uint8 else from_float(to_float(image), np.uint8)
