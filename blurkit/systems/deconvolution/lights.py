"""Lights: what clipped pixels hide, and the kernels that the streaks of lights show.

A sensor clips what is brighter than white, so there a kernel does not explain a photo, and what is
inverted rings. Clipped pixels were at least white (Cho, Wang and Lee, "Handling outliers in
non-blind image deconvolution", ICCV 2011); how bright a light was is what its streak shows beside
them (Whyte, Sivic and Zisserman, "Deblurring shaken and partially saturated images", IJCV 2014).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from blurkit.systems.deconvolution.config import Estimation
from blurkit.systems.deconvolution.estimation import kernels_between
from blurkit.systems.deconvolution.fourier import (
    centred_transfer,
    irfft2,
    kernels_at,
    recentred,
    reduced,
    rfft2,
    unframed,
    widened,
)

CLIPPED = 250 / 255
"""Pixel value from which light was clipped."""

LAMP = 2.0
"""Light, in units of white, from which something counts as a lamp. What is hardly brighter than
white may as well be white, above all in an average of frames that were clipped themselves."""

BRIGHT = 4.0
"""Mean light of lamps, weighted by itself, from which a photo has any: reflections and skies that a
wrong kernel explains stay below."""

BULB = 0.9
"""Pixel value of a restored picture from which it shows a lamp."""

LIT = 5e-5
"""Part of clipped pixels from which the lights of a photo are looked at."""

FAINTEST, STRONGEST = 1e-5, 100.0
"""Range of light, in units of white."""

WITNESSED = 0.1
"""Part of the light of lamps that falls beside clipped pixels, from which they are believed: within
a white wall or sky nothing tells how bright it is."""

STEEPEST = 10.0
"""Largest ratio in a step: what a wrong kernel cannot explain would grow without end."""

LUCY_STEPS = 12
"""Accelerated steps of Richardson and Lucy: more gain next to nothing."""

LAMP_TURNS = 3
"""Alternations of sharp light and kernel at every scale."""

HIDDEN = 0.05
"""Part of a small copy's pixel that is clipped in the photo, from which it is clipped, too."""


@dataclass
class Lights:
    """What photos (N, 3, H, W) with clipped pixels are in linear light, in units of white.

    `photos` have in clipped pixels the light that explains them; `sharp` (N, 1, H, W) is the grey
    light without the blur, from `LAMP` on that of lamps.
    """

    photos: Tensor
    sharp: Tensor

    def added(self, light: Tensor, pictures: Tensor) -> Tensor:
        """Return the light of restored pictures (N, 3, H, W), as bright as the lamps in it are."""
        return torch.where((self.sharp > LAMP) & (pictures > BULB), self.sharp, light)


def lights(photos: Tensor, kernels: Tensor, gammas: Tensor) -> Lights | None:
    """Return the lights of photos (N, 3, H, W) under kernels (N, h, w), None if there is no lamp.

    `gammas` (N,) are the exponents from pixel values to light.
    """
    clipped = photos >= CLIPPED
    if not clipped.any():
        return None
    light = photos.float().clamp(0, 1) ** gammas.view(-1, 1, 1, 1)
    grey = light.mean(1, keepdim=True)
    hidden = clipped.any(1, keepdim=True)
    explained, sharp = unclipped(grey, hidden, kernels.float())
    shown = beside(hidden, kernels.float())
    lamps = (sharp > LAMP).to(shown)
    known = (shown * lamps).mean((1, 2, 3)) > WITNESSED * lamps.mean((1, 2, 3))
    if not known.any():
        return None
    known = known.view(-1, 1, 1, 1)
    whole = torch.where(clipped & known, light * (explained / grey), light)
    return Lights(whole, torch.where(known, sharp, 0.0))


def lit(photo: np.ndarray) -> bool:
    """Return whether so much of a photo (H, W, 3) is clipped that there may be lights."""
    return float((photo.max(2) >= CLIPPED).mean()) >= LIT


def beside(clipped: Tensor, kernels: Tensor) -> Tensor:
    """Return how much of the light of a point under kernels (N, h, w) misses clipped pixels.

    `clipped` and the result are (N, 1, H, W).
    """
    seen = widened((~clipped).to(kernels), kernels.shape[-1] // 2 + 1)
    transfer = centred_transfer(kernels, seen.shape[-2], seen.shape[-1])[:, None]
    shown = irfft2(rfft2(seen) * transfer.conj(), s=tuple(seen.shape[-2:]))
    return unframed(shown, *clipped.shape[-2:])


def unclipped(light: Tensor, clipped: Tensor, kernels: Tensor) -> tuple[Tensor, Tensor]:
    """Return light (N, C, H, W) as it was before it was clipped, and without the blur of kernels.

    By Richardson and Lucy's steps, accelerated, in which a clipped pixel says nothing where more
    light is expected than it shows.
    """
    margin = kernels.shape[-1] // 2 + 1
    seen, free = (widened(x, margin) for x in (light, clipped.to(light)))
    seen, free, sides = seen.clamp_min(FAINTEST), free > 0.5, (seen.shape[-2], seen.shape[-1])
    transfer = centred_transfer(kernels, *sides)[:, None]

    def blurred(x: Tensor) -> Tensor:
        return irfft2(rfft2(x) * transfer, s=sides).clamp_min(FAINTEST)

    before = sharp = seen
    for step in range(LUCY_STEPS):
        ahead = (sharp * (sharp / before) ** (step / (step + 3))).clamp(FAINTEST, STRONGEST)
        ratio = (seen / blurred(ahead)).clamp_max(STEEPEST)
        ratio = torch.where(free, ratio.clamp_min(1), ratio)
        change = irfft2(rfft2(ratio) * transfer.conj(), s=sides).clamp_min(0)
        before, sharp = sharp, (ahead * change).clamp(FAINTEST, STRONGEST)
    explained = torch.where(free, torch.maximum(seen, blurred(sharp)), seen)
    height, width = light.shape[-2:]
    return unframed(explained, height, width), unframed(sharp, height, width)


@torch.inference_mode()
def kernel_of_lights(
    photo: Tensor, start: Tensor, sides: Sequence[int], size: int, gamma: float, c: Estimation
) -> tuple[Tensor, float]:
    """Return the kernel (1, s, s) that the lights of a photo (3, H, W) show, found from `start`.

    In turns with `unclipped`, from coarse to fine: `sides` are those of the kernel at each scale;
    in the photo, it has a side of `size`. The second result is the mean light of the lamps,
    weighted by itself: the better a kernel explains lamps, the smaller and brighter they become.
    """
    light = (photo.clamp(0, 1) ** gamma).mean(0)[None, None]
    clipped = (photo >= CLIPPED).any(0)[None, None].to(light)
    kernel = start.to(light)
    for side in sides:
        small, hidden = (reduced(x, min(1, side / size)) for x in (light, clipped))
        kernel = kernels_at(recentred(kernel), side)
        for _ in range(LAMP_TURNS):
            explained, sharp = unclipped(small, hidden > HIDDEN, kernel)
            kernel = kernels_between(sharp[:, 0], explained[:, 0], side, c)
    lamps = torch.where(sharp > LAMP, sharp, 0.0)
    return kernel, float(lamps.square().sum() / lamps.sum().clamp_min(FAINTEST))
