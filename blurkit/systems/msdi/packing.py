"""MSDI-Net's networks as they ship: one encoder with latents, G_r, and the deblurring network."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record
from blurkit.nn.blocks import blueprints
from blurkit.systems.msdi.inference import steering
from blurkit.systems.msdi.networks import STEERING, STEERING_KEYS, MSDINet
from blurkit.systems.packing import Packing
from blurkit.systems.registry import held, load_networks


def chosen(
    first: Checkpoint, second: Checkpoint | None = None, pairs: Iterable[Record] = ()
) -> Packing:
    """Return the networks of stage 1 (`first`) and stage 2 (`second`) that ship.

    Configuration and provenance hold those of both stages under the role of the stage's generator,
    `reblur` or `deblur`. Raises BlurkitError if a stage lacks a network or the stages do not share
    one encoder.
    """
    if second is None:
        raise BlurkitError(f"{first.where}: MSDI-Net ships with both stages; name the second too")
    networks, restoring = load_networks(first), load_networks(second)
    missing = [role for role in (*STEERING, "reblur") if role not in networks]
    if missing:
        names = ", ".join(missing)
        raise BlurkitError(f"{first.where}: holds {held(networks)}, but no {names}")
    if "deblur" not in restoring:
        raise BlurkitError(f"{second.where}: holds {held(restoring)}, but no deblurring network")
    deblur = restoring["deblur"]
    for role, network in steering(restoring, "deblur").items():
        if not _same(network, networks[role]):
            raise BlurkitError(
                f"{second.where} and {first.where} differ in their {role}; "
                "both stages must share the one encoder of the file"
            )
    states: dict[str, dict[str, Tensor]] = {
        role: networks[role].state_dict() for role in (*STEERING, "reblur")
    }
    inside = STEERING_KEYS if isinstance(deblur, MSDINet) else ()
    states["deblur"] = {
        key: tensor for key, tensor in deblur.state_dict().items() if not key.startswith(inside)
    }
    shipped = {role: networks[role] for role in (*STEERING, "reblur")}
    built = blueprints({**shipped, "deblur": deblur})
    if isinstance(deblur, MSDINet):  # it ships without its own copy of the encoder
        built["deblur"] = {"class": "StackedGenerator", "options": deblur.own_options}
    checkpoint = Checkpoint(
        states,
        second.system or first.system,
        {"reblur": first.configuration, "deblur": second.configuration},
        {"reblur": first.provenance, "deblur": second.provenance},
        blueprints=built,
    )
    compared = {"reblur": ("reblurring", (first,)), "deblur": ("deblurring", (second, first))}
    return Packing(checkpoint, compared)  # type: ignore[arg-type]


def _same(network: nn.Module, other: nn.Module) -> bool:
    first, second = network.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
