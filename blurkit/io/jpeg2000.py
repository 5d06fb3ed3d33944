"""JPEG 2000 files: 8 to 16 bits, transparency, colour profile and EXIF; written without loss."""

from __future__ import annotations

import struct
from typing import BinaryIO

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.boxes import box, boxes, content
from blurkit.io.metadata import EXIF_HEADER, Metadata, as_upright, orientation_of, with_header
from blurkit.io.pillow import opened, plain_pixels
from blurkit.io.records import Image, full_range

JP2_CONTAINER = b"\0\0\0\x0cjP  \r\n\x87\n"
JP2_CODESTREAM = b"\xff\x4f\xff\x51"

EXIF_UUID = b"JpgTiffExif->JP2"
RESTRICTED, ANY_ICC = 2, 3
PLAIN_SPACES = (16, 17)
"""Methods of a `colr` box that give an ICC profile, and the codes of sRGB and its grays."""


def read_jpeg2000(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of a JPEG 2000 file or codestream.

    Raises BlurkitError if it claims too many pixels or its colour space is unsupported.
    """
    import imagecodecs  # only for these files

    data = file.read()
    with opened(file, where, "JPEG2000") as claimed:
        metadata, plain = _metadata(data)
        if _bits(data) <= 8:  # Pillow knows palettes and YCC as well
            claimed.load()
            return plain_pixels(claimed), metadata
    if not plain:
        raise BlurkitError(f"{where}: unsupported colour space; convert the file to RGB first")
    bare = data[data.index(JP2_CODESTREAM) :]  # else imagecodecs would apply the profile
    return full_range(imagecodecs.jpeg2k_decode(bare), _bits(data)), metadata


def write_jpeg2000(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write upright pixels (H, W, 1 to 4) without loss, whatever the quality.

    They stay upright because many viewers do not know the orientation in the EXIF block.
    """
    import imagecodecs

    plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    data = bytes(imagecodecs.jpeg2k_encode(plain, 0, codecformat="jp2", reversible=True))
    for kind, start, end in boxes(data):
        body = data[start:end]
        if kind == b"jp2c" and metadata.exif:
            exif = as_upright(metadata.exif).removeprefix(EXIF_HEADER)
            file.write(box(b"uuid", EXIF_UUID + exif))
        if kind == b"jp2h" and metadata.icc:
            body = _with_profile(body, metadata.icc)
        file.write(box(kind, body))


def _with_profile(header: bytes, icc: bytes) -> bytes:
    """Return the content of a `jp2h` box whose colours are those of a profile."""
    parts = {kind: header[start:end] for kind, start, end in boxes(header)}
    parts[b"colr"] = bytes((RESTRICTED, 0, 0)) + icc
    return b"".join(box(kind, body) for kind, body in parts.items())


def _bits(data: bytes) -> int:
    """Return the bits of the deepest channel, as the codestream states them."""
    place = data.index(JP2_CODESTREAM) + 40  # after the markers and the sizes of image and tiles
    (channels,) = struct.unpack_from(">H", data, place)
    return max((data[place + 2 + 3 * channel] & 0x7F) + 1 for channel in range(channels))


def _metadata(data: bytes) -> tuple[Metadata, bool]:
    """Return the metadata, and whether colours need no conversion other than by a profile."""
    if data.startswith(JP2_CODESTREAM):
        return Metadata(), True
    colour = content(content(data, b"jp2h"), b"colr")
    icc = colour[3:] if colour[:1] in (bytes((RESTRICTED,)), bytes((ANY_ICC,))) else b""
    plain = bool(icc) or int.from_bytes(colour[3:7], "big") in PLAIN_SPACES
    uuids = (data[start:end] for kind, start, end in boxes(data) if kind == b"uuid")
    exif = next((body[16:] for body in uuids if body.startswith(EXIF_UUID)), b"")
    exif = with_header(exif)
    return Metadata(icc, exif, orientation_of(exif)), plain
