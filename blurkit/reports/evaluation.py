"""What `eval` found, as `metrics.evaluation.report` gives it: tables for people, and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blurkit.errors import UsageError
from blurkit.io.paths import refuse_existing, replacing
from blurkit.reports.plain import to_json
from blurkit.reports.tables import markdown_table, print_table, shown

TABLE_ROWS = 50
"""Longer sets are shown by their lowest scores; a terminal is no place for a thousand rows."""
SUFFIXES = (".csv", ".json", ".md")

Report = Mapping[str, Any]
Table = tuple[list[str], list[Sequence[object]]]
"""Columns and rows."""


def print_report(report: Report) -> None:
    """The tables, on standard error: one of images and means, or those of a comparison."""
    if "runs" in report:
        # What matters most is last, above the prompt.
        tables = [(f"eval: {n}", t) for n, t in reversed(_comparison_tables(report).items())]
    else:
        columns, rows = _images_table(report)
        title = "eval"
        if len(rows) > TABLE_ROWS:
            title = f"eval: the {TABLE_ROWS} lowest (--json gives all)"
            psnr = [image["psnr"] for image in report["images"]]
            rows = [rows[i] for i in sorted(range(len(rows)), key=psnr.__getitem__)[:TABLE_ROWS]]
        tables = [(title, (columns, [*rows, *_means_table(report)[1]]))]
    tables += [(f"eval: {name}", table) for name, table in _frequency_table(report).items()]
    for title, table in tables[:-1]:
        print_table(title, *table)
    title, table = tables[-1]
    print_table(title, *table, note="; ".join(_notes(report)))


def write_report(path: Path, report: Report, force: bool = False) -> None:
    """Write it all to a .csv, .json or .md file, whole or not at all, with the protocol.

    Raises UsageError for another suffix, BlurkitError for an existing file without `force`.
    """
    check_output(path, force)
    text = {".csv": _csv, ".json": _json, ".md": _markdown}[path.suffix.lower()](report)
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


def check_output(path: Path, force: bool) -> None:
    """Raises UsageError for a suffix that is none of ours, BlurkitError for an existing file."""
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(f"-o {path}: name a file that ends in {', '.join(SUFFIXES)}")
    refuse_existing(path, force)


# ---- tables --------------------------------------------------------------------------------------


def _runs(report: Report) -> Mapping[str, Report]:
    """The totals by run; one run has no name."""
    runs: Mapping[str, Report] = report.get("runs", {"": report})
    return runs


def _columns(report: Report) -> list[str]:
    """The scores that any run has a mean of, those of their originals first."""
    sums = [told["total"] for told in _runs(report).values()]
    names = dict.fromkeys(["psnr_blur", "psnr_sharp", *(key for total in sums for key in total)])
    counts = ("images", "infinite")
    return [n for n in names if n not in counts and any(t.get(n) is not None for t in sums)]


def _images_table(report: Report) -> Table:
    columns = _columns(report)
    return ["image", *columns], [(i["name"], *map(i.get, columns)) for i in report["images"]]


def _means_table(report: Report) -> Table:
    """Means of all, of the subsets, of the sequences, and the intervals of the first."""
    columns = _columns(report)
    total, subsets = report["total"], report.get("subsets", {})
    parts = {f"mean of {total['images']}": total}
    parts |= {f"{name} 10 % ({p['images']})": p for name, p in subsets.items()}
    parts |= {f"{name} ({p['images']})": p for name, p in report.get("sequences", {}).items()}
    rows: list[Sequence[object]] = [(name, *map(part.get, columns)) for name, part in parts.items()]
    if "confidence" in report:
        told = report["confidence"]
        bounds = [_interval(told.get(key)) for key in columns]
        rows.insert(1, (f"{100 * told['level']:g} % interval", *bounds))
    return ["mean", *columns], rows


def _comparison_tables(report: Report) -> dict[str, Table]:
    runs, key, columns = report["runs"], report["ranking"], _columns(report)
    first = next(iter(runs.values()))
    head = ["run", *columns]
    if "confidence" in first:
        head.append(f"{key} {100 * first['confidence']['level']:g} % interval")
    head += [*(f"{key} {part} 10 %" for part in first.get("subsets", {})), "wins"]
    rows: list[Sequence[object]] = []
    for run, told in runs.items():
        interval = [_interval(told["confidence"].get(key))] if "confidence" in told else []
        parts = [part.get(key) for part in told.get("subsets", {}).values()]
        rows.append([run, *map(told["total"].get, columns), *interval, *parts, told["wins"]])
    tables: dict[str, Table] = {f"{len(report['images'])} images": (head, rows)}
    if "sequences" in first:
        tables[f"mean {key} of sequences"] = (
            ["sequence", *runs],
            [(n, *(r["sequences"][n].get(key) for r in runs.values())) for n in first["sequences"]],
        )
    cases = [(kind, case) for kind in ("worst", "best") for case in report[kind]]
    tables[f"{key} of the worst and best images"] = (
        ["image", *runs],
        [(f"{kind}: {case['name']}", *case[key].values()) for kind, case in cases],
    )
    return tables


def _frequency_table(report: Report) -> dict[str, Table]:
    """What `--frequency` found under its title; nothing without it."""
    rows: list[Sequence[object]] = []
    for row in report.get("frequency", []):
        name = row["run"] or row["image"]
        rows.append((name, *row["divergence"].values()))
        rows.append((f"{name}, by chance", *row["chance"].values()))
    return {"divergence by frequency and scale": (["image", *_bands(report)], rows)} if rows else {}


def _bands(report: Report) -> list[str]:
    """The names of band and scale, where `--frequency` was given."""
    rows = report.get("frequency") or [{"divergence": {}}]
    return [*rows[0]["divergence"]]


def _notes(report: Report) -> list[str]:
    lines = [f"{key}: {text}" for key, text in report["protocol"].items()]
    if "network" in report:
        told = "{name}, {parameters:,} parameters, {gmacs:.4g} GMACs at {input_size}"
        lines.append(f"network: {told.format(**report['network'])}")
    return lines


def _interval(bounds: Sequence[float] | None) -> str | None:
    return None if bounds is None else f"[{', '.join(map(shown, bounds))}]"


# ---- files ---------------------------------------------------------------------------------------


def _json(report: Report) -> str:
    return to_json(dict(report), indent=2) + "\n"


def _csv(report: Report) -> str:
    """A row per image and run, then rows of means, intervals and divergences, then the protocol's
    lines.
    """
    columns = [*_columns(report), *_bands(report)]
    lines: list[Sequence[object]] = [["row", "run", "name", "images", *columns]]
    for run in _runs(report):
        for image in report["images"]:
            scores = image.get("runs", {run: image})[run]
            lines.append(["image", run, image["name"], 1, *map(scores.get, columns)])
    for run, told in _runs(report).items():
        parts = [("mean", "all", told["total"])]
        parts += [("subset", *part) for part in told.get("subsets", {}).items()]
        parts += [("sequence", *part) for part in told.get("sequences", {}).items()]
        for row, name, part in parts:
            lines.append([row, run, name, part["images"], *map(part.get, columns)])
        for side, row in enumerate(("low", "high") if "confidence" in told else ()):
            bounds = [told["confidence"].get(key) for key in columns]
            sides = [pair and pair[side] for pair in bounds]
            lines.append([row, run, "all", told["total"]["images"], *sides])
        if "wins" in told:
            lines.append(["wins", run, "all", told["wins"], *[None] * len(columns)])
    for told in report.get("frequency", []):
        for row in ("divergence", "chance"):
            values = map(told[row].get, columns)
            lines.append([row, told["run"], told["image"], told["images"], *values])
    for note in _notes(report):
        lines.append(["protocol", "", note, *[None] * (len(columns) + 1)])
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _markdown(report: Report) -> str:
    if "runs" in report:
        key = report["ranking"]
        tables = _comparison_tables(report)
        tables[f"{key} of every image"] = (
            ["image", *report["runs"], "best"],
            [
                (i["name"], *(s[key] for s in i["runs"].values()), ", ".join(i["best"]))
                for i in report["images"]
            ],
        )
    else:
        tables = {"means": _means_table(report), "images": _images_table(report)}
    tables |= _frequency_table(report)
    parts = [f"## {title}\n\n{markdown_table(*table)}" for title, table in tables.items()]
    return "\n".join([*parts, "## protocol\n", *(f"- {note}" for note in _notes(report))]) + "\n"
