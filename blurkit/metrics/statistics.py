"""What the scores of many images come to: means, subsets, intervals, and comparisons of runs."""

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


def summary(rows: Sequence[Scored]) -> dict[str, Any]:
    """The mean of each score over the images that have a finite one, with how many had not.

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
) -> dict[str, Any]:
    """What a run comes to, as plain values: `total`, and `subsets`, `sequences` and `confidence`
    where there are any. Raises UsageError for a `level` that is none.
    """
    told: dict[str, Any] = {"total": summary(rows)}
    if parts := subsets(rows):
        told["subsets"] = {name: summary(part) for name, part in parts.items()}
    if by_sequence:
        told["sequences"] = {name: summary(part) for name, part in sequences(rows).items()}
    if level is not None:
        told["confidence"] = {"level": level, "seed": seed, **intervals(rows, level, seed)}
    return told


def winners(scores: Mapping[str, Scores], key: str = "psnr") -> list[str]:
    """The runs with the highest `key` of one image; more than one when they are equal."""
    best = max(_value(row, key) for row in scores.values())
    return [run for run, row in scores.items() if _value(row, key) == best]


def compare(runs: Mapping[str, Sequence[Scored]], key: str = "psnr") -> dict[str, Any]:
    """How runs over the same images compare: `wins` by run, and the `worst` and `best` images.

    A win is an image on which a run has the highest `key`; equal runs win both. Images are ranked
    by the mean of `key` over the runs; each is given with its value by run.
    """
    wins = dict.fromkeys(runs, 0)
    cases = []
    for images in zip(*runs.values(), strict=True):
        scores = {run: image.scores for run, image in zip(runs, images, strict=True)}
        for run in winners(scores, key):
            wins[run] += 1
        cases.append({"name": images[0].name, key: {r: _value(s, key) for r, s in scores.items()}})
    cases.sort(key=lambda case: np.mean([*case[key].values()]))
    return {"wins": wins, "worst": cases[:CASES], "best": cases[::-1][:CASES]}


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
