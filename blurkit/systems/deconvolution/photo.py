"""Photo restoration by estimated blur: windows, their kernels, which to believe, and blending.

Real camera shake varies over the photo, so each window has its own kernel, and results are blended
where windows meet (Hirsch et al., "Efficient filter flow for space-variant multiframe blind
deconvolution", CVPR 2010).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import call

import numpy as np
import torch

from blurkit.io.records import central_crop
from blurkit.options import Precision
from blurkit.synthesis.kernels import SMALLEST_SIDE
from blurkit.systems.deconvolution.choice import (
    COARSE,
    PRINT_WEIGHTS,
    KernelSelection,
    largest,
)
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.estimation import two_coloured
from blurkit.systems.deconvolution.estimator import BlurEstimator
from blurkit.systems.deconvolution.fourier import (
    kernel_agreement,
    off_peak,
    padded,
    shape,
)
from blurkit.systems.deconvolution.movement import with_movement
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.nonblind import NonBlindDeconvolution, Watch, unwatched
from blurkit.systems.deconvolution.whole import HELD, SHORT, Finished, WholePhoto
from blurkit.systems.deconvolution.windows import (
    ENOUGH,
    Estimates,
    SelectedKernel,
    SharedKernel,
    Window,
    blurs,
    helped,
    lent,
    neighbours,
    promising,
    rectangles,
    sampled,
    supported,
    unlike,
    with_kernels,
    worth,
)
from blurkit.systems.registry import load_networks
from blurkit.systems.system import load_shipped

RESTED = 0.5
"""Part of a kernel in 3x3 pixels from which the camera may have rested there."""

MOVED = 0.2
"""By how much more than those of windows, which promise at most half, the kernel of a camera that
rested and moved must promise. In 13 photos of one window that were hardly blurred, wrong ones
promised up to 0.14 more, and one of them lost 12.5 dB; where cameras rested, eight of ten promised
at least 0.28 more."""

REST_ROUNDS = (1, 4)
"""How often the kernel of a camera that rested is refined before it is looked at, twice: in most
photos it promises too little after one round, and is given up. In 29 photos the others added 0.26
at most; the six that were used had promised at least 0.04 more than was needed to go on."""

READ = 0.15
"""How much more than the kernel before a coarse one of print must be worth for none in full size to
be looked for."""

LIKE = 0.8
"""Agreement from which a sure kernel of print may be replaced by what refined it: wrong ones, of
sharp bricks, agreed by 0.65 to 0.75, better ones, of pages and coins, by 0.87 to 1."""


class Deconvolution:
    """Finds and undoes the blur of photos (H, W, 3) float32 in [0, 1].

    `network` undoes the blur. It is taken over: moved to the device and put into eval mode.
    """

    smallest = SMALLEST_SIDE

    def __init__(
        self,
        network: Deconvolver,
        options: WindowOptions,
        device: str = "auto",
        precision: Precision = "auto",
        estimator: BlurEstimator | None = None,
    ) -> None:
        self.options = options
        self.undo = NonBlindDeconvolution(network, device, precision)
        self.choice = KernelSelection(self.undo, estimator or shipped_estimator(), options)
        self.whole = WholePhoto(self.choice, options)

    def describe(self) -> str:
        """Return what determines the result in addition to options and weights, for records."""
        precision = str(self.undo.dtype).removeprefix("torch.")
        return f"precision={precision} device={self.undo.device.type}"

    def places(self, image: np.ndarray) -> list[Window]:
        """Return the windows of a photo before anything is found in them: none is believed."""
        if min(image.shape[:2]) < self.smallest:
            return []
        height, width = image.shape[:2]
        return [Window(*p, believed=False) for p in rectangles(height, width, self.options)]

    def windows(
        self,
        image: np.ndarray,
        watch: Watch = unwatched,
        light: int | None = None,
    ) -> list[Window]:
        """Return the windows of a photo, row by row, each with the kernel that was found in it.

        In a photo with a side of less than `smallest` pixels there are none. `light` is the index
        of the gamma if that is known.
        """
        o, places = self.options, self.places(image)
        usual, lights = light or 0, range(len(self.options.gammas)) if light is None else [light]
        if not places:
            return []
        cuts = [central_crop(place.cut(image), o.seen, o.seen) for place in places]
        alone = len(cuts) < ENOUGH or len({cut.shape for cut in cuts}) > 1
        own: list[Estimates] = []
        if len(cuts) == 1:  # threads have time for all lights
            own = self.choice.each(partial(self.choice.starts, cuts[0]), lights)
            watch("estimate blur", 1, 1)
        found = own[:1] or self.whole.starts(cuts, usual, alone, watch)
        near = neighbours(places)
        known: Finished = {}
        shared: Mapping[int, SharedKernel] = {}
        lamps = [] if light or largest(cuts[0]) < FULL else self.whole.lamps(image, [FULL])
        if lamps:
            light, kernel = 0, lamps[0][0]  # the light in which they were found
            shown = kernel, self.choice.expected(image, FULL, kernel)
            found = self.choice.each(partial(self.choice.or_lamps, lamps=shown), cuts, found)
        if not alone and all(self._sharp(found[n]) for n in promising(found, ENOUGH)):
            light = light or 0  # nothing would tell it, nor be shared
        elif not alone:
            shared = self.whole.shared(cuts, found, lights)
            found = self.whole.joined(cuts, found, usual, shared)
        first = not (alone or lamps) and self.whole.seem_long(cuts, found)
        if first and (windows := self.whole.at_once(image, cuts, found, shared, light, watch)):
            return windows
        if light is None:
            found, light, known = self.whole.in_light(cuts, found, shared, watch, own=own)
        if borrowed := lent(found, bool(shared)):
            join = partial(self.choice.joined, kernel=borrowed, light=light)
            found = self.choice.each(join, cuts, found)
        choices = self.choice.chosen(found, near)
        ends = self.whole.finished(cuts, found, light, choices, known, watch)
        ends = self.choice.refined(cuts, ends)
        ends, printed = self._printed(image, cuts, ends, o.gammas[usual], watch)
        chosen = supported(ends, near)
        if not first:  # windows hold too little of a long blur to tell its light
            told = light if lamps or len(lights) == 1 else None
            if windows := self._as_whole(image, cuts, chosen, printed, told, watch):
                return windows
        little = np.median([best.gain for best in chosen]) < o.margin
        chosen = self._rested(image, cuts, chosen)
        trusted = [self.choice.believes(best) and best.trust >= o.trust for best in chosen]
        windows = helped(with_kernels(places, chosen, trusted), o.trust)
        windows = [
            replace(window, believed=window.believed or self.choice.believes(best))
            for window, best in zip(windows, chosen, strict=True)
        ]
        if alone or lamps or printed or little:
            return windows
        return with_movement(image, windows, self.choice, watch)

    def _as_whole(
        self,
        photo: np.ndarray,
        parts: Sequence[np.ndarray],
        chosen: Sequence[SelectedKernel],
        printed: bool,
        light: int | None,
        watch: Watch,
    ) -> list[Window]:
        """Return windows with one long kernel of a photo, [] if that is no better than its parts'.

        None is looked for where those `chosen` there are trusted and not long, or `printed`.
        `light` is the index of the gamma if that is known.
        """
        o, size = self.options, photo.shape[:2]
        trusts, gains = ([getattr(best, what) for best in chosen] for what in ("trust", "gain"))
        promised, single = np.median(gains), len(chosen) == 1  # which has no neighbours to agree
        held = promised < 0 or (promised >= o.margin and not single)
        median = float(np.median([shape(best.kernel).length for best in chosen]))
        sure = held and np.median(trusts) >= o.sure
        read = printed and promised >= o.margin and median <= HELD * FULL
        if not (read or (sure and (printed or median <= SHORT * FULL))):
            best = self.whole.kernel(photo, lambda _: gains, light)
            if best and printed:  # those kernels, too, have explained all of the photo
                kernels = best.kernel.expand(len(parts), -1, -1)
                if self.choice.promised(parts, kernels, best.gamma) < np.mean(gains):
                    return []
        elif promised < o.margin:  # lights may hide what blurs all the rest
            shown = self.whole.shown(photo, o.long_sizes(size))
            best = self.whole.rivalled(photo, [], shown, lambda: gains, True)
        else:
            return []
        if best is None or (sure and shape(best.kernel).length < median):
            return []
        return self.whole.windows(photo, best, watch)

    def _sharp(self, found: Estimates) -> bool:
        """Return whether the kernel that promises most has enough trust, and is no blur."""
        sure = float(found.agreement[found.best]) >= self.options.trust
        return sure and not blurs(found.kernels[found.best], self.options)

    def _printed(
        self,
        photo: np.ndarray,
        parts: Sequence[np.ndarray],
        found: list[SelectedKernel],
        usual: float,
        watch: Watch = unwatched,
    ) -> tuple[list[SelectedKernel], bool]:
        """Return the kernels of a photo's parts, and whether those of all are better than `found`.

        They are those of print, where most parts are blurry and of two colours. That of them which
        promises most tells whether it is print, in the `usual` gamma or in its own; its kernel is
        tried in all others of them.
        """
        o, choice, found = self.options, self.choice, [*found]
        like = [n for n, f in enumerate(found) if blurs(f.kernel, o) and two_coloured(parts[n])]
        if 2 * len(like) <= len(parts) or largest(parts[0]) <= COARSE:
            return found, False
        most = max(like, key=lambda n: found[n].gain)
        part, first = parts[most], found[most]
        lights = sorted({usual, first.gamma})
        works: list[Callable[[], SelectedKernel]]
        works = [partial(choice.toned, part, first.kernel, gamma) for gamma in lights]
        if first.trust < o.sure:
            works += self._inked(photo, part, usual, fine=False)
        tries = choice.each(call, works)
        if first.trust >= o.sure:  # what is unlike it is no better
            tries = [t for t in tries if kernel_agreement(t.kernel, first.kernel) >= LIKE]
        elif max(map(worth, tries)) < worth(first) + READ:
            tries += choice.each(call, self._inked(photo, part, usual, fine=True))
        best = max([first, *tries], key=lambda t: worth(t) - o.doubt * (t.gamma != usual) * t.gain)
        if best is first:
            return found, False
        inputs = [parts[n] for n in like], [found[n] for n in like]
        read = partial(choice.readable, other=best)
        ends = choice.each(read, *inputs, stage="read print", watch=watch)
        for n, end in zip(like, ends, strict=True):
            found[n] = end
        return found, len(like) == len(parts)

    def _inked(
        self, photo: np.ndarray, part: np.ndarray, gamma: float, fine: bool
    ) -> list[Callable[[], SelectedKernel]]:
        """Return what refines, in a part of a photo, at most two kernels that its ink shows.

        They are found in a small copy of the photo or, if `fine`, in its own size.
        """
        choice = self.choice
        factor = 1.0 if fine else COARSE / largest(part)
        (inked,) = choice.each(partial(choice.inked, photo, gamma), [factor])
        start = partial(choice.of_fine_print if fine else choice.of_print, inked, part, gamma)
        found = unlike(choice.each(start, PRINT_WEIGHTS), self.options.voice)
        if fine:
            return [partial(choice.toned, part, own.kernels[0], gamma) for own in found]
        return [partial(choice.printed, part, gamma, own) for own in found]

    def _rested(
        self, photo: np.ndarray, parts: Sequence[np.ndarray], found: list[SelectedKernel]
    ) -> list[SelectedKernel]:
        """Return the kernels of a photo's parts, or in all of them that of a camera that rested.

        Where kernels are hardly more than a point, a faint path may be missing. One that the edges
        of the whole photo show has to promise more in every part.
        """
        choice = self.choice
        paths = off_peak(torch.stack([best.kernel for best in found])).sum((1, 2))
        if np.median(paths.numpy()) > 1 - RESTED:
            return found
        side, gamma, some = found[0].kernel.shape[-1], found[0].gamma, sampled(parts)
        own = [best.gain for best in found]
        before = float(np.mean(own))
        more = max(MOVED, before)
        kernel = padded(torch.ones(1, 1), side)
        for rounds in REST_ROUNDS:
            (kernel,) = choice.each(partial(choice.rested, photo, gamma, rounds), [kernel])
            promised = partial(choice.gain, kernel=kernel, gamma=gamma)
            if np.mean(choice.each(promised, some)) < max(MOVED, before + more / 2):
                return found
        gains = choice.each(promised, parts)
        if np.mean(gains) < before + more or np.less(gains, own).any():
            return found
        (sure,) = choice.each(partial(choice.expected, photo, side), [kernel[None]])
        return [SelectedKernel(kernel, gamma, float(sure), gain) for gain in gains]


def shipped_estimator() -> BlurEstimator:
    """Return the blur estimator that comes with blurkit."""
    estimator = load_networks(load_shipped("deconvolution"))["estimator"]
    assert isinstance(estimator, BlurEstimator)
    return estimator


def in_colour(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) with three equal channels if it has one."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
