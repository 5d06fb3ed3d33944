"""Blind deblurring: an image and its blur, searched for together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from blurkit.engine.device import Precision
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Image, Record
from blurkit.systems.shipped import load_shipped
from blurkit.systems.system import inference, providers
from blurkit.systems.uses import network_for


class SearchJob(Protocol):
    """The search of one record's `blur`, whole or in tiles."""

    record: Record
    searches: Sequence[Any]
    finished: bool
    iteration: int

    def check_one_blur(self) -> None:
        """Raise BlurkitError if the photo is in tiles, which have a blur each."""

    def picture(self) -> Image:
        """Return the image as it is now, as large and as deep as the photo."""

    def result(self, by: str, strength: float = 1.0, keep_kernel: bool = False) -> Record:
        """Return the record with `restored`, and with `kernel` if that is to be kept."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the state of a search of the same photo."""


class SavedSearches(Protocol):
    """Searches that were stopped, in a file."""

    jobs: dict[str, Any]
    finished: list[str]

    def save(self, path: Path, jobs: Sequence[SearchJob], finished: Iterable[str] = ()) -> None:
        """Write the states of jobs that are not finished."""

    def load(self, path: Path) -> SavedSearches:
        """Return what a file holds."""


class BlindSearch(Protocol):
    """What the searches of a run share."""

    options: Any
    dtype: torch.dtype

    def job(self, record: Record, tile: int | None, overlap: int | None) -> SearchJob:
        """Return the search of a record, not yet begun."""

    def run(
        self,
        jobs: Sequence[SearchJob],
        watch: Callable[[Sequence[Any]], bool | None] = lambda group: None,
        warn: Callable[[str], None] = lambda text: None,
    ) -> Iterator[SearchJob]:
        """Search all jobs; yield each that is finished."""

    def saved(self, about: dict[str, Any]) -> SavedSearches:
        """Return what saves and loads searches of runs of which all this is true."""

    def retrieve(self, sharp: Image, blur: Image, seed: int) -> tuple[np.ndarray, str]:
        """Return `sharp` with the blur that was found to give `blur`, and how it was found."""


def start_search(
    options: Any,
    checkpoint: Checkpoint | None = None,
    generators: Sequence[str | Path] = (),
    features: str | Path | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> BlindSearch:
    """Return a blind search with `options`, those of `search_options()`.

    `checkpoint` has what blurs, where the options need it; `generators` are the files of a
    StyleGAN, `features` that of a feature network. Raises BlurkitError for a bad or missing file,
    UsageError for what the options need and is not given.
    """
    (folder,) = providers("search")
    estimator = None
    if options.start_estimate:
        (estimating,) = providers("deconvolving")
        undo = network_for("deconvolving", load_shipped(use="deconvolving"))
        estimator = inference(estimating).start_estimator(undo, device, precision)
    network = None if checkpoint is None else network_for("search", checkpoint)
    search: BlindSearch = inference(folder).blind_search(
        options, network, generators, features, device, precision, estimator
    )
    return search
