"""A small BGAN, and what the commands are held to: the network by hand."""

import zlib
from pathlib import Path

import numpy as np
import torch

from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.systems.dbgan.networks import BGAN
from tests.cli.guides import tensor

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
    state = {key: value.clone() for key, value in bgan().state_dict().items()}
    save_checkpoint(Checkpoint({"bgan": state}, "bgan", {"crop": 64}), path)
    return path


def noise_of(seed: int, name: str) -> np.ndarray:
    """What is drawn for the record of that name: 4 values."""
    generator = np.random.default_rng([seed, zlib.crc32(name.encode()), 0])
    return generator.standard_normal(4, np.float32)


@torch.inference_mode()
def blurred_by(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """BGAN of an image of at most 64x64 and its noise, (H, W, 3) times 255, as float."""
    made = bgan()(tensor(image), torch.from_numpy(noise[None]))
    pixels: np.ndarray = made[0].clamp(0, 1).numpy().transpose(1, 2, 0) * 255
    return pixels[: image.shape[0], : image.shape[1]]
