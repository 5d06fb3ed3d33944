"""Retrieving the blur of a pair: its code searched for instead of taken from G.

Step B of Section 3.2 of "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021), whose
Table 3 tells how near F comes to blur that it was not trained on.
"""

from __future__ import annotations

import time

import numpy as np
import torch
from torch import Tensor

from blurkit.engine.engine import is_out_of_memory
from blurkit.errors import BlurkitError
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.nn.size import SizeRequirement
from blurkit.synthesis.blurred_records import seeds
from blurkit.systems.kernel_space.search_context import SearchContext
from blurkit.tasks.blind_deblur import find_blur
from blurkit.tasks.reblur import reproduction, with_reblurred

RETRIEVAL_ITERATIONS = 200
"""Steps of the code unless told otherwise; twice as many gain a tenth of a dB."""

RATE = 5e-4
"""Learning rate of the code unless told otherwise, the released code's."""


@torch.no_grad()
def retrieve(record: Record, context: SearchContext, checkpoint: str) -> Record:
    """`record` with `reblurred`: F(sharp, k), where k was searched for to give its `blur`.

    The photo is taken whole. `context` has the kernel space and the options; all that is drawn
    depends on their seed and the record's name. Attributes are as those of `reblur` for a record
    that is reblurred like itself. Raises BlurkitError when an image is missing, the two are not of
    one size, memory runs out or the search diverges.
    """
    sharp, blur = record.image("sharp"), record.image("blur")
    record.check_one_size("sharp", "blur")
    started = time.perf_counter()
    operator = context.operator
    photo, target = (_padded(image, operator.size) for image in (sharp, blur))
    seed = int(np.random.default_rng(seeds(context.options.seed, record.name)).integers(2**62))
    try:
        with torch.enable_grad():
            found = find_blur(context, target, photo, seed)
        assert found.blur is not None
        made = operator.blur(_batch(photo).to(context.device), found.blur)
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise BlurkitError("out of memory; cut the pair (blurkit prepare --crop)") from error
    height, width, channels = sharp.shape
    pixels = made[0, :, :height, :width].cpu().numpy().transpose(1, 2, 0)
    if channels == 1:
        pixels = pixels.mean(axis=2, keepdims=True)
    reblurred = from_float(pixels, sharp.dtype)
    told = f"search iterations={found.iteration} seed={context.options.seed}"
    finished = with_reblurred(record, reblurred, record.name, checkpoint, told, started)
    finished.attrs |= reproduction(reblurred, sharp, blur)
    return finished


def _padded(image: Image, size: SizeRequirement) -> np.ndarray:
    """Floats (H', W', 3) in [0, 1], reflected right and below to a `size` that F takes."""
    height, width, channels = image.shape
    rows, columns = size.padded(height, width)
    values = to_float(image).repeat(3 // channels, axis=2)
    below, right = ((0, rows - height), (0, columns - width))
    return np.pad(values, (below, right, (0, 0)), "reflect" if min(height, width) > 1 else "edge")


def _batch(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)[None]))
