"""Image files: everything that a round trip must preserve, whatever the format.

Pixels in a record are upright; the EXIF block is kept unchanged, so writing turns the pixels back
to the stored orientation and every viewer shows the image as before.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image as Pillow

from blurkit.errors import BlurkitError, Say, one_line
from blurkit.io.codecs.exif import orientation_of
from blurkit.io.codecs.metadata import (
    FIELD_NAMES,
    Metadata,
    profile_of,
    to_srgb,
    turn_back,
    turn_upright,
)
from blurkit.io.codecs.pillow import UNREADABLE
from blurkit.io.formats import BY_SUFFIX, WRITTEN_SUFFIXES, ImageFormat, recognise, shown_suffixes
from blurkit.io.paths import reading_error, reading_errors
from blurkit.io.records import Attributes, Image, Record, check_image, from_float, hollow, to_float
from blurkit.io.writing import replacing

HEAD = 64
"""So many first bytes of a file tell its format."""


@dataclass(frozen=True)
class Picture:
    """The content of a file: upright pixels (H, W, 1 or 3), alpha (H, W, 1) or None, attributes."""

    pixels: Image
    alpha: Image | None = None
    attrs: Attributes = field(default_factory=dict)


def read_image(path: Path, decoded: bool = True) -> Picture:
    """Read the image in a file, with its pixels upright.

    Those that are not `decoded` have shapes and types only, and damage is not detected in them.
    Files of 8 and 16 bits keep their depth, depths between become 16 bits; float TIFF becomes
    float32. The attributes are `source`, `suffix`, those that `Metadata` states, and of float
    pixels `beyond`: the parts of their values that are not in [0, 1], if there are any. Raises
    BlurkitError if the file is missing, truncated, damaged or not an image, or if values are NaN or
    mostly of another scale than [0, 1].
    """
    known = {FileNotFoundError: "no such file", IsADirectoryError: "is a folder, not an image file"}
    with reading_errors(path, known), path.open("rb") as file:
        return decode_image(file, path, decoded)


def pixels_in(path: Path) -> int | None:
    """Return how many pixels a file claims to have, None if its head does not tell Pillow so."""
    with suppress(Exception), path.open("rb") as file, Pillow.open(file) as image:
        return image.width * image.height
    return None


def decode_image(file: BinaryIO, path: Path, decoded: bool = True) -> Picture:
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
        raw, metadata = kind.read(file, where, decoded)
    except BlurkitError:
        raise
    except MemoryError as error:
        raise BlurkitError(f"{where}: too large for this machine's memory") from error
    except Exception as error:  # decoders raise errors of any kind on damaged data
        raise reading_error(where, f"damaged or truncated ({one_line(error)})", error) from error
    named = path if suffix else path.with_suffix(kind.suffixes[0])
    upright = upright_picture if decoded else _upright_hollow
    picture = upright(named, raw, metadata.attributes())
    return replace(picture, attrs=picture.attrs | {"source": where})


def upright_picture(path: Path, raw: np.ndarray, attrs: Attributes) -> Picture:
    """Return decoded pixels of a file, (H, W) or (H, W, 1 to 4), as an upright picture.

    Raises BlurkitError if floats are NaN or mostly of another scale than [0, 1].
    """
    alpha, orientation = None, int(attrs.get("orientation", 1))
    attrs = {"source": str(path), "suffix": path.suffix.lower(), **attrs}
    if raw.ndim == 3 and raw.shape[2] in (2, 4):
        raw, alpha = raw[:, :, :-1], turn_upright(_in_range(raw[:, :, -1:])[0], orientation)
    pixels, beyond = _in_range(raw)
    pixels = turn_upright(check_image(pixels, str(path)), orientation)
    if beyond is not None:
        # Of another scale: more than half are above 1, or one is beyond half precision.
        if np.mean(beyond > 0) > 0.5 or np.abs(beyond).max() > 65504:
            low, high = float(raw.min()), float(raw.max())
            reason = f"values from {low:g} to {high:g}; float images are in [0, 1]"
            raise BlurkitError(f"{path}: {reason}, but for highlights")
        attrs["beyond"] = turn_upright(beyond.reshape(raw.shape[0], raw.shape[1], -1), orientation)
    return Picture(pixels, alpha, attrs)


def _upright_hollow(path: Path, raw: np.ndarray, attrs: Attributes) -> Picture:
    """Return the `hollow` pixels of a file as an upright picture, as `upright_picture` does."""
    first = upright_picture(path, raw[:1, :1], attrs)
    size = raw.shape[:2] if int(attrs.get("orientation", 1)) < 5 else raw.shape[1::-1]
    pixels, alpha = first.pixels, first.alpha
    whole = None if alpha is None else hollow((*size, 1), alpha.dtype)
    return Picture(hollow((*size, pixels.shape[2]), pixels.dtype), whole, first.attrs)


def write_image(
    path: Path,
    pixels: Image,
    alpha: Image | None = None,
    attrs: Mapping[str, Any] | None = None,
    force: bool = True,
    quality: int | None = None,
    warn: Say = lambda text: None,
) -> None:
    """Write an image, whole or not at all, in the format of the suffix of `path`.

    `pixels` are (H, W, 1 or 3), upright; values deeper than the format (`FORMATS`) are rounded.
    `attrs` are those of `read_image`, which come along if the format can hold them; if it has no
    ICC profile, colours are converted to sRGB. `warn` is called once with what does not come along.
    `quality` (1 to 100) is that of lossy formats; by default 95, and of a JPEG with `jpeg_tables`
    these tables. Without `force`, an existing file is kept. Raises BlurkitError if the suffix is
    unknown, the disk is full, the folder cannot be written, the file is kept, or the format cannot
    show the colours.
    """
    _check_suffix(str(path), path.suffix)
    with replacing(path, force) as partial:
        encoded = encode_image(path.suffix, pixels, alpha, attrs, quality, str(path), warn)
        partial.write_bytes(encoded)


def encode_image(
    suffix: str,
    pixels: Image,
    alpha: Image | None = None,
    attrs: Mapping[str, Any] | None = None,
    quality: int | None = None,
    where: str = "",
    warn: Say = lambda text: None,
) -> bytes:
    """Return what `write_image` would write to a file with `suffix`; messages name `where`."""
    where = where or suffix
    _check_suffix(where, suffix)
    kind, file = BY_SUFFIX[suffix.lower()], io.BytesIO()
    assert kind.write is not None
    try:
        stored, metadata, lost = fitted(kind, pixels, alpha, attrs or {})
        kind.write(file, stored, metadata, quality)
    except (BlurkitError, MemoryError):
        raise
    except Exception as error:  # of any kind: larger than the format allows, odd metadata
        raise BlurkitError(f"{where}: cannot be written ({one_line(error)})") from error
    if lost:
        warn(f"{where}: {not_kept(lost)}")
    return file.getvalue()


def not_kept(lost: list[str]) -> str:
    """Return a sentence about things of a source file that do not come along."""
    return f"the source's {', '.join(dict.fromkeys(lost))} did not come along"


def image_record(name: str, pictures: Mapping[str, Picture]) -> Record:
    """Return the record of a scene's files; alpha and attributes come from the first."""
    first = next(iter(pictures.values()))
    record = Record(name, {role: p.pixels for role, p in pictures.items()}, dict(first.attrs))
    if first.alpha is not None:
        record.images["alpha"] = first.alpha
    return record


def _in_range(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Return float pixels as float32 clipped to [0, 1], and what that takes from them, if any."""
    if pixels.dtype.kind != "f":
        return pixels, None
    pixels = pixels.astype(np.float32)
    finite = np.isfinite(pixels)
    inside = np.where(finite, np.clip(pixels, 0, 1), np.nan)
    beyond = np.where(finite, pixels, 0) - np.where(finite, inside, 0)
    return inside, beyond if beyond.any() else None


def _check_suffix(where: str, suffix: str) -> None:
    if suffix.lower() not in WRITTEN_SUFFIXES:
        known = shown_suffixes()
        raise BlurkitError(f"{where}: unknown image suffix {suffix!r}; use one of {known}")


def fitted(
    kind: ImageFormat, pixels: Image, alpha: Image | None, attrs: Mapping[str, Any]
) -> tuple[Image, Metadata, list[str]]:
    """Return the pixels and metadata that a file of a format stores, and what it cannot hold.

    Upright pixels are turned back, their depth is one of the format's, their colours are sRGB if it
    has no profile, and alpha is a channel. Raises ValueError if the colours cannot be converted.
    """
    metadata, lost = held(kind, Metadata.of(attrs), gray=pixels.shape[2] == 1)
    icc = metadata.icc
    if "icc" not in kind.holds:
        metadata = replace(metadata, icc=b"")
    beyond, is_float = attrs.get("beyond"), np.float32 in kind.depths and pixels.dtype == np.float32
    if beyond is not None and is_float and beyond.shape == pixels.shape:
        pixels = pixels + beyond
    elif beyond is not None:
        lost.append("values beyond 0 and 1")
    if alpha is not None and not kind.alpha:
        lost.append("transparency")
    orientation = metadata.orientation
    in_exif = bool(metadata.exif) and orientation_of(metadata.exif) == orientation
    if kind.turned == "always" or (kind.turned == "exif" and in_exif):
        pixels = turn_back(pixels, orientation)
        alpha = None if alpha is None else turn_back(alpha, orientation)
    else:
        orientation = 1
    if pixels.dtype not in kind.depths:
        lost.append("float values" if pixels.dtype.kind == "f" else "depth of 16 bits")
        pixels = _as_depth(pixels, kind.depths[-1])
    if icc and not metadata.icc and pixels.shape[2] == 3:
        pixels = to_srgb(pixels, icc)
    if alpha is not None and kind.alpha:
        pixels = np.concatenate([pixels, _as_depth(alpha, pixels.dtype)], axis=2)
    return pixels, metadata.stored(orientation, pixels.shape[:2]), lost


def held(kind: ImageFormat, metadata: Metadata, gray: bool = False) -> tuple[Metadata, list[str]]:
    """Return the metadata without what a format cannot hold, and the names of that.

    Colours that are stated by codes become a profile. Raises ValueError if they cannot.
    """
    lost = metadata.lost.split(", ") if metadata.lost else []
    if metadata.cicp and "cicp" not in kind.holds:
        metadata = replace(metadata, icc=metadata.icc or profile_of(metadata.cicp, gray), cicp=None)
    for name, word in FIELD_NAMES.items():
        value = getattr(metadata, name)
        large = name in ("exif", "xmp", "comment") and len(value) > kind.largest
        if value and (name not in kind.holds or large):
            lost.append(word)
            if name != "icc":  # by which colours are converted
                empty: dict[str, Any] = {name: None if name == "resolution" else b""}
                metadata = replace(metadata, **empty)
    if metadata.extras and metadata.extras_of not in kind.suffixes:
        lost += metadata.extras_names.split(", ") if metadata.extras_names else []
        metadata = replace(metadata, extras=b"")
    return metadata, lost


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
