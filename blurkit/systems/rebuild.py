"""Rebuild the networks of blurkit's own checkpoints from a blueprint and a state dict."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.systems.registry import Undrawn, filled
from blurkit.systems.system import Architecture, network_classes


def rebuilt(
    blueprint: Mapping[str, Any], state_dict: Mapping[str, Tensor]
) -> tuple[Architecture, nn.Module]:
    """Return the architecture and the network of a blueprint, with a state dict's tensors.

    The network is in eval mode and in float32. Its class is looked up by name among those that
    systems describe, and nowhere else. Raises BlurkitError if no system has the class, if the class
    does not accept the options, or if the tensors do not match the network.
    """
    # Built without memory or initial values; `filled` assigns the tensors.
    with torch.device("meta"), Undrawn():
        architecture, network = _built(blueprint)
    return architecture, filled(architecture, network, dict(state_dict))


def _built(blueprint: Mapping[str, Any]) -> tuple[Architecture, nn.Module]:
    name, options = blueprint["class"], blueprint["options"]
    known = network_classes()
    if name not in known:
        raise BlurkitError(f"no system in this version of blurkit has a network {name!r}")
    architecture, load = known[name]
    arguments = {
        key: _built(value)[1] if isinstance(value, dict) else value
        for key, value in options.items()
    }
    try:
        return architecture, load()(**arguments)
    except (TypeError, ValueError, BlurkitError) as error:
        raise BlurkitError(f"{name} does not accept the options {options}: {error}") from error
