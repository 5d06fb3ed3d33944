"""The length and form of blur that the table of synthetic blur tells, on blur that is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from tests.benchmarks.blur import local_forms
from tests.synthesis.exposures import photo


@pytest.mark.parametrize("length", [1, 3, 9, 21])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_length_of_a_straight_blur(length: int, axis: int) -> None:
    sharp = photo(300, 300)
    blur = scipy.ndimage.uniform_filter1d(sharp**2.2, length, axis=axis).clip(0) ** (1 / 2.2)
    found = local_forms(blur, sharp)
    lengths, straightness = np.median(found, axis=0)
    assert lengths == pytest.approx(length, rel=0.2, abs=0.5)
    assert length < 9 or straightness > 0.85


def test_a_square_is_not_straight() -> None:
    sharp = photo(300, 300)
    blur = scipy.ndimage.uniform_filter(sharp**2.2, (11, 11, 1)).clip(0) ** (1 / 2.2)
    assert np.median(local_forms(blur, sharp), axis=0)[1] < 0.3


def test_nothing_is_told_of_what_shows_no_kernel() -> None:
    rng = np.random.default_rng(0)
    assert local_forms(rng.random((300, 300, 3)), rng.random((300, 300, 3))) == []
