"""Pictures for people: results side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blurkit.io.images import write_image
from blurkit.io.records import Image, Record, from_float, safe_name, to_float

GAP = 8
SIDE_BY_SIDE = ("blur", "restored", "reblurred", "sharp")


def side_by_side(images: Sequence[Image]) -> Image:
    """Return images (H, W, C) in one row on white, aligned at the top, as uint8 RGB."""
    height = max(image.shape[0] for image in images)
    columns: list[Image] = []
    for image in images:
        column = np.full((height, image.shape[1], 3), 255, np.uint8)
        column[: image.shape[0]] = from_float(to_float(image), np.uint8)
        columns += [column, np.full((height, GAP, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)


def write_comparison(
    folder: Path, record: Record, force: bool = False, shown: Sequence[str] = SIDE_BY_SIDE
) -> Path:
    """Write the `shown` images that a record has, side by side, to folder/NAME.png.

    Returns the path. Raises BlurkitError if the name is unsafe, the file exists and `force` is not
    set, or the file cannot be written.
    """
    path = folder / f"{safe_name(record.name)}.png"
    images = [record.images[key] for key in shown if key in record.images]
    write_image(path, side_by_side(images), force=force)
    return path
