"""Deblurring of records by their own blur, estimated or known."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import nn

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, Say
from blurkit.io.records import (
    WHOLE_IMAGE_ATTRS,
    Attributes,
    Image,
    Record,
    central_crop,
    from_float,
    to_float,
)
from blurkit.options import Precision
from blurkit.synthesis.kernels import NO_BLUR, KernelSheet
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.estimator import BlurEstimator
from blurkit.systems.deconvolution.film import FilmEstimate, series_of
from blurkit.systems.deconvolution.fourier import cleaned, shape, trimmed
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.nonblind import (
    Watch,
    detailed,
    instead,
    needless,
    placed,
    undone,
    unwatched,
)
from blurkit.systems.deconvolution.photo import Deconvolution, in_colour
from blurkit.systems.deconvolution.windows import (
    Window,
    copy_scale,
    exposed,
    exposure_middle,
    known,
    scaled,
    spared,
    still_blurred,
    typical,
    unchanged,
)
from blurkit.systems.uses import Estimate, Estimator

LEAST = 1e-9
"""Least value of a kernel from a sheet, so that its size, on which results depend, stays."""

PART_OF = "part_of"
"""The attribute of a part of a photo that is the height and width of the photo."""


def deconvolving(networks: Mapping[str, nn.Module]) -> Deconvolver | None:
    """Return the network that undoes known blur, or None without one."""
    network = networks.get("deconvolution")
    return network if isinstance(network, Deconvolver) else None


def photo_restorer(
    network: Deconvolver,
    device: str,
    precision: Precision,
    estimator: BlurEstimator | None = None,
    **options: Any,
) -> WindowDeblurring:
    """Return the deblurring of records; `options` are the other fields of `WindowDeblurring`.

    Without an `estimator`, kernels are found by the one that comes with blurkit.
    """
    deconvolution = Deconvolution(network, WindowOptions(), device, precision, estimator)
    return WindowDeblurring(deconvolution, **options)


def start_estimator(network: Deconvolver, device: str, precision: Precision) -> Estimator:
    """Return the function that estimates the blur from which a blind search starts."""
    return partial(search_start, photo_restorer(network, device, precision, checkpoint=""))


@dataclass(frozen=True)
class RestoredImage:
    """A restored image (H, W, 3), its windows, which are `left` as they are, and its offset.

    How much of it, 0 to 1, is `unexplained`, is that of `Undone`; of a film's frame, `guided` is
    how much its neighbours are.
    """

    picture: np.ndarray
    windows: list[Window]
    left: list[bool]
    offset: tuple[float, float]
    unexplained: float
    guided: float | None = None


@dataclass
class WindowDeblurring:
    """Deblurs records by the blur of their windows.

    `kernel` (h, w) is the blur of every photo, if it is known, with `gamma` as the exponent from
    pixel values to the blurred light, or a sheet of what was found in the windows of a photo;
    otherwise the blur is estimated. `otherwise` restores windows, or parts of them, that the
    estimated blur is not expected to explain (None: they stay as they are). `watch` is called with
    the progress, `warn` with what a film lacks. `checkpoint` is the name that records store as
    `restored_by`. Frames of a film that come one after another learn from each other.
    """

    deconvolution: Deconvolution
    checkpoint: str
    kernel: np.ndarray | KernelSheet | None = None
    otherwise: Engine | None = None
    gamma: float = 2.2
    strength: float = 1.0
    keep_kernel: bool = False
    watch: Watch = unwatched
    warn: Say = lambda text: None
    _last: tuple[str, int] | None = field(default=None, init=False, repr=False)

    def __call__(self, record: Record) -> Record:
        """Return `record` with `restored`, made from its `blur` at the same size and depth.

        Attributes: `restored_by`, `restored_with`, `restored_strength` and `restored_seconds`;
        `restored_windows`, the number of windows, `restored_believed`, the number whose blur was
        undone, and `restored_left`, the number left as they are; `restored_unexplained`, how much
        of it, 0 to 1, shows more detail than its blur leaves, and is not restored by that;
        `restored_offset`, the pixels (down, right) from the kernels' centroids to the middle of the
        exposure, if the picture was moved there; of a film's frame, `restored_guided` is how much
        of it, 0 to 1, its neighbours are. If any kernel is believed, the most trusted one is
        described by `blur_length` in pixels, `blur_angle` in degrees, `blur_trust` from 0 to 1, and
        `blur_gamma`, the exponent from pixel values to the light that it blurred; with
        `keep_kernel` it is stored as `kernel`, and what `KernelSheet.of` reads. Raises BlurkitError
        without a `blur`.
        """
        begun = self.begun(record)
        return begun if isinstance(begun, Record) else begun()

    def begun(self, record: Record) -> Record | Callable[[], Record]:
        """Return what a call returns, or of a film's frame the function that finishes it.

        If that is called after the next frame was begun, the next one guides the frame as well.
        """
        started = time.perf_counter()
        image, film = to_float(record.image("blur")), self._film_of(record)
        whole, steady = size_of_whole(record), "film" in record.attrs
        finish = self.restored(in_colour(image), whole, film, steady)
        seconds = time.perf_counter() - started

        def finished() -> Record:
            started = time.perf_counter() - seconds
            return self._result(record, image, finish(), started)

        return finished() if film is None else finished

    def _result(
        self, record: Record, image: np.ndarray, made: RestoredImage, started: float
    ) -> Record:
        """Return a record with what was made of its image (H, W, C) since a moment."""
        restored = made.picture
        if image.shape[2] == 1:
            restored = restored.mean(axis=2, keepdims=True)
        restored = restored - image
        restored *= self.strength
        restored += image
        attrs = {
            **record.attrs,
            "restored_by": self.checkpoint,
            "restored_with": self._with(),
            "restored_strength": float(self.strength),
            "restored_seconds": round(time.perf_counter() - started, 4),
            "restored_windows": len(made.windows),
            "restored_believed": sum(window.believed for window in made.windows),
            "restored_left": sum(made.left),
        }
        if any(made.offset):
            attrs["restored_offset"] = np.round(made.offset, 2)
        if made.unexplained:
            attrs["restored_unexplained"] = round(made.unexplained, 3)
        if made.guided is not None:
            attrs["restored_guided"] = round(made.guided, 3)
        found = described(made.windows)
        if found and self.keep_kernel:
            found |= sheet_of(made.windows, made.left)
        elif found:
            del found["kernel"]
        dtype = record.image("blur").dtype
        images = {**record.images, "restored": from_float(restored, dtype)}
        return Record(record.name, images, attrs | found)

    def estimated(self, blur: Image) -> Attributes:
        """Return what `described` tells of the blur of an image (H, W, C) of any depth."""
        image = in_colour(to_float(blur))
        copy = self._copied(image)
        return described(scaled(self._windows(image, copy), copy, image))

    @cached_property
    def _film(self) -> FilmEstimate | None:
        """The estimate of films, or None without OpenCV."""
        try:
            return FilmEstimate(self.deconvolution)
        except BlurkitError as error:
            self.warn(f"{error}; until then, each frame of a film is restored like a photo")
            return None

    def _film_of(self, record: Record) -> FilmEstimate | None:
        """Return the film that a record goes on with or begins, None if it is a photo."""
        before, self._last = self._last, series_of(record)
        if self._last is None or self.kernel is not None or self._film is None:
            return None
        if before is None or self._last != (before[0], before[1] + 1):
            self._film.forget()
        return self._film

    def _copied(self, image: np.ndarray, whole: Sequence[int] | None = None) -> np.ndarray:
        """Return an image, or the copy in which its blur is found and undone if it is large.

        It may be a part of a photo with the height and width `whole`. A kernel that is known is
        exact only in the image itself.
        """
        if isinstance(self.kernel, np.ndarray):
            return image
        height, width = image.shape[:2] if whole is None else whole
        return exposed(image, copy_scale(int(height), int(width), self.deconvolution.options))

    def _windows(
        self, image: np.ndarray, copy: np.ndarray, film: FilmEstimate | None = None
    ) -> list[Window]:
        """Return the windows of the copy of an image."""
        if isinstance(self.kernel, KernelSheet):
            return scaled(laid(image, self.kernel, self.deconvolution.options), image, copy)
        if self.kernel is not None:
            return known(copy, self.kernel, self.deconvolution.options, self.gamma)
        if film is not None:
            return film.windows(copy)
        return self.deconvolution.windows(copy, self.watch)

    def restored(
        self,
        image: np.ndarray,
        whole: Sequence[int] | None = None,
        film: FilmEstimate | None = None,
        steady: bool = False,
    ) -> Callable[[], RestoredImage]:
        """Return the function that finishes a restored image.

        The offset is `exposure_middle`, at which the picture is shown in windows with a kernel, and
        (0, 0) in frames of a film, which have to be `steady`, or that follow others. A window in
        which the network finds nothing to restore is sharp, whatever would be estimated there; in a
        photo of such windows nothing is estimated. All of it is done in a smaller copy of a large
        image, to which its detail is added, and so is the image a part of a photo of the size
        `whole`.
        """
        copy, o, undo = (
            self._copied(image, whole),
            self.deconvolution.options,
            self.deconvolution.undo,
        )
        if film is not None:
            film.begin(copy)

        def factors(found: Sequence[Window]) -> list[float]:
            return [] if film is None else film.factors(found)

        rest = None
        if self.otherwise is None:
            windows = self._windows(image, copy, film)
            same = [not window.believed for window in windows]
        else:
            restored = self.otherwise(copy)
            windows = self.deconvolution.places(copy)
            same = unchanged(copy, restored, windows, o, factors(windows))
            if not all(same):
                windows = self._windows(image, copy, film)  # larger ones, if the blur is long
                same = unchanged(copy, restored, windows, o, factors(windows))
                same = still_blurred(windows, same)
                if isinstance(self.kernel, KernelSheet):  # which says what is sharp
                    sharp = [window.trust > 0 and not window.believed for window in windows]
                    same = [a or b for a, b in zip(same, sharp, strict=True)]
                else:
                    same = needless(undo, copy, restored, windows, same, o, factors(windows))
                windows = instead(undo, copy, restored, windows, same, o)
            rest = spared(copy, restored, windows, same, o)
        watch = self.watch if film is None else unwatched  # a film's progress is of its frames
        made = undone(undo, copy, windows, rest, o, watch)
        alone = film is None or film.begins
        frame = None if film is None else film.end(made.picture, windows, same)

        def finished() -> RestoredImage:
            parts, guided, overlap, found = made, None, o.overlap, scaled(windows, copy, image)
            if frame is not None:
                picture, guided = frame.finished()
                parts = replace(made, picture=picture)
            if copy is not image:
                overlap = round(o.overlap * image.shape[0] / copy.shape[0])
                parts = detailed(image, copy, parts, found, overlap, undo.device)
            offset = exposure_middle(found) if alone and not steady else (0.0, 0.0)
            picture = placed(parts.picture, found, offset, overlap)
            return RestoredImage(picture, found, same, offset, parts.unexplained, guided)

        return finished

    def _with(self) -> str:
        o = self.deconvolution.options
        about = f"window={o.window} overlap={o.overlap} {self.deconvolution.describe()}"
        return about if self.otherwise is None else f"{about}; else {self.otherwise.summary()}"


def window_in_the_middle(record: Record) -> Record:
    """Return the middle of a record's images, as large as a window in which blur is estimated."""
    height, width = record.image("blur").shape[:2]
    side = middle_side(height, width)
    images = {role: central_crop(image, side, side) for role, image in record.images.items()}
    attrs = {k: v for k, v in record.attrs.items() if k not in WHOLE_IMAGE_ATTRS}
    return Record(record.name, images, attrs | {PART_OF: np.array([height, width])})


def size_of_whole(record: Record) -> tuple[int, int] | None:
    """Return the height and width of the photo whose middle a record is, None of other records.

    What a file from elsewhere claims counts only if `window_in_the_middle` would have made it.
    """
    size, shape = record.attrs.get(PART_OF), record.image("blur").shape[:2]
    if not isinstance(size, np.ndarray) or size.shape != (2,) or size.dtype.kind not in "iu":
        return None
    whole = int(size[0]), int(size[1])
    side = middle_side(*whole) if min(whole) > 0 else 0
    return whole if shape == (min(side, whole[0]), min(side, whole[1])) else None


def middle_side(height: int, width: int) -> int:
    """Return the side of the window in the middle of a photo."""
    o = WindowOptions()
    return round(o.window / copy_scale(height, width, o))


def described(windows: list[Window]) -> Attributes:
    """Return what records store of the most trusted of the believed blurs, {} if none is."""
    best = typical(windows)
    if best is None:
        return {}
    form = shape(best.kernel)
    return {
        "kernel": best.kernel.cpu().double().numpy(),
        "blur_length": round(form.length, 1),
        "blur_angle": round(form.angle, 1) % 180,
        "blur_trust": round(best.trust, 3),
        "blur_gamma": best.gamma,
    }


def _undone_in(record: Record, believed: int, windows: int) -> str:
    """Return where in a record a blur was undone: in which windows, and where a mask shows."""
    masked = "where the mask is not black" if "restored_masked" in record.attrs else ""
    if believed < windows:
        return ", ".join(filter(None, [f"in {believed} of {windows} windows", masked]))
    return masked or ("in all of it" if PART_OF in record.attrs else "in the whole photo")


def windows_summary(record: Record, otherwise: bool = False) -> str:
    """Return a line that says which windows of a record were restored by their own blur.

    `otherwise` says that a network restored the rest.
    """
    windows, believed, left = (
        record.attrs[f"restored_{what}"] for what in ("windows", "believed", "left")
    )
    if believed and record.attrs["blur_length"] >= 1:
        length, angle = record.attrs["blur_length"], record.attrs["blur_angle"]
        part = _undone_in(record, believed, windows)
        if beyond := visible_share(record, "restored_unexplained"):
            part += f", but for {beyond:.0%} with more detail than it leaves"
        found = f"blur of {length:.0f} pixels at {angle:.0f} degrees undone {part}"
        rest = ", the rest " if otherwise and believed < windows else ""
    else:
        found = "no uniform blur found in any part"
        rest = "; " if otherwise else ""
    if rest and windows and left == windows - believed:
        rest += "left as it is"
    elif rest:
        some = f", {left} of {windows} windows left as they are" if left else ""
        rest += f"restored by the network{some}"
    share = visible_share(record, "restored_guided")
    mixed = f", with {share:.0%} of neighbouring frames mixed in" if share else ""
    return f"{found}{rest}{mixed}"


def visible_share(record: Record, name: str) -> float:
    """Return an attribute of a record that is a share, 0 to 1; 0 if that is next to nothing."""
    share = float(record.attrs.get(name, 0))
    return share if share >= 0.01 else 0.0


# ---- Sheets of kernels ---------------------------------------------------------------------------


def spaced(length: int, side: int, count: int) -> list[int]:
    """Return where `count` windows start along a side of a photo, or as many as cover it."""
    if length <= side:
        return [0]
    count = max(count, math.ceil(length / side))
    step = math.ceil((length - side) / (count - 1))
    return [min(number * step, length - side) for number in range(count)]


def laid(image: np.ndarray, sheet: KernelSheet, options: WindowOptions) -> list[Window]:
    """Return the windows of a photo (H, W, C) with the kernels of a sheet.

    A photo that is covered by more windows has the kernel at its place in each. Kernels without
    blur are not believed; the trust in one that is unknown is 0.
    """
    sides = [min(sheet.side or options.window, length) for length in image.shape[:2]]
    counts = sheet.kernels.shape[:2]
    rows, columns = map(spaced, image.shape[:2], sides, counts)
    windows = []
    for (row, top), (column, left) in product(enumerate(rows), enumerate(columns)):
        down = int((row + 0.5) * counts[0] / len(rows))
        right = int((column + 0.5) * counts[1] / len(columns))
        kernel = torch.from_numpy(sheet.kernels[down, right])
        trust, blurred = float(kernel.sum() > 0), 0 < float(kernel.max()) < NO_BLUR
        place = top, left, sides[0], sides[1]
        kernel = kernel.clamp_min(LEAST) if blurred else kernel
        windows.append(Window(*place, kernel, sheet.gamma, trust, blurred))
    return windows


def sheet_of(windows: Sequence[Window], same: Sequence[bool]) -> Attributes:
    """Return the attributes that `KernelSheet.of` reads, from which `laid` makes these windows.

    Windows that stay the `same` have a kernel without blur, others that are not believed none.
    """
    kernels = trimmed(torch.stack([w.kernel * w.believed for w in windows])).cpu().numpy()
    middle, rows = kernels.shape[-1] // 2, len({window.top for window in windows})
    for kernel, window, stays in zip(kernels, windows, same, strict=True):
        kernel[middle, middle] += stays and not window.believed
    side = max(windows[0].height, windows[0].width)
    return {"blur_kernels": kernels.reshape(rows, -1, *kernels.shape[1:]), "blur_side": side}


# ---- The kernel of a photo as a start ------------------------------------------------------------


def search_start(deblurring: WindowDeblurring, photo: np.ndarray) -> Estimate:
    """Return the blur of a photo (H, W, 3) in [0, 1], and the deblurred photo.

    The kernel is that of the most trusted window without specks of less than 2 %, in the smallest
    odd square that contains it; in the picture each window is restored with its own kernel. If the
    photo is too small to estimate a kernel, the estimate is not believed.
    """
    made = deblurring.restored(photo, steady=True)()
    least = deblurring.deconvolution.options.trust
    own = [window for window in made.windows if window.trust >= least]
    picture = made.picture.clip(0, 1) if own else photo
    best = max(own or made.windows, key=lambda window: window.trust, default=None)
    kernel = torch.ones(1, 1, 1) if best is None else cleaned(best.kernel[None], 0.02, 0.02)
    return Estimate(
        trimmed(kernel)[0].clone(),
        torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)[None])),
        0.0 if best is None else best.trust,
        bool(own),
    )
