"""Steps that networks of restoration contain or that follow them, without anything learned."""

from collections.abc import Callable, Sequence

from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.deconvolution.fourier import (
    FramedBlur,
    divergence,
    gradient_power,
    gradients,
    irfft2,
    rfft2,
)

BETAS = tuple((2 * 2**0.5) ** step for step in range(6))
"""The weights of Krishnan and Fergus's half-quadratic steps: from 1 to below 256."""


def half_quadratic(
    x: Tensor,
    data: Tensor,
    gain: Tensor,
    strength: float | Tensor,
    shrink: Callable[[Tensor, float], Tensor],
    betas: Sequence[float] = BETAS,
) -> Tensor:
    """Return the images (..., H, W) after half-quadratic steps that start from `x`.

    `data` is the photos' spectrum times the conjugates of the transfer functions, `gain` the
    squared magnitude of the latter; `shrink` maps gradients to those that the prior keeps at a
    given weight.
    """
    sides = x.shape[-2], x.shape[-1]
    power = gradient_power(*sides, x.device)
    for beta in betas:
        edges = rfft2(divergence(*(shrink(gradient, beta) for gradient in gradients(x))))
        weight = beta / strength
        x = irfft2((data + weight * edges) * (gain + weight * power).reciprocal(), s=sides)
    return x


def soft(gradient: Tensor, beta: float) -> Tensor:
    """Return argmin |w| + beta / 2 (w - v)^2, with v the gradient."""
    return F.softshrink(gradient, 1 / beta)


LEAST_DAMPING, DAMPING = 0.05, 127.5
"""Damping of the inverted residual: at least so much, and so much per deviation of the noise."""

ROUNDS = 2
"""How often the residual is added: twice gains 0.3 dB with true kernels, and thrice 0.1 more, but
then less with wrong ones."""

UNLIT = 0.2
"""How much of a pixel's light may be that of lamps for any residual to count there."""


def with_residual(
    restored: Tensor,
    photos: Tensor,
    kernels: Tensor,
    gammas: Tensor,
    noise: Tensor,
    lit: Tensor | None = None,
) -> Tensor:
    """Return restored photos (N, 3, H, W) with the detail that they lack of the photos.

    What a photo shows beyond its blurred restoration is noise, and detail that was taken for noise.
    It is inverted as far as the kernel lets it through, and added: x + F^-1[K* (1 + e) / (|K|^2 +
    e) F(y - blur(x))], with a damping e that grows with the noise, and once more for what is left.
    Without blur, the result is the photo. At the borders a residual counts the less, the more of
    the kernel lies beyond them. `kernels` (N, h, w) have their centroid as origin and
    blur pixel values to the power of `gammas` (N,); `noise` (N,) is its standard deviation. Where
    photos are `lit` (N, 1, H, W) by lamps, no residual is looked at.
    """
    blur = FramedBlur(kernels, *photos.shape[-2:])
    exponents = gammas.view(-1, 1, 1, 1)
    damping = (DAMPING * noise).clamp_min(LEAST_DAMPING).view(-1, 1, 1, 1)
    transfer = blur.transfer
    inverse = transfer.conj() * ((1 + damping) / (transfer.abs().square() + damping))
    seen = (2 * blur.inside(blur(blur.seen)) - 1).clamp(0, 1)
    if lit is not None:
        seen = seen * (1 - lit / UNLIT).clamp(0, 1)
    for _ in range(ROUNDS):
        restored = restored.clamp(0, 1)  # what is beyond would stay, as no residual shows it
        again = blur.inside(blur(blur.wide(restored**exponents)))
        blurred = again.clamp(1e-6, 1) ** (1 / exponents)  # its slope is infinite at 0
        residual = blur.wide(seen * (photos - blurred), "constant")
        restored = restored + blur.inside(blur.filtered(residual, inverse))
    return restored
