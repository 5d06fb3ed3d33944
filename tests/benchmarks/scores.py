"""How Levin's benchmark scores a picture; see `levin.py`."""

from __future__ import annotations

import math

import numpy as np

CROP, REACH = 15, 10


def aligned_error(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the least mean of squared differences of grey images (H, W) over all shifts.

    The image is moved by up to `REACH` pixels in quarters, bilinearly, the best whole shift first.
    """
    target = sharp[CROP:-CROP, CROP:-CROP]
    height, width = target.shape

    def error(down: float, right: float) -> float:
        top, left = math.floor(down), math.floor(right)
        y, x = down - top, right - left
        part = image[CROP + top :, CROP + left :][: height + 1, : width + 1]
        rows = (1 - y) * part[:height] + y * part[-height:]
        moved = (1 - x) * rows[:, :width] + x * rows[:, -width:]
        return float(np.square(moved - target).mean())

    whole = range(-REACH, REACH + 1)
    _, down, right = min((error(a, b), a, b) for a in whole for b in whole)
    near = [q / 4 for q in range(-4, 5)]
    places = [(down + a, right + b) for a in near for b in near]
    return min(error(a, b) for a, b in places if max(abs(a), abs(b)) <= REACH)


def decibels(error: float) -> float:
    """Return the PSNR in dB of a mean of squared differences."""
    return -10 * math.log10(error)
