"""TIFF files: every depth and colour space that photos come in, as plain pixels."""

from __future__ import annotations

import io
import logging
import struct
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.codecs import exif
from blurkit.io.codecs.metadata import (
    CENTIMETRE,
    INCH,
    METRE,
    Metadata,
    divided,
    from_cmyk,
    iptc_of,
    with_iptc,
)
from blurkit.io.codecs.pillow import opened
from blurkit.io.codecs.segments import FRAMES, segments
from blurkit.io.paths import check_claim, decoding_errors, reading_error, system_failure
from blurkit.io.records import Image, full_range, hollow, squeezed

if TYPE_CHECKING:
    import tifffile


SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
ICC_TAG = 34675
LAYERS_TAG = 37724

STRUCTURE = {
    *range(254, 267),  # what is stored, in which size and depth
    *(273, 274, *range(277, 286), 288, 289, 290, 291, 292, 293, 296, 301, 317, *range(320, 345)),
    *(*range(346, 348), *range(512, 533), 559, 32995, 32996, 32997, 32998, 34676, 50838, 50839),
    *(ICC_TAG, exif.XMP_TAG, exif.IPTC_TAG, exif.PHOTOSHOP_TAG, LAYERS_TAG),
}
"""Tags of how pixels are stored, which are written anew, and those with a field of `Metadata`."""

PLACEHOLDERS = {exif.EXIF_TAG: exif.EXIF_TAG - 1, exif.GPS_TAG: exif.GPS_TAG - 1}
"""The tags under which directories are written, since tifffile leaves out their own."""

RESOLUTION_UNITS = {1: 0, 2: INCH, 3: CENTIMETRE}

DEFLATED = ("NONE", "LZW", "DEFLATE", "ADOBE_DEFLATE", "PACKBITS")
"""The compressions that are none, deflate or LZW, or compress less."""

FAX = ("CCITTRLE", "CCIRLEW", "CCITTFAX3", "CCITTFAX4")
"""Those that spend a bit or more on every row; their decoder takes missing rows as white ones."""

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


def read_tiff(file: BinaryIO, where: str, decoded: bool = True) -> Page:
    """Return the first page of a TIFF file.

    Pixels are as stored, but palettes and CMYK become RGB, depths such as 1, 4 and 12 bits are
    scaled to the range of their type, and colours are not multiplied by alpha. Raises BlurkitError
    if the colour space is unsupported, and tifffile's errors for damaged files.
    """
    import tifffile  # only for these files

    with tifffile.TiffFile(file) as opened:
        if not opened.pages:
            raise BlurkitError(f"{where}: damaged or truncated (no image in it)")
        page: Any = opened.pages[0]
        if page.is_reduced or _named(page.photometric) == "CFA":
            reason = "holds a preview or the data of a camera's sensor first"
            raise BlurkitError(f"{where}: {reason}; a RAW file is read by its suffix, such as .dng")
        pixels, metadata = next(_read_page(page, opened, where, decoded))
        return pixels, _without_masks(metadata, opened)


def page_count(path: Path) -> int:
    """Return the number of a TIFF file's pages, without thumbnails and masks; 0 if damaged.

    Raises BlurkitError if the operating system cannot read the file.
    """
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            return sum(_planes(page, file) for page in _whole_pages(file))
    except Exception as error:  # tifffile raises errors of any kind on damaged data
        if system_failure(error):
            raise reading_error(path, "", error) from error
        return 0


def read_pages(path: Path) -> Generator[Page, None, None]:
    """Yield the pages of a TIFF file as `read_tiff` returns the first one."""
    import tifffile

    with tifffile.TiffFile(path) as file:
        for number, page in enumerate(_whole_pages(file)):
            with decoding_errors(path, f"damaged after page {number}"):
                for pixels, metadata in _read_page(page, file, str(path)):
                    yield pixels, _without_masks(metadata, file)


def write_tiff(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4), losslessly compressed; a second or fourth channel is alpha."""
    import tifffile

    order = exif.byte_order(metadata.exif.removeprefix(exif.EXIF_HEADER))
    with tifffile.TiffWriter(file, byteorder=order) as writer:
        write_page(writer, pixels, metadata)
    link_directories(file)


def write_page(writer: tifffile.TiffWriter, pixels: Image, metadata: Metadata) -> None:
    """Append a page as `write_tiff` writes the only one; `link_directories` completes the file."""
    channels, (across, down, unit) = pixels.shape[2], metadata.resolution or (1, 1, 0)
    if unit == METRE:
        across, down, unit = across * CENTIMETRE, down * CENTIMETRE, CENTIMETRE
    writer.write(
        squeezed(pixels),
        photometric="rgb" if channels >= 3 else "minisblack",
        extrasamples=["unassalpha"] if channels in (2, 4) else None,
        planarconfig="contig" if channels > 1 else None,
        compression="zlib",
        predictor=True,
        iccprofile=metadata.icc or None,
        resolution=(across, down),
        resolutionunit=next(code for code, metres in RESOLUTION_UNITS.items() if metres == unit),
        extratags=[*_extra_tags(writer, metadata)],
        metadata=None,
        software=False,
    )


def _extra_tags(
    writer: tifffile.TiffWriter, metadata: Metadata
) -> Iterator[tuple[int, int, int, Any, bool]]:
    """Yield the tags of a page beside those of its pixels; directories are written before it."""
    if metadata.orientation > 1:
        yield exif.ORIENTATION_TAG, 3, 1, metadata.orientation, True
    iptc = iptc_of(metadata.photoshop)
    photoshop = b"" if metadata.photoshop == with_iptc(b"", iptc) else metadata.photoshop
    for tag, kind, data in (
        (exif.XMP_TAG, 1, metadata.xmp),
        (exif.IPTC_TAG, 7, iptc),
        (exif.PHOTOSHOP_TAG, 1, photoshop),
    ):
        if data:
            yield tag, kind, len(data), data, True
    tags, order = exif.parsed(metadata.exif)
    tags = tags if order == writer.tiff.byteorder else {}
    for tag, value in tags.items():
        if not isinstance(value, dict):
            if tag not in STRUCTURE:
                yield tag, *value, True
        elif tag in PLACEHOLDERS:
            file = writer.filehandle
            place = file.seek(0, 2)
            place += file.write(bytes(place % 2))
            file.write(exif.directory_bytes(value, place, order))
            yield PLACEHOLDERS[tag], 4, 1, place, True


def link_directories(file: BinaryIO | Path) -> None:
    """Give the directories in a file that `write_page` has written their own tags."""
    import tifffile

    if not isinstance(file, Path):
        file.seek(0)
    with tifffile.TiffFile(file, mode="r+") as written:
        for page in _pages(written):
            for tag, placeholder in PLACEHOLDERS.items():
                if found := page.tags.get(placeholder):
                    written.filehandle.seek(found.offset)
                    written.filehandle.write(struct.pack(f"{written.byteorder}H", tag))


def _pages(file: tifffile.TiffFile) -> Iterator[Any]:
    pages: Any = file.pages
    return map(pages.__getitem__, range(len(pages)))  # iterating follows circles for ever


def _whole_pages(file: tifffile.TiffFile) -> list[Any]:
    return [page for page in _pages(file) if not (page.is_reduced or page.is_mask)]


def _check_images(page: Any, compression: str, where: str) -> None:
    """Raise BlurkitError if a strip or tile, a file that its decoder believes, claims too much."""
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
    """Return the height and width in the header of a JPEG. Raises ValueError if it has none."""
    for kind, start, end in segments(data):
        if kind in FRAMES and end - start >= 5:
            height, width = struct.unpack_from(">HH", data, start + 1)
            return height, width
    raise ValueError("a JPEG without a header")


def _planes(page: Any, file: tifffile.TiffFile) -> int:
    """Return the number of planes of a page: several in a volume, or if others follow."""
    # Of large stacks, ImageJ describes the first plane only. The series of tifffile are no help:
    # for them, it follows circles and opens other files.
    if file.is_imagej and len(file.pages) == 1 and page.is_final and page.imagedepth == 1:
        return max(int((file.imagej_metadata or {}).get("images", 1)), 1)
    return int(page.imagedepth)


def _read_page(
    page: Any, file: tifffile.TiffFile, where: str, decoded: bool = True
) -> Iterator[Page]:
    """Yield the planes of a page; of one that is not `decoded`, a `hollow` array of the first."""
    planes, stored = _planes(page, file), file.filehandle.size
    height, width = page.imagelength * planes, page.imagewidth
    if page.is_tiled:  # and perhaps smaller than its tiles
        height = max(height, page.tilelength * page.tiledepth)
        width = max(width, page.tilewidth)
    bits, compression = page.samplesperpixel * page.bitspersample, _named(page.compression)
    # The decoders of the last two give no more than the page has.
    embedded = compression not in (*DEFLATED, *FAX, "ZSTD", "LZMA")
    if embedded:  # images of whole bytes, whatever the page says of its bits
        bits = max(bits, 8 * page.samplesperpixel)
    check_claim(height, width, bits, stored, where, compression in DEFLATED)
    if compression in FAX and height > 8 * stored:
        raise BlurkitError(f"{where}: claims {height} rows, which {stored} bytes cannot hold")
    if embedded:
        _check_images(page, compression, where)
    metadata = _metadata_of(page)
    if not decoded:
        pixel = np.zeros((1, 1, page.samplesperpixel), page.dtype)
        pixel, metadata = _plain(page, pixel, metadata, where)
        yield hollow((page.imagelength, page.imagewidth, pixel.shape[2]), pixel.dtype), metadata
        return
    if page.imagedepth == planes:
        values = page.asarray()
    else:
        kind, place = page.parent.byteorder + page.dtype.char, page.dataoffsets[0]
        values = file.filehandle.read_array(kind, page.size * planes, place)
        values = values.reshape(planes, *page.shape)
    if _named(page.planarconfig) == "SEPARATE" and page.samplesperpixel > 1:
        values = np.moveaxis(values, 0, -1)
    for plane in values if planes > 1 else [values]:
        yield _plain(page, plane, metadata, where)


def _metadata_of(page: Any) -> Metadata:
    """Return the metadata of a page; the tags that EXIF blocks have too are in one."""
    file, order, tags = page.parent.filehandle, page.parent.byteorder, page.tags
    data = dict.fromkeys((ICC_TAG, exif.XMP_TAG, exif.IPTC_TAG, exif.PHOTOSHOP_TAG), b"")
    for tag in data:
        if tag in tags:
            file.seek(tags[tag].valueoffset)
            data[tag] = file.read(tags[tag].valuebytecount)
    directory = exif.read_directory(file, page.offset, order, page.parent.is_bigtiff)
    if 270 in directory and page.description.startswith('{"shape":'):  # tifffile's, of the pages
        del directory[270]
    kept: exif.Directory = {tag: v for tag, v in directory.items() if tag not in STRUCTURE}
    ratios = (tags.valueof(name, default=(0, 1)) for name in ("XResolution", "YResolution"))
    across, down = (r[0] / r[1] if isinstance(r, tuple) and r[1] else 0.0 for r in ratios)
    unit = RESOLUTION_UNITS.get(int(tags.valueof("ResolutionUnit", default=2)), 0)
    stated = across and down and (unit or across != down)
    orientation = int(tags[exif.ORIENTATION_TAG].value) if exif.ORIENTATION_TAG in tags else 1
    metadata = Metadata(
        icc=data[ICC_TAG],
        exif=exif.block(kept, order),
        orientation=orientation if orientation in range(1, 9) else 1,
        xmp=data[exif.XMP_TAG],
        photoshop=with_iptc(data[exif.PHOTOSHOP_TAG], data[exif.IPTC_TAG]),
        resolution=(across, down, unit) if stated else None,
    )
    return metadata.lacking("layers of Photoshop") if LAYERS_TAG in tags else metadata


def _without_masks(metadata: Metadata, file: tifffile.TiffFile) -> Metadata:
    return metadata.lacking("mask") if any(page.is_mask for page in _pages(file)) else metadata


def _plain(page: Any, pixels: np.ndarray, metadata: Metadata, where: str) -> Page:
    """Return the values of a page as plain pixels: gray or RGB, and alpha last if there is one."""
    colours, bits = _named(page.photometric), page.bitspersample
    pixels = pixels if pixels.ndim == 3 else pixels[:, :, None]
    extra = [_named(kind) for kind in page.extrasamples]
    if colours == "MINISBLACK" and extra == ["UNSPECIFIED"] * 2:
        extra, metadata = [], metadata.lacking("gray planes (they are red, green and blue now)")
    elif colours == "MINISBLACK" and extra.count("UNSPECIFIED") > 1:
        reason = f"has {len(extra) + 1} planes whose meaning is not stated"
        raise BlurkitError(f"{where}: {reason}; make them pages, or RGB")
    rest, alpha = pixels[:, :, pixels.shape[2] - len(extra) :], None
    pixels = pixels[:, :, : pixels.shape[2] - len(extra)]
    for number, kind in enumerate(extra):
        if kind in ("ASSOCALPHA", "UNASSALPHA") and alpha is None:
            alpha = full_range(rest[:, :, number : number + 1], bits)
            premultiplied = kind == "ASSOCALPHA"
        else:
            metadata = metadata.lacking("channel of unstated meaning")
    if colours == "PALETTE":
        pixels, metadata = _coloured(page.colormap, pixels), metadata.lacking("palette")
    elif pixels.dtype.kind in "bu":
        pixels = full_range(pixels, bits)
    if colours == "MINISWHITE":
        top = np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 1
        pixels = (top - pixels).astype(pixels.dtype, copy=False)
    elif colours == "SEPARATED" and pixels.shape[2] == 4:
        pixels = from_cmyk(pixels, metadata.icc)
        metadata = replace(metadata, icc=b"").lacking("CMYK colours")
    elif colours not in ("MINISBLACK", "RGB", "PALETTE") and not (
        colours == "YCBCR" and "JPEG" in _named(page.compression)  # decoding makes it RGB
    ):
        raise BlurkitError(
            f"{where}: unsupported TIFF colour space {colours}; convert the file to RGB first"
        )
    if alpha is not None:
        pixels = np.concatenate([pixels, alpha.astype(pixels.dtype, copy=False)], axis=2)
        pixels = divided(pixels) if premultiplied else pixels
    return pixels, metadata


def _coloured(colormap: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return the 8-bit colours of a palette's numbers (H, W, 1); a palette is (3, n)."""
    entries = colormap if colormap.max() < 256 else colormap >> 8  # should have 16 bits
    return np.moveaxis(entries.astype(np.uint8)[:, numbers[:, :, 0]], 0, -1)


def _named(value: Any) -> str:
    """Return tifffile's name of the value of a tag, or the number itself if it has none."""
    return str(getattr(value, "name", value))[:40]  # a damaged tag may have thousands of values
