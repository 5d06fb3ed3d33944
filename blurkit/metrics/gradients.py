"""A measure of an image's sharpness that needs no reference image."""

from __future__ import annotations

import numpy as np

from blurkit.io.records import Image, to_float


def gradient_energy(image: Image) -> float:
    """Return the mean squared gradient of an image (H, W, C) of any depth, scaled to [0, 1].

    It is the sum of the squared differences to the right and to the lower neighbour, each averaged
    over pixels and channels. Blur lowers it; adding brightness does not change it. It is 0 for a
    single pixel.
    """
    values = to_float(image).astype(np.float64)
    energy = 0.0
    for axis in (0, 1):
        if values.shape[axis] > 1:
            energy += float(np.mean(np.diff(values, axis=axis) ** 2))
    return energy
