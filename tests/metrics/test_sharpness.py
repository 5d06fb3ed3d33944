"""Sharpness without a reference: scikit-image's blur metric, and the order of real pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import skimage.data
from skimage.measure import blur_effect

import blurkit
from blurkit.data.sources import read_records
from blurkit.metrics.sharpness import sharpness
from tests.cli.command import blurred

ASTRONAUT = skimage.data.astronaut()


@pytest.mark.parametrize(
    "image", [ASTRONAUT, ASTRONAUT[:40, :7], skimage.data.camera()[:, :, None]], ids=str
)
def test_it_is_one_minus_the_metric_of_scikit_image(image: np.ndarray) -> None:
    plain = image[:, :, 0] if image.shape[2] == 1 else image
    axis = None if plain.ndim == 2 else 2
    assert sharpness(image) == pytest.approx(1 - blur_effect(plain, channel_axis=axis), abs=1e-6)


def test_the_depth_does_not_matter() -> None:
    deep = ASTRONAUT.astype(np.uint16) * 257
    values = (ASTRONAUT / 255).astype(np.float32)
    assert sharpness(deep) == pytest.approx(sharpness(ASTRONAUT), abs=1e-6)
    assert blurkit.sharpness(values) == pytest.approx(sharpness(ASTRONAUT), abs=1e-6)


def test_blur_lowers_it_in_any_direction() -> None:
    once = blurred(ASTRONAUT)
    twice = blurred(once)
    assert sharpness(ASTRONAUT) > sharpness(once) > sharpness(twice)
    turned = np.rot90(once)
    assert sharpness(turned) == pytest.approx(sharpness(once), abs=0.01)


@pytest.mark.parametrize("shape", [(1, 1, 3), (3, 90, 1), (64, 64, 3)])
def test_no_gradients(shape: tuple[int, ...]) -> None:
    assert sharpness(np.full(shape, 90, np.uint8)) == 0


def test_real_pairs_are_in_order(shared_data: Path) -> None:
    """As are all 59 real pairs that were tried: GoPro, REDS, Levin's."""
    pairs = [shared_data / "pairs/gopro/test/square", shared_data / "pairs/reds_180p/val"]
    compared = 0
    for record in read_records(pairs):
        assert sharpness(record.images["sharp"]) > sharpness(record.images["blur"]), record.name
        compared += 1
    assert compared == 12
