"""Loss terms for training the blur kernel space, in addition to the image distance."""

from __future__ import annotations

from torch import Tensor


def kl_divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the KL term of the VAE: how far its codes are from N(0, 1), summed over all values.

    mean^2 + deviation^2 - log(deviation^2 + 1e-8) - 1, which is twice the divergence. `deviation`
    may have either sign. The term is in the released code (weight 10), not in the paper.
    """
    variance = deviation.square()
    return (mean.square() + variance - (variance + 1e-8).log() - 1).sum()
