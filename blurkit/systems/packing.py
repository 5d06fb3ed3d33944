"""The networks that a system selects for a small checkpoint that ships with blurkit."""

from __future__ import annotations

from dataclasses import dataclass

from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.system import Use


@dataclass(frozen=True)
class Packing:
    """The selected networks in full precision, and the comparisons to make in half precision.

    `compared` maps each role to a use of the checkpoint and the original checkpoints for that use.
    """

    checkpoint: Checkpoint
    compared: dict[str, tuple[Use, tuple[Checkpoint, ...]]]
