"""The report of `eval`: the scores of one or more runs, merged, and how each was computed."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from blurkit.data.places import array_of
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.paths import natural_key, reading_errors
from blurkit.metrics.frequency import Divergences, Frequency
from blurkit.metrics.scores import ALONE, LOWER_WORDS, Measures, Scores
from blurkit.metrics.statistics import (
    RESAMPLES,
    Comparison,
    Scored,
    Spread,
    Totals,
    compare,
    over_seeds,
    totals,
    winners,
)


@dataclass(frozen=True)
class ImageScores:
    """The scores of one image by run, the runs that score `best` on it, and facts `about` it."""

    name: str
    runs: dict[str, Scores]
    best: list[str]
    about: dict[str, Any]

    @classmethod
    def of(cls, rows: Mapping[str, Scored], measures: Measures | Merged) -> ImageScores:
        """Return the scores of one image and the `best` runs."""
        first = next(iter(rows.values()))
        runs = {run: row.scores for run, row in rows.items()}
        about = first.about
        if len(rows) > 1 and any(row.restored_with for row in rows.values()):
            about["restored_with"] = {run: row.restored_with for run, row in rows.items()}
        return cls(first.name, runs, winners(runs, *ranked(measures, first.scores)), about)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the scores of a single run, or the scores by run of several."""
        if len(self.runs) == 1:
            (only,) = self.runs.values()
            return {"name": self.name, **only, **self.about}
        return {"name": self.name, "runs": self.runs, "best": self.best, **self.about}


@dataclass(frozen=True)
class NetworkCost:
    """The network that made the results, and its cost for an image of `input_size` (WxH)."""

    name: str
    parameters: int
    gmacs: float
    input_size: str


@dataclass(frozen=True)
class Report:
    """The results of `eval`: the means of every run, the scores of every image, and the protocol.

    `protocol` says in a line how each kind of number was computed. `comparison` is set if there are
    several runs, `network` if its checkpoint was given, and `part` (2/8) if only a part of the
    images was scored. `seeds` names the runs that differ in nothing but their seed, and `paper` has
    the scores that a paper's table prints, by method.
    """

    runs: dict[str, Totals]
    images: list[ImageScores]
    protocol: dict[str, str]
    comparison: Comparison | None = None
    network: NetworkCost | None = None
    frequency: list[Divergences] | None = None
    part: str = ""
    seeds: Mapping[str, Sequence[str]] = field(default_factory=dict)
    paper: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    @property
    def spreads(self) -> dict[str, dict[str, Spread]]:
        """The mean of every score over the runs of each group in `seeds`, and its deviation."""
        groups = self.seeds.items()
        return {label: over_seeds([self.runs[r].total for r in runs]) for label, runs in groups}

    @property
    def only(self) -> Totals:
        """The means of the first run, which is the only one unless runs are compared."""
        return next(iter(self.runs.values()))

    @property
    def ranking(self) -> str:
        """The score that ranks images: the comparison's, or else PSNR, or the first one."""
        if self.comparison is not None:
            return self.comparison.ranking
        scores = [key for key in self.only.total if key not in ("images", "infinite")]
        return "psnr" if "psnr" in scores else next(iter(scores), "psnr")

    @property
    def lower_is_better(self) -> bool:
        """Whether the lowest of the scores that rank images is the best."""
        return lower_is_better(self.ranking, self.protocol)

    def as_dict(self, images: bool = True) -> dict[str, Any]:
        """Return the report as plain values; `images` includes the scores of every image.

        The means of a single run are at the top level; those of several are under `runs`, by run.
        """
        values = self.only.as_dict()
        if self.comparison is not None:
            wins = self.comparison.wins
            runs = {run: {**t.as_dict(), "wins": wins[run]} for run, t in self.runs.items()}
            values = {"runs": runs, **self.comparison.as_dict()}
        if self.network is not None:
            values["network"] = asdict(self.network)
        if self.frequency is not None:
            values["frequency"] = [asdict(row) for row in self.frequency]
        if self.part:
            values["part"] = self.part
        if self.seeds:
            spreads = {g: {k: asdict(s) for k, s in v.items()} for g, v in self.spreads.items()}
            values["seeds"] = {g: {"runs": [*self.seeds[g]], **spreads[g]} for g in spreads}
        if self.paper:
            values["paper"] = {
                method: {score: float(text) for score, text in row.items()}
                for method, row in self.paper.items()
            }
        values["protocol"] = self.protocol
        return {**values, "images": [i.as_dict() for i in self.images]} if images else values


def make_report(
    runs: Mapping[str, Sequence[Scored]],
    measures: Measures | Merged,
    by_sequence: bool = False,
    level: float | None = None,
    seed: int = 0,
    network: NetworkCost | None = None,
    frequency: Frequency | None = None,
    part: str = "",
    costs: Mapping[str, str] | None = None,
) -> Report:
    """Return the report of `runs`, the rows of each run by its name, in the same order in all runs.

    `level` is the confidence level of the intervals of the means, and `seed` the seed of the
    intervals and of `frequency`. `costs` has a line on each score that says what the images took.
    Raises UsageError if `level` is not between 0 and 1.
    """
    means = {run: totals(rows, by_sequence, level, seed) for run, rows in runs.items()}
    scores: Scores = next((row.scores for rows in runs.values() for row in rows), {})
    key, lower = ranked(measures, scores)
    protocol = _protocol(runs, means, measures)
    if level is not None:
        protocol["confidence"] = (
            f"{100 * level:g} % interval of the mean, percentile bootstrap, "
            f"{RESAMPLES} resamples, seed {seed}"
        )
    if len(runs) > 1:
        kind = "lowest" if lower else "highest"
        protocol["wins"] = f"images with the {kind} {key}; a tie counts for each"
    protocol |= costs or {}
    if frequency is not None:
        protocol |= frequency.protocol(seed)
    images = zip(*runs.values(), strict=True)
    return Report(
        means,
        [ImageScores.of(dict(zip(runs, rows, strict=True)), measures) for rows in images],
        protocol,
        comparison=compare(runs, key, lower) if len(runs) > 1 else None,
        network=network,
        frequency=None if frequency is None else frequency.rows(seed),
        part=part,
    )


LOWER = ("lpips", "seconds", "memory", "parameters", "gmacs")
"""Scores of which the lowest is the best; of measures of an image alone, the protocol says so."""


def ranked(measures: Measures | Merged, scores: Scores) -> tuple[str, bool]:
    """Return which of these scores ranks images and runs, and whether its lowest is the best.

    Without a reference, it is the first measure of the image alone.
    """
    lines = measures.protocol()
    alone = (key for key in scores if ALONE in lines.get(key, ""))
    key = measures.ranking if measures.ranking in scores else next(alone, measures.ranking)
    return key, lower_is_better(key, lines)


def lower_is_better(key: str, protocol: Mapping[str, str]) -> bool:
    """Return whether the lowest of these scores is the best, which the protocol may say."""
    return key in LOWER or protocol.get(key, "").endswith(LOWER_WORDS)


def _protocol(
    runs: Mapping[str, Sequence[Scored]], means: Mapping[str, Totals], measures: Measures | Merged
) -> dict[str, str]:
    """Return one line on how each score and the means were computed."""
    first = next(iter(means.values()))
    scored = [row for rows in runs.values() for row in rows]
    known = {key for row in scored for key in row.scores}
    lines, names = measures.protocol(), measures.keys
    protocol = {k: line for k, line in lines.items() if k in known or k not in names or not known}
    if "psnr_blur" in first.total:
        folders = sorted({row.blurred for row in scored} - {""})
        protocol["psnr_blur"] = f"of the images in {', '.join(folders)}" if folders else "of blur"
    if "psnr_sharp" in first.total:
        protocol["psnr_sharp"] = "of sharp, what a network that does nothing would score"
    if settings := sorted({row.restored_with for row in scored} - {""}):
        protocol["restored"] = " or ".join(settings[:3])
    if first.subsets:
        count, images = first.subsets["blurriest"]["images"], first.total["images"]
        protocol["subsets"] = f"the {count} of {images} images of lowest and of highest psnr_blur"
    counts = {name: run.total["infinite"] for name, run in means.items()}
    if any(counts.values()):
        infinite = [f"{n} {name}" if len(counts) > 1 else f"{n}" for name, n in counts.items()]
        protocol["infinite"] = f"identical images, left out of the mean PSNR: {', '.join(infinite)}"
    return protocol


# ---- Merging -------------------------------------------------------------------------------------

FACTS = ("name", "sequence", "blurred", "restored_with", "runs", "best")
"""What the entry of an image holds besides scores."""

OF_ALL = (
    *("psnr_blur", "psnr_sharp", "restored", "subsets", "infinite", "confidence", "wins"),
    *("seeds", "paper"),
)
"""The lines of a protocol that depend on all images, so that merging writes them anew."""

INFINITE = ("psnr", "psnr_y", "psnr_blur", "psnr_sharp")
"""Scores that are always known, so that null, as JSON has no infinity, means infinite."""

Rows = dict[str, list[Scored]]
"""The scores of every image, by run."""


@dataclass(frozen=True)
class Merged:
    """The scores in some reports, and how the reports say that they were computed."""

    rows: Rows
    lines: dict[str, str]
    ranking: str
    network: NetworkCost | None
    seeds: dict[str, list[str]]
    keys: ClassVar[tuple[str, ...]] = ()  # to be measured; the lines are of those that were

    def protocol(self) -> dict[str, str]:
        """Return one line on how each score was computed."""
        return self.lines


def read_scored(entry: Mapping[str, Any]) -> dict[str, Scored]:
    """Return the scores of an image by run from `ImageScores.as_dict`; raise an error if not."""
    runs = entry.get("runs") or {"": {k: v for k, v in entry.items() if k not in FACTS}}
    made = entry.get("restored_with", "")
    for value in (v for scores in runs.values() for v in scores.values()):
        if not isinstance(value, (int, float, type(None))):
            raise ValueError("a score is no number")
    if not isinstance(entry["name"], str) or not isinstance(entry["sequence"], str):
        raise ValueError("a name is no text")
    return {
        run: Scored(
            entry["name"],
            {k: math.inf if v is None and k in INFINITE else v for k, v in scores.items()},
            entry["sequence"],
            entry.get("blurred", ""),
            made[run] if isinstance(made, dict) else made,
        )
        for run, scores in runs.items()
    }


def merge_reports(paths: Sequence[Path]) -> Merged:
    """Return the scores of the images in reports of `eval`, .json or JSON lines, ordered by name.

    Raises BlurkitError if one cannot be read, and UsageError if they do not belong together: if
    scores were computed in different ways, an image is in two of them, or a part is missing.
    """
    every = [(path, _read(path)) for path in paths]
    _check_parts([report for _, report in every])
    # A part without images does not know all that the others say of how theirs were measured.
    reports = [(path, report) for path, report in every if report["images"]] or every
    first, base = reports[0]
    known = _known(base)
    for path, report in reports:
        other = _known(report)
        for key in [*known, *other]:
            if known.get(key) != other.get(key):
                raise UsageError(f"{path}: {key} differs from that of {first}; not merged")
    images: dict[str, dict[str, Scored]] = {}
    for path, report in reports:
        for entry in report["images"]:
            if images.setdefault(entry["name"], scored := read_scored(entry)) is not scored:
                raise UsageError(f"{path}: {entry['name']} is in another report, too; not merged")
    rows: Rows = {}
    for name in sorted(images, key=natural_key):
        for run, row in images[name].items():
            rows.setdefault(run, []).append(row)
    network = base.get("network")
    return Merged(
        rows,
        {k: v for k, v in base["protocol"].items() if k not in OF_ALL},
        base.get("ranking", "psnr"),
        network and NetworkCost(**network),
        {group: runs for group, runs in _seeds(base).items() if {*runs} <= {*rows}},
    )


def _known(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all parts of an evaluation have in common."""
    lines = {key: line for key, line in report["protocol"].items() if key not in OF_ALL}
    same = {"runs": [*report.get("runs", [])], "network": report.get("network")}
    return {**lines, **same, "seeds": _seeds(report)}


def _seeds(report: Mapping[str, Any]) -> dict[str, list[str]]:
    return {group: entry["runs"] for group, entry in report.get("seeds", {}).items()}


def _check_parts(reports: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError unless all parts are there, if the reports are of parts."""
    present = {report["part"] for report in reports if "part" in report}
    for count in {part.partition("/")[2] for part in present}:
        numbers = range(1, int(count) + 1)
        if missing := array_of(n for n in numbers if f"{n}/{count}" not in present):
            parts = f"parts {missing} of {count} are missing"
            raise UsageError(f"--merge: {parts}; name the reports of all parts")


def _check_types(report: Mapping[str, Any]) -> None:
    """Raise ValueError or another error unless what `merge_reports` uses is of its type."""
    lines, network = report["protocol"], report.get("network")
    whole = (
        isinstance(report.get("runs", []), (list, dict))
        and {*map(type, lines.values())} == {str}
        and re.fullmatch(r"[1-9]\d{0,4}/[1-9]\d{0,4}", report.get("part", "1/1"))
        and all(len({*runs}) > 1 for runs in _seeds(report).values())
    )
    if not whole:
        raise ValueError("another type")
    if network is not None:
        NetworkCost(**network)


def _read(path: Path) -> dict[str, Any]:
    """Return a report as plain values. Raises BlurkitError if the file is not a whole report."""
    try:
        with reading_errors(path):
            text = path.read_text(encoding="utf-8")
        try:
            report = json.loads(text)
        except ValueError:
            *images, last = map(json.loads, text.splitlines())
            report = {**last, "images": images}
        if report.get("frequency"):
            raise BlurkitError(f"{path}: results of --frequency cannot be merged")
        for entry in report["images"]:
            read_scored(entry)
        _check_types(report)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        what = "name reports of eval, -o NAME.json or --json"
        raise BlurkitError(f"{path}: is not a whole report; {what}") from error
    return dict(report)
