"""MSDI-Net's networks as they ship: one encoder with its latents, G_r, and the deblurring one."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.records import Record
from blurkit.nn.blueprints import blueprints
from blurkit.systems.msdi.inference import steering
from blurkit.systems.msdi.networks import STEERING, STEERING_KEYS, MSDINet
from blurkit.systems.packing import Packing
from blurkit.systems.roles import held, load_networks


def chosen(
    first: Checkpoint, second: Checkpoint | None = None, pairs: Iterable[Record] = ()
) -> Packing:
    """Return what ships of stage 1 (`first`) and stage 2 (`second`).

    Configuration and provenance have those of the stages under the role of each one's generator,
    `reblur` and `deblur`. Raises BlurkitError for stages that lack a network or do not share one
    encoder.
    """
    if second is None:
        raise BlurkitError(f"{first.where}: MSDI-Net ships with both stages; name the second too")
    networks, after = load_networks(first), load_networks(second)
    lacking = [role for role in (*STEERING, "reblur") if role not in networks]
    if lacking:
        names = ", ".join(lacking)
        raise BlurkitError(f"{first.where}: holds {held(networks)}, but no {names}")
    if "deblur" not in after:
        raise BlurkitError(f"{second.where}: holds {held(after)}, but no deblurring network")
    deblur = after["deblur"]
    for role, network in steering(after, "deblur").items():
        if not _same(network, networks[role]):
            raise BlurkitError(
                f"{second.where} and {first.where} differ in their {role}; "
                "one file holds one encoder, that of both stages"
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
    if isinstance(deblur, MSDINet):  # what is left without its encoder
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


def _same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)
