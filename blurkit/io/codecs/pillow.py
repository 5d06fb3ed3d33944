"""Image files that Pillow reads and writes: JPEG, WebP, BMP, GIF, AVIF, PNG and Netpbm."""

from __future__ import annotations

import re
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.JpegImagePlugin

from blurkit.errors import BlurkitError
from blurkit.io import paths
from blurkit.io.codecs.metadata import EXIF_HEADER, Metadata, from_cmyk, orientation_of, with_header
from blurkit.io.paths import check_claim, justified_pixels
from blurkit.io.records import Image, from_float, full_range

UNREADABLE = "is not an image that can be read, or its start is damaged"

QUALITY = 95
"""The quality of lossy formats on writing."""

AVIF_SPEED = 8
"""libaom's: a third of the time of Pillow's 6, with files larger by a hundredth."""

PIL.Image.MAX_IMAGE_PIXELS = None  # in favour of `check_claim`

LIMITED = ("PNG", "BMP", "PPM")
"""The formats whose data are plain or deflated; a pixel of one channel may be a single bit."""

ADOBE_RGB = 0
"""The transform that the Adobe block of a JPEG names if its planes are not luma and chroma."""


@contextmanager
def opened(file: BinaryIO, where: str, *kinds: str) -> Iterator[PIL.Image.Image]:
    """Yield an image that Pillow has opened as one of `kinds`, checked and not yet decoded.

    Raises BlurkitError if it claims too many pixels or its start is damaged.
    """
    size = file.seek(0, 2)
    file.seek(0)
    try:
        image = PIL.Image.open(file, formats=kinds)
    except Exception as error:  # of any kind, with messages that do not help
        raise BlurkitError(f"{where}: {UNREADABLE}") from error
    with image:
        check_frame(image, size, where)
        yield image


def check_frame(image: PIL.Image.Image, stored: int, where: str) -> None:
    """Raise BlurkitError if the frame that an image in so many bytes shows claims too many."""
    limited = image.format in LIMITED
    bands = len(image.getbands())
    bits = (1 if bands == 1 else 8 * bands) if limited else 32
    check_claim(image.height, image.width, bits, stored, where, limited)


@contextmanager
def claims_limited(stored: int) -> Iterator[None]:
    """Let Pillow refuse a frame of a GIF that is far larger than the first, before it exists."""
    most = min(paths.most_pixels, justified_pixels(stored, 32))
    PIL.Image.MAX_IMAGE_PIXELS = most // 2  # Pillow refuses twice as many
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            yield
    finally:
        PIL.Image.MAX_IMAGE_PIXELS = None


def read_pillow(file: BinaryIO, where: str, kind: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels (H, W) or (H, W, 2 to 4) of the first frame, and the metadata."""
    with opened(file, where, kind) as image:
        if kind == "GIF":
            check_gif_end(file)
        return plain_pixels(image), metadata_of(image)


def check_gif_end(file: BinaryIO) -> None:
    """Raise ValueError if the blocks of a GIF end without its trailer: Pillow sees no damage."""
    file.seek(0)
    data = file.read()

    def after_palette(place: int, flags: int) -> int:
        return place + (3 << (flags & 7) + 1 if flags & 0x80 else 0)

    try:
        place = after_palette(13, data[10])
        while (kind := data[place]) != ord(";"):
            place = place + 2 if kind == ord("!") else after_palette(place + 11, data[place + 9])
            while size := data[place]:
                place += size + 1
            place += 1
    except IndexError as error:
        raise ValueError("its end is missing") from error


def read_avif(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of an AVIF file; 10 and 12 bits become 16."""
    import imagecodecs  # Pillow would read them as 8 bits

    with opened(file, where, "AVIF") as image:
        file.seek(0)
        data = file.read()
        flags = data[data.index(b"av1C") + 6]  # of the box that describes the first picture
        bits = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
        if bits == 8:
            return plain_pixels(image), metadata_of(image)
        return full_range(imagecodecs.avif_decode(data, index=0), bits), metadata_of(image)


def write_jpeg(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write 8-bit pixels with a quality, by default as `metadata` says that a JPEG was stored."""
    storage: dict[str, Any] = {"quality": quality or QUALITY, "subsampling": 0}
    if quality is None and metadata.tables is not None:
        subsampling = metadata.subsampling or 0
        storage = {"qtables": metadata.tables.tolist(), "subsampling": subsampling}
    _save(file, pixels, metadata, "JPEG", **storage)


def write_webp(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write 8-bit pixels with a quality; colours under full transparency stay as they are."""
    _save(file, pixels, metadata, "WEBP", quality=quality or QUALITY, exact=True)


def write_avif(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write 8-bit pixels with a quality and chroma of full size."""
    options = {"quality": quality or QUALITY, "subsampling": "4:4:4", "speed": AVIF_SPEED}
    _save(file, pixels, metadata, "AVIF", **options)


def write_simple(
    file: BinaryIO,
    pixels: Image,
    metadata: Metadata,
    quality: int | None,
    kind: str,
    **options: Any,
) -> None:
    """Write 8-bit pixels without loss, as Pillow's format `kind` with its `options`."""
    _save(file, pixels, metadata, kind, **options)


def _save(file: BinaryIO, pixels: Image, metadata: Metadata, kind: str, **options: Any) -> None:
    stated = {"icc_profile": metadata.icc, "exif": metadata.exif}
    options |= {name: value for name, value in stated.items() if value}
    plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    PIL.Image.fromarray(plain).save(file, kind, **options)


def plain_pixels(image: PIL.Image.Image) -> np.ndarray:
    """Return the pixels (H, W) or (H, W, 2 to 4) of an image: gray or RGB, alpha last.

    Palettes, bilevel images, CMYK etc. become plain pixels; CMYK by its profile if there is one.
    """
    mode, transparent = image.mode, "transparency" in image.info
    if mode[0] in "IF":  # deep PGM and PFM
        deep = np.asarray(image)
        return deep.astype(np.uint16) if mode[0] == "I" else deep
    if mode == "CMYK":
        return from_cmyk(np.asarray(image), image.info.get("icc_profile") or b"")
    return np.asarray(image.convert(_plain_mode(mode, transparent)))


def metadata_of(image: PIL.Image.Image) -> Metadata:
    """Return the metadata of an image whose pixels are read: a PNG may store its EXIF last."""
    icc = b"" if image.mode == "CMYK" else image.info.get("icc_profile") or b""
    exif = with_header(image.info.get("exif"))
    return Metadata(icc, exif, orientation_of(exif), *_jpeg_storage(image))


def _jpeg_storage(image: PIL.Image.Image) -> tuple[np.ndarray | None, int | None]:
    """Return the quantisation tables and subsampling of a JPEG of gray, or of luma and chroma."""
    if not isinstance(image, PIL.JpegImagePlugin.JpegImageFile) or image.mode == "CMYK":
        return None, None
    if image.info.get("adobe_transform") == ADOBE_RGB:
        return None, None
    tables = [list(image.quantization[number]) for number in sorted(image.quantization)]
    sampling = PIL.JpegImagePlugin.get_sampling(image)
    return np.asarray(tables, np.uint16), sampling if sampling in (0, 1, 2) else None


def _plain_mode(mode: str, transparent: bool) -> str:
    """Return the Pillow mode to decode to; palettes, bilevel etc. become plain pixels."""
    if mode in ("L", "LA", "RGB", "RGBA"):
        return ("LA" if mode == "L" else "RGBA") if transparent and mode in ("L", "RGB") else mode
    if mode in ("1", "La"):
        return "LA" if mode == "La" else "L"
    return "RGBA" if transparent or mode in ("PA", "RGBa") else "RGB"


# ---- PNG -----------------------------------------------------------------------------------------

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


# ---- Netpbm --------------------------------------------------------------------------------------

NETPBM_STARTS = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF")

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(
    _GAP.join([rb"(P6|PF)", rb"(\d{1,9})", rb"(\d{1,9})", rb"([-+.\deE]{1,20})\s"])
)


def read_netpbm(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels of the first picture: 8 or 16 bits, scaled to their range, or float32.

    Raises BlurkitError if it claims too many pixels, ValueError or OSError if it is damaged.
    """
    file.seek(0)
    header = _HEADER.match(file.read(4096))
    deep = header and header[1] == b"P6" and 255 < int(header[4]) < 65536
    if not header or (header[1] == b"P6" and not deep):
        return read_pillow(file, where, "PPM")
    width, height, most = int(header[2]), int(header[3]), float(header[4])
    stored = file.seek(0, 2)
    check_claim(height, width, 48, stored, where, limited=True)
    kind = np.dtype(">u2" if deep else "<f4" if most < 0 else ">f4")
    file.seek(header.end())
    data = file.read(3 * height * width * kind.itemsize)
    pixels = np.frombuffer(data, kind).reshape(height, width, 3)
    if deep:
        return from_float(pixels / np.float32(most), np.uint16), Metadata()
    return pixels[::-1].astype(np.float32), Metadata()  # a PFM begins with its last row
