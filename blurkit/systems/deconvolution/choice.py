"""Which of several estimates of a blur to take, and how far to trust it.

No estimate looks wrong by itself: a kernel that is too large explains a photo as well as the right
one. So each window is estimated more than once: in two lights, at two sizes. The network that
undoes the blur tells of each how good a picture it expects. All windows of a photo were developed
alike, so together they tell the light; of the sizes, the one is taken of which the network expects
the best picture and that neighbours found, too; and how far the others agree with it is the trust
in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.data.crops import central_crop
from blurkit.engine.device import Precision, autocast, choose_device, choose_precision
from blurkit.systems.deconvolution.config import Shake
from blurkit.systems.deconvolution.estimation import estimate_kernels
from blurkit.systems.deconvolution.kernel_batches import kernel_agreement, padded
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.noise import measured_noise

LEAST_SEEN = 256
"""Pixels each way of the part of a photo that a kernel is estimated on, if it has as many."""

JUDGED = 256
"""Pixels each way of the part by which the network tells how good it makes a window."""


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
    """Kernels (lights, sizes, side, side) of a window, on the CPU, and how good they make it.

    `better` (lights, sizes) is the logarithm of the photo's expected error against the result's.
    """

    kernels: Tensor
    better: np.ndarray


@dataclass(frozen=True)
class Chosen:
    """A kernel (side, side), in light `gamma` away from pixels, and the trust in it, 0 to 1.

    `gain` is the logarithm of the photo's expected error against that of its result.
    """

    kernel: Tensor
    gamma: float
    trust: float
    gain: float


class Choice:
    """Estimates the kernels of windows (H, W, 3) float32 in [0, 1], and chooses among them."""

    def __init__(self, undo: Undoing, options: Shake) -> None:
        self.undo, self.o = undo, options

    def estimates(self, photo: np.ndarray) -> Estimates:
        """Return the kernels of a window in all lights, of the two smallest sizes."""
        return self._estimates(photo, self.o.sizes(photo.shape[:2])[-2:])

    def longer(self, photo: np.ndarray, found: Estimates) -> Estimates:
        """Return a window's estimates with the next larger size in place of the smallest."""
        sizes = self.o.sizes(photo.shape[:2])
        large = self._estimates(photo, sizes[-3:-2])
        kept = padded(found.kernels[:, :1], large.kernels.shape[-1])
        better = np.concatenate([large.better, found.better[:, :1]], 1)
        return Estimates(torch.cat([large.kernels, kept], 1), better)

    def _estimates(self, photo: np.ndarray, sizes: Sequence[int]) -> Estimates:
        starts = [(size, gamma) for gamma in self.o.gammas for size in sizes]
        kernels = torch.cat([padded(self._estimate(photo, *start), sizes[0]) for start in starts])
        part = torch.from_numpy(central_crop(photo, JUDGED, JUDGED)).permute(2, 0, 1)[None]
        _, better = self.undo(
            part.expand(len(starts), -1, -1, -1), kernels, [gamma for _, gamma in starts]
        )
        shape = len(self.o.gammas), len(sizes)
        hopes = better.mean((1, 2, 3)).cpu().numpy().reshape(shape)
        return Estimates(kernels.cpu().unflatten(0, shape), hopes)

    def chosen(self, found: Sequence[Estimates], near: Sequence[Sequence[int]]) -> list[Chosen]:
        """Return what to take for every window of a photo; `near` has its neighbours' indices."""
        choices = [self._sizes(light, found, near) for light in range(len(self.o.gammas))]
        hopes = [
            np.mean([own.better[light, size] for own, size in zip(found, sizes, strict=True)])
            for light, sizes in enumerate(choices)
        ]
        hopes[0] += self.o.doubt
        light = int(np.argmax(hopes))
        windows = list(zip(found, choices[light], near, strict=True))
        kernels = [own.kernels[light, size] for own, size, _ in windows]
        return [
            Chosen(
                kernel,
                self.o.gammas[light],
                _trust(own.kernels, light, size, kernels, others),
                float(own.better[light, size]),
            )
            for kernel, (own, size, others) in zip(kernels, windows, strict=True)
        ]

    def _sizes(
        self, light: int, found: Sequence[Estimates], near: Sequence[Sequence[int]]
    ) -> list[int]:
        """For every window that of the best picture; its neighbours have a `voice` in it."""
        sizes = []
        for own, others in zip(found, near, strict=True):
            score = own.better[light].copy()
            for other in others:
                agreed = kernel_agreement(own.kernels[light][:, None], found[other].kernels[light])
                score += self.o.voice / len(others) * agreed.amax(1).numpy()
            sizes.append(int(score.argmax()))
        return sizes

    def _estimate(self, photo: np.ndarray, size: int, gamma: float) -> Tensor:
        """A smaller kernel needs less of the photo to be told."""
        part_seen = min(1.0, (size / self.o.kernel_sizes[-2:][0]) ** 0.5)
        side = max(LEAST_SEEN, round(min(photo.shape[:2]) * part_seen))
        part = np.ascontiguousarray(central_crop(photo, side, side))
        values = torch.from_numpy(part).to(self.undo.device).clamp_min(0)
        grey = (values**gamma).mean(2)[None]
        return estimate_kernels(grey, size, grey.new_full((1,), self.o.weight), self.o)


def _trust(
    kernels: Tensor, light: int, size: int, chosen: Sequence[Tensor], near: Sequence[int]
) -> float:
    """Mean agreement with what the other lights, the other sizes and the neighbours tell."""
    kernel = kernels[light, size]
    lit = kernels[torch.arange(len(kernels)) != light].flatten(0, 1)
    sized = kernels[light, torch.arange(kernels.shape[1]) != size]
    trusts = [kernel_agreement(kernel, group).max() for group in (lit, sized) if len(group)]
    if near:
        trusts.append(
            kernel_agreement(kernel, torch.stack([chosen[other] for other in near])).mean()
        )
    return float(torch.stack(trusts).mean())
