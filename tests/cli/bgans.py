"""A small BGAN, and what the commands are held to: the network by hand."""

import zlib
from pathlib import Path

import numpy as np
import torch

from blurkit.systems.dbgan.networks import BGAN
from tests.cli.guides import pixels, tensor
from tests.engine.networks import stored

REACH = 8
"""Pixels to each side that the small BGAN sees: its convolutions are eight, of 3x3."""


def bgan() -> BGAN:
    """A small BGAN whose noise shows; as it comes, it hardly changes anything."""
    torch.manual_seed(0)
    network = BGAN(width=8, blocks=1)
    with torch.no_grad():
        network.head.weight[:, 3:] *= 3
        network.tail[1].weight *= 0.7
    return network.eval()


def saved(path: Path) -> Path:
    """A checkpoint of `bgan`, which works in tiles of 64 pixels."""
    return stored(path, {"bgan": bgan()}, "bgan", crop=64)


def noise_of(seed: int, name: str) -> np.ndarray:
    """What is drawn for the record of that name: 4 values."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode()), 0])
    return generator.standard_normal(4, np.float32)


@torch.inference_mode()
def blurred_by(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """BGAN of an image of at most 64x64 and its noise, (H, W, 3) times 255, as float."""
    return pixels(bgan()(tensor(image), torch.from_numpy(noise[None])), image)
