"""PSNR against the reference numbers and scikit-image."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio

from blurkit.errors import BlurkitError
from blurkit.metrics.psnr import luma, psnr, psnr_y
from tests.metrics.oracle import deep_pair, depths, noisy, pairs


def test_reference_pairs() -> None:
    for name, (test, ref, expected) in pairs().items():
        assert psnr(test, ref) == pytest.approx(float(expected["psnr_skimage"]), abs=1e-6), name
        assert psnr(test, ref) == pytest.approx(float(expected["psnr_basicsr"]), abs=1e-6), name
        assert psnr_y(test, ref) == pytest.approx(float(expected["psnr_basicsr_y"]), abs=1e-6), name
    test, ref, expected = deep_pair()
    assert psnr(test, ref) == pytest.approx(expected["psnr_skimage_range65535"], abs=1e-6)


PHOTOS = [skimage.data.astronaut, skimage.data.coffee, skimage.data.camera, skimage.data.chelsea]


@pytest.mark.parametrize("photo", PHOTOS)
def test_photos_against_skimage(photo: Callable[[], np.ndarray]) -> None:
    sharp = photo().reshape(*photo().shape[:2], -1)
    for test, ref, white in depths(noisy(sharp), sharp):
        expected = peak_signal_noise_ratio(np.float64(ref), np.float64(test), data_range=white)
        assert psnr(test, ref) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("photo", [skimage.data.astronaut, skimage.data.chelsea])
def test_luma_against_skimage(photo: Callable[[], np.ndarray]) -> None:
    sharp = photo()
    y = rgb2ycbcr(sharp)[:, :, :1]
    for image, _, _ in depths(sharp, sharp):
        np.testing.assert_allclose(luma(image) * 255, y, atol=2e-5)
    expected = peak_signal_noise_ratio(y, rgb2ycbcr(noisy(sharp))[:, :, :1], data_range=255)
    assert psnr_y(noisy(sharp), sharp) == pytest.approx(expected, abs=1e-5)


def test_luma_of_gray() -> None:
    gray = skimage.data.camera()[:, :, None]
    np.testing.assert_allclose(luma(gray), luma(np.repeat(gray, 3, axis=2)), atol=1e-7)


def test_extremes() -> None:
    for image in (np.zeros((1, 1, 3), np.uint8), np.ones((5, 4, 1), np.float32)):
        assert psnr(image, image) == math.inf
    black, white = np.zeros((1, 1, 1), np.uint8), np.full((1, 1, 1), 255, np.uint8)
    assert psnr(black, white) == 0
    # White is 255 however dark an image is.
    assert psnr(black, black + 1) == pytest.approx(20 * math.log10(255))


def test_images_that_cannot_be_compared() -> None:
    image = np.zeros((4, 5, 3), np.uint8)
    with pytest.raises(BlurkitError, match="sizes differ: 4x4x3 and 5x4x3"):
        psnr(image[:, :4], image)
    with pytest.raises(BlurkitError, match="sizes differ: 5x4x1 and 5x4x3"):
        psnr(image[:, :, :1], image)
    with pytest.raises(BlurkitError, match="depths differ: uint8 and uint16"):
        psnr(image, image.astype(np.uint16))
