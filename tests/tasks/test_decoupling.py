"""The decoupling experiment: its pairs, and its numbers with a network whose answer is known."""

import numpy as np
import pytest
import skimage.data
from torch import Tensor

from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError
from blurkit.io.records import Record, from_float, to_float
from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
from blurkit.options import Placement
from blurkit.systems.uses import Reblurrer
from blurkit.tasks.decoupling import PAPER, SHOWN, decouple, indicators, pair_up, summary
from tests.shared import vgg11


class Mixed(Reblurrer):
    """Three parts of the image and two of the guide, in place of reblurring."""

    def forward(self, image: Tensor, guide: Tensor) -> Tensor:
        return (3 * image + 2 * guide) / 5


@pytest.fixture(scope="module")
def measure() -> ContextualSimilarity:
    return ContextualSimilarity(contextual_network(vgg11()))


def scene(name: str, sharp: np.ndarray) -> Record:
    moved = [np.roll(sharp, step, axis=1).astype(np.uint16) for step in range(7)]
    return Record(name, {"blur": (np.sum(moved, axis=0) // 7).astype(np.uint8), "sharp": sharp})


A = scene("s/a", skimage.data.astronaut()[:110, 130:290])
B = scene("s/b", skimage.data.chelsea()[60:200, 100:230])


def test_pairs_of_halves_neighbours_and_shuffled() -> None:
    assert pair_up(7) == [(0, 3), (1, 4), (2, 5)]
    assert pair_up(1111)[:2] == [(0, 555), (1, 556)] and len(pair_up(1111)) == 555
    assert pair_up(5, "neighbours") == [(0, 1), (2, 3)]
    drawn = pair_up(101, "shuffled", seed=4)
    assert drawn == pair_up(101, "shuffled", seed=4) != pair_up(101, "shuffled", seed=5)
    assert len({*np.ravel(drawn)}) == 100
    for count in (0, 1):
        with pytest.raises(BlurkitError, match=f"pairs of two records; {count} found"):
            pair_up(count)


@pytest.mark.parametrize("crop", [64, 0, 500])
def test_the_numbers_are_those_of_the_crops(measure: ContextualSimilarity, crop: int) -> None:
    found = decouple(A, B, torch_engine(Mixed(), Placement("cpu", "fp32", 256)), measure, crop)
    height, width = (64, 64) if crop == 64 else (110, 130)

    def middle(image: np.ndarray) -> np.ndarray:
        top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
        return image[top : top + height, left : left + width]

    sharp_a, blur_a, sharp_b, blur_b = (
        middle(record.images[role]) for record in (A, B) for role in ("sharp", "blur")
    )
    reblurred = from_float((3 * to_float(sharp_a) + 2 * to_float(blur_b)) / 5, np.uint8)
    for key, (x, y) in {
        "blurred_same": (blur_a, sharp_a),
        "reblurred_same": (reblurred, sharp_a),
        "blurred_other": (blur_a, sharp_b),
        "reblurred_other": (reblurred, sharp_b),
    }.items():
        assert found.distances[key] == pytest.approx(measure(x, y).distance, rel=1e-4), key
    assert found.positions == (height // 4) * (width // 4)
    assert found.pictures.name == "s/a"
    for key, image in zip(SHOWN, (sharp_a, blur_a, blur_b, reblurred), strict=True):
        np.testing.assert_allclose(found.pictures.images[key], image, atol=1)


def test_the_summary() -> None:
    rows = [dict(zip(PAPER, values, strict=True)) for values in ([1, 2, 4, 6], [3, 2, 8, 4.0])]
    found = summary(rows)
    assert [found[key] for key in PAPER] == [2, 2, 6, 5]
    assert found["blurred_same_std"] == pytest.approx(2**0.5)
    assert found["pairs"] == 2
    assert (found["ratio_blurred"], found["ratio_reblurred"]) == (3, 2.5)
    assert found["deviation_same"] == 0
    assert found["deviation_other"] == pytest.approx(-1 / 6)
    assert summary(rows[:1])["blurred_same_std"] is None


def test_what_the_paper_found() -> None:
    found = indicators(PAPER)
    assert found["ratio_blurred"] == pytest.approx(5.43 / 2.72)
    assert found["deviation_same"] == pytest.approx(2.65 / 2.72 - 1)
    assert all(abs(found[key]) < 0.05 for key in ("deviation_same", "deviation_other"))
