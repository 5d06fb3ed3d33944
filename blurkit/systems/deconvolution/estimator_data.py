"""Unlimited samples for the training of the blur estimator, drawn from sharp photos.

Each is a window of a photo under a drawn blur, in linear light or not, with noise, lights that
saturate and JPEG, and the kernels that the coarse scales of the L0 estimation find in it. These
cost more than a training step, so samples are kept in files and shown in all eight orientations.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from torch import Tensor

from blurkit.data.sources import read_records
from blurkit.io.records import to_float
from blurkit.synthesis.kernels import (
    CARRIED,
    SHAKEN,
    UNHINDERED,
    _splat,
    random_trajectory,
)
from blurkit.systems.deconvolution.config import Shake
from blurkit.systems.deconvolution.estimation import growing
from blurkit.systems.deconvolution.fourier import padded
from blurkit.systems.deconvolution.training import (
    MARGIN,
    blurred,
    channels_first,
    degraded,
    oriented,
    shrunk_photo,
)

SIZE = 41
"""Side of the kernels, pixels; a longer blur is estimated in a smaller copy of its photo."""

STARTS = (15, 21, 29)
"""Scales of the L0 estimation whose kernels are kept, largest last."""

IDENTITY, DISKS = 0.04, 0.06
"""Fractions of samples without blur, and out of focus."""

MOVEMENTS, CHANCES = (SHAKEN, CARRIED, UNHINDERED), (0.6, 0.2, 0.2)
"""Movements of the camera, and how often each is drawn."""


@dataclass
class EstimationBatch:
    """Windows and their true blur; arrays or tensors.

    `photos` and `sharp` (N, 3, S, S) are uint8, `kernels` (N, 41, 41) the true ones, with their
    centroid in the middle; `starts` (N, 3, 41, 41) are what L0 found at the scales `STARTS`, each
    in the middle of zeros, and `gammas` (N,) the assumed exponents from pixel values to light.
    """

    photos: Tensor
    sharp: Tensor
    kernels: Tensor
    starts: Tensor
    gammas: Tensor

    def __len__(self) -> int:
        return len(self.gammas)

    def turned(self, turns: int, flip: bool) -> EstimationBatch:
        """Return the batch in one of a square's eight orientations."""

        def turn(x: Tensor) -> Tensor:
            if x.dim() < 3:
                return x
            x = torch.rot90(x, turns, (-2, -1))
            return (x.flip(-1) if flip else x).contiguous()

        return EstimationBatch(*(turn(getattr(self, field.name)) for field in fields(self)))


def drawn_kernel(rng: np.random.Generator) -> Tensor:
    """Return a kernel (41, 41): the path of a moving camera, a disk, or a single point."""
    kind = rng.random()
    if kind < IDENTITY:
        kernel = np.ones((1, 1))
    elif kind < IDENTITY + DISKS:
        radius = rng.uniform(0.8, 7)
        place = np.arange(2 * np.ceil(radius) + 1) - np.ceil(radius)
        kernel = np.clip(radius + 0.5 - np.hypot(place[:, None], place[None]), 0, 1)
    else:
        size = 2 * int(rng.integers(1, SIZE // 2 + 1)) + 1
        movement = MOVEMENTS[int(rng.choice(len(MOVEMENTS), p=CHANCES))]
        path = random_trajectory(rng, movement=movement)
        path = path - path.mean()
        reach = (size - 1) / 2
        path *= reach / max(np.abs(path.real).max(), np.abs(path.imag).max())
        kernel = _splat(path.imag + reach, path.real + reach, size)
    return padded(torch.from_numpy(kernel / kernel.sum()).float(), SIZE)


class EstimationSamples:
    """Draws samples from folders of sharp photos; they depend on seed and number alone."""

    def __init__(self, photos: Sequence[str], seed: int, side: int = 256) -> None:
        self.seed, self.side = seed, side
        self.photos = [shrunk_photo(r.image("sharp")) for r in read_records(photos, image="sharp")]
        areas = np.array([photo.shape[0] * photo.shape[1] for photo in self.photos])
        self.chances = np.sqrt(areas) / np.sqrt(areas).sum()

    def batch(self, numbers: Sequence[int]) -> EstimationBatch:
        """Return the samples with these numbers."""
        drawn = [self._drawn(np.random.default_rng([self.seed, number])) for number in numbers]
        photos, sharp, kernels, gammas = (
            torch.stack(column) for column in zip(*drawn, strict=True)
        )
        return EstimationBatch(photos, sharp, kernels, l0_starts(photos, gammas), gammas)

    def _drawn(self, rng: np.random.Generator) -> tuple[Tensor, ...]:
        wide = self._crop(rng, self.side + 2 * MARGIN)
        kernel = drawn_kernel(rng)
        light = 2.2 if rng.random() < 0.7 else 1.0
        gamma = light if rng.random() < 0.85 else 3.2 - light
        inside = (..., slice(MARGIN, MARGIN + self.side), slice(MARGIN, MARGIN + self.side))
        photo = degraded(rng, blurred(rng, wide, kernel, light)[inside])
        images = [(image * 255).round().byte() for image in (photo, wide[inside])]
        return *images, kernel, torch.tensor(gamma)

    def _crop(self, rng: np.random.Generator, side: int) -> Tensor:
        photo = self.photos[int(rng.choice(len(self.photos), p=self.chances))]
        scale = rng.uniform(0.5, 1.1) if max(photo.shape) > 800 else rng.uniform(0.8, 1.3)
        cut = min(int(side / scale), *photo.shape[:2])
        top, left = (int(rng.integers(length - cut + 1)) for length in photo.shape[:2])
        part = PIL.Image.fromarray(photo[top : top + cut, left : left + cut])
        resized = np.asarray(part.resize((side, side), PIL.Image.Resampling.BICUBIC))
        turned = oriented(to_float(resized), int(rng.integers(4)), bool(rng.integers(2)))
        return channels_first(turned, side)


def l0_starts(photos: Tensor, gammas: Tensor) -> Tensor:
    """Return the kernels (N, 3, 41, 41) of `EstimationBatch` for photos (N, 3, H, W) uint8."""
    light = ((photos.float() / 255) ** gammas.view(-1, 1, 1, 1)).mean(1)
    options = Shake()
    weights = light.new_full((len(light),), options.weight)
    found: dict[int, Tensor] = {}
    for kernels in growing(light, SIZE, weights, options):
        if kernels.shape[-1] > STARTS[-1]:
            break
        found[kernels.shape[-1]] = kernels
    return torch.stack([padded(found[scale], SIZE) for scale in STARTS], 1)


# ---- files ---------------------------------------------------------------------------------------


def keep(batch: EstimationBatch, path: Path) -> None:
    """Write a batch to a file: its images in 8 bits, its kernels in half precision."""
    arrays = {field.name: getattr(batch, field.name).numpy() for field in fields(batch)}
    arrays |= {name: arrays[name].astype(np.float16) for name in ("kernels", "starts")}
    partial = path.with_suffix(".part")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.rename(path)


def kept(path: Path) -> EstimationBatch:
    """Read a batch that `keep` wrote."""
    with np.load(path) as arrays:
        tensors = [torch.from_numpy(arrays[field.name]) for field in fields(EstimationBatch)]
    return EstimationBatch(*(x.float() if x.dtype == torch.float16 else x for x in tensors))


def shuffled(folder: Path, count: int, seed: int) -> Iterator[EstimationBatch]:
    """Yield batches of `count` samples from the files in a folder, forever; new files join in."""
    rng = np.random.default_rng(seed)
    while True:
        files = sorted(folder.glob("*.npz"))
        for number in rng.permutation(len(files)):
            batch = kept(files[number])
            order = torch.from_numpy(rng.permutation(len(batch)))
            for some in order.split(count):
                if len(some) == count:
                    part = [getattr(batch, field.name)[some] for field in fields(batch)]
                    yield EstimationBatch(*part).turned(int(rng.integers(4)), rng.random() < 0.5)
