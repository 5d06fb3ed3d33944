"""The networks of a checkpoint, each under the role it plays."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.msdi.networks import (
    DegradationEncoder,
    Generator,
    MSDINet,
    PriorUpsampling,
)
from blurkit.systems.rebuild import rebuilt
from blurkit.systems.registry import recognised

STEERING = ("encoder", "latents")
"""The roles of what steers a generator."""


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
                if blueprint := checkpoint.blueprints.get(role):
                    architecture, network = rebuilt(blueprint, state)
                else:
                    architecture, network = recognised(state)
            except BlurkitError as error:
                part = "" if role == "network" else f" ({role})"
                raise BlurkitError(f"{checkpoint.where}{part}: {error}") from error
            if not architecture.role:
                networks |= network.roles()  # type: ignore[operator]
            else:
                networks[architecture.role if role == "network" else role] = network
    return networks


def assemble(checkpoint: Checkpoint, *encoders: Checkpoint) -> dict[str, nn.Module]:
    """The networks of `checkpoint` by role, with encoder and latents from `encoders` instead.

    A whole MSDI-Net gets them too. Raises BlurkitError as `load_networks` does, for a file of
    `encoders` that holds neither, and for networks whose sizes do not fit together.
    """
    networks = load_networks(checkpoint)
    whole = networks.get("deblur")
    for source in encoders:
        found = load_networks(source)
        given = {role: n for role, n in found.items() if role in STEERING}
        if not given:
            raise BlurkitError(f"{source.where}: holds {held(found)}, but no encoder or latents")
        networks |= given
        if isinstance(whole, MSDINet):
            whole.net_prior = networks.get("encoder", whole.net_prior)  # type: ignore[assignment]
            whole.prior_upsampling = networks.get(  # type: ignore[assignment]
                "latents", whole.prior_upsampling
            )
    where = " + ".join(source.where for source in (checkpoint, *encoders))
    if isinstance(whole, MSDINet):
        _check_fit(where, whole.net_prior, whole.prior_upsampling, whole)
    else:
        generators = [networks[role] for role in ("reblur", "deblur") if role in networks]
        _check_fit(where, networks.get("encoder"), networks.get("latents"), *generators)
    return networks


def steering(networks: Mapping[str, nn.Module], role: str) -> dict[str, nn.Module]:
    """Encoder and latents by role that steer the generator in `role`, as far as they are there.

    A whole MSDI-Net brings its own.
    """
    whole = networks.get(role)
    if isinstance(whole, MSDINet):
        return {"encoder": whole.net_prior, "latents": whole.prior_upsampling}
    return {part: networks[part] for part in STEERING if part in networks}


def _check_fit(where: str, *parts: nn.Module | None) -> None:
    """Raises BlurkitError unless encoder and latents are of one version and all of one width."""
    kinds = (DegradationEncoder, PriorUpsampling, Generator)
    known = [part for part in parts if isinstance(part, kinds)]
    for option in ("width", "version"):
        values = [
            (type(part).__name__, part.options.get(f"latent_{option}", part.options[option]))
            for part in known
            if option in part.options
        ]
        if len({value for _, value in values}) > 1:
            told = ", ".join(f"{name} {option} {value}" for name, value in values)
            raise BlurkitError(f"{where}: these networks do not fit together: {told}")


def held(networks: dict[str, nn.Module]) -> str:
    """What `load_networks` found, in words for a message."""
    return ", ".join(f"{role} ({type(n).__name__})" for role, n in networks.items()) or "nothing"
