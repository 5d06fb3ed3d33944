"""What training the blur kernel space minimises beside the distance of images."""

from __future__ import annotations

from torch import Tensor


def kl_divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """The term of the VAE: how far its codes are from N(0, 1), summed over all.

    mean^2 + deviation^2 - log(deviation^2 + 1e-8) - 1, twice the divergence. `deviation` is of
    either sign. In the released code (weight 10), not in the paper.
    """
    variance = deviation.square()
    return (mean.square() + variance - (variance + 1e-8).log() - 1).sum()
