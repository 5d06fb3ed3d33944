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
    FramedBlur,
    around_origin,
    cleaned,
    irfft2,
    kernels_at,
    recentred,
    reduced,
    rfft2,
    transfer_function,
)

CLIPPED = 250 / 255
"""Pixel value from which light was clipped."""

LAMP = 2.0
"""Light, in units of white, from which something counts as a lamp. What is hardly brighter than
white may as well be white, above all in an average of frames that were clipped themselves."""

BRIGHT = 4.0
"""Mean light of lamps, weighted by itself, from which a photo has any: reflections and skies that a
wrong kernel explains stay below."""

LIT = 5e-5
"""Part of clipped pixels from which the lights of a photo are looked at."""

FAINTEST, STRONGEST = 1e-5, 100.0
"""Range of light, in units of white."""

DAZZLED = 0.5
"""Part of a pixel's light that is that of lamps, from which the pixel shows nothing else: what is
left is less than the error of their kernel."""

WITNESSED = 0.1
"""Part of the light of lamps that falls beside clipped pixels, from which they are believed: within
a white wall or sky nothing tells how bright it is."""

MISSED = 0.8
"""How much of the light beside clipped pixels a kernel may leave unexplained, or explain though it
is not there. True kernels missed 0.2 of it, distorted ones up to 0.5, and a wrong one twice all."""

STEEPEST = 10.0
"""Largest ratio in a step: what a wrong kernel cannot explain would grow without end."""

LUCY_STEPS, GLANCE_STEPS = 24, 12
"""Accelerated steps of Richardson and Lucy, and those that show whether there are lamps."""

LAMP_TURNS, STREAK_STEPS = 3, 2
"""Alternations of sharp light and kernel at every scale, and steps whenever it is redrawn."""

HIDDEN = 0.05
"""Part of a small copy's pixel that is clipped in the photo, from which it is clipped, too."""


@dataclass
class Lights:
    """What lamps add to photos (N, 3, H, W).

    `dark` are the photos without that, in pixel values; `lamps` (N, 3, H, W) is the light of the
    lamps themselves, without blur, in units of white, 0 beside them; `share` (N, 1, H, W) is how
    much of a photo's light is theirs, 0 to 1.
    """

    dark: Tensor
    lamps: Tensor
    share: Tensor

    def added(self, pictures: Tensor, gammas: Tensor) -> Tensor:
        """Return restored pictures of `dark` with lamps, cut off at white; (N,) `gammas`."""
        bright = self.lamps.clamp_max(1) ** (1 / gammas.view(-1, 1, 1, 1))
        return torch.where(self.lamps > 0, torch.maximum(pictures, bright), pictures)


def lights(photos: Tensor, kernels: Tensor, gammas: Tensor) -> Lights:
    """Return the lights of photos (N, 3, H, W) under kernels (N, h, w).

    `gammas` (N,) are the exponents from pixel values to light.
    """
    clipped, none = photos >= CLIPPED, torch.zeros_like(photos)
    if not clipped.any():
        return Lights(photos, none, none[:, :1])
    exponents = gammas.view(-1, 1, 1, 1)
    light = photos.float().clamp(0, 1) ** exponents
    blur = FramedBlur(kernels.float(), *photos.shape[-2:])
    hidden = clipped.any(1, keepdim=True)
    grey = blur.inside(unclipped(light.mean(1, keepdim=True), hidden, blur, GLANCE_STEPS))
    shown = blur.inside(blur.back(blur.wide((~hidden).to(light))))
    lamps = (grey > LAMP).to(shown)
    known = (shown * lamps).mean((1, 2, 3)) > WITNESSED * lamps.mean((1, 2, 3))
    if not known.any():
        return Lights(photos, none, none[:, :1])
    sharp = unclipped(light, clipped, blur, LUCY_STEPS)
    own = of_lamps(sharp)
    theirs, others = (blur.inside(blur(sharp * x)).clamp_min(0) for x in (own, 1 - own))
    share = (theirs / (theirs + others).clamp_min(FAINTEST)).amax(1, keepdim=True)
    missed, seen = (
        (share * ~clipped * x).sum((1, 2, 3)) for x in ((light - theirs - others).abs(), light)
    )
    known = (known & (missed < MISSED * seen)).view(-1, 1, 1, 1)
    shown = torch.where(clipped, 0.0, (1 - share / DAZZLED).clamp_min(0))
    dark = (others + shown * ((light - theirs).clamp_min(0) - others)).clamp_max(1)
    return Lights(
        torch.where(known, dark ** (1 / exponents), photos),
        torch.where(known, blur.inside(sharp * (own > 0)), 0.0),
        torch.where(known, share, 0.0),
    )


def lit(photo: np.ndarray) -> bool:
    """Return whether so much of a photo (H, W, 3) is clipped that there may be lights."""
    return float((photo.max(2) >= CLIPPED).mean()) >= LIT


def unclipped(light: Tensor, clipped: Tensor, blur: FramedBlur, steps: int) -> Tensor:
    """Return light (N, C, H, W) as it was before it was blurred and clipped, `FramedBlur.wide`.

    By Richardson and Lucy's steps, accelerated, in which a clipped pixel says nothing where more
    light is expected than it shows, nor does what lies beyond the borders.
    """
    seen, free = blur.wide(light).clamp_min(FAINTEST), blur.wide(clipped.to(light)) > 0.5
    before = sharp = seen
    for step in range(steps):
        ahead = (sharp * (sharp / before) ** (step / (step + 3))).clamp(FAINTEST, STRONGEST)
        ratio = (seen / blur(ahead).clamp_min(FAINTEST)).clamp_max(STEEPEST)
        ratio = torch.where(free, ratio.clamp_min(1), ratio)
        ratio = torch.where(blur.seen > 0, ratio, 1.0)
        change = blur.back(ratio).clamp_min(0)
        before, sharp = sharp, (ahead * change).clamp(FAINTEST, STRONGEST)
    return sharp


@torch.inference_mode()
def kernel_of_lights(
    photo: Tensor,
    start: Tensor,
    sides: Sequence[int],
    size: int,
    gamma: float,
    c: Estimation,
    redraws: int = 0,
) -> tuple[Tensor, float]:
    """Return the kernel (1, s, s) that the lights of a photo (3, H, W) show, found from `start`.

    In turns with `unclipped`, from coarse to fine: `sides` are those of the kernel at each scale;
    in the photo, it has a side of `size`. With `redraws`, it is `redrawn` once at each scale and so
    often at the last. The second result is the mean light of the lamps, weighted by itself: the
    better a kernel explains lamps, the smaller and brighter they become.
    """
    light = (photo.clamp(0, 1) ** gamma).mean(0)[None, None]
    clipped = (photo >= CLIPPED).any(0)[None, None].to(light)
    kernel = start.to(light)
    for side in sides:
        small, hidden = (reduced(x, min(1, side / size)) for x in (light, clipped))
        kernel, free = kernels_at(recentred(kernel), side), hidden > HIDDEN
        for _ in range(LAMP_TURNS):
            blur = FramedBlur(kernel, *small.shape[-2:])
            sharp = blur.inside(wide := unclipped(small, free, blur, GLANCE_STEPS))
            explained = torch.where(free, torch.maximum(small, blur.inside(blur(wide))), small)
            kernel = kernels_between(sharp[:, 0], explained[:, 0], side, c)
        for _ in range(redraws if side == sides[-1] else min(redraws, 1)):
            kernel = cleaned(redrawn(kernel, small, free), c.floor, c.part)  # lamps also glow
    return kernel, brightness(sharp)


def brightness(sharp: Tensor) -> float:
    """Return the mean of the light of lamps in sharp light of any shape, weighted by itself."""
    lamps = torch.where(sharp > LAMP, sharp, 0.0)
    return float(lamps.square().sum() / lamps.sum().clamp_min(FAINTEST))


def redrawn(kernel: Tensor, light: Tensor, clipped: Tensor) -> Tensor:
    """Return a kernel (1, s, s) as the streaks of lamps in light (1, 1, H, W) draw it.

    By Richardson and Lucy's steps, in which a clipped pixel says nothing where more light is
    expected: least squares sees edges alone, and thins what is faint.
    """
    blur, size = FramedBlur(kernel, *light.shape[-2:]), kernel.shape[-1]
    sharp = unclipped(light, clipped, blur, LUCY_STEPS)
    lamps = sharp * of_lamps(sharp)
    others, spectrum = blur(sharp - lamps), rfft2(lamps)
    streaks, free = (blur.wide(light) - others).clamp_min(0), blur.wide(clipped.to(light)) > 0.5
    sides = (lamps.shape[-2], lamps.shape[-1])
    for _ in range(STREAK_STEPS):
        expected = irfft2(spectrum * transfer_function(kernel, *sides)[:, None], s=sides)
        counts = blur.seen * ~(free & (expected + others >= 1))
        ratio = counts * (streaks / expected.clamp_min(1e-4)).clamp_max(STEEPEST)
        more, all_of_it = (
            around_origin(rfft2(x) * spectrum.conj(), size, sides)[:, 0] for x in (ratio, counts)
        )
        grown = kernel * (more / all_of_it.clamp_min(1e-6)).clamp(0, STEEPEST)
        if not float(total := grown.sum()) > 0:  # there is no lamp
            return kernel
        kernel = grown / total
    return recentred(kernel)


def of_lamps(sharp: Tensor) -> Tensor:
    """Return how much of sharp light (N, C, H, W) is that of lamps (N, 1, H, W).

    All of it from `LAMP` on, and none of white: if it came suddenly, large lamps would have rims.
    """
    return ((sharp.amax(1, keepdim=True) - 1) / (LAMP - 1)).clamp(0, 1)
