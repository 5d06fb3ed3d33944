"""Crops: the centre of an image, and overlapping tiles of large images for training sets."""

from __future__ import annotations

from collections.abc import Iterator

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Image, Record

WHOLE_IMAGE_ATTRS = ("exif", "orientation")
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
    """Return where tiles start along a side: for 720 pixels, size 512, stride 256, at 0 and 208."""
    last = max(length - size, 0)
    return [*range(0, last, stride), last]


def central_crop(image: Image, height: int, width: int) -> Image:
    """Return the central `height` x `width` pixels of an image; a shorter side is kept whole."""
    top = max(image.shape[0] - height, 0) // 2
    left = max(image.shape[1] - width, 0) // 2
    return image[top : top + height, left : left + width]
