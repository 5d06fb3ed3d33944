"""BGAN on whole images: a new blur for every noise vector (CVPR 2020, Section 3.2)."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.dbgan.networks import BGAN
from blurkit.systems.uses import Drawer, network_for
from blurkit.training.configuration import Configuration
from blurkit.training.recipe import Batch


class NoisyBlur(Drawer):
    """BGAN(photo, noise); the noise, N(0, scale^2), is the same for all tiles: no seams show."""

    use, scale = "noise", 1.0

    def __init__(self, network: BGAN) -> None:
        super().__init__()
        self.size, self.network = network.size, network

    def forward(self, photo: Tensor, noise: Tensor) -> Tensor:
        """Return (N, 3, H, W) from photos (N, 3, H, W) in [0, 1] and a noise vector (noise,)."""
        return self.network(photo, noise.expand(len(photo), -1))

    def drawn(
        self, image: np.ndarray, generator: np.random.Generator, scale: float
    ) -> dict[str, Tensor]:
        values = generator.standard_normal(self.network.options["noise"], np.float32)
        return {"noise": torch.from_numpy(scale * values)}

    def kept(self, drawn: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        return {"reblurred_noise": drawn["noise"].numpy()}


def noise(networks: Mapping[str, nn.Module]) -> NoisyBlur | None:
    """Return the network that blurs by a noise vector."""
    network = networks.get("bgan")
    return NoisyBlur(network) if isinstance(network, BGAN) else None


# ---- Augmentation --------------------------------------------------------------------------------


class BlurMixing:
    """Replaces the blur of a fraction of every step's crops by a BGAN's, by seed and step."""

    def __init__(self, network: BGAN, fraction: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self.fraction = fraction

    @torch.no_grad()
    def __call__(self, batch: Batch, seed: int, step: int, size: int, part: slice) -> Batch:
        """Return the batch with new `blur` (N, 3, crop, crop), in [0, 1], for the chosen crops."""
        generator = np.random.default_rng([seed, 7, step])
        chosen = generator.random(size)[part] < self.fraction
        noise = generator.standard_normal((size, self.network.options["noise"]), np.float32)[part]
        if not chosen.any():
            return batch
        indices = torch.from_numpy(np.flatnonzero(chosen)).to(batch["blur"].device)
        sharp = batch["sharp"][indices]
        blurred = self.network(sharp, torch.from_numpy(noise[chosen]).to(sharp.device))
        blur = batch["blur"].clone()
        blur[indices] = blurred.float().clamp(0, 1)
        return {**batch, "blur": blur}


def blur_mixing(file: str, configuration: Configuration) -> BlurMixing:
    """Return the augmentation by the BGAN in a file. Raises BlurkitError if it holds none."""
    drawer = network_for("noise", load_checkpoint(file))
    assert isinstance(drawer, NoisyBlur)
    return BlurMixing(drawer.network, configuration.mix)
