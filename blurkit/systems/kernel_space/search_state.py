"""Files with unfinished blind searches, from which they resume."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_tensors, save_tensors
from blurkit.systems.kernel_space.blind import Job

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
