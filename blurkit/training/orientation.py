"""Flips and rotations of training crops, on the device, where they cost almost no time."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

ORIENTATIONS = {"all": 7, "flip": 2, "none": 0}
"""The bits of an orientation that may be set, by the value of the option `orientations`."""


def turned(batch: Tensor, turns: np.ndarray) -> Tensor:
    """Return each square crop of a batch (N, C, S, S) in its orientation, 0 to 7.

    Bit 0 flips vertically, bit 1 flips horizontally, bit 2 transposes: together they give all flips
    and rotations by multiples of 90 degrees.
    """
    result = torch.empty_like(batch)
    for turn in np.unique(turns):
        chosen = torch.from_numpy(np.flatnonzero(turns == turn)).to(batch.device)
        crops = batch[chosen]
        sides = [side for bit, side in ((1, 2), (2, 3)) if turn & bit]
        crops = crops.flip(sides) if sides else crops
        result[chosen] = crops.transpose(2, 3) if turn & 4 else crops
    return result
