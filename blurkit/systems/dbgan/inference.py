"""DBGAN on whole images, and BGAN, which gives a new blur for every noise vector.

"Deblurring by Realistic Blurring" (CVPR 2020), Section 3.2.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.systems.dbgan.networks import BGAN, DBGAN
from blurkit.systems.uses import Drawer


class NoisyBlur(Drawer):
    """BGAN(photo, noise) with noise ~ N(0, scale^2); the paper's scale is 1.

    All tiles of a photo get the same noise vector, so that no seams show.
    """

    use, scale = "noise", 1.0

    def __init__(self, network: BGAN) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(self, photo: Tensor, noise: Tensor) -> Tensor:
        """Return (N, 3, H, W) from photos (N, 3, H, W) in [0, 1] and a noise vector (noise,)."""
        blurred: Tensor = self.network(photo, noise.expand(len(photo), -1))
        return blurred

    def drawn(
        self, image: np.ndarray, generator: np.random.Generator, scale: float
    ) -> dict[str, Tensor]:
        """Return a random noise vector for a photo."""
        values = generator.standard_normal(self.network.options["noise"], np.float32)
        return {"noise": torch.from_numpy(scale * values)}

    def kept(self, drawn: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Return the noise vector as `reblurred_noise`."""
        return {"reblurred_noise": drawn["noise"].numpy()}


def deblurring(networks: Mapping[str, nn.Module]) -> DBGAN | None:
    """Return the network that restores an image on its own."""
    network = networks.get("deblur")
    return network if isinstance(network, DBGAN) else None


def noise(networks: Mapping[str, nn.Module]) -> NoisyBlur | None:
    """Return the network that blurs by a noise vector."""
    network = networks.get("bgan")
    return NoisyBlur(network) if isinstance(network, BGAN) else None
