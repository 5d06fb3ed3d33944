"""Samples that the networks are trained on, drawn from sharp photos and from windows of pairs.

Those of the deconvolution network are half sharp photos, blurred in every step by true kernels of
the windows, in linear light or not, with noise, highlights and JPEG; the network gets the true
kernel, a disturbed one, or the estimate. The other half are windows of pairs, with real blur and
their estimates. Those of the blur estimator are sharp photos under drawn blur, each with the
kernels that the coarse scales of the L0 estimation find.
"""

from __future__ import annotations

import io
import math
import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError
from blurkit.io.records import Record, from_float, to_float
from blurkit.synthesis.kernels import (
    CARRIED,
    SHAKEN,
    UNHINDERED,
    draw_path,
    random_trajectory,
)
from blurkit.systems.deconvolution.estimator import FULL, START, dots, smeared
from blurkit.systems.deconvolution.fourier import (
    centred,
    irfft2,
    padded,
    rfft2,
    transfer_function,
)
from blurkit.training.configuration import Configuration
from blurkit.training.recipe import Batch

MARGIN = 22
"""Pixels around a crop that its blur reaches; kernels are at most twice that plus 1."""

KERNEL = 2 * MARGIN + 1
"""Side of the deconvolution network's kernels, pixels."""

LONGEST_SIDE = 1600
"""Larger photos are shrunk to this side, which makes them sharp down to the pixel."""

REAL = 0.5
"""Fraction of samples that are windows of pairs."""

IDENTITY = 0.05
"""Fraction of samples that are not blurred at all, whatever their kernel is."""

PATHS = (
    (0.20, START, (7, 11, 15, 21)),
    (0.15, START, (7, 11, 15, 21, 29)),
    (0.35, START, (7, 11, 15, 21, 29, 41)),
    (0.20, START, (7, 11, 15, 21, 29, 41, 41)),
    (0.10, FULL, (41,)),
)
"""How often a step's turns start from a dot, or at 41 from the true kernel, smeared; and the sides
of the kernels of its turns. Small ones teach the same and cost as their area."""

POINTS, DISKS = 0.04, 0.06
"""Fractions of the estimator's samples without blur, and out of focus."""

MOVEMENTS, CHANCES = (SHAKEN, CARRIED, UNHINDERED), (0.6, 0.2, 0.2)
"""Movements of the camera, and how often each is drawn."""


class DrawnSamples(ABC):
    """Samples that are drawn from records in memory, each from the seed, its step and its number.

    Samples are dicts of tensors by name; images are (3, S, S).
    """

    def __init__(self, records: Sequence[Record], configuration: Configuration) -> None:
        self.c = configuration
        sharp = [record.image("sharp") for record in records if "estimates" not in record.attrs]
        if not sharp:
            raise BlurkitError("training needs sharp photos; make a shard: prepare --as sharp")
        self.photos = [shrunk_photo(photo) for photo in sharp]
        areas = np.array([photo.shape[0] * photo.shape[1] for photo in self.photos])
        self.chances = np.sqrt(areas) / np.sqrt(areas).sum()

    def __len__(self) -> int:
        return len(self.photos)

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a sample."""

    def load(self, step: int, part: slice) -> dict[str, np.ndarray]:
        """Return the samples of a step that this process has, as arrays by name."""
        if multiprocessing.parent_process():
            torch.set_num_threads(1)  # a forked process lacks its parent's threads
        numbers = range(self.c.batch)[part]
        samples = [self.sample(np.random.default_rng([self.c.seed, step, n])) for n in numbers]
        return {name: torch.stack([s[name] for s in samples]).numpy() for name in samples[0]}

    def to_device(self, loaded: dict[str, np.ndarray], device: torch.device) -> Batch:
        """Return loaded samples as a batch on a device."""
        return {name: torch.from_numpy(values).to(device) for name, values in loaded.items()}

    def crop(self, rng: np.random.Generator, side: int) -> Tensor:
        """Return a square (3, side, side) of a photo, resized, turned and flipped at random."""
        photo = self.photos[int(rng.choice(len(self.photos), p=self.chances))]
        scale = (
            rng.uniform(0.5, 1.1) if max(photo.shape) > LONGEST_SIDE / 2 else rng.uniform(0.8, 1.3)
        )
        cut = min(int(side / scale), *photo.shape[:2])
        top, left = (int(rng.integers(length - cut + 1)) for length in photo.shape[:2])
        part = PIL.Image.fromarray(photo[top : top + cut, left : left + cut])
        resized = to_float(np.asarray(part.resize((side, side), PIL.Image.Resampling.BICUBIC)))
        return channels_first(oriented(resized, int(rng.integers(4)), bool(rng.integers(2))), side)


class DeconvolutionSamples(DrawnSamples):
    """Draws the deconvolution network's samples from shards of photos and windows.

    They are `blur`, `sharp`, `kernel` (45, 45), the one that the network gets, and `gamma`. Each
    shard of windows is drawn from equally often, so one that is listed twice is seen more often.
    """

    def __init__(self, shards: Sequence[Path], configuration: Configuration) -> None:
        everything = [list(read_records([str(shard)])) for shard in shards]
        super().__init__([record for records in everything for record in records], configuration)
        self.windows = [kept for records in everything if (kept := windows_in(records))]
        self.kernels = [
            (record.attrs["kernel"], record.attrs["estimates"])
            for records in self.windows
            for record in records
            if "kernel" in record.attrs and max(record.attrs["kernel"].shape) <= KERNEL
        ]
        if not self.kernels:
            raise BlurkitError("training needs windows with their true kernels")

    def sample(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a crop of a window, or of a photo with new blur."""
        sample = self.window(rng) if rng.random() < REAL else self.made(rng)
        return sample | {"kernel": padded(sample["kernel"].float(), KERNEL)}

    def window(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a crop of a window with one of its estimates."""
        side = self.c.crop
        records = self.windows[int(rng.integers(len(self.windows)))]
        record = records[int(rng.integers(len(records)))]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        blur, sharp = (
            oriented(to_float(record.image(role)), turns, flip) for role in ("blur", "sharp")
        )
        estimates = record.attrs["estimates"]
        kernel = oriented(estimates[int(rng.integers(len(estimates)))], turns, flip)
        place = tuple(
            slice(start := int(rng.integers(max(0, length - side) + 1)), start + side)
            for length in blur.shape[:2]
        )
        photo, target = (channels_first(image[place], side) for image in (blur, sharp))
        if rng.random() < IDENTITY:
            photo = target
        gamma = torch.tensor(float(rng.choice([1.0, 2.2])))
        return {
            "blur": photo,
            "sharp": target,
            "kernel": torch.from_numpy(kernel),
            "gamma": gamma,
        }

    def made(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a crop of a photo blurred by a true kernel, with it or an inaccurate kernel."""
        true, estimates = self.kernels[int(rng.integers(len(self.kernels)))]
        kernel = true
        if (kind := rng.random()) < 0.5:
            kernel = estimates[int(rng.integers(len(estimates)))]
        elif kind > 0.7:
            kernel = disturbed(rng, true)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        true, kernel = (torch.from_numpy(oriented(k, turns, flip)) for k in (true, kernel))
        light, gamma = gammas(rng, 0.75)
        wide = self.crop(rng, self.c.crop + 2 * MARGIN)
        blur = blurred(rng, wide, true.float(), light) if rng.random() >= IDENTITY else wide
        photo = degraded(rng, inside(blur))
        return {"blur": photo, "sharp": inside(wide), "kernel": kernel, "gamma": gamma}


class EstimationSamples(DrawnSamples):
    """Draws the blur estimator's samples from shards of sharp photos.

    They are `blur`, `sharp`, the true `kernel` (41, 41), the assumed exponent `gamma`, at times a
    wrong one, and `start`, the kernel from which the turns of a step start, as `PATHS` says.
    """

    def __init__(self, shards: Sequence[Path], configuration: Configuration) -> None:
        super().__init__(list(read_records(list(map(str, shards)))), configuration)

    def sample(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a photo with new blur, but without a start."""
        wide, kernel = self.crop(rng, self.c.crop + 2 * MARGIN), drawn_kernel(rng)
        light, gamma = gammas(rng, 0.7)
        photo = degraded(rng, inside(blurred(rng, wide, kernel, light)))
        return {"blur": photo, "sharp": inside(wide), "kernel": kernel, "gamma": gamma}

    def load(self, step: int, part: slice) -> dict[str, np.ndarray]:
        """Return the samples of a step that this process has, by name; images in bytes."""
        loaded = super().load(step, part)
        for role in ("blur", "sharp"):
            loaded[role] = from_float(loaded[role], np.dtype(np.uint8))
        start = dots(len(loaded["gamma"]))
        if drawn_path(self.c.seed, step)[0] == FULL:
            deviation = np.random.default_rng([self.c.seed, step, 2]).uniform(0.3, 2.5)
            start = smeared(torch.from_numpy(loaded["kernel"]), deviation)
        return loaded | {"start": start.numpy()}

    def to_device(self, loaded: dict[str, np.ndarray], device: torch.device) -> Batch:
        """Return loaded samples as a batch on a device."""
        batch = super().to_device(loaded, device)
        return batch | {role: batch[role] / 255 for role in ("blur", "sharp")}


def windows_in(records: Sequence[Record]) -> list[Record]:
    """Return the records that are windows with estimated kernels."""
    return [record for record in records if "estimates" in record.attrs]


def drawn_path(seed: int, step: int) -> tuple[int, tuple[int, ...]]:
    """Return the start and the kernels' sides of the turns of a step, drawn from `PATHS`."""
    chances = [chance for chance, _, _ in PATHS]
    number = int(np.random.default_rng([seed, step, 1]).choice(len(PATHS), p=chances))
    return PATHS[number][1:]


# ---- pieces of a sample --------------------------------------------------------------------------


def shrunk_photo(photo: np.ndarray) -> np.ndarray:
    """Return an 8-bit RGB photo with no side longer than `LONGEST_SIDE`."""
    image = PIL.Image.fromarray((to_float(photo) * 255 + 0.5).astype(np.uint8).squeeze())
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image)


def oriented(array: np.ndarray, turns: int, flip: bool) -> np.ndarray:
    """Return an image or kernel (H, W, ...) in one of a square's eight orientations."""
    array = np.rot90(array, turns)
    return np.ascontiguousarray(array[:, ::-1] if flip else array)


def channels_first(image: np.ndarray, side: int) -> Tensor:
    """Return (3, H, W) from (H, W, C), mirrored right and below up to `side` pixels."""
    colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    missing = [(0, max(0, side - length)) for length in colour.shape[:2]]
    whole = np.pad(colour, [*missing, (0, 0)], mode="symmetric")
    return torch.from_numpy(np.ascontiguousarray(whole.transpose(2, 0, 1)))


def disturbed(rng: np.random.Generator, kernel: np.ndarray) -> np.ndarray:
    """Return a slightly wrong kernel: smoother, noisy, shifted or without its faint parts."""
    kind = int(rng.integers(4))
    if kind == 0:
        kernel = ndimage.gaussian_filter(kernel, rng.uniform(0.3, 1))
    elif kind == 1:
        kernel = kernel * np.exp(rng.normal(0, rng.uniform(0.1, 0.5), kernel.shape))
    elif kind == 2:
        kernel = ndimage.shift(kernel, rng.uniform(-0.7, 0.7, 2), order=1)
    else:
        kernel = np.where(kernel < kernel.max() * rng.uniform(0.02, 0.2), 0, kernel)
    kernel = np.maximum(kernel, 0).astype(np.float32)
    return kernel / kernel.sum()


def blurred(rng: np.random.Generator, wide: Tensor, kernel: Tensor, gamma: float) -> Tensor:
    """Return (3, H, W), blurred, sometimes with highlights.

    `gamma` is the exponent from pixel values to the light that is blurred.
    """
    light = wide**gamma
    if rng.random() < 0.2:
        light = torch.where(light > 0.9, light * rng.uniform(1.2, 4), light)
    height, width = light.shape[-2:]
    transfer = centred(transfer_function(kernel, height, width), kernel, width)
    return irfft2(rfft2(light) * transfer, s=(height, width)).clamp(0, 1) ** (1 / gamma)


def degraded(rng: np.random.Generator, image: Tensor) -> Tensor:
    """Return (3, H, W) with noise of up to 5 % and, at times, JPEG; rounded to 8 bits."""
    if rng.random() < 0.9:
        deviation = math.exp(rng.uniform(math.log(0.2), math.log(13))) / 255
        noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        image = image + deviation * torch.from_numpy(noise)
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    if rng.random() < 0.2:
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(70, 97)))
        pixels = np.asarray(PIL.Image.open(file))
    return torch.from_numpy(to_float(np.ascontiguousarray(pixels))).permute(2, 0, 1)


def drawn_kernel(rng: np.random.Generator) -> Tensor:
    """Return a kernel (41, 41): the path of a moving camera, a disk, or a single point."""
    kind = rng.random()
    if kind < POINTS:
        kernel = np.ones((1, 1))
    elif kind < POINTS + DISKS:
        radius = rng.uniform(0.8, 7)
        place = np.arange(2 * np.ceil(radius) + 1) - np.ceil(radius)
        kernel = np.clip(radius + 0.5 - np.hypot(place[:, None], place[None]), 0, 1)
    else:
        size = 2 * int(rng.integers(1, FULL // 2 + 1)) + 1
        movement = MOVEMENTS[int(rng.choice(len(MOVEMENTS), p=CHANCES))]
        kernel = draw_path(random_trajectory(rng, movement=movement), size)
    return padded(torch.from_numpy(kernel / kernel.sum()).float(), FULL)


def gammas(rng: np.random.Generator, usual: float) -> tuple[float, Tensor]:
    """Return the exponent by which a photo is blurred, and the one assumed, at times wrong.

    `usual` is how often the first one is 2.2, else 1.
    """
    light = 2.2 if rng.random() < usual else 1.0
    return light, torch.tensor(light if rng.random() < 0.85 else 3.2 - light)


def inside(image: Tensor) -> Tensor:
    """Return an image (3, H, W) without its margin."""
    return image[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
