"""What several parts of a photo show together: its light, and one long blur of all of it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain, product
from operator import call

import numpy as np
from torch import Tensor

from blurkit.systems.deconvolution.choice import (
    COARSE,
    LAMP_EDGES,
    LONG_SCALES,
    SAMPLED,
    SHARED,
    KernelSelection,
    copied,
)
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.estimation import two_coloured
from blurkit.systems.deconvolution.estimator import dots
from blurkit.systems.deconvolution.fourier import kernel_agreement, kernels_at, shape
from blurkit.systems.deconvolution.lights import BRIGHT, lit
from blurkit.systems.deconvolution.nonblind import Watch, unwatched
from blurkit.systems.deconvolution.windows import (
    ENOUGH,
    SAME,
    Estimates,
    SelectedKernel,
    SharedKernel,
    Window,
    around,
    grouped,
    promising,
    rectangles,
    sampled,
    with_kernels,
)

NEAR = 0.15
"""By how much less than the best one, which cuts the blur, a kernel of a larger size may promise in
its small copy to be enlarged as well."""

LAMP_GLANCES = ((15, 3.2), (COARSE, BRIGHT))
"""Sides of the coarse kernels that lights show, and how bright the best one must make them for a
photo to have lamps. In 16 photos with lamps, they had at least 3.5 at the first."""

LAMPS_REFINED = 4
"""How many of the coarse kernels that lights show are refined."""

SHINING = 7.0
"""How bright kernels that lights show must make them, as `BRIGHT`, once refined: a wrong one, of
the white in the corner of a face, made it 6.3, that of a real photo 7.4, those of 15 drawn ones 8
to 30."""

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


class WholePhoto:
    """Finds kernels of photos (H, W, 3) float32 in [0, 1] and of lists of their parts."""

    def __init__(self, choice: KernelSelection, options: WindowOptions) -> None:
        self.choice, self.options = choice, options

    def starts(
        self, parts: Sequence[np.ndarray], light: int, alone: bool, watch: Watch
    ) -> list[Estimates]:
        """Return what `starts` finds in a photo's parts, which have one size if not `alone`."""
        if alone:
            starts = partial(self.choice.starts, light=light)
            return self.choice.each(starts, parts, stage="estimate blur", watch=watch)
        found = partial(self.choice.from_dots, light=light)
        every = self.choice.each(found, grouped(parts), stage="estimate blur", watch=watch)
        return [*chain(*every)]

    def again(
        self,
        parts: Sequence[np.ndarray],
        light: int,
        shared: Mapping[int, SharedKernel],
        watch: Watch = unwatched,
    ) -> list[Estimates]:
        """Return what `starts` finds in a photo's parts in a light, and any kernel they share."""
        found = self.starts(parts, light, not shared, watch)
        return self.joined(parts, found, light, shared) if shared else found

    def joined(
        self,
        parts: Sequence[np.ndarray],
        found: Sequence[Estimates],
        light: int,
        shared: Mapping[int, SharedKernel],
    ) -> list[Estimates]:
        """Return the estimates of a photo's parts in a light, each with the kernel they share."""
        join = partial(self.choice.joined, kernel=shared[light], light=light, bonus=SHARED)
        return self.choice.each(join, parts, found)

    def shared(
        self, parts: Sequence[np.ndarray], found: Sequence[Estimates], lights: Sequence[int]
    ) -> dict[int, SharedKernel]:
        """Return the kernels that the most promising windows share, by the index of a gamma."""
        best = [parts[n] for n in promising(found, ENOUGH)]
        kernels = self.choice.each(partial(self.choice.shared, best), lights)
        return dict(zip(lights, kernels, strict=True))

    def in_light(
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
            each = [(n, light) for light in reversed(lights) for n in some]  # longer work first
            first = [own[at] if own else None if at else found[n] for n, at in each]
            inputs = [parts[n] for n, _ in each], first, [light for _, light in each]
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
            again = self.again([parts[n] for n in left], light, shared, watch)
            made = {n: own for n, (own, _) in known.items()} | dict(zip(left, again, strict=True))
            found = [made[n] for n in range(len(parts))]
        return found, light, {(n, e.best): end for n, (e, end) in known.items()}

    def finished(
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

    def promised(
        self,
        parts: Sequence[np.ndarray],
        found: Sequence[Estimates],
        shared: Mapping[int, SharedKernel],
        usual: int,
        light: int,
    ) -> list[float]:
        """Return what the own kernels of some of a photo's parts promise in a light.

        `found` are the coarse ones of all parts in the `usual` light.
        """
        some, own = sampled(parts), sampled(found)
        if light != usual:
            own = self.again(some, light, shared)
        ends = self.finished(some, own, light, [each.best for each in own], {})
        return [end.gain for end in ends]

    def seem_long(self, parts: Sequence[np.ndarray], found: Sequence[Estimates]) -> bool:
        """Return whether coarse kernels of a photo's parts show, or may hide, a long blur.

        Print is read by itself.
        """
        lengths = [length_in_photo(own.kernels[own.best], FULL) for own in found]
        sure = np.median([float(own.agreement[own.best]) for own in found]) >= self.options.sure
        short = sure and np.median(lengths) <= HELD * FULL
        return not short and 2 * sum(map(two_coloured, parts)) <= len(parts)

    def at_once(
        self,
        photo: np.ndarray,
        parts: Sequence[np.ndarray],
        found: Sequence[Estimates],
        shared: Mapping[int, SharedKernel],
        light: int | None,
        watch: Watch,
    ) -> list[Window]:
        """Return windows with one long kernel of a photo, [] if kernels of its parts promise more.

        Of these only some are finished, from their coarse estimates `found`. `light` is the index
        of the gamma if that is known.
        """
        promised = cache(partial(self.promised, parts, found, shared, light or 0))
        best = self.kernel(photo, promised, light)
        return self.windows(photo, best, watch) if best else []

    def kernel(
        self, photo: np.ndarray, promised: Callable[[int], Sequence[float]], light: int | None
    ) -> SelectedKernel | None:
        """Return a long kernel of the whole photo, if it promises more than those of its windows.

        `promised` returns what those promise in a light, and `light` is the index of the gamma if
        that is known. Long blur is estimated in small copies of the photo, one for each size of the
        kernel, so that it fits the kernels that are estimated in windows. Two of which the
        estimator is sure, if none is long, save the others, and so does the first one if it holds
        the kernel of which all are sure.
        """
        o, choice = self.options, self.choice
        sizes = o.long_sizes(photo.shape[:2])
        if not sizes:
            return None
        copies = [copied(photo, size) for size in sizes]
        again, light = light is None, light or 0
        starts = partial(choice.starts, light=light, alone=False)
        found: list[Estimates] = []
        for some in (copies[:2], copies[2:]):
            found += choice.each(starts, some)
            lengths = [*map(length_in_photo, (own.kernels[0] for own in found), sizes)]
            certain = sum(float(own.agreement) >= o.sure for own in found)
            if max(lengths) <= HELD * FULL and certain >= min(2, len(sizes)):
                return self.rivalled(photo, [], self.shown(photo, sizes), partial(promised, light))
        if self._same(found, sizes):
            found, copies, sizes = found[:1], copies[:1], sizes[:1]
        found = choice.each(partial(choice.surer, light=light), copies, found)
        known: Finished = {}
        if again:
            found, light, known = self.in_light(copies, found, {}, sampled=1)
        ends = self.finished(copies, found, light, [each.best for each in found], known)
        n = max(range(len(ends)), key=lambda n: ends[n].gain)
        best, length = ends[n], length_in_photo(ends[n].kernel, sizes[n])
        gains = partial(promised, light)
        doubtful, own = best.trust < o.sure, np.maximum(gains(), 0).mean()
        # a doubtful one has to win in windows as well
        held, least = (SHORT, CHANCE) if doubtful else (HELD, FREEDOM)
        better = length > held * FULL and best.gain > least * own
        if not (better and best.trust >= o.trust and choice.believes(best, LENIENT)):
            return self.rivalled(photo, [], self.shown(photo, sizes), gains)
        if not doubtful:
            return self._in_full(photo, ends, sizes, n, l0=False)[0]
        shown = self.shown(photo, sizes)
        every = self._in_full(photo, ends, sizes, n, l0=not shown)  # which lights mislead
        return self.rivalled(photo, every, shown, gains)

    def _same(self, found: Sequence[Estimates], sizes: Sequence[int]) -> bool:
        """Return whether the first of a photo's copies holds the kernel of which all are sure."""
        every = [own.kernels[own.best] for own in found]
        sure = min(float(own.agreement[own.best]) for own in found) >= self.options.sure
        if not sure or length_in_photo(every[0], sizes[0]) > HELD * sizes[0]:
            return False
        side = every[0].shape[-1]
        copies = [kernels_at(every[0][None], round(side * sizes[0] / n) | 1) for n in sizes]
        alike = [kernel_agreement(*both)[0] for both in zip(copies, every, strict=True)]
        return float(min(alike)) >= SAME

    def _in_full(
        self,
        photo: np.ndarray,
        found: Sequence[SelectedKernel],
        sizes: Sequence[int],
        best: int,
        l0: bool,
    ) -> list[SelectedKernel]:
        """Return the best of the kernels of copies in full size, with `l0` also some by that prior.

        The next larger one is tried, too, if the best one's size cuts the blur.
        """
        o, choice, first, near = self.options, self.choice, found[best], [best]
        if length_in_photo(first.kernel, sizes[best]) > HELD * sizes[best]:
            larger = range(best + 1, len(found))
            near += [n for n in larger if found[n].gain > first.gain - NEAR][:1]

        def by_l0(side: int, weight: float) -> SelectedKernel:
            return replace(first, kernel=choice.l0(photo, side, weight, first.gamma)[0])

        works = [partial(choice.enlarged, photo, found[n], sizes[n]) for n in near]
        if l0:
            small = [size for size in sizes if size <= LARGEST_L0]
            works += [partial(by_l0, *start) for start in product(small, (o.weight, o.weight / 2))]
        # one thread each, as everywhere: more of them sum otherwise, and another kernel may win
        if len(works) > 1:
            made = choice.each(call, works)
        else:  # which shares its own steps among threads
            made = [works[0]()]
        whole, rivals = made[0], made[len(near) :]
        if len(near) > 1:
            whole = max(made[:2], key=lambda each: choice.gain(photo, each.kernel, each.gamma))
        return [whole, *rivals]

    def rivalled(
        self,
        photo: np.ndarray,
        found: Sequence[SelectedKernel],
        shown: Sequence[SelectedKernel],
        gains: Callable[[], Sequence[float]],
        sure: bool = False,
    ) -> SelectedKernel | None:
        """Return the kernel of the whole photo that promises most in some windows, if any.

        It is one of those `found`, of which all but the first are by the L0 prior, or `shown` by
        lights. The result is None if it is no long blur, or promises less than the windows' own
        kernels, which promise those `gains`. Where windows are `sure`, lights must not mislead.
        """
        choice = self.choice
        rivals = [(own, choice.gain, UNLIKELY * (n > 0)) for n, own in enumerate(found)]
        gain = choice.gain if sure else choice.beside_lamps
        rivals += [(own, gain, 0.0) for own in shown]
        if not rivals:
            return None
        height, width = photo.shape[:2]
        places = [Window(*p) for p in rectangles(height, width, self.options)]
        cuts = [place.cut(photo) for place in sampled(places)]

        def promised(rival: SelectedKernel, gain: Callable[..., float], handicap: float) -> float:
            mean = np.mean([gain(cut, rival.kernel, rival.gamma) for cut in cuts])
            return float(mean) - handicap

        promises = choice.each(promised, *zip(*rivals, strict=True))
        best = int(np.argmax(promises))
        winner, own = rivals[best][0], np.maximum(sampled(gains()), 0).mean()
        longer = shape(winner.kernel).length > SHORT * FULL
        caution = CAREFUL * choice.lacking(winner.trust)
        dark = best < len(found)  # no lights speak for it
        least = max(own + caution * dark, LEAST_LONG + caution)
        return winner if longer and promises[best] > least else None

    def shown(self, photo: np.ndarray, sizes: Sequence[int]) -> list[SelectedKernel]:
        """Return the kernels that a photo's lights show, of those sizes, and make them shine."""
        lamps = self.lamps(photo, sizes)[:LAMPS_REFINED]
        if not lamps:
            return []
        refine = partial(self.choice.of_lights, photo)
        refined = self.choice.each(refine, *zip(*lamps, strict=True))
        return [own for own, bright in refined if bright > SHINING]

    def lamps(
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

    def windows(self, photo: np.ndarray, whole: SelectedKernel, watch: Watch) -> list[Window]:
        """Return windows with the kernel of the whole photo, refined in each, [] if it gets short.

        Refined, a wrong one promises more if it is cut short.
        """
        options = around(shape(whole.kernel).length, self.options)
        height, width = photo.shape[:2]
        places = [Window(*p) for p in rectangles(height, width, options)]
        cuts, size = [place.cut(photo) for place in places], whole.kernel.shape[-1]
        refine = partial(self.choice.enlarged, found=whole, size=size, scales=LONG_SCALES[-1:])
        found = self.choice.each(refine, cuts, stage="estimate long blur", watch=watch)
        long = np.median([shape(end.kernel).length for end in found]) > SHORT * FULL
        return with_kernels(places, found, [True] * len(places)) if long else []


def length_in_photo(kernel: Tensor, size: int) -> float:
    """Return the length, in pixels of a photo, of a kernel (s, s) that has `size` of them there."""
    return shape(kernel).length * size / kernel.shape[-1]
