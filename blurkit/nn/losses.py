"""Losses shared by several systems, as pure functions without weights."""

from __future__ import annotations

from torch import Tensor

EPSILON = 1e-6
"""Added to squares under a root, so that the loss is smooth at 0."""


def charbonnier(image: Tensor, target: Tensor, epsilon: float = EPSILON) -> Tensor:
    """Return the sum of sqrt(d^2 + epsilon) over all values of each image of a batch, (N,)."""
    return ((image - target).square() + epsilon).sqrt().flatten(1).sum(1)
