"""Deconvolution with known kernels and without learning: the methods that papers compare with.

Each takes images (N, H, W), in the light in which the blur was made, each with a kernel (N, h, w),
and returns images of the same shape, not clamped. `strength` is the weight of the data term against
the prior (lambda): large for little noise.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.deconvolution.fourier import (
    fast_length,
    framed,
    irfft2,
    rfft2,
    transfer_function,
    unframed,
)
from blurkit.systems.deconvolution.networks import half_quadratic, soft


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
    images: Tensor, kernels: Tensor, strength: float, shrink: Callable[[Tensor, float], Tensor]
) -> Tensor:
    photo, transfer = _spectra(images, kernels)
    data, gain = transfer.conj() * rfft2(photo), transfer.abs().square()
    return unframed(half_quadratic(photo, data, gain, strength, shrink), *images.shape[-2:])


def _spectra(images: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    photo = framed(images, kernels.shape[-1] // 2 + 1)
    return photo, transfer_function(kernels, *photo.shape[-2:])


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
    images: Tensor, kernels: Tensor, strength: float = 1000.0, rounds: int = 2, steps: int = 60
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
