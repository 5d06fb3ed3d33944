"""Blind deblurring: a search for an image together with its blur, in a photo or a region."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Image, Record
from blurkit.options import Placement, Precision
from blurkit.systems.system import inference, load_shipped, providers
from blurkit.systems.uses import network_for
from blurkit.tasks.deblur import deblur_by_kernel


class SearchJob(Protocol):
    """The search of one record's `blur`, whole or in tiles."""

    record: Record

    @property
    def searches(self) -> Sequence[Any]:
        """The searches of the photo or of its tiles."""

    @property
    def finished(self) -> bool:
        """Whether all searches are finished."""

    @property
    def iteration(self) -> int:
        """The number of image steps so far."""

    def check_one_blur(self) -> None:
        """Raise BlurkitError if the photo is searched in tiles, each of which has its own blur."""

    def picture(self) -> Image:
        """Return the current image, with the size and depth of the photo."""

    def result(self, by: str, strength: float = 1.0, keep_kernel: bool = False) -> Record:
        """Return the record with `restored` and, with `keep_kernel`, the attribute `kernel`."""

    def kernel_picture(self) -> Image:
        """Return a picture of the blur that was found, (H, W, 1) uint8."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which the search can be resumed."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the saved state of a search of the same photo."""


class WholeJob(SearchJob, Protocol):
    """The search of a photo, which may know one kernel for it."""

    def convolution(self) -> tuple[np.ndarray, float]:
        """Return the kernel nearest to the blur that was found, and its PSNR in dB.

        The PSNR is that between the photo and what the kernel makes of the picture.
        """


class StoppedSearches(Protocol):
    """A file of searches that were stopped."""

    jobs: dict[str, Any]
    finished: list[str]

    def save(self, path: Path, jobs: Sequence[SearchJob], finished: Iterable[str] = ()) -> None:
        """Write the states of the jobs that are not finished."""

    def load(self, path: Path) -> StoppedSearches:
        """Return the searches that a file holds."""


class BlindSearch(Protocol):
    """What all searches of a run share."""

    options: Any
    dtype: torch.dtype

    def job(
        self, record: Record, tile: int | None, overlap: int | None, whole: bool = False
    ) -> WholeJob:
        """Return the search of a record, not yet started; without tiles if `whole`."""

    def run(
        self,
        jobs: Sequence[SearchJob],
        watch: Callable[[Sequence[Any]], bool | None] = lambda group: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> Iterator[SearchJob]:
        """Run all searches; yield each one when it is finished."""

    def saved(self, about: dict[str, Any]) -> StoppedSearches:
        """Return an object that saves searches and loads those of runs with the same `about`."""

    def retrieve(self, sharp: Image, blur: Image, seed: int) -> tuple[np.ndarray, str]:
        """Return `sharp` with the blur found to produce `blur`, and how it was found."""


def start_search(
    options: Any,
    checkpoint: Checkpoint | None = None,
    generators: Sequence[str | Path] = (),
    features: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    system: str | None = None,
) -> BlindSearch:
    """Return a blind search with `options`, an instance of `search_options()`.

    `checkpoint` holds the network that blurs, if the options need one; `generators` are the files
    of a StyleGAN, `features` is the file of a feature network. Raises BlurkitError if a file is bad
    or missing, UsageError if something that the options need is not given.
    """
    (folder,) = providers("search")
    estimator = None
    if options.start_estimate:
        (estimating,) = providers("deconvolving")
        undo = network_for("deconvolving", load_shipped(use="deconvolving"))
        estimator = inference(estimating).start_estimator(undo, device, precision)
    network = None if checkpoint is None else network_for("search", checkpoint, system=system)
    search: BlindSearch = inference(folder).blind_search(
        options, network, generators, features, device, precision, estimator
    )
    return search


# ---- A region ------------------------------------------------------------------------------------

Region = tuple[int, int, int, int]
"""Left and top corner, width and height of a rectangle in pixels."""


class RegionJob:
    """The search of one region of a record's `blur`; its result is the whole photo.

    The region is searched whole. The photo is restored by non-blind deconvolution with the kernel
    that was found, or with the kernel nearest to the code that was found, by the network that comes
    with blurkit. `warn` is called with a message if that kernel hardly explains the region. Raises
    BlurkitError if the region is not inside the photo.
    """

    def __init__(
        self,
        record: Record,
        search: BlindSearch,
        region: Region,
        device: str = "auto",
        precision: Precision = "auto",
        warn: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.record, self._region, self._warn = record, region, warn
        self._search, self._hardware = search, (device, precision)
        blur = record.image("blur")
        x, y, width, height = region
        if x + width > blur.shape[1] or y + height > blur.shape[0]:
            raise BlurkitError(
                f"{record.name}: is {blur.shape[1]}x{blur.shape[0]}, "
                f"but --region ends at {x + width},{y + height}"
            )
        cut = Record(record.name, {"blur": blur[y : y + height, x : x + width]}, record.attrs)
        self._job = search.job(cut, None, None, whole=True)

    @property
    def searches(self) -> Sequence[Any]:
        """The search of the region, in a list."""
        return self._job.searches

    @property
    def finished(self) -> bool:
        """Whether the search is finished."""
        return self._job.finished

    @property
    def iteration(self) -> int:
        """The number of image steps so far."""
        return self._job.iteration

    def check_one_blur(self) -> None:
        """Do nothing: a region has one blur."""

    def picture(self) -> Image:
        """Return the current image of the region."""
        return self._job.picture()

    def kernel_picture(self) -> Image:
        """Return a picture of the blur that was found."""
        return self._job.kernel_picture()

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which the search can be resumed."""
        return self._job.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the saved state of a search of the same region."""
        self._job.load_state_dict(state)

    def result(self, by: str, strength: float = 1.0, keep_kernel: bool = False) -> Record:
        """Return the record with the whole photo as `restored`.

        The attributes are those of the search, `blind_region`, and `blind_kernel_reproduced`, the
        PSNR in dB with which the kernel makes the region's photo of its picture. If the search
        diverged, the photo stays as it is.
        """
        found = self._job.result(by, 1.0, keep_kernel)
        about = {k: v for k, v in found.attrs.items() if k not in self.record.attrs}
        about |= {"blind_region": np.array(self._region), "restored_strength": float(strength)}
        if self.searches[0].diverged:
            images = {**self.record.images, "restored": self.record.image("blur")}
            return Record(self.record.name, images, self.record.attrs | about)
        started = time.perf_counter()
        kernel, reproduced = self._job.convolution()
        enough = self._search.options.enough
        if reproduced < enough:
            self._warn(
                f"{self.record.name}: one kernel explains the region with only {reproduced:.1f} dB "
                f"(--enough {enough:g}); the photo deblurred by it may be wrong"
            )
        # The search blurs pixel values, not linear light.
        undo = deblur_by_kernel(
            load_shipped(use="deconvolving"),
            Placement(*self._hardware),
            kernel=kernel,
            gamma=1.0,
            strength=strength,
        )
        whole = undo(self.record)
        region = "region=" + ",".join(map(str, self._region))
        about |= {
            "restored_with": f"{found.attrs['restored_with']} {region}; by its kernel: "
            f"{whole.attrs['restored_with']}",
            "restored_seconds": round(
                found.attrs["restored_seconds"] + time.perf_counter() - started, 4
            ),
            "blind_kernel_reproduced": round(reproduced, 2),
        }
        return Record(self.record.name, whole.images, self.record.attrs | about)
