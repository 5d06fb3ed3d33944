"""What the benchmarks of blur, of flicker and of camera shake measure, on what is known."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
import torch

from blurkit.io.records import to_float
from blurkit.metrics.psnr import psnr
from tests.benchmarks.blur import local_forms
from tests.benchmarks.films import flicker
from tests.benchmarks.shake import MARGIN, STRENGTHS, classical, middled, pair, scored
from tests.synthesis.exposures import photo
from tests.systems.deconvolution.photos import shake

# ---- the length and form of blur -----------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 9, 21])
@pytest.mark.parametrize("axis", [0, 1])
def test_the_length_of_a_straight_blur(length: int, axis: int) -> None:
    sharp = photo(300, 300)
    blur = scipy.ndimage.uniform_filter1d(sharp**2.2, length, axis=axis).clip(0) ** (1 / 2.2)
    lengths, straightness = np.median(local_forms(blur, sharp), axis=0)
    assert lengths == pytest.approx(length, rel=0.2, abs=0.5)
    assert length < 9 or straightness > 0.85


def test_a_square_is_not_straight() -> None:
    sharp = photo(300, 300)
    blur = scipy.ndimage.uniform_filter(sharp**2.2, (11, 11, 1)).clip(0) ** (1 / 2.2)
    assert np.median(local_forms(blur, sharp), axis=0)[1] < 0.3


def test_nothing_is_told_of_what_shows_no_kernel() -> None:
    rng = np.random.default_rng(0)
    assert local_forms(rng.random((300, 300, 3)), rng.random((300, 300, 3))) == []


# ---- flicker -------------------------------------------------------------------------------------


def test_flicker_is_the_change_that_the_sharp_film_has_not() -> None:
    still = np.repeat(skimage.data.coffee()[None, 100:164, 200:264], 9, axis=0)
    noise = np.random.default_rng(0).normal(0, 3, still.shape)
    # The difference of two normal values of deviation 3; its mean absolute value.
    assert flicker(still + noise, still) == pytest.approx(6 / np.sqrt(np.pi), rel=0.01)
    moving = np.stack([np.roll(still[0], step, 1) for step in range(9)])
    assert flicker(moving, moving) == flicker([still[0] // 2] * 9, still) == 0
    assert flicker(moving, still) > 0


# ---- camera shake --------------------------------------------------------------------------------

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
