"""Deblurring: a checkpoint's networks put together, and one call per record."""

from __future__ import annotations

import time

from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record, from_float, to_float
from blurkit.models.msdi import (
    DegradationEncoder,
    JointGenerator,
    MSDINet,
    PriorUpsampling,
    StackedGenerator,
)
from blurkit.models.roles import held, load_networks
from blurkit.restoration.engine import Engine

DEFAULT_TILE = 256


class GuidedDeblurrer(nn.Module):
    """G_d with the encoder and upsampling of the joint stage: x = y + G_d(y, E(y)) (Eq. 5)."""

    def __init__(
        self,
        encoder: DegradationEncoder,
        latents: PriorUpsampling,
        generator: JointGenerator | StackedGenerator,
    ) -> None:
        super().__init__()
        self.size = generator.size
        self.encoder, self.upsampling, self.generator = encoder, latents, generator

    def forward(self, blur: Tensor) -> Tensor | list[Tensor]:
        """The restored image, or one per stage, (N, 3, H, W)."""
        bottleneck = bool(self.generator.options["inject_bottleneck"])
        latents = self.upsampling(self.encoder(blur), bottleneck=bottleneck)
        result: Tensor | list[Tensor] = self.generator(blur, latents)
        return result


def deblurring_network(checkpoint: Checkpoint) -> nn.Module:
    """The network of a checkpoint that restores an image on its own, in eval mode.

    A whole MSDI-Net, or the deblurring generator of a joint stage with its encoder. Raises
    BlurkitError naming what the checkpoint holds when that is not enough.
    """
    networks = load_networks(checkpoint)
    encoder, latents, generator = (networks.get(r) for r in ("encoder", "latents", "deblur"))
    if isinstance(generator, MSDINet):
        return generator
    if (
        isinstance(encoder, DegradationEncoder)
        and isinstance(latents, PriorUpsampling)
        and isinstance(generator, (JointGenerator, StackedGenerator))
    ):
        return GuidedDeblurrer(encoder, latents, generator).eval()
    raise BlurkitError(
        f"{checkpoint.where}: holds {held(networks)}; deblur needs a whole MSDI-Net, "
        "or encoder, latents and a deblurring generator"
    )


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
    with_ = " ".join(f"{key}={value}" for key, value in engine.describe().items())
    attrs = {
        **record.attrs,
        "restored_by": checkpoint,
        "restored_with": with_,
        "restored_seconds": round(time.perf_counter() - started, 4),
    }
    return Record(record.name, images, attrs)
