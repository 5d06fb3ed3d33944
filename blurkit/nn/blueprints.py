"""How a network is built again: the name of its class, and the arguments of its constructor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import nn

Blueprint = TypedDict("Blueprint", {"class": str, "options": dict[str, Any]})
"""Plain values; an argument that is a network stands as a blueprint of its own."""


def blueprint(network: nn.Module) -> Blueprint:
    """Return the blueprint of a network.

    Its `options` are taken for the arguments of its constructor, unless it has `arguments`.
    """
    arguments: Any = getattr(network, "arguments", None) or network.options
    return {
        "class": type(network).__name__,
        "options": {
            name: blueprint(value) if isinstance(value, nn.Module) else value
            for name, value in arguments.items()
        },
    }


def blueprints(networks: Mapping[str, nn.Module]) -> dict[str, Blueprint]:
    """Return the blueprints of networks by role, of those that have any options."""
    return {role: blueprint(n) for role, n in networks.items() if hasattr(n, "options")}
