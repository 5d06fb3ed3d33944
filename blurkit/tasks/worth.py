"""What a result is worth: sharpness before and after, and the warnings that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from blurkit.engine.engine import Engine
from blurkit.io.records import Image, Record, to_float
from blurkit.metrics.sharpness import sharpness
from blurkit.tasks.deblur import blur_too_long
from blurkit.tasks.reblur import SCORES, reblur, reproduction

WORTH = ("sharpness_before", "sharpness_after", "sharpness_like", "restored_change")
"""Attributes that describe what a result is worth; `--json` prints those that a record has."""

LEAST_CHANGE = 1.0
"""RMS change in 8-bit levels below which a restoration did next to nothing. The least that helped
on 14 real pairs was 1.6; photos of which nothing was recognised have 0."""

SAME_SCENE = 0.87
"""Correlation of two pictures from which they show one scene. Blurry and sharp images of 22 real
pairs have 0.896 and more, two different photos of 137 in BSDS500 at most 0.848."""

BLURRY = 0.42
"""Sharpness below which a result still looks blurry. Three photos with straight blurs of up to 24
pixels were restored to 0.44 and more; blurs of 64 and 96 gained nothing and ended at 0.28 to 0.36
where nothing else gave them away. Of 200 photos of BSDS500, 1 is below."""


def appraised(record: Record, made: str = "restored", source: str = "blur") -> Record:
    """Return `record` with the `sharpness` of the images `source` and `made` as attributes.

    They are `sharpness_before` and `sharpness_after`, from 0 to 1; a restored record also gets
    `restored_change`, the root mean square of the change in 8-bit levels. Raises BlurkitError if
    an image is missing.
    """
    before, after = record.image(source), record.image(made)
    attrs = {"sharpness_before": _rounded(before), "sharpness_after": _rounded(after)}
    if made == "restored":
        change = to_float(after) - to_float(before)
        attrs["restored_change"] = round(255 * float(np.sqrt(np.mean(np.square(change)))), 3)
    return Record(record.name, record.images, record.attrs | attrs)


def reblurred_like(record: Record, like: Record, engine: Engine, checkpoint: str) -> Record:
    """Return `reblur`'s record, appraised; `sharpness_like` is that of the other record's `blur`.

    If both records show one scene at one size, the PSNRs that `reblur` measures for a record that
    is reblurred like itself are measured, too. Arguments and errors are those of `reblur`.
    """
    source = "sharp" if "sharp" in record.images else "restored"
    finished = appraised(reblur(record, like, engine, checkpoint), "reblurred", source)
    sharp, blur = record.image(source), like.image("blur")
    finished.attrs["sharpness_like"] = _rounded(blur)
    if like is not record and _one_scene(sharp, blur):
        finished.attrs |= reproduction(finished.images["reblurred"], sharp, blur)
    return finished


def sharpness_summary(attrs: Mapping[str, Any]) -> str:
    """Return the sharpness before and after in words, for one line about a photo."""
    return f"sharpness {attrs['sharpness_before']:.2f} -> {attrs['sharpness_after']:.2f}"


def restoration_warnings(record: Record) -> list[str]:
    """Return what to be wary of in a restored and appraised record."""
    attrs, strength = record.attrs, record.attrs["restored_strength"]
    if not strength:
        return []
    if attrs["restored_change"] < LEAST_CHANGE * strength:
        return [
            "next to nothing was changed: the photo is sharp, or its blur is of a kind that the "
            "weights do not know"
        ]
    if blur_too_long(record):
        return [
            f"a blur of {attrs['blur_length']:.0f} pixels is longer than the weights undo well; a "
            "smaller copy of the photo may be restored better"
        ]
    if attrs["sharpness_after"] < BLURRY:
        return ["still looks blurry: the blur may be longer than the weights know, or defocus"]
    return []


def reblurring_warnings(attrs: Mapping[str, Any]) -> list[str]:
    """Return a warning if a reblurred record came no nearer to the blur that it was to get.

    PSNRs against the real blurry image decide if they are known, else how far the sharpness is
    from that of the picture whose blur was wanted.
    """
    if SCORES[0] in attrs:
        made, sharp = (attrs[key] for key in SCORES)
        if made > sharp:
            return []
        return [
            f"the blur was not reproduced: {made:.2f} dB against the real blurry image, where the "
            f"sharp image has {sharp:.2f} dB"
        ]
    if "sharpness_like" not in attrs:
        return []
    before, after, like = (attrs[f"sharpness_{which}"] for which in ("before", "after", "like"))
    if abs(after - like) < abs(before - like):
        return []
    return [
        f"came no nearer to the blur of {attrs['reblurred_like']}: sharpness {before:.2f} became "
        f"{after:.2f}, and that picture has {like:.2f}"
    ]


def _one_scene(first: Image, second: Image) -> bool:
    """Return whether two images have one shape and depth and their pixels are as similar."""
    if first.shape != second.shape or first.dtype != second.dtype:
        return False
    values = np.stack([to_float(image).ravel() for image in (first, second)])
    if not values.std(axis=1).all():
        return False
    return float(np.corrcoef(values)[0, 1]) >= SAME_SCENE


def _rounded(image: Image) -> float:
    return round(sharpness(image), 4)
