"""The reference pairs with the numbers that other programs gave for them."""

import json
from functools import cache
from typing import Any

import numpy as np
import torch

from blurkit.nn.features import BACKBONES
from tests.shared import shared_folder

Pair = tuple[np.ndarray, np.ndarray, dict[str, Any]]


@cache
def _reference() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    folder = shared_folder("parity", "BLURKIT_PARITY")
    return dict(np.load(folder / "metrics.npz")), json.loads((folder / "metrics.json").read_text())


def pairs() -> dict[str, Pair]:
    """By name: a test image, its reference, and every number known of the two."""
    return _pairs(_reference()[1]["pairs"])


def shifted_pairs() -> dict[str, Pair]:
    """By name: a test image that is shifted against its reference, and RealBlur's numbers."""
    return _pairs(_reference()[1]["ecc"])


def deep_pair() -> Pair:
    return _pairs({"u16": _reference()[1]["u16"]})["u16"]


def _pairs(numbers: dict[str, Any]) -> dict[str, Pair]:
    arrays = _reference()[0]
    return {name: (arrays[f"{name}/test"], arrays[f"{name}/ref"], n) for name, n in numbers.items()}


def features(name: str) -> Pair:
    """The feature maps (C, H, W) x and y under a name, and the contextual distances of the two."""
    arrays, numbers = _reference()
    return arrays[f"{name}/x"], arrays[f"{name}/y"], numbers["cx"][name]


def dataset() -> dict[str, Any]:
    """Names of some of the pairs, and the means over them by both rules."""
    means: dict[str, Any] = _reference()[1]["dataset"]
    return means


def synthetic_backbone(name: str, seed: int) -> dict[str, np.ndarray]:
    """Weights of a network of `blurkit.nn.features` as the reference numbers have them.

    Every convolution in order: He-normal weights, then biases of 0.05, from one RandomState.
    """
    backbone = next(backbone for backbone in BACKBONES if backbone.name == name)
    rng = np.random.RandomState(seed)
    weights = {}
    with torch.device("meta"):
        layers = backbone.build()
    for number, layer in enumerate(layers):
        for key, tensor in layer.state_dict().items():
            shape = tuple(tensor.shape)
            scale = np.sqrt(2 / np.prod(shape[1:])) if len(shape) > 1 else 0.05
            values = (rng.standard_normal(shape) * scale).astype(np.float32)
            weights[f"features.{number}.{key}"] = values
    return weights


def synthetic_digest(key: str) -> str:
    """The sha256 of a synthetic backbone's float32 values, all in order."""
    digest: str = _reference()[1]["synthetic_backbones"][key]["sha256_all_float32_in_key_order"]
    return digest


def depths(test: np.ndarray, ref: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray, int], ...]:
    """Two images of 8 bits, the same of 16 and as floats, each pair with its white."""
    return (
        (test, ref, 255),
        (test.astype(np.uint16) * 257, ref.astype(np.uint16) * 257, 65535),
        (np.float32(test) / 255, np.float32(ref) / 255, 1),
    )


def noisy(photo: np.ndarray) -> np.ndarray:
    """A photo averaged along its rows, with noise."""
    shifted = [np.roll(photo, n, axis=1).astype(np.float64) for n in range(5)]
    noise = np.random.default_rng(0).normal(0, 3, photo.shape)
    return np.clip(np.mean(shifted, axis=0) + noise, 0, 255).round().astype(np.uint8)
