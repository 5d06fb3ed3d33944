"""Samples that the networks are trained on, drawn from sharp photos and from pairs.

docs/deconvolution.md says what is drawn, and why.
"""

import io
import math
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.Image
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError
from blurkit.io.records import from_float, to_float
from blurkit.synthesis.kernels import (
    CARRIED,
    SHAKEN,
    UNHINDERED,
    draw_path,
    random_trajectory,
    scaled_path,
    splat,
)
from blurkit.synthesis.rendering import disk
from blurkit.systems.deconvolution.estimator import FULL, START, dots, smeared
from blurkit.systems.deconvolution.fourier import centred_transfer, irfft2, padded, rfft2
from blurkit.systems.deconvolution.photo import in_colour
from blurkit.training.configuration import Configuration
from blurkit.training.recipe import Batch

TURNED, TURN, GRID = 0.3, 8, 5
"""Fraction of the drawn photos in which the blur changes with the place; by how many pixels at
most, from the middle to a border; and the number of kernels down and across."""

MARGIN = FULL // 2 + TURN + 1
"""Pixels around a crop that its blur reaches."""

LONGEST_SIDE = 1600
"""Larger photos are shrunk to this side, which makes them sharp down to the pixel."""

PAIRED = 0.35
"""Fraction of samples that are crops of pairs, if there are any."""

IDENTITY = 0.04
"""Fraction of samples that are not blurred at all, whatever kernel the network gets."""

GIVEN, FOUND, WRONG = 0.2, 0.55, 0.12
"""How often the deconvolution network gets the true kernel, that which the estimator finds, and
another one altogether, of which it learns to expect nothing; else a disturbed one."""

PATHS = (
    (0.10, START, (7, 11, 15, 21)),
    (0.10, START, (7, 11, 15, 21, 29)),
    (0.45, START, (7, 11, 15, 21, 29, 41)),
    (0.20, START, (7, 11, 15, 21, 29, 41, 41)),
    (0.15, FULL, (41,)),
)
"""How often a step's turns start from a dot, or at 41 from the true kernel, smeared; and the sides
of the kernels of its turns. Small ones teach the same and cost as their area."""

POINTS, DISKS, SLIGHT = 0.06, 0.04, 0.1
"""Fractions of the drawn kernels without blur, out of focus, and of up to 7 pixels."""

MOVEMENTS, CHANCES = (SHAKEN, CARRIED, UNHINDERED), (0.6, 0.2, 0.2)
"""Movements of the camera, and how often each is drawn."""

RESTED, REST = 0.3, (0.1, 0.8)
"""Fraction of the cameras that rest somewhere on their path, and for which part of the exposure."""

DOT = padded(torch.ones(1, 1), FULL)
"""The kernel of no blur."""


class DeconvolutionSamples:
    """Draws samples from shards of sharp photos and of pairs, each from seed, step and number.

    Each shard of pairs is drawn from equally often, so one that is listed twice is seen more often.
    They are `blur`, `sharp`, the assumed exponent `gamma`, at times a wrong one, the true `kernel`
    (41, 41), the one `given` to the deconvolution network, unless `found` is 1: then it gets what
    the estimator finds; `start`, the kernel from which the turns of a step start, as `PATHS` says,
    and `drawn`, 0 for crops of pairs and for others their weight, with a mean of 1 over all.
    Raises BlurkitError without sharp photos.
    """

    def __init__(
        self, shards: Sequence[Path], configuration: Configuration, pairs: bool = True
    ) -> None:
        self.c = configuration
        sharp, self.pairs, self.often = [], [], []
        for shard in shards:
            records = list(read_records([str(shard)]))
            sharp += [r.image("sharp") for r in records if {*r.images} == {"sharp"}]
            both = [r for r in records if {"blur", "sharp"} <= {*r.images}] if pairs else []
            if both:
                self.pairs.append([(r.image("blur"), r.image("sharp")) for r in both])
                self.often.append(chances([blur for blur, _ in self.pairs[-1]]))
        if not sharp:
            raise BlurkitError("training needs sharp photos; make a shard: prepare --as sharp")
        self.photos = [shrunk_photo(photo) for photo in sharp]
        self.photos_often = chances(self.photos)

    def __len__(self) -> int:
        return len(self.photos) + sum(map(len, self.pairs))

    def load(self, step: int, part: slice) -> dict[str, np.ndarray]:
        """Return the samples of a step that this process has, by name; images in bytes."""
        if multiprocessing.parent_process():
            torch.set_num_threads(1)  # a forked process lacks its parent's threads
        count, samples = round(PAIRED * self.c.batch) if self.pairs else 0, []
        for number in range(self.c.batch)[part]:
            rng = np.random.default_rng([self.c.seed, step, number])
            if number < count:
                samples.append(self.pair(rng) | {"drawn": torch.tensor(0.0)})
            else:
                weight = self.c.batch / (self.c.batch - count)
                samples.append(self.made(rng) | {"drawn": torch.tensor(weight)})
        loaded = {name: torch.stack([s[name] for s in samples]).numpy() for name in samples[0]}
        for role in ("blur", "sharp"):
            loaded[role] = from_float(loaded[role], np.dtype(np.uint8))
        start, (side, sizes) = dots(len(samples)), drawn_path(self.c.seed, step)
        if side == FULL:
            deviation = np.random.default_rng([self.c.seed, step, 2]).uniform(0.3, 2.5)
            start = smeared(torch.from_numpy(loaded["kernel"]), deviation)
        if sizes[-1] < FULL:  # too coarse to restore a photo
            loaded["found"] = np.where(loaded["drawn"] > 0, 0, loaded["found"])
        return loaded | {"start": start.numpy()}

    def to_device(self, loaded: dict[str, np.ndarray], device: torch.device) -> Batch:
        """Return loaded samples as a batch on a device."""
        batch = {name: torch.from_numpy(values).to(device) for name, values in loaded.items()}
        return batch | {role: batch[role] / 255 for role in ("blur", "sharp")}

    def pair(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a crop of a pair, at times the sharp picture on both sides."""
        side = self.c.crop
        shard = int(rng.integers(len(self.pairs)))
        pair = self.pairs[shard][int(rng.choice(len(self.pairs[shard]), p=self.often[shard]))]
        turns, flip = int(rng.integers(4)), bool(rng.integers(2))
        place = tuple(
            slice(start := int(rng.integers(max(0, length - side) + 1)), start + side)
            for length in pair[0].shape[:2]
        )
        photo, target = (oriented(to_float(image[place]), turns, flip, side) for image in pair)
        if rng.random() < IDENTITY:
            photo = target
        wrong = rng.random() < WRONG
        return {
            "blur": photo,
            "sharp": target,
            "gamma": torch.tensor(2.2 if rng.random() < 0.7 else 1.0),
            "kernel": DOT,
            "given": drawn_kernels(rng)[0] if wrong else DOT,
            "found": torch.tensor(float(not wrong)),
        }

    def made(self, rng: np.random.Generator) -> dict[str, Tensor]:
        """Return a crop of a photo with new blur."""
        light, gamma = gammas(rng)
        wide = self.crop(rng, self.c.crop + 2 * MARGIN)
        bright = scene(rng, wide, light)
        kernel, everywhere = drawn_kernels(rng)
        choice = rng.random()
        found, given = GIVEN <= choice < GIVEN + FOUND, kernel
        if choice > 1 - WRONG:
            given = drawn_kernels(rng)[0]
        elif choice >= GIVEN + FOUND:
            given = disturbed(rng, kernel)
        if rng.random() < IDENTITY:
            kernel, everywhere, found = DOT, DOT, False
        blur = taken(bright, everywhere).clamp(0, 1) ** (1 / light)
        return {
            "blur": degraded(rng, inside(blur)),
            "sharp": inside(bright.clamp(0, 1) ** (1 / light)),
            "gamma": gamma,
            "kernel": kernel,
            "given": given,
            "found": torch.tensor(float(found)),
        }

    def crop(self, rng: np.random.Generator, side: int) -> Tensor:
        """Return a square (3, side, side) of a photo, resized, turned and flipped at random."""
        photo = self.photos[int(rng.choice(len(self.photos), p=self.photos_often))]
        scale = rng.uniform(*((0.5, 1.1) if max(photo.shape) > LONGEST_SIDE / 2 else (0.8, 1.3)))
        cut = min(int(side / scale), *photo.shape[:2])
        top, left = (int(rng.integers(length - cut + 1)) for length in photo.shape[:2])
        part = PIL.Image.fromarray(photo[top : top + cut, left : left + cut])
        resized = to_float(np.asarray(part.resize((side, side), PIL.Image.Resampling.BICUBIC)))
        return oriented(resized, int(rng.integers(4)), bool(rng.integers(2)), side)


def drawn_path(seed: int, step: int) -> tuple[int, tuple[int, ...]]:
    """Return the start and the kernels' sides of the turns of a step, drawn from `PATHS`."""
    chances = [chance for chance, _, _ in PATHS]
    return PATHS[np.random.default_rng([seed, step, 1]).choice(len(PATHS), p=chances)][1:]


# ---- pieces of a sample --------------------------------------------------------------------------


def shrunk_photo(photo: np.ndarray) -> np.ndarray:
    """Return an 8-bit RGB photo with no side longer than `LONGEST_SIDE`."""
    image = PIL.Image.fromarray((to_float(photo) * 255 + 0.5).astype(np.uint8).squeeze())
    image = image.convert("RGB")
    image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), PIL.Image.Resampling.LANCZOS)
    return np.asarray(image)


def oriented(image: np.ndarray, turns: int, flip: bool, side: int) -> Tensor:
    """Return (3, H, W) from (H, W, C), turned and flipped, then mirrored up to `side` pixels."""
    image = np.rot90(image, turns)[:, :: -1 if flip else 1]
    missing = [(0, max(0, side - length)) for length in image.shape[:2]]
    whole = np.pad(in_colour(image), [*missing, (0, 0)], mode="symmetric")
    return torch.from_numpy(np.ascontiguousarray(whole.transpose(2, 0, 1)))


def chances(photos: Sequence[np.ndarray]) -> np.ndarray:
    """Return how often each photo is drawn, (photos,): as the root of its area is large."""
    roots = np.sqrt([photo.shape[0] * photo.shape[1] for photo in photos])
    return roots / roots.sum()


def disturbed(rng: np.random.Generator, true: Tensor) -> Tensor:
    """Return a slightly wrong kernel: smoother, noisy, shifted or without its faint parts."""
    kernel, kind = true.numpy(), int(rng.integers(4))
    if kind == 0:
        kernel = ndimage.gaussian_filter(kernel, rng.uniform(0.3, 1))
    elif kind == 1:
        kernel = kernel * np.exp(rng.normal(0, rng.uniform(0.1, 0.5), kernel.shape))
    elif kind == 2:
        kernel = ndimage.shift(kernel, rng.uniform(-0.7, 0.7, 2), order=1)
    else:
        kernel = np.where(kernel < kernel.max() * rng.uniform(0.02, 0.2), 0, kernel)
    kernel = np.maximum(kernel, 0).astype(np.float32)
    return torch.from_numpy(kernel / kernel.sum())


def scene(rng: np.random.Generator, wide: Tensor, gamma: float) -> Tensor:
    """Return the light (3, H, W) of a photo, at times in mist, soft, with highlights or lights.

    `gamma` is the exponent from pixel values to light, which may be far above 1. What is soft is to
    stay so: what is undone is the movement.
    """
    if rng.random() < 0.1:
        depth = rng.uniform(0.25, 1)
        wide = rng.uniform(0, 1 - depth) + depth * wide
    light = wide**gamma
    if rng.random() < 0.15:
        light = softened(rng, light)
    if rng.random() < 0.15:
        light = torch.where(light > 0.9, light * rng.uniform(1.2, 4), light)
    if rng.random() < 0.2:
        if rng.random() < 0.6:
            light = light * rng.uniform(0.03, 0.6)
        rows, columns = (np.arange(side) for side in light.shape[1:])
        for _ in range(int(rng.integers(1, 26))):
            radius, power = np.exp(rng.uniform(np.log((0.5, 1)), np.log((5, 40))))
            down, across = (rng.uniform(0, len(place)) - place for place in (rows, columns))
            shine = np.clip(radius + 0.5 - np.hypot(down[:, None], across[None]), 0, 1)
            colour = torch.from_numpy(rng.uniform(0.4, 1, (3, 1, 1)).astype(np.float32))
            light = light + power * colour * torch.from_numpy(shine.astype(np.float32))
    return light


def softened(rng: np.random.Generator, light: Tensor) -> Tensor:
    """Return light (3, H, W) that is smoother everywhere, or out of focus beyond some line."""
    if rng.random() < 0.5:
        spread = (0, *[rng.uniform(0.5, 2.5)] * 2)
        return torch.from_numpy(ndimage.gaussian_filter(light.numpy(), spread))
    unfocused = taken(light, torch.from_numpy(disk(rng.uniform(1, 7))).float())
    down, across = (torch.linspace(-1, 1, side) for side in light.shape[1:])
    angle, width = rng.uniform(0, 2 * math.pi), rng.uniform(0.02, 0.5)
    along = math.sin(angle) * down[:, None] + math.cos(angle) * across
    part = torch.sigmoid((along - rng.uniform(-0.7, 0.7)) / width)
    return light + part * (unfocused - light)


def taken(light: Tensor, kernels: Tensor) -> Tensor:
    """Return the light (3, H, W) under one kernel (h, w), or a grid of them (rows, columns, h, w).

    The outer kernels of a grid are those of the photo's borders; the blur changes evenly between
    them: each kernel blurs the photo by a weight that falls to 0 at its neighbours.
    """
    height, width = light.shape[-2:]
    if kernels.dim() == 2:
        transfer = centred_transfer(kernels, height, width)
        return irfft2(rfft2(light) * transfer, s=(height, width))
    rows, columns, side, _ = kernels.shape
    down, across = hats(height, rows), hats(width, columns)
    result = F.pad(torch.zeros_like(light), [side] * 4)
    for row in range(rows):
        for column in range(columns):
            top, below = limits(down[row])
            left, right = limits(across[column])
            weight = down[row][top:below, None] * across[column][left:right]
            part = F.pad(light[:, top:below, left:right] * weight, [side] * 4)
            blurred = taken(part, kernels[row, column])
            result[:, top : below + 2 * side, left : right + 2 * side] += blurred
    return result[:, side:-side, side:-side]


def hats(length: int, count: int) -> Tensor:
    """Return weights (count, length): 1 at one of `count` even places, 0 at the next ones."""
    place = torch.linspace(0, count - 1, length)
    return (1 - (place - torch.arange(count)[:, None]).abs()).clamp_min(0)


def limits(weights: Tensor) -> tuple[int, int]:
    """Return the first index at which weights are above 0, and the one after the last."""
    above = weights.nonzero()
    return int(above[0]), int(above[-1]) + 1


def degraded(rng: np.random.Generator, image: Tensor) -> Tensor:
    """Return (3, H, W) with noise of up to 5 % and what a camera does to it; rounded to 8 bits.

    Noise may be coarse, and stronger in bright places; some are sharpened, and some compressed.
    """
    if rng.random() < 0.9:
        deviation = math.exp(rng.uniform(math.log(0.2), math.log(13))) / 255
        noise = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        if rng.random() < 0.2:
            spread = (0, *[rng.uniform(0.3, 0.7)] * 2)
            noise = ndimage.gaussian_filter(noise, spread)
            noise /= noise.std()
        strength = deviation * torch.from_numpy(noise)
        if rng.random() < 0.3:
            strength = strength * (0.3 + image.clamp(0, 1)).sqrt()
        image = image + strength
    if rng.random() < 0.1:
        smooth = ndimage.gaussian_filter(image.numpy(), (0, *[rng.uniform(0.6, 1.5)] * 2))
        image = image + rng.uniform(0.2, 0.8) * (image - torch.from_numpy(smooth))
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    if rng.random() < 0.3:
        file = io.BytesIO()
        PIL.Image.fromarray(pixels).save(file, "JPEG", quality=int(rng.integers(50, 97)))
        pixels = np.asarray(PIL.Image.open(file))
    return torch.from_numpy(to_float(np.ascontiguousarray(pixels))).permute(2, 0, 1)


def drawn_kernels(rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return the kernel (41, 41) in a photo's middle, and what `taken` blurs all of it by.

    It is the path of a moving camera, which may rest or turn meanwhile, a disk, or a single point.
    """
    kind = rng.random()
    if kind < POINTS + DISKS:
        defocus = disk(0 if kind < POINTS else rng.uniform(0.8, 7))
        kernel = padded(torch.from_numpy(defocus).float(), FULL)
        return kernel, kernel
    reach = int(rng.integers(1, 4 if kind < POINTS + DISKS + SLIGHT else FULL // 2 + 1))
    path = random_trajectory(rng, movement=MOVEMENTS[int(rng.choice(3, p=CHANCES))])
    rest = int(rng.integers(len(path))), rng.uniform(*REST) if rng.random() < RESTED else 0.0
    path = rested(path, *rest)
    kernel = padded(torch.from_numpy(draw_path(path, 2 * reach + 1)).float(), FULL)
    if rng.random() >= TURNED:
        return kernel, kernel
    path = scaled_path(path, reach)
    angle = random_trajectory(rng, movement=MOVEMENTS[int(rng.choice(3, p=CHANCES))]).real
    angle = scaled_path(rested(angle, *rest), min(rng.uniform(0, TURN), 0.6 * (reach + 1)))
    side, places = 2 * MARGIN - 1, np.linspace(-1, 1, GRID)
    everywhere = [
        [splat(at.imag + side // 2, at.real + side // 2, side) for at in row]
        for row in [[path + 1j * angle * complex(x, y) for x in places] for y in places]
    ]
    return kernel, torch.from_numpy(np.array(everywhere)).float()


def rested(path: np.ndarray, place: int, part: float) -> np.ndarray:
    """Return positions (steps,) with a rest at one of them, for a part of the exposure."""
    pause = round(part / (1 - part) * len(path))
    return np.insert(path, place, np.full(pause, path[place]))


def gammas(rng: np.random.Generator) -> tuple[float, Tensor]:
    """Return the exponent by which a photo is blurred, and a usual one, assumed, at times wrong."""
    light = 2.2 if rng.random() < 0.7 else 1.0
    assumed = torch.tensor(light if rng.random() < 0.9 else 3.2 - light)
    return light * math.exp(rng.normal(0, 0.08)), assumed


def inside(image: Tensor) -> Tensor:
    """Return an image (3, H, W) without its margin."""
    return image[..., MARGIN:-MARGIN, MARGIN:-MARGIN]
