"""Deblurring: a checkpoint's networks put together, and one call per record."""

from __future__ import annotations

import time

from torch import nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, from_float, to_float
from blurkit.models.msdi import MSDINet, StackedGenerator
from blurkit.models.roles import assemble, held
from blurkit.restoration.engine import Engine
from blurkit.restoration.guided import guided

DEFAULT_TILE = 256


def deblurring_network(checkpoint: Checkpoint, *encoders: Checkpoint) -> nn.Module:
    """The network of a checkpoint that restores an image on its own, in eval mode.

    A whole MSDI-Net, or the deblurring generator of a joint stage with its encoder; encoder and
    latents come from `encoders` where they are given. Raises BlurkitError naming what the
    checkpoint holds when that is not enough.
    """
    networks = assemble(checkpoint, *encoders)
    generator = networks.get("deblur")
    network = generator if _stands_alone(generator) else guided(networks, "deblur")
    if network is None:
        raise BlurkitError(
            f"{checkpoint.where}: holds {held(networks)}; deblur needs a whole MSDI-Net, "
            "or encoder, latents and a deblurring generator"
        )
    return network


def _stands_alone(generator: nn.Module | None) -> bool:
    """Whether it brings its own encoder, or was trained to go without latents."""
    if isinstance(generator, MSDINet):
        return True
    return isinstance(generator, StackedGenerator) and generator.options["injection"] == "none"


def trained_tile(checkpoint: Checkpoint) -> int:
    """The side of the crops a checkpoint was trained on, so that E sees what it knows; else 256."""
    return int(checkpoint.configuration.get("crop", DEFAULT_TILE))


def deblur(record: Record, engine: Engine, checkpoint: str) -> Record:
    """`record` with `restored`, made from its `blur` at the same size and depth.

    Attributes `restored_by`, `restored_with` and `restored_seconds` say how. Raises BlurkitError
    when there is no `blur` or the network fails on it.
    """
    blur = record.image("blur")
    started = time.perf_counter()
    restored = from_float(engine(to_float(blur)), blur.dtype)
    images = {**record.images, "restored": restored}
    attrs = {
        **record.attrs,
        "restored_by": checkpoint,
        "restored_with": engine.told(),
        "restored_seconds": round(time.perf_counter() - started, 4),
    }
    return Record(record.name, images, attrs)
