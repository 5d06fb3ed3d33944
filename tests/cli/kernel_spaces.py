"""Small blur kernel spaces, and what the commands are held to: F and G by hand."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blurkit.systems.kernel_space.networks import KernelSpace
from tests.cli import guides
from tests.engine.networks import stored

CODE = 16


def kernel_space(variational: bool = False) -> KernelSpace:
    """A small F and G whose code shows; as they come, it hardly changes anything."""
    torch.manual_seed(3)  # with some seeds all of G's values are below 0, and F sees nothing
    network = KernelSpace(4, CODE, 1, 1, 1, variational)
    amplified = {"kernel_extractor": 6, "adapter": 4}
    with torch.no_grad():
        for key, weights in network.named_parameters():
            if weights.ndim == 4:
                weights.mul_(amplified.get(key.partition(".")[0], 1))
    return network.eval()


def saved(path: Path, variational: bool = False) -> Path:
    """A checkpoint of `kernel_space`."""
    return stored(path, {"kernel_space": kernel_space(variational)}, "kernel-space")


def tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) of 8 bits as (1, 3, H, W) in [0, 1], reflected to multiples of 128, 256 or more."""
    return guides.tensor(image, 256, 128)


@torch.inference_mode()
def code_of(sharp: np.ndarray, blur: np.ndarray) -> Tensor:
    """G of a pair, its mean: (1, code, rows, columns)."""
    return kernel_space().encode(tensor(sharp), tensor(blur))[0]


@torch.inference_mode()
def blurred_by(image: np.ndarray, code: Tensor, variational: bool = False) -> np.ndarray:
    """F of an image and a code that fits it, (H, W, 3) times 255, as float."""
    return guides.pixels(kernel_space(variational).blur(tensor(image), code), image)
