"""Start an engine that runs a network of a checkpoint on any image."""

from __future__ import annotations

import warnings
from typing import Any

from blurkit.engine.device import Precision
from blurkit.engine.engine import Engine, Protocol, Warn
from blurkit.engine.torch_runner import torch_engine
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.system import Use
from blurkit.systems.uses import network_for, trained_tile


def start_engine(
    use: Use | tuple[Use, ...],
    checkpoint: Checkpoint,
    *others: Checkpoint,
    tile: int | None = None,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    protocol: Protocol = "tiles",
    warn: Warn = warnings.warn,
    **options: Any,
) -> Engine:
    """Return the engine that runs the network of a checkpoint for a use.

    `others` and `options` are those of `network_for`, the others those of `Engine`. The default
    `tile` is the size of the crops that the network was trained on. A network that says that it is
    not `tiled` runs on whole images, unless `tile` or `overlap` is given. Raises as both do.
    """
    network = network_for(use, checkpoint, *others, **options)
    if not getattr(network, "tiled", True) and protocol == "tiles":
        if tile is None and overlap is None:
            protocol = "whole"
        else:
            warn(f"{network.name} is meant for whole images; tiles may differ from each other")
    side = trained_tile(checkpoint, network) if tile is None else tile
    return torch_engine(network, side, overlap, device, precision, protocol, warn)
