"""Entropies by band and scale: against scipy, scikit-image and numpy, and what blur does."""

import numpy as np
import pytest
import scipy.ndimage
import skimage.data
from scipy.spatial.distance import jensenshannon
from skimage.measure import shannon_entropy
from skimage.transform import downscale_local_mean

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.metrics.frequency import (
    Frequency,
    band_entropies,
    chance,
    distributions,
    entropy,
    jensen_shannon,
)
from blurkit.metrics.scores import Measures
from tests.metrics.oracle import noisy, pairs

PHOTO = skimage.data.astronaut()
PANELS = ["high 1", "high 1/2", "high 1/4", "low 1", "low 1/2", "low 1/4"]


def bands_by_hand(image: np.ndarray) -> list[list[np.ndarray]]:
    """The 8-bit high and low band of an 8-bit RGB image at each of the three scales."""
    taps = np.exp(-(np.arange(-12, 13) ** 2) / 18)
    taps /= taps.sum()
    gray = image @ np.array([0.299, 0.587, 0.114])
    found = []
    for _ in range(3):
        low = scipy.ndimage.convolve1d(gray, taps, axis=0, mode="reflect")
        low = scipy.ndimage.convolve1d(low, taps, axis=1, mode="reflect")
        high = np.clip(gray - low + 128, 0, 255)
        found.append([np.round(band).astype(np.uint8) for band in (high, low)])
        height, width = gray.shape
        gray = downscale_local_mean(gray[: height // 2 * 2, : width // 2 * 2], (2, 2))
    return found


def entropies_by_hand(image: np.ndarray) -> np.ndarray:
    """(2, 3): the entropies of the high, then the low bands."""
    return np.array([[*map(shannon_entropy, bands)] for bands in bands_by_hand(image)]).T


def soft(image: np.ndarray, sigma: float = 3) -> np.ndarray:
    """A Gaussian blur of a photo."""
    blurred: np.ndarray = scipy.ndimage.gaussian_filter(image, (sigma, sigma, 0))
    return blurred


@pytest.mark.parametrize("name", pairs())
def test_entropy_and_divergence_of_the_reference_pairs(name: str) -> None:
    test, sharp, expected = pairs()[name]
    for key in ("entropy_bits_all_channels_skimage", "entropy_bits_hist256_scipy"):
        assert entropy(sharp) == pytest.approx(expected[key], abs=1e-12)
    counts = [np.histogram(image, 256, (0, 256))[0] for image in (test, sharp)]
    found = jensen_shannon(*counts)
    assert found == pytest.approx(expected["js_divergence_hist256_base2"], abs=1e-12)
    assert found * np.log(2) == pytest.approx(expected["js_divergence_hist256_nats"], abs=1e-12)
    assert np.sqrt(found) == pytest.approx(expected["js_distance_hist256_base2_scipy"], abs=1e-9)


def test_known_entropies() -> None:
    assert entropy(np.full((4, 5), 7, np.uint8)) == 0
    assert entropy(np.arange(256, dtype=np.uint8)) == pytest.approx(8)
    assert entropy(np.array([[0, 255], [0, 255]], np.uint8)) == 1


def test_divergences_along_the_last_axis() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.poisson(3, (2, 5, 4, 64)), rng.poisson(2, (2, 5, 4, 64))
    found = jensen_shannon(first, second)
    assert found.shape == (2, 5, 4)
    np.testing.assert_allclose(found, jensenshannon(first, second, 2, axis=-1) ** 2, rtol=1e-9)
    np.testing.assert_array_equal(jensen_shannon(second, first), found)
    assert jensen_shannon(np.array([3, 0, 0]), np.array([0, 5, 1])) == 1
    for factor in (1, 3, 7):
        assert 0 <= jensen_shannon(first, factor * first).max() < 1e-15


@pytest.mark.parametrize("size", [(200, 160), (131, 97), (16, 21)])
def test_bands_are_those_written_out(size: tuple[int, int]) -> None:
    image = PHOTO[: size[0], 100 : 100 + size[1]]
    found = band_entropies(image)
    assert found.shape == (2, 3, 1)
    np.testing.assert_allclose(found[:, :, 0], entropies_by_hand(image), atol=2e-3)


def test_squares_are_the_same_pieces_at_all_scales() -> None:
    image = PHOTO[:150, 60:265]
    found = band_entropies(image, 64)
    assert found.shape == (2, 3, 2 * 3)
    for scale, bands in enumerate(bands_by_hand(image)):
        side = 64 >> scale
        corners = [(side * row, side * column) for row in range(2) for column in range(3)]
        for number, band in enumerate(bands):
            expected = [shannon_entropy(band[y : y + side, x : x + side]) for y, x in corners]
            np.testing.assert_allclose(found[number, scale], expected, atol=0.02)


def test_depths_and_gray() -> None:
    expected = band_entropies(PHOTO[:80, :96])
    for image in (PHOTO.astype(np.uint16) * 257, (PHOTO / 255).astype(np.float32)):
        np.testing.assert_array_equal(band_entropies(image[:80, :96]), expected)
    gray = skimage.data.camera()[:80, :96, None]
    three = band_entropies(np.repeat(gray, 3, axis=2))
    np.testing.assert_allclose(band_entropies(gray), three, atol=2e-3)
    np.testing.assert_array_equal(band_entropies(np.full((30, 30, 3), 77, np.uint8)), 0)


def test_images_that_are_too_small() -> None:
    with pytest.raises(BlurkitError, match="the image is 90x63; its frequencies need 64 pixels"):
        band_entropies(PHOTO[:63, :90], 64)
    with pytest.raises(BlurkitError, match="the image is 3x9; its frequencies need 4 pixels"):
        band_entropies(PHOTO[:9, :3])
    assert band_entropies(PHOTO[:4, :4]).shape == (2, 3, 1)


def test_distributions() -> None:
    entropies = np.random.default_rng(1).uniform(0, 8, (2, 3, 50))
    entropies[0, 0, :3] = 0, 8, 0.124
    found = distributions(entropies)
    assert found.shape == (2, 3, 64)
    places = np.minimum(entropies * 8, 63).astype(int)
    for band, scale in np.ndindex(2, 3):
        expected = np.bincount(places[band, scale], minlength=64)
        np.testing.assert_array_equal(found[band, scale], expected)


def test_what_chance_makes_is_rarely_exceeded() -> None:
    """Of sets that differ by chance alone about 5 % exceed it, of others nearly all."""
    rng = np.random.default_rng(2)
    exceeded = {0.0: 0, 1.0: 0}
    for shift in exceeded:
        for trial in range(60):
            first = rng.normal(4, 0.4, (25, 2, 3, 1))
            second = first + rng.normal(0, 0.2, first.shape) + shift
            sides = [np.stack([*map(distributions, side)]) for side in (first, second)]
            bound = chance(*sides, seed=trial)
            divergence = jensen_shannon(sides[0].sum(0), sides[1].sum(0))
            assert bound.shape == (2, 3)
            exceeded[shift] += int((divergence > bound)[0, 0])
    assert exceeded[0.0] <= 8
    assert exceeded[1.0] >= 58


def test_chance_exchanges_whole_images() -> None:
    images = PHOTO, soft(PHOTO)
    first, second = (distributions(band_entropies(image, 32))[None] for image in images)
    # Of one pair there is but one divergence, whichever side is which.
    expected = jensen_shannon(first[0], second[0])
    np.testing.assert_allclose(chance(first, second), expected, rtol=1e-12)
    np.testing.assert_array_equal(chance(first, first), 0)
    many = [np.concatenate([side, side[:, ::-1], side[:, :, ::-1]]) for side in (first, second)]
    np.testing.assert_array_equal(chance(*many, seed=3), chance(*many, seed=3))


def test_blur_is_told_by_high_frequencies_and_large_scales() -> None:
    study = Frequency(Measures(), patch=32)
    for photo in (PHOTO, skimage.data.coffee(), skimage.data.chelsea(), skimage.data.rocket()):
        for sharp in np.array_split(photo, 2, axis=1):
            study.add({"": Record("a", {"blur": soft(sharp), "sharp": sharp})})
    (row,) = study.rows()
    told, by_chance = row.divergence, row.chance
    assert [*told] == [*by_chance] == PANELS
    for scale in ("1", "1/2", "1/4"):
        assert told[f"high {scale}"] > 2 * told[f"low {scale}"]
    assert told["high 1"] > told["high 1/2"] > told["high 1/4"]
    assert told["high 1"] > by_chance["high 1"]
    values = []
    for sigma in (0.7, 5):
        study = Frequency(Measures(), patch=32)
        study.add({"": Record("a", {"blur": soft(PHOTO, sigma), "sharp": PHOTO})})
        values.append(study.rows()[0].divergence["high 1"])
    assert values[0] < values[1]


def test_rows_are_those_written_out() -> None:
    crops = [PHOTO[64 * n : 64 * n + 64, 90:190] for n in range(7)]
    study = Frequency(Measures())
    for number, sharp in enumerate(crops):
        images = {"blur": soft(sharp), "restored": noisy(sharp), "sharp": sharp}
        study.add({"": Record(f"{number}", images)})
    rows = {row.image: row for row in study.rows()}
    assert [*rows] == ["blur", "restored"]
    changes = {"blur": soft, "restored": noisy, "sharp": lambda image: image}
    counts = {}
    for name, change in changes.items():
        entropies = np.stack([entropies_by_hand(change(crop)) for crop in crops], axis=-1)
        bins = [np.histogram(row, np.arange(65) / 8)[0] for row in entropies.reshape(6, -1)]
        counts[name] = np.reshape(bins, (2, 3, 64))
    for name, row in rows.items():
        assert (row.run, row.images, row.samples) == ("", 7, 7)
        expected = jensenshannon(counts[name], counts["sharp"], 2, axis=-1) ** 2
        assert [*row.divergence.values()] == pytest.approx(expected.ravel(), abs=1e-9)
    curves = study.curves()
    assert [*curves] == [("", "sharp"), ("", "blur"), ("", "restored")]
    for (_, name), found in curves.items():
        assert [*found] == PANELS
        np.testing.assert_array_equal([*found.values()], counts[name].reshape(6, 64))


def test_runs_and_targets() -> None:
    """Several runs have their names, the images they were made from are taken once."""
    sharp = PHOTO[:64, :64]
    shared = {"sharp": sharp, "blur": soft(sharp)}
    study = Frequency(Measures(), patch=32)
    study.add({run: Record("a", {"restored": sharp, **shared}) for run in ("x", "y")})
    rows = study.rows()
    named = [(row.run, row.image) for row in rows]
    assert named == [("", "blur"), ("x", "restored"), ("y", "restored")]
    assert [row.samples for row in rows] == [4, 4, 4]
    assert all(set(row.divergence.values()) == {0} for row in rows[1:])
    assert rows[0].divergence["high 1"] > 0
    assert study.protocol()["samples"] == "4 squares of 32 pixels from 1 image"

    reblurred = Frequency(Measures(target="blur"))
    reblurred.add({"": Record("a", {"reblurred": soft(sharp), **shared})})
    told = {row.image: row.divergence["high 1"] for row in reblurred.rows()}
    assert told == {"sharp": 1, "reblurred": 0}
    assert "of blur" in reblurred.protocol()["divergence"]


def test_a_scene_is_taken_whole_or_not_at_all() -> None:
    study = Frequency(Measures(), patch=32)
    large, small = PHOTO[:64, :64], PHOTO[:31, :64]
    study.add({"": Record("a", {"restored": soft(large), "sharp": large})})
    before = study.rows()
    for images in (
        {"sharp": large},
        {"restored": large},
        {"restored": small, "sharp": large},
        {"restored": large, "sharp": small},
    ):
        with pytest.raises(BlurkitError):
            study.add({"": Record("b", images)})
    assert study.rows() == before
    assert study.curves()["", "sharp"]["high 1"] != study.curves()["", "restored"]["high 1"]
    assert sum(study.curves()["", "sharp"]["high 1"]) == 4


def test_few_whole_images_are_told_of() -> None:
    study = Frequency(Measures())
    assert study.rows() == []
    record = Record("a", {"restored": PHOTO[:8, :8], "sharp": PHOTO[:8, :8]})
    study.add({"": record})
    assert study.protocol()["samples"].startswith("1 whole image, few for 64 bins: compare with")
    for _ in range(199):
        study.add({"": record})
    assert study.protocol()["samples"] == "200 whole images"
    for patch in (0, 16, 33, 66, -64):
        with pytest.raises(UsageError, match=rf"--patch {patch}: give a multiple of 4, 32 or more"):
            Frequency(Measures(), patch)
