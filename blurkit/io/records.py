"""The record: one scene, the only thing that commands exchange; its crops and checksum."""

import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import xxhash

from blurkit.errors import BlurkitError, UsageError

Image = np.ndarray
"""(H, W, C) uint8, uint16 or float32 in [0, 1], sRGB, C = 1 or 3."""

Attributes = dict[str, Any]
"""Plain numbers, strings, booleans and small numpy arrays."""

IMAGE_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))


@dataclass
class Record:
    """One scene: a name (which may contain `/`), named images and attributes.

    The usual images are `blur`, `sharp`, `restored`, `reblurred`, and `alpha`, the transparency of
    the scene's original file, (H, W, 1).
    """

    name: str
    images: dict[str, Image] = field(default_factory=dict)
    attrs: Attributes = field(default_factory=dict)

    def image(self, *keys: str) -> Image:
        """Return the first image present among `keys`. Raises BlurkitError if there is none."""
        for key in keys:
            if key in self.images:
                return self.images[key]
        held = ", ".join(self.images) or "no image"
        raise BlurkitError(f"record {self.name!r} holds {held}; {' or '.join(keys)} is needed")

    def check_one_size(self, *keys: str) -> None:
        """Raise BlurkitError, naming the sizes, if the images of `keys` differ in size."""
        sizes = {key: self.image(key).shape[:2] for key in keys}
        if len(set(sizes.values())) > 1:
            sizes_text = ", ".join(f"{key} is {w}x{h}" for key, (h, w) in sizes.items())
            raise BlurkitError(
                f"{self.name}: {sizes_text}; the images of a pair must have the same size"
            )

    @property
    def source(self) -> Path:
        """The file that it was read from, which may be gone; `.` if it is not known."""
        return Path(str(self.attrs.get("source", "")))

    @property
    def bytes(self) -> int:
        """The uncompressed size of all images in bytes."""
        return sum(image.nbytes for image in self.images.values())


TEXTS = ("source", "suffix", "split", "sequence", "film", "extras_of", "extras_names", "left_out")
BYTES = ("exif", "icc_profile", "xmp", "photoshop", "comment", "extras")
"""The attributes that are texts, and those that are arrays of uint8, in every record."""


def check_record(record: Record) -> None:
    """Raise BlurkitError, naming the first fault, unless a record is as `Record` says."""
    if not record.name:
        raise BlurkitError("has no name")
    for key, image in record.images.items():
        check_image(image, f"image {key!r}")
        if image.dtype.kind == "f":
            low, high = float(image.min()), float(image.max())
            if low < -1 or high > 2:  # of another scale
                reason = f"values from {low:g} to {high:g}; float images are in [0, 1]"
                raise BlurkitError(f"image {key!r}: {reason}")
    alpha = record.images.get("alpha")
    if alpha is not None and alpha.shape[2] != 1:
        raise BlurkitError(f"image 'alpha' must be (H, W, 1), not {alpha.shape}")
    for name, value in record.attrs.items():
        fits = {
            **dict.fromkeys(TEXTS, isinstance(value, str)),
            **dict.fromkeys(BYTES, isinstance(value, np.ndarray) and value.dtype == np.uint8),
            "orientation": isinstance(value, int) and value in range(1, 9),
            "frame": isinstance(value, int),
            "jpeg_tables": _are_jpeg_tables(value),
            "resolution": _are_floats(value, 3),
            "cicp": _are_floats(value, 4) and bool((value < 256).all()),
            "bits": isinstance(value, int) and value in range(9, 17),
            "progressive": isinstance(value, bool),
            "lossless": isinstance(value, bool),
            "beyond": isinstance(value, np.ndarray) and value.dtype == np.float32,
            "subsampling": isinstance(value, int) and value in (0, 1, 2),
            "psnr_blur": isinstance(value, (int, float)),
        }
        if not fits.get(name, True):
            raise BlurkitError(f"attribute {name!r} is {str(value)[:40]!r}, which it cannot be")


def _are_jpeg_tables(value: Any) -> bool:
    fits = isinstance(value, np.ndarray) and value.dtype == np.uint16 and value.ndim == 2
    return fits and value.shape[1] == 64 and 1 <= len(value) <= 4 and bool(value.all())


def _are_floats(value: Any, number: int) -> bool:
    """Return whether a value is an array of so many numbers that are not negative."""
    fits = isinstance(value, np.ndarray) and value.dtype == np.float64 and value.shape == (number,)
    return fits and bool(np.isfinite(value).all() and (value >= 0).all())


def check_image(image: np.ndarray, where: str) -> Image:
    """Return `image` as a valid record image; a grayscale (H, W) becomes (H, W, 1).

    Raises BlurkitError for other shapes and types, and for values that are not finite.
    """
    if image.ndim == 2:
        image = image[:, :, None]
    if image.ndim != 3 or image.shape[2] not in (1, 3) or 0 in image.shape:
        raise BlurkitError(f"{where}: an image must be (H, W, 1) or (H, W, 3), not {image.shape}")
    if image.dtype not in IMAGE_TYPES:
        raise BlurkitError(f"{where}: an image must be uint8, uint16 or float32, not {image.dtype}")
    if image.dtype == np.float32:
        bad = int(image.size - np.count_nonzero(np.isfinite(image)))
        if bad:
            raise BlurkitError(f"{where}: {bad} values are NaN or infinite; repair the file first")
    return image


def safe_name(name: str) -> PurePosixPath:
    """Return `name` as a relative path that stays inside any folder it is joined to.

    Raises BlurkitError if the name is empty or absolute, or has `..`, a drive letter, a backslash
    or a control character: the file could then be written outside the output folder.
    """
    path = PurePosixPath(name)
    if (
        not path.parts
        or path.is_absolute()
        or ".." in path.parts
        or re.search(r"[\x00-\x1f\\]|^[A-Za-z]:", name)
    ):
        raise BlurkitError(f"record name {name!r} is not a plain relative path; not written")
    return path


def to_float(image: Image) -> np.ndarray:
    """Return `image` as float32 in [0, 1], whatever its depth."""
    if image.dtype == np.float32:
        return image
    return np.divide(image, np.float32(np.iinfo(image.dtype).max), dtype=np.float32)


def from_float(values: np.ndarray, dtype: np.dtype | type) -> Image:
    """Return floats in [0, 1] as `dtype`, clamped; integers are rounded half to even."""
    dtype = np.dtype(dtype)
    values = np.clip(values, 0, 1)
    if dtype == np.float32:
        return values.astype(np.float32, copy=False)
    values *= np.iinfo(dtype).max  # in place: a photo of 12 megapixels takes 144 MB as float32
    return np.rint(values, out=values).astype(dtype)


def squeezed(pixels: Image) -> np.ndarray:
    """Return pixels (H, W, C) as encoders take them, (H, W) if there is one channel."""
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def hollow(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Return an array that has no values of its own, and takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def full_range(pixels: np.ndarray, bits: int) -> np.ndarray:
    """Return integers of so many bits scaled to the range of their type, bilevel ones to uint8."""
    if pixels.dtype == bool:
        return pixels.astype(np.uint8) * np.uint8(255)
    if bits == pixels.dtype.itemsize * 8:
        return pixels
    return from_float(pixels / (2**bits - 1), pixels.dtype)


# ---- Crops ---------------------------------------------------------------------------------------

WHOLE_IMAGE_ATTRS = ("exif", "orientation", "xmp", "photoshop", "extras", "beyond", "left_out")
"""Attributes that describe the whole image and do not apply to a crop."""


def crop_record(record: Record, size: int, stride: int) -> Iterator[Record]:
    """Yield the tiles of `record`, `size` pixels square, one every `stride` pixels, row by row.

    The last tile of a row or column ends at the border; a side shorter than `size` is kept whole.
    Tiles are named `NAME-001` and so on; all images are cut at the same places. Raises UsageError
    if `size` or `stride` is below 1, BlurkitError if the images differ in size.
    """
    if size < 1 or stride < 1:
        raise UsageError(f"crop size and stride must be 1 or more, got {size} and {stride}")
    sizes = {image.shape[:2] for image in record.images.values()}
    if len(sizes) != 1:
        sizes_text = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)) or "none"
        raise BlurkitError(f"{record.name}: crops need images of one size, these are {sizes_text}")
    height, width = sizes.pop()
    attrs = {k: v for k, v in record.attrs.items() if k not in WHOLE_IMAGE_ATTRS}
    corners = product(crop_starts(height, size, stride), crop_starts(width, size, stride))
    for number, (top, left) in enumerate(corners, 1):
        images = {
            key: image[top : top + size, left : left + size] for key, image in record.images.items()
        }
        yield Record(f"{record.name}-{number:03d}", images, dict(attrs))


def crop_starts(length: int, size: int, stride: int) -> list[int]:
    """Return where tiles start along a side: for 720 pixels, size 512, stride 256, at 0 and 208."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def central_crop(image: Image, height: int, width: int) -> Image:
    """Return the central `height` x `width` pixels of an image; a shorter side is kept whole."""
    top = max(image.shape[0] - height, 0) // 2
    left = max(image.shape[1] - width, 0) // 2
    return image[top : top + height, left : left + width]


# ---- Checksums -----------------------------------------------------------------------------------


def array_checksum(array: np.ndarray) -> str:
    """Return the checksum of an array's type, shape and values, in C order: 32 hex digits."""
    digest = xxhash.xxh3_128(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def record_checksum(
    number: int, name: str, attrs: Mapping[str, Any], images: Mapping[str, str]
) -> str:
    """Return the checksum of a record: of its number, its name, attributes and images.

    `images` are the checksums of its images by their names. Attributes are compared by type and
    value, as they come back from a file: numpy's scalars are plain numbers.
    """
    digest = xxhash.xxh3_128()
    for text in (str(number), name):
        _add(digest, text.encode(errors="surrogateescape"))
    for attribute, value in sorted(attrs.items()):
        _add(digest, attribute.encode(errors="surrogateescape"))
        _add(digest, value_bytes(value))
    for image, checksum in sorted(images.items()):
        _add(digest, f"{image} {checksum}".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _add(digest: Any, data: bytes) -> None:
    digest.update(len(data).to_bytes(8, "little") + data)


def value_bytes(value: Any) -> bytes:
    """Return the bytes of a plain value or array, which differ if its type or value does."""
    if isinstance(value, np.ndarray) and value.ndim:
        return array_checksum(value).encode()
    value = value.item() if isinstance(value, (np.generic, np.ndarray)) else value
    if isinstance(value, float):
        return b"float" + struct.pack("<d", value)
    return f"{type(value).__name__} {value}".encode(errors="surrogateescape")
