"""What the commands that steer a generator by other pictures are held to: the networks by hand."""

from functools import cache
from pathlib import Path

import numpy as np
import skimage.metrics
import torch
from torch import Tensor, nn

from blurkit.systems.msdi.networks import JointModel
from tests.engine.networks import steered

FP32 = ("--precision", "fp32")


@cache
def model() -> JointModel:
    """The networks in the checkpoint `joint`."""
    return steered()


def tensor(image: np.ndarray, least: int = 64, multiple: int = 64) -> Tensor:
    """(H, W, C) of 8 or 16 bits as (1, 3, H, W) in [0, 1], with its sides padded by reflection."""
    values = image.astype(np.float32) / np.iinfo(image.dtype).max
    if values.ndim == 2 or values.shape[2] == 1:
        values = np.stack([values.reshape(values.shape[:2])] * 3, axis=2)
    more = [(0, max(least, -(-side // multiple) * multiple) - side) for side in values.shape[:2]]
    padded = np.pad(values, (*more, (0, 0)), mode="reflect")
    return torch.from_numpy(padded.transpose(2, 0, 1)[None].copy())


def pixels(made: Tensor, image: np.ndarray) -> np.ndarray:
    """What a network made of `tensor(image)`, (1, 3, H, W), as (H, W, 3) times 255, in float."""
    values: np.ndarray = made[0].clamp(0, 1).numpy().transpose(1, 2, 0) * 255
    return values[: image.shape[0], : image.shape[1]]


@torch.inference_mode()
def expected(
    role: str,
    image: np.ndarray,
    *guides: tuple[float, np.ndarray],
    networks: nn.Module | None = None,
) -> np.ndarray:
    """`image` through G_r or G_d steered by the weighted sum of its guides' E; 8 bits, in float.

    Images are at most 64x64, one tile; `networks` are those of `joint` unless others are given.
    """
    joint = networks or model()
    assert isinstance(joint, JointModel)
    z = sum(weight * joint.net_prior(tensor(guide)) for weight, guide in guides)
    generator = joint.inverse_generator if role == "reblur" else joint.generator
    assert generator is not None and isinstance(z, Tensor)
    return pixels(generator(tensor(image), joint.prior_upsampling(z)), image)


def like(image: np.ndarray, guide: np.ndarray) -> np.ndarray:
    """`image` as `reblur --like` makes it: `expected` of G_r with one guide."""
    return expected("reblur", image, (1, guide))


def psnr(image: np.ndarray, target: np.ndarray) -> float:
    """By scikit-image, in decibels."""
    return float(skimage.metrics.peak_signal_noise_ratio(target, image))


def assert_made(image: np.ndarray, wanted: np.ndarray) -> None:
    """8-bit pixels are those `expected`, to rounding."""
    assert image.dtype == np.uint8 and image.shape == wanted.shape
    np.testing.assert_allclose(image, wanted, atol=0.52)


def official(path: Path, network: nn.Module) -> Path:
    """A file as the official code saves a network: its state dict under `params`."""
    torch.save({"params": network.state_dict()}, path)
    return path
