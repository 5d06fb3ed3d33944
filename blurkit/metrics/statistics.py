"""Means of the scores of many images and of subsets, confidence intervals, and comparisons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np

from blurkit.data.places import locate
from blurkit.errors import UsageError
from blurkit.io.paths import natural_key
from blurkit.io.records import Record
from blurkit.metrics.scores import Scores

RESAMPLES = 9999
SMALLEST_SET = 10
"""With fewer images there are no subsets, which are tenths."""
PEAKS = ("memory",)
"""Scores of which the largest value is reported in place of the mean."""
CASES = 3
"""The number of worst images, and of best images, that a comparison shows."""


@dataclass(frozen=True)
class Scored:
    """The name, scores and sequence of one image, and how it was made if that is known.

    `blurred` is the folder of the dataset that its blurry image came from (`blur`, `blur_gamma`),
    and `restored_with` describes the settings of `deblur`.
    """

    name: str
    scores: Scores
    sequence: str
    blurred: str = ""
    restored_with: str = ""

    @property
    def about(self) -> dict[str, Any]:
        """What is known of the image besides its name and scores."""
        facts = {"blurred": self.blurred, "restored_with": self.restored_with}
        return {"sequence": self.sequence} | {key: fact for key, fact in facts.items() if fact}

    @classmethod
    def of(cls, record: Record, scores: Scores, blurred: str = "") -> Scored:
        """Return the scores of a record.

        The sequence is the record's attribute `sequence`, or else its name up to the last slash.
        `blurred` is the folder of the blurry images if the user named one.
        """
        attrs = record.attrs
        sequence = str(attrs.get("sequence") or record.name.rpartition("/")[0] or ".")
        source = Path(str(attrs.get("source", "")))
        place = locate(source, source.parts) if source.name else None
        if not blurred and place and place.role == "blur":
            blurred = place.folder
        return cls(record.name, scores, sequence, blurred, str(attrs.get("restored_with", "")))


Means = dict[str, Any]
"""The number of `images`, of those with `infinite` PSNR, and the mean of each score by name."""


@dataclass(frozen=True)
class Confidence:
    """The confidence `intervals` of the scores' means, by name, and what they are computed with."""

    level: float
    seed: int
    intervals: dict[str, tuple[float, float] | None]


@dataclass(frozen=True)
class Totals:
    """The means of a run: of all images, of the `subsets`, and of the sequences if requested."""

    total: Means
    subsets: dict[str, Means]
    sequences: dict[str, Means] | None = None
    confidence: Confidence | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, leaving out the parts that are empty or None."""
        known = self.confidence
        parts = {
            "subsets": self.subsets or None,
            "sequences": self.sequences,
            "confidence": known and {"level": known.level, "seed": known.seed, **known.intervals},
        }
        present = {name: part for name, part in parts.items() if part is not None}
        return {"total": self.total, **present}


Cases = list[tuple[str, dict[str, float]]]
"""Names of images, and by run the score that ranks them."""


@dataclass(frozen=True)
class Comparison:
    """A comparison of runs over the same images by one score.

    `ranking` is the score's name, `wins` the number of images on which each run is a winner, and
    `worst` and `best` are the images with the worst and best mean over the runs.
    """

    ranking: str
    wins: dict[str, int]
    worst: Cases
    best: Cases

    def as_dict(self) -> dict[str, Any]:
        """Return plain values without `wins`, which `Report.as_dict` adds to each run."""
        cases = {
            kind: [{"name": name, self.ranking: scores} for name, scores in images]
            for kind, images in (("worst", self.worst), ("best", self.best))
        }
        return {**cases, "ranking": self.ranking}


def mean_scores(rows: Sequence[Scored]) -> Means:
    """Return the mean of each score over the images whose score is finite, the largest of `PEAKS`.

    Identical images have infinite PSNR; they are counted in `infinite` and left out of the mean.
    """
    means = {
        key: (max(v) if key in PEAKS else math.fsum(v) / len(v)) if v else None
        for key, v in _finite(rows).items()
    }
    infinite = sum(row.scores.get("psnr") == math.inf for row in rows)
    return {"images": len(rows), "infinite": infinite, **means}


def subsets(rows: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Return `blurriest` and `sharpest`, the tenths of lowest and highest PSNR of the blurry image.

    These are the subsets of Table 2 of the MSDI-Net paper. Only images whose blurry image is known
    count; the result is empty if there are fewer than 10.
    """
    known = [row for row in rows if row.scores.get("psnr_blur") is not None]
    if len(known) < SMALLEST_SET:
        return {}
    known.sort(key=lambda row: (row.scores["psnr_blur"] or 0, row.name))
    tenth = len(known) // 10
    return {"blurriest": known[:tenth], "sharpest": known[-tenth:]}


def sequences(rows: Sequence[Scored]) -> dict[str, list[Scored]]:
    """Group the rows by sequence, in order of appearance."""
    groups: dict[str, list[Scored]] = {}
    for row in rows:
        groups.setdefault(row.sequence, []).append(row)
    return groups


def intervals(
    rows: Sequence[Scored], level: float, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """Return a confidence interval (low, high) of each score's mean, by the percentile bootstrap.

    Every score gets 9999 resamples of the images, in the order of their names, from a generator
    seeded with `seed`. The interval is None for a score that fewer than two images have.
    Raises UsageError if `level` is not between 0 and 1.
    """
    check_level(level)
    from scipy.stats import bootstrap  # slow to import

    options: dict[str, Any] = {"n_resamples": RESAMPLES, "batch": 100, "confidence_level": level}
    bounds: dict[str, tuple[float, float] | None] = {}
    for key, values in _finite(sorted(rows, key=lambda row: natural_key(row.name))).items():
        bounds[key] = None
        if len(values) > 1 and key not in PEAKS:
            rng = np.random.default_rng(seed)
            found = bootstrap((values,), np.mean, method="percentile", random_state=rng, **options)
            low, high = found.confidence_interval
            bounds[key] = float(low), float(high)
    return bounds


def check_level(level: float) -> None:
    """Raise UsageError if the confidence `level` is not between 0 and 1."""
    if not 0 < level < 1:
        raise UsageError(f"--confidence {level}: give a number between 0 and 1, such as 0.95")


def totals(
    rows: Sequence[Scored], by_sequence: bool = False, level: float | None = None, seed: int = 0
) -> Totals:
    """Return the means of a run's images, with `intervals`, that may raise, if `level` is given."""
    return Totals(
        total=mean_scores(rows),
        subsets=_summaries(subsets(rows)),
        sequences=_summaries(sequences(rows)) if by_sequence else None,
        confidence=None if level is None else Confidence(level, seed, intervals(rows, level, seed)),
    )


@dataclass(frozen=True)
class Spread:
    """The mean of a score over several trainings, and their standard deviation (n - 1)."""

    mean: float
    deviation: float


def over_seeds(runs: Sequence[Means]) -> dict[str, Spread]:
    """Return mean and deviation of each score's mean over runs, of scores that all of them have."""
    found: dict[str, Spread] = {}
    for key in runs[0]:
        values: list[Any] = [run.get(key) for run in runs]
        if key not in ("images", "infinite") and None not in values:
            found[key] = Spread(fmean(values), stdev(values))
    return found


def winners(scores: Mapping[str, Scores], key: str = "psnr", lower: bool = False) -> list[str]:
    """Return the runs whose score `key` of one image is highest, or lowest if `lower`, or tie."""
    best = max(_merit(row, key, lower) for row in scores.values())
    return [run for run, row in scores.items() if _merit(row, key, lower) == best]


def compare(
    runs: Mapping[str, Sequence[Scored]], key: str = "psnr", lower: bool = False
) -> Comparison:
    """Compare runs by the score `key`; all runs have the same images in the same order."""
    wins = dict.fromkeys(runs, 0)
    cases = []
    for images in zip(*runs.values(), strict=True):
        scores = {run: image.scores for run, image in zip(runs, images, strict=True)}
        for run in winners(scores, key, lower):
            wins[run] += 1
        cases.append((images[0].name, {run: _merit(row, key) for run, row in scores.items()}))
    sign = -1 if lower else 1
    cases.sort(key=lambda case: (sign * np.mean([*case[1].values()]), case[0]))
    worst = cases[: min(CASES, (len(cases) + 1) // 2)]  # no image is among both
    return Comparison(key, wins, worst, cases[: len(worst) - 1 : -1][:CASES])


def _summaries(parts: Mapping[str, Sequence[Scored]]) -> dict[str, Means]:
    return {name: mean_scores(part) for name, part in parts.items()}


def _merit(scores: Scores, key: str, lower: bool = False) -> float:
    value = scores.get(key)
    return -math.inf if value is None else -value if lower else value


def _finite(rows: Sequence[Scored]) -> dict[str, list[float]]:
    """Return the finite values of each score that any row has."""
    values: dict[str, list[float]] = {key: [] for row in rows for key in row.scores}
    for row in rows:
        for key, value in row.scores.items():
            if value is not None and math.isfinite(value):
                values[key].append(value)
    return values
