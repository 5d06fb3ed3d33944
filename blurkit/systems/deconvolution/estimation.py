"""Kernel estimation for blurry photos, from coarse to fine.

Two steps alternate. The first makes a sharp image for the current kernel, with few gradients (an L0
prior on them, by half-quadratic splitting: Xu, Zheng and Jia, "Unnatural L0 sparse representation
for natural image deblurring", CVPR 2013; Pan et al., CVPR 2014). The second finds the kernel
between its gradients and the photo's by least squares (Cho and Lee, "Fast motion deblurring",
2009), here without negative values. Grey images (N, H, W) in [0, 1], each with its own kernel, are
processed together.
"""

import math
from collections import deque
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.deconvolution.config import Estimation
from blurkit.systems.deconvolution.fourier import (
    around_origin,
    cleaned,
    divergence,
    fast_length,
    framed,
    gradient_power,
    gradients,
    irfft2,
    measured_noise,
    resized_kernels,
    rfft2,
    transfer_function,
)

FADE = 6
"""Pixels by which an image's frame exceeds half a kernel."""


@torch.inference_mode()
def estimate_kernels(images: Tensor, size: int, weights: Tensor, c: Estimation) -> Tensor:
    """Return the kernels (N, size, size) that blurred `images` (N, H, W), values in [0, 1].

    `size` is odd, no smaller than the blur; `weights` (N,) are those of the L0 prior: larger ones
    keep fewer edges. Raises ValueError if `size` is even.
    """
    (kernels,) = deque(growing(images, size, weights, c), maxlen=1)
    return kernels


def growing(images: Tensor, size: int, weights: Tensor, c: Estimation) -> Iterator[Tensor]:
    """Yield the kernels (N, s, s) of `estimate_kernels` after every turn; `s` grows to `size`."""
    if size % 2 == 0:
        raise ValueError(f"the size of a kernel must be an odd number of pixels, not {size}")
    sizes, ridge = scales(size, c.scale_ratio), _ridge(images, c)
    kernels = images.new_zeros(len(images), sizes[0], sizes[0])
    kernels[:, sizes[0] // 2, sizes[0] // 2 - 1 : sizes[0] // 2 + 1] = 0.5
    for scale in sizes:
        kernels = resized_kernels(kernels, scale)
        small, decayed = images[:, None], weights
        if scale < size:
            small = F.interpolate(small, scale_factor=scale / size, mode="bilinear", antialias=True)
        photo = framed(small[:, 0], scale // 2 + FADE)
        sides = (photo.shape[-2], photo.shape[-1])
        spectrum, power = rfft2(photo), gradient_power(*sides, photo.device)
        for _ in range(c.turns):
            transfer = transfer_function(kernels, *sides)
            latent = _latent(photo, spectrum, transfer, power, decayed, c)
            kernels = _least_squares(latent, spectrum, power, sides, scale, ridge, c)
            kernels = cleaned(kernels, c.floor, c.part)
            decayed = (decayed / c.weight_decay).clamp_min(c.least_weight)
            yield kernels


def _ridge(images: Tensor, c: Estimation) -> Tensor:
    """Return the weight (N, 1, 1) of the kernels' squares beside the sum of the differences'."""
    noise = measured_noise(images[:, None])[:, None, None]
    return (c.ridge + c.noise_ridge * noise.square()) * images.shape[-2] * images.shape[-1]


@torch.inference_mode()
def kernels_between(sharp: Tensor, blurry: Tensor, size: int, c: Estimation) -> Tensor:
    """Return the kernels (N, size, size) that lead from `sharp` to `blurry`, both (N, H, W).

    Only the strong edges of the sharp images count: weak gradients are where a restored image is
    wrong, and blurry, so that the kernel would shrink (the selection of Cho and Lee, 2009).
    """
    image, photo = (framed(images, size // 2 + FADE) for images in (sharp, blurry))
    sides = (photo.shape[-2], photo.shape[-1])
    power = gradient_power(*sides, photo.device)
    across, down = gradients(image)
    strength = torch.addcmul(across.square(), down, down)
    least = strength.flatten(1).quantile(1 - c.edges, 1).clamp_max(c.edge**2)
    kept = strength >= least[:, None, None]
    latent = rfft2(divergence(across * kept, down * kept)) / power.clamp_min(1e-6)
    kernels = _least_squares(latent, rfft2(photo), power, sides, size, _ridge(blurry, c), c)
    return cleaned(kernels, c.floor, c.part)


def scales(size: int, ratio: float) -> list[int]:
    """Return the odd kernel sizes of the pyramid, smallest first; the last is `size`."""
    sizes = [size]
    while sizes[0] > 5:
        sizes.insert(0, max(3, min(int(sizes[0] / ratio) | 1, sizes[0] - 2)))
    return sizes


def _latent(
    photo: Tensor, spectrum: Tensor, transfer: Tensor, power: Tensor, weights: Tensor, c: Estimation
) -> Tensor:
    """The spectrum of argmin |x * k - y|^2 + weight |grad x|_0: Xu, Eq. 5; Pan, Eq. 4 to 8."""
    data, gain = transfer.conj() * spectrum, transfer.abs().square()
    x, latent, sides = photo, spectrum, photo.shape[-2:]
    weights = weights[:, None, None]
    beta = 2 * weights
    while beta.min() < c.largest_beta:
        across, down = gradients(x)
        kept = torch.addcmul(across.square(), down, down) >= weights / beta
        edges = rfft2(divergence(across.mul_(kept), down.mul_(kept)))
        latent = (data + beta * edges) * (gain + beta * power).reciprocal()
        beta = beta * c.beta_growth
        if beta.min() < c.largest_beta:
            x = irfft2(latent, s=sides)
    return latent


def _least_squares(
    latent: Tensor,
    photo: Tensor,
    power: Tensor,
    sides: tuple[int, int],
    size: int,
    ridge: Tensor,
    c: Estimation,
) -> Tensor:
    """Return what `projected` does, from the spectra of x, of y and of the gradients."""
    crossed = latent.conj() * photo * power
    edges = (latent.real.square() + latent.imag.square()) * power
    start = around_origin(crossed * (edges + ridge).reciprocal(), size, sides)
    wanted = around_origin(crossed, size, sides)
    correlation = around_origin(edges.to(crossed.dtype), 2 * size - 1, sides)
    around = fast_length(3 * size)
    response = transfer_function(correlation, around, around)
    return projected(cleaned(start, 0, 0), response, wanted, ridge, c.kernel_steps)


def projected(start: Tensor, response: Tensor, wanted: Tensor, ridge: Tensor, steps: int) -> Tensor:
    """Return kernels (N, s, s): argmin |grad x * k - grad y|^2 + ridge |k|^2 with k >= 0.

    It takes steps of accelerated projected gradients. The image enters only by `response`, the
    spectrum of the autocorrelation of its edges, and by `wanted` (N, s, s), their correlation with
    the photo's. They are as small as kernels, so a step costs next to nothing.
    """
    size, sides = start.shape[-1], (response.shape[-2], response.shape[-2])
    step = 1 / (response.abs().amax((-2, -1), keepdim=True) + ridge)
    kernel = ahead = start
    pace = 1.0
    for _ in range(steps):
        seen = irfft2(rfft2(ahead, s=sides) * response, s=sides)
        slope = seen[..., :size, :size] + ridge * ahead - wanted
        following = F.relu(ahead - step * slope)
        quicker = (1 + math.sqrt(1 + 4 * pace**2)) / 2
        ahead = following + (pace - 1) / quicker * (following - kernel)
        kernel, pace = following, quicker
    return kernel
