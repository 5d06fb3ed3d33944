"""The weights that come with blurkit, which commands use where no others are named."""

from __future__ import annotations

from pathlib import Path

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.system import systems


def shipped_file(system: str = "msdi") -> Path:
    """The file that those of a system are in.

    Raises BlurkitError when the package lacks it, UsageError for a system without weights.
    """
    shipped = {one.name: one.weights for one in systems().values() if one.weights}
    if system not in shipped:
        known = " and ".join(shipped)
        raise UsageError(f"no weights of {system!r} come with blurkit; there are {known}")
    file = Path(__file__).parent / shipped[system]
    if not file.is_file():
        raise BlurkitError(
            f"{file}: the weights that come with blurkit are missing; install it again, "
            "or name others with -c"
        )
    return file


def load_shipped(system: str = "msdi") -> Checkpoint:
    """The networks of a system as they come with the package.

    MSDI-Net's are encoder, latents, reblurring and deblurring generator. Raises as `shipped_file`
    does, and BlurkitError for a damaged file.
    """
    return load_checkpoint(shipped_file(system))


def introduction(shipped: Checkpoint) -> str:
    """What a command says when it takes them because nothing else is named."""
    titles = {system.name: system.title for system in systems().values()}
    name = titles.get(shipped.system, shipped.system)
    date = shipped.provenance.get("date", "no date")
    return f"using the weights that come with blurkit ({name}, {date}); -c names others"
