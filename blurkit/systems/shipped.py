"""The weights that come with blurkit, which commands use by default."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from blurkit.errors import BlurkitError, UsageError
from blurkit.systems.system import Use, providers, systems

if TYPE_CHECKING:
    from blurkit.io.checkpoints import Checkpoint

WEIGHTS = Path(__file__).parents[1] / "weights"


def shipped_file(system: str | None = None, use: Use = "deblurring") -> Path:
    """Return the file with a system's weights.

    Without a `system`, it is the first one that supports `use` and has weights. Raises BlurkitError
    if the package lacks the file, UsageError if the system has no weights.
    """
    candidates = providers(use).values() if system is None else systems().values()
    shipped = {candidate.name: candidate.weights for candidate in candidates if candidate.weights}
    name = next(iter(shipped)) if system is None else system
    if name not in shipped:
        known = " and ".join(shipped)
        raise UsageError(f"no weights of {system!r} come with blurkit; there are {known}")
    file = WEIGHTS / shipped[name]
    if not file.is_file():
        raise BlurkitError(
            f"{file}: the weights that come with blurkit are missing; install it again, "
            "or name others with -c"
        )
    return file


def load_shipped(system: str | None = None, use: Use = "deblurring") -> Checkpoint:
    """Return the checkpoint in `shipped_file`. Raises BlurkitError if the file is damaged."""
    from blurkit.io.checkpoints import load_checkpoint  # imports torch

    return load_checkpoint(shipped_file(system, use))


def shipped_for_pairs(encoder: bool) -> Use:
    """Return the use whose weights are the default where the blur of a pair is transferred.

    A blur code compares both images of the pair. Networks without codes read the blurry image, and
    only they accept another `encoder`.
    """
    return "reblurring" if encoder else "coding"


def title_and_date(checkpoint: Checkpoint) -> tuple[str, str]:
    """Return the title of a checkpoint's system, and the day on which it was made."""
    titles = {system.name: system.title for system in systems().values()}
    title = titles.get(checkpoint.system, checkpoint.system)
    return title, str(checkpoint.provenance.get("date", "no date"))


def introduction(name: str, date: str) -> str:
    """Return the line that a command prints when it uses the weights of a system by default."""
    return f"using the weights that come with blurkit ({name}, {date}); -c names others"
