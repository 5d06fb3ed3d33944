"""Means, subsets, intervals and comparisons, worked out by hand and by numpy."""

import math

import numpy as np
import pytest

from blurkit.errors import UsageError
from blurkit.io.records import Record
from blurkit.metrics.statistics import (
    Scored,
    compare,
    intervals,
    mean_scores,
    sequences,
    subsets,
    winners,
)


def rows(*psnr: float, blur: list[float] | None = None) -> list[Scored]:
    scored = []
    for number, value in enumerate(psnr):
        known = {} if blur is None else {"psnr_blur": blur[number]}
        scored.append(Scored(f"{number}", {"psnr": value, **known}, "."))
    return scored


def test_means_leave_out_what_is_not_finite() -> None:
    scored = [
        Scored("a", {"psnr": 30.0, "ssim": None, "psnr_blur": 20.0}, "."),
        Scored("b", {"psnr": math.inf, "ssim": 1.0}, "."),
        Scored("c", {"psnr": 33.0, "ssim": None}, "."),
    ]
    means = {"psnr": 31.5, "ssim": 1.0, "psnr_blur": 20.0}
    assert mean_scores(scored) == {"images": 3, "infinite": 1, **means}
    assert mean_scores([]) == {"images": 0, "infinite": 0}
    assert mean_scores(rows(math.inf))["psnr"] is None


def test_tenths() -> None:
    blur = [float(value) for value in np.random.default_rng(0).permutation(27)]
    scored = rows(*range(27), blur=blur)
    parts = subsets(scored)
    assert sorted(row.scores["psnr_blur"] for row in parts["blurriest"]) == [0, 1]
    assert sorted(row.scores["psnr_blur"] for row in parts["sharpest"]) == [25, 26]
    assert [len(part) for part in subsets(scored[:10]).values()] == [1, 1]
    assert subsets(scored[:9]) == {}
    assert subsets(rows(*range(27))) == {}
    assert len(subsets(scored + rows(*range(27)))["blurriest"]) == 2


def test_sequences_by_attribute_or_name() -> None:
    records = [Record("train/x/1"), Record("y/1", attrs={"sequence": "train/x"}), Record("1")]
    found = sequences([Scored.of(record, {}) for record in records])
    named = {name: [row.name for row in part] for name, part in found.items()}
    assert named == {"train/x": ["train/x/1", "y/1"], ".": ["1"]}


def test_what_is_known_of_the_making() -> None:
    attrs = {"source": "/data/GOPRO/test/scene/blur_gamma/1.png", "restored_with": "tile=256"}
    scored = Scored.of(Record("scene/1", attrs=attrs), {})
    assert (scored.blurred, scored.restored_with) == ("blur_gamma", "tile=256")
    assert Scored.of(Record("1", attrs={"source": "photos/1.png"}), {}).blurred == ""


def test_intervals_cover_as_often_as_they_say() -> None:
    """Against the normal theory, and over many draws against the truth."""
    values = np.random.default_rng(1).normal(30, 2, 400)
    low, high = intervals(rows(*values), 0.95)["psnr"] or (0, 0)
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.02)
    wide = intervals(rows(*values), 0.99)["psnr"] or (0, 0)
    assert wide[0] < low < high < wide[1]
    drawn = np.random.default_rng(2).normal(30, 2, (100, 30))
    found = [intervals(rows(*values), 0.9, seed)["psnr"] for seed, values in enumerate(drawn)]
    assert 78 <= sum(low <= 30 <= high for low, high in filter(None, found)) <= 97


def test_intervals_are_drawn_from_the_seed() -> None:
    scored = rows(*np.random.default_rng(3).normal(30, 2, 50), math.inf)
    assert intervals(scored, 0.95, 1) == intervals(scored, 0.95, 1)
    assert intervals(scored, 0.95, 1) != intervals(scored, 0.95, 2)
    assert intervals(scored[:1], 0.95) == {"psnr": None}
    for level in (0, 1, -0.5, 95):
        with pytest.raises(UsageError, match=f"--confidence {level}: give a number between 0 and"):
            intervals(scored, level)


def test_wins_and_cases() -> None:
    found = compare({"a": rows(30, 20, 10, 25, math.inf), "b": rows(31, 20, 9, 27, 40)})
    assert found.wins == {"a": 3, "b": 3}
    assert [name for name, _ in found.worst] == ["2", "1", "3"]
    assert [name for name, _ in found.best] == ["4", "0"]  # none is among the worst
    assert found.worst[0] == ("2", {"a": 10, "b": 9})
    assert winners({"a": {"psnr": 20.0}, "b": {"psnr": 20.0}}) == ["a", "b"]
    assert winners({"a": {"psnr": 20.0}, "b": {"psnr": math.inf}}) == ["b"]
