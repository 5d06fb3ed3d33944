"""Photo restoration by estimated blur: windows, their kernels, which to believe, and blending.

Real camera shake varies over the photo, so each window has its own kernel, and results are blended
where windows meet (Hirsch et al., "Efficient filter flow for space-variant multiframe blind
deconvolution", CVPR 2010).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, product

import numpy as np
import torch
from torch import Tensor

from blurkit.io.records import central_crop
from blurkit.options import Precision
from blurkit.synthesis.kernels import SMALLEST_SIDE
from blurkit.systems.deconvolution.choice import (
    COARSE,
    LAMP_EDGES,
    LONG_SCALES,
    PRINT_WEIGHTS,
    SAMPLED,
    SHARED,
    KernelSelection,
    copied,
    largest,
)
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.estimation import two_coloured
from blurkit.systems.deconvolution.estimator import BlurEstimator, dots
from blurkit.systems.deconvolution.fourier import (
    kernel_agreement,
    off_peak,
    padded,
    shape,
)
from blurkit.systems.deconvolution.lights import BRIGHT, lit
from blurkit.systems.deconvolution.movement import with_movement
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.nonblind import NonBlindDeconvolution, Watch, unwatched
from blurkit.systems.deconvolution.windows import (
    ENOUGH,
    Estimates,
    SelectedKernel,
    SharedKernel,
    Window,
    around,
    blurs,
    grouped,
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

NEAR = 0.15
"""By how much less than the best one, which cuts the blur, a kernel of a larger size may promise in
its small copy to be enlarged as well."""

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

LAMP_GLANCES = ((15, 3.2), (COARSE, BRIGHT))
"""Sides of the coarse kernels that lights show, and how bright the best one must make them for a
photo to have lamps. In 16 photos with lamps, they had at least 3.5 at the first."""

LAMPS_REFINED = 4
"""How many of the coarse kernels that lights show are refined."""

SHINING = 7.0
"""How bright kernels that lights show must make them, as `BRIGHT`, once refined: a wrong one, of
the white in the corner of a face, made it 6.3, that of a real photo 7.4, those of 15 drawn ones 8
to 30."""

LIKE = 0.8
"""Agreement from which a sure kernel of print may be replaced by what refined it: wrong ones, of
sharp bricks, agreed by 0.65 to 0.75, better ones, of pages and coins, by 0.87 to 1."""

HELD = 0.7
"""Length of a blur, part of the side of a window's kernel, up to which that holds it."""

SHORT = 0.5
"""The same, up to which windows that are sure of it are right: no longer one is looked for. What
replaces theirs has to be at least as long."""

FREEDOM = 0.8
"""Part of what the kernels of windows promise that one kernel of the whole photo has to promise:
each of them explains only its own part."""

CHANCE = 0.6
"""Part of what the kernels of windows promise without which a long one has no chance: in its small
copy it promises less than in the photo."""

LARGEST_L0 = 101
"""Side of the largest L0 kernel that is looked for in the whole photo, pixels."""

UNLIKELY = 0.08
"""How much more an L0 kernel must promise than those of the estimator, which are wrong less often.
"""

LEAST_LONG, CAREFUL = 0.1, 0.5
"""What a long kernel must promise in the windows that count, and how much of the `caution` is added
where its trust is lacking. Of a soft sky, wrong ones promised 0.14 with a trust of 0.77; right ones
0.15 with 0.89 and 0.28 with 0.73. If no lights show it, that much more than those of windows: of
walls of bricks, which repeat, wrong ones promised 0.05 more with trusts of 0.70 and 0.74, right
ones, of other photos with less than 0.8, 0.24 and 0.31 more."""

LENIENT = 0.25
"""How much less a long kernel must promise: it is seen smaller, and by itself."""

Finished = dict[tuple[int, int], SelectedKernel]
"""The kernels of parts in full size, by the number of the part and of its estimate."""


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
        found = own[:1] or self._starts(cuts, usual, alone, watch)
        near = neighbours(places)
        known: Finished = {}
        shared: Mapping[int, SharedKernel] = {}
        lamps = [] if light or largest(cuts[0]) < FULL else self._lamps(image, [FULL])
        if lamps:
            light, kernel = 0, lamps[0][0]  # the light in which they were found
            shown = kernel, self.choice.expected(image, FULL, kernel)
            found = self.choice.each(partial(self.choice.or_lamps, lamps=shown), cuts, found)
        if not alone and all(self._sharp(found[n]) for n in promising(found, ENOUGH)):
            light = light or 0  # nothing would tell it, nor be shared
        elif not alone:
            shared = self._shared(cuts, found, lights)
            join = partial(self.choice.joined, kernel=shared[usual], light=usual, bonus=SHARED)
            found = self.choice.each(join, cuts, found)
        if light is None:
            found, light, known = self._in_light(cuts, found, shared, watch, own=own)
        if borrowed := lent(found, bool(shared)):
            join = partial(self.choice.joined, kernel=borrowed, light=light)
            found = self.choice.each(join, cuts, found)
        choices = self.choice.chosen(found, near)
        ends = self._finished(cuts, found, light, choices, known, watch)
        ends = self.choice.refined(cuts, ends)
        ends, printed = self._printed(image, cuts, ends, o.gammas[usual], watch)
        chosen = supported(ends, near)
        trusts, gains = ([getattr(best, what) for best in chosen] for what in ("trust", "gain"))
        promised, single = np.median(gains), len(chosen) == 1  # which has no neighbours to agree
        held = promised < 0 or (promised >= o.margin and not single)
        median = float(np.median([shape(best.kernel).length for best in chosen]))
        sure = held and np.median(trusts) >= o.sure
        settled = sure and (printed or median <= SHORT * FULL)
        if not (settled or (printed and promised >= o.margin and median <= HELD * FULL)):
            again = len(lights) > 1 and not lamps  # windows hold too little of a long blur to tell
            best = self._whole(image, gains, usual if again else light, again)
            if best and printed:  # those kernels, too, have explained all of the photo
                kernels = best.kernel.expand(len(cuts), -1, -1)
                if self.choice.promised(cuts, kernels, best.gamma) < np.mean(gains):
                    best = None
        elif promised < o.margin:  # lights may hide what blurs all the rest
            best = self._rivalled(image, [], o.long_sizes(image.shape[:2]), gains, True)
        else:
            best = None
        if best and ((length := shape(best.kernel).length) >= median or not sure):
            windows = self._long(image, best, around(length, o), watch)
            # refined, a wrong one promises more if it is cut short
            if np.median([shape(window.kernel).length for window in windows]) > SHORT * FULL:
                return windows
        chosen = self._rested(image, cuts, chosen)
        trusted = [self.choice.believes(best) and best.trust >= o.trust for best in chosen]
        windows = helped(with_kernels(places, chosen, trusted), o.trust)
        windows = [
            replace(window, believed=window.believed or self.choice.believes(best))
            for window, best in zip(windows, chosen, strict=True)
        ]
        if alone or lamps or printed or promised < o.margin:
            return windows
        return with_movement(image, windows, self.choice, watch)

    def _starts(
        self, parts: Sequence[np.ndarray], light: int, alone: bool, watch: Watch
    ) -> list[Estimates]:
        """Return what `starts` finds in a photo's parts, which have one size if not `alone`."""
        if alone:
            starts = partial(self.choice.starts, light=light)
            return self.choice.each(starts, parts, stage="estimate blur", watch=watch)
        found = partial(self.choice.from_dots, light=light)
        every = self.choice.each(found, grouped(parts), stage="estimate blur", watch=watch)
        return [*chain(*every)]

    def _lamps(
        self, photo: np.ndarray, sizes: Sequence[int]
    ) -> list[tuple[Tensor, int, float, float]]:
        """Return the coarse kernels that a photo's lights show, if it has lamps.

        Those that make them brightest come first, with the size in the photo, one of `sizes`, and
        the pair of `LAMP_EDGES`.
        """
        if not sizes or not lit(photo):
            return []
        every = [(size, *edge) for size, edge in product(sizes, LAMP_EDGES)]
        starts = [dots(1)] * len(every)
        for side, least in LAMP_GLANCES:
            shown = partial(self.choice.by_lights, photo, side)
            found = self.choice.each(shown, starts, *zip(*every, strict=True))
            if max(bright for _, bright in found) < least:
                return []
            starts = [kernel for kernel, _ in found]
        order = sorted(range(len(every)), key=lambda n: -found[n][1])
        return [(starts[n], *every[n]) for n in order]

    def _sharp(self, found: Estimates) -> bool:
        """Return whether the kernel that promises most has enough trust, and is no blur."""
        sure = float(found.agreement[found.best]) >= self.options.trust
        return sure and not blurs(found.kernels[found.best], self.options)

    def _in_light(
        self,
        parts: Sequence[np.ndarray],
        found: list[Estimates],
        shared: Mapping[int, SharedKernel],
        watch: Watch = unwatched,
        sampled: int = SAMPLED,
        own: Sequence[Estimates] = (),
    ) -> tuple[list[Estimates], int, Finished]:
        """Return the estimates of a photo's parts in its light, and the index of that gamma.

        `found` are those for the usual gamma; the `sampled` ones that promise most determine it,
        two of them alone where they agree. If there is but one part, its `own` may be known for
        every gamma. What was finished is the third result.
        """
        most, lights = promising(found, sampled), range(len(self.options.gammas))
        work = partial(self.choice.in_light, shared=shared)
        tried: dict[tuple[int, int], tuple[Estimates, SelectedKernel]] = {}
        promised: dict[int, list[float]] = {}
        for some in (most[:2], most[2:]):
            each = [*product(some, lights)]
            usual = [None if light else found[n] for n, light in each]
            inputs = [parts[n] for n, _ in each], own or usual, [light for _, light in each]
            tried |= zip(each, self.choice.each(work, *inputs), strict=True)
            promised |= {n: [tried[n, light][1].gain for light in lights] for n in some}
            agreed = len({self.choice.light([promised[n]]) for n in some}) == 1
            watch("find light", len(most if agreed else promised), len(most))
            if agreed:
                break
        light = self.choice.light([*promised.values()])
        known = {n: tried[n, light] for n in promised}
        if light:
            left = [n for n in range(len(parts)) if n not in known]
            rest = [parts[n] for n in left]
            again = self._starts(rest, light, not shared, watch)
            if shared:
                join = partial(self.choice.joined, kernel=shared[light], light=light, bonus=SHARED)
                again = self.choice.each(join, rest, again)
            made = {n: own for n, (own, _) in known.items()} | dict(zip(left, again, strict=True))
            found = [made[n] for n in range(len(parts))]
        return found, light, {(n, e.best): end for n, (e, end) in known.items()}

    def _shared(
        self, parts: Sequence[np.ndarray], found: Sequence[Estimates], lights: Sequence[int]
    ) -> dict[int, SharedKernel]:
        """Return the kernels that the most promising windows share, by the index of a gamma."""
        best = [parts[n] for n in promising(found, ENOUGH)]
        kernels = self.choice.each(partial(self.choice.shared, best), lights)
        return dict(zip(lights, kernels, strict=True))

    def _finished(
        self,
        parts: Sequence[np.ndarray],
        found: Sequence[Estimates],
        light: int,
        choices: Sequence[int],
        known: Finished,
        watch: Watch = unwatched,
    ) -> list[SelectedKernel]:
        """Return the chosen kernels of parts in full size, without making `known` ones again."""
        every = [*enumerate(choices)]
        left = [pair for pair in every if pair not in known]
        inputs = zip(*((parts[n], found[n], choice) for n, choice in left), strict=True)
        finish = partial(self.choice.finished, light=light)
        ends = self.choice.each(finish, *inputs, stage="refine blur", watch=watch)
        made = known | dict(zip(left, ends, strict=True))
        return [made[pair] for pair in every]

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
        tries = choice.each(partial(choice.toned, part, first.kernel), sorted({usual, first.gamma}))
        if first.trust >= o.sure:  # what is unlike it is no better
            tries = [t for t in tries if kernel_agreement(t.kernel, first.kernel) >= LIKE]
        else:
            factors = COARSE / largest(part), 1.0
            coarse, fine = choice.each(partial(choice.inked, photo, usual), factors)
            starts = choice.each(partial(choice.of_print, coarse, part, usual), PRINT_WEIGHTS)
            tries += choice.each(partial(choice.printed, part, usual), unlike(starts, o.voice))
            starts = choice.each(partial(choice.of_fine_print, fine, part, usual), PRINT_WEIGHTS)
            kernels = [start.kernels[0] for start in unlike(starts, o.voice)]
            tries += choice.each(partial(choice.toned, part, gamma=usual), kernels)
        best = max([first, *tries], key=lambda t: worth(t) - o.doubt * (t.gamma != usual) * t.gain)
        if best is first:
            return found, False
        inputs = [parts[n] for n in like], [found[n] for n in like]
        read = partial(choice.readable, other=best)
        ends = choice.each(read, *inputs, stage="read print", watch=watch)
        for n, end in zip(like, ends, strict=True):
            found[n] = end
        return found, len(like) == len(parts)

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

    def _whole(
        self, photo: np.ndarray, gains: Sequence[float], light: int, again: bool
    ) -> SelectedKernel | None:
        """Return a long kernel of the whole photo, if it promises more than those of its windows.

        `gains` are what those promise, and `light` is the index of the gamma, the usual one if it
        is looked for `again`. Long blur is estimated in small copies of the photo, one for each
        size of the kernel, so that it fits the kernels that are estimated in windows. Two of which
        the estimator is sure, if none is long, save the others.
        """
        o, choice = self.options, self.choice
        sizes = o.long_sizes(photo.shape[:2])
        if not sizes:
            return None
        copies = [copied(photo, size) for size in sizes]
        starts = partial(choice.starts, light=light, alone=False)
        found: list[Estimates] = []
        for some in (copies[:2], copies[2:]):
            found += choice.each(starts, some)
            lengths = [*map(length_in_photo, (own.kernels[0] for own in found), sizes)]
            certain = sum(float(own.agreement) >= o.sure for own in found)
            if max(lengths) <= HELD * FULL and certain >= min(2, len(sizes)):
                return self._rivalled(photo, [], sizes, gains)
        found = choice.each(partial(choice.surer, light=light), copies, found)
        known: Finished = {}
        if again:
            found, light, known = self._in_light(copies, found, {}, sampled=1)
        ends = self._finished(copies, found, light, [each.best for each in found], known)
        n = max(range(len(ends)), key=lambda n: ends[n].gain)
        best, length = ends[n], length_in_photo(ends[n].kernel, sizes[n])
        doubtful, own = best.trust < o.sure, np.maximum(gains, 0).mean()
        # a doubtful one has to win in windows as well
        held, least = (SHORT, CHANCE) if doubtful else (HELD, FREEDOM)
        better = length > held * FULL and best.gain > least * own
        if not (better and best.trust >= o.trust and choice.believes(best, LENIENT)):
            return self._rivalled(photo, [], sizes, gains)
        every = self._in_full(photo, ends, sizes, n)
        return self._rivalled(photo, every, sizes, gains) if doubtful else every[0]

    def _in_full(
        self, photo: np.ndarray, found: Sequence[SelectedKernel], sizes: Sequence[int], best: int
    ) -> list[SelectedKernel]:
        """Return the best of the kernels of copies in full size, and rivals if it is doubtful.

        The next larger one is tried, too, if the best one's size cuts the blur. The rivals are
        kernels of the L0 prior.
        """
        o, choice, first, near = self.options, self.choice, found[best], [best]
        if length_in_photo(first.kernel, sizes[best]) > HELD * sizes[best]:
            larger = range(best + 1, len(found))
            near += [n for n in larger if found[n].gain > first.gain - NEAR][:1]

        def by_l0(side: int, weight: float) -> SelectedKernel:
            return replace(first, kernel=choice.l0(photo, side, weight, first.gamma)[0])

        works = [partial(choice.enlarged, photo, found[n], sizes[n]) for n in near]
        if first.trust < o.sure:
            small = [size for size in sizes if size <= LARGEST_L0]
            works += [partial(by_l0, *start) for start in product(small, (o.weight, o.weight / 2))]
        # one thread each, as everywhere: more of them sum otherwise, and another kernel may win
        if len(works) > 1:
            made = choice.each(lambda work: work(), works)
        else:  # which shares its own steps among threads
            made = [works[0]()]
        whole, rivals = made[0], made[len(near) :]
        if len(near) > 1:
            whole = max(made[:2], key=lambda each: choice.gain(photo, each.kernel, each.gamma))
        return [whole, *rivals]

    def _rivalled(
        self,
        photo: np.ndarray,
        found: Sequence[SelectedKernel],
        sizes: Sequence[int],
        gains: Sequence[float],
        sure: bool = False,
    ) -> SelectedKernel | None:
        """Return the kernel of the whole photo that promises most in some windows, if any.

        It is one of those `found`, all but the first of which by the L0 prior, or what lights show.
        The result is None if it is no long blur, or promises less than the windows' own kernels,
        which promise `gains`. Where windows are `sure`, lights must not mislead.
        """
        choice = self.choice
        rivals = [(own, choice.gain, UNLIKELY * (n > 0)) for n, own in enumerate(found)]
        if lamps := self._lamps(photo, sizes)[:LAMPS_REFINED]:
            shown = choice.each(partial(choice.of_lights, photo), *zip(*lamps, strict=True))
            gain = choice.gain if sure else choice.beside_lamps
            rivals += [(own, gain, 0.0) for own, bright in shown if bright > SHINING]
        if not rivals:
            return None
        cuts = [place.cut(photo) for place in sampled(self.places(photo))]

        def promised(rival: SelectedKernel, gain: Callable[..., float], handicap: float) -> float:
            mean = np.mean([gain(cut, rival.kernel, rival.gamma) for cut in cuts])
            return float(mean) - handicap

        promises = choice.each(promised, *zip(*rivals, strict=True))
        best = int(np.argmax(promises))
        winner, own = rivals[best][0], np.maximum(sampled(gains), 0).mean()
        longer = shape(winner.kernel).length > SHORT * FULL
        caution = CAREFUL * choice.lacking(winner.trust)
        dark = best < len(found)  # no lights speak for it
        least = max(own + caution * dark, LEAST_LONG + caution)
        return winner if longer and promises[best] > least else None

    def _long(
        self, photo: np.ndarray, whole: SelectedKernel, options: WindowOptions, watch: Watch
    ) -> list[Window]:
        """Return windows with the kernel of the whole photo, refined in each."""
        places = [Window(*p) for p in rectangles(photo.shape[0], photo.shape[1], options)]
        cuts, size = [place.cut(photo) for place in places], whole.kernel.shape[-1]
        refine = partial(self.choice.enlarged, found=whole, size=size, scales=LONG_SCALES[-1:])
        found = self.choice.each(refine, cuts, stage="estimate long blur", watch=watch)
        return with_kernels(places, found, [True] * len(places))


def shipped_estimator() -> BlurEstimator:
    """Return the blur estimator that comes with blurkit."""
    estimator = load_networks(load_shipped("deconvolution"))["estimator"]
    assert isinstance(estimator, BlurEstimator)
    return estimator


def length_in_photo(kernel: Tensor, size: int) -> float:
    """Return the length, in pixels of a photo, of a kernel (s, s) that has `size` of them there."""
    return shape(kernel).length * size / kernel.shape[-1]


def in_colour(image: np.ndarray) -> np.ndarray:
    """Return an image (H, W, C) with three equal channels if it has one."""
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
