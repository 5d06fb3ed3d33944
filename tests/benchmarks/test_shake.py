"""The set of shaken photos: how it is made, and that true kernels undo it."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch

from blurkit.io.records import to_float
from blurkit.metrics.psnr import psnr
from tests.benchmarks.shake import MARGIN, STRENGTHS, classical, middled, pair, scored
from tests.systems.deconvolution.photos import shake

PHOTO = to_float(skimage.data.coffee()[80:336, 170:426])


def kernel(seed: int = 1) -> np.ndarray:
    """A kernel whose centroid is not in its middle."""
    return np.pad(shake(seed, 11), ((0, 6), (4, 2)))


def test_a_point_leaves_a_photo_as_it_is_but_for_noise() -> None:
    point = np.zeros((5, 5))
    point[1, 3] = 1
    record = pair("coffee", PHOTO, point, 2, np.random.default_rng(0))
    sharp, blur = record.image("sharp"), record.image("blur")
    np.testing.assert_array_equal(to_float(sharp), PHOTO[MARGIN:-MARGIN, MARGIN:-MARGIN])
    middle = (sharp > 20) & (sharp < 235)
    assert (blur.astype(float) - sharp)[middle].std() == pytest.approx(2, rel=0.05)


def test_a_kernel_is_moved_to_its_middle() -> None:
    moved = middled(torch.from_numpy(kernel()).float()).numpy()
    assert moved.shape[0] == moved.shape[1] and moved.shape[0] % 2 == 1
    assert moved.sum() == pytest.approx(1, abs=1e-5)
    rows = np.arange(len(moved)) - len(moved) // 2
    assert abs((moved.sum(1) * rows).sum()) < 0.1 and abs((moved.sum(0) * rows).sum()) < 0.1


@pytest.mark.parametrize("method", STRENGTHS)
def test_true_kernels_undo_the_blur(method: str) -> None:
    record = pair("coffee", PHOTO, kernel(), 1, np.random.default_rng(0))
    restored = classical(record, torch.from_numpy(kernel()).float(), method)
    sharp = record.image("sharp")
    before = psnr(record.image("blur"), sharp)
    assert scored(restored, sharp) > before + 2.5
    turned = torch.from_numpy(kernel()[::-1, ::-1].copy()).float()
    assert scored(classical(record, turned, method), sharp) < before + 1
