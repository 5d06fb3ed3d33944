"""Means of the scores of many images, of subsets of them, their intervals, and comparisons."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.data.places import locate
from blurkit.errors import UsageError
from blurkit.io.records import Record
from blurkit.metrics.scores import Scores

RESAMPLES = 9999
SMALLEST_SET = 10
"""Images from which on a tenth of them is a subset."""
CASES = 3
"""How many worst and how many best images a comparison shows."""


@dataclass(frozen=True)
class Scored:
    """One image's name, scores and sequence, and what is known of its making.

    `blurred` is the folder its blurry image came from in a dataset (`blur`, `blur_gamma`), and
    `restored_with` how `deblur` ran.
    """

    name: str
    scores: Scores
    sequence: str
    blurred: str = ""
    restored_with: str = ""

    @classmethod
    def of(cls, record: Record, scores: Scores) -> Scored:
        """A record's scores; its sequence is the attribute of that name, else the name's parent."""
        attrs = record.attrs
        sequence = str(attrs.get("sequence") or record.name.rpartition("/")[0] or ".")
        source = Path(str(attrs.get("source", "")))
        place = locate(source, source.parts) if source.name else None
        blurred = place.folder if place and place.role == "blur" else ""
        return cls(record.name, scores, sequence, blurred, str(attrs.get("restored_with", "")))


Means = dict[str, Any]
"""The number of `images`, how many are `infinite`, and the mean of each score by its name."""


@dataclass(frozen=True)
class Confidence:
    """The bounds (low, high) of each score's mean by its name, at a `level` between 0 and 1.

    They are drawn from `seed`; None for a score that fewer than two images have.
    """

    level: float
    seed: int
    intervals: dict[str, tuple[float, float] | None]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, the intervals beside `level` and `seed`."""
        return {"level": self.level, "seed": self.seed, **self.intervals}


@dataclass(frozen=True)
class Totals:
    """The means of a run: of all images, of the `subsets`, and of the sequences if asked for."""

    total: Means
    subsets: dict[str, Means]
    sequences: dict[str, Means] | None = None
    confidence: Confidence | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, without what there is not."""
        parts = {
            "subsets": self.subsets or None,
            "sequences": self.sequences,
            "confidence": self.confidence and self.confidence.as_dict(),
        }
        given = {name: part for name, part in parts.items() if part is not None}
        return {"total": self.total, **given}


@dataclass(frozen=True)
class Case:
    """An image of a comparison: its name, and the score it is ranked by of each run."""

    name: str
    scores: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """Runs over the same images, compared by one score.

    `ranking` is the score's name, `wins` the number of images on which each run has the highest
    one (equal runs win both), and `worst` and `best` are the images of lowest and highest mean over
    the runs.
    """

    ranking: str
    wins: dict[str, int]
    worst: list[Case]
    best: list[Case]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values without `wins`, which `Report.as_dict` gives with each run."""
        cases = {
            kind: [{"name": case.name, self.ranking: case.scores} for case in found]
            for kind, found in (("worst", self.worst), ("best", self.best))
        }
        return {**cases, "ranking": self.ranking}


def mean_scores(rows: Sequence[Scored]) -> Means:
    """Return the mean of each score over the images that have a finite one.

    An identical pair has infinite PSNR: it is counted in `infinite` and left out of the mean
    instead of making it infinite.
    """
    means = {key: float(np.mean(v)) if v else None for key, v in _finite(rows).items()}
    infinite = sum(row.scores.get("psnr") == math.inf for row in rows)
    return {"images": len(rows), "infinite": infinite, **means}


def subsets(rows: Sequence[Scored]) -> dict[str, list[Scored]]:
    """`blurriest` and `sharpest`: the tenths of lowest and of highest PSNR of the blurry image.

    As in Table 2 of the MSDI-Net paper, of the images whose blurry one is known, rounded down.
    Empty when these are fewer than 10.
    """
    known = [row for row in rows if row.scores.get("psnr_blur") is not None]
    if len(known) < SMALLEST_SET:
        return {}
    known.sort(key=lambda row: row.scores["psnr_blur"] or 0)
    tenth = len(known) // 10
    return {"blurriest": known[:tenth], "sharpest": known[-tenth:]}


def sequences(rows: Sequence[Scored]) -> dict[str, list[Scored]]:
    """The rows by sequence, in order of appearance."""
    found: dict[str, list[Scored]] = defaultdict(list)
    for row in rows:
        found[row.sequence].append(row)
    return dict(found)


def intervals(
    rows: Sequence[Scored], level: float, seed: int = 0
) -> dict[str, tuple[float, float] | None]:
    """A confidence interval (low, high) of each score's mean, by the percentile bootstrap.

    9999 resamples of the images, drawn anew from `seed` for each score; None for a score that
    fewer than two images have. Raises UsageError unless `level` is between 0 and 1.
    """
    check_level(level)
    from scipy.stats import bootstrap  # takes longer to import than all else here

    found: dict[str, tuple[float, float] | None] = {}
    for key, values in _finite(rows).items():
        found[key] = None
        if len(values) > 1:
            low, high = bootstrap(
                (values,),
                np.mean,
                n_resamples=RESAMPLES,
                batch=100,
                confidence_level=level,
                method="percentile",
                random_state=np.random.default_rng(seed),
            ).confidence_interval
            found[key] = float(low), float(high)
    return found


def check_level(level: float) -> None:
    """Raises UsageError unless the confidence `level` lies between 0 and 1."""
    if not 0 < level < 1:
        raise UsageError(f"--confidence {level}: give a number between 0 and 1, such as 0.95")


def totals(
    rows: Sequence[Scored], by_sequence: bool = False, level: float | None = None, seed: int = 0
) -> Totals:
    """Return the means of a run's images, with `intervals` at `level` where one is given.

    Raises UsageError unless `level` is between 0 and 1.
    """
    return Totals(
        total=mean_scores(rows),
        subsets=_summaries(subsets(rows)),
        sequences=_summaries(sequences(rows)) if by_sequence else None,
        confidence=None if level is None else Confidence(level, seed, intervals(rows, level, seed)),
    )


def winners(scores: Mapping[str, Scores], key: str = "psnr") -> list[str]:
    """The runs with the highest `key` of one image; more than one when they are equal."""
    best = max(_value(row, key) for row in scores.values())
    return [run for run, row in scores.items() if _value(row, key) == best]


def compare(runs: Mapping[str, Sequence[Scored]], key: str = "psnr") -> Comparison:
    """Compare runs over the same images, which have one order in all runs, by the score `key`."""
    wins = dict.fromkeys(runs, 0)
    cases = []
    for images in zip(*runs.values(), strict=True):
        scores = {run: image.scores for run, image in zip(runs, images, strict=True)}
        for run in winners(scores, key):
            wins[run] += 1
        cases.append(Case(images[0].name, {run: _value(row, key) for run, row in scores.items()}))
    cases.sort(key=lambda case: np.mean([*case.scores.values()]))
    return Comparison(key, wins, cases[:CASES], cases[::-1][:CASES])


def _summaries(parts: Mapping[str, Sequence[Scored]]) -> dict[str, Means]:
    return {name: mean_scores(part) for name, part in parts.items()}


def _value(scores: Scores, key: str) -> float:
    value = scores[key]
    return -math.inf if value is None else value


def _finite(rows: Sequence[Scored]) -> dict[str, list[float]]:
    """The finite values of each score that any row has."""
    keys = dict.fromkeys(key for row in rows for key in row.scores)
    found: dict[str, list[float]] = {key: [] for key in keys}
    for row in rows:
        for key, value in row.scores.items():
            if value is not None and math.isfinite(value):
                found[key].append(value)
    return found
