"""Selection among several estimates of a blur, and the trust in the one selected.

No estimate looks wrong by itself: a kernel that is too large explains a photo as well as the right
one. So each window is estimated several times: for two gammas and at two sizes. For each estimate,
the deconvolution network predicts how good the picture will be. All windows of a photo were
developed in the same way, so they determine the gamma together. Among the sizes, the best predicted
picture wins, with a bonus for kernels that neighbours found as well. The trust in a kernel is its
agreement with the other estimates.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.engine.device import (
    autocast,
    channels_last,
    choose_device,
    choose_precision,
)
from blurkit.io.records import central_crop
from blurkit.options import Precision
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.estimation import estimate_kernels, kernels_between
from blurkit.systems.deconvolution.fourier import (
    kernel_agreement,
    kernels_at,
    measured_noise,
    padded,
    shape,
    trimmed,
)
from blurkit.systems.deconvolution.networks import Deconvolver

LEAST_SEEN = 256
"""Smallest side of the part of a photo used to estimate a kernel, if the photo is that large."""

LONG_SCALES = (1.0, 1.4, 2.0)
"""Sides, in units of a window's kernel, at which the kernel of a whole photo is refined."""

LONG_ROUNDS = 2
"""Refinements at each of them."""

HELD = 0.7
"""Length of a blur, part of the side of a window's kernel, up to which that holds it."""

JUDGED = 256
"""Side of the part of a window on which the network predicts its quality, pixels."""


class NonBlindDeconvolution:
    """A network that deconvolves photos of any size with known kernels, on a device.

    The network is taken over: moved to the device and put into eval mode. `joins` says whether it
    accepts drafts.
    """

    def __init__(self, network: Deconvolver, device: str, precision: Precision) -> None:
        self.device = choose_device(device)
        self.dtype = choose_precision(precision, self.device)
        self.network = network.eval().to(self.device)
        self.joins = network.options["drafts"]
        channels_last(self.network)

    @torch.inference_mode()
    def __call__(
        self,
        photos: Tensor,
        kernels: Tensor,
        gammas: Sequence[float],
        drafts: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return photos (N, 3, H, W) without the blur of kernels (N, h, w), and the improvement.

        The improvement is (N, 1, rows, columns), for blocks of 8x8 pixels: the logarithm of the
        ratio of the photo's expected error to the result's. With `drafts`, shaped like the photos,
        it is the draft's expected error.
        """
        height, width = photos.shape[-2:]
        with autocast(self.device, self.dtype):
            restored = self.network(
                *self._known(photos, kernels, gammas),
                drafts=None if drafts is None else self._padded(drafts),
            )
        better = restored.errors[:, :1] - restored.errors[:, 1:]
        return restored.image[..., :height, :width].float(), better.float()

    @torch.inference_mode()
    def briefly(self, photo: Tensor, kernel: Tensor, gamma: float) -> Tensor:
        """Return a photo (3, H, W) without the blur of a kernel (h, w), by the first step alone."""
        height, width = photo.shape[-2:]
        known = self._known(photo[None], kernel[None], [gamma])
        with autocast(self.device, self.dtype):
            _, image, _ = self.network.first_step(*known)
        return image[0, :, :height, :width].float()

    def _known(
        self, photos: Tensor, kernels: Tensor, gammas: Sequence[float]
    ) -> tuple[Tensor, ...]:
        """Return photos, kernels, noise and gammas as the network takes them."""
        inputs = self._padded(photos)
        gamma = inputs.new_tensor(list(gammas))
        return inputs, kernels.to(self.device), measured_noise(inputs), gamma

    def _padded(self, images: Tensor) -> Tensor:
        """Return images (N, 3, H, W) on the device, with sides that the network takes."""
        height, width = images.shape[-2:]
        multiple = self.network.multiple
        missing = (0, -width % multiple, 0, -height % multiple)
        return F.pad(images, missing, mode="replicate").to(self.device)


def shrunk(image: np.ndarray, factor: float) -> np.ndarray:
    """Return an image (H, W, C) resized by a factor of at most 1, antialiased."""
    if factor >= 1:
        return image
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    sides = [max(1, round(side * factor)) for side in image.shape[:2]]
    small = F.interpolate(batch, sides, mode="bilinear", antialias=True, align_corners=False)
    return small[0].permute(1, 2, 0).contiguous().numpy()


@dataclass
class Estimates:
    """Kernels (gammas, sizes, side, side) of a window, on the CPU, and the improvement by each.

    `better` (gammas, sizes) is the logarithm of the ratio of the photo's expected error to the
    result's.
    """

    kernels: Tensor
    better: np.ndarray


@dataclass(frozen=True)
class SelectedKernel:
    """A kernel (side, side), and the trust in it, 0 to 1.

    `gamma` is the exponent from pixel values to the light that the kernel blurs. `gain` is the
    logarithm of the ratio of the photo's expected error to the result's.
    """

    kernel: Tensor
    gamma: float
    trust: float
    gain: float


class KernelSelection:
    """Estimates the kernels of windows (H, W, 3) float32 in [0, 1], and chooses among them."""

    def __init__(self, undo: NonBlindDeconvolution, options: WindowOptions) -> None:
        self.undo, self.o = undo, options

    def estimates(self, photo: np.ndarray) -> Estimates:
        """Return the kernels of a window for all gammas and sizes."""
        return self._estimates(photo, self.o.sizes(photo.shape[:2]))

    def whole(self, photo: np.ndarray) -> SelectedKernel | None:
        """Return one kernel for a whole photo, or None if its blur fits the kernels of windows.

        Long blur is estimated in small copies of the photo, one for each size of the kernel, so
        that it fits the kernels that are estimated in windows. The best kernel is then refined in
        larger copies. `gain` is that in a small copy, `trust` the agreement of all sizes.
        """
        o = self.o
        sizes = o.long_sizes(photo.shape[:2])
        if not sizes:
            return None
        base, copy = o.kernel_sizes[0], o.kernel_sizes[0] / sizes[len(sizes) // 2]
        judged, longest = shrunk(photo, copy), round(sizes[-1] * copy) | 1
        found, alike, expected = [], [], []
        for size in reversed(sizes):
            found.append(self._estimate(shrunk(photo, base / size), base).cpu())
            alike.append(padded(kernels_at(found[-1], round(size * copy) | 1), longest))
            expected.append(self._gains(judged, trimmed(alike[-1]), o.gammas))
            if max(expected[0]) < o.margin:
                return None
        gains = np.stack(expected, 1)
        gains[0] += o.doubt
        light, best = (int(index) for index in np.unravel_index(gains.argmax(), gains.shape))
        agreements = kernel_agreement(alike[best][light], torch.stack(alike)[:, light])
        trust = float(agreements.sort().values[-2]) if len(sizes) > 1 else 0.0
        kernel, gamma, size = found[best][light], o.gammas[light], sizes[-1 - best]
        if shape(kernel).length * size / base <= HELD * base:
            return None
        for growth in LONG_SCALES:
            side = min(round(growth * base), size) | 1
            kernel = self._in_copy(photo, kernel, gamma, side, size)
        kernel = kernels_at(kernel[None], size)[0]
        return SelectedKernel(kernel, gamma, trust, float(gains[light, best]))

    def refined_long(self, photo: np.ndarray, kernel: Tensor, gamma: float) -> Tensor:
        """Return the long kernel (side, side) of a part of a photo, refined if that promises more.

        The part (H, W, 3) is seen in a small copy, in which the network knows such kernels.
        """
        size = kernel.shape[-1]
        side = min(round(LONG_SCALES[-1] * self.o.kernel_sizes[0]), size) | 1
        found = kernels_at(self._in_copy(photo, kernel, gamma, side, size)[None], size)[0]
        gains = self._gains(photo, torch.stack([kernel, found]), [gamma, gamma])
        return found if gains[1] > gains[0] else kernel

    def _in_copy(
        self, photo: np.ndarray, kernel: Tensor, gamma: float, side: int, size: int
    ) -> Tensor:
        """Return a kernel (side, side), refined in a copy where `size` pixels become `side`."""
        copy = shrunk(photo, side / size)
        return self.sought(copy, kernels_at(kernel[None], side)[0], gamma, LONG_ROUNDS)

    def _estimates(self, photo: np.ndarray, sizes: Sequence[int]) -> Estimates:
        gammas = [gamma for gamma in self.o.gammas for _ in sizes]
        found = [padded(self._estimate(photo, size), sizes[0]) for size in sizes]
        kernels = torch.stack(found, 1).flatten(0, 1)
        shape = len(self.o.gammas), len(sizes)
        expected = self._gains(photo, kernels, gammas).reshape(shape)
        return Estimates(kernels.cpu().unflatten(0, shape), expected)

    def chosen(
        self, found: Sequence[Estimates], near: Sequence[Sequence[int]]
    ) -> list[SelectedKernel]:
        """Return the choice for every window of a photo; `near` lists its neighbours' indices."""
        choices = [self._sizes(light, found, near) for light in range(len(self.o.gammas))]
        gains = [
            np.mean([own.better[light, size] for own, size in zip(found, sizes, strict=True)])
            for light, sizes in enumerate(choices)
        ]
        gains[0] += self.o.doubt
        light = int(np.argmax(gains))
        windows = list(zip(found, choices[light], near, strict=True))
        kernels = [own.kernels[light, size] for own, size, _ in windows]
        return [
            SelectedKernel(
                kernel,
                self.o.gammas[light],
                _trust(own.kernels, light, size, kernels, others),
                float(own.better[light, size]),
            )
            for kernel, (own, size, others) in zip(kernels, windows, strict=True)
        ]

    def refined(
        self, photo: np.ndarray, kernel: Tensor, gamma: float, gain: float | None = None
    ) -> Tensor:
        """Return the kernel (side, side) of a window (H, W, 3), refined if that promises more.

        The image that is restored with a kernel has edges that the estimation did not know, and
        leads to a better kernel. If they repeat themselves, it may lead to one that is shifted by a
        repetition. `gain` is what `kernel` promises, like that of `SelectedKernel` (None: unknown).
        """
        found = kernel
        for after, repetition in self._rounds(photo, kernel, gamma):
            if repetition > self.o.repeats:
                return kernel
            found = after
        if shape(found).length > self.o.longest * shape(kernel).length:
            return kernel
        if gain is None:
            gain = self.gain(photo, kernel, gamma)
        return found if self.gain(photo, found, gamma) > gain else kernel

    def gain(self, photo: np.ndarray, kernel: Tensor, gamma: float) -> float:
        """Return what the network expects of a kernel (side, side) in the middle of a photo."""
        return float(self._gains(photo, kernel[None], [gamma])[0])

    def _gains(self, photo: np.ndarray, kernels: Tensor, gammas: Sequence[float]) -> np.ndarray:
        """Return what the network expects of kernels (N, side, side) of a window, (N,)."""
        side = max(JUDGED, 2 * kernels.shape[-1])
        part = torch.from_numpy(central_crop(photo, side, side)).permute(2, 0, 1)
        _, better = self.undo(part.expand(len(kernels), -1, -1, -1), kernels, gammas)
        return better.mean((1, 2, 3)).cpu().numpy()

    def sought(
        self, photo: np.ndarray, kernel: Tensor, gamma: float, rounds: int | None = None
    ) -> Tensor:
        """Return what rounds of `refined` find for a window, whether or not it promises more."""
        found = kernel
        for after, _ in self._rounds(photo, kernel, gamma, rounds):
            found = after
        return found

    def _rounds(
        self, photo: np.ndarray, kernel: Tensor, gamma: float, rounds: int | None = None
    ) -> Iterator[tuple[Tensor, float]]:
        """Yield, for every round, the kernel (side, side) that explains the photo.

        It leads from the strong edges of the image restored with the kernel before it. With it
        comes how much these repeat themselves, up to 1.
        """
        blurry = torch.from_numpy(photo).permute(2, 0, 1).clamp_min(0)
        seen = (blurry**gamma).mean(0)[None]
        for _ in range(self.o.rounds if rounds is None else rounds):
            sharp = self.undo.briefly(blurry, trimmed(kernel[None])[0], gamma).clamp(0, 1)
            image = (sharp.cpu() ** gamma).mean(0)[None]
            (kernel,), (repetition,) = kernels_between(image, seen, kernel.shape[-1], self.o)
            yield kernel, float(repetition)

    def _sizes(
        self, light: int, found: Sequence[Estimates], near: Sequence[Sequence[int]]
    ) -> list[int]:
        """Return, for every window, the index of the size with the best score.

        The score is the expected improvement, plus `voice` for agreement with the neighbours.
        """
        sizes = []
        for own, others in zip(found, near, strict=True):
            score = own.better[light].copy()
            for other in others:
                agreed = kernel_agreement(own.kernels[light][:, None], found[other].kernels[light])
                score += self.o.voice / len(others) * agreed.amax(1).numpy()
            sizes.append(int(score.argmax()))
        return sizes

    def _estimate(self, photo: np.ndarray, size: int) -> Tensor:
        """Return the kernel for every gamma; a smaller kernel needs a smaller part of the photo."""
        part_seen = min(1.0, (size / self.o.kernel_sizes[0]) ** 0.5)
        sides = [max(LEAST_SEEN, round(side * part_seen)) for side in photo.shape[:2]]
        part = np.ascontiguousarray(central_crop(photo, *sides))
        values = torch.from_numpy(part).to(self.undo.device).clamp_min(0)
        grey = torch.stack([(values**gamma).mean(2) for gamma in self.o.gammas])
        weights = grey.new_full((len(grey),), self.o.weight)
        return estimate_kernels(grey, size, weights, self.o)


def _trust(
    kernels: Tensor, light: int, size: int, chosen: Sequence[Tensor], near: Sequence[int]
) -> float:
    """Return the mean agreement with the other gammas, the other sizes and the neighbours."""
    kernel = kernels[light, size]
    gammas = kernels[torch.arange(len(kernels)) != light].flatten(0, 1)
    sizes = kernels[light, torch.arange(kernels.shape[1]) != size]
    trusts = [kernel_agreement(kernel, group).max() for group in (gammas, sizes) if len(group)]
    if near:
        trusts.append(
            kernel_agreement(kernel, torch.stack([chosen[other] for other in near])).mean()
        )
    return float(torch.stack(trusts).mean())
