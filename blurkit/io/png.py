"""PNG files: what Pillow does not do, which is 16 bits and to verify the last pixels."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.metadata import EXIF_HEADER, Metadata
from blurkit.io.pillow import metadata_of, opened, plain_pixels, write_simple
from blurkit.io.records import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(PNG_SIGNATURE) + 25
DEPTH_PLACE = 24

STRATEGY = zlib.Z_RLE
"""Searching for runs of one byte only writes photos in a quarter of the time; the sizes of their
files change by less than 5 %."""


def read_png(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of a PNG file. Raises BlurkitError if it is damaged."""
    data = file.read()
    with opened(file, where, "PNG") as image:
        _check(data, where)
        pixels = plain_pixels(image)
        if data[DEPTH_PLACE] == 16:
            import imagecodecs  # only for these files, which a training machine may never read

            pixels = imagecodecs.png_decode(data)
        return pixels, metadata_of(image)


def write_png(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4) of 8 or 16 bits."""
    if pixels.dtype == np.uint16:
        file.write(_sixteen_bits(pixels, metadata))
    else:
        write_simple(file, pixels, metadata, quality, "PNG", compress_type=STRATEGY)


def _check(data: bytes, where: str) -> None:
    """Raise BlurkitError if a chunk that holds pixels does not match its checksum.

    Pillow stops in the last of them when it has all rows, and does not verify that one.
    """
    view, place = memoryview(data), len(PNG_SIGNATURE)
    while place + 12 <= len(view):
        size, kind = struct.unpack_from(">I4s", view, place)
        end = place + 8 + size
        stated = int.from_bytes(view[end : end + 4], "big")
        if kind in (b"PLTE", b"IDAT") and zlib.crc32(view[place + 4 : end]) != stated:
            reason = "its pixels do not match their checksum"
            raise BlurkitError(f"{where}: damaged or truncated ({reason})")
        place = end + 4


def _sixteen_bits(pixels: Image, metadata: Metadata) -> bytes:
    """Return a PNG file; its metadata chunks follow the header directly, as iCCP requires."""
    import imagecodecs  # only for these files

    plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    data = bytes(imagecodecs.png_encode(plain, strategy=STRATEGY))
    chunks = b""
    if metadata.icc:
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    if metadata.exif:
        chunks += _chunk(b"eXIf", metadata.exif.removeprefix(EXIF_HEADER))
    return data[:HEADER_END] + chunks + data[HEADER_END:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
