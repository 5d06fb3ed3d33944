"""The networks of a checkpoint, each under the role it plays."""

from __future__ import annotations

from torch import nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.rebuild import rebuilt
from blurkit.systems.registry import recognised
from blurkit.systems.system import inference, systems


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


def assemble(checkpoint: Checkpoint, *beside: Checkpoint) -> dict[str, nn.Module]:
    """Return the networks of `checkpoint` by role, companions such as an encoder from `beside`.

    Raises BlurkitError as `load_networks` does, for a file of `beside` that holds no companion, and
    for networks that do not fit together.
    """
    networks, given = load_networks(checkpoint), dict[str, nn.Module]()
    accompanied = {folder: one.companions for folder, one in systems().items() if one.companions}
    roles = [role for companions in accompanied.values() for role in companions]
    for source in beside:
        found = load_networks(source)
        companions = {role: network for role, network in found.items() if role in roles}
        if not companions:
            lacking = " or ".join(roles)
            raise BlurkitError(f"{source.where}: holds {held(found)}, but no {lacking}")
        given |= companions
    where = " + ".join(source.where for source in (checkpoint, *beside))
    try:
        for folder in accompanied:
            networks = inference(folder).accompany(networks, given)
    except BlurkitError as error:
        raise BlurkitError(f"{where}: {error}") from error
    return networks


def held(networks: dict[str, nn.Module]) -> str:
    """What `load_networks` found, in words for a message."""
    return ", ".join(f"{role} ({type(n).__name__})" for role, n in networks.items()) or "nothing"
