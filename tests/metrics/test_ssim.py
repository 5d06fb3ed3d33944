"""Every SSIM against the reference numbers and scikit-image."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import gaussian_filter
from skimage.metrics import structural_similarity

from blurkit.errors import BlurkitError
from blurkit.metrics.ssim import (
    SSIM_KINDS,
    ssim,
    ssim_map,
    ssim_matlab,
    ssim_skimage,
    ssim_y,
    ssims,
)
from tests.metrics.oracle import deep_pair, depths, noisy, pairs


def by_skimage(test: np.ndarray, ref: np.ndarray, white: float, **options: bool) -> Any:
    options |= {"gaussian_weights": True, "use_sample_covariance": False}
    how = {"channel_axis": -1, "sigma": 1.5, "data_range": white}
    return structural_similarity(np.float64(test), np.float64(ref), **how, **options)


def volume(test: np.ndarray, ref: np.ndarray, white: float) -> float:
    """SSIM of a volume written out from its definition, with scipy's own Gaussian."""
    x, y = test.astype(np.float64), ref.astype(np.float64)

    def mean(values: np.ndarray) -> np.ndarray:
        return gaussian_filter(values, 1.5, mode="nearest", radius=5)

    c1, c2 = (0.01 * white) ** 2, (0.03 * white) ** 2
    var_x, var_y = mean(x * x) - mean(x) ** 2, mean(y * y) - mean(y) ** 2
    cov = mean(x * y) - mean(x) * mean(y)
    top = (2 * mean(x) * mean(y) + c1) * (2 * cov + c2)
    return float((top / ((mean(x) ** 2 + mean(y) ** 2 + c1) * (var_x + var_y + c2))).mean())


def test_reference_pairs() -> None:
    for name, (test, ref, expected) in pairs().items():
        for key in ("ssim_rgb_valid_basicsr", "ssim_rgb_skimage_gauss"):
            assert ssim(test, ref) == pytest.approx(expected[key], abs=1e-6), (name, key)
        matlab = expected["ssim_matlab3d_scipy_f64"]
        assert ssim_matlab(test, ref) == pytest.approx(matlab, abs=1e-6), name
        uniform = expected["ssim_rgb_skimage_uniform7"]
        assert ssim_skimage(test, ref) == pytest.approx(uniform, abs=1e-6), name
        assert ssim_y(test, ref) == pytest.approx(expected["ssim_y_valid_basicsr"], abs=1e-6), name
        named = [ssim(test, ref), ssim_matlab(test, ref), ssim_skimage(test, ref)]
        found = ssims(test, ref, list(SSIM_KINDS))
        assert [*found] == ["ssim", "ssim_matlab", "ssim_skimage", "ssim_y"]
        assert [*found.values()] == pytest.approx([*named, ssim_y(test, ref)], abs=1e-12)
        assert ssims(test, ref) == {"ssim": found["ssim"], "ssim_matlab": found["ssim_matlab"]}
    test, ref, expected = deep_pair()
    assert ssim(test, ref) == pytest.approx(expected["ssim_rgb_skimage_gauss_range65535"], abs=1e-6)


PHOTOS = [skimage.data.astronaut, skimage.data.camera, skimage.data.chelsea]


@pytest.mark.parametrize("photo", PHOTOS)
def test_photos_against_skimage_and_scipy(photo: Callable[[], np.ndarray]) -> None:
    sharp = photo().reshape(*photo().shape[:2], -1)[50:211, 70:270]
    for test, ref, white in depths(noisy(sharp), sharp):
        assert ssim(test, ref) == pytest.approx(by_skimage(test, ref, white), abs=1e-9)
        assert ssim_matlab(test, ref) == pytest.approx(volume(test, ref, white), abs=1e-9)


def test_scikit_image_as_it_comes() -> None:
    sharp = skimage.data.astronaut()[:90, :70]
    for test, ref in ((noisy(sharp), sharp), (noisy(sharp)[:7, :9], sharp[:7, :9])):
        expected = structural_similarity(test, ref, channel_axis=-1)
        assert ssim_skimage(test, ref) == pytest.approx(expected, abs=1e-9)


def test_map_against_skimage() -> None:
    sharp = skimage.data.chelsea()[:60, :70]
    _, expected = by_skimage(noisy(sharp), sharp, 255, full=True)
    np.testing.assert_allclose(ssim_map(noisy(sharp), sharp), expected[5:-5, 5:-5], atol=1e-9)


@pytest.mark.parametrize("size", [(11, 11), (11, 40), (12, 13)])
def test_the_smallest_images(size: tuple[int, int]) -> None:
    sharp = skimage.data.astronaut()[: size[0], : size[1]]
    blur = noisy(sharp)
    assert ssim(blur, sharp) == pytest.approx(by_skimage(blur, sharp, 255), abs=1e-9)


def test_smaller_than_the_window() -> None:
    with pytest.raises(BlurkitError, match="7 pixels a side; this image is 6x9"):
        ssim_skimage(np.zeros((9, 6, 3), np.uint8), np.zeros((9, 6, 3), np.uint8))
    for height, width in ((10, 50), (50, 10), (1, 1)):
        image = skimage.data.astronaut()[:height, :width]
        with pytest.raises(BlurkitError, match=f"11 pixels a side; this image is {width}x{height}"):
            ssim(image, image)
        with pytest.raises(BlurkitError, match="11 pixels a side"):
            ssim_y(image, image)
        found = ssims(image, image, list(SSIM_KINDS))
        assert found["ssim"] is found["ssim_y"] is None
        assert (found["ssim_skimage"] is None) == (min(height, width) < 7)
        assert ssim_matlab(image, image) == pytest.approx(1)
        expected = volume(noisy(image), image, 255)
        assert ssim_matlab(noisy(image), image) == pytest.approx(expected, abs=1e-9)


def test_identical_and_flat_images() -> None:
    photo = skimage.data.coffee()[:60, :70]
    flat = np.full((30, 30, 3), 200, np.uint8)
    for measure in (ssim, ssim_matlab, ssim_skimage, ssim_y):
        assert measure(photo, photo) == pytest.approx(1, abs=1e-12)
        assert 0.999 < measure(flat, flat + 1) < 1


def test_images_that_cannot_be_compared() -> None:
    image = np.zeros((20, 25, 3), np.uint8)
    for measure in (ssim, ssim_matlab, ssim_skimage, ssim_y):
        with pytest.raises(BlurkitError, match="sizes differ"):
            measure(image[1:], image)
        with pytest.raises(BlurkitError, match="depths differ"):
            measure(image, image.astype(np.uint16))
