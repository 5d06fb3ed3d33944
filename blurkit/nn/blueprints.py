"""Blueprints for rebuilding a network: the name of its class and its constructor's arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from torch import nn

Blueprint = TypedDict("Blueprint", {"class": str, "options": dict[str, Any]})
"""Plain values; an argument that is a network is replaced by its blueprint."""


def blueprint(network: nn.Module) -> Blueprint:
    """Return the blueprint of a network.

    The constructor's arguments are `network.arguments` if it has any, otherwise `network.options`.
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
    """Return, by role, the blueprints of those networks that have options."""
    return {role: blueprint(n) for role, n in networks.items() if hasattr(n, "options")}
