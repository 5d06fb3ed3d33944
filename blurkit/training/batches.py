"""Training batches: crops are loaded on the CPU, then augmented and blurred on the device."""

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.data.sampler import CropSampler, UnpairedSampler
from blurkit.synthesis.exposure import Unblurred
from blurkit.synthesis.rendering import on_device, render_crops
from blurkit.training.configuration import Configuration
from blurkit.training.recipe import Batch

MADE = ("blur", "sharp")
"""The images that rendering makes, in place of the stored crops."""

Loaded = tuple[list[np.ndarray], np.ndarray, list[Unblurred]]
"""Stored crops of each image (n, crop, crop, 3), the orientations of all crops, and the crops to be
blurred."""


class BatchAugmentation(Protocol):
    """A network that augments batches; the result depends only on the batch, seed and step."""

    network: nn.Module

    def __call__(self, batch: Batch, seed: int, step: int, size: int, part: slice) -> Batch:
        """Return the augmented `part`, this process's, of a step's batch of `size` crops."""
        ...


@dataclass(frozen=True)
class CropSamples:
    """The crops of a sampler as the `Samples` of a training."""

    sampler: CropSampler | UnpairedSampler
    configuration: Configuration

    def __len__(self) -> int:
        return len(self.sampler)

    def load(self, step: int, part: slice) -> Loaded:
        c, sampler = self.configuration, self.sampler
        drawn = c.seed, step, c.batch, part
        unblurred = sampler.unblurred(*drawn)
        places = [crop.place for crop in unblurred]
        crops = [
            np.delete(values, places, axis=0) if places and name in MADE else values
            for name, values in zip(sampler.images, sampler.batch(*drawn), strict=True)
        ]
        return crops, sampler.turns(*drawn) & ORIENTATIONS[c.orientations], unblurred

    def to_device(self, loaded: Any, device: torch.device) -> Batch:
        return to_device(loaded, self.sampler.images, self.configuration.crop, device)


def to_device(loaded: Loaded, images: tuple[str, ...], crop: int, device: torch.device) -> Batch:
    """Return loaded crops as a batch on `device`, and blur there those that are not blurred yet.

    `images` are the names of the images, `crop` is the side of the crops in pixels.
    """
    crops, orientations, unblurred = loaded
    batch = {name: on_device(values, device) for name, values in zip(images, crops, strict=True)}
    if unblurred:
        places, count = [item.place for item in unblurred], len(orientations)
        others = [place for place in range(count) if place not in places]
        for name, made in zip(MADE, render_crops(unblurred, crop, device), strict=True):
            if name in batch:
                whole = torch.empty(count, *made.shape[1:], device=device)
                whole = whole.to(memory_format=torch.channels_last)
                whole[places], whole[others] = made, batch[name]
                batch[name] = whole
    return {name: turned(tensor, orientations) for name, tensor in batch.items()}


ORIENTATIONS = {"all": 7, "flip": 2, "none": 0}
"""The bits of an orientation that may be set, by the value of the option `orientations`."""


def turned(batch: Tensor, turns: np.ndarray) -> Tensor:
    """Return each square crop of a batch (N, C, S, S) in its orientation, 0 to 7.

    Bit 0 flips vertically, bit 1 flips horizontally, bit 2 transposes: together they give all flips
    and rotations by multiples of 90 degrees.
    """
    result = torch.empty_like(batch)
    for turn in np.unique(turns):
        chosen = torch.from_numpy(np.flatnonzero(turns == turn)).to(batch.device)
        crops = batch[chosen]
        sides = [side for bit, side in ((1, 2), (2, 3)) if turn & bit]
        crops = crops.flip(sides) if sides else crops
        result[chosen] = crops.transpose(2, 3) if turn & 4 else crops
    return result
