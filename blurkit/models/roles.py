"""The networks of a checkpoint, each under the role it plays."""

from __future__ import annotations

from torch import nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.models.discriminators import MultiscaleDiscriminator
from blurkit.models.msdi import (
    BlurEncoder,
    DegradationEncoder,
    JointGenerator,
    JointModel,
    MSDINet,
    PriorUpsampling,
    StackedGenerator,
)
from blurkit.models.registry import from_state_dict

ROLES: dict[type[nn.Module], str] = {
    DegradationEncoder: "encoder",
    BlurEncoder: "blur_encoder",
    PriorUpsampling: "latents",
    MSDINet: "deblur",
    StackedGenerator: "deblur",
    JointGenerator: "deblur",
    MultiscaleDiscriminator: "discriminator",
}
"""The role of a network in a file of another program, which names none."""


def load_networks(*checkpoints: Checkpoint) -> dict[str, nn.Module]:
    """Every network in the checkpoints by role (`encoder`, `latents`, `reblur`, `deblur`, ...).

    A joint model of the official code comes apart into its four. Of two networks in one role the
    later is taken. All in eval mode, on the CPU. Raises BlurkitError naming the file and role of a
    state dict that is of no known network or not whole.
    """
    networks: dict[str, nn.Module] = {}
    for checkpoint in checkpoints:
        for role, state in checkpoint.networks.items():
            try:
                network = from_state_dict(state)
            except BlurkitError as error:
                part = "" if role == "network" else f" ({role})"
                raise BlurkitError(f"{checkpoint.where}{part}: {error}") from error
            if isinstance(network, JointModel):
                networks["encoder"] = network.net_prior
                networks["latents"] = network.prior_upsampling
                networks["reblur"] = network.inverse_generator
                networks["deblur"] = network.generator
            else:
                networks[ROLES[type(network)] if role == "network" else role] = network
    return networks


def held(networks: dict[str, nn.Module]) -> str:
    """What `load_networks` found, in words for a message."""
    return ", ".join(f"{role} ({type(n).__name__})" for role, n in networks.items()) or "nothing"
