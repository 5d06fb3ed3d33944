"""Batches on their way to a training step: cut and drawn, then blurred on the device."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from blurkit.data.rendering import render_crops
from blurkit.data.sampler import CropSampler, Unblurred, UnpairedSampler
from blurkit.io.records import to_float
from blurkit.training.orientation import turned
from blurkit.training.recipe import Batch

Loaded = tuple[list[np.ndarray], np.ndarray, list[Unblurred]]
"""Crops of each image (n, crop, crop, 3), orientations (n,), and crops still to be blurred."""

Loader = Callable[[int], Loaded]
"""Loads the crops of a step."""


def loader_of(sampler: CropSampler | UnpairedSampler, seed: int, size: int, part: slice) -> Loader:
    """Return what loads the crops of a step; the arguments are those of `CropSampler.batch`."""

    def loader(step: int) -> Loaded:
        drawn = seed, step, size, part
        return sampler.batch(*drawn), sampler.turns(*drawn), sampler.unblurred(*drawn)

    return loader


def to_device(loaded: Loaded, images: tuple[str, ...], crop: int, device: torch.device) -> Batch:
    """Return loaded crops as a batch on `device`, blurred there where that is still to be done.

    `images` are the names of the crops, `crop` their side, pixels.
    """
    crops, turns, unblurred = loaded
    made = {}
    if unblurred:
        made = dict(zip(("blur", "sharp"), render_crops(unblurred, crop, device), strict=True))
    places = [one.place for one in unblurred]
    batch = {}
    for name, values in zip(images, crops, strict=True):
        tensor = torch.from_numpy(values if values.dtype == np.uint8 else to_float(values))
        if device.type == "cuda":
            tensor = tensor.pin_memory().to(device, non_blocking=True)
        tensor = tensor.to(device).permute(0, 3, 1, 2)
        tensor = tensor.float() / 255 if tensor.dtype == torch.uint8 else tensor
        if name in made:
            tensor[places] = made[name]
        batch[name] = turned(tensor, turns)
    return batch
