"""The blur of a film's frames, each found with the help of the one before: see docs/films.md."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from blurkit.engine.engine import Canvas
from blurkit.io.opencv import gray, opencv
from blurkit.io.records import Record, central_crop, from_float
from blurkit.systems.deconvolution.choice import between, largest
from blurkit.systems.deconvolution.estimation import kernels_between
from blurkit.systems.deconvolution.estimator import Turn, dots, forward_differences, view
from blurkit.systems.deconvolution.fourier import kernel_agreement, kernels_at, trimmed
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import (
    ALIKE,
    ENOUGH,
    SAME,
    SelectedKernel,
    Window,
    batch,
    blurs,
    helped,
    narrowed,
    neighbours,
    rectangles,
    sampled,
    shrunk,
    spread,
    supported,
    with_kernels,
)

SMOOTHED = 4.0
"""Deviation of the Gaussian that smooths the flow of half-size copies, pixels."""

ONE_SCENE = 0.8
"""Correlation of a frame and the moved one before, from which they show one scene. Frames of nine
films had 0.95 and more, different scenes 0.65 at most."""

CAUTION = 1.0
"""What the kernel of a film has to promise, per square of the lacking trust: it is known from
elsewhere than the frame alone, so it need promise less than that of a photo."""

STEADY = 1.3
"""Factor between the thresholds to begin with something in a window, and to end it."""

UNSURE = 0.82
"""Median trust in a frame's windows below which it is also searched as a photo, and what promises
more is taken: the blur may be longer than a window's kernel."""

PATIENCE = 12
"""Frames before the blur of a window is searched for again in vain."""

EXPLAINED = 0.03
"""How much less the kernel that the frame before explains, or its own, must promise than a learned
one."""

EXPLAINING, EXPLAINED_WELL = 0.85, (0.9, 0.98)
"""Expected agreement from which a kernel that a guide explains needs no other start in a half-size
copy, once turned, and from which it needs no turns, in one part and in several. In 13 films of
eight frames the latter saved 3 to 32 % of the time, and changed the gain by -0.13 to +0.31 dB,
+0.01 on the mean; a wrong one of several parts had 0.96."""

FIRST, FINE = 15, 29
"""Sides of the kernels of the first learned turn, in half-size copies and in whole frames."""

DIFFERENT, CONTRAST, NEARBY = 15 / 255, 0.5, 2.0
"""Difference from which a neighbouring frame counts little, and what of the contrast's variance may
be added to its square; and the deviation of the Gaussian under which both are looked at, pixels."""

SHARPER, EQUAL, AROUND = 6.0, -0.6, 16.0
"""How a neighbouring frame counts by its gradients: the logit of its part is `EQUAL`, and `SHARPER`
for each factor of e by which their squares are larger, under a Gaussian with a deviation of
`AROUND` pixels. Nine films under drawn blur, of eight frames, gained 0.1 to 1.5 dB on the mean
before they were written, and no frame lost more than 0.02."""


@dataclass(frozen=True)
class GuidedPart:
    """The middle of a window (h, w, 3), guides that show it, and its kernel in the frame before."""

    photo: np.ndarray
    guides: Sequence[np.ndarray]
    before: Tensor | None

    @classmethod
    def of(cls, seen: int, before: Tensor | None, *images: np.ndarray) -> GuidedPart:
        """Return the middle, `seen` pixels wide, of a window and of its guides."""
        photo, *guides = (central_crop(image, seen, seen) for image in images)
        return cls(photo, guides, before)


@dataclass
class FilmFrame:
    """A frame of a film, restored, and what the next one needs of it.

    `blurry` and `restored` are (H, W, 3), and `own` (H, W, 1) is how much of the latter is the
    frame itself: the rest are its neighbours. Of the `windows` that were restored, some were `left`
    as they are. Every window of a film has the kernel found, or None; whether it was `believed`;
    and for how many frames no blur is searched for in it. A frame that is `fixed` is guided no
    more.
    """

    blurry: np.ndarray
    restored: np.ndarray
    own: np.ndarray
    windows: Sequence[Window]
    left: Sequence[bool]
    kernels: list[Tensor | None]
    believed: list[bool]
    waits: list[int]
    fixed: bool = False

    def finished(self) -> tuple[np.ndarray, float]:
        """Fix the frame. Return it restored, and how much of it, 0 to 1, its neighbours are."""
        self.fixed = True
        return self.restored, 1 - float(self.own.mean())

    @property
    def shown(self) -> np.ndarray:
        """The restored frame in [0, 1]."""
        return self.restored.clip(0, 1)


class FilmEstimate:
    """Finds the kernels of a film's frames, in order, (H, W, 3) float32 in [0, 1].

    Call `begin` with every frame, `windows` if its blur is to be found, and `end` with its result.
    Raises BlurkitError if OpenCV is not installed.
    """

    def __init__(self, deconvolution: Deconvolution) -> None:
        self._cv2 = opencv("the estimate of a film's blur")
        self._dis = self._cv2.DISOpticalFlow_create(self._cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
        self._photo, self._choice = deconvolution, deconvolution.choice
        self._options = deconvolution.options
        self.forget()

    def forget(self) -> None:
        """Begin with a new scene."""
        self._before: FilmFrame | None = None
        self._light: int | None = None

    @property
    def begins(self) -> bool:
        """Whether the frame that began is the first of a scene."""
        return self._before is None

    def begin(self, image: np.ndarray) -> None:
        """Register a frame with the one before; if it shows another scene, forget that."""
        self._frame = image
        height, width = image.shape[:2]
        self._places = [Window(*place) for place in rectangles(height, width, self._options)]
        self._kernels: list[Tensor | None] = []
        self._believed: list[bool] = []
        self._waits: list[int] = []
        before = self._before
        small = min(image.shape[:2]) < self._photo.smallest
        if before is not None and (small or before.blurry.shape != image.shape):
            self.forget()
        elif before is not None:
            now, old = (self._softened(x) for x in (image, before.blurry))
            self._coarse_flow = self._flow(now, old, SMOOTHED)
            if _correlation(now, self._moved(old, self._coarse_flow)) < ONE_SCENE:
                self.forget()

    def windows(self, image: np.ndarray) -> list[Window]:
        """Return the windows of the frame that began, each with the kernel that was found in it."""
        before, o = self._before, self._options
        if before is None:
            return self._as_photo(self._photo.windows(image, light=self._light))
        places = self._places
        chosen = supported(self._learned(places, before), neighbours(places))
        lost = [best.trust < o.trust for best in chosen]
        if 2 * sum(lost) > len(places):
            return self._as_photo(self._photo.windows(image, light=self._light))
        self._decide_light([best.gamma for best in chosen])
        self._believed = [self._believes(*known) for known in enumerate(chosen)]
        promised = np.mean([b.gain * sure for b, sure in zip(chosen, self._believed, strict=True)])
        if np.median([best.trust for best in chosen]) < UNSURE:
            searched = self._photo.windows(image, light=self._light)
            gain = self._choice.gain
            gains = [w.believed and gain(w.cut(image), w.kernel, w.gamma) for w in searched]
            if np.mean(gains) > promised:
                return self._as_photo(searched)
        self._waits = [max(0, wait - 1) for wait in before.waits] or [0] * len(chosen)
        for number in np.flatnonzero(lost):
            if self._waits[number] == 0:
                chosen[number], self._believed[number] = self._alone(places[number])
                self._waits[number] = 0 if self._believed[number] else PATIENCE
        self._kernels = [best.kernel for best in chosen]
        return helped(with_kernels(places, chosen, self._believed), o.trust)

    def factors(self, windows: Sequence[Window]) -> list[float]:
        """Return those of `unchanged` and `needless`: what was left before is the more easily."""
        before = self._before.left if self._before is not None else []
        if len(before) != len(windows):
            return [1.0] * len(windows)
        return [STEADY if left else 1 / STEADY for left in before]

    def end(
        self, restored: np.ndarray, windows: Sequence[Window], left: Sequence[bool]
    ) -> FilmFrame:
        """Return a restored frame mixed with the one before, which is mixed with it in turn.

        What both show alike has less noise then, and what is sharper in one becomes so in the
        other. In windows that were `left` as they are, only the latter counts.
        """
        pictures = self._frame, restored, np.ones_like(restored[..., :1])
        found = self._kernels, self._believed, self._waits
        before, frame = self._before, FilmFrame(*pictures, windows, left, *found)
        self._before = frame
        if before is not None:
            self._guide(frame, before)
            if not before.fixed:
                self._guide(before, frame)
        return frame

    def _guide(self, frame: FilmFrame, by: FilmFrame) -> None:
        """Mix a restored frame with a neighbour."""
        moved = self._moved(by.shown, self._flow(frame.restored, by.restored, 2.0))
        kept = spread(frame.left, frame.windows, moved, self._options.overlap)
        part = self._part(moved, frame.restored, kept)
        frame.restored = frame.restored + part * (moved - frame.restored)
        frame.own = frame.own * (1 - part)

    def _part(self, moved: np.ndarray, restored: np.ndarray, kept: np.ndarray) -> np.ndarray:
        """Return how much a moved neighbour counts in a restored frame, (H, W, 1) up to 0.9.

        It counts nothing where they differ by more than contrasts explain; nor, where a frame is
        `kept` (H, W, 1) as it is, without being sharper.
        """
        smooth = partial(self._cv2.GaussianBlur, ksize=(0, 0))
        mean = partial(self._cv2.transform, m=np.full((1, 3), 1 / 3))
        light = mean(restored)
        differ = smooth(mean(np.square(moved - restored)), sigmaX=NEARBY)
        contrast = smooth(light * light, sigmaX=NEARBY) - smooth(light, sigmaX=NEARBY) ** 2
        alike = np.exp(-differ / (DIFFERENT**2 + CONTRAST * contrast.clip(0)))
        slopes = (np.gradient(mean(smooth(x, sigmaX=0.7))) for x in (moved, restored))
        power = [smooth(y * y + x * x, sigmaX=AROUND) + 1e-5 for y, x in slopes]
        sharper, same = SHARPER * np.log(power[0] / power[1]), kept[..., 0]
        own = 1 / (1 + np.exp(-sharper - EQUAL))
        counts = same * np.tanh(sharper / 2).clip(0) + (1 - same) * own
        return (alike * counts).clip(0, 0.9)[..., None].astype(np.float32)

    # ---- from the frame before -------------------------------------------------------------------

    def _learned(self, places: Sequence[Window], before: FilmFrame) -> list[SelectedKernel]:
        """Return what the frame before says, in every gamma as long as no kernel was believed."""
        gammas = self._options.gammas
        if self._light is not None:
            return self._explaining(places, before, gammas[self._light])
        found = [self._explaining(places, before, gamma) for gamma in gammas]
        gains = [[best.gain for best in kernels] for kernels in zip(*found, strict=True)]
        return found[self._choice.light(gains)]

    def _explaining(
        self, places: Sequence[Window], before: FilmFrame, gamma: float
    ) -> list[SelectedKernel]:
        """Return the kernels of all windows for a gamma, found in half size, then in full size."""
        size, seen = largest(places[0].cut(self._frame)), self._options.seen
        half, old = shrunk(self._frame, 0.5), shrunk(before.shown, 0.5)
        guide = self._moved(old, self._coarse_flow)
        earlier = before.kernels or [None] * len(places)

        def halved(place: Window, before: Tensor | None) -> GuidedPart:
            place = Window(place.top // 2, place.left // 2, place.height // 2, place.width // 2)
            common = self._moved(old, _common_flow(self._coarse_flow, place), place)
            return GuidedPart.of(seen // 2, before, place.cut(half), place.cut(guide), common)

        parts = self._choice.each(halved, places, earlier)
        coarse = partial(self._coarse, gamma=gamma, side=(size // 2) | 1)
        found = self._shared(parts, earlier, coarse)
        kernels = [kernels_at(best.kernel[None], size)[0] for best in found]
        height, width = self._frame.shape[:2]
        canvas = Canvas(height, width, 3, self._options.overlap)
        pairs = zip(places, kernels, strict=True)
        windows = [replace(place, kernel=kernel, gamma=gamma) for place, kernel in pairs]
        windows = narrowed(windows, self._options.overlap)
        for window, picture in zip(windows, self._choice.each(self._briefly, windows), strict=True):
            canvas.add(window.top, window.left, picture)
        guide = self._moved(before.shown, self._flow(canvas.image(), before.restored, SMOOTHED))
        parts = [
            GuidedPart.of(seen, own, place.cut(self._frame), place.cut(guide))
            for place, own in zip(places, earlier, strict=True)
        ]
        return self._shared(parts, kernels, partial(self._fine, gamma=gamma, size=size))

    def _briefly(self, window: Window) -> np.ndarray:
        """Return a window without its blur, by the first step of the network."""
        photo, kernel = batch(self._frame, window)[0], trimmed(window.kernel[None])[0]
        picture = self._photo.undo.briefly(photo, kernel, window.gamma)
        return picture.permute(1, 2, 0).cpu().numpy()

    def _shared(
        self,
        parts: Sequence[GuidedPart],
        kernels: Sequence[Tensor | None],
        find: Callable[[Sequence[GuidedPart]], SelectedKernel],
    ) -> list[SelectedKernel]:
        """Return what `find` returns of a frame's parts, one kernel in those whose `kernels` agree.

        That is where enough and most do, as under one blur. Where a part's last guide explains
        another kernel, which promises more, it has its own.
        """
        group = _agreed(kernels)
        ends: dict[int, SelectedKernel] = {}
        if group:
            best = find([parts[n] for n in group])
            side = best.kernel.shape[-1]

            def promised(part: GuidedPart) -> float | None:
                other = self._explained([part], best.gamma, side, -1).kernels.cpu()
                unlike = other[kernel_agreement(other, best.kernel) < SAME]
                every = torch.cat([best.kernel[None], unlike])
                gains = self._choice.gains(part.photo, every, best.gamma)
                return None if gains.max() > gains[0] + EXPLAINED else float(gains[0])

            gains = self._choice.each(promised, [parts[n] for n in group])
            found = zip(group, gains, strict=True)
            ends = {n: replace(best, gain=gain) for n, gain in found if gain is not None}
        rest = [n for n in range(len(parts)) if n not in ends]
        ends |= zip(rest, self._choice.each(find, [[parts[n]] for n in rest]), strict=True)
        return [ends[n] for n in range(len(parts))]

    def _coarse(self, parts: Sequence[GuidedPart], gamma: float, side: int) -> SelectedKernel:
        """Return the one kernel (side, side) of a frame's parts in half their size.

        It is what one of their two guides explains well, or of kernels that start from these, and
        from a dot if none of them is `EXPLAINING`, the one that promises most.
        """
        explained = partial(self._explained, parts, gamma, side)
        tries = self._choice.each(explained, range(2))
        best = max(tries, key=lambda turn: float(turn.agreement))
        if (sure := float(best.agreement)) > EXPLAINED_WELL[len(parts) > 1]:
            return SelectedKernel(best.kernels[0].cpu(), gamma, sure, 0.0)
        turned = partial(self._turned, parts, gamma, between(FIRST, side))
        found = self._choice.each(turned, [turn.kernels for turn in tries])
        if max(float(sure) for _, sure in found) < EXPLAINING:
            found.append(self._turned(parts, gamma, between(0, side), dots(1)))
        kernels, trusts = map(torch.cat, zip(*found, strict=True))
        gains = self._promised(parts, gamma, kernels)
        n = int(gains.argmax())
        return SelectedKernel(kernels[n], gamma, float(trusts[n]), float(gains[n]))

    def _fine(self, parts: Sequence[GuidedPart], gamma: float, size: int) -> SelectedKernel:
        """Return the one kernel (size, size) of a frame's parts that promises most.

        It is what their guides explain, what the estimator makes of that, or that of the frame
        before in the first part if it is alike. The trust is the mean of the agreement that the
        estimator expects and of that of the first two.
        """
        plain = self._explained(parts, gamma, size, -1).kernels.cpu()
        learned, sure = self._turned(parts, gamma, between(FINE, size), plain)
        kernels, before = [plain, learned], parts[0].before
        alike = float(kernel_agreement(*kernels)[0])
        if before is not None and kernel_agreement(before, torch.cat(kernels)).max() > ALIKE:
            kernels.append(before[None])
        gains = self._promised(parts, gamma, torch.cat(kernels))
        best = int((gains + EXPLAINED * (np.arange(len(gains)) != 1)).argmax())
        trust = (float(sure[0]) + alike) / 2
        return SelectedKernel(kernels[best][0], gamma, trust, float(gains[best]))

    def _turned(
        self, parts: Sequence[GuidedPart], gamma: float, sides: Sequence[int], start: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the one kernel (1, s, s) of some of a frame's parts after learned turns."""
        photos = np.stack([part.photo for part in sampled(parts)])
        return self._choice.turned(photos, gamma, start, sides, sides[-1])

    def _promised(self, parts: Sequence[GuidedPart], gamma: float, kernels: Tensor) -> np.ndarray:
        """Return what kernels (N, s, s) promise in some of a frame's parts, on the mean."""
        promised = partial(self._choice.gains, kernels=kernels, gamma=gamma)
        photos = [part.photo for part in sampled(parts)]
        return np.mean(self._choice.each(promised, photos), axis=0)

    @torch.inference_mode()
    def _explained(self, parts: Sequence[GuidedPart], gamma: float, size: int, guide: int) -> Turn:
        """Return the turn whose pictures are guides of the parts, from the least-squares kernel.

        It is one kernel for all parts of a frame.
        """
        estimator, device = self._choice.estimator, self._photo.undo.device
        photos, picture = (
            torch.from_numpy(np.stack(x)).permute(0, 3, 1, 2).clamp(0, 1).to(device)
            for x in ([p.photo for p in parts], [p.guides[guide] for p in parts])
        )
        light = (picture.clamp(1e-4, 1) ** gamma).mean(1)
        seen_light = (photos**gamma).mean(1)
        kernels = kernels_between(light, seen_light, size, self._options, together=True)
        seen = view(photos, photos.new_full((len(photos),), gamma), size)
        gradients = torch.stack(forward_differences(light), 1)
        return estimator.turn(seen, kernels, picture, gradients * estimator.kept(gradients))

    def _believes(self, number: int, best: SelectedKernel) -> bool:
        """Return whether a window's kernel promises enough, the less if that before did."""
        o = self._options
        before = self._before.believed if self._before is not None else []
        caution = CAUTION / STEADY if number < len(before) and before[number] else CAUTION
        enough = best.gain >= caution * (1 - best.trust) ** 2
        return enough and best.trust >= o.trust and blurs(best.kernel, o)

    # ---- as a photo ------------------------------------------------------------------------------

    def _as_photo(self, windows: list[Window]) -> list[Window]:
        """Return the windows of a frame as of a photo, and keep their kernels."""
        self._believed, self._kernels = [], []
        if len(windows) == len(self._places):
            size = largest(self._places[0].cut(self._frame))
            self._believed = [window.believed for window in windows]
            self._kernels = [kernels_at(window.kernel[None], size)[0] for window in windows]
        self._decide_light([window.gamma for window in windows if window.believed])
        return windows

    def _decide_light(self, gammas: Sequence[float]) -> None:
        """Keep the gamma of the first kernels that are trusted for the whole scene."""
        if self._light is None and gammas:
            self._light = self._options.gammas.index(max(gammas, key=gammas.count))

    def _alone(self, place: Window) -> tuple[SelectedKernel, bool]:
        """Return a kernel that is searched for in this frame alone, and whether to believe it."""
        o, light = self._options, self._light or 0
        photo = central_crop(place.cut(self._frame), o.seen, o.seen)
        found = self._choice.starts(photo, light)
        best = self._choice.finished(photo, found, found.best, light)
        return best, self._choice.believes(best) and best.trust >= o.trust

    # ---- registration ----------------------------------------------------------------------------

    def _softened(self, image: np.ndarray) -> np.ndarray:
        """Return a frame in half its size, so soft that frames of different blur are alike."""
        return self._cv2.GaussianBlur(shrunk(image, 0.5), (0, 0), 1.5)

    def _flow(self, image: np.ndarray, before: np.ndarray, deviation: float) -> np.ndarray:
        """Return from where in `before` each pixel of an image came: (H, W, 2), x, y, smoothed."""
        both = (gray(self._cv2, from_float(x, np.uint8)) for x in (image, before))
        return self._cv2.GaussianBlur(self._dis.calc(*both, None), (0, 0), deviation)

    def _moved(
        self, image: np.ndarray, flow: np.ndarray, place: Window | None = None
    ) -> np.ndarray:
        """Return an image moved by a flow, (h, w, C), or a window of it by its own flow."""
        top, left = (place.top, place.left) if place is not None else (0, 0)
        rows, columns = np.mgrid[: flow.shape[0], : flow.shape[1]].astype(np.float32)
        x, y = columns + left + flow[..., 0], rows + top + flow[..., 1]
        cv2 = self._cv2
        return cv2.remap(image, x, y, cv2.INTER_CUBIC, None, cv2.BORDER_REPLICATE)


def series_of(record: Record) -> tuple[str, int] | None:
    """Return the series of frames that a record belongs to, and its number there, if it does.

    That is a film, or images of one sequence, or those in a folder with numbers as names.
    """
    attrs, (folder, _, stem) = record.attrs, record.name.rpartition("/")
    if "film" in attrs and "frame" in attrs:
        return f"{attrs['film']} {attrs.get('source')}", int(attrs["frame"])
    number = re.search(r"\d+$", stem, re.ASCII)
    if number is None or ("sequence" not in attrs and number[0] != stem):
        return None
    return f"{folder} {attrs.get('sequence')}", int(number[0])


def _agreed(kernels: Sequence[Tensor | None]) -> list[int]:
    """Return which kernels agree with the likest of them, as under one blur, if most do."""
    known = {n: kernel for n, kernel in enumerate(kernels) if kernel is not None}
    if len(known) < ENOUGH:
        return []
    every = torch.stack([*known.values()])
    alike = kernel_agreement(every[:, None], every)
    likest = alike[int(alike.sum(1).argmax())].tolist()
    group = [n for n, agreed in zip(known, likest, strict=True) if agreed >= SAME]
    return group if len(group) >= ENOUGH and 2 * len(group) > len(kernels) else []


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two images, 0 if one of them is of one colour."""
    a, b = (image.ravel() - image.mean(dtype=np.float64) for image in (first, second))
    power = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / power if power > 1e-6 * a.size else 0.0


def _common_flow(flow: np.ndarray, place: Window, step: int = 8, rounds: int = 6) -> np.ndarray:
    """Return the affine movement (h, w, 2) of most of a window: what moves by itself counts less.

    Its pixels, one in every `step`, are weighted by Cauchy's robust loss, with a scale of 0.5.
    """
    own = place.cut(flow)
    rows, columns = np.mgrid[: own.shape[0], : own.shape[1]].astype(np.float32) / own.shape[0] - 0.5
    basis = np.stack([np.ones_like(rows), rows, columns], 2)
    few, wanted = (x[::step, ::step].reshape(-1, x.shape[2]) for x in (basis, own))
    weights = np.ones((len(few), 1))
    for _ in range(rounds):
        found, *_ = np.linalg.lstsq(few * weights, wanted * weights, rcond=None)
        off = np.square(wanted - few @ found).sum(1, keepdims=True)
        weights = 1 / np.sqrt(1 + off / 0.5**2)
    return (basis @ found).astype(np.float32)
