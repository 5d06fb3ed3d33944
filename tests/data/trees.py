"""What the tests of dataset trees share; the trees are planted by the fixtures in conftest.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

Plant = Callable[..., None]


def assert_pair(images: dict[str, np.ndarray], tolerance: float = 0) -> None:
    """`blur` is what `plant` made of the same scene as `sharp`."""
    error = np.abs(images["blur"].astype(float) - images["sharp"] // 2)
    assert error.mean() <= tolerance
