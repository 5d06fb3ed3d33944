"""Image files: everything that a round trip must preserve, whatever the format.

Pixels in a record are upright; the EXIF block is kept unchanged, so writing turns the pixels back
to the stored orientation and every viewer shows the image as before.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from blurkit.errors import BlurkitError, one_line
from blurkit.io.codecs.metadata import Metadata, to_srgb, turn_back, turn_upright
from blurkit.io.codecs.pillow import UNREADABLE
from blurkit.io.formats import BY_SUFFIX, WRITTEN_SUFFIXES, ImageFormat, recognise, shown_suffixes
from blurkit.io.paths import reading_errors
from blurkit.io.records import Attributes, Image, Record, check_image, from_float, to_float
from blurkit.io.writing import replacing

HEAD = 64
"""So many first bytes of a file tell its format."""


@dataclass(frozen=True)
class Picture:
    """The content of a file: upright pixels (H, W, 1 or 3), alpha (H, W, 1) or None, attributes."""

    pixels: Image
    alpha: Image | None = None
    attrs: Attributes = field(default_factory=dict)


def read_image(path: Path) -> Picture:
    """Read the image in a file, with its pixels upright.

    Files of 8 and 16 bits keep their depth, depths between become 16 bits; float TIFF becomes
    float32. The attributes are `source`, `suffix` and, if the file has them, `icc_profile` and
    `exif` (uint8 arrays), `orientation` (EXIF 2 to 8), and of a JPEG `jpeg_tables` and
    `jpeg_subsampling`. Raises BlurkitError if the file is missing, truncated, damaged or not an
    image, or if values are NaN or far outside [0, 1].
    """
    known = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, not an image file"}
    with reading_errors(path, known), path.open("rb") as file:
        return decode_image(file, path)


def decode_image(file: BinaryIO, path: Path) -> Picture:
    """Read the image in an open file, as `read_image` does; `path` need not exist.

    If it has no suffix, the attribute `suffix` is that of the format.
    """
    where, suffix = str(path), path.suffix.lower()
    head = file.read(HEAD)
    file.seek(0)
    if not head:
        raise BlurkitError(f"{where}: is empty (0 bytes)")
    kind = recognise(head, suffix)
    if kind is None:
        raise BlurkitError(f"{where}: {UNREADABLE}")
    if not kind.present:
        raise BlurkitError(f"{where}: reading it requires pip install 'blurkit[{kind.extra}]'")
    try:
        raw, metadata = kind.read(file, where)
    except BlurkitError:
        raise
    except MemoryError as error:
        raise BlurkitError(f"{where}: too large for this machine's memory") from error
    except Exception as error:  # decoders raise errors of any kind on damaged data
        raise BlurkitError(f"{where}: damaged or truncated ({one_line(error)})") from error
    named = path if suffix else path.with_suffix(kind.suffixes[0])
    picture = upright_picture(named, raw, metadata.attributes())
    return replace(picture, attrs=picture.attrs | {"source": where})


def upright_picture(path: Path, raw: np.ndarray, attrs: Attributes) -> Picture:
    """Return decoded pixels of a file, (H, W) or (H, W, 1 to 4), as an upright picture.

    Raises BlurkitError if floats are NaN or far outside [0, 1].
    """
    pixels, alpha = _in_range(raw, str(path)), None
    orientation = int(attrs.get("orientation", 1))
    if raw.ndim == 3 and raw.shape[2] in (2, 4):
        pixels, alpha = pixels[:, :, :-1], turn_upright(pixels[:, :, -1:], orientation)
    pixels = turn_upright(check_image(pixels, str(path)), orientation)
    return Picture(pixels, alpha, {"source": str(path), "suffix": path.suffix.lower(), **attrs})


def write_image(
    path: Path,
    pixels: Image,
    alpha: Image | None = None,
    attrs: Mapping[str, Any] | None = None,
    force: bool = True,
    quality: int | None = None,
) -> None:
    """Write an image, whole or not at all, in the format of the suffix of `path`.

    Without `force`, an existing file is kept.

    `pixels` are (H, W, 1 or 3), upright. TIFF holds float32 and 16 bits, PNG, JPEG 2000, JPEG XL
    and HEIC 16 bits, others 8; deeper values are rounded to the depth of the format. `attrs` are
    those of `read_image`: ICC profile, EXIF block and orientation are written if the format
    supports them; if it has no ICC profile, colours are converted to sRGB. `quality` (1 to 100) is
    that of lossy formats; by default 95, and of a JPEG with `jpeg_tables` these tables. Raises
    BlurkitError if the suffix is unknown, the disk is full, the folder cannot be written or the
    file is kept.
    """
    _check_suffix(str(path), path.suffix)
    with replacing(path, force) as partial:
        encoded = encode_image(path.suffix, pixels, alpha, attrs, quality, str(path))
        partial.write_bytes(encoded)


def encode_image(
    suffix: str,
    pixels: Image,
    alpha: Image | None = None,
    attrs: Mapping[str, Any] | None = None,
    quality: int | None = None,
    where: str = "",
) -> bytes:
    """Return what `write_image` would write to a file with `suffix`; messages name `where`."""
    where = where or suffix
    _check_suffix(where, suffix)
    kind, metadata, file = BY_SUFFIX[suffix.lower()], Metadata.of(attrs or {}), io.BytesIO()
    assert kind.write is not None
    try:
        kind.write(file, stored_pixels(kind, pixels, alpha, metadata), metadata, quality)
    except ValueError as error:  # larger than the format allows
        raise BlurkitError(f"{where}: cannot be written ({one_line(error)})") from error
    return file.getvalue()


def image_record(name: str, pictures: Mapping[str, Picture]) -> Record:
    """Return the record of a scene's files; alpha and attributes come from the first."""
    first = next(iter(pictures.values()))
    record = Record(name, {role: p.pixels for role, p in pictures.items()}, dict(first.attrs))
    if first.alpha is not None:
        record.images["alpha"] = first.alpha
    return record


def _in_range(pixels: np.ndarray, where: str) -> np.ndarray:
    """Return float pixels as float32 clipped to [0, 1]. Raises BlurkitError for other scales."""
    if pixels.dtype.kind != "f":
        return pixels
    finite = np.isfinite(pixels)
    low, high = np.min(pixels, initial=0, where=finite), np.max(pixels, initial=0, where=finite)
    if low < -1 or high > 2:
        raise BlurkitError(f"{where}: values from {low:g} to {high:g}; float images are in [0, 1]")
    return np.where(finite, np.clip(pixels, 0, 1), np.nan).astype(np.float32)


def _check_suffix(where: str, suffix: str) -> None:
    if suffix.lower() not in WRITTEN_SUFFIXES:
        known = shown_suffixes(written=True)
        raise BlurkitError(f"{where}: unknown image suffix {suffix!r}; use one of {known}")


def stored_pixels(
    kind: ImageFormat, pixels: Image, alpha: Image | None, metadata: Metadata
) -> Image:
    """Return the pixels that a file of a format stores.

    Upright pixels are turned back, their depth is one of the format's, their colours are sRGB if it
    has no profile, and alpha is a channel. Raises ValueError if the profile cannot be used.
    """
    if kind.turned == "always" or (kind.turned == "exif" and metadata.exif):
        pixels = turn_back(pixels, metadata.orientation)
        alpha = None if alpha is None else turn_back(alpha, metadata.orientation)
    if pixels.dtype not in kind.depths:
        pixels = _as_depth(pixels, kind.depths[-1])
    if metadata.icc and not kind.profile and pixels.shape[2] == 3:
        pixels = to_srgb(pixels, metadata.icc)
    if alpha is not None and kind.alpha:
        pixels = np.concatenate([pixels, _as_depth(alpha, pixels.dtype)], axis=2)
    return pixels


def _as_depth(pixels: Image, dtype: np.dtype | type) -> Image:
    return pixels if pixels.dtype == dtype else from_float(to_float(pixels), dtype)


# ---- Frames --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class FrameTime:
    """When a frame appears and for how long it is shown, in ticks of `time_base` seconds."""

    pts: int
    ticks: int
    time_base: Fraction

    @property
    def start(self) -> Fraction:
        """The start in seconds."""
        return self.pts * self.time_base

    @property
    def duration(self) -> Fraction:
        """The duration in seconds."""
        return self.ticks * self.time_base

    @classmethod
    def of(cls, attrs: Mapping[str, Any]) -> FrameTime:
        """Return the time in a record's attributes. Raises BlurkitError if they hold none."""
        try:
            return cls(int(attrs["pts"]), int(attrs["duration"]), Fraction(attrs["time_base"]))
        except (KeyError, ValueError, TypeError, ZeroDivisionError) as error:
            raise BlurkitError("has no time, as frames of videos and animations do") from error


def frame_picture(
    path: Path, raw: np.ndarray, time: FrameTime, attrs: Attributes | None = None
) -> Picture:
    """Return a frame of the film `path`; a frame that is written alone becomes a PNG file."""
    picture = upright_picture(path, raw, attrs or {})
    times = {"pts": time.pts, "duration": time.ticks, "time_base": str(time.time_base)}
    return Picture(picture.pixels, picture.alpha, picture.attrs | {"suffix": ".png"} | times)
