"""How the blur of a BGAN and the variants of DBGAN are measured, against what is known."""

from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.data

from blurkit.api import write_records
from blurkit.io.records import Image, Record
from blurkit.systems.dbgan.config import BGANConfiguration
from tests.benchmarks import variants
from tests.benchmarks.bgan import REMEDIES, kept, measure, options_of, recipes, spread
from tests.cli.bgans import saved

PHOTO = skimage.data.astronaut()[60:316, 100:356]


def smeared(photo: Image, degrees: float, length: int) -> Image:
    """A photo under a straight blur, by turning it, averaging along rows, and turning it back."""
    ways = np.linspace(-length / 2, length / 2, 4 * length + 1)
    x, y = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    moved = [scipy.ndimage.shift(photo / 255.0, (w * y, w * x, 0), order=1) for w in ways]
    return np.mean(moved, axis=0).astype(np.float32)[16:-16, 16:-16]


@pytest.mark.parametrize("degrees", [0, 30, 90, -45])
def test_the_direction_of_a_straight_blur(degrees: float) -> None:
    along, across, angle = kept(smeared(PHOTO, degrees, 9), PHOTO[16:-16, 16:-16])
    assert abs((np.degrees(angle) - degrees + 90) % 180 - 90) < 8
    assert along < 0.6 * across < 0.6  # a photo loses energy across it, too


def test_a_wave_keeps_what_the_transfer_function_says() -> None:
    """Of a wave of period p, a box of n pixels leaves sin(pi n / p) / (n sin(pi / p))."""
    period, box = 16, 5
    y, x = np.mgrid[:96, :96]
    waves = 0.5 + 0.2 * np.sin(2 * np.pi * x / period) + 0.2 * np.sin(2 * np.pi * y / period)
    sharp = np.repeat(waves[..., None], 3, axis=2).astype(np.float32)
    blur = scipy.ndimage.uniform_filter1d(sharp, box, axis=1, mode="wrap")
    left = np.sin(np.pi * box / period) / (box * np.sin(np.pi / period))
    along, across, angle = kept(blur, sharp)
    assert (along, across) == pytest.approx((left**2, 1), rel=0.02)
    assert abs(angle) < 0.02


def test_an_unchanged_photo_keeps_everything_and_noise_adds() -> None:
    assert kept(PHOTO, PHOTO)[:2] == pytest.approx((1, 1))
    noise = np.random.default_rng(0).normal(0, 20, PHOTO.shape[:2])[..., None]
    assert min(kept((PHOTO + noise).clip(0, 255).astype(np.uint8), PHOTO)[:2]) > 1.2


def test_the_spread_of_directions() -> None:
    assert spread([0.3, 0.3, 0.3 + np.pi]) == pytest.approx(0)
    assert spread([0, np.pi / 2]) == pytest.approx(1)


def test_a_bgan_is_measured_by_its_draws(tmp_path: Path) -> None:
    checkpoint, pairs = saved(tmp_path / "bgan.pt"), tmp_path / "pairs.h5"
    blur = (255 * smeared(PHOTO, 20, 9)).round().astype(np.uint8)
    write_records([Record("astronaut", {"sharp": PHOTO[16:-16, 16:-16], "blur": blur})], pairs)
    found = measure(checkpoint, pairs, "cpu")
    assert found.keys() == {"between", "to_photo", "along", "across", "spread", "nearest"}
    assert 10 < found["to_photo"] < 50 and 10 < found["between"] < 60
    assert found["along"] < found["across"]


def test_every_remedy_alone_all_and_all_but_one() -> None:
    rows = recipes()
    assert rows["as in the paper"] == [] and rows["best of six noises"] == ["--noise-tries", "6"]
    assert "--noise-tries" not in rows["all but best of six noises"]
    both, one = rows["all"], rows["all but means of others held"]
    assert both[-2:] == ["--content-crops", "all"]
    assert one.count("--content-crops") == 1 and "paired" in one


SIZES = {"iterations", "crop", "width", "blocks", "discriminator_width", "warm_up"}
OTHERS = {"ema", "perceptual", "orientations"}
"""What `small` changes in addition: an average, a fallback, and more crops to learn from."""


def test_all_remedies_are_what_small_changes() -> None:
    paper, small = (BGANConfiguration.resolve(name).as_dict() for name in ("paper", "small"))
    changed = {name for name in paper if paper[name] != small[name]} - SIZES - OTHERS
    options = options_of(*REMEDIES)
    names = (flag.removeprefix("--").replace("-", "_") for flag in options[::2])
    named = dict(zip(names, options[1::2], strict=True))
    assert named.pop("content_crops") == small["content_crops"]
    numbers = {name: float(value) for name, value in named.items()}
    assert numbers == {name: small[name] for name in changed}


def test_the_variants_are_compared_seed_by_seed() -> None:
    """Seeds may lie far apart and the variants keep their order all the same."""
    found = {"minus": [26.0, 30.0], "plain": [26.2, 30.4], "plus": [26.1, 30.5]}
    rows = [line.strip("| ").split(" | ") for line in variants.table(found, 25.0).splitlines()]
    minus, plain, plus = rows[-3:]
    assert minus[-1] == "-0.30 (-0.40 to -0.20)" and plus[-1] == "+0.00 (-0.10 to +0.10)"
    assert plain[1:5] == ["30.43", "28.30", "26.20, 30.40", "2.97"]
