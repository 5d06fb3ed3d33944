"""Image files that Pillow reads and writes: JPEG, WebP, BMP, PPM, GIF, AVIF and 8-bit PNG."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.JpegImagePlugin

from blurkit.errors import BlurkitError
from blurkit.io.colour import from_cmyk
from blurkit.io.limits import check_claim, check_pixels
from blurkit.io.metadata import Metadata, orientation_of, with_header
from blurkit.io.records import Image, full_range

PIL.Image.MAX_IMAGE_PIXELS = None  # in favour of --max-pixels

UNREADABLE = "is not an image that can be read, or its start is damaged"

QUALITY = 95
"""The quality of lossy formats on writing."""

AVIF_SPEED = 8
"""libaom's: a third of the time of Pillow's 6, with files larger by a hundredth."""

COUNTED = ("PNG", "BMP", "PPM", "GIF")
"""The formats of which a byte stands for `MOST_DEFLATED` at most, or is one."""

ADOBE_RGB = 0
"""The transform that the Adobe block of a JPEG names if its planes are not luma and chroma."""


@contextmanager
def opened(file: BinaryIO, where: str, kind: str) -> Iterator[PIL.Image.Image]:
    """Yield an image that Pillow has opened as `kind`, its size checked, its pixels not decoded.

    Raises BlurkitError if it claims too many pixels or its start is damaged.
    """
    size = file.seek(0, 2)
    file.seek(0)
    try:
        image = PIL.Image.open(file, formats=(kind,))
    except Exception as error:  # of any kind, with messages that do not help
        raise BlurkitError(f"{where}: {UNREADABLE}") from error
    with image:
        check_pixels(image.height, image.width, where)
        if kind in COUNTED:
            bytes_of_pixels = image.width * image.height * len(image.getbands()) // 8
            check_claim(bytes_of_pixels, size, where)
        yield image


def read_pillow(file: BinaryIO, where: str, kind: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels (H, W) or (H, W, 2 to 4) of the first frame, and the metadata."""
    with opened(file, where, kind) as image:
        return plain_pixels(image), metadata_of(image)


def read_avif(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of an AVIF file; 10 and 12 bits become 16."""
    import imagecodecs  # Pillow would read them as 8 bits

    with opened(file, where, "AVIF") as image:
        file.seek(0)
        data = file.read()
        bits = _avif_bits(data)
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


def _avif_bits(data: bytes) -> int:
    """Return the bits of the first picture, by the flags of its `av1C` box."""
    flags = data[data.index(b"av1C") + 6]
    return 8 if not flags & 0x40 else 12 if flags & 0x20 else 10


def _plain_mode(mode: str, transparent: bool) -> str:
    """Return the Pillow mode to decode to; palettes, bilevel etc. become plain pixels."""
    if mode in ("L", "LA", "RGB", "RGBA"):
        return ("LA" if mode == "L" else "RGBA") if transparent and mode in ("L", "RGB") else mode
    if mode in ("1", "La"):
        return "LA" if mode == "La" else "L"
    return "RGBA" if transparent or mode in ("PA", "RGBa") else "RGB"
