"""Conversion of colours by ICC profiles, for files whose colours a record or format cannot hold."""

from __future__ import annotations

import numpy as np

from blurkit.io.records import Image


def to_srgb(pixels: Image, profile: bytes, space: str = "RGB") -> Image:
    """Return the sRGB colours of pixels (H, W, 3 or 4) in the space of an ICC profile.

    `space` is `RGB` or `CMYK`, where 0 is no ink. Raises ValueError if the profile is damaged or
    of another space.
    """
    import imagecodecs  # only for these files, which a training machine may never read

    try:
        srgb = imagecodecs.cms_profile("srgb")
        converted: np.ndarray = imagecodecs.cms_transform(
            pixels, profile, srgb, colorspace=space, outcolorspace="RGB"
        )
    except imagecodecs.CmsError as error:
        raise ValueError(f"its colour profile is damaged or not of {space} ({error})") from error
    return converted


def from_cmyk(pixels: Image, profile: bytes = b"") -> Image:
    """Return CMYK pixels (H, W, 4) as RGB: in sRGB by their profile, else by a simple formula."""
    if profile:
        return to_srgb(pixels, profile, "CMYK")
    top = np.uint32(np.iinfo(pixels.dtype).max)
    light = (top - pixels[:, :, :3]) * (top - pixels[:, :, 3:])
    return ((light + top // 2) // top).astype(pixels.dtype)
