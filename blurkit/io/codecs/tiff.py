"""TIFF files: every depth and colour space that photos come in, as plain pixels."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from blurkit.errors import BlurkitError, one_line
from blurkit.io.codecs.metadata import ORIENTATION_TAG, Metadata, from_cmyk
from blurkit.io.codecs.pillow import opened
from blurkit.io.paths import check_claim
from blurkit.io.records import Image, full_range

if TYPE_CHECKING:
    import tifffile


SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ICC_TAG = 34675

PLAIN_KINDS = ("MINISWHITE", "MINISBLACK", "RGB", "PALETTE")
"""tifffile's names of the colour spaces whose values are used as they are."""

DEFLATED = ("NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS")
"""The compressions that are none, deflate or LZW, or compress less."""

FAX = ("CCITTRLE", "CCIRLEW", "CCITTFAX3", "CCITTFAX4")
"""The compressions that spend a bit or more on every row; their decoder takes missing rows as white
ones."""

BOUNDED = ("ZSTD", "LZMA")
"""Other compressions that give no more than the page has."""

EMBEDDED = {
    **dict.fromkeys(("JPEG", "JPEG_99", "ALT_JPEG", "JPEG_LOSSY"), "JPEG"),
    **dict.fromkeys(("JPEG2000", "JPEG_2000_LOSSY"), "JPEG2000"),
    **dict.fromkeys(("APERIO_JP2000_YCBC", "APERIO_JP2000_RGB"), "JPEG2000"),
    **{"WEBP": "WEBP", "WEBP_DEPRECATED": "WEBP", "PNG": "PNG"},
}
"""By compression, Pillow's name of the format of strips and tiles that are image files."""

# tifffile logs damage in addition to raising the errors that end up in ours.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


Page = tuple[np.ndarray, Metadata]
"""A page's pixels (H, W) or (H, W, C), and its profile and orientation."""


def read_tiff(file: BinaryIO, where: str) -> Page:
    """Return the first page of a TIFF file.

    Pixels are as stored, but palettes and CMYK become RGB, and depths such as 1, 4 and 12 bits are
    scaled to the range of their type. Raises BlurkitError if the colour space is unsupported, and
    tifffile's errors for damaged files.
    """
    import tifffile  # only for these files

    with tifffile.TiffFile(file) as opened:
        if not opened.pages:
            raise BlurkitError(f"{where}: damaged or truncated (no image in it)")
        page: Any = opened.pages[0]
        if page.is_reduced or _named(page.photometric) == "CFA":
            reason = "holds a preview or the data of a camera's sensor first"
            raise BlurkitError(f"{where}: {reason}; a RAW file is read by its suffix, such as .dng")
        return _read_page(page, opened.filehandle.size, where)


def page_count(path: Path) -> int:
    """Return the number of a TIFF file's pages, without thumbnails and masks; 0 if damaged."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return len(_whole_pages(file))
    except Exception:  # tifffile raises errors of any kind on damaged data
        return 0


def read_pages(path: Path) -> Generator[Page, None, None]:
    """Yield the pages of a TIFF file as `read_tiff` returns the first one."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        for number, page in enumerate(_whole_pages(file)):
            try:
                read = _read_page(page, file.filehandle.size, str(path))
            except BlurkitError:
                raise
            except Exception as error:  # of any kind
                reason = f"damaged after page {number} ({one_line(error)})"
                raise BlurkitError(f"{path}: {reason}") from error
            yield read


def write_tiff(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4), losslessly compressed; a second or fourth channel is alpha."""
    import tifffile

    with tifffile.TiffWriter(file) as writer:
        write_page(writer, pixels, metadata)


def write_page(writer: tifffile.TiffWriter, pixels: Image, metadata: Metadata) -> None:
    """Append a page to a TIFF file, as `write_tiff` writes the only one."""
    plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    channels, orientation = pixels.shape[2], metadata.orientation
    writer.write(
        plain,
        photometric="rgb" if channels >= 3 else "minisblack",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        planarconfig="contig" if channels > 1 else None,
        compression="zlib",
        predictor=True,
        iccprofile=metadata.icc or None,
        extratags=[(ORIENTATION_TAG, "H", 1, orientation, True)] if orientation > 1 else (),
        metadata=None,
    )


def _whole_pages(file: tifffile.TiffFile) -> list[Any]:
    pages: Any = file.pages
    all_pages = map(pages.__getitem__, range(len(pages)))  # iterating follows circles for ever
    return [page for page in all_pages if not (page.is_reduced or page.is_mask)]


def _largest(page: Any) -> tuple[int, int, int]:
    """Return the height and width of a page, or of its tiles if these are larger, and its bits."""
    height, width = page.imagelength * page.imagedepth, page.imagewidth
    if page.is_tiled:
        height = max(height, page.tilelength * page.tiledepth)
        width = max(width, page.tilewidth)
    return height, width, page.samplesperpixel * page.bitspersample


def _check_images(page: Any, compression: str, where: str) -> None:
    """Raise BlurkitError if a strip or tile, which is an image file itself, claims too many pixels.

    Its decoder believes that file, whatever the page says.
    """
    kind = EMBEDDED.get(compression)
    if kind is None:
        raise BlurkitError(f"{where}: unsupported TIFF compression {compression}; convert it first")
    file = page.parent.filehandle
    for offset, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.seek(offset)
        data = file.read(size)
        if kind == "JPEG":  # of any depth, which Pillow does not read
            check_claim(*_jpeg_size(data), 24, len(data), where)
        elif data:
            with opened(io.BytesIO(data), where, kind):
                pass


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """Return the height and width in the header of a JPEG. Raises struct.error if it has none."""
    place = 2
    while True:
        marker, length = struct.unpack_from(">HH", data, place)
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", data, place + 5)
            return height, width
        place += 2 + length


def _read_page(page: Any, stored: int, where: str) -> Page:
    """Return the content of a page of a file of `stored` bytes."""
    height, width, bits = _largest(page)
    compression = _named(page.compression)
    check_claim(height, width, bits, stored, where, compression in DEFLATED)
    if compression in FAX and height > 8 * stored:
        raise BlurkitError(f"{where}: claims {height} rows, which {stored} bytes cannot hold")
    if compression not in (*DEFLATED, *FAX, *BOUNDED):
        _check_images(page, compression, where)
    tags = page.tags
    icc = bytes(tags[ICC_TAG].value) if ICC_TAG in tags else b""
    orientation = int(tags[ORIENTATION_TAG].value) if ORIENTATION_TAG in tags else 1
    pixels, colours = page.asarray(), _named(page.photometric)
    if _named(page.planarconfig) == "SEPARATE" and pixels.ndim == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    if colours == "PALETTE":
        pixels = np.moveaxis((page.colormap >> 8).astype(np.uint8)[:, pixels], 0, -1)
    elif pixels.dtype.kind in "bu":
        pixels = full_range(pixels, page.bitspersample)
    if colours == "MINISWHITE" and pixels.dtype.kind == "u":
        pixels = np.iinfo(pixels.dtype).max - pixels
    elif colours == "SEPARATED" and pixels.shape[2:] == (4,):
        pixels, icc = from_cmyk(pixels, icc), b""
    elif colours not in PLAIN_KINDS and not (
        colours == "YCBCR" and "JPEG" in _named(page.compression)  # decoding makes it RGB
    ):
        raise BlurkitError(
            f"{where}: unsupported TIFF colour space {colours}; convert the file to RGB first"
        )
    return pixels, Metadata(icc, orientation=orientation)


def _named(value: Any) -> str:
    """Return tifffile's name of the value of a tag, or the number itself if it has none."""
    return str(getattr(value, "name", value))[:40]  # a damaged tag may have thousands of values
