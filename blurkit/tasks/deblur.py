"""Deblurring: a checkpoint's networks put together, and one call per record."""

from __future__ import annotations

import time

from torch import nn

from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, from_float, to_float
from blurkit.systems.dbgan.networks import DBGAN
from blurkit.systems.msdi.inference import GuidedGenerator, guided
from blurkit.systems.msdi.networks import Generator, MSDINet
from blurkit.systems.msfs.networks import MSFSNet
from blurkit.systems.roles import assemble, held

DEFAULT_TILE = 256

UNSTEERED = (MSFSNet, DBGAN)
"""Networks that no encoder steers."""


def deblurring_network(checkpoint: Checkpoint, *encoders: Checkpoint) -> nn.Module:
    """The network of a checkpoint that restores an image on its own, in eval mode.

    A whole MSDI-Net, MSFS-Net or DBGAN, or the deblurring generator of a joint stage with its
    encoder; encoder and latents come from `encoders` where they are given. Raises BlurkitError
    naming what the checkpoint holds when that is not enough, UsageError for encoders that the
    network has no use for.
    """
    networks = assemble(checkpoint, *encoders)
    generator = networks.get("deblur")
    if encoders and isinstance(generator, UNSTEERED):
        name = type(generator).__name__
        raise UsageError(f"{checkpoint.where}: a {name} has no use for --encoder")
    network = generator if _stands_alone(generator) else guided(networks, "deblur")
    if network is None:
        raise BlurkitError(
            f"{checkpoint.where}: holds {held(networks)}; deblur needs a whole MSDI-Net, "
            "MSFS-Net or DBGAN, or encoder, latents and a deblurring generator"
        )
    return network


def _stands_alone(generator: nn.Module | None) -> bool:
    """Whether it brings its own encoder, or was made or trained to go without latents."""
    if isinstance(generator, (MSDINet, *UNSTEERED)):
        return True
    return isinstance(generator, Generator) and generator.options["injection"] == "none"


def trained_tile(checkpoint: Checkpoint, network: nn.Module) -> int:
    """The side of the crops that `network` of a checkpoint was trained on, so that E sees what it
    knows; else 256. Packed weights have a configuration for each stage.
    """
    reblurs = isinstance(network, GuidedGenerator) and not network.restores
    configuration = checkpoint.configuration
    stage = configuration.get("reblur" if reblurs else "deblur", configuration)
    return int(stage.get("crop", DEFAULT_TILE))


def check_strength(strength: float) -> None:
    """Raises UsageError for a strength that is not from 0 to 1."""
    if not 0 <= strength <= 1:
        raise UsageError(f"--strength {strength:g}: from 0 (nothing changed) to 1 (all restored)")


def deblur(record: Record, engine: Engine, checkpoint: str, strength: float = 1.0) -> Record:
    """`record` with `restored`, made from its `blur` at the same size and depth.

    `strength` is how much of what the network changes is kept, from 0 (none) to 1 (all). Attributes
    `restored_by`, `restored_with`, `restored_strength` and `restored_seconds` say how. Raises
    BlurkitError when there is no `blur` or the network fails, UsageError for another strength.
    """
    check_strength(strength)
    blur = record.image("blur")
    started = time.perf_counter()
    image = to_float(blur)
    restored = engine(image)
    if strength < 1:
        restored -= image
        restored *= strength
        restored += image
    images = {**record.images, "restored": from_float(restored, blur.dtype)}
    attrs = {
        **record.attrs,
        "restored_by": checkpoint,
        "restored_with": engine.told(),
        "restored_strength": float(strength),
        "restored_seconds": round(time.perf_counter() - started, 4),
    }
    return Record(record.name, images, attrs)
