"""Blind searches that were stopped, in a file from which they go on."""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_tensors
from blurkit.io.paths import replacing
from blurkit.systems.kernel_space.blind import Job

SEARCH_FORMAT = "blurkit-blind-search"


@dataclass
class SavedSearches:
    """The running states of jobs by their records' names, and the names of what is finished.

    `about` is what a run must have in common with the one that saved them, by option.
    """

    about: dict[str, Any]
    jobs: dict[str, Any] = field(default_factory=dict)
    finished: list[str] = field(default_factory=list)

    def save(self, path: Path, jobs: Sequence[Job] = (), finished: Iterable[str] = ()) -> None:
        """Write the states of jobs that are not finished, whole or not at all."""
        state = {
            "format": SEARCH_FORMAT,
            "about": self.about,
            "jobs": {job.record.name: job.state_dict() for job in jobs if not job.finished},
            "finished": list(finished),
        }
        buffer = io.BytesIO()  # torch would report a full disk as an error of its own archive
        torch.save(state, buffer)
        with replacing(path) as partial:
            partial.write_bytes(buffer.getbuffer())

    def load(self, path: Path) -> SavedSearches:
        """What a file holds, nothing where there is none.

        Raises BlurkitError for another kind of file, and for a search with other options.
        """
        if not path.exists():
            return SavedSearches(self.about)
        with path.open("rb") as file:
            state = load_tensors(file, str(path))
        if not isinstance(state, dict) or state.get("format") != SEARCH_FORMAT:
            raise BlurkitError(f"{path}: is not the saved state of a blind search")
        there = state["about"]
        if changed := [key for key in self.about if there.get(key) != self.about[key]]:
            told = ", ".join(f"{k} {there.get(k)} (now {self.about[k]})" for k in changed)
            raise BlurkitError(f"{path}: was searched with {told}; resume with the same options")
        return SavedSearches(there, state["jobs"], state["finished"])
