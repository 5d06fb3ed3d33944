"""MSFS-Net on whole images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from blurkit.systems.msfs.networks import MSFSNet


def deblurring(networks: Mapping[str, nn.Module]) -> MSFSNet | None:
    """Return the network that restores an image on its own."""
    network = networks.get("deblur")
    return network if isinstance(network, MSFSNet) else None
