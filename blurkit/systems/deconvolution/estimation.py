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

import numpy as np
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

TONE_STEEPNESS = 8.0
"""How steeply one of two tones turns into the other: this times 1 / 4 of their contrast."""

PAPER_REACH = 30
"""How far around a pixel its paper is looked for, in rows and columns."""

ONE_LINE = 0.08
"""Largest spread of the colours of edges across their line, part of that along it, of print."""

STEEPEST, STEEP = 0.002, 0.18
"""Part of print whose slopes are its steepest, and the part of the contrast around it by which they
change in a pixel, in every direction, if it is sharp. Of 28 sharp photos, grey ones among them, 26
had at least 0.27, two pages that were enlarged twice 0.20 and 0.32; 63 blurry ones 0.10 to 0.35."""

LEAST_TIE, TIE_GROWTH, LARGEST_TIE = 2.0, 3.0, 8.0
"""Weights that tie a picture to its ink: first, in units of the prior's, their growth, and last."""


@torch.inference_mode()
def estimate_kernels(
    images: Tensor, size: int, weights: Tensor, c: Estimation, sparse: bool = False
) -> Tensor:
    """Return the kernels (N, size, size) that blurred `images` (N, H, W), values in [0, 1].

    `size` is odd, no smaller than the blur; `weights` (N,) are those of the L0 prior: larger ones
    keep fewer edges, and if the images are `sparse`, such as `ink`, fewer values. Raises ValueError
    if `size` is even.
    """
    (kernels,) = deque(growing(images, size, weights, c, sparse), maxlen=1)
    return kernels


def growing(
    images: Tensor, size: int, weights: Tensor, c: Estimation, sparse: bool = False
) -> Iterator[Tensor]:
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
            latent = _latent(photo, spectrum, transfer, power, decayed, c, sparse)
            kernels = _least_squares(latent, spectrum, power, sides, scale, ridge, c)
            kernels = cleaned(kernels, c.floor, c.part)
            decayed = (decayed / c.weight_decay).clamp_min(c.least_weight)
            yield kernels


def _ridge(images: Tensor, c: Estimation) -> Tensor:
    """Return the weight (N, 1, 1) of the kernels' squares beside the sum of the differences'."""
    noise = measured_noise(images[:, None])[:, None, None]
    return (c.ridge + c.noise_ridge * noise.square()) * images.shape[-2] * images.shape[-1]


@torch.inference_mode()
def kernels_between(
    sharp: Tensor,
    blurry: Tensor,
    size: int,
    c: Estimation,
    resting: bool = False,
    together: bool = False,
) -> Tensor:
    """Return the kernels (N, size, size) that lead from `sharp` to `blurry`, both (N, H, W).

    With `together`, it is the one (1, size, size) that leads from all to all. Only the strong edges
    of the sharp images count: weak gradients are where a restored image is wrong, and blurry, so
    that the kernel would shrink (the selection of Cho and Lee, 2009). What is kept of a kernel if
    the camera was `resting` meanwhile, `cleaned` says.
    """
    image, photo = (framed(images, size // 2 + FADE) for images in (sharp, blurry))
    sides = (photo.shape[-2], photo.shape[-1])
    power = gradient_power(*sides, photo.device)
    across, down = gradients(image)
    strength = torch.addcmul(across.square(), down, down)
    every = strength.flatten(1)
    rank = max(1, math.ceil((1 - c.edges) * every.shape[1]))
    least = every.kthvalue(rank, 1).values.clamp_max(c.edge**2)
    kept = strength >= least[:, None, None]
    latent = rfft2(divergence(across * kept, down * kept)) / power.clamp_min(1e-6)
    ridge = _ridge(blurry, c)
    kernels = _least_squares(latent, rfft2(photo), power, sides, size, ridge, c, together)
    return cleaned(kernels, c.floor, c.part, resting)


def two_coloured(photo: np.ndarray) -> bool:
    """Return whether the edges of a photo (H, W, 3) lead between two colours, as those of print do.

    Blur and shade leave the colours of edges on one line; those of most scenes are not. What the
    photo's noise adds is taken away; edges that it hides tell nothing.
    """
    values = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1).clamp_min(0)
    light = values**2.2
    steps = torch.cat([g[:, :-1, :-1].flatten(1) for g in gradients(F.avg_pool2d(light, 4))], 1)
    deviations = 2.2 * values**1.2 * measured_noise(values[None])
    noise = deviations.square().mean((1, 2)) / 8  # of the difference of two means of 16 pixels
    moments = (steps @ steps.T).double() / steps.shape[1]
    _, across, along = torch.linalg.eigvalsh(moments - noise.diag()).tolist()
    return across < ONE_LINE**2 * along and along > float(noise.mean())


def blurry_print(photo: np.ndarray) -> bool:
    """Return whether a photo (H, W, 3) is `two_coloured`, and in some direction nowhere steep.

    Unlike a deblurring network, this sees blur where most of a page is white, or has long blur.
    """
    if not two_coloured(photo):
        return False
    values = torch.from_numpy(photo.mean(2))[None].clamp_min(0)  # also of a flipped view
    smooth, middle = averaged(values, 1), slice(1, -1)
    contrast = (brightest(smooth) + brightest(-smooth))[0, middle, middle].clamp_min(1e-3)
    (grey,) = values
    slopes = (
        (grey[middle, 2:] - grey[middle, :-2]) / 2,
        (grey[2:, middle] - grey[:-2, middle]) / 2,
        (grey[2:, 2:] - grey[:-2, :-2]) / math.sqrt(8),
        (grey[2:, :-2] - grey[:-2, 2:]) / math.sqrt(8),
    )
    full = contrast >= contrast.flatten().topk(contrast.numel() // 10).values[-1] / 2
    count = math.ceil(STEEPEST * int(full.sum()))
    steep = [(slope.abs() / contrast)[full].topk(count).values.mean() for slope in slopes]
    return bool(min(steep) < STEEP)


def two_toned(images: Tensor, size: int) -> Tensor:
    """Return grey images (N, H, W) whose pixels have nearly one of two tones, like print.

    The tones are those of what is around a pixel, a little more than a kernel of this side: the
    means of what is darker and of what is brighter than halfway between them.
    """
    reach = round(0.6 * size)
    halfway = averaged(images, reach)
    for _ in range(3):
        bright = (images > halfway).to(images.dtype)
        tones = [
            averaged(part * images, reach) / (averaged(part, reach) + 1e-3)
            for part in (1 - bright, bright)
        ]
        halfway = (tones[0] + tones[1]) / 2
    contrast = (tones[1] - tones[0]).clamp_min(0.02)
    return tones[0] + contrast * torch.sigmoid(TONE_STEEPNESS * (images - halfway) / contrast)


def ink(light: Tensor) -> Tensor:
    """Return how far the light (N, H, W) of print is from that of its paper, nearly all up to 1.

    The paper is the brightest of what is around a pixel, or the darkest if most is dark.
    """
    if (light.mean((-2, -1)) > light.flatten(1).median(1).values).all():
        light = 1 - light
    away = averaged(brightest(averaged(light, 1)), PAPER_REACH) - light
    most = away.flatten(1).quantile(0.99, 1).clamp_min(0.05)
    return (away / most[:, None, None]).clamp(-0.2, 1.5)


def brightest(images: Tensor) -> Tensor:
    """Return the largest (N, H, W) of what is around every pixel, up to `PAPER_REACH` away."""
    for side in ((2 * PAPER_REACH + 1, 1), (1, 2 * PAPER_REACH + 1)):
        images = F.max_pool2d(images, side, 1, (side[0] // 2, side[1] // 2))
    return images


def averaged(images: Tensor, reach: int) -> Tensor:
    """Return the means (N, H, W) of what is around every pixel, up to `reach` away, of images."""
    for side in ((2 * reach + 1, 1), (1, 2 * reach + 1)):
        middle = (side[0] // 2, side[1] // 2)
        images = F.avg_pool2d(images, side, 1, middle, count_include_pad=False)
    return images


def scales(size: int, ratio: float) -> list[int]:
    """Return the odd kernel sizes of the pyramid, smallest first; the last is `size`."""
    sizes = [size]
    while sizes[0] > 5:
        sizes.insert(0, max(3, min(int(sizes[0] / ratio) | 1, sizes[0] - 2)))
    return sizes


def _latent(
    photo: Tensor,
    spectrum: Tensor,
    transfer: Tensor,
    power: Tensor,
    weights: Tensor,
    c: Estimation,
    sparse: bool,
) -> Tensor:
    """The spectrum of argmin |x * k - y|^2 + weight |grad x|_0: Xu, Eq. 5; Pan, Eq. 4 to 8.

    If x is `sparse`, weight |x|_0 is added, as Pan does for text.
    """
    data, gain = transfer.conj() * spectrum, transfer.abs().square()
    x, latent, sides = photo, spectrum, photo.shape[-2:]
    weights = weights[:, None, None]
    tie = LEAST_TIE * weights
    while True:
        known, sure = data, gain
        if sparse:
            known, sure = data + tie * rfft2(x * (x.square() >= weights / tie)), gain + tie
        beta = 2 * weights
        while beta.min() < c.largest_beta:
            across, down = gradients(x)
            kept = torch.addcmul(across.square(), down, down) >= weights / beta
            edges = rfft2(divergence(across.mul_(kept), down.mul_(kept)))
            latent = (known + beta * edges) * (sure + beta * power).reciprocal()
            beta = beta * c.beta_growth
            if sparse or beta.min() < c.largest_beta:
                x = irfft2(latent, s=sides)
        tie = TIE_GROWTH * tie
        if not sparse or tie.min() >= LARGEST_TIE:
            return latent


def _least_squares(
    latent: Tensor,
    photo: Tensor,
    power: Tensor,
    sides: tuple[int, int],
    size: int,
    ridge: Tensor,
    c: Estimation,
    together: bool = False,
) -> Tensor:
    """Return what `projected` does, from the spectra of x, of y and of the gradients."""
    crossed = latent.conj() * photo * power
    edges = (latent.real.square() + latent.imag.square()) * power
    if together:
        crossed, edges, ridge = (x.sum(0, keepdim=True) for x in (crossed, edges, ridge))
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
