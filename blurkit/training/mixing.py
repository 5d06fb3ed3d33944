"""Blur of a trained BGAN among the crops of a training step (DBGAN's Section 4.3, variant plus)."""

from __future__ import annotations

import numpy as np
import torch

from blurkit.systems.dbgan.networks import BGAN
from blurkit.training.recipe import Batch


class BlurMixing:
    """Makes the blur of a share of every step's crops anew, of their sharp images and fresh noise.

    It serves every recipe that learns from pairs. What is drawn depends on seed and step alone.
    """

    def __init__(self, network: BGAN, share: float) -> None:
        self.network = network.eval().requires_grad_(False)
        self.share = share

    @torch.no_grad()
    def __call__(self, batch: Batch, seed: int, step: int, size: int, part: slice) -> Batch:
        """The batch with another `blur` (N, 3, crop, crop), clamped to [0, 1], where one is made.

        `size` is the whole batch, `part` the share of this process.
        """
        generator = np.random.default_rng([seed, 7, step])
        chosen = generator.random(size)[part] < self.share
        noise = generator.standard_normal((size, self.network.options["noise"]), np.float32)[part]
        if not chosen.any():
            return batch
        places = torch.from_numpy(np.flatnonzero(chosen)).to(batch["blur"].device)
        sharp = batch["sharp"][places]
        made = self.network(sharp, torch.from_numpy(noise[chosen]).to(sharp.device))
        blur = batch["blur"].clone()
        blur[places] = made.float().clamp(0, 1)
        return {**batch, "blur": blur}
