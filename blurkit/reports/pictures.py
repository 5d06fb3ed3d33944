"""Pictures for people: results side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from blurkit.io.records import Image, from_float, to_float

GAP = 8


def side_by_side(images: Sequence[Image]) -> Image:
    """Images (H, W, C) in one row, uint8 RGB, white between them, shorter ones at the top."""
    height = max(image.shape[0] for image in images)
    columns: list[Image] = []
    for image in images:
        column = np.full((height, image.shape[1], 3), 255, np.uint8)
        column[: image.shape[0]] = from_float(to_float(image), np.uint8)
        columns += [column, np.full((height, GAP, 3), 255, np.uint8)]
    return np.concatenate(columns[:-1], axis=1)
