"""Crops: the middle of an image, and large images cut into overlapping tiles for training sets."""

from __future__ import annotations

from collections.abc import Iterator

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Image, Record

WHOLE_IMAGE_ATTRS = ("exif", "orientation")
"""Attributes that describe the file and no longer hold for a part of it."""


def crop_record(record: Record, size: int, stride: int) -> Iterator[Record]:
    """The tiles of `record`, `size` pixels square, one every `stride` pixels, by rows.

    The last tile of a row or column ends at the border; a side shorter than `size` stays whole.
    Tiles are named `NAME-001` on and all images are cut alike.
    Raises UsageError for a size or stride below 1, BlurkitError for images of different sizes.
    """
    if size < 1 or stride < 1:
        raise UsageError(f"crops take a size and a stride of 1 or more, got {size} and {stride}")
    sizes = {image.shape[:2] for image in record.images.values()}
    if len(sizes) != 1:
        told = ", ".join(f"{width}x{height}" for height, width in sorted(sizes)) or "none"
        raise BlurkitError(f"{record.name}: crops take images of one size, these are {told}")
    height, width = sizes.pop()
    attrs = {k: v for k, v in record.attrs.items() if k not in WHOLE_IMAGE_ATTRS}
    corners = [
        (top, left)
        for top in crop_starts(height, size, stride)
        for left in crop_starts(width, size, stride)
    ]
    for number, (top, left) in enumerate(corners, 1):
        images = {
            key: image[top : top + size, left : left + size] for key, image in record.images.items()
        }
        yield Record(f"{record.name}-{number:03d}", images, dict(attrs))


def crop_starts(length: int, size: int, stride: int) -> list[int]:
    """Where tiles start along a side of `length` pixels: 720 in 512 by 256 gives 0, 208."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def central_crop(image: Image, height: int, width: int) -> Image:
    """The middle `height` x `width` pixels of an image; a side that is shorter stays whole."""
    top = max(image.shape[0] - height, 0) // 2
    left = max(image.shape[1] - width, 0) // 2
    return image[top : top + height, left : left + width]
