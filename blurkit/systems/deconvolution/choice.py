"""Estimates of a blur, and the selection among them, as docs/deconvolution.md describes it.

No estimate looks wrong by itself: a wrong kernel explains a photo as well as the right one. So what
counts is how good the deconvolution network expects the picture to be.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from operator import call
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from blurkit.engine.torch_runner import autocast, worker_threads
from blurkit.io.records import central_crop
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.estimation import (
    estimate_kernels,
    ink,
    kernels_between,
    scales,
    two_toned,
)
from blurkit.systems.deconvolution.estimator import START, BlurEstimator, dots, turns
from blurkit.systems.deconvolution.fourier import (
    kernel_agreement,
    kernels_at,
    shape,
    trimmed,
)
from blurkit.systems.deconvolution.lights import kernel_of_lights
from blurkit.systems.deconvolution.nonblind import PROMISED, NonBlindDeconvolution, Watch, unwatched
from blurkit.systems.deconvolution.windows import (
    ALIKE,
    SAME,
    Estimates,
    SelectedKernel,
    SharedKernel,
    both,
    shrunk,
    worth,
)

LONG_SEEN = 480
"""Side of the middle of a small copy in which a long kernel is estimated, pixels."""

LAMP_EDGES = ((0.5, 0.002), (0.3, 0.01))
"""`edge` and `edges` of the options with which lights show a kernel: each is right where others are
not."""

REDRAWS = 6
"""How often what lights show is redrawn from their streaks."""

LIT_SIDE, LIT_PIXELS = 59, 6e5
"""Side of the kernels that lights show, pixels of a small copy, and how many that has at most."""

SCHEDULE = (7, 7, 7, 11, 11, 11, 15, 15, 15, 21, 21, 25, 29)
"""Sides of the kernels, turn by turn. Several turns at the coarse scales gain 0.8 dB in windows,
and take less time than one at full size."""

COARSE = 21
"""Side of the kernels of which one is chosen, pixels."""

SHARED = 0.1
"""By how much more than its own a kernel that a window shares with others is worth, as voices are:
what several windows say is less due to chance."""

RIVAL = 0.1
"""By how much less than the chosen one a coarse kernel unlike it may promise to be finished, too.
"""

SAMPLED = 3
"""The number of windows that determine the gamma."""

LAST_EDGES, UNREFINED = 0.1, 6.0
"""`edges` of the options with which a kernel is refined at last, and the length of a blur, in
pixels, up to which it is not: of such, promises say too little. 64 windows under drawn blur gained
0.33 dB by their own edges, one lost 0.48; 30 photos under one blur each gained 0.23 dB more by the
kernels of all their windows, none lost more than 0.02."""

LITTLE = 0.05
"""What is added to promises of which the difference of lights is a part, so that it says little
where they say nothing."""

PRINT_SEEN = 384
"""Side of the middle of a photo, and of a small copy, where kernels of print are looked for,
pixels."""

PRINT_WEIGHTS = (2e-3, 4e-3, 8e-3, 1.4e-2, 2e-2)
"""Weights of the L0 prior for print: each finds kernels that others do not."""

PRINT_ROUNDS = 4
"""How often a kernel is refined by what of the photo has two tones."""

REST_EDGES, REST_FLOOR = 0.04, 0.2
"""`edges` and `floor` of the options with which the path of a camera that rested is found."""

LONG_SCALES = (1.0, 1.4, 2.0)
"""Sides, in units of a window's kernel, at which the kernel of a whole photo is refined."""

LONG_EDGES = 640
"""Side of the middle of a copy whose edges refine a long kernel, twice, or of a photo whose edges
show where a camera that rested has moved, pixels."""

Result = TypeVar("Result")


class KernelSelection:
    """Estimates the kernels of windows (H, W, 3) float32 in [0, 1], and chooses among them."""

    def __init__(
        self, undo: NonBlindDeconvolution, estimator: BlurEstimator, options: WindowOptions
    ) -> None:
        self.undo, self.o = undo, options
        self.estimator = estimator.eval().to(undo.device)

    def each(
        self,
        work: Callable[..., Result],
        *inputs: Sequence[object],
        stage: str = "",
        watch: Watch = unwatched,
    ) -> list[Result]:
        """Return what `work` makes of the inputs of every window; tell `watch`."""
        results = []
        with worker_threads(self.undo.device) as pool:
            for result in pool.map(work, *inputs):
                results.append(result)
                watch(stage, len(results), len(inputs[0]))
        return results

    def in_light(
        self,
        photo: np.ndarray,
        known: Estimates | None,
        light: int,
        shared: Mapping[int, SharedKernel],
    ) -> tuple[Estimates, SelectedKernel]:
        """Return the coarse kernels of a window for a gamma, and the best one in full size.

        They are those `known`, or `all_starts`, for which `shared` is. Only in full size, and each
        from its own start, kernels tell gammas apart.
        """
        own = self.all_starts(photo, light, shared) if known is None else known
        return own, self.finished(photo, own, own.best, light)

    def light(self, promised: Sequence[Sequence[float]]) -> int:
        """Return the index of the gamma with which all windows of a photo were developed.

        `promised` is what kernels promise in every window, gamma by gamma. In most windows, one
        that is unusual must promise more, by `doubt` of what the best one does: more of one window
        alone may be due to a wrong kernel for the usual gamma.
        """
        gains = np.array(promised)
        most = gains.max(1, keepdims=True).clip(0) + LITTLE
        better = np.median((gains - gains[:, :1]) / most, 0)
        better[0] += self.o.doubt
        return int(better.argmax())

    def starts(self, photo: np.ndarray, light: int, alone: bool = True) -> Estimates:
        """Return coarse kernels of a window for one gamma: from a dot, and if needed from L0's.

        If the window is not `alone`, others will share a kernel with it, and a dot is enough. In
        the photo itself, kernels are at most a third as large as the window.
        """
        (found,) = self.from_dots([photo], light)
        return self.surer(photo, found, light) if alone else found

    def from_dots(self, photos: Sequence[np.ndarray], light: int) -> list[Estimates]:
        """Return a coarse kernel of each of some windows of one size, for a gamma, from a dot.

        At coarse scales, several windows together take two thirds of the time.
        """
        starts = dots(1).expand(len(photos), -1, -1)
        return self._coarse(np.stack(photos), starts, self.o.gammas[light])

    def surer(self, photo: np.ndarray, found: Estimates, light: int) -> Estimates:
        """Return those found from a dot and, if needed, from L0 kernels of 15 and 21 pixels.

        One is enough if the estimator is sure of it and it promises something: a dot may stay one.
        """
        if float(found.agreement) >= self.o.sure and found.better[0] >= self.o.margin:
            return found
        gamma, size = self.o.gammas[light], largest(photo)
        for side in sorted({min(15, size), min(COARSE, size)}):
            start = self.l0(shrunk(photo, side / size), side, self.o.weight, gamma)
            found = both(found, *self._coarse(photo[None], start, gamma))
        return found

    def l0(self, photo: np.ndarray, side: int, weight: float, gamma: float) -> Tensor:
        """Return the kernel (1, side, side) of a photo by the L0 prior with this weight."""
        values = torch.from_numpy(photo).to(self.undo.device).clamp_min(0)
        grey = (values**gamma).mean(2)[None]
        return estimate_kernels(grey, side, grey.new_tensor([weight]), self.o)

    def by_lights(
        self,
        photo: np.ndarray,
        side: int,
        start: Tensor,
        size: int,
        edge: float,
        edges: float,
        redraws: int = 0,
    ) -> tuple[Tensor, float]:
        """Return what `kernel_of_lights` does for a photo and a pair of `LAMP_EDGES`.

        The kernel has this side, and `size` in the photo; it is found from a smaller `start`.
        """
        o, gamma = replace(self.o, edge=edge, edges=edges), self.o.gammas[0]
        sides = [s for s in scales(side, o.scale_ratio) if s > start.shape[-1]]
        values = torch.from_numpy(photo).permute(2, 0, 1).to(self.undo.device)
        kernel, bright = kernel_of_lights(values, start, sides, size, gamma, o, redraws)
        return kernel.cpu(), bright

    def of_lights(
        self, photo: np.ndarray, coarse: Tensor, size: int, edge: float, edges: float
    ) -> tuple[SelectedKernel, float]:
        """Return the kernel (size, size) that a photo's lights show, by a pair of `LAMP_EDGES`.

        It is found from a `coarse` one. The trust is the agreement that the estimator expects; what
        it promises is not yet known. The second result is how bright it makes lamps.
        """
        height, width = photo.shape[:2]
        side = int(size * min(1, math.sqrt(LIT_PIXELS / (height * width)))) | 1
        known = photo, min(LIT_SIDE, side), coarse, size, edge, edges
        kernel, bright = self.by_lights(*known, REDRAWS)
        sure = float(self.expected(photo, size, kernels_at(kernel, FULL)))
        return SelectedKernel(kernels_at(kernel, size)[0], self.o.gammas[0], sure, 0.0), bright

    def beside_lamps(self, photo: np.ndarray, kernel: Tensor, gamma: float) -> float:
        """Return what `gain` does, for a photo without the lamps that the kernel shows in it."""
        side = max(PROMISED, 2 * kernel.shape[-1])
        part = torch.from_numpy(central_crop(photo, side, side)).permute(2, 0, 1)[None]
        dark = self.undo.lights(part, kernel, gamma).dark
        return float(self.undo.promises(dark, kernel[None], [gamma])[0])

    def expected(self, photo: np.ndarray, size: int, kernel: Tensor) -> Tensor:
        """Return the agreement (1,) expected of a kernel (1, s, s) that has `size` in a photo."""
        part, side = copied(photo, size), kernel.shape[-1]
        return self.turned(part, self.o.gammas[0], kernel, [side], FULL)[1]

    def or_lamps(self, photo: np.ndarray, found: Estimates, lamps: SharedKernel) -> Estimates:
        """Return the estimates of a window, or only the kernel of lamps if it is worth more."""
        every = self.joined(photo, found, lamps, 0, SHARED)
        if every.best < len(found.better):
            return found
        return every[-1:]

    def all_starts(
        self, photo: np.ndarray, light: int, shared: Mapping[int, SharedKernel]
    ) -> Estimates:
        """Return what `starts` does, and the kernel in `shared` of this gamma if there are any."""
        found = self.starts(photo, light, alone=not shared)
        return self.joined(photo, found, shared[light], light, SHARED) if shared else found

    def _coarse(self, photos: np.ndarray, starts: Tensor, gamma: float) -> list[Estimates]:
        """Return the coarse kernel of each window (N, H, W, 3), from starts (N, s, s)."""
        size = largest(photos[0])
        sides = between(starts.shape[-1], min(COARSE, size))
        found = self._promising(photos, *self.turned(photos, gamma, starts, sides, size), gamma)
        return [found[n : n + 1] for n in range(len(photos))]

    def _promising(
        self, photos: np.ndarray, kernels: Tensor, sure: Tensor, gamma: float
    ) -> Estimates:
        """Return kernels (N, s, s) with what they promise for windows (N, H, W, 3)."""
        scale = kernels.shape[-1] / largest(photos[0])
        copies = np.stack([shrunk(photo, scale) for photo in photos])
        return Estimates(kernels, sure, self.gains(copies, kernels, gamma))

    def joined(
        self,
        photo: np.ndarray,
        found: Estimates,
        kernel: SharedKernel,
        light: int,
        bonus: float = 0,
    ) -> Estimates:
        """Return the estimates of a window and, `bonus` better, a kernel from elsewhere."""
        other = self._promising(photo[None], *kernel, self.o.gammas[light])
        return both(found, replace(other, better=other.better + bonus))

    def chosen(self, found: Sequence[Estimates], near: Sequence[Sequence[int]]) -> list[int]:
        """Return the index of the best estimate of every window; `near` lists its neighbours.

        The score is the expected improvement, plus `voice` for agreement with the neighbours.
        """
        choices = []
        for own, others in zip(found, near, strict=True):
            score = own.better.copy()
            for other in others:
                agreed = kernel_agreement(own.kernels[:, None], found[other].kernels)
                score += self.o.voice / len(others) * agreed.amax(1).numpy()
            choices.append(int(score.argmax()))
        return choices

    def finished(
        self, photo: np.ndarray, found: Estimates, choice: int, light: int
    ) -> SelectedKernel:
        """Return one of the coarse kernels of a window in the size of the photo.

        Those unlike the chosen one that promise nearly as much are finished as well, and what then
        promises most is returned. The trust is the mean of the expected agreement and that with the
        other coarse kernels.
        """
        gamma, size = self.o.gammas[light], largest(photo)
        alike = kernel_agreement(found.kernels[:, None], found.kernels)
        near = torch.from_numpy(found.better > found.better[choice] - RIVAL)
        rivals = [choice, *(((alike[choice] < ALIKE) & near).nonzero().flatten().tolist())]
        kernels, sure = found.kernels[rivals], found.agreement[rivals]
        if size > COARSE:
            kernels, sure = self.turned(photo, gamma, kernels, between(COARSE + 1, size), size)
        gains = self.gains(photo, kernels, gamma)
        best = int(gains.argmax())
        trust = float(sure[best])
        if len(alike) > 1:
            others = alike[rivals[best]].sum() - alike[rivals[best], rivals[best]]
            trust = (trust + float(others) / (len(alike) - 1)) / 2
        return SelectedKernel(kernels[best], gamma, trust, float(gains[best]))

    def refined(
        self, photos: Sequence[np.ndarray], found: Sequence[SelectedKernel]
    ) -> list[SelectedKernel]:
        """Return the kernels of a photo's windows in its size, refined where that promises more.

        They are refined by edges of what the whole network restores: turns see only its first step.
        If windows have one size, and their kernels are `SAME`, each also tries the kernel that all
        have together by such edges, and that of the window whose kernel is most like the others.
        """
        ends = [*found]
        blurry = [n for n, best in enumerate(found) if shape(best.kernel).length > UNREFINED]
        cuts, old = [photos[n] for n in blurry], [found[n] for n in blurry]
        pairs = self.each(self._lights, cuts, old)
        o = replace(self.o, edges=LAST_EDGES)

        def between(sharp: Tensor, seen: Tensor, together: bool = False) -> Tensor:
            return kernels_between(sharp, seen, old[0].kernel.shape[-1], o, together=together)

        tries = self.each(between, *zip(*pairs, strict=True)) if pairs else []
        if len(pairs) > 1 and len({cut.shape for cut in cuts}) == 1:
            kernels = torch.stack([best.kernel for best in old])
            alike = kernel_agreement(kernels[:, None], kernels)
            if alike.mean() >= SAME:
                every = ([torch.cat(lights)] for lights in zip(*pairs, strict=True))
                (shared,) = self.each(partial(between, together=True), *every)
                likest = kernels[int(alike.sum(1).argmax()), None]
                tries = [torch.cat([own, likest, shared]) for own in tries]
        for n, end in zip(blurry, self.each(self._better, cuts, old, tries), strict=True):
            ends[n] = end
        return ends

    @torch.inference_mode()
    def _lights(self, photo: np.ndarray, found: SelectedKernel) -> tuple[Tensor, Tensor]:
        """Return the light (1, H, W) of a photo as the whole network restores it, and as it is."""
        seen = torch.from_numpy(photo).permute(2, 0, 1)[None].clamp_min(0)
        sharp, _ = self.undo(seen, trimmed(found.kernel[None]), [found.gamma])
        light = (sharp.clamp(0, 1).cpu() ** found.gamma).mean(1)
        return light, (seen**found.gamma).mean(1)

    def _better(self, photo: np.ndarray, found: SelectedKernel, tries: Tensor) -> SelectedKernel:
        """Return the kernel of a window, or the one of `tries` (N, s, s) that promises more."""
        gains = self.gains(photo, tries, found.gamma)
        best = int(gains.argmax())
        if gains[best] <= found.gain:
            return found
        return replace(found, kernel=tries[best], gain=float(gains[best]))

    def inked(self, photo: np.ndarray, gamma: float, factor: float) -> Tensor:
        """Return the `ink` (1, h, w) of the middle of a photo that is `shrunk` by a factor."""
        copy = central_crop(shrunk(photo, factor), PRINT_SEEN, PRINT_SEEN)
        values = torch.from_numpy(copy).to(self.undo.device).clamp_min(0)
        return ink((values**gamma).mean(2)[None])

    def of_ink(self, inked: Tensor, side: int, weight: float) -> Tensor:
        """Return the kernel (1, side, side) of print, by the L0 prior on gradients and ink."""
        o = replace(self.o, turns=4, beta_growth=4.5)
        return estimate_kernels(inked, side, inked.new_tensor([weight]), o, sparse=True).cpu()

    def of_print(self, inked: Tensor, part: np.ndarray, gamma: float, weight: float) -> Estimates:
        """Return the coarse kernel of a part of a photo of print, whose ink is `inked`.

        It starts from `of_ink` with this weight.
        """
        start = self.of_ink(inked, COARSE, weight)
        ends = self.turned(part, gamma, start, [COARSE] * 3, largest(part), toned=True)
        return self._promising(part[None], *ends, gamma)

    def of_fine_print(
        self, inked: Tensor, part: np.ndarray, gamma: float, weight: float
    ) -> Estimates:
        """Return the kernel `of_ink` in the size of the photo, as an estimate of a part of it."""
        kernel = self.of_ink(inked, largest(part), weight)
        return self._promising(part[None], kernel, torch.zeros(1), gamma)

    def printed(self, photo: np.ndarray, gamma: float, found: Estimates) -> SelectedKernel:
        """Return the kernel of a window with print, from a coarse one."""
        size = largest(photo)
        sides = between(COARSE + 1, size)
        kernel, _ = self.turned(photo, gamma, found.kernels, sides, size, toned=True)
        return self.toned(photo, kernel[0], gamma)

    def toned(self, photo: np.ndarray, kernel: Tensor, gamma: float) -> SelectedKernel:
        """Return the kernel of a window, refined as if the sharp photo had two tones, like print.

        The trust is the agreement that the estimator expects.
        """
        side, start = kernel.shape[-1], kernel[None]
        rounds = self._edged(photo, start, gamma, PRINT_ROUNDS, self.o, toned=True)
        kernels = torch.cat([start, *rounds])
        gains = self.gains(photo, kernels, gamma)
        best = int(gains.argmax())
        _, sure = self.turned(photo, gamma, kernels[best, None], [side], side, toned=True)
        return SelectedKernel(kernels[best], gamma, float(sure), float(gains[best]))

    def rested(self, photo: np.ndarray, gamma: float, rounds: int, kernel: Tensor) -> Tensor:
        """Return the kernel (side, side) of a photo whose camera rested and also moved.

        It is refined from `kernel`, first a point: the picture while the camera rested is in the
        photo already; around its edges are faint copies of them, where the camera moved.
        """
        o = replace(self.o, edges=REST_EDGES, floor=REST_FLOOR)
        part = np.ascontiguousarray(central_crop(photo, LONG_EDGES, LONG_EDGES))
        return self._edged(part, kernel[None], gamma, rounds, o, resting=True)[-1][0]

    def _edged(
        self,
        photo: np.ndarray,
        kernel: Tensor,
        gamma: float,
        rounds: int,
        options: WindowOptions,
        toned: bool = False,
        resting: bool = False,
    ) -> list[Tensor]:
        """Return the kernels (1, side, side) of every round from the one of a photo (H, W, 3).

        A round is least squares between the edges of the picture that the kernel before it
        restores, by the network's first step, or of the same in two tones, and the photo.
        """
        side, kernels = kernel.shape[-1], [kernel]
        blurry = torch.from_numpy(photo).permute(2, 0, 1).clamp_min(0)
        seen = (blurry**gamma).mean(0)[None]
        for _ in range(rounds):
            own = trimmed(kernels[-1])[0]
            if own.numel() == 1:  # no blur yet
                sharp = blurry
            else:
                sharp = self.undo.briefly(blurry, own, gamma).clamp(0, 1).cpu()
            values = two_toned(sharp.mean(0, keepdim=True), side) if toned else sharp
            light = (values**gamma).mean(0)[None]
            kernels.append(kernels_between(light, seen, side, options, resting))
        return kernels[1:]

    def readable(
        self, photo: np.ndarray, found: SelectedKernel, other: SelectedKernel
    ) -> SelectedKernel:
        """Return the better of the kernels of a window with print and of another.

        The light is that of the other one: it is one in all of a photo.
        """
        pair = found, other
        gains = self.gains(photo, torch.stack([each.kernel for each in pair]), other.gamma)
        seen = [
            replace(each, gamma=other.gamma, gain=float(gain))
            for each, gain in zip(pair, gains, strict=True)
        ]
        return max(seen, key=worth)

    def shared(self, photos: Sequence[np.ndarray], light: int) -> SharedKernel:
        """Return the coarse kernel (1, s, s) that windows (H, W, 3) share, its agreement (1,).

        What one window alone does not show, such as blur along its only edges, another one does.
        """
        size = largest(photos[0])
        sides = between(START, min(COARSE, size))
        return self.turned(np.stack(photos), self.o.gammas[light], dots(1), sides, size)

    @torch.inference_mode()
    def turned(
        self,
        photos: np.ndarray,
        gamma: float,
        starts: Tensor,
        sides: Sequence[int],
        size: int,
        toned: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return the kernels (N, s, s) after turns with these sides, from starts (N, s, s).

        They are those of one photo (H, W, 3), or one of each (N, H, W, 3); with N = 1 that of
        several (M, H, W, 3). The second result, (N,), is how well they are expected to agree with
        the true one.
        """
        device = self.undo.device
        values = torch.from_numpy(np.ascontiguousarray(photos)).movedim(-1, -3)
        if values.dim() == 3:
            values = values.expand(len(starts), -1, -1, -1)
        values = values.clamp_min(0).to(device)
        gammas = values.new_full((len(values),), gamma)
        known = self.estimator, self.undo.network, values, gammas, starts.to(device)
        with autocast(device, self.undo.dtype):
            *_, (_, _, turn) = turns(*known, sides, size, toned)
        return turn.kernels.float().cpu(), turn.agreement.float().cpu()

    def enlarged(
        self,
        photo: np.ndarray,
        found: SelectedKernel,
        size: int,
        scales: Sequence[float] = LONG_SCALES,
    ) -> SelectedKernel:
        """Return the kernel of a photo, or of a copy, in the photo's size (size, size), finer."""
        kernel = found.kernel
        for scale in scales:
            side = min(round(scale * FULL), size) | 1
            kernel = self._finer(shrunk(photo, side / size), kernel, found.gamma, side)
        return replace(found, kernel=kernels_at(kernel[None], size)[0])

    def _finer(self, copy: np.ndarray, kernel: Tensor, gamma: float, side: int) -> Tensor:
        """Return a kernel (side, side) for a copy of a photo, refined if that promises more.

        It is refined by edges and by the estimator: lights mislead the former, and the latter was
        trained on kernels of up to 41 pixels.
        """
        known = kernels_at(kernel[None], side)
        edges, part = (
            np.ascontiguousarray(central_crop(copy, s, s)) for s in (LONG_EDGES, LONG_SEEN)
        )
        refined = (
            lambda: self._edged(edges, known, gamma, 2, self.o)[-1],
            lambda: self.turned(part, gamma, known, [side], side)[0],
        )
        kernels = torch.cat([known, *self.each(call, refined)])
        gains = self.each(partial(self.gain, copy, gamma=gamma), [*kernels])
        best = int(np.argmax(gains))
        return kernels[best if gains[best] > self.o.margin else 0]

    def believes(self, best: SelectedKernel, lenient: float = 1) -> bool:
        """Whether a kernel promises enough: the more, the less it is trusted."""
        return best.gain >= self.o.margin + lenient * self.lacking(best.trust)

    def lacking(self, trust: float) -> float:
        """Return how much more a kernel has to promise for want of trust."""
        return self.o.caution * (1 - trust) ** 2

    def promised(self, photos: Sequence[np.ndarray], kernels: Tensor, gamma: float) -> float:
        """Return the mean of what kernels (N, s, s) promise for photos (H, W, 3), 0 at least."""
        gains = self.each(partial(self.gain, gamma=gamma), photos, [*kernels])
        return float(np.clip(gains, 0, None).mean())

    def gain(self, photo: np.ndarray, kernel: Tensor, gamma: float) -> float:
        """Return what `gains` does, for one kernel (side, side)."""
        return float(self.gains(photo, kernel[None], gamma)[0])

    def gains(self, photos: np.ndarray, kernels: Tensor, gamma: float) -> np.ndarray:
        """Return what the network expects of kernels (N, side, side) in the middle of a photo.

        Of one (H, W, 3), or each in the middle of its own (N, H, W, 3).
        """
        side, every = max(PROMISED, 2 * kernels.shape[-1]), photos.reshape(-1, *photos.shape[-3:])
        parts = [central_crop(photo, side, side) for photo in every]
        inputs = torch.from_numpy(np.stack(parts)).permute(0, 3, 1, 2)
        inputs = inputs.expand(len(kernels), -1, -1, -1)
        return self.undo.promises(inputs, kernels, [gamma] * len(kernels)).cpu().numpy()


def copied(photo: np.ndarray, size: int) -> np.ndarray:
    """Return the middle of a copy of a photo (H, W, 3) in which `size` pixels become `FULL`."""
    copy = shrunk(photo, FULL / size)
    return np.ascontiguousarray(central_crop(copy, LONG_SEEN, LONG_SEEN))


def largest(photo: np.ndarray) -> int:
    """Return the side of the kernels in a window (H, W, 3): at most a third of its own."""
    return min(FULL, (min(photo.shape[:2]) // 3 - 1) | 1)


def between(first: int, last: int) -> list[int]:
    """Return the sides of kernels from `first` to `last`, which is one of them, turn by turn."""
    sides = [side for side in SCHEDULE if first <= side <= last]
    return sides if sides[-1:] == [last] else [*sides, last]
