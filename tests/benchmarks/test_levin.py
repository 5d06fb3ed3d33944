"""Levin's benchmark: how it scores, and that its searches go on where they were stopped."""

import numpy as np
import pytest

from tests.benchmarks.levin import Pair, aligned_error, measure_searches, search_table
from tests.systems.deconvolution.photos import batch, grey, shake, taken

QUICK = {"iterations": 2, "prior_width": 8, "warm_up": 1, "kernel_size": 31}


@pytest.fixture(scope="module")
def pair() -> Pair:
    """A photo that a shaken camera took, in the form of Levin's."""
    sharp, kernel = grey("camera", 128, 128).astype(np.float32), shake(1, 11)
    return "camera", taken(sharp[:, :, None], kernel)[:, :, 0], sharp, batch(kernel)[0]


def test_a_picture_that_was_moved_is_moved_back() -> None:
    sharp = grey("coffee", 140, 140)
    assert aligned_error(np.roll(sharp, (3, -10), (0, 1)), sharp) == 0
    half = (sharp + np.roll(sharp, 1, 1)) / 2  # half a pixel to the right
    quarter = (half + np.roll(sharp, 1, 1)) / 2
    assert aligned_error(half, sharp) < 0.2 * aligned_error(sharp[::-1], sharp)
    assert aligned_error(quarter, half) < aligned_error(half, sharp)
    assert aligned_error(np.roll(sharp, 14, 0), sharp) > aligned_error(half, sharp)


@pytest.mark.slow
def test_searches_are_measured_once(pair: Pair) -> None:
    rows: list[dict[str, object]] = []
    kept: list[int] = []

    def measure(*names: str) -> None:
        measure_searches([pair], rows, lambda: kept.append(len(rows)), names, "cpu", **QUICK)

    measure("convolution")
    assert kept == [1, 2]
    assert [row["start"] for row in rows] == ["usual", "estimate"]
    usual, started = rows
    assert "started" not in usual and started["started"] is True
    # Two iterations leave the kernel where it was: the estimate is far better than none.
    assert started["kernel"] < 0.5 * usual["kernel"]
    del rows[0]
    measure("convolution")  # as after a stop: what is there stays, what is missing is added
    assert kept == [1, 2, 2] and rows[0] is started
    assert rows[1] | {"s": 0} == usual | {"s": 0}


def test_the_table_shows_searches_beside_what_needs_none() -> None:
    known = {"name": "a", "blurry": 0.01, "estimating": 1.0, "as it chooses": 0.001}
    known |= {"known": {"sparse": {"error": 1e-4}}}
    known |= {"estimated": {"sparse": {"error": 2e-4}, "learned": {"s": 0.5}}}
    about = {"pair": "a", "iterations": 7, "s": 60.4, "error": 1e-3}
    rows = [
        about | {"search": "kernel space", "start": "usual", "warm-up": 0},
        about | {"search": "convolution", "start": "estimate", "warm-up": 5, "kernel": 3e-4},
    ]
    assert search_table(rows, [known]).splitlines()[-3:] == [
        "| none: `--method shake` |  |  | 1 | 30.00 | 36.99 | 2.00 | 1.5 |",
        "| convolution | the estimate | 7 + 5 | 1 | 30.00 | 35.23 | 3.00 | 60 |",
        "| kernel space | noise | 7 | 1 | 30.00 |  |  | 60 |",
    ]
