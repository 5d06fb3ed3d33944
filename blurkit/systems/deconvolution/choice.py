"""Which of several estimates of a blur to take, and how far to trust it.

No estimate looks wrong by itself: a kernel that is too large explains a photo as well as the right
one. So each window is estimated more than once: in two lights, from two starts, at two sizes. All
windows of a photo were developed alike, so together they tell the light; of starts and sizes, the
one is taken of which the network expects the best picture; and how far the others agree with it is
the trust in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.data.crops import central_crop
from blurkit.restoration.device import Precision, autocast, choose_device, choose_precision
from blurkit.systems.deconvolution.config import Shake
from blurkit.systems.deconvolution.estimation import estimate_kernels
from blurkit.systems.deconvolution.fourier import gradients, irfft2, rfft2, transfer_function
from blurkit.systems.deconvolution.kernels import agreement, padded
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.noise import measured_noise
from blurkit.systems.deconvolution.restoration import total_variation

SMOOTH, CLOSE = 1000.0, 6000.0
"""Strengths of the deconvolutions by which lights are compared, at the contrast of pixels."""


LEAST_SEEN = 256
"""Pixels each way of the part of a photo that a kernel is estimated on, if it has as many."""


class Undoing:
    """A network that undoes known blur, on photos of any size, on a device.

    The network is taken over: moved to the device and put into eval mode.
    """

    def __init__(self, network: Deconvolver, device: str, precision: Precision) -> None:
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.network = network.eval().to(self.device)

    @torch.inference_mode()
    def __call__(
        self, photos: Tensor, kernels: Tensor, gammas: Sequence[float]
    ) -> tuple[Tensor, Tensor]:
        """Return photos (N, 3, H, W) without the blur of kernels (N, h, w), and how much better.

        That is (N, 1, rows, columns), of squares of 8 pixels: the logarithm of the photo's expected
        error against the result's.
        """
        height, width = photos.shape[-2:]
        many = self.network.multiple
        missing = (0, -width % many, 0, -height % many)
        given = F.pad(photos, missing, mode="replicate").to(self.device)
        with autocast(self.device, self.dtype):
            made = self.network(
                given,
                kernels.to(self.device),
                measured_noise(given),
                given.new_tensor(list(gammas)),
            )
        better = made.errors[:, :1] - made.errors[:, 1:]
        return made.image[..., :height, :width].float(), better.float()


@dataclass
class Estimates:
    """Kernels (L, size, size) of a photo, one for each light, and how odd each would be."""

    kernels: Tensor
    oddness: np.ndarray


class Choice:
    """Estimates and chooses the kernels of photos (H, W, 3) float32 in [0, 1]."""

    def __init__(self, undo: Undoing, options: Shake) -> None:
        self.undo, self.o = undo, options

    def in_every_light(self, photo: np.ndarray) -> Estimates:
        """Return the largest kernels that are looked for in a photo, in the order of `gammas`."""
        first = self.o.starts(photo.shape[:2])[0]
        kernels = torch.cat([self._estimate(photo, *first, gamma) for gamma in self.o.gammas])
        values = torch.from_numpy(photo).to(kernels.device).mean(2)[None]
        found = [
            oddness(values, kernel[None], gamma)
            for kernel, gamma in zip(kernels, self.o.gammas, strict=True)
        ]
        return Estimates(kernels, np.array(found))

    def light(self, found: Sequence[Estimates]) -> int:
        """Return the index of the light in which the windows of a photo were blurred.

        They speak for it together; it is the first light, the usual one, unless another is clearly
        less odd.
        """
        odd = np.median(np.log([estimates.oddness for estimates in found]), axis=0)
        odd[1:] += self.o.doubt
        return int(odd.argmin())

    def best(self, photo: np.ndarray, found: Estimates, light: int) -> tuple[Tensor, float]:
        """Return the kernel (size, size) of a photo in a light, on the CPU, and the trust in it."""
        gamma, (first, *others) = self.o.gammas[light], self.o.starts(photo.shape[:2])
        own = [found.kernels[light : light + 1]]
        own += [self._estimate(photo, *start, gamma) for start in others]
        kernels = torch.cat([padded(kernel, first[0]) for kernel in own])
        batch = torch.from_numpy(photo).permute(2, 0, 1)[None].expand(len(kernels), -1, -1, -1)
        _, better = self.undo(batch, kernels, [gamma] * len(kernels))
        chosen = int(better.mean((1, 2, 3)).argmax())
        kernel = kernels[chosen : chosen + 1]
        lights = [k for number, k in enumerate(found.kernels) if number != light]
        starts = [k for number, k in enumerate(kernels) if number != chosen]
        trusts = [_most(kernel, group) for group in (lights, starts) if group]
        return kernel[0].cpu(), float(np.mean(trusts))

    def _estimate(self, photo: np.ndarray, size: int, weight: float, gamma: float) -> Tensor:
        """A smaller kernel needs less of the photo to be told."""
        side = max(LEAST_SEEN, round(min(photo.shape[:2]) * (size / self.o.kernel_sizes[0]) ** 0.5))
        part = np.ascontiguousarray(central_crop(photo, side, side))
        values = torch.from_numpy(part).to(self.undo.device).clamp_min(0)
        grey = (values**gamma).mean(2)[None]
        return estimate_kernels(grey, size, grey.new_full((1,), weight), self.o)


def _most(kernel: Tensor, others: Sequence[Tensor]) -> float:
    return max(float(agreement(kernel, other[None])) for other in others)


def oddness(photos: Tensor, kernels: Tensor, gamma: float) -> float:
    """Return how odd it would be if grey photos (1, H, W) had been blurred by kernels (1, s, s).

    In light `gamma` away from their values. In the wrong light, edges stay dense after
    deconvolution (normalised sparsity, Krishnan et al., CVPR 2011), the kernel is thinner than it
    should be, and it explains less of the photo; weighed as sets them apart best on training
    photos, where the logarithms of two lights differ by 0.24 with a deviation of 0.13.
    """
    light = photos.clamp_min(1e-3) ** gamma
    contrast = max(float(light.std() / photos.std().clamp_min(1e-6)), 1e-6)
    rim, sides = kernels.shape[-1] // 2, (light.shape[-2], light.shape[-1])
    inside = (..., slice(rim, -rim), slice(rim, -rim))
    sharp = total_variation(light, kernels, SMOOTH / contrast).clamp(1e-3, 1.3) ** (1 / gamma)
    slopes = torch.stack([gradient[inside] for gradient in gradients(sharp)])
    density = slopes.abs().mean() / slopes.square().mean().sqrt().clamp_min(1e-6)
    close = total_variation(light, kernels, CLOSE / contrast).clamp_min(0)
    again = irfft2(rfft2(close) * transfer_function(kernels, *sides), s=sides)
    unexplained = (again.clamp_min(1e-4) ** (1 / gamma) - photos)[inside].std().clamp_min(1e-6)
    return float(density * kernels.square().sum() ** 0.32 * unexplained**0.18)
