"""How sharp a picture is, without another to compare it with."""

from __future__ import annotations

import numpy as np

from blurkit.io.records import Image, to_float


def gradient_energy(image: Image) -> float:
    """The mean squared gradient of (H, W, C) in [0, 1]: squared differences to the pixel at the
    right and to the one below, summed, averaged over pixels and channels.

    Blurring lowers it; brightness does not change it. An image of one pixel has none, 0.
    """
    values = to_float(image).astype(np.float64)
    energy = 0.0
    for axis in (0, 1):
        if values.shape[axis] > 1:
            energy += float(np.mean(np.diff(values, axis=axis) ** 2))
    return energy
