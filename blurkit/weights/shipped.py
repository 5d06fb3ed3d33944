"""The weights that come with blurkit, which commands use where no others are named."""

from __future__ import annotations

from pathlib import Path

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint

SYSTEMS = {
    "msdi": "MSDI-Net",
    "kernel-space": "encoded blur kernel space",
    "deconvolution": "deconvolution",
}
"""The systems that weights come with, and what they are called."""

SHIPPED = {
    "msdi": Path(__file__).with_name("msdi.pt"),
    "kernel-space": Path(__file__).with_name("kernel_space.pt"),
    "deconvolution": Path(__file__).with_name("deconvolution.pt"),
}
"""Their files: checkpoints that `weights.pack` has made."""


def shipped_file(system: str = "msdi") -> Path:
    """The file that those of a system are in.

    Raises BlurkitError when the package lacks it, UsageError for a system without weights.
    """
    if system not in SHIPPED:
        known = " and ".join(SHIPPED)
        raise UsageError(f"no weights of {system!r} come with blurkit; there are {known}")
    file = SHIPPED[system]
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
    name = SYSTEMS.get(shipped.system, shipped.system)
    date = shipped.provenance.get("date", "no date")
    return f"using the weights that come with blurkit ({name}, {date}); -c names others"
