"""Deconvolution with known kernels and without learning: the methods that papers compare with.

Each takes images (N, H, W), in the light in which the blur was made, each with a kernel (N, h, w),
and returns images of the same shape, not clamped. `strength` is the weight of the data term against
the prior (lambda): large for little noise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.deconvolution.fourier import (
    centred,
    divergence,
    fast_length,
    framed,
    gradient_power,
    gradients,
    irfft2,
    rfft2,
    transfer_function,
    unframed,
)

BETAS = tuple((2 * 2**0.5) ** step for step in range(6))
"""The weights of Krishnan and Fergus's half-quadratic steps: from 1 to below 256."""


def wiener(images: Tensor, kernels: Tensor, strength: float = 200.0) -> Tensor:
    """Return argmin |x * k - y|^2 + |x|^2 / strength."""
    photo, transfer = _spectra(images, kernels)
    spectrum = transfer.conj() * rfft2(photo) / (transfer.abs().square() + 1 / strength)
    return unframed(irfft2(spectrum, s=photo.shape[-2:]), *images.shape[-2:])


def total_variation(images: Tensor, kernels: Tensor, strength: float = 2000.0) -> Tensor:
    """Return argmin strength / 2 |x * k - y|^2 + |dx x| + |dy x|, by half-quadratic steps."""
    return _half_quadratic(images, kernels, strength, soft)


def hyper_laplacian(images: Tensor, kernels: Tensor, strength: float = 5000.0) -> Tensor:
    """Return argmin strength / 2 |x * k - y|^2 + |dx x|^(2/3) + |dy x|^(2/3).

    Krishnan and Fergus, "Fast image deconvolution using hyper-Laplacian priors", NIPS 2009.
    """
    return _half_quadratic(images, kernels, strength, _two_thirds)


def _half_quadratic(
    images: Tensor,
    kernels: Tensor,
    strength: float,
    shrink: Callable[[Tensor, float], Tensor],
) -> Tensor:
    photo, transfer = _spectra(images, kernels)
    data, gain = transfer.conj() * rfft2(photo), transfer.abs().square()
    x = half_quadratic(photo, data, gain, strength, shrink)
    return unframed(x, *images.shape[-2:])


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
        x = irfft2((data + weight * edges) / (gain + weight * power), s=sides)
    return x


def _spectra(images: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    photo = framed(images, kernels.shape[-1] // 2 + 1)
    return photo, transfer_function(kernels, *photo.shape[-2:])


def soft(gradient: Tensor, beta: float) -> Tensor:
    """Return argmin |w| + beta / 2 (w - v)^2, with v the gradient."""
    return gradient.sign() * (gradient.abs() - 1 / beta).clamp_min(0)


def _two_thirds(gradient: Tensor, beta: float) -> Tensor:
    """Return argmin |w|^(2/3) + beta / 2 (w - v)^2, with v the gradient.

    Newton's method starts from v; the result is 0 where that is less.
    """
    v = gradient.abs()
    w = v
    for _ in range(4):
        root = w.clamp_min(1e-6) ** (-1 / 3)
        slope = 2 / 3 * root + beta * (w - v)
        curvature = (beta - 2 / 9 * root / w.clamp_min(1e-6)).clamp_min(0.1 * beta)
        w = (w - slope / curvature).clamp_min(0)
    cost = w ** (2 / 3) + beta / 2 * (w - v).square()
    return gradient.sign() * torch.where(cost < beta / 2 * v.square(), w, 0)


# ---- what a restoration leaves out ---------------------------------------------------------------

LEAST_DAMPING, DAMPING = 0.05, 127.5
"""Damping of the inverted residual: at least so much, and so much per deviation of the noise."""


def with_residual(
    restored: Tensor, photos: Tensor, kernels: Tensor, gammas: Tensor, noise: Tensor
) -> Tensor:
    """Return restored photos (N, 3, H, W) with the detail that they lack of the photos.

    What a photo shows beyond its blurred restoration is noise, and detail that was taken for noise.
    It is inverted as far as the kernel lets it through, and added: x + F^-1[K* (1 + e) / (|K|^2 +
    e) F(y - blur(x))], with a damping e that grows with the noise. Without blur, the result is the
    photo. `kernels` (N, h, w) have their centroid as origin and blur pixel values to the power of
    `gammas` (N,); `noise` (N,) is its standard deviation.
    """
    height, width = photos.shape[-2:]
    margin = kernels.shape[-1] // 2 + 1
    sides = [fast_length(side + 2 * margin) for side in (height, width)]
    pads = (margin, sides[1] - width - margin, margin, sides[0] - height - margin)
    inside = (..., slice(margin, margin + height), slice(margin, margin + width))
    transfer = centred(transfer_function(kernels, *sides), kernels, sides[1])[:, None]
    exponents = gammas.view(-1, 1, 1, 1)
    light = F.pad(restored.clamp(0, 1) ** exponents, pads, mode="replicate")
    blurred = irfft2(rfft2(light) * transfer, s=sides)[inside].clamp(0, 1) ** (1 / exponents)
    damping = (DAMPING * noise).clamp_min(LEAST_DAMPING).view(-1, 1, 1, 1)
    inverse = transfer.conj() * (1 + damping) / (transfer.abs().square() + damping)
    residual = rfft2(F.pad(photos - blurred, pads))
    return restored + irfft2(residual * inverse, s=sides)[inside]


# ---- with unknown borders ------------------------------------------------------------------------

FILTERS = (
    ([[1.0, -1.0]], 1.0),
    ([[1.0], [-1.0]], 1.0),
    ([[1.0, -2.0, 1.0]], 0.25),
    ([[1.0], [-2.0], [1.0]], 0.25),
    ([[1.0, -1.0], [-1.0, 1.0]], 0.25),
)
"""The derivative filters of the sparse prior, and their weights."""


def sparse(
    images: Tensor,
    kernels: Tensor,
    strength: float = 1000.0,
    rounds: int = 2,
    steps: int = 60,
) -> Tensor:
    """Return argmin strength |x * k - y|^2 + the sum of |first and second derivatives|^0.8.

    The picture extends beyond the photo by half a kernel, where it is unknown, so no border is made
    up. Solved by iteratively reweighted least squares: once with unit weights and `rounds` times
    reweighted, with `steps` of conjugate gradients each (Levin et al., "Efficient marginal
    likelihood optimization in blind deconvolution", CVPR 2011).
    """
    results = [
        _sparse(image[None, None], kernel[None, None], strength, rounds, steps)
        for image, kernel in zip(images, kernels, strict=True)
    ]
    return torch.cat(results)[:, 0]


def _sparse(photo: Tensor, kernel: Tensor, strength: float, rounds: int, steps: int) -> Tensor:
    height, width = photo.shape[-2:]
    rows, columns = (side // 2 for side in kernel.shape[-2:])
    x = F.pad(photo, (columns, columns, rows, rows), mode="replicate")
    sides = [fast_length(side) for side in x.shape[-2:]]
    transfer = transfer_function(kernel, *sides)
    filters = [(photo.new_tensor(taps)[None, None], weight) for taps, weight in FILTERS]
    weights = [weight * torch.ones_like(F.conv2d(x, taps)) for taps, weight in filters]
    seen = (..., slice(rows, rows + height), slice(columns, columns + width))

    def blurred(image: Tensor, response: Tensor) -> Tensor:
        product = irfft2(rfft2(image, s=sides) * response, s=sides)
        return product[..., : x.shape[-2], : x.shape[-1]]

    def traced(image: Tensor) -> Tensor:
        """Return the transposed blur of `image`, placed where the photo is."""
        known = torch.zeros_like(x)
        known[seen] = image
        return blurred(known, transfer.conj())

    def normal(image: Tensor) -> Tensor:
        total = traced(blurred(image, transfer)[seen])
        for (taps, _), weight in zip(filters, weights, strict=True):
            total = total + F.conv_transpose2d(weight * F.conv2d(image, taps), taps) / strength
        return total

    wanted = traced(photo)
    x = _conjugate_gradients(normal, wanted, x, steps)
    for _ in range(rounds):
        for number, (taps, weight) in enumerate(filters):
            size = F.conv2d(x, taps).abs().clamp_min(0.01)
            weights[number] = 0.1 * weight * size**-1.2
        x = _conjugate_gradients(normal, wanted, x, steps)
    return x[seen]


def _conjugate_gradients(
    normal: Callable[[Tensor], Tensor], wanted: Tensor, x: Tensor, steps: int
) -> Tensor:
    """Return the solution of normal(x) = wanted, starting from `x`."""
    residual = wanted - normal(x)
    direction, power = residual, residual.square().sum()
    for _ in range(steps):
        if power == 0:
            break
        seen = normal(direction)
        length = power / (direction * seen).sum()
        x, residual = x + length * direction, residual - length * seen
        before, power = power, residual.square().sum()
        direction = residual + power / before * direction
    return x
