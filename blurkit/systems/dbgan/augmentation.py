"""Mix the blur of a trained BGAN into training crops (DBGAN's Section 4.3, variant plus)."""

from __future__ import annotations

import numpy as np
import torch

from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.dbgan.inference import NoisyBlur
from blurkit.systems.dbgan.networks import BGAN
from blurkit.systems.uses import network_for
from blurkit.training.configuration import Configuration
from blurkit.training.recipe import Batch


class BlurMixing:
    """Replaces the blur of a fraction of every step's crops by a BGAN's.

    The BGAN blurs their sharp images according to noise. This works with every recipe that learns
    from pairs. Random choices depend on seed and step only.
    """

    def __init__(self, network: BGAN, fraction: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self.fraction = fraction

    @torch.no_grad()
    def __call__(self, batch: Batch, seed: int, step: int, size: int, part: slice) -> Batch:
        """Return the batch with new `blur` (N, 3, crop, crop), in [0, 1], for the chosen crops.

        `size` is the number of crops in the whole batch, `part` the slice of this process.
        """
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
    """Return the augmentation by the BGAN in a checkpoint file.

    Raises BlurkitError if the file holds no BGAN.
    """
    drawer = network_for("noise", load_checkpoint(file))
    assert isinstance(drawer, NoisyBlur)
    return BlurMixing(drawer.network, configuration.mix)
