"""Blind deblurring of records: the searches of photos and tiles, and their results.

Algorithm 1 of "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021); its steps are
in `search.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from blurkit.engine.engine import OVERLAP, Canvas, starts
from blurkit.errors import BlurkitError, UsageError, is_out_of_memory
from blurkit.io.checkpoints import load_tensors, save_tensors
from blurkit.io.records import Record, from_float, to_float
from blurkit.options import check_strength
from blurkit.systems.kernel_space.objective import SearchContext, make_context
from blurkit.systems.kernel_space.search import Search, SearchResult, advance, find_blur
from blurkit.systems.kernel_space.search_options import BlindOptions
from blurkit.systems.uses import Estimate

TILE = 512
"""Default side of a tile in pixels; larger photos are searched in tiles."""

NEAREST = BlindOptions(
    operator="convolution", kernel_rate=1e-3, code_norm=(0, 0), gradient=(0, 0), switch=0.0
)
"""The search for the kernel that is nearest to a code."""


class Job:
    """The search for the blur of a record's `blur` image, whole or in overlapping tiles.

    A photo is searched whole if its sides are at most `tile` pixels, or with `whole`. Raises
    BlurkitError if the record has no `blur`, or if the StyleGAN does not support the size of the
    photo; UsageError if `tile` or `overlap` is invalid.
    """

    def __init__(
        self,
        record: Record,
        context: SearchContext,
        tile: int | None = None,
        overlap: int | None = None,
        whole: bool = False,
    ) -> None:
        self.record, self.context = record, context
        image = to_float(record.image("blur"))
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        self._photo = image
        height, width = image.shape[:2]
        _check_style(record.name, height, width, context)
        whole = whole or context.style is not None
        side = max(height, width) if whole else _checked_tile(tile, context)
        self._overlap = min(OVERLAP, side // 2) if overlap is None else overlap
        if not 0 <= self._overlap <= side // 2:
            raise UsageError(f"--overlap {self._overlap}: must be from 0 to half the tile ({side})")
        self._size = min(height, side), min(width, side)
        self.places = [
            (top, left)
            for top in starts(height, side, self._overlap)
            for left in starts(width, side, self._overlap)
        ]
        self.searches = [self._search(number) for number in range(len(self.places))]

    def _search(self, number: int) -> Search:
        context, name = self.context, self.record.name
        seed = _seed(context.options.seed, zlib.crc32(name.encode()), number)
        tile = self._tile(number)
        estimator = partial(self._estimate, number) if context.estimator else None
        label = f"{name}, tile {number}" if len(self.places) > 1 else name
        return Search(context, self._padded(tile), seed, None, estimator, label)

    def _estimate(self, number: int) -> Estimate:
        """Return the estimate that the search of a tile starts from, padded like the tile."""
        assert self.context.estimator is not None
        estimate = self.context.estimator(self._tile(number))
        picture = estimate.picture[0].permute(1, 2, 0).numpy()
        return replace(estimate, picture=self._padded(picture))

    @property
    def finished(self) -> bool:
        """Whether all its searches are finished."""
        return all(search.finished for search in self.searches)

    @property
    def iteration(self) -> int:
        """The number of image steps so far, over all tiles."""
        return sum(search.iteration for search in self.searches)

    @property
    def fingerprint(self) -> int:
        """A checksum that identifies the photo."""
        return zlib.crc32(self._photo.tobytes())

    def _tile(self, number: int) -> np.ndarray:
        (top, left), (height, width) = self.places[number], self._size
        return self._photo[top : top + height, left : left + width]

    def _padded(self, tile: np.ndarray) -> Tensor:
        """Return a tile (1, 3, H, W), mirrored right and below to a size for the operator."""
        height, width = tile.shape[:2]
        rows, columns = self.context.operator.size.padded(height, width)
        mode: Literal["reflect", "edge"] = "reflect" if min(height, width) > 1 else "edge"
        tile = np.pad(tile, ((0, rows - height), (0, columns - width), (0, 0)), mode=mode)
        return torch.from_numpy(np.ascontiguousarray(tile.transpose(2, 0, 1)[None]))

    def picture(self) -> np.ndarray:
        """Return the current image, in the size and bit depth of the photo."""
        return self._joined([search.picture for search in self.searches])[0]

    def _joined(self, pictures: Sequence[Tensor]) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the picture of all tiles, and the move, down and right, of the last one."""
        height, width, channels = self._photo.shape
        canvas, moved = Canvas(height, width, channels, self._overlap), (0, 0)
        for (top, left), search, picture in zip(self.places, self.searches, pictures, strict=True):
            if search.iteration:
                picture, moved = self.context.operator.placed(picture, search.photo)
            # A diverging search may contain NaN before the next check notices it.
            values = picture[0].float().nan_to_num().clamp(0, 1).cpu().numpy().transpose(1, 2, 0)
            canvas.add(top, left, values[: self._size[0], : self._size[1]])
        return self._as_photo(canvas.image()), moved

    def _as_photo(self, image: np.ndarray) -> np.ndarray:
        blur = self.record.image("blur")
        if blur.shape[2] == 1:
            image = image.mean(axis=2, keepdims=True)
        return from_float(image, blur.dtype)

    def check_one_blur(self) -> None:
        """Raise BlurkitError if the photo is searched in tiles, whose blurs differ."""
        if len(self.searches) > 1:
            raise BlurkitError(
                f"{self.record.name}: searched in {len(self.searches)} tiles, each with its own "
                "blur; use a larger --tile to keep one kernel"
            )

    def _blur(self) -> Tensor:
        self.check_one_blur()
        blur = self.searches[0].found.blur
        if blur is None:
            raise BlurkitError(f"{self.record.name}: no blur was found")
        return blur

    def kernel(self) -> np.ndarray:
        """Return the blur that was found as float32.

        It is a code (values, rows, columns) or a kernel (side, side). Raises BlurkitError if the
        photo was searched in tiles or no blur was found.
        """
        kernel: np.ndarray = self._blur()[0].float().cpu().numpy()
        return kernel[0] if self.context.options.operator == "convolution" else kernel

    def kernel_picture(self) -> np.ndarray:
        """Return a picture of that blur, (H, W, 1) uint8: the kernel, or points blurred by a code.

        Raises BlurkitError as `kernel` does.
        """
        return self.context.operator.shown(self._blur())

    def convolution(self) -> tuple[np.ndarray, float]:
        """Return the kernel (side, side) nearest to the blur that was found, and how near.

        That is the kernel itself, or the one by which the picture comes closest to the photo if the
        blur is a code; and the PSNR in dB between the two. Raises BlurkitError as `kernel` does.
        """
        (search,) = self.searches
        found = search.found
        self._blur()
        if self.context.options.operator == "convolution":
            return self.kernel(), found.reproduced
        picture, _ = self.context.operator.placed(found.picture, search.photo)
        blurry, sharp = (
            i[0].clamp(0, 1).cpu().permute(1, 2, 0).numpy() for i in (search.photo, picture)
        )
        context = make_context(
            replace(NEAREST, kernel_size=self.context.options.kernel_size),
            device=str(self.context.device),
            precision="fp32",
        )
        nearest = find_blur(context, blurry, sharp, self.context.options.seed)
        assert nearest.blur is not None
        return nearest.blur[0, 0].cpu().numpy(), nearest.reproduced

    def result(self, by: str, strength: float = 1.0, keep_kernel: bool = False) -> Record:
        """Return the record with `restored` and attributes that describe the search.

        `strength`, 0 to 1, is the fraction of the change that is kept. With `keep_kernel` the
        attribute `kernel` is the blur that was found, and `kernel_move` how many pixels the picture
        was moved down and right from where this blur makes the photo of it. Raises BlurkitError as
        `kernel` does, and UsageError if `strength` is not between 0 and 1.
        """
        check_strength(strength)
        results = [search.found for search in self.searches]
        restored, moved = self._joined([result.picture for result in results])
        if strength < 1:
            blur = to_float(self.record.image("blur"))
            mixed = blur + strength * (to_float(restored) - blur)
            restored = from_float(mixed, restored.dtype)
        about = self._about(results)
        if keep_kernel and not ("blind_diverged" in about and results[0].blur is None):
            about |= {"kernel": self.kernel(), "kernel_move": np.array(moved)}
        about |= {
            "restored_by": by,
            "restored_with": self.described(),
            "restored_strength": float(strength),
        }
        images = {**self.record.images, "restored": restored}
        return Record(self.record.name, images, self.record.attrs | about)

    def _about(self, results: Sequence[SearchResult]) -> dict[str, Any]:
        """Return the attributes that describe how the searches went."""
        about: dict[str, Any] = {
            "restored_seconds": round(sum(search.seconds for search in self.searches), 4),
            "blind_iterations": max(search.last.iteration for search in self.searches),
            "blind_kept": max(result.iteration for result in results),
            "blind_objective": float(np.mean([result.objective for result in results])),
        }
        if all(result.terms for result in results):
            worst = min(result.reproduced for result in results)
            about["blind_reproduced"] = round(worst, 2)
        estimates = [search.estimate for search in self.searches if search.estimate]
        if estimates:
            about["blind_started"] = sum(search.started for search in self.searches)
            about["blind_trust"] = round(min(estimate.trust for estimate in estimates), 4)
        if diverged := max(search.diverged for search in self.searches):
            about["blind_diverged"] = diverged
        return about

    def described(self) -> str:
        """Return a short description of the search, which records keep."""
        context = self.context
        where = (
            f"precision={str(context.dtype).removeprefix('torch.')} device={context.device.type}"
        )
        tiles = f" tiles={len(self.searches)}" if len(self.searches) > 1 else ""
        return f"{context.options.described()} {where}{tiles}"

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which its searches can be resumed."""
        return {
            "photo": self.fingerprint,
            "searches": [search.state_dict() for search in self.searches],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state. Raises BlurkitError if it belongs to another photo."""
        if state["photo"] != self.fingerprint or len(state["searches"]) != len(self.searches):
            raise BlurkitError(f"{self.record.name}: the saved search belongs to another photo")
        for search, own in zip(self.searches, state["searches"], strict=True):
            search.load_state_dict(own)


def _seed(seed: int, name: int, tile: int) -> int:
    return int(np.random.default_rng([seed, name, tile]).integers(2**62))


def _checked_tile(tile: int | None, context: SearchContext) -> int:
    side = TILE if tile is None else tile
    size = context.operator.size
    if side % size.multiple or side < size.minimum:
        raise UsageError(
            f"--tile {side}: this search needs a multiple of {size.multiple}, "
            f"at least {size.minimum}"
        )
    return side


def _check_style(name: str, height: int, width: int, context: SearchContext) -> None:
    """Raise BlurkitError unless the photo is square, with a side that the StyleGAN can produce."""
    if context.style is None:
        return
    whole = context.style[0].resolution
    sides = [whole // n for n in (1, 2, 4, 8) if whole % n == 0]
    fitting = [side for side in sides if context.operator.size.padded(side, side) == (side, side)]
    if height != width or height not in fitting:
        sizes = " or ".join(f"{side}x{side}" for side in fitting) or "no size that F accepts"
        raise BlurkitError(
            f"{name}: is {width}x{height}; this generator's images, {whole}x{whole}, "
            f"only fit photos of {sizes}"
        )


# ---- Runs ----------------------------------------------------------------------------------------


def run(
    jobs: Sequence[Job],
    batch: int = 1,
    watch: Callable[[Sequence[Search]], bool | None] = lambda group: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Iterator[Job]:
    """Run all jobs, up to `batch` searches of one size together, and yield each finished job.

    `watch` is called with the group after each of its steps; the run ends if it returns True. If
    memory runs out, the run continues with smaller groups. `warn` is called with a message when
    that happens, or when a search cannot start from its estimate. Raises BlurkitError if memory
    runs out for a single search.
    """
    yielded: set[int] = set()
    while True:
        for job in jobs:
            if job.finished and id(job) not in yielded:
                yielded.add(id(job))
                _warn_if_high(job, warn)
                yield job
        waiting = [s for job in jobs for s in job.searches if not s.finished]
        if not waiting:
            return
        group = [s for s in waiting if s.photo.shape == waiting[0].photo.shape][:batch]
        try:
            for search in group:
                search.begin(warn)
            while group:
                advance(group)
                if watch(group):
                    return
                group = [search for search in group if not search.finished]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(group) == 1:
                raise BlurkitError("out of memory; try a smaller --tile") from error
        else:
            continue
        batch = len(group) // 2
        warn(f"out of memory; continuing with {batch} searches at a time")


def _warn_if_high(job: Job, warn: Callable[[str], None]) -> None:
    """Call `warn` if the worst search of a job ended before it reproduced the photo."""
    enough = min(search.context.options.enough for search in job.searches)
    reproduced = min(search.found.reproduced for search in job.searches)
    if reproduced < enough and not any(search.diverged for search in job.searches):
        warn(
            f"{job.record.name}: the search ended high: its image and blur reproduce the photo "
            f"with only {reproduced:.1f} dB (--enough {enough:g}); it needs more --iterations, or "
            "the blur is not one that --operator can make"
        )


# ---- Saved searches ------------------------------------------------------------------------------

SEARCH_FORMAT = "blurkit-blind-search"


@dataclass
class SavedSearches:
    """The states of unfinished jobs by their records' names, and the names of finished jobs.

    `about` holds, by option, what a run must have in common with the one that saved the states.
    """

    about: dict[str, Any]
    jobs: dict[str, Any] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)

    def save(self, path: Path, jobs: Sequence[Job] = (), finished: Iterable[str] = ()) -> None:
        """Write the states of unfinished jobs, atomically."""
        state = {
            "format": SEARCH_FORMAT,
            "about": self.about,
            "jobs": {job.record.name: job.state_dict() for job in jobs if not job.finished},
            "finished": list(finished),
        }
        save_tensors(state, path)

    def load(self, path: Path) -> SavedSearches:
        """Return the contents of a file, or no searches if it does not exist.

        Raises BlurkitError for another kind of file, and for searches with other options.
        """
        if not path.exists():
            return SavedSearches(self.about)
        with path.open("rb") as file:
            state = load_tensors(file, str(path))
        if not isinstance(state, dict) or state.get("format") != SEARCH_FORMAT:
            raise BlurkitError(f"{path}: is not the saved state of a blind search")
        stored = state["about"]
        # Options that a version did not have yet changed nothing in its searches.
        known = [key for key in self.about if key in stored]
        if changed := [key for key in known if stored[key] != self.about[key]]:
            differences = ", ".join(f"{k} {stored.get(k)} (now {self.about[k]})" for k in changed)
            raise BlurkitError(
                f"{path}: was searched with {differences}; resume with the same options"
            )
        return SavedSearches(stored, state["jobs"], state["finished"])
