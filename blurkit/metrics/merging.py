"""Reports of `eval` read back: the parts of one evaluation become one report again."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.paths import natural_key
from blurkit.metrics.evaluation import NetworkCost
from blurkit.metrics.statistics import Scored

FACTS = ("name", "sequence", "blurred", "restored_with", "runs", "best")
"""What the entry of an image holds besides scores."""

OF_ALL = ("psnr_blur", "psnr_sharp", "restored", "subsets", "infinite", "confidence", "wins")
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

    def protocol(self) -> dict[str, str]:
        """Return one line on how each score was computed."""
        return self.lines


def read_scored(entry: Mapping[str, Any]) -> dict[str, Scored]:
    """Return the scores of an image by run, from `ImageScores.as_dict`."""
    runs = entry.get("runs") or {"": {k: v for k, v in entry.items() if k not in FACTS}}
    made = entry.get("restored_with", "")
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
    """Return the scores of the images in all reports, ordered by name.

    Reports are the .json files or the JSON lines of `eval`. Raises BlurkitError if one cannot be
    read, and UsageError if they do not belong together: if scores were computed in different ways,
    an image is in two of them, or a part is missing.
    """
    reports = [_read(path) for path in paths]
    known = [_known(report) for report in reports]
    for path, other in zip(paths, known, strict=True):
        for key in [*known[0], *other]:
            if known[0].get(key) != other.get(key):
                raise UsageError(f"{path}: {key} differs from that of {paths[0]}; not merged")
    _check_parts(reports)
    images: dict[str, dict[str, Scored]] = {}
    for path, report in zip(paths, reports, strict=True):
        for entry in report["images"]:
            if images.setdefault(entry["name"], scored := read_scored(entry)) is not scored:
                raise UsageError(f"{path}: {entry['name']} is in another report, too; not merged")
    rows: Rows = {}
    for name in sorted(images, key=natural_key):
        for run, row in images[name].items():
            rows.setdefault(run, []).append(row)
    network = reports[0].get("network")
    return Merged(
        rows,
        {k: v for k, v in reports[0]["protocol"].items() if k not in OF_ALL},
        reports[0].get("ranking", "psnr"),
        network and NetworkCost(**network),
    )


def _known(report: Mapping[str, Any]) -> dict[str, Any]:
    """Return what all parts of an evaluation have in common."""
    lines = {key: line for key, line in report["protocol"].items() if key not in OF_ALL}
    return {**lines, "runs": [*report.get("runs", [])], "network": report.get("network")}


def _check_parts(reports: Sequence[Mapping[str, Any]]) -> None:
    """Raise UsageError unless all parts are there, if the reports are of parts."""
    present = {report["part"] for report in reports if "part" in report}
    counts = {part.partition("/")[2] for part in present}
    for count in counts:
        for number in range(1, int(count) + 1):
            if (part := f"{number}/{count}") not in present:
                raise UsageError(f"--merge: part {part} is missing; name the reports of all parts")


def _read(path: Path) -> dict[str, Any]:
    """Return a report as plain values. Raises BlurkitError if the file is not a whole report."""
    try:
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
        report["protocol"]["psnr"]
    except OSError as error:
        raise BlurkitError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        what = "name reports of eval, -o NAME.json or --json"
        raise BlurkitError(f"{path}: is not a whole report; {what}") from error
    return dict(report)
