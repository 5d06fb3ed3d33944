"""The weights that come with blurkit, which commands use by default."""

from __future__ import annotations

from pathlib import Path

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.system import Use, providers, systems

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
    return load_checkpoint(shipped_file(system, use))


def shipped_for_pairs(encoder: bool) -> Use:
    """Return the use whose weights are the default where the blur of a pair is transferred.

    A blur code compares both images of the pair. Networks without codes read the blurry image, and
    only they accept another `encoder`.
    """
    return "reblurring" if encoder else "coding"


def introduction(shipped: Checkpoint) -> str:
    """Return the line that a command prints when it uses these weights by default."""
    titles = {system.name: system.title for system in systems().values()}
    name = titles.get(shipped.system, shipped.system)
    date = shipped.provenance.get("date", "no date")
    return f"using the weights that come with blurkit ({name}, {date}); -c names others"
