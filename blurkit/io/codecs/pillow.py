"""Image files that Pillow reads and writes: WebP, BMP and GIF, and Netpbm."""

import io
import re
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import PIL.Image

from blurkit.io import paths
from blurkit.io.codecs.exif import orientation_of, with_header
from blurkit.io.codecs.metadata import METRE, Metadata, from_cmyk
from blurkit.io.paths import check_claim, justified_pixels, reading_error
from blurkit.io.records import Image, from_float, hollow, squeezed

UNREADABLE = "is not an image that can be read, or its start is damaged"

QUALITY = 95
"""The quality of lossy formats on writing."""

PIL.Image.MAX_IMAGE_PIXELS = None  # in favour of `check_claim`

HEADER_OF_BMP = 14
"""The place of the header that describes the pixels of a BMP file."""


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
        raise reading_error(where, UNREADABLE, error) from error
    with image:
        check_frame(image, size, where)
        yield image


def check_frame(image: PIL.Image.Image, stored: int, where: str) -> None:
    """Raise BlurkitError if the frame that an image in so many bytes shows claims too many."""
    limited, bands = image.format in ("PNG", "BMP", "PPM"), len(image.getbands())
    bits = (1 if bands == 1 else 8 * bands) if limited else 32  # one channel may be bilevel
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


def read_pillow(
    file: BinaryIO, where: str, kind: str, decoded: bool = True
) -> tuple[np.ndarray, Metadata]:
    """Return the pixels (H, W) or (H, W, 2 to 4) of the first frame, and the metadata."""
    with opened(file, where, kind) as image:
        return plain_pixels(image, decoded), metadata_of(image)


def read_webp(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of the first frame of a WebP file."""
    pixels, metadata = read_pillow(file, where, "WEBP", decoded)
    file.seek(0)
    kinds = [
        body[16:20] if kind == b"ANMF" else kind  # of a frame the first chunk in it
        for kind, body in _riff(file.read())
    ]
    lost = [f"{kind.decode('latin-1')} chunk" for kind in kinds if kind not in CHUNKS]
    return pixels, replace(metadata, lossless=b"VP8L" in kinds, lost=", ".join(lost))


def read_gif(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of the first frame of a GIF file."""
    pixels, metadata = read_pillow(file, where, "GIF", decoded)
    check_gif_end(file)
    file.seek(0)
    _, _, packet = file.read().partition(b"\x21\xff\x0bXMP DataXMP")  # which is not in blocks
    return pixels, replace(metadata, xmp=packet.partition(b"\x01\xff\xfe")[0])


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


def write_webp(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write 8-bit pixels with a quality; colours under full transparency stay as they are."""
    lossless = metadata.lossless and quality is None
    options = {"quality": quality or QUALITY, "lossless": lossless, "exact": True}
    file.write(encoded(pixels, metadata, "WEBP", **options))


CHUNKS = (b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"ICCP", b"EXIF", b"XMP ")
"""The chunks of WebP files that are read."""


def _riff(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, place)
        yield kind, data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def read_bmp(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of a BMP file, also the profile in its fifth version."""
    pixels, metadata = read_pillow(file, where, "BMP", decoded)
    file.seek(HEADER_OF_BMP)
    header = file.read(124)
    across, down = struct.unpack_from("<II", header, 24) if len(header) >= 40 else (0, 0)
    if across and down:
        metadata = replace(metadata, resolution=(float(across), float(down), METRE))
    if header[:4] == b"\x7c\0\0\0" and header[56:60] == b"DEBM":  # with a profile in the file
        place, size = struct.unpack_from("<II", header, 112)
        file.seek(HEADER_OF_BMP + place)
        metadata = replace(metadata, icc=file.read(size))
    return pixels, metadata


def write_bmp(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write 8-bit pixels and their resolution."""
    data = bytearray(encoded(pixels, Metadata(), "BMP"))
    struct.pack_into("<II", data, HEADER_OF_BMP + 24, *metadata.per_metre())
    file.write(data)


def encoded(pixels: Image, metadata: Metadata, kind: str, **options: Any) -> bytes:
    """Return 8-bit pixels, profile, EXIF block and XMP packet as a file of a format of Pillow."""
    stated = {"icc_profile": metadata.icc, "exif": metadata.exif, "xmp": metadata.xmp}
    options |= {name: value for name, value in stated.items() if value}
    PIL.Image.fromarray(squeezed(pixels)).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def plain_pixels(image: PIL.Image.Image, decoded: bool = True) -> np.ndarray:
    """Return the pixels (H, W) or (H, W, 2 to 4) of an image: gray or RGB, alpha last.

    Palettes, bilevel images, CMYK etc. become plain pixels; CMYK by its profile if there is one.
    Those that are not `decoded` are a `hollow` array.
    """
    mode, transparent = image.mode, "transparency" in image.info
    deep = {"I": np.uint16, "F": np.float32}.get(mode[0])  # PGM and PFM
    plain = "L" if deep else "RGB" if mode == "CMYK" else _plain_mode(mode, transparent)
    if not decoded:
        return hollow((image.height, image.width, len(plain)), deep or np.uint8)
    if deep:
        return np.asarray(image).astype(deep, copy=False)
    if mode == "CMYK":
        return from_cmyk(np.asarray(image), image.info.get("icc_profile") or b"")
    return np.asarray(image.convert(plain))


def metadata_of(image: PIL.Image.Image) -> Metadata:
    """Return the metadata of an image whose pixels are read: a PNG may store its EXIF last."""
    icc = b"" if image.mode == "CMYK" else image.info.get("icc_profile") or b""
    exif, xmp = with_header(image.info.get("exif")), image.info.get("xmp") or b""
    comment = image.info.get("comment") or b"" if image.format == "GIF" else b""
    lost = {"P": "palette", "PA": "palette", "CMYK": "CMYK colours"}
    return Metadata(
        *(icc, exif, orientation_of(exif)),
        xmp=xmp.encode() if isinstance(xmp, str) else xmp,
        comment=comment.encode() if isinstance(comment, str) else comment,
        lost=lost.get(image.mode, ""),
    )


def _plain_mode(mode: str, transparent: bool) -> str:
    if mode in ("L", "LA", "RGB", "RGBA"):
        return ("LA" if mode == "L" else "RGBA") if transparent and mode in ("L", "RGB") else mode
    if mode in ("1", "La"):
        return "LA" if mode == "La" else "L"
    return "RGBA" if transparent or mode in ("PA", "RGBa") else "RGB"


# ---- Netpbm --------------------------------------------------------------------------------------

NETPBM_STARTS = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF")

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(
    _GAP.join([rb"(P6|PF)", rb"(\d{1,9})", rb"(\d{1,9})", rb"([-+.\deE]{1,20})\s"])
)
_START = re.compile(_GAP.join([rb"P[1-6fF]", rb"[\d]+", rb"[\d]+"]))
_COMMENT = re.compile(rb"#[ \t]?([^\r\n]*)")


def read_netpbm(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels of the first picture: 8 or 16 bits, scaled to their range, or float32.

    Raises BlurkitError if it claims too many pixels, ValueError or OSError if it is damaged.
    """
    file.seek(0)
    start = file.read(4096)
    header, commented = _HEADER.match(start), _START.match(start)
    comment = b"\n".join(_COMMENT.findall(commented[0])) if commented else b""
    deep = header and header[1] == b"P6" and 255 < int(header[4]) < 65536
    if not header or (header[1] == b"P6" and not deep):
        pixels, metadata = read_pillow(file, where, "PPM", decoded)
        return pixels, replace(metadata, comment=comment)
    width, height, most = int(header[2]), int(header[3]), float(header[4])
    check_claim(height, width, 48, file.seek(0, 2), where, limited=True)
    kind = np.dtype(">u2" if deep else "<f4" if most < 0 else ">f4")
    if not decoded:
        pixels = hollow((height, width, 3), np.uint16 if deep else np.float32)
        return pixels, Metadata(comment=comment)
    file.seek(header.end())
    data = file.read(3 * height * width * kind.itemsize)
    pixels = np.frombuffer(data, kind).reshape(height, width, 3)
    if deep:
        pixels = from_float(pixels / np.float32(most), np.uint16)
    else:  # which begins with its last row
        pixels = pixels[::-1].astype(np.float32)
    return pixels, Metadata(comment=comment)


def write_netpbm(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 or 3) of 8 or 16 bits, behind their comment."""
    height, width, channels = pixels.shape
    lines = [b"P6" if channels == 3 else b"P5"]
    lines += [b"# " + line for line in metadata.comment.splitlines()]
    lines.append(b"%d %d\n%d\n" % (width, height, np.iinfo(pixels.dtype).max))
    file.write(b"\n".join(lines) + pixels.astype(pixels.dtype.newbyteorder(">")).tobytes())
