"""Networks of spandrel on whole images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from blurkit.errors import BlurkitError
from blurkit.systems.spandrel.networks import SpandrelNetwork


def deblurring(networks: Mapping[str, nn.Module]) -> SpandrelNetwork | None:
    """Return the network that restores an image on its own.

    Raises BlurkitError if it makes anything but a restored image of the same size.
    """
    network = networks.get("deblur")
    if not isinstance(network, SpandrelNetwork):
        return None
    if reason := network.refusal():
        raise BlurkitError(reason)
    return network
