"""What a system chooses of its trained networks for a small checkpoint that ships."""

from __future__ import annotations

from dataclasses import dataclass

from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.system import Use


@dataclass(frozen=True)
class Packing:
    """Networks in full precision, and what is compared once they are halved.

    `compared` names by role a use of the checkpoint, and the originals that serve it.
    """

    checkpoint: Checkpoint
    compared: dict[str, tuple[Use, tuple[Checkpoint, ...]]]
