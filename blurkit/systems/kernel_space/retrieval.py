"""Retrieval of the blur of a pair: its code is searched for instead of taken from G.

Step B of Section 3.2 of "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021); its
Table 3 shows how closely F reproduces blur that it was not trained on.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from blurkit.errors import BlurkitError, is_out_of_memory
from blurkit.io.records import Image, to_float
from blurkit.nn.size import SizeRequirement
from blurkit.systems.kernel_space.search_context import SearchContext
from blurkit.systems.kernel_space.search_steps import find_blur


@torch.no_grad()
def search_code(
    context: SearchContext, sharp: Image, blur: Image, seed: int
) -> tuple[np.ndarray, str]:
    """Return F(sharp, k), (H, W, C) floats, and a description of the search for k.

    The search finds the k for which F(sharp, k) is closest to `blur`. The photo is processed whole.
    `context` has the kernel space and the options. Raises BlurkitError if memory runs out or the
    search diverges.
    """
    operator = context.operator
    photo, target = (_padded(image, operator.size) for image in (sharp, blur))
    try:
        with torch.enable_grad():
            found = find_blur(context, target, photo, seed)
        assert found.blur is not None
        made = operator.blur(_batch(photo).to(context.device), found.blur)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BlurkitError("out of memory; crop the pair (blurkit prepare --crop)") from error
    height, width, channels = sharp.shape
    pixels = made[0, :, :height, :width].cpu().numpy().transpose(1, 2, 0)
    if channels == 1:
        pixels = pixels.mean(axis=2, keepdims=True)
    return pixels, f"search iterations={found.iteration} seed={context.options.seed}"


def _padded(image: Image, size: SizeRequirement) -> np.ndarray:
    """Return floats (H', W', 3) in [0, 1], mirrored right and below to a `size` that F accepts."""
    height, width, channels = image.shape
    rows, columns = size.padded(height, width)
    values = to_float(image).repeat(3 // channels, axis=2)
    below, right = ((0, rows - height), (0, columns - width))
    return np.pad(values, (below, right, (0, 0)), "reflect" if min(height, width) > 1 else "edge")


def _batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
