"""NAFNet on whole images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from blurkit.systems.nafnet.networks import NAFNet


def deblurring(networks: Mapping[str, nn.Module]) -> NAFNet | None:
    """Return the network that restores an image on its own."""
    network = networks.get("deblur")
    return network if isinstance(network, NAFNet) else None
