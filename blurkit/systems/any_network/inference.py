"""Networks of users on whole images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from blurkit.systems.any_network.networks import UserNetwork


def deblurring(networks: Mapping[str, nn.Module]) -> UserNetwork | None:
    """Return the network that restores an image."""
    network = networks.get("deblur")
    return network if isinstance(network, UserNetwork) else None
