"""What an image file states beside its pixels: metadata, orientation and colour profiles."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from blurkit.io.codecs.exif import revised
from blurkit.io.records import Attributes, Image

INCH, CENTIMETRE, METRE = 0.0254, 0.01, 1.0
"""Units of resolutions, in metres; 0 is none, if only the shape of pixels is stated."""

ATTRIBUTE_NAMES = {"icc": "icc_profile", "tables": "jpeg_tables", "lost": "left_out"}
"""The attributes of a record that have another name than the field of `Metadata`."""


@dataclass(frozen=True)
class Metadata:
    """The metadata of an image file; what a file does not state is empty.

    `icc` is the colour profile, `exif` the EXIF block with `EXIF_HEADER`, `xmp` the XMP packet,
    `photoshop` the blocks of image resources that Photoshop defined, of which one is the IPTC data,
    `comment` a text. `orientation` (1 to 8) says how stored pixels are shown. `resolution` is that
    across and down per unit of so many metres. `cicp` are the codes of primaries, transfer
    function, matrix and range (ITU-T H.273), `bits` those of a depth between 8 and 16, `lossless`
    is true if a format that can lose stored the pixels without loss. `subsampling` is that of
    chroma in a JPEG or HEIC: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0. Of a JPEG, `tables` are the
    quantisation tables (n, 64), rows first; `progressive` is true if it shows coarse pixels first.

    `extras` are the other blocks of a file, as they are stored in files with the suffix
    `extras_of`; other formats cannot hold these, and `extras_names` says what they are, between
    commas. `lost` says what the reader has left out.
    """

    icc: bytes = b""
    exif: bytes = b""
    orientation: int = 1
    tables: np.ndarray | None = None
    subsampling: int | None = None
    progressive: bool = False
    xmp: bytes = b""
    photoshop: bytes = b""
    comment: bytes = b""
    resolution: tuple[float, float, float] | None = None
    cicp: tuple[int, int, int, int] | None = None
    bits: int | None = None
    lossless: bool = False
    extras: bytes = b""
    extras_of: str = ""
    extras_names: str = ""
    lost: str = ""

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> Metadata:
        """Return the metadata in the attributes of a record."""
        stated: dict[str, Any] = {}
        for field in fields(cls):
            value = attrs.get(ATTRIBUTE_NAMES.get(field.name, field.name))
            if value is not None:
                if isinstance(field.default, bytes):
                    value = np.asarray(value, np.uint8).tobytes()
                elif field.name == "cicp":
                    value = tuple(np.asarray(value).astype(int).tolist())
                elif field.name == "resolution":
                    value = _plausible(np.asarray(value).tolist())
                stated[field.name] = value
        return cls(**stated)

    def attributes(self) -> Attributes:
        """Return the attributes of a record that state this metadata."""
        stated: Attributes = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray) or value != field.default:
                if isinstance(value, bytes):
                    value = np.frombuffer(value, np.uint8)
                elif isinstance(value, tuple):
                    value = np.asarray(value, np.float64)
                stated[ATTRIBUTE_NAMES.get(field.name, field.name)] = value
        return stated

    def lacking(self, *what: str) -> Metadata:
        """Return the metadata of a file of which `what` was left out as well."""
        return replace(self, lost=", ".join(filter(None, (self.lost, *what))))

    def per_metre(self) -> tuple[int, int]:
        """Return the resolution across and down in whole numbers, 0 if none is stated."""
        across, down, unit = self.resolution or (0, 0, 0)
        return round(across / (unit or 1)), round(down / (unit or 1))

    def stored(self, orientation: int, size: tuple[int, int]) -> Metadata:
        """Return what is true of (height, width) pixels stored in an orientation: no thumbnails."""
        exif = revised(self.exif, orientation, size)
        resources = blocks(self.photoshop)
        kept = (whole for number, _, whole in resources if number not in THUMBNAIL_RESOURCES)
        xmp = THUMBNAILS_IN_XMP.sub(b"", self.xmp)
        for name, number in zip(NUMBERS_IN_XMP, (orientation, *size, *size), strict=True):
            pattern = rb"(\b" + name + rb"(?:=[\"']|>\s*))\d+"
            xmp = re.sub(pattern, rb"\g<1>%d" % number, xmp)
        return replace(self, exif=exif, orientation=orientation, photoshop=b"".join(kept), xmp=xmp)


THUMBNAILS_IN_XMP = re.compile(rb"<(xmp|xap):Thumbnails\b.*?</\1:Thumbnails>", re.S)


def _plausible(resolution: Sequence[float]) -> tuple[float, float, float] | None:
    """Return a resolution if it is one, since formats store it in integers of several sizes."""
    across, down, unit = resolution
    fits = all(0.01 <= number <= 1e6 for number in (across, down))
    return (across, down, unit) if fits and unit in (0, INCH, CENTIMETRE, METRE) else None


NUMBERS_IN_XMP = (
    *(b"tiff:Orientation", b"tiff:ImageLength", b"tiff:ImageWidth"),
    *(b"exif:PixelYDimension", b"exif:PixelXDimension"),
)


FIELD_NAMES = {
    "icc": "colour profile (colours are converted to sRGB)",
    "exif": "EXIF",
    "xmp": "XMP",
    "photoshop": "IPTC data",
    "comment": "comment",
    "resolution": "resolution",
}
"""What fields of `Metadata` are called where a format cannot hold them."""

# ---- Resources of Photoshop ----------------------------------------------------------------------

IPTC_RESOURCE = 0x0404
THUMBNAIL_RESOURCES = (0x0409, 0x040C)
"""Numbers of blocks of image resources."""


def blocks(photoshop: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Yield the number, content and bytes of every whole block of image resources."""
    place = 0
    while place + 12 <= len(photoshop) and photoshop[place : place + 4] == b"8BIM":
        number, name = struct.unpack_from(">HB", photoshop, place + 4)
        start = place + 6 + (name // 2 + 1) * 2 + 4  # the name and its length are padded together
        size = int.from_bytes(photoshop[start - 4 : start], "big")
        end = start + size
        if end > len(photoshop):
            return
        yield number, photoshop[start:end], photoshop[place:end] + bytes(size % 2)
        place = end + size % 2


def iptc_of(photoshop: bytes) -> bytes:
    """Return the IPTC data in Photoshop's blocks, b"" if there is none."""
    found = (content for number, content, _ in blocks(photoshop) if number == IPTC_RESOURCE)
    return next(found, b"")


def with_iptc(photoshop: bytes, iptc: bytes) -> bytes:
    """Return Photoshop's blocks, with one of IPTC data if they have none and there are such."""
    if not iptc or iptc_of(photoshop):
        return photoshop
    head = struct.pack(">4sHHI", b"8BIM", IPTC_RESOURCE, 0, len(iptc))
    return photoshop + head + iptc + bytes(len(iptc) % 2)


# ---- Orientation ---------------------------------------------------------------------------------


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

    `space` is `RGB` or `CMYK`, where 0 is no ink. Raises ValueError if the profile is not of it.
    """
    import imagecodecs  # only for these files, which a training machine may never read

    try:
        return imagecodecs.cms_transform(
            pixels, profile, imagecodecs.cms_profile("srgb"), colorspace=space, outcolorspace="RGB"
        )
    except imagecodecs.CmsError as error:
        raise ValueError(f"its colour profile is damaged or not of {space} ({error})") from error


PRIMARIES = {
    1: (0.64, 0.33, 0.30, 0.60, 0.15, 0.06),
    5: (0.64, 0.33, 0.29, 0.60, 0.15, 0.06),
    6: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    7: (0.630, 0.340, 0.310, 0.595, 0.155, 0.070),
    9: (0.708, 0.292, 0.170, 0.797, 0.131, 0.046),
    12: (0.680, 0.320, 0.265, 0.690, 0.150, 0.060),
}
"""Red, green and blue by the codes of ITU-T H.273: BT.709, BT.601, BT.2020 and Display P3."""

GAMMAS = {4: 2.2, 5: 2.8, 8: 1.0}
FILMS = (1, 6, 7, 11, 12, 14, 15)
SRGB_CURVE, PQ, HLG = 13, 16, 18
"""Codes of transfer functions: powers, those of BT.709 and BT.2020, and others."""

UNSTATED = 2


def profile_of(cicp: tuple[int, int, int, int], gray: bool = False) -> bytes:
    """Return an ICC profile of colours or grays by their codes, b"" if they are those of sRGB.

    Raises ValueError if no profile can describe them.
    """
    primaries, transfer = cicp[:2]
    if transfer in (PQ, HLG) or {primaries, transfer}.difference(
        PRIMARIES, GAMMAS, FILMS, (SRGB_CURVE, UNSTATED)
    ):
        names = {PQ: "high dynamic range (PQ)", HLG: "high dynamic range (HLG)"}
        name = names.get(transfer, f"the codes {primaries} and {transfer}")
        raise ValueError(f"its colours are of {name}; write .png, .avif or .heic")
    if primaries in (1, UNSTATED) and transfer in (*FILMS, SRGB_CURVE, UNSTATED):
        return b""
    light = np.linspace(0, 1, 1024)
    if transfer in GAMMAS:
        light = light ** GAMMAS[transfer]
    else:  # pictures with the curve of films are shown like those with that of sRGB
        light = np.where(light <= 0.04045, light / 12.92, ((light + 0.055) / 1.055) ** 2.4)
    points = () if gray else PRIMARIES.get(primaries, PRIMARIES[1])
    return built_profile((0.3127, 0.3290), points, light.astype(np.float32))  # of D65


def built_profile(white: Sequence[float], primaries: Sequence[float], light: np.ndarray) -> bytes:
    """Return the ICC profile of chromaticities (x, y) and a curve, of gray without primaries.

    The curve is float32 in [0, 1], or uint16.
    """
    import imagecodecs

    points = [n for at in range(0, len(primaries), 2) for n in (*primaries[at : at + 2], 1.0)]
    profile = imagecodecs.cms_profile(
        "rgb" if primaries else "gray",
        whitepoint=(*white, 1.0),
        primaries=points or None,
        transferfunction=light,
    )
    made = struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # not now, so that results are always the same
    return profile[:24] + made + profile[36:]


def from_cmyk(pixels: Image, profile: bytes = b"") -> Image:
    """Return CMYK pixels (H, W, 4) as RGB: in sRGB by their profile, else by a simple formula."""
    if profile:
        return to_srgb(pixels, profile, "CMYK")
    top = np.uint32(np.iinfo(pixels.dtype).max)
    light = (top - pixels[:, :, :3]) * (top - pixels[:, :, 3:])
    return ((light + top // 2) // top).astype(pixels.dtype)


def divided(pixels: np.ndarray) -> np.ndarray:
    """Return pixels (H, W, 2 or 4) divided by their alpha, which is last; 0 where it is."""
    colours, alpha = pixels[:, :, :-1], pixels[:, :, -1:]
    top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
    plain = np.where(alpha > 0, colours / (np.where(alpha > 0, alpha, 1) / top), 0)
    if pixels.dtype.kind == "u":
        plain = np.rint(np.minimum(plain, top))
    return np.concatenate([plain.astype(pixels.dtype), alpha], axis=2)
