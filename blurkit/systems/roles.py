"""The networks of a checkpoint by role."""

from __future__ import annotations

from torch import nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.rebuild import rebuilt
from blurkit.systems.registry import network_name, recognised
from blurkit.systems.system import inference, systems


def load_networks(*checkpoints: Checkpoint) -> dict[str, nn.Module]:
    """Return all networks in the checkpoints by role (`encoder`, `latents`, `reblur`, ...).

    A joint model of the official code is split into its four networks. If two networks have the
    same role, the later one is used. All are in eval mode, on the CPU. Raises BlurkitError, naming
    the file and role, if a state dict is of no known network or incomplete.
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


def assemble(checkpoint: Checkpoint, *others: Checkpoint) -> dict[str, nn.Module]:
    """Return the networks of `checkpoint` by role, with companions such as an encoder.

    The companions are taken from `others`. Raises BlurkitError as `load_networks` does, if one of
    `others` holds no companion, and if networks do not fit together.
    """
    networks, given = load_networks(checkpoint), dict[str, nn.Module]()
    accompanied = {
        name: system.companions for name, system in systems().items() if system.companions
    }
    roles = [role for companions in accompanied.values() for role in companions]
    for source in others:
        available = load_networks(source)
        companions = {role: network for role, network in available.items() if role in roles}
        if not companions:
            wanted = " or ".join(roles)
            raise BlurkitError(f"{source.where}: holds {held(available)}, but no {wanted}")
        given |= companions
    where = " + ".join(source.where for source in (checkpoint, *others))
    try:
        for folder in accompanied:
            networks = inference(folder).accompany(networks, given)
    except BlurkitError as error:
        raise BlurkitError(f"{where}: {error}") from error
    return networks


def held(networks: dict[str, nn.Module]) -> str:
    """Return the result of `load_networks` in words, for a message."""
    return ", ".join(f"{role} ({network_name(n)})" for role, n in networks.items()) or "nothing"
