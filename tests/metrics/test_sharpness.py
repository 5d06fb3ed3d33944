"""Sharpness by scikit-image's blur metric, gradient energy by SciPy, and the order of pictures."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
from skimage.measure import blur_effect

import blurkit
from blurkit.data.sources import read_records
from blurkit.metrics.sharpness import gradient_energy, sharpness
from tests.cli.pictures import blurred

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
    assert sharpness(ASTRONAUT) > sharpness(once) > sharpness(blurred(once))
    assert sharpness(np.rot90(once)) == pytest.approx(sharpness(once), abs=0.01)


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


# ---- gradient energy -----------------------------------------------------------------------------

PHOTO = skimage.data.astronaut()[:70, 100:190]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_it_is_the_mean_squared_difference(dtype: type, top: int, channels: int) -> None:
    image = (PHOTO[:, :, :channels] / 255 * top).astype(dtype)
    values = image / np.float64(top)
    right = scipy.ndimage.correlate1d(values, [0, -1, 1], axis=1)[:, :-1]
    below = scipy.ndimage.correlate1d(values, [0, -1, 1], axis=0)[:-1]
    expected = np.square(right).mean() + np.square(below).mean()
    assert gradient_energy(image) == pytest.approx(expected, rel=1e-6)


def test_known_pictures() -> None:
    stripes = np.zeros((6, 8, 3), np.uint8)
    stripes[:, ::2] = 255
    assert gradient_energy(stripes) == 1
    assert gradient_energy(np.indices((6, 8)).sum(0)[:, :, None].astype(np.uint8) % 2 * 255) == 2
    ramp = np.linspace(0, 1, 11, dtype=np.float32)[:, None, None]
    assert gradient_energy(ramp) == pytest.approx(0.01)
    assert gradient_energy(ramp / 2 + 0.5) == pytest.approx(0.0025)
    assert gradient_energy(np.full((5, 5, 3), 77, np.uint8)) == 0
    assert gradient_energy(np.array([[[0, 9, 255]]], np.uint8)) == 0


def test_blurring_lowers_it_and_brightness_does_not_matter() -> None:
    values = (PHOTO / 512).astype(np.float32)
    sigmas = [(sigma, sigma, 0) for sigma in (0.01, 0.5, 1, 2, 4)]
    energies = [gradient_energy(scipy.ndimage.gaussian_filter(values, s)) for s in sigmas]
    assert energies == sorted(energies, reverse=True)
    assert gradient_energy(values + 0.25) == pytest.approx(gradient_energy(values), rel=1e-4)
