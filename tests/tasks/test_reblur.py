"""Reblurring of records: who gets whose blur, what is kept, and what it is worth."""

import math
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import skimage.data
import skimage.metrics
from torch import Tensor

from blurkit.engine.engine import Engine
from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.options import Placement
from blurkit.systems.uses import Reblurrer
from blurkit.tasks.reblur import draw, exchange, reblur, reproduce, swapped

PHOTO = skimage.data.astronaut()


class Mean(Reblurrer):
    """The mean of the image and its guide, in place of reblurring."""

    def forward(self, image: Tensor, guide: Tensor) -> Tensor:
        return (image + guide) / 2


@pytest.fixture
def engine() -> Engine:
    run = torch_engine(Mean(), Placement("cpu", "fp32", 64), warn=pytest.fail)
    run.name = "enc.pt"
    return run


def scene(name: str, number: int = 0, dtype: type = np.uint8, channels: int = 3) -> Record:
    sharp = PHOTO[40 * number : 40 * number + 48, 100:164, :channels]
    if dtype == np.uint16:
        sharp = sharp.astype(np.uint16) * 257
    return Record(name, {"blur": sharp[:, ::-1], "sharp": sharp}, {"sequence": "s"})


# ---- who gets whose blur -------------------------------------------------------------------------


def test_an_exchange_gives_each_another_ones_blur() -> None:
    for count in (2, 3, 4, 7, 100):
        for seed in range(20):
            donors = exchange(count, seed)
            assert sorted(donors) == list(range(count))
            assert all(donor != number for number, donor in enumerate(donors))
            assert donors == exchange(count, seed)
    assert len({tuple(exchange(100, seed)) for seed in range(20)}) == 20
    found = Counter(tuple(exchange(4, seed)) for seed in range(600))
    assert len(found) == 6 and min(found.values()) > 60  # every cycle of four, about 100 times each
    for count in (0, 1):
        with pytest.raises(BlurkitError, match=f"needs two records at least.*found {count}"):
            exchange(count, 0)


def test_all_references_are_drawn_before_any_comes_again() -> None:
    drawn = list(islice(draw(7, 3), 35))
    rounds = [drawn[first : first + 7] for first in range(0, 35, 7)]
    assert all(sorted(each) == list(range(7)) for each in rounds)
    assert len({tuple(each) for each in rounds}) > 1
    assert drawn == list(islice(draw(7, 3), 35)) != list(islice(draw(7, 4), 35))
    assert list(islice(draw(1, 0), 3)) == [0, 0, 0]


# ---- one record ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_size_depth_and_the_rest_are_the_photos_own(engine: Engine, dtype: type) -> None:
    record, like = scene("a", 1, np.uint16 if dtype == np.uint16 else np.uint8), scene("b", 2)
    if dtype == np.float32:
        record.images["sharp"] = (record.images["sharp"] / 255).astype(np.float32)
    record.attrs |= {"reblurred_psnr": 1.0, "reblurred_psnr_sharp": 2.0}
    made = reblur(record, like, engine)
    sharp, top = record.images["sharp"], 1 if dtype == np.float32 else np.iinfo(dtype).max
    expected = (sharp / top + like.images["blur"] / 255) / 2 * top
    assert made.images["reblurred"].dtype == dtype
    np.testing.assert_allclose(made.images["reblurred"], expected, atol=0.51 if top > 1 else 1e-6)
    assert made.name == "a" and list(made.images) == ["blur", "sharp", "reblurred"]
    assert made.attrs["reblurred_like"] == "b" and made.attrs["reblurred_by"] == "enc.pt"
    assert made.attrs["sequence"] == "s" and "tile=64" in made.attrs["reblurred_with"]
    assert "reblurred_psnr" not in made.attrs, "another's blur has no PSNR"
    assert "reblurred" not in record.images


def test_a_restored_photo_stands_for_a_sharp_one(engine: Engine) -> None:
    record = scene("a")
    record.images["restored"] = record.images.pop("sharp")
    made = reblur(record, scene("b", 3), engine)
    whole = reblur(scene("a"), scene("b", 3), engine)
    np.testing.assert_array_equal(made.images["reblurred"], whole.images["reblurred"])
    assert list(swapped(made).images) == ["blur", "sharp"]
    for first, second in ((Record("x", {"blur": PHOTO}), scene("b")),
                          (scene("b"), Record("x", {"sharp": PHOTO}))):  # fmt: skip
        with pytest.raises(BlurkitError, match=r"record 'x' holds .* is needed"):
            reblur(first, second, engine)


@pytest.mark.parametrize("channels", [1, 3])
def test_how_near_its_own_blur_it_comes(engine: Engine, channels: int) -> None:
    record = scene("a", 2, channels=channels)
    made = reblur(record, record, engine)
    blur = record.images["blur"]
    for key, image in (
        ("reblurred_psnr", made.images["reblurred"]),
        ("reblurred_psnr_sharp", record.images["sharp"]),
    ):
        expected = skimage.metrics.peak_signal_noise_ratio(blur, image)
        assert made.attrs[key] == pytest.approx(expected)
        assert reproduce(record, engine)[key] == pytest.approx(expected)
    assert set(reproduce(Record("s", {"blur": blur, "sharp": blur}), engine).values()) == {math.inf}


def test_a_swapped_pair_is_one_to_train_on(engine: Engine) -> None:
    record = scene("a", 1)
    record.images["alpha"] = record.images["sharp"][:, :, :1]
    record.attrs |= {"split": "train", "kernel": np.eye(3), "seed": 1, "psnr_blur": 20.0}
    made = reblur(record, scene("t/b", 2), engine)
    pair = swapped(made)
    assert list(pair.images) == ["blur", "sharp"] and "reblurred_like" not in pair.attrs
    np.testing.assert_array_equal(pair.images["blur"], made.images["reblurred"])
    assert pair.attrs.keys().isdisjoint({"kernel", "seed", "psnr_blur"}), "these told of the old"
    assert pair.attrs["blur_from"] == "t/b" and pair.attrs["reblurred_by"] == "enc.pt"
