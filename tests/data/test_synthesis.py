"""Synthetic blur against direct convolution, and the same whatever the order."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.ndimage
import skimage.data

from blurkit.data.kernels import random_trajectory_kernel
from blurkit.data.synthesis import blur_linear, synthesize
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record


def direct(image: np.ndarray, kernel: np.ndarray, gamma: float) -> np.ndarray:
    channels = [
        scipy.ndimage.convolve(image[:, :, c].astype(float) ** gamma, kernel, mode="reflect")
        for c in range(image.shape[2])
    ]
    return np.stack(channels, axis=2) ** (1 / gamma)


def photo(height: int, width: int, grey: bool = False) -> np.ndarray:
    image = skimage.data.camera()[:, :, None] if grey else skimage.data.astronaut()
    return image[100 : 100 + height, 200 : 200 + width] / 255.0


@pytest.mark.parametrize("shape", [(5, 9), (6, 9), (8, 4), (1, 1), (31, 31)])
@pytest.mark.parametrize("gamma", [1.0, 2.2])
def test_blur_is_a_convolution_in_linear_light(shape: tuple[int, int], gamma: float) -> None:
    kernel = np.random.default_rng(0).random(shape)
    kernel /= kernel.sum()
    for image in (photo(60, 90), photo(61, 40, grey=True), photo(17, 1), photo(1, 1)):
        blurred = blur_linear(image, kernel, gamma)
        np.testing.assert_allclose(blurred, direct(image, kernel, gamma), atol=1e-7)


def test_a_kernel_larger_than_the_image() -> None:
    kernel = random_trajectory_kernel(np.random.default_rng(0), 41)
    image = np.full((3, 5, 3), 0.25)
    np.testing.assert_allclose(blur_linear(image, kernel), image, atol=1e-12)


def test_a_shifted_point_shifts_the_image_the_same_way() -> None:
    kernel = np.zeros((3, 3))
    kernel[1, 2] = 1
    image = photo(20, 20)
    np.testing.assert_allclose(blur_linear(image, kernel)[:, 1:], image[:, :-1], atol=1e-7)


@pytest.fixture
def record() -> Record:
    return Record("coffee/1", {"sharp": skimage.data.coffee()[:80, :100]}, {"source": "coffee.png"})


def test_the_record_tells_how_it_was_blurred(record: Record) -> None:
    made = synthesize(record, seed=3, size=(15, 15))
    assert (made.name, list(made.images)) == ("coffee/1", ["sharp", "blur"])
    kernel = made.attrs.pop("kernel")
    assert kernel.shape == (15, 15)
    assert made.attrs == {"source": "coffee.png", "seed": 3, "gamma": 2.2, "noise": 0.0}
    assert list(record.images) == ["sharp"]
    expected = direct(record.images["sharp"] / 255.0, kernel, 2.2)
    assert np.abs(made.images["blur"] - 255 * expected).max() <= 0.501


def test_depth_and_channels_stay(record: Record) -> None:
    for image in (
        skimage.data.coffee()[:30, :40].astype(np.uint16) * 257,
        (skimage.data.camera()[:30, :40, None] / 255).astype(np.float32),
        skimage.data.coffee()[:1, :1],
    ):
        blur = synthesize(Record("a", {"sharp": image}), noise=0.01).images["blur"]
        assert (blur.shape, blur.dtype) == (image.shape, image.dtype)


def test_seed_name_and_copy_alone_decide(record: Record) -> None:
    one = synthesize(record, seed=1, noise=0.02)
    other = Record("other", record.images)
    variants = [
        synthesize(record, seed=2, noise=0.02),
        synthesize(other, seed=1, noise=0.02),
        synthesize(record, seed=1, copy=1, noise=0.02),
    ]
    again = synthesize(record, seed=1, noise=0.02)
    np.testing.assert_array_equal(one.images["blur"], again.images["blur"])
    for variant in variants:
        assert not np.array_equal(variant.images["blur"], one.images["blur"])
    assert variants[2].name == "coffee/1-copy1"


def test_noise_has_the_strength_asked_for() -> None:
    image = np.full((200, 200, 3), 0.5, np.float32)
    blur = synthesize(Record("flat", {"sharp": image}), noise=0.05).images["blur"]
    assert np.std(blur) == pytest.approx(0.05, rel=0.02)


def test_given_kernels(record: Record) -> None:
    kernels = [(f"k{n}", np.full((1, n), 1 / n)) for n in (3, 5, 7)]
    made = [synthesize(record, kernels=kernels, copy=copy) for copy in range(12)]
    assert {m.attrs["kernel_name"] for m in made} == {"k3", "k5", "k7"}
    for one in made:
        np.testing.assert_array_equal(one.attrs["kernel"], dict(kernels)[one.attrs["kernel_name"]])


def test_wrong_options(record: Record) -> None:
    with pytest.raises(UsageError, match="no blur is called 'spin'"):
        synthesize(record, kind="spin")  # type: ignore[arg-type]
    for options in (
        {"size": (9, 3)},
        {"size": (0, 3)},
        {"gamma": 0.0},
        {"noise": -1.0},
        {"seed": -1},
    ):
        with pytest.raises(UsageError, match="blur takes"):
            synthesize(record, **options)  # type: ignore[arg-type]
    with pytest.raises(BlurkitError, match="sharp is needed"):
        synthesize(Record("a", {"blur": record.images["sharp"]}))
