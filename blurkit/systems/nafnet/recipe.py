"""The training of NAFNet: minus the PSNR, by AdamW with a cosine."""

from collections.abc import Mapping
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.optim import AdamW

from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.blocks import psnr_loss
from blurkit.systems.msdi.recipe import frozen_steering
from blurkit.systems.nafnet.config import BLOCKS, NAFNetConfiguration, NAFNetInputs
from blurkit.systems.nafnet.networks import GuidedNAFNet, NAFNet
from blurkit.systems.registry import load_networks
from blurkit.training.configuration import Run, TrainingInputs
from blurkit.training.recipe import Batch, Losses, Plan, Recipe


class NAFNetRecipe(Recipe):
    """NAFNet by the released option files; `pretrained` may hold MSDI-Net's encoder and latents.

    Raises BlurkitError if there are other networks, but not these two.
    """

    protocol = NAFNet.protocol

    def __init__(
        self,
        c: NAFNetConfiguration,
        pretrained: dict[str, nn.Module] | None = None,
        where: str = "",
    ) -> None:
        super().__init__(c)
        self.c = c
        parts = ("encoder_blocks", "middle_blocks", "decoder_blocks")
        options: dict[str, Any] = dict(zip(parts, BLOCKS[c.blocks], strict=True), width=c.width)
        if pretrained:
            steering = frozen_steering(pretrained, where, "--encoder")
            self.network: NAFNet = GuidedNAFNet(*steering, c.hidden, **options)
        else:
            self.network = NAFNet(**options)
        self.networks = {"deblur": self.network}
        optimizer = self.adam(self.network, kind=AdamW, weight_decay=c.weight_decay)
        self.optimizers = {"deblur": optimizer}

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return minus the PSNR in dB."""
        total = psnr_loss(self.network(batch["blur"]), batch["sharp"])
        return total, {"psnr_loss": total}


def plan(
    inputs: TrainingInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan for training NAFNet; see `tasks.train.plan_training`."""
    assert isinstance(inputs, NAFNetInputs)
    c = NAFNetConfiguration.resolve(preset, **overrides)
    pretrained = load_networks(*map(load_checkpoint, inputs.encoder)) if inputs.encoder else {}
    return Plan(c, partial(NAFNetRecipe, c, pretrained, ", ".join(inputs.encoder)))
