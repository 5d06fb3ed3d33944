"""The weights that come with blurkit, which commands use where no others are named."""

from __future__ import annotations

from pathlib import Path

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint

SHIPPED = Path(__file__).with_name("msdi.pt")
"""A checkpoint that `weights.pack` has made of both stages of MSDI-Net."""


def shipped_file() -> Path:
    """The file that they are in. Raises BlurkitError when the package lacks it."""
    if not SHIPPED.is_file():
        raise BlurkitError(
            f"{SHIPPED}: the weights that come with blurkit are missing; install it again, "
            "or name others with -c"
        )
    return SHIPPED


def load_shipped() -> Checkpoint:
    """Encoder, latents, reblurring and deblurring generator as they come with the package.

    Raises BlurkitError when the file is missing from the package, or damaged.
    """
    return load_checkpoint(shipped_file())


def introduction(shipped: Checkpoint) -> str:
    """What a command says when it takes them because nothing else is named."""
    date = shipped.provenance.get("date", "no date")
    return f"using the weights that come with blurkit (MSDI-Net, {date}); -c names others"
