"""Samples that the deconvolution network is trained on, drawn from photos and windows of pairs.

Half of them are sharp photos, blurred in every step by true kernels of the windows, in linear light
or not, with noise, highlights and JPEG; the network gets the true kernel, a disturbed one, or the
estimate. The other half are windows of pairs, with real blur and their estimates.
"""

from __future__ import annotations

import io
import math
import multiprocessing
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError
from blurkit.io.records import to_float
from blurkit.systems.deconvolution.fourier import centred, irfft2, rfft2, transfer_function
from blurkit.systems.deconvolution.kernel_batches import padded

MARGIN = 22
"""Pixels around a crop that its blur reaches; kernels are at most twice that plus 1."""

LONGEST_SIDE = 1600
"""Larger photos are shrunk_photo to this side, which makes them sharp down to the pixel."""

REAL = 0.5
"""Fraction of samples that are windows of pairs."""

IDENTITY = 0.05
"""Fraction of samples that are not blurred at all, whatever their kernel is."""


@dataclass
class Sample:
    """A photo (3, S, S), its sharp version, the kernel that the network gets, and its gamma."""

    photo: Tensor
    sharp: Tensor
    kernel: Tensor
    gamma: float


class Samples:
    """Draws training samples from photos and windows; they depend on seed and step alone."""

    def __init__(self, photos: Sequence[str], windows: Sequence[str], seed: int) -> None:
        self.seed = seed
        self.photos = [shrunk_photo(r.image("sharp")) for r in read_records(photos, image="sharp")]
        areas = np.array([photo.shape[0] * photo.shape[1] for photo in self.photos])
        self.chances = np.sqrt(areas) / np.sqrt(areas).sum()
        self.windows = [list(read_records([file])) for file in windows]
        everything = [record for records in self.windows for record in records]
        self.kernels = [
            (record.attrs["kernel"], record.attrs["estimates"])
            for record in everything
            if "kernel" in record.attrs and max(record.attrs["kernel"].shape) <= 2 * MARGIN + 1
        ]
        if not (self.photos and self.kernels):
            raise BlurkitError("training needs sharp photos and windows with their true kernels")

    def batch(self, step: int, count: int, side: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return photos and sharp images (N, 3, S, S), kernels (N, K, K) and gammas (N,)."""
        rng = np.random.default_rng([self.seed, step])
        samples = [
            self.window(rng, side) if rng.random() < REAL else self.made(rng, side)
            for _ in range(count)
        ]
        return (
            torch.stack([sample.photo for sample in samples]),
            torch.stack([sample.sharp for sample in samples]),
            torch.stack([padded(sample.kernel.float(), 2 * MARGIN + 1) for sample in samples]),
            torch.tensor([sample.gamma for sample in samples]),
        )

    def arrays(self, step: int, count: int, side: int) -> list[np.ndarray]:
        """Return the tensors of `batch` as arrays, which can be sent between processes."""
        if multiprocessing.parent_process():
            torch.set_num_threads(1)  # a forked process lacks its parent's threads
        return [tensor.numpy() for tensor in self.batch(step, count, side)]

    def window(self, rng: np.random.Generator, side: int) -> Sample:
        """Return a crop of a window with one of its estimates."""
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
        return Sample(photo, target, torch.from_numpy(kernel), float(rng.choice([1.0, 2.2])))

    def made(self, rng: np.random.Generator, side: int) -> Sample:
        """Return a crop of a photo blurred by a true kernel, with it or an inaccurate kernel."""
        true, estimates = self.kernels[int(rng.integers(len(self.kernels)))]
        kernel = true
        if (kind := rng.random()) < 0.5:
            kernel = estimates[int(rng.integers(len(estimates)))]
        elif kind > 0.7:
            kernel = disturbed(rng, true)
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        true, kernel = (torch.from_numpy(oriented(k, turns, flip)) for k in (true, kernel))
        wide = channels_first(oriented(self.crop(rng, side + 2 * MARGIN), turns, flip), side)
        light = 2.2 if rng.random() < 0.75 else 1.0
        gamma = light if rng.random() < 0.85 else 3.2 - light
        inside = (..., slice(MARGIN, MARGIN + side), slice(MARGIN, MARGIN + side))
        blur = wide
        if rng.random() >= IDENTITY:
            blur = blurred(rng, wide, true.float(), light)
        return Sample(degraded(rng, blur[inside]), wide[inside], kernel, gamma)

    def crop(self, rng: np.random.Generator, side: int) -> np.ndarray:
        """Return a square (side, side, 3) of a photo, resized at random."""
        photo = self.photos[int(rng.choice(len(self.photos), p=self.chances))]
        scale = (
            rng.uniform(0.5, 1.1) if max(photo.shape) > LONGEST_SIDE / 2 else rng.uniform(0.8, 1.3)
        )
        cut = min(int(side / scale), *photo.shape[:2])
        top, left = (int(rng.integers(length - cut + 1)) for length in photo.shape[:2])
        part = PIL.Image.fromarray(photo[top : top + cut, left : left + cut])
        return to_float(np.asarray(part.resize((side, side), PIL.Image.Resampling.BICUBIC)))


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
