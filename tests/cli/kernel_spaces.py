"""Small blur kernel spaces, and what the commands are held to: F and G by hand."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from blurkit.io.checkpoints import Checkpoint, save_checkpoint
from blurkit.systems.kernel_space.networks import KernelSpace

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
    state = {k: v.clone() for k, v in kernel_space(variational).state_dict().items()}
    save_checkpoint(Checkpoint({"kernel_space": state}, "kernel-space"), path)
    return path


def tensor(image: np.ndarray) -> Tensor:
    """(H, W, C) of 8 bits as (1, 3, H, W) in [0, 1], reflected to multiples of 128, 256 or more."""
    values = image.astype(np.float32) / 255
    if values.ndim == 2 or values.shape[2] == 1:
        values = np.stack([values.reshape(values.shape[:2])] * 3, axis=2)
    below, right = (max(256, -(-side // 128) * 128) - side for side in values.shape[:2])
    padded = np.pad(values, ((0, below), (0, right), (0, 0)), mode="reflect")
    return torch.from_numpy(padded.transpose(2, 0, 1)[None].copy())


@torch.inference_mode()
def code_of(sharp: np.ndarray, blur: np.ndarray) -> Tensor:
    """G of a pair, its mean: (1, code, rows, columns)."""
    return kernel_space().encode(tensor(sharp), tensor(blur))[0]


@torch.inference_mode()
def blurred_by(image: np.ndarray, code: Tensor, variational: bool = False) -> np.ndarray:
    """F of an image and a code that fits it, (H, W, 3) times 255, as float."""
    made = kernel_space(variational).blur(tensor(image), code)
    pixels: np.ndarray = made[0].clamp(0, 1).numpy().transpose(1, 2, 0) * 255
    return pixels[: image.shape[0], : image.shape[1]]
