"""Codes of realistic blur, which come with a kernel space so that `reblur --random` draws motion.

Few of the codes that a normal distribution gives are those of a motion: independent for each place
and each value, they blur like a lens out of focus, with coloured fringes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.systems.system import Shapes

DRAWN_LENGTHS = 0.008, 0.055
"""The shortest and the longest blur that is drawn, as a fraction of a photo's longer side."""

DRAWN_FROM = 12
"""The number of codes of about the wanted length that one is drawn from."""


class BlurCodes(nn.Module):
    """Codes (count, code, 2, 2), one for each quarter of a photo, and the lengths of their blur.

    `lengths` (count,) are the largest distances in pixels over which a point is spread.
    """

    codes: Tensor
    lengths: Tensor

    def __init__(self, count: int, code: int) -> None:
        super().__init__()
        self.options = {"count": count, "code": code}
        self.register_buffer("codes", torch.zeros(count, code, 2, 2))
        self.register_buffer("lengths", torch.ones(count))

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> BlurCodes:
        """Return the network whose state dict has these shapes."""
        count, code, *_ = shapes["codes"]
        return cls(count, code)

    def draw(self, height: int, width: int, generator: np.random.Generator) -> np.ndarray:
        """Return a code (code, 2, 2) for a photo of `height` x `width` pixels."""
        shortest, longest = map(math.log, DRAWN_LENGTHS)
        fraction = math.exp(generator.uniform(shortest, longest))
        nearest = (self.lengths - fraction * max(height, width)).abs().argsort()[:DRAWN_FROM]
        chosen: Tensor = self.codes[int(generator.choice(nearest.numpy()))]
        return chosen.numpy()


def stored(codes: Sequence[Tensor], lengths: Sequence[float]) -> BlurCodes:
    """Return codes, each (code, 2, 2), with the lengths of their blur in pixels."""
    kept = BlurCodes(len(codes), len(codes[0]))
    kept.codes.copy_(torch.stack(list(codes)))
    kept.lengths.copy_(torch.tensor(lengths))
    return kept
