"""How much versions of a photo differ, against PSNR written out; photos are told apart."""

import math
import weakref
from itertools import combinations

import numpy as np
import pytest
import skimage.data

from blurkit.errors import BlurkitError
from blurkit.metrics.diversity import Diversity, pairwise_psnr

PHOTO = skimage.data.astronaut()[100:140, 60:110]


def versions(count: int, seed: int = 0, strength: float = 9.0) -> list[np.ndarray]:
    """The photo with noise, each with more of it than the one before."""
    generator = np.random.default_rng(seed)
    spread = (strength * (n + 1) * generator.standard_normal(PHOTO.shape) for n in range(count))
    return [np.clip(PHOTO + noise, 0, 255).astype(np.uint8) for noise in spread]


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(20 * np.log10(255) - 10 * np.log10(error))


def mean_of_pairs(images: list[np.ndarray]) -> float:
    return float(np.mean([decibels(a, b) for a, b in combinations(images, 2)]))


@pytest.mark.parametrize("count", [2, 3, 5])
def test_the_mean_over_all_pairs(count: int) -> None:
    images = versions(count)
    expected = mean_of_pairs(images)
    assert pairwise_psnr(images) == pytest.approx(expected, abs=1e-9)
    assert pairwise_psnr(images[::-1]) == pytest.approx(expected, abs=1e-9)
    assert pairwise_psnr(versions(count, strength=20)) < expected, "more diverse"


def test_every_depth_is_measured_in_eight_bits() -> None:
    images = versions(3)
    expected = mean_of_pairs(images)
    sixteen = [image.astype(np.uint16) * 257 for image in images]
    assert pairwise_psnr(sixteen) == pytest.approx(expected)
    # A third of a level is lost in rounding.
    floats = [((image + 0.3) / 255).clip(0, 1).astype(np.float32) for image in images]
    assert pairwise_psnr(floats) == pytest.approx(expected)


def test_versions_that_are_alike_or_missing() -> None:
    one, other = versions(2)
    assert pairwise_psnr([one, one.copy()]) == math.inf
    assert pairwise_psnr([one, other, one]) == math.inf
    for few in ([], [one]):
        with pytest.raises(BlurkitError, match=f"at least two versions of a photo; got {len(few)}"):
            pairwise_psnr(few)
    with pytest.raises(BlurkitError, match="sizes differ"):
        pairwise_psnr([one, other[:-1]])


def test_photos_one_after_another() -> None:
    first, second, alone, same = (PHOTO.copy() for _ in range(4))
    diversity = Diversity()
    assert diversity.summary() == {}
    groups = [(first, versions(3, 1)), (second, versions(2, 2)), (alone, versions(1, 3)),
              (same, [PHOTO, PHOTO])]  # fmt: skip
    for sharp, images in groups:
        for image in images:
            diversity.add(image, sharp)
    measured = [images for _, images in groups[:2]]
    nearness = [np.mean([decibels(PHOTO, image) for image in images]) for images in measured]
    assert diversity.summary() == {
        "photos": 3,
        "identical": 1,
        "pairwise_psnr": pytest.approx(np.mean([*map(mean_of_pairs, measured)])),
        "psnr_sharp": pytest.approx(np.mean(nearness)),
    }


def test_a_photo_that_is_done_is_let_go() -> None:
    diversity = Diversity()
    held = []
    for photo in range(3):
        sharp = PHOTO.copy()
        for image in versions(2, photo):
            diversity.add(image, sharp)
            held.append(weakref.ref(image))
            del image
        held.append(weakref.ref(sharp))
        del sharp
        assert [ref() is not None for ref in held] == [False] * 3 * photo + [True] * 3
    assert diversity.summary()["photos"] == 3
