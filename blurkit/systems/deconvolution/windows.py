"""Windows of a photo: where they are, which blur was found in them, and what neighbours know."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.engine.engine import Canvas, starts
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.estimation import blurry_print
from blurkit.systems.deconvolution.fourier import (
    halfway,
    kernel_agreement,
    kernels_at,
    padded,
    registered,
    shape,
)
from blurkit.systems.deconvolution.lights import CLIPPED

STRAIGHT = 0.83
"""The least straightness of paths whose middle in time can be told from a kernel."""

SURER = 0.08
"""By how much more trust two neighbours replace a believed kernel by theirs, if they agree."""

ENOUGH = 4
"""Number of windows that share a kernel; fewer tell little more than one."""

ALIKE = 0.9
"""Agreement below which kernels count as different."""

SAME = 0.87
"""Mean agreement of the kernels of a photo's windows from which they are refined, and placed, as
those of one blur: 14 photos of turning cameras, which lose by it, had up to 0.85, nine under one
blur at least 0.86."""

TOGETHER = 4
"""The largest number of windows whose coarse kernels are found together, in an even number of
groups, so that two processors end at the same time. More are hardly faster."""

Part = TypeVar("Part")


@dataclass(frozen=True)
class Window:
    """A rectangle of a photo and the blur that was found there.

    `kernel` is (size, size), and `gamma` the exponent from pixel values to the light that it blurs;
    `trust` is the agreement of its estimates, from 0 to 1. `believed` is true if this is enough, or
    if the kernel comes from neighbours for which it is, and the kernel is a blur at all. With
    `centred` the picture stays in its place: the origin of the kernel is its centroid.
    """

    top: int
    left: int
    height: int
    width: int
    kernel: Tensor = field(default_factory=lambda: torch.ones(1, 1))
    gamma: float = 2.2
    trust: float = 1.0
    believed: bool = True
    centred: bool = True

    @property
    def centre(self) -> tuple[float, float]:
        """The row and column of the window's middle."""
        return self.top + self.height / 2, self.left + self.width / 2

    def cut(self, image: np.ndarray) -> np.ndarray:
        """Return the window's part of an image (H, W, C)."""
        return image[self.top : self.top + self.height, self.left : self.left + self.width]


@dataclass(frozen=True)
class SelectedKernel:
    """A kernel (side, side), and the trust in it, 0 to 1.

    `gamma` is the exponent from pixel values to the light that it blurs, `gain` the mean
    `improvement` that it promises.
    """

    kernel: Tensor
    gamma: float
    trust: float
    gain: float


@dataclass
class Estimates:
    """Kernels (N, side, side) of a window, on the CPU, and what is expected of each.

    `agreement` (N,) is that with the true kernel; `better` (N,) is the mean `improvement`.
    """

    kernels: Tensor
    agreement: Tensor
    better: np.ndarray

    def __getitem__(self, part: slice) -> Estimates:
        """Return some of the kernels."""
        return Estimates(self.kernels[part], self.agreement[part], self.better[part])

    @property
    def best(self) -> int:
        """The index of the kernel that promises most."""
        return int(self.better.argmax())


SharedKernel = tuple[Tensor, Tensor]
"""A coarse kernel (1, side, side) that windows share, and its expected agreement (1,)."""


def batch(image: np.ndarray, window: Window) -> Tensor:
    """Return the part of an image (H, W, 3) in a window, as (1, 3, h, w)."""
    return torch.from_numpy(window.cut(image)[None].copy()).permute(0, 3, 1, 2)


def rectangles(
    height: int, width: int, options: WindowOptions
) -> Iterator[tuple[int, int, int, int]]:
    """Yield (top, left, height, width) of windows of one size that cover a photo."""
    size = min(options.window, height), min(options.window, width)
    for top in starts(height, size[0], min(options.overlap, size[0] // 2)):
        for left in starts(width, size[1], min(options.overlap, size[1] // 2)):
            yield top, left, *size


def copy_scale(height: int, width: int, options: WindowOptions) -> float:
    """Return by what factor a photo is shrunk to find its blur and to undo it."""
    return min(1.0, (options.megapixels * 1e6 / (height * width)) ** 0.5)


def around(length: float, options: WindowOptions) -> WindowOptions:
    """Return options whose windows and overlap hold enough of the photo around a long blur."""
    side, overlap = round(6 * length), round(length)
    return replace(options, window=max(options.window, side), overlap=max(options.overlap, overlap))


def neighbours(windows: Sequence[Window]) -> list[list[int]]:
    """Return, for every window, the indices of those that share a side or a corner with it."""
    return [
        [
            number
            for number, other in enumerate(windows)
            if other is not window
            and abs(other.top - window.top) <= window.height
            and abs(other.left - window.left) <= window.width
        ]
        for window in windows
    ]


def grouped(every: Sequence[Part]) -> list[Sequence[Part]]:
    """Return what belongs to a photo's windows in an even number of groups."""
    count = 2 * math.ceil(len(every) / (2 * TOGETHER))
    step = math.ceil(len(every) / count)
    return [every[n : n + step] for n in range(0, len(every), step)]


def middles_apart(window: Window, other: Window) -> float:
    """Return the distance between the middles of two windows, pixels."""
    return math.dist(window.centre, other.centre)


def sampled(every: Sequence[Part]) -> Sequence[Part]:
    """Return some of what belongs to a photo's windows, `ENOUGH` at most, from all over it."""
    return every[:: -(-len(every) // ENOUGH)]


def blurs(kernel: Tensor, options: WindowOptions) -> bool:
    """Return whether a kernel (h, w) is a blur: a sharp picture's is nearly all in one pixel."""
    return float(kernel.max()) < options.sharpest


def with_kernels(
    places: Sequence[Window], chosen: Sequence[SelectedKernel], believed: Sequence[bool]
) -> list[Window]:
    """Return windows with the kernels that were chosen there, and whether these are believed."""
    return [
        replace(place, kernel=best.kernel, gamma=best.gamma, trust=best.trust, believed=sure)
        for place, best, sure in zip(places, chosen, believed, strict=True)
    ]


def supported(
    found: Sequence[SelectedKernel], near: Sequence[Sequence[int]]
) -> list[SelectedKernel]:
    """Return the kernels of a photo's windows with trust from their neighbours; `near` lists them.

    It is the mean of three: both parts of that in `finished`, and the agreement with neighbours.
    """
    result = []
    for own, others in zip(found, near, strict=True):
        trust = own.trust
        if others:
            kernels = torch.stack([found[other].kernel for other in others])
            trust = (2 * trust + float(kernel_agreement(own.kernel, kernels).mean())) / 3
        result.append(replace(own, trust=trust))
    return result


def helped(windows: list[Window], enough: float) -> list[Window]:
    """Return the windows; doubtful ones get their neighbours' kernel if these agree.

    Neighbours share a side or a corner. At least two of them must be believed, and surer by `SURER`
    than a window that is believed itself, and agree.
    """
    result = []
    for window, others in zip(windows, neighbours(windows), strict=True):
        least = window.trust + SURER if window.believed else 0
        near = [w for w in (windows[other] for other in others) if w.believed and w.trust >= least]
        if len(near) > 1:
            kernels = torch.stack([other.kernel for other in near])
            agreement = kernel_agreement(kernels[:, None], kernels)
            most = int(agreement.mean(1).argmax())
            if agreement[most].median() >= enough:
                best = near[most]
                window = replace(
                    window, kernel=best.kernel, gamma=best.gamma, trust=best.trust, believed=True
                )
        result.append(window)
    return result


def shrunk(image: np.ndarray, factor: float) -> np.ndarray:
    """Return an image (H, W, C) resized by a factor of at most 1, antialiased."""
    if factor >= 1:
        return image
    whole = torch.from_numpy(image).permute(2, 0, 1)[None]
    sides = [max(1, round(side * factor)) for side in image.shape[:2]]
    small = F.interpolate(whole, sides, mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).contiguous().numpy()


def exposed(photo: np.ndarray, factor: float) -> np.ndarray:
    """Return a photo `shrunk`, in which what was clipped for the most part is white.

    Means with what is beside it would hide that it was, in thin streaks of lights above all.
    """
    copy = shrunk(photo, factor)
    if factor >= 1 or not (clipped := photo >= CLIPPED).any():
        return copy
    return np.where(shrunk(clipped.astype(np.float32), factor) > 0.5, np.float32(1), copy)


def scaled(windows: Sequence[Window], image: np.ndarray, other: np.ndarray) -> list[Window]:
    """Return the windows of an image (H, W, C), with their kernels, in another size of it."""
    if image.shape == other.shape:
        return [*windows]
    rows, columns = (new / old for new, old in zip(other.shape[:2], image.shape[:2], strict=True))
    result = []
    for window in windows:
        height, width = round(window.height * rows), round(window.width * columns)
        top = round((window.top + window.height) * rows) - height  # the last one ends at the border
        left = round((window.left + window.width) * columns) - width
        side = 2 * round((window.kernel.shape[-1] * rows - 1) / 2) + 1
        kernel = kernels_at(window.kernel[None], side)[0]
        place = {"top": top, "left": left, "height": height, "width": width}
        result.append(replace(window, kernel=kernel, **place))
    return result


def known(
    image: np.ndarray, kernel: np.ndarray, options: WindowOptions, gamma: float = 2.2
) -> list[Window]:
    """Return the windows of a photo that was blurred by one kernel (h, w) all over."""
    size = max(kernel.shape) | 1
    blur = padded(torch.from_numpy(kernel / kernel.sum()).float(), size)
    places = rectangles(image.shape[0], image.shape[1], around(shape(blur).length, options))
    return [Window(*place, blur, gamma, centred=False) for place in places]


def narrowed(windows: Sequence[Window], overlap: int) -> list[Window]:
    """Return windows that overlap those beside them no more than needed where both have one kernel.

    That is `overlap` pixels, or the side of the kernel if that is more.
    """

    def narrow(window: Window) -> Window:
        kernel, gamma = window.kernel, window.gamma
        like = [o for o in windows if o.gamma == gamma and torch.equal(o.kernel, kernel)]
        needed = max(overlap, kernel.shape[-1])
        beside = [other.left for other in like if other.top == window.top]
        left, right = part_of_side(window.left, window.width, beside, needed)
        above = [other.top for other in like if other.left == window.left]
        top, bottom = part_of_side(window.top, window.height, above, needed)
        return replace(window, top=top, left=left, height=bottom - top, width=right - left)

    return [narrow(window) for window in windows]


def part_of_side(start: int, side: int, others: Sequence[int], overlap: int) -> tuple[int, int]:
    """Return where a window's part begins and ends that overlaps others by so many pixels."""
    first, last = start, start + side
    for other in others:
        spare = max(0, side - abs(other - start) - overlap)
        if other < start:
            first = max(first, start + spare - spare // 2)
        elif other > start:
            last = min(last, start + side - spare // 2)
    return first, last


def spread(
    values: Sequence[float], windows: Sequence[Window], image: np.ndarray, overlap: int
) -> np.ndarray:
    """Return the values of an image's windows, blended like these, (H, W, 1) float32."""
    canvas = Canvas(image.shape[0], image.shape[1], 1, overlap)
    for value, window in zip(values, windows, strict=True):
        own = np.full((window.height, window.width, 1), value, np.float32)
        canvas.add(window.top, window.left, own)
    return canvas.image()


def typical(windows: list[Window]) -> Window | None:
    """Return the believed window with the most trusted kernel, or None if there is none."""
    believed = [window for window in windows if window.believed]
    return max(believed, key=lambda window: window.trust, default=None)


def displacements(windows: Sequence[Window]) -> Tensor:
    """Return how far down and right of its kernel's centroid each window's picture is, (N, 2).

    Centroids differ where kernels of one blur lack or add faint parts; the kernels are placed where
    they correlate most with the mean of all. Elsewhere, and of what is not believed, it is 0.
    """
    result = torch.zeros(len(windows), 2)
    told = [n for n, window in enumerate(windows) if window.believed and window.centred]
    if not told:
        return result
    kernels = torch.stack([windows[n].kernel for n in told]).cpu()
    alike = kernel_agreement(kernels[:, None], kernels)
    if alike.mean() >= SAME:
        result[told] = registered(kernels, int(alike.sum(1).argmax()))
    return result


def exposure_middle(windows: Sequence[Window]) -> tuple[float, float]:
    """Return where a photo's picture is in the middle of the exposure: (down, right), in pixels.

    That is relative to the centroids of its estimated kernels, the median of those that are
    believed. What moved to and fro does not tell, nor does a short path: then it is (0, 0).
    """
    places = zip(windows, displacements(windows).numpy(), strict=True)
    told = [(w.kernel, place) for w, place in places if w.believed and w.centred]
    if not told or np.median([shape(kernel).straightness for kernel, _ in told]) < STRAIGHT:
        return 0.0, 0.0
    down, right = np.median([halfway(kernel) - place for kernel, place in told], 0)
    return float(down), float(right)


def unchanged(
    image: np.ndarray,
    restored: np.ndarray,
    windows: Sequence[Window],
    options: WindowOptions,
    factors: Sequence[float] = (),
) -> list[bool]:
    """Return in which windows a network has hardly changed an image (H, W, C).

    A network that finds nothing to restore still changes a sharp photo slightly. Where lights are
    clipped, that is no sign: it takes their streaks for lights. Nor is it in `blurry_print`.
    `factors` change the bound.
    """

    def lit(own: np.ndarray) -> bool:
        pixels = min(own.shape[0] * own.shape[1], options.window**2)  # large windows have no more
        return float((own.max(2) >= CLIPPED).sum()) > options.clipped * pixels

    same = []
    for window, factor in zip(windows, factors or [1.0] * len(windows), strict=True):
        own = window.cut(image)
        change = float(np.square(window.cut(restored) - own).mean() ** 0.5)
        same.append(change * 255 < factor * options.least_change and not lit(own))
    return [False] * len(same) if any(same) and blurry_print(image) else same


def still_blurred(windows: Sequence[Window], same: Sequence[bool]) -> list[bool]:
    """Return which windows are to stay the `same` after all.

    One does not whose kernel is believed and that of most of those that a network changes: there,
    little shows the blur, which is a camera's, not that of what is out of focus.
    """
    changed = [w for w, stays in zip(windows, same, strict=True) if w.believed and not stays]
    if not changed:
        return [*same]
    kernels = torch.stack([window.kernel for window in changed])

    def alike(window: Window) -> bool:
        return bool(kernel_agreement(window.kernel, kernels).median() >= ALIKE)

    pairs = zip(windows, same, strict=True)
    return [stays and not (window.believed and alike(window)) for window, stays in pairs]


def spared(
    image: np.ndarray,
    restored: np.ndarray,
    windows: Sequence[Window],
    same: Sequence[bool],
    options: WindowOptions,
) -> np.ndarray:
    """Return `restored` (H, W, C), with the image itself in the windows that are to stay `same`."""
    if not any(same):
        return restored
    if all(same):
        return image
    canvas = Canvas(image.shape[0], image.shape[1], image.shape[2], options.overlap)
    for window, keep in zip(windows, same, strict=True):
        canvas.add(window.top, window.left, window.cut(image if keep else restored))
    return canvas.image()


def both(first: Estimates, second: Estimates) -> Estimates:
    """Return the estimates of two."""
    return Estimates(
        torch.cat([first.kernels, second.kernels]),
        torch.cat([first.agreement, second.agreement]),
        np.concatenate([first.better, second.better]),
    )


def worth(found: SelectedKernel) -> float:
    """Return what counts in favour of a kernel of print: its promise, and half the trust in it."""
    return found.gain + found.trust / 2


def promising(found: Sequence[Estimates], count: int) -> list[int]:
    """Return the numbers of the windows whose estimates promise most, `count` at most."""
    return sorted(range(len(found)), key=lambda n: -found[n].better.max())[:count]


def unlike(found: Sequence[Estimates], voice: float) -> list[Estimates]:
    """Return the best of single kernels and, of those unlike it, the best one, if any.

    Each promises something, and has a `voice` for the others: wrong ones have little in common.
    """
    kernels = torch.cat([each.kernels for each in found])
    alike = kernel_agreement(kernels[:, None], kernels)
    scores = np.concatenate([each.better for each in found]) + voice * alike.mean(1).numpy()
    best, *others = (-scores).argsort()
    different = (found[n] for n in others if alike[best, n] < ALIKE)
    return [found[best], *islice(different, 1)]


def lent(found: Sequence[Estimates], sharing: bool) -> SharedKernel | None:
    """Return the kernel that promises most in any window, for the others to try, if others can.

    With `sharing`, the last one of each is what windows share, which they have tried.
    """
    own = found[promising(found, 1)[0]]
    if len(found) == 1 or (sharing and own.best == len(own.better) - 1):
        return None
    return own.kernels[own.best, None], own.agreement[own.best, None]
