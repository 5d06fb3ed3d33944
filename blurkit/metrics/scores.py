"""Scoring of records: what to measure, and the scores of one image pair."""

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
"""How each score is computed; printed and stored with the scores."""

MEASURED_IMAGES = {"sharp": ("restored", "reblurred", "blur"), "blur": ("reblurred", "sharp")}
"""By target, the images that may be compared with it: the first that a record has is measured. The
others were made from the last one."""


@dataclass(frozen=True)
class Measures:
    """What to measure: PSNR, the kinds of SSIM in `ssim` (of `SSIM_KINDS`), and optional scores.

    The `image` of a record is compared with its `target`, `sharp` or `blur`; by default it is the
    first of `MEASURED_IMAGES` that the record has. Raises UsageError if a kind of SSIM is unknown,
    and BlurkitError if `align` is set and OpenCV is missing.
    """

    ssim: Sequence[str] = ("basicsr", "matlab")
    y_psnr: bool = False
    align: bool = False
    lpips: Lpips | None = None
    image: str | None = None
    target: str = "sharp"
    keys: tuple[str, ...] = field(init=False)
    """The names of the scores, in the order in which they are printed."""

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
        """The score that ranks images and runs: aligned PSNR if measured, else PSNR."""
        return "psnr_aligned" if self.align else "psnr"

    def protocol(self) -> dict[str, str]:
        """Return one line on how each of these scores is computed."""
        lines = {key: PROTOCOL[key] for key in ("values", *self.keys) if key in PROTOCOL}
        if self.image or self.target != "sharp":
            images = self.image or " or ".join(MEASURED_IMAGES[self.target])
            lines["compared"] = f"{images} with {self.target}"
        return lines if self.lpips is None else {**lines, "lpips": self.lpips.protocol}

    def role(self, record: Record) -> str:
        """Return the role of the record's image that is measured.

        Raises BlurkitError if the record has no such image.
        """
        roles = (self.image,) if self.image else MEASURED_IMAGES[self.target]
        record.image(*roles)
        return next(role for role in roles if role in record.images)

    def score(self, record: Record) -> Scores:
        """Return the scores of a record's `image` against its `target`, by name.

        The names are `keys` and `psnr_blur` (`psnr_sharp` if the target is `blur`), the PSNR of the
        image that it was made from. If there is no restored image, the blurry one is scored.
        Images are rounded to 8 bits. An SSIM is None if its window does not fit into the image.
        Raises BlurkitError if there is nothing to compare, the sizes differ, or alignment fails.
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
    """Return `image` rounded to uint8, as an 8-bit file would store it."""
    return image if image.dtype == np.uint8 else from_float(to_float(image), np.uint8)
