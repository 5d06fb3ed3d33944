"""Image formats: which are read and written, how they are recognised, and which are not read."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import BinaryIO

import numpy as np

from blurkit.io.codecs import avif, camera, jpeg, pillow, png, segments, tiff
from blurkit.io.codecs.metadata import Metadata
from blurkit.io.records import Image


@dataclass(frozen=True)
class ImageFormat:
    """An image format, how it is recognised by its first bytes, read and written.

    `starts` are what its files begin with, `brands` the brands that their `ftyp` box names. `read`
    takes a file, its name for messages, and whether to decode pixels; if not, they are
    `hollow`. `write` takes a file, pixels with alpha last, metadata and a quality (1 to 100, or
    None for the default); files of a format without `write` become those with the suffix
    `becomes`. `depths` are the types of the pixels that it holds, the deepest last, and `holds` the
    fields of `Metadata` that it writes, of which none has more bytes than `largest`. Pixels are
    turned back to the orientation in their EXIF block if `exif` is written, and `always` if the
    format states it elsewhere. `extra` is blurkit's extra that brings its `module`.
    """

    suffixes: tuple[str, ...]
    read: Callable[[BinaryIO, str, bool], tuple[np.ndarray, Metadata]]
    write: Callable[[BinaryIO, Image, Metadata, int | None], None] | None = None
    starts: tuple[bytes, ...] = ()
    brands: tuple[bytes, ...] = ()
    becomes: str = ".png"
    depths: tuple[type, ...] = (np.uint8,)
    alpha: bool = False
    holds: frozenset[str] = frozenset()
    largest: int = 1 << 30
    turned: str = "exif"
    module: str = ""
    extra: str = ""

    @property
    def present(self) -> bool:
        """Whether the package is installed that reads this format."""
        return not self.module or find_spec(self.module) is not None


DEEP = (np.uint8, np.uint16)
HEIC = (b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis", b"mif1", b"msf1")

RAW_SUFFIXES = (
    ".3fr .arw .cr2 .cr3 .dcr .dng .erf .fff .iiq .kdc .mef .mos .mrw .nef .nrw .orf .pef .raf .rw2"
    " .rwl .sr2 .srf .srw .x3f"
)

EXIF = frozenset({"icc", "exif", "xmp"})
"""The fields of `Metadata` that most formats hold."""

PPM = ImageFormat(
    (".ppm",),
    pillow.read_netpbm,
    pillow.write_netpbm,
    pillow.NETPBM_STARTS,
    depths=DEEP,
    holds=frozenset({"comment"}),
    turned="never",
)
TIFF = ImageFormat(
    (".tif", ".tiff"),
    tiff.read_tiff,
    tiff.write_tiff,
    tiff.SIGNATURES,
    depths=(np.uint8, np.uint16, np.float32),
    alpha=True,
    holds=EXIF | {"photoshop", "resolution"},
    turned="always",
)
RAW = ImageFormat(
    tuple(RAW_SUFFIXES.split()),
    camera.read_raw,
    starts=(b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"FOVb", b"\0MRM"),
    brands=(b"crx ",),
    becomes=".tif",
    module="rawpy",
    extra="raw",
)

_deep = partial(ImageFormat, depths=DEEP, alpha=True)

FORMATS = (
    _deep(
        (".png",),
        png.read_png,
        png.write_png,
        (png.PNG_SIGNATURE,),
        holds=EXIF | {"comment", "resolution", "cicp"},
    ),
    ImageFormat(
        (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
        segments.read_jpeg,
        segments.write_jpeg,
        (b"\xff\xd8\xff",),
        holds=EXIF | {"photoshop", "comment", "resolution"},
        largest=segments.LARGEST_PACKET,
    ),
    ImageFormat(
        (".webp",), pillow.read_webp, pillow.write_webp, (b"RIFF",), alpha=True, holds=EXIF
    ),
    ImageFormat(
        (".bmp",),
        pillow.read_bmp,
        pillow.write_bmp,
        (b"BM",),
        holds=frozenset({"resolution"}),
        turned="never",
    ),
    PPM,
    ImageFormat((".pgm", ".pbm", ".pnm", ".pfm"), PPM.read),
    ImageFormat((".gif",), pillow.read_gif, starts=(b"GIF8",), holds=frozenset({"comment"})),
    TIFF,
    _deep(
        (".avif",),
        avif.read_avif,
        avif.write_avif,
        brands=(b"avif", b"avis"),
        holds=EXIF | {"cicp"},
    ),
    _deep(
        (".jxl",),
        jpeg.read_jpegxl,
        jpeg.write_jpegxl,
        (jpeg.JXL_CODESTREAM, jpeg.JXL_CONTAINER),
        holds=EXIF - {"icc"},
        turned="never",
    ),
    _deep(
        (".jp2",),
        jpeg.read_jpeg2000,
        jpeg.write_jpeg2000,
        (jpeg.JP2_CODESTREAM, jpeg.JP2_CONTAINER),
        holds=EXIF | {"photoshop", "comment", "resolution"},
        turned="never",
    ),
    ImageFormat((".j2k", ".j2c", ".jpc", ".jpx", ".jpf"), jpeg.read_jpeg2000, becomes=".jp2"),
    _deep(
        (".heic", ".heif", ".hif"),
        camera.read_heif,
        camera.write_heif,
        brands=HEIC,
        holds=EXIF | {"cicp"},
        module="pillow_heif",
        extra="heic",
    ),
    RAW,
)
"""Every image format that is read. Contents decide, not suffixes, except between TIFF and RAW."""

BY_SUFFIX = {suffix: kind for kind in FORMATS for suffix in kind.suffixes}
IMAGE_SUFFIXES = frozenset(s for s, kind in BY_SUFFIX.items() if kind.present)
WRITTEN_SUFFIXES = frozenset(s for s in IMAGE_SUFFIXES if BY_SUFFIX[s].write)

OTHER_PICTURES = (
    ".ai .avifs .bpg .cin .crw .dcm .dds .dpx .eps .exr .fits .flif .gpr .hdp .hdr .heics .heifs"
    " .icns .ico .jls .jng .jps .jxr .kra .mng .pam .pcx .psb .psd .qoi .sgi .svg .svgz .tga .wdp"
    " .xbm .xcf .xpm"
)
OTHER_FILMS = ".3g2 .asf .f4v .flv .insv .lrv .m2v .mpeg .mpg .mxf .ogv .qt .rmvb .vob .wmv .y4m"
"""The suffixes of images and films that no reader knows; other files are not pictures."""

OTHER_STARTS = {
    ".h5": rb"\x89HDF\r\n\x1a\n",
    ".mkv": rb"\x1aE\xdf\xa3",
    ".avi": rb"RIFF....AVI ",
    ".mov": rb"....ftypqt",
    ".mp4": rb"....ftyp",
}
"""What shards and films begin with, as regular expressions."""

UNREAD_SUFFIXES = (
    frozenset(BY_SUFFIX).union(OTHER_PICTURES.split(), OTHER_FILMS.split()) - IMAGE_SUFFIXES
)


def recognise(head: bytes, suffix: str = "") -> ImageFormat | None:
    """Return the format of a file that begins with `head` (64 bytes), None if it is unknown.

    Of the suffix, which has its dot and is in lower case, only that of a RAW file counts, since
    many of these are TIFF files; Canon's have a mark of their own.
    """
    if head.startswith(tiff.SIGNATURES) and (suffix in RAW.suffixes or head[8:10] == b"CR"):
        return RAW
    if head[:4] == b"RIFF" and head[8:12] != b"WEBP":
        return None
    named = jpeg.brands(head)
    for kind in FORMATS:
        if head.startswith(kind.starts) or named.intersection(kind.brands):
            return kind
    return None


def ending(path: Path) -> str:
    """Return the suffix of a file in lower case; if it has none, one for its content, or ""."""
    if path.suffix:
        return path.suffix.lower()
    try:
        head = b""
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(64)
    except OSError:  # which is reported when it is read
        return ""
    if kind := recognise(head):
        return kind.suffixes[0]
    starts = OTHER_STARTS.items()
    return next((suffix for suffix, start in starts if re.match(start, head, re.DOTALL)), "")


def written_suffix(suffix: str) -> str:
    """Return the suffix of the results of files with `suffix`, .png for one that is unknown."""
    if suffix in WRITTEN_SUFFIXES:
        return suffix
    return BY_SUFFIX[suffix].becomes if suffix in BY_SUFFIX else ".png"


def shown_suffixes() -> str:
    """Return the first suffix of every format that is written."""
    return " ".join(kind.suffixes[0] for kind in FORMATS if kind.present and kind.write)


def is_image(path: Path) -> bool:
    """Return whether `path` has the suffix of a readable image, or none and such content."""
    return ending(path) in IMAGE_SUFFIXES


def is_written(path: Path) -> bool:
    """Return whether `path` has the suffix of an image format that can be written."""
    return path.suffix.lower() in WRITTEN_SUFFIXES


def why_unread(suffix: str) -> str | None:
    """Return why files with `suffix` are not read though they are pictures or films, else None."""
    if suffix not in UNREAD_SUFFIXES:
        return None
    if suffix in BY_SUFFIX:
        return f"pip install 'blurkit[{BY_SUFFIX[suffix].extra}]'"
    return "a film" if suffix in OTHER_FILMS.split() else "not an image format that blurkit reads"
