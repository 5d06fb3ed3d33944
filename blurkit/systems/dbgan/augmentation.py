"""Blur of a trained BGAN among the crops of a training step (DBGAN's Section 4.3, variant plus)."""

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
    """Makes the blur of a fraction of every step's crops anew, of their sharp images and noise.

    It serves every recipe that learns from pairs. What is drawn depends on seed and step alone.
    """

    def __init__(self, network: BGAN, fraction: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self.fraction = fraction

    @torch.no_grad()
    def __call__(self, batch: Batch, seed: int, step: int, size: int, part: slice) -> Batch:
        """Return the batch with another `blur` (N, 3, crop, crop), in [0, 1], where one is made.

        `size` is the number of crops in the whole batch, `part` those of this process.
        """
        generator = np.random.default_rng([seed, 7, step])
        chosen = generator.random(size)[part] < self.fraction
        noise = generator.standard_normal((size, self.network.options["noise"]), np.float32)[part]
        if not chosen.any():
            return batch
        places = torch.from_numpy(np.flatnonzero(chosen)).to(batch["blur"].device)
        sharp = batch["sharp"][places]
        made = self.network(sharp, torch.from_numpy(noise[chosen]).to(sharp.device))
        blur = batch["blur"].clone()
        blur[places] = made.float().clamp(0, 1)
        return {**batch, "blur": blur}


def blur_mixing(file: str, configuration: Configuration) -> BlurMixing:
    """Return the mixing of blur that the BGAN in a checkpoint file makes.

    Raises BlurkitError for a file that holds none.
    """
    drawer = network_for("noise", load_checkpoint(file))
    assert isinstance(drawer, NoisyBlur)
    return BlurMixing(drawer.network, configuration.mix)
