"""Image files: PNG, JPEG, WebP, BMP, PPM and TIFF, with everything a round trip must preserve.

8-bit files are read by imageio, TIFF by tifffile, 16-bit PNG by imagecodecs (Pillow would read it
as 8-bit). Pixels in a record are upright; the EXIF block is kept unchanged, so writing rotates the
pixels back to the stored orientation and every viewer shows the image as before.
"""

from __future__ import annotations

import struct
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO

import imageio.v3 as imageio
import numpy as np
import PIL.Image

from blurkit.errors import BlurkitError, one_line
from blurkit.io.limits import check_claim, check_pixels
from blurkit.io.records import Attributes, Image, Record, check_image, from_float, to_float
from blurkit.io.tiff import ORIENTATION_TAG, SIGNATURES, read_tiff, write_tiff
from blurkit.io.writing import replacing

EXIF_HEADER = b"Exif\x00\x00"

PIL.Image.MAX_IMAGE_PIXELS = None  # in favour of --max-pixels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

CONTENTS = ("PNG", "JPEG", "WEBP", "BMP", "PPM", "GIF")
"""What a file that is not TIFF may hold, whatever its suffix says; see docs/formats.md."""


@dataclass(frozen=True)
class ImageFormat:
    """What files with these suffixes hold. Pillow reads and writes those without a `write`.

    `depths` are the types of their pixels, the deepest last, `alpha` whether they have
    transparency, `metadata` whether an ICC profile and EXIF; `options` are Pillow's on writing.
    """

    suffixes: tuple[str, ...]
    depths: tuple[type, ...] = (np.uint8,)
    alpha: bool = False
    metadata: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)
    write: Callable[[Path, Image, bytes, bytes, int], None] | None = None


@dataclass(frozen=True)
class Picture:
    """The content of a file: upright pixels (H, W, 1 or 3), alpha (H, W, 1) or None, attributes."""

    pixels: Image
    alpha: Image | None = None
    attrs: Attributes = field(default_factory=dict)


def is_image(path: Path) -> bool:
    """Return whether `path` has the suffix of a readable image format."""
    return path.suffix.lower() in IMAGE_SUFFIXES


def read_image(path: Path) -> Picture:
    """Read the image in a file, with its pixels upright.

    8- and 16-bit files keep their depth; float TIFF becomes float32. The attributes are `source`,
    `suffix` and, if the file has them, `icc_profile` and `exif` (uint8 arrays) and `orientation`
    (EXIF 2 to 8). Raises BlurkitError if the file is missing, truncated, damaged or not an image,
    or if values are NaN or far outside [0, 1].
    """
    try:
        head = _head(path)
        if head[:4] in SIGNATURES:
            raw, icc, orientation = read_tiff(path)
            attrs = ({"icc_profile": np.frombuffer(icc, np.uint8)} if icc else {}) | _orientation(
                orientation
            )
        else:
            raw, attrs = _read_other(path, sixteen_bit_png=_is_sixteen_bit_png(head))
    except BlurkitError:
        raise
    except MemoryError as error:
        raise BlurkitError(f"{path}: too large for this machine's memory") from error
    except Exception as error:  # decoders raise errors of any kind on damaged data
        raise BlurkitError(f"{path}: damaged or truncated ({one_line(error)})") from error
    raw = _in_range(raw, path)
    pixels, alpha = _split_alpha(raw)
    orientation = int(attrs.get("orientation", 1))
    pixels = _turn_upright(check_image(pixels, str(path)), orientation)
    if alpha is not None:
        alpha = _turn_upright(alpha, orientation)
    return Picture(pixels, alpha, {"source": str(path), "suffix": path.suffix.lower(), **attrs})


def decode_image(file: BinaryIO, path: Path) -> Picture:
    """Return the image in an open file, as `read_image` does; `path` is its name in messages."""
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy:
        copy.write(file.read())
        copy.flush()
        try:
            picture = read_image(Path(copy.name))
        except BlurkitError as error:
            raise BlurkitError(str(error).replace(copy.name, str(path))) from error
    return replace(picture, attrs={**picture.attrs, "source": str(path)})


def write_image(
    path: Path,
    pixels: Image,
    alpha: Image | None = None,
    attrs: Mapping[str, Any] | None = None,
    force: bool = True,
) -> None:
    """Write an image, whole or not at all, in the format of the suffix of `path`.

    Without `force`, an existing file is kept.

    `pixels` are (H, W, 1 or 3), upright. JPEG, WebP, BMP and PPM hold 8 bits, PNG 8 or 16, TIFF
    also float32; deeper values are rounded to the depth of the format. `attrs` are those of
    `read_image`: ICC profile, EXIF block and orientation are written if the format supports them.
    Raises BlurkitError if the suffix is unknown, the disk is full, the folder cannot be written or
    the file is kept.
    """
    suffix = path.suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        known = " ".join(sorted(IMAGE_SUFFIXES))
        raise BlurkitError(f"{path}: unknown image suffix {path.suffix!r}; use one of {known}")
    kind, attrs = BY_SUFFIX[suffix], attrs or {}
    icc = _bytes_of(attrs.get("icc_profile")) if kind.metadata else b""
    exif = _bytes_of(attrs.get("exif")) if kind.metadata else b""
    orientation = int(attrs.get("orientation", 1))
    if exif or kind is TIFF:  # which has a tag of its own
        pixels = _turn_back(pixels, orientation)
        alpha = None if alpha is None else _turn_back(alpha, orientation)
    if pixels.dtype not in kind.depths:
        pixels = _as_depth(pixels, kind.depths[-1])
    if alpha is not None and kind.alpha:
        pixels = np.concatenate([pixels, _as_depth(alpha, pixels.dtype)], axis=2)
    with replacing(path, force) as partial:
        try:
            if kind.write is not None:
                kind.write(partial, pixels, icc, exif, orientation)
            else:
                _write_by_pillow(partial, suffix, pixels, icc, exif)
        except ValueError as error:  # larger than the format allows
            raise BlurkitError(f"{path}: cannot be written ({one_line(error)})") from error


def image_record(name: str, pictures: Mapping[str, Picture]) -> Record:
    """Return the record of a scene's files; alpha and attributes come from the first."""
    first = next(iter(pictures.values()))
    record = Record(name, {role: p.pixels for role, p in pictures.items()}, dict(first.attrs))
    if first.alpha is not None:
        record.images["alpha"] = first.alpha
    return record


# ---- reading ------------------------------------------------------------------------------------


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            head = file.read(32)
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such file") from error
    except IsADirectoryError as error:
        raise BlurkitError(f"{path}: is a folder, not an image file") from error
    except OSError as error:
        raise BlurkitError(f"{path}: cannot be read ({error.strerror})") from error
    if not head:
        raise BlurkitError(f"{path}: is empty (0 bytes)")
    return head


def _is_sixteen_bit_png(head: bytes) -> bool:
    return head.startswith(PNG_SIGNATURE) and len(head) > 24 and head[24] == 16


def _check_png(path: Path) -> None:
    """Raise BlurkitError if a chunk that holds pixels does not match its checksum.

    Pillow stops in the last of them when it has all rows, and does not verify that one.
    """
    data, place = memoryview(path.read_bytes()), len(PNG_SIGNATURE)
    while place + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + size
        stated = int.from_bytes(data[end : end + 4], "big")
        if kind in (b"PLTE", b"IDAT") and zlib.crc32(data[place + 4 : end]) != stated:
            reason = "its pixels do not match their checksum"
            raise BlurkitError(f"{path}: damaged or truncated ({reason})")
        place = end + 4


def _read_other(path: Path, sixteen_bit_png: bool) -> tuple[np.ndarray, Attributes]:
    try:
        # Pillow's other formats would start helper programs, such as Ghostscript.
        with PIL.Image.open(path, formats=CONTENTS) as claimed:
            kind, (width, height), bands = claimed.format, claimed.size, claimed.getbands()
        opened = imageio.imopen(path, "r", plugin="pillow")
    except Exception as error:  # of any kind, with messages that do not help
        reason = "is not an image that can be read, or its start is damaged"
        raise BlurkitError(f"{path}: {reason}") from error
    check_pixels(height, width, str(path))
    if kind in ("PNG", "BMP", "PPM", "GIF"):
        check_claim(width * height * len(bands) // 8, path.stat().st_size, str(path))
    if kind == "PNG":
        _check_png(path)
    with opened as file:
        info = file.metadata(index=0)
        mode = str(info.get("mode", "RGB"))
        if sixteen_bit_png:
            import imagecodecs  # only for these files, which a training machine may never read

            pixels = imagecodecs.png_decode(path.read_bytes())
        elif mode[0] in "IF":  # deep PGM and PFM named .ppm
            pixels = file.read(index=0)
            pixels = pixels.astype(np.uint16) if mode[0] == "I" else pixels
        else:
            plain = _plain_mode(mode, "transparency" in info)
            pixels = file.read(index=0, mode=plain)  # type: ignore[call-arg]
        info = file.metadata(index=0)  # again: a PNG may store its EXIF after the pixels
    attrs: Attributes = {}
    if info.get("icc_profile") and mode != "CMYK":
        attrs["icc_profile"] = np.frombuffer(info["icc_profile"], np.uint8)
    if info.get("exif"):
        block = info["exif"]
        block = block if block.startswith(EXIF_HEADER) else EXIF_HEADER + block
        attrs["exif"] = np.frombuffer(block, np.uint8)
        exif = PIL.Image.Exif()
        exif.load(block)
        attrs |= _orientation(exif.get(ORIENTATION_TAG))
    return pixels, attrs


def _plain_mode(mode: str, transparent: bool) -> str:
    """Return the Pillow mode to decode to; palettes, CMYK, bilevel etc. become plain pixels."""
    if mode in ("L", "LA", "RGB", "RGBA"):
        return ("LA" if mode == "L" else "RGBA") if transparent and mode in ("L", "RGB") else mode
    if mode in ("1", "La"):
        return "LA" if mode == "La" else "L"
    return "RGBA" if transparent or mode in ("PA", "RGBa") else "RGB"


def _orientation(value: Any) -> Attributes:
    return {"orientation": int(value)} if value in range(2, 9) else {}


def _in_range(pixels: np.ndarray, path: Path) -> np.ndarray:
    """Return float pixels as float32 clipped to [0, 1]. Raises BlurkitError for other scales."""
    if pixels.dtype.kind != "f":
        return pixels
    finite = np.isfinite(pixels)
    low, high = np.min(pixels, initial=0, where=finite), np.max(pixels, initial=0, where=finite)
    if low < -1 or high > 2:
        raise BlurkitError(f"{path}: values from {low:g} to {high:g}; float images are in [0, 1]")
    return np.where(finite, np.clip(pixels, 0, 1), np.nan).astype(np.float32)


def _split_alpha(raw: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if raw.ndim == 3 and raw.shape[2] in (2, 4):
        return raw[:, :, :-1], np.ascontiguousarray(raw[:, :, -1:])
    return raw, None


# ---- orientation: EXIF 1 to 8 as a transpose, then flips ----------------------------------------


def _turn_upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _turn_back(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Invert `_turn_upright`; only 6 and 8 are not their own inverse."""
    return _turn_upright(pixels, {6: 8, 8: 6}.get(orientation, orientation))


# ---- writing ------------------------------------------------------------------------------------


def _bytes_of(value: Any) -> bytes:
    return b"" if value is None else np.asarray(value, np.uint8).tobytes()


def _as_depth(pixels: Image, dtype: np.dtype | type) -> Image:
    return pixels if pixels.dtype == dtype else from_float(to_float(pixels), dtype)


def _write_by_pillow(path: Path, suffix: str, pixels: Image, icc: bytes, exif: bytes) -> None:
    options = dict(BY_SUFFIX[suffix].options)
    if icc:
        options["icc_profile"] = icc
    if exif:
        options["exif"] = exif
    plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    data = imageio.imwrite("<bytes>", plain, plugin="pillow", extension=suffix, **options)
    path.write_bytes(data)


def _write_tiff(path: Path, pixels: Image, icc: bytes, exif: bytes, orientation: int) -> None:
    write_tiff(path, pixels, icc, orientation)


def _write_png(path: Path, pixels: Image, icc: bytes, exif: bytes, orientation: int) -> None:
    if pixels.dtype == np.uint16:
        path.write_bytes(_sixteen_bit_png(pixels, icc, exif))
    else:
        _write_by_pillow(path, ".png", pixels, icc, exif)


def _sixteen_bit_png(pixels: Image, icc: bytes, exif: bytes) -> bytes:
    """Return a PNG file; its metadata chunks follow the header directly, as iCCP requires."""
    import imagecodecs  # only for these files

    plain = pixels[:, :, 0] if pixels.shape[2] == 1 else pixels
    data = bytes(imagecodecs.png_encode(plain))
    header_end = 8 + 25
    chunks = b""
    if icc:
        chunks += _png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(icc))
    if exif:
        chunks += _png_chunk(b"eXIf", exif.removeprefix(EXIF_HEADER))
    return data[:header_end] + chunks + data[header_end:]


def _png_chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


# ---- the formats --------------------------------------------------------------------------------

QUALITY = 95
"""JPEG and WebP quality on writing."""

TIFF = ImageFormat(
    (".tif", ".tiff"), (np.uint8, np.uint16, np.float32), alpha=True, write=_write_tiff
)

FORMATS = (
    ImageFormat((".png",), (np.uint8, np.uint16), alpha=True, write=_write_png),
    ImageFormat((".jpg", ".jpeg"), options={"quality": QUALITY, "subsampling": 0}),
    ImageFormat((".webp",), alpha=True, options={"quality": QUALITY, "exact": True}),
    ImageFormat((".bmp",), metadata=False),
    ImageFormat((".ppm",), metadata=False),
    TIFF,
)
"""Every image format that is read and written."""

BY_SUFFIX = {suffix: kind for kind in FORMATS for suffix in kind.suffixes}
IMAGE_SUFFIXES = frozenset(BY_SUFFIX)
