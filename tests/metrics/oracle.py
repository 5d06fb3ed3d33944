"""The reference pairs with the numbers that other programs gave for them."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np

from tests.shared import shared_folder

Pair = tuple[np.ndarray, np.ndarray, dict[str, Any]]


@cache
def _reference() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    folder = shared_folder("parity", "BLURKIT_PARITY")
    return dict(np.load(folder / "metrics.npz")), json.loads((folder / "metrics.json").read_text())


def pairs() -> dict[str, Pair]:
    """By name: a test image, its reference, and every number known of the two."""
    arrays, numbers = _reference()
    return {
        name: (arrays[f"{name}/test"], arrays[f"{name}/ref"], expected)
        for name, expected in numbers["pairs"].items()
    }


def deep_pair() -> Pair:
    """The 16-bit pair."""
    arrays, numbers = _reference()
    return arrays["u16/test"], arrays["u16/ref"], numbers["u16"]


def noisy(photo: np.ndarray) -> np.ndarray:
    """A photo averaged along its rows, with noise."""
    shifted = [np.roll(photo, n, axis=1).astype(np.float64) for n in range(5)]
    noise = np.random.default_rng(0).normal(0, 3, photo.shape)
    return np.clip(np.mean(shifted, axis=0) + noise, 0, 255).round().astype(np.uint8)
