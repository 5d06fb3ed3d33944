"""The measure of flicker: noise alone, and the frames of a still scene."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data

from tests.benchmarks.flicker import flicker, still_film

PHOTO = skimage.data.coffee()[100:164, 200:264]


def test_flicker_is_the_difference_of_two_noises() -> None:
    film = still_film(np.full((64, 64, 3), 128), 0, 3.0, 8)
    assert flicker(film) == pytest.approx(3 * np.sqrt(2), rel=0.03)


def test_a_scene_without_noise_stands_still() -> None:
    assert flicker(still_film(PHOTO, 9, 0.0, 3)) == 0
    np.testing.assert_array_equal(still_film(PHOTO, 0, 0.0, 1)[0], PHOTO)
    assert np.abs(still_film(PHOTO, 9, 0.0, 1)[0].astype(float) - PHOTO).mean() > 1
