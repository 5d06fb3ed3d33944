"""One movement of the camera: what it makes of each part of a photo, found from all of them.

A camera that also turns blurs each part in another way. The movement is how long the camera had
each shift at each turn about the middle of the photo (Whyte et al., "Non-uniform deblurring for
shaken images", IJCV 2012).
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from blurkit.systems.deconvolution.choice import COARSE, KernelSelection
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.estimator import dots
from blurkit.systems.deconvolution.fourier import (
    around_origin,
    fast_length,
    irfft2,
    kernel_agreement,
    kernels_at,
    recentred,
    rfft2,
    transfer_function,
)
from blurkit.systems.deconvolution.nonblind import Watch, unwatched
from blurkit.systems.deconvolution.windows import (
    ALIKE,
    SelectedKernel,
    Window,
    blurs,
    grouped,
    middles_apart,
    rectangles,
    shrunk,
    with_kernels,
)

COMMON = (7, 7, 7, 11)
"""Sides of the kernel that all parts of a photo share at first, turn by turn."""

APART = (11, 11, 11, 15, 15, 15, 15, 21, 21, 21, 29)
"""Sides of the kernels that each has then; the last turn is at full size."""

PART, PARTS, TOLD = 256, 12, 0.01
"""Side of the windows whose kernels one movement of the camera explains, pixels; how many show it
at most; and how much more they have to promise. With 12 of 24, 24 photos gained 4.6 dB in 9 s of
one processor, with all of them 4.1 in 12, and with 8, 4.3 in 7."""

HOPE = 0.6
"""Part of what the kernels of windows promise that those of a movement have to, while coarse. Where
nothing came of it, that was a quarter at most."""

TURN, TURN_STEP = 24, 2
"""By how many pixels at most a camera that turns moves a corner of a photo, to both sides, and in
what steps, where kernels have the side `FULL`."""

FITTED = 20
"""How often the movement of a camera is improved, so that it explains kernels."""

FAINTEST = 0.03
"""Part of a kernel's largest value below which the others become 0, as in `estimator.py`."""


def with_movement(
    photo: np.ndarray, windows: list[Window], choice: KernelSelection, watch: Watch = unwatched
) -> list[Window]:
    """Return the windows of a photo, or smaller ones if one movement of the camera is better.

    It explains kernels that are unlike each other, of which little is sure. The parts of the photo
    in which they promise most show it. There, its kernels have to promise more, each less what its
    trust lacks.
    """
    o, gamma = choice.o, windows[0].gamma
    kernels = torch.stack([window.kernel for window in windows])
    trust = float(np.mean([window.trust for window in windows]))
    if trust >= o.sure or kernel_agreement(kernels[:, None], kernels).mean() >= ALIKE:
        return windows
    parts, places = _parts(photo, o)
    cuts = [part.cut(photo) for part in parts]
    copies = [shrunk(cut, COARSE / FULL) for cut in cuts]
    near = torch.stack([min(windows, key=partial(middles_apart, p)).kernel for p in parts])
    known = choice.each(partial(choice.gain, gamma=gamma), copies, [*kernels_at(near, COARSE)])
    order = np.argsort(-np.array(known))
    some, rest = np.sort(order[:PARTS]), np.sort(order[PARTS:])
    told, small = ([each[n] for n in some] for each in (cuts, copies))
    hope = HOPE * float(np.clip([known[n] for n in some], 0, None).mean())
    made = _moved(choice, told, small, places[some], places, gamma, hope, watch)
    if made is None:
        return windows
    found, agreement = _turned(choice, told, gamma, made[some], FULL)
    watch("find movement", len(APART), len(APART))
    before, after = (choice.promised(told, each, gamma) for each in (near[some], found))
    best = SelectedKernel(found[0], gamma, float(agreement.mean()), after)
    worth, least = after - choice.lacking(best.trust), before - choice.lacking(trust) + TOLD
    if best.trust < o.trust or worth < least or not choice.believes(best):
        return windows
    ends = dict(zip(some, found, strict=True))
    if len(rest):
        more, _ = _turned(choice, [cuts[n] for n in rest], gamma, made[rest], FULL)
        ends |= dict(zip(rest, more, strict=True))
    chosen = [replace(best, kernel=ends[n]) for n in range(len(parts))]
    return with_kernels(parts, chosen, [blurs(best.kernel, o) for best in chosen])


def _parts(photo: np.ndarray, options: WindowOptions) -> tuple[list[Window], np.ndarray]:
    """Return the parts of a photo, each with one blur, and their places as `of_one_movement`."""
    height, width = photo.shape[:2]
    parts = [Window(*p) for p in rectangles(height, width, replace(options, window=PART))]
    middles = np.array([complex(*part.centre[::-1]) for part in parts])
    return parts, (2 * middles - complex(width, height)) / math.hypot(height, width)


def _moved(
    choice: KernelSelection,
    parts: Sequence[np.ndarray],
    copies: Sequence[np.ndarray],
    places: np.ndarray,
    everywhere: np.ndarray,
    gamma: float,
    hope: float,
    watch: Watch,
) -> Tensor | None:
    """Return the kernels that one movement of the camera, which some parts show, makes everywhere.

    After each turn of the estimator, the parts go on from the kernels that the movement makes in
    their `places`. None is the result if coarse ones promise less than `hope` for small `copies`.
    """
    turn = partial(choice.turned, gamma=gamma, starts=dots(1), sides=COMMON, size=FULL)
    ((kernel, _),) = choice.each(turn, [np.stack(parts)])
    kernels, then = kernel.expand(len(parts), -1, -1), [places] * (len(APART) - 1) + [everywhere]
    for number, (side, others) in enumerate(zip(APART, then, strict=True)):
        found, sure = _turned(choice, parts, gamma, kernels, side)
        watch("find movement", number, len(APART))
        if number == APART.index(COARSE) and choice.promised(copies, found, gamma) < hope:
            return None
        (kernels,) = choice.each(of_one_movement, [found], [sure], [places], [others])
    return kernels


def _turned(
    choice: KernelSelection, parts: Sequence[np.ndarray], gamma: float, kernels: Tensor, side: int
) -> tuple[Tensor, Tensor]:
    """Return the kernels (N, side, side) of a photo's parts after a turn, and their trust."""
    alike = grouped([*zip(parts, kernels, strict=True)])
    pairs = [[*zip(*each, strict=True)] for each in alike]
    turn = partial(choice.turned, gamma=gamma, sides=[side], size=FULL)
    made = choice.each(lambda x: turn(np.stack(x[0]), starts=torch.stack(x[1])), pairs)
    return torch.cat([k for k, _ in made]), torch.cat([sure for _, sure in made])


@torch.inference_mode()
def of_one_movement(
    kernels: Tensor, weights: Tensor, places: np.ndarray, others: np.ndarray
) -> Tensor:
    """Return the kernels (M, s, s) that one movement of the camera makes in `others` of a photo.

    It is what explains best the `kernels` (N, s, s) found in `places` (N,), which count by their
    `weights` (N,): places are complex, right and down from the middle, whose distance from a corner
    is 1. The movement is found by the steps of Richardson and Lucy. Kernels are seen under a
    Gaussian of one pixel, where the side is `FULL`.
    """
    size = kernels.shape[-1]
    side = fast_length(3 * size // 2 + 14)
    down, right = torch.fft.fftfreq(side)[:, None], torch.fft.rfftfreq(side)
    turns = 1j * size / FULL * torch.arange(-TURN, TURN + 1, TURN_STEP)[:, None]

    def shifts(at: np.ndarray) -> Tensor:
        by = (turns * torch.from_numpy(at))[..., None, None]
        phase = -2 * math.pi * (down * by.imag + right * by.real)
        return torch.polar(torch.ones_like(phase), phase).to(torch.complex64)

    deviation = max(0.5, size / FULL)
    soft = torch.exp(-2 * (math.pi * deviation) ** 2 * (down.square() + right.square()))
    there, parts = soft * shifts(places), (weights / weights.sum())[:, None, None]
    spectra = soft * transfer_function(kernels, side, side)
    seen = irfft2(spectra, s=(side, side)).clamp_min(0)
    least = 1e-3 * seen.max()

    def explained(values: Tensor) -> Tensor:
        return irfft2((rfft2(values)[:, None] * there).sum(0), s=(side, side)).clamp_min(0)

    def back(values: Tensor) -> Tensor:
        spectrum = (rfft2(parts * values) * there.conj()).sum(1)
        return irfft2(spectrum, s=(side, side)).clamp_min(0)

    movement = back(seen)
    for _ in range(FITTED):
        movement = movement * back((seen + least) / (explained(movement) + least))
        movement = movement / movement.sum() + 1e-12
    spectrum = (rfft2(movement)[:, None] * shifts(others)).sum(0)
    found = around_origin(spectrum, size, (side, side)).clamp_min(0)
    found = found * (found >= FAINTEST * found.amax((-2, -1), keepdim=True))
    return recentred(found / found.sum((-2, -1), keepdim=True))
