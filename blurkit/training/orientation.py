"""Flips and rotations of training crops, on the device, where they cost next to nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def turned(batch: Tensor, turns: np.ndarray) -> Tensor:
    """Each square crop of a batch (N, C, S, S) in its orientation, 0 to 7.

    Bit 0 flips up and down, bit 1 left and right, bit 2 transposes: all that flips and rotations
    by quarter turns can do.
    """
    result = torch.empty_like(batch)
    for turn in np.unique(turns):
        chosen = torch.from_numpy(np.flatnonzero(turns == turn)).to(batch.device)
        crops = batch[chosen]
        sides = [side for bit, side in ((1, 2), (2, 3)) if turn & bit]
        crops = crops.flip(sides) if sides else crops
        result[chosen] = crops.transpose(2, 3) if turn & 4 else crops
    return result
