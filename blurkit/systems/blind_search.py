"""Blind searches of records: photos and their tiles, results, and saved states.

Algorithm 1 of "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021). A `Search` of
the kernel space finds one tile; here is what a record, and what a run of many records, needs.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blurkit.engine.engine import OVERLAP, Canvas, SizeRequirement, slices
from blurkit.engine.torch_runner import Precision
from blurkit.errors import BlurkitError, Say, UsageError, is_out_of_memory, memory_errors
from blurkit.io.checkpoints import Checkpoint, load_tensors, save_tensors
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.nn.features import find_features, load_features
from blurkit.options import check_strength
from blurkit.systems.kernel_space.networks import EncodedBlur
from blurkit.systems.kernel_space.objective import Objective, SearchContext
from blurkit.systems.kernel_space.priors import load_style_prior
from blurkit.systems.kernel_space.search import Search, SearchResult, advance, find_blur
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.system import inference, load_shipped, providers
from blurkit.systems.uses import Estimate, network_for

TILE = 512
"""Default side of a tile in pixels; larger photos are searched in tiles."""

Region = tuple[int, int, int, int]
"""Left and top corner, width and height of a rectangle in pixels."""

NEAREST = SearchOptions(
    operator="convolution", kernel_rate=1e-3, code_norm=(0, 0), gradient=(0, 0), switch_at=0.0
)
"""The search for the kernel that is nearest to a code."""


def load_context(
    options: SearchOptions,
    checkpoint: Checkpoint | None = None,
    generators: Sequence[str | Path] = (),
    features: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    system: str | None = None,
) -> SearchContext:
    """Return what searches with `options` share, with all networks that they need.

    `checkpoint` holds F and G, of `system` if that is given; `generators` are the files of a
    StyleGAN, and `features` is that of a feature network, by default what `find_features` locates.
    Raises BlurkitError if a file is bad or missing, UsageError if one that is needed is not given.
    """
    estimator = None
    if options.start_estimate:
        (folder,) = providers("deconvolving")
        deconvolver = network_for("deconvolving", load_shipped(use="deconvolving"))
        estimator = inference(folder).start_estimator(deconvolver, device, precision)
    space = None if checkpoint is None else network_for("search", checkpoint, system=system)
    assert space is None or isinstance(space, EncodedBlur)
    backbone = None
    if any(Objective.from_options(options).perceptual):
        backbone = load_features(find_features(features, otherwise=", or use --objective paper"))
    style = load_style_prior(*generators) if generators else None
    return SearchContext(options, space, style, backbone, device, precision, estimator)


class TiledSearch:
    """The search for the blur of a record's `blur` image, or of a region of it.

    A region is searched whole, and so is a photo of at most `tile` pixels a side; others are
    searched in overlapping tiles. Raises BlurkitError without a `blur`, for a region that is not
    inside it and for a size that the StyleGAN lacks; UsageError for a bad `tile` or `overlap`.
    """

    def __init__(
        self,
        record: Record,
        context: SearchContext,
        tile: int | None = None,
        overlap: int | None = None,
        region: Region | None = None,
    ) -> None:
        self.record, self.context, self.region = record, context, region
        self.part = record if region is None else _crop(record, region)
        image = to_float(self.part.image("blur"))
        self._photo = image.repeat(3 // image.shape[2], axis=2)
        self._fingerprint = zlib.crc32(self._photo.tobytes())
        height, width = image.shape[:2]
        _check_style(record.name, height, width, context)
        whole = region is not None or context.style is not None
        side = max(height, width) if whole else _check_tile(tile, context)
        self._overlap = min(OVERLAP, side // 2) if overlap is None else overlap
        if not 0 <= self._overlap <= side // 2:
            raise UsageError(f"--overlap {self._overlap}: must be from 0 to half the tile ({side})")
        self._size = min(height, side), min(width, side)
        self.places = slices(height, width, side, self._overlap)
        self.searches = [self._search(number, *place) for number, place in enumerate(self.places)]

    def _search(self, number: int, top: int, left: int) -> Search:
        context, name = self.context, self.record.name
        own = np.random.default_rng([context.options.seed, zlib.crc32(name.encode()), number])
        tile = self._photo[top : top + self._size[0], left : left + self._size[1]]
        estimator = partial(self._estimate, tile) if context.estimator else None
        label = f"{name}, tile {number}" if len(self.places) > 1 else name
        photo = _padded(tile, context.operator.size)
        return Search(context, photo, int(own.integers(2**62)), None, estimator, label)

    def _estimate(self, tile: Image) -> Estimate:
        """Return the estimate that the search of a tile starts from, padded like the tile."""
        assert self.context.estimator is not None
        estimate = self.context.estimator(tile)
        picture = estimate.picture[0].permute(1, 2, 0).numpy()
        return replace(estimate, picture=_padded(picture, self.context.operator.size))

    @property
    def finished(self) -> bool:
        """Whether all its searches are finished."""
        return all(search.finished for search in self.searches)

    @property
    def iteration(self) -> int:
        """The number of image steps so far, over all tiles."""
        return sum(search.iteration for search in self.searches)

    def picture(self) -> np.ndarray:
        """Return the current image, in the size and bit depth of the photo."""
        return self._join_tiles([search.picture for search in self.searches])[0]

    def _join_tiles(self, pictures: Sequence[Tensor]) -> tuple[np.ndarray, tuple[int, int]]:
        """Return the picture of all tiles, and the move, down and right, of the last one."""
        height, width, channels = self._photo.shape
        canvas, moved = Canvas(height, width, channels, self._overlap), (0, 0)
        for (top, left), search, picture in zip(self.places, self.searches, pictures, strict=True):
            if search.iteration:
                picture, moved = self.context.operator.align(picture, search.photo)
            # A diverging search may contain NaN before the next check notices it.
            values = picture[0].float().nan_to_num().clamp(0, 1).cpu().numpy().transpose(1, 2, 0)
            canvas.add(top, left, values[: self._size[0], : self._size[1]])
        image, blur = canvas.image(), self.part.image("blur")
        if blur.shape[2] == 1:
            image = image.mean(axis=2, keepdims=True)
        return from_float(image, blur.dtype), moved

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
        """Return the blur that was found, a code (values, rows, columns) or a kernel (side, side).

        Raises BlurkitError if the photo was searched in tiles or no blur was found.
        """
        kernel: np.ndarray = self._blur()[0].float().cpu().numpy()
        return kernel[0] if self.context.options.operator == "convolution" else kernel

    def kernel_picture(self) -> np.ndarray:
        """Return `kernel` as a picture (H, W, 1) uint8. Raises BlurkitError as it does."""
        return self.context.operator.draw_blur(self._blur())

    def nearest_kernel(self) -> tuple[np.ndarray, float]:
        """Return the kernel (side, side) nearest to the blur that was found, and a PSNR in dB.

        For a code, it is the kernel by which the picture comes closest to the photo; the PSNR is
        that of the picture so blurred. Raises BlurkitError as `kernel` does.
        """
        (search,) = self.searches
        found = search.found
        options = self.context.options
        if options.operator == "convolution":
            return self.kernel(), found.reproduced
        self._blur()
        picture, _ = self.context.operator.align(found.picture, search.photo)
        blurry, sharp = (i.clamp(0, 1).contiguous() for i in (search.photo, picture))
        kernels = replace(NEAREST, kernel_size=options.kernel_size)
        context = SearchContext(kernels, device=str(self.context.device), precision="fp32")
        nearest = find_blur(context, blurry, sharp, options.seed)
        assert nearest.blur is not None
        return nearest.blur[0, 0].cpu().numpy(), nearest.reproduced

    def result(self, by: str, strength: float = 1.0, keep_kernel: bool = False) -> Record:
        """Return the record, or the searched region of it, with `restored` and attributes.

        `strength`, 0 to 1, is the fraction of the change that is kept. With `keep_kernel` the
        attribute `kernel` is the blur that was found, and `kernel_move` how many pixels the picture
        was moved down and right from where this blur makes the photo of it. Raises BlurkitError as
        `kernel` does, and UsageError if `strength` is not between 0 and 1.
        """
        check_strength(strength)
        results = [search.found for search in self.searches]
        restored, moved = self._join_tiles([result.picture for result in results])
        if strength < 1:
            blur = to_float(self.part.image("blur"))
            restored = from_float(blur + strength * (to_float(restored) - blur), restored.dtype)
        about = self._about(results)
        if keep_kernel and not ("blind_diverged" in about and results[0].blur is None):
            about |= {"kernel": self.kernel(), "kernel_move": np.array(moved)}
        context = self.context
        precision = str(context.dtype).removeprefix("torch.")
        how = f"{context.options.described()} precision={precision} device={context.device.type}"
        if len(results) > 1:
            how += f" tiles={len(results)}"
        about |= {
            "restored_by": by,
            "restored_with": how,
            "restored_strength": float(strength),
            "blind_config": json.dumps(context.options.as_dict()),
        }
        images = {**self.part.images, "restored": restored}
        return Record(self.record.name, images, self.record.attrs | about)

    def _about(self, results: Sequence[SearchResult]) -> dict[str, Any]:
        about: dict[str, Any] = {
            "restored_seconds": round(sum(search.seconds for search in self.searches), 4),
            "blind_iterations": max(search.last.iteration for search in self.searches),
            "blind_kept": max(result.iteration for result in results),
            "blind_objective": float(np.mean([result.objective for result in results])),
        }
        if all(result.terms for result in results):
            about["blind_reproduced"] = round(min(result.reproduced for result in results), 2)
        estimates = [search.estimate for search in self.searches if search.estimate]
        if estimates:
            about["blind_started"] = sum(search.started for search in self.searches)
            about["blind_trust"] = round(min(estimate.trust for estimate in estimates), 4)
        if diverged := max(search.diverged for search in self.searches):
            about["blind_diverged"] = diverged
        return about

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which its searches can be resumed."""
        searches = [search.state_dict() for search in self.searches]
        return {"photo": self._fingerprint, "searches": searches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore a saved state. Raises BlurkitError if it belongs to another photo."""
        if state["photo"] != self._fingerprint or len(state["searches"]) != len(self.searches):
            raise BlurkitError(f"{self.record.name}: the saved search belongs to another photo")
        for search, own in zip(self.searches, state["searches"], strict=True):
            search.load_state_dict(own)


def _crop(record: Record, region: Region) -> Record:
    blur = record.image("blur")
    x, y, width, height = region
    if x + width > blur.shape[1] or y + height > blur.shape[0]:
        raise BlurkitError(
            f"{record.name}: is {blur.shape[1]}x{blur.shape[0]}, "
            f"but --region ends at {x + width},{y + height}"
        )
    return Record(record.name, {"blur": blur[y : y + height, x : x + width]}, record.attrs)


def _check_tile(tile: int | None, context: SearchContext) -> int:
    side = TILE if tile is None else tile
    size = context.operator.size
    if side % size.multiple or side < size.minimum:
        raise UsageError(
            f"--tile {side}: this search needs a multiple of {size.multiple}, "
            f"at least {size.minimum}"
        )
    return side


def _check_style(name: str, height: int, width: int, context: SearchContext) -> None:
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


def run_searches(
    searches: Sequence[TiledSearch],
    batch: int = 1,
    watch: Callable[[Sequence[Search]], bool | None] = lambda group: None,
    warn: Say = lambda text: None,
) -> Iterator[TiledSearch]:
    """Run all searches, up to `batch` tiles of one size together; yield each one that is finished.

    `watch` is called with the group of tiles after each of its steps; True ends the run. If memory
    runs out, the groups get smaller; BlurkitError is raised if it does for a single tile. `warn` is
    called with a message then, and about estimates and results that do not suit the photo.
    """
    yielded: set[int] = set()
    while True:
        for search in searches:
            if search.finished and id(search) not in yielded:
                yielded.add(id(search))
                _warn_if_unlike(search, warn)
                yield search
        waiting = [tile for search in searches for tile in search.searches if not tile.finished]
        if not waiting:
            return
        group = [tile for tile in waiting if tile.photo.shape == waiting[0].photo.shape][:batch]
        try:
            for tile in group:
                tile.begin(warn)
            while group:
                advance(group)
                if watch(group):
                    return
                group = [tile for tile in group if not tile.finished]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            if len(group) == 1:
                raise BlurkitError("out of memory; try a smaller --tile") from error
            batch = len(group) // 2
            warn(f"out of memory; continuing with {batch} searches at a time")


def _warn_if_unlike(search: TiledSearch, warn: Say) -> None:
    least = search.context.options.warn_below
    reproduced = min(tile.found.reproduced for tile in search.searches)
    if reproduced < least and not any(tile.diverged for tile in search.searches):
        warn(
            f"{search.record.name}: image and blur reproduce the photo with only "
            f"{reproduced:.1f} dB (warn_below {least:g}); the search needs more --iterations, or "
            "--operator cannot make this blur"
        )


# ---- Saved searches ------------------------------------------------------------------------------

SEARCH_FORMAT = "blurkit-blind-search"


@dataclass
class SavedSearches:
    """States of unfinished searches by record, finished ones, and what runs share (`about`)."""

    about: dict[str, Any]
    searches: dict[str, Any] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)

    def save(
        self, path: Path, searches: Sequence[TiledSearch] = (), finished: Iterable[str] = ()
    ) -> None:
        """Write the states of unfinished searches, atomically."""
        state = {
            "format": SEARCH_FORMAT,
            "about": self.about,
            "searches": {s.record.name: s.state_dict() for s in searches if not s.finished},
            "finished": list(finished),
        }
        save_tensors(state, path)

    def load(self, path: Path) -> SavedSearches:
        """Return a file's contents, or none. Raises BlurkitError for other files and options."""
        if not path.exists():
            return SavedSearches(self.about)
        with path.open("rb") as file:
            state = load_tensors(file, str(path))
        if not isinstance(state, dict) or state.get("format") != SEARCH_FORMAT:
            raise BlurkitError(f"{path}: is not the saved state of a blind search")
        stored = state["about"]
        if changed := [key for key in self.about if stored.get(key) != self.about[key]]:
            other = ", ".join(f"{k} {stored.get(k)} (now {self.about[k]})" for k in changed)
            raise BlurkitError(f"{path}: was searched with {other}; resume with the same options")
        return SavedSearches(stored, state["searches"], state["finished"])


# ---- Retrieval -----------------------------------------------------------------------------------
# The code of a pair is searched for instead of taken from G: step B of the paper's Section 3.2. Its
# Table 3 shows how closely F reproduces blur that it was not trained on.


@torch.no_grad()
def retrieve_blur(
    context: SearchContext, sharp: Image, blur: Image, seed: int
) -> tuple[np.ndarray, str]:
    """Return F(sharp, k), (H, W, C) floats, and a description of the search for k.

    The search finds the k for which F(sharp, k) is closest to `blur`, on the whole photo, with the
    kernel space and options of `context`. Raises BlurkitError if memory runs out or it diverges.
    """
    operator = context.operator
    photo, target = (_padded(image, operator.size).to(context.device) for image in (sharp, blur))
    with memory_errors("; crop the pair (blurkit prepare --crop)"):
        with torch.enable_grad():
            found = find_blur(context, target, photo, seed)
        assert found.blur is not None
        made = operator.blur(photo, found.blur)
    height, width, channels = sharp.shape
    pixels = made[0, :, :height, :width].cpu().numpy().transpose(1, 2, 0)
    if channels == 1:
        pixels = pixels.mean(axis=2, keepdims=True)
    return pixels, f"search iterations={found.iteration} seed={context.options.seed}"


def _padded(image: Image, size: SizeRequirement) -> Tensor:
    """Return (1, 3, H', W') in [0, 1], mirrored right and below to a `size` that F accepts."""
    height, width, channels = image.shape
    rows, columns = size.padded(height, width)
    more = (0, rows - height), (0, columns - width), (0, 0)
    rgb = to_float(image).repeat(3 // channels, axis=2)
    wide = np.pad(rgb, more, "reflect" if min(height, width) > 1 else "edge")
    return torch.from_numpy(np.ascontiguousarray(wide.transpose(2, 0, 1)[None]))
