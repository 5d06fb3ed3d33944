"""The length of blur that the table of synthetic blur tells, on blur whose length is known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage

from tests.benchmarks.blur import local_lengths
from tests.synthesis.exposures import photo


@pytest.mark.parametrize("length", [1, 3, 9, 21])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_length_of_a_straight_blur(length: int, axis: int) -> None:
    sharp = photo(300, 300)
    blur = scipy.ndimage.uniform_filter1d(sharp**2.2, length, axis=axis).clip(0) ** (1 / 2.2)
    found = local_lengths(blur, sharp)
    assert found and np.median(found) == pytest.approx(length, rel=0.2, abs=0.5)


def test_nothing_is_told_of_what_shows_no_kernel() -> None:
    rng = np.random.default_rng(0)
    assert local_lengths(rng.random((300, 300, 3)), rng.random((300, 300, 3))) == []
