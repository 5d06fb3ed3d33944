"""The training of any network that restores an image on its own: one loss, by AdamW."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from blurkit.engine.engine import SizeRequirement
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.blocks import PIXEL_LOSSES
from blurkit.systems.any_network.config import AnyConfiguration, AnyInputs
from blurkit.systems.any_network.inference import UserNetwork
from blurkit.systems.code import UserCode, blamed, find_code
from blurkit.systems.registry import describe_networks, load_networks, network_name
from blurkit.training.configuration import Run
from blurkit.training.recipe import Batch, Losses, Plan, Recipe


class AnyRecipe(Recipe):
    """The training of the network that `make` returns.

    The loss is one of `PIXEL_LOSSES`, of the network's last image, or the user's `own_loss` of all
    that the network returns. Raises UsageError if the network does not take the crops.
    """

    protocol = "whole"

    def __init__(
        self, c: AnyConfiguration, make: Callable[[], nn.Module], own_loss: UserCode | None = None
    ) -> None:
        super().__init__(c)
        self.c = c
        self.network, self.own_loss = make().train(), own_loss
        self.networks = {"deblur": self.network}
        size = getattr(self.network, "size", SizeRequirement())
        if size.padded(c.crop, c.crop) != (c.crop, c.crop):
            takes = f"{network_name(self.network)} takes multiples of {size.multiple} pixels"
            raise UsageError(f"--crop {c.crop}: {takes}")
        self.criterion: Any = own_loss or PIXEL_LOSSES[c.loss]
        if own_loss is not None and isinstance(own_loss.target, type):
            self.criterion = own_loss()
            self.helpers = [self.criterion] if isinstance(self.criterion, nn.Module) else []
        self.code = getattr(self.network, "code", None)
        used = {code.name: code.sha256 for code in (self.code, own_loss) if code is not None}
        self.provenance = {"code": used} if used else {}
        optimizer = self.adam(self.network, kind=torch.optim.AdamW, weight_decay=c.weight_decay)
        self.optimizers = {"deblur": optimizer}

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the loss; raise BlurkitError if the user's code fails or returns no scalar."""
        restored = self.network(batch["blur"])
        if self.own_loss is None:
            last = restored if isinstance(restored, Tensor) else restored[-1]
            total = self.criterion(last, batch["sharp"])
            return total, {f"{self.c.loss}_loss": total}
        with blamed(self.own_loss.name, self.own_loss.file):
            total = self.criterion(restored, batch["sharp"])
        if not isinstance(total, Tensor) or total.numel() != 1:
            made = list(total.shape) if isinstance(total, Tensor) else type(total).__name__
            raise BlurkitError(f"{self.own_loss.name}: returns {made}, not a single number")
        total = total.reshape(())
        return total, {"loss": total}


def plan(
    inputs: AnyInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan for training what `inputs` name; see `tasks.train.plan_training`."""
    loss = inputs.loss or overrides.get("loss") or "psnr"
    if loss not in PIXEL_LOSSES and not inputs.loss:
        raise UsageError(f"--loss {loss}: name it again, since only code that you name is run")
    own_loss = None if loss in PIXEL_LOSSES else find_code(loss)
    named = {"network": inputs.network, "loss": loss}
    c = AnyConfiguration.for_inputs(vars(inputs)).resolve(preset, **{**overrides, **named})
    make: Callable[[], nn.Module]
    if inputs.is_file:
        make = partial(_of_file, inputs.network)
    else:
        make = partial(UserNetwork, find_code(inputs.network), c.arguments())
    return Plan(c, partial(AnyRecipe, c, make, own_loss))


def _of_file(file: str) -> nn.Module:
    with torch.device("cpu"):
        networks = load_networks(load_checkpoint(file))
    if "deblur" not in networks:
        raise BlurkitError(f"{file}: holds {describe_networks(networks)}, but nothing that deblurs")
    return networks["deblur"].requires_grad_(True)
