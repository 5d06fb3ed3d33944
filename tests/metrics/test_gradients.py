"""Gradient energy: against numpy and scipy, and what it is for."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import skimage.data

from blurkit.metrics.sharpness import gradient_energy

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
    checks = np.indices((6, 8)).sum(0)[:, :, None].astype(np.uint8) % 2 * 255
    assert gradient_energy(checks) == 2
    ramp = np.linspace(0, 1, 11, dtype=np.float32)[:, None, None]
    assert gradient_energy(ramp) == pytest.approx(0.01)
    assert gradient_energy(ramp / 2 + 0.5) == pytest.approx(0.0025)
    assert gradient_energy(np.full((5, 5, 3), 77, np.uint8)) == 0
    assert gradient_energy(np.array([[[0, 9, 255]]], np.uint8)) == 0


def test_blurring_lowers_it_and_brightness_does_not_matter() -> None:
    values = (PHOTO / 512).astype(np.float32)
    energies = [
        gradient_energy(scipy.ndimage.gaussian_filter(values, (sigma, sigma, 0)))
        for sigma in (0.01, 0.5, 1, 2, 4)
    ]
    assert energies == sorted(energies, reverse=True)
    assert gradient_energy(values + 0.25) == pytest.approx(gradient_energy(values), rel=1e-4)
