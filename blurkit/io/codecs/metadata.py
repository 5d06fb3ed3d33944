"""What an image file states beside its pixels: metadata, orientation and colour profiles."""

from __future__ import annotations

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from blurkit.io.records import Attributes, Image

EXIF_HEADER = b"Exif\x00\x00"
ORIENTATION_TAG = 274


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image file.

    `icc` is its colour profile and `exif` its EXIF block with `EXIF_HEADER`; both are empty if
    there is none. `orientation` (1 to 8) says how stored pixels are shown. Of a JPEG, `tables` are
    the quantisation tables (n, 64), rows first, and `subsampling` that of chroma: 0 for 4:4:4, 1
    for 4:2:2, 2 for 4:2:0.
    """

    icc: bytes = b""
    exif: bytes = b""
    orientation: int = 1
    tables: np.ndarray | None = None
    subsampling: int | None = None

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Metadata:
        """Return the metadata in the attributes of a record."""
        names = ("icc_profile", "exif")
        icc, exif = (np.asarray(attrs.get(name, ()), np.uint8).tobytes() for name in names)
        tables, subsampling = attrs.get("jpeg_tables"), attrs.get("jpeg_subsampling")
        return cls(icc, exif, int(attrs.get("orientation", 1)), tables, subsampling)

    def attributes(self) -> Attributes:
        """Return the attributes of a record that state this metadata."""
        stated = {
            "icc_profile": np.frombuffer(self.icc, np.uint8) if self.icc else None,
            "exif": np.frombuffer(self.exif, np.uint8) if self.exif else None,
            "orientation": self.orientation if self.orientation in range(2, 9) else None,
            "jpeg_tables": self.tables,
            "jpeg_subsampling": self.subsampling,
        }
        return {name: value for name, value in stated.items() if value is not None}


def with_header(exif: bytes | None) -> bytes:
    """Return an EXIF block with its header, which some formats leave out; b"" for no block."""
    return EXIF_HEADER + exif.removeprefix(EXIF_HEADER) if exif else b""


def orientation_of(exif: bytes) -> int:
    """Return the orientation (1 to 8) that an EXIF block states, 1 if it states none."""
    block = PIL.Image.Exif()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of damage in other parts of the block
        block.load(exif)
        value = block.get(ORIENTATION_TAG)
    return value if isinstance(value, int) and value in range(2, 9) else 1


def as_upright(exif: bytes) -> bytes:
    """Return an EXIF block whose orientation, if it states one, is 1; all else stays in place."""
    start = len(EXIF_HEADER)
    order = "<" if exif[start : start + 2] == b"II" else ">"
    changed = bytearray(exif)
    try:
        (directory,) = struct.unpack_from(f"{order}I", exif, start + 4)
        (entries,) = struct.unpack_from(f"{order}H", exif, start + directory)
        for place in range(start + directory + 2, start + directory + 2 + 12 * entries, 12):
            if struct.unpack_from(f"{order}H", exif, place) == (ORIENTATION_TAG,):
                struct.pack_into(f"{order}H", changed, place + 8, 1)
    except struct.error:  # damaged, and therefore without an orientation
        return exif
    return bytes(changed)


def turn_upright(pixels: Image, orientation: int) -> Image:
    """Return stored pixels as they are shown: a transpose for 5 to 8, then flips."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def turn_back(pixels: Image, orientation: int) -> Image:
    """Invert `turn_upright`; only 6 and 8 are not their own inverse."""
    return turn_upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))


# ---- Conversion of colours -----------------------------------------------------------------------


def to_srgb(pixels: Image, profile: bytes, space: str = "RGB") -> Image:
    """Return the sRGB colours of pixels (H, W, 3 or 4) in the space of an ICC profile.

    `space` is `RGB` or `CMYK`, where 0 is no ink. Raises ValueError if the profile is damaged or
    of another space.
    """
    import imagecodecs  # only for these files, which a training machine may never read

    try:
        srgb = imagecodecs.cms_profile("srgb")
        return imagecodecs.cms_transform(
            pixels, profile, srgb, colorspace=space, outcolorspace="RGB"
        )
    except imagecodecs.CmsError as error:
        raise ValueError(f"its colour profile is damaged or not of {space} ({error})") from error


def from_cmyk(pixels: Image, profile: bytes = b"") -> Image:
    """Return CMYK pixels (H, W, 4) as RGB: in sRGB by their profile, else by a simple formula."""
    if profile:
        return to_srgb(pixels, profile, "CMYK")
    top = np.uint32(np.iinfo(pixels.dtype).max)
    light = (top - pixels[:, :, :3]) * (top - pixels[:, :, 3:])
    return ((light + top // 2) // top).astype(pixels.dtype)
