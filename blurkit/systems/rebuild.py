"""From a blueprint and a state dict to the network: what blurkit's own checkpoints are read by."""

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
    """Return the network of a blueprint with a state dict's tensors, and its architecture.

    It is in eval mode and in float32. A class is looked up by its name among those that systems
    describe, and nowhere else. Raises BlurkitError for a class that none has, options that it does
    not take, and tensors that are not those of the network.
    """
    # Built without memory or initial values: the tensors are put in their places below.
    with torch.device("meta"), Undrawn():
        architecture, network = _built(blueprint)
    return architecture, filled(architecture, network, dict(state_dict))


def _built(blueprint: Mapping[str, Any]) -> tuple[Architecture, nn.Module]:
    name, options = blueprint["class"], blueprint["options"]
    known = network_classes()
    if name not in known:
        raise BlurkitError(f"no system of this blurkit has a network {name!r}")
    architecture, load = known[name]
    arguments = {
        key: _built(value)[1] if isinstance(value, dict) else value
        for key, value in options.items()
    }
    try:
        return architecture, load()(**arguments)
    except (TypeError, ValueError, BlurkitError) as error:
        raise BlurkitError(f"{name} does not take the options {options}: {error}") from error
