"""Tables for people on standard error or as Markdown, CSV and JSON: scores, summaries."""

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from blurkit.errors import UsageError, printable
from blurkit.io.records import Record
from blurkit.io.writing import refuse_output, replacing
from blurkit.metrics.evaluation import Report, lower_is_better
from blurkit.metrics.statistics import Means, Spread
from blurkit.reports.progress import say
from blurkit.reports.values import to_json

_T = TypeVar("_T")
Mark = Callable[[str], _T]
"""Marks the text of a cell."""


@dataclass(frozen=True)
class Best:
    """A cell with the best value of its column, shown in bold, or the second best, underlined."""

    value: object
    second: bool = False


def print_table(
    title: str, columns: Sequence[str], rows: Collection[Sequence[object]], note: str = ""
) -> None:
    """Print a table on standard error, with a `note` below it; cells are formatted by `shown`.

    If it is too wide for the terminal and has fewer rows than columns, they are exchanged.
    """
    from rich.console import Console  # imported when used, so that wrong usage is refused at once
    from rich.table import Table
    from rich.text import Text

    console = Console(stderr=True, markup=False)
    turned: list[tuple[object, ...]] = list(zip(columns, *rows, strict=True))
    width = 1 + sum(3 + max(len(shown(cell)) for cell in column) for column in turned)
    if width > console.width and len(turned[0]) <= len(columns):
        columns, rows = [shown(cell) for cell in turned[0]], turned[1:]
    table = Table(title=title, title_justify="left", caption=note or None, caption_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right", overflow="fold")
    best, second = partial(Text, style="bold"), partial(Text, style="underline")
    for row in rows:
        table.add_row(*(_marked(cell, best, second) for cell in row))
    console.print(table)


def _marked(cell: object, best: Mark[_T], second: Mark[_T], text: str = "") -> str | _T:
    """Return a cell's text, marked by one of two functions if it is the best or the second best."""
    text = text or shown(cell)
    return text if not isinstance(cell, Best) else (second if cell.second else best)(text)


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table as Markdown, the best of a column in bold and the second best in italics."""
    texts = ([_marked(c, "**{}**".format, "_{}_".format) for c in r] for r in rows)
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *texts]
    return "".join(f"| {' | '.join(c.replace('|', chr(92) + '|') for c in r)} |\n" for r in lines)


def shown(value: object) -> str:
    """Return a cell's text: None as a dash, floats with two or four decimals, also of intervals."""
    if isinstance(value, Best):
        return shown(value.value)
    if isinstance(value, Spread):
        digits = _decimals(value.mean)
        return f"{value.mean:.{digits}f} ± {value.deviation:.{digits}f}"
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"[{', '.join(map(shown, value))}]"
    if isinstance(value, float):
        return f"{value:.{_decimals(value)}f}"
    return printable(str(value))


def _decimals(value: float) -> int:
    return 2 if abs(value) >= 10 else 4


# ---- Tables of scores ----------------------------------------------------------------------------

IMAGE_ROWS = 50
"""The most images that are listed; of larger sets, only those with the worst scores."""
REPORT_SUFFIXES = (".csv", ".json", ".md", ".tex")

OF_INPUTS = ("psnr_blur", "psnr_sharp")
"""Scores that are the same for all runs."""

Table = tuple[list[str], list[Sequence[object]]]
"""Columns and rows."""


def print_report(report: Report) -> None:
    """Print a report on standard error: one table of images and means, or those of a comparison."""
    if report.comparison is not None:
        # The most important table comes last, right above the prompt.
        tables = [(f"eval: {n}", t) for n, t in reversed(_comparison_tables(report).items())]
    else:
        columns, rows = _images_table(report)
        title = "eval"
        if len(rows) > IMAGE_ROWS:
            title = f"eval: the {IMAGE_ROWS} of {worst_words(report)} (--json gives all)"
            sign = -1 if report.lower_is_better else 1
            scores = (image.as_dict().get(report.ranking) for image in report.images)
            known = sorted((sign * s, i) for i, s in enumerate(scores) if s is not None)
            rows = [rows[i] for _, i in known[:IMAGE_ROWS]]
        tables = [(title, (columns, [*rows, *_means_table(report)[1]]))]
    tables += [(f"eval: {name}", table) for name, table in _frequency_table(report).items()]
    for number, (title, table) in enumerate(tables, 1):
        print_table(title, *table, "; ".join(_notes(report)) if number == len(tables) else "")


def write_report(path: Path, report: Report, force: bool = False) -> None:
    """Write a report with its protocol to a file, whole or not at all. Raises as `check_report`."""
    check_report(path, force)
    suffix = path.suffix.lower()
    if suffix == ".json":
        text = to_json(report.as_dict(), indent=2) + "\n"
    else:
        text = {".csv": _csv, ".md": _markdown, ".tex": _latex}[suffix](report)
    with replacing(path, force) as partial:
        partial.write_text(text, encoding="utf-8", errors="surrogateescape")


def check_report(path: Path, force: bool) -> None:
    """Raise UsageError for an unknown suffix, BlurkitError for one that exists, unless `force`."""
    if path.suffix.lower() not in REPORT_SUFFIXES:
        raise UsageError(f"-o {path}: name a file that ends in {', '.join(REPORT_SUFFIXES)}")
    refuse_output(path, force)


def report_tables(report: Report) -> dict[str, Table]:
    """Return the tables of means by title; a report of a single run has one without a title."""
    return _comparison_tables(report) if report.comparison else {"": _means_table(report)}


def score_columns(report: Report) -> list[str]:
    """Return the names of the scores that any run has a mean of, those of the inputs first."""
    sums = [run.total for run in report.runs.values()]
    names = dict.fromkeys([*OF_INPUTS, *(key for total in sums for key in total)])
    counts = ("images", "infinite")
    return [n for n in names if n not in counts and any(t.get(n) is not None for t in sums)]


def _images_table(report: Report) -> Table:
    columns = score_columns(report)
    images = [image.as_dict() for image in report.images]
    return ["image", *columns], [(i["name"], *map(i.get, columns)) for i in images]


def _means_table(report: Report) -> Table:
    """Return the means of all images with their intervals, of the subsets and of the sequences."""
    columns, run = score_columns(report), report.only
    parts = {f"mean of {run.total['images']}": run.total}
    parts |= {f"{name} 10 % ({p['images']})": p for name, p in run.subsets.items()}
    parts |= {f"{name} ({p['images']})": p for name, p in (run.sequences or {}).items()}
    parts |= {name: dict(printed) for name, printed in report.paper.items()}
    rows: list[Sequence[object]] = [(name, *map(part.get, columns)) for name, part in parts.items()]
    if run.confidence:
        bounds = [run.confidence.intervals.get(key) for key in columns]
        rows.insert(1, (f"{100 * run.confidence.level:g} % interval", *bounds))
    return ["mean", *columns], rows


def _comparison_tables(report: Report) -> dict[str, Table]:
    comparison, columns, first = report.comparison, score_columns(report), report.only
    assert comparison is not None
    key = comparison.ranking
    head = ["run", *columns]
    if first.confidence:
        head.append(f"{key} {100 * first.confidence.level:g} % interval")
    head += [*(f"{key} {part} 10 %" for part in first.subsets), "wins"]
    rows: list[Sequence[object]] = []
    for name, run in report.runs.items():
        interval = [run.confidence.intervals.get(key)] if run.confidence else []
        parts = [part.get(key) for part in run.subsets.values()]
        means = map(run.total.get, columns)
        rows.append([name, *means, *interval, *parts, comparison.wins[name]])
    for name, printed in report.paper.items() if not report.seeds else ():
        cells = [*map(printed.get, columns)]
        rows.append([name, *cells, *[None] * (len(head) - 1 - len(cells))])
    marked = _with_best(report, columns, rows)
    tables: dict[str, Table] = {f"{len(report.images)} images": (head, marked)}
    if report.seeds:
        tables["mean and standard deviation over seeds"] = _methods_table(report)
    if first.sequences is not None:
        by_run = [run.sequences or {} for run in report.runs.values()]
        tables[f"mean {key} of sequences"] = (
            ["sequence", *report.runs],
            [(name, *(means[name].get(key) for means in by_run)) for name in first.sequences],
        )
    kinds = {"worst": comparison.worst, "best": comparison.best}
    tables[f"{key} of the worst and best images"] = (
        ["image", *report.runs],
        [(f"{k}: {n}", *s.values()) for k in kinds for n, s in kinds[k]],
    )
    return tables


def _methods_table(report: Report) -> Table:
    """Return a row for each method: runs, those that differ in their seed as one, and a paper's."""
    columns, together = score_columns(report), {r for runs in report.seeds.values() for r in runs}
    scores: dict[str, Mapping[str, object]] = {
        f"{label} ({len(report.seeds[label])} seeds)": spread
        for label, spread in report.spreads.items()
    }
    scores |= {run or "ours": t.total for run, t in report.runs.items() if run not in together}
    scores |= report.paper
    rows = [[name, *map(row.get, columns)] for name, row in scores.items()]
    return ["method", *columns], _with_best(report, columns, rows)


def _with_best(
    report: Report, scores: Sequence[str], rows: Iterable[Sequence[object]]
) -> list[Sequence[object]]:
    """Return the rows with the best of each score as `Best`, and the second of three or more.

    The `scores` are those of the columns that follow the first.
    """
    marked = [[*row] for row in rows]
    for number, score in enumerate(scores, 1):
        if score in OF_INPUTS:
            continue
        cells = [row[number] for row in marked]
        values = [None if cell is None else number_of(cell) for cell in cells]
        ranked = sorted({value for value in values if value is not None})
        ranked = ranked if lower_is_better(score, report.protocol) else ranked[::-1]
        ranked = ranked[: 2 if len(ranked) > 2 else 1]
        for row, cell, value in zip(marked, cells, values, strict=True):
            if value in ranked:
                row[number] = Best(cell, value != ranked[0])
    return [*marked]


def number_of(cell: Any) -> float:
    """Return the value by which a cell is compared with others of its column."""
    cell = cell.value if isinstance(cell, Best) else cell
    return float(cell.mean if isinstance(cell, Spread) else cell)


def _frequency_table(report: Report) -> dict[str, Table]:
    """Return the table of the divergences of `--frequency` by its title; empty without it."""
    if not report.frequency:
        return {}
    rows: list[Sequence[object]] = []
    for row in report.frequency:
        name = row.run or row.image
        rows.append((name, *row.divergence.values()))
        rows.append((f"{name}, by chance", *row.chance.values()))
    columns = ["image", *report.frequency[0].divergence]
    return {"divergence by frequency and scale": (columns, rows)}


def _notes(report: Report) -> list[str]:
    lines = [f"{key}: {text}" for key, text in report.protocol.items()]
    if report.network is not None:
        cost = "{name}, {parameters:,} parameters, {gmacs:.4g} GMACs at {input_size}"
        lines.append(f"network: {cost.format(**asdict(report.network))}")
    return lines


COLUMN_WORDS = {
    "psnr": "PSNR, dB",
    "psnr_blur": "PSNR of the photo, dB",
    "psnr_sharp": "PSNR of the sharp image, dB",
    "psnr_y": "PSNR of the luma, dB",
    "psnr_aligned": "PSNR after alignment, dB",
    "ssim": "SSIM",
    "ssim_matlab": "SSIM of MATLAB",
    "lpips": "LPIPS",
    "seconds": "time, s",
    "memory": "memory, MB",
    "parameters": "parameters, millions",
    "gmacs": "GMACs",
    "sharpness_before": "sharpness before",
    "sharpness_after": "sharpness after",
    "restored_change": "change, levels of 255",
    "blur_length": "blur, pixels",
    "restored_seconds": "time, s",
}


def column_words(column: str) -> str:
    """Return the name of a score, and what follows it, in words with its unit."""
    name, *rest = re.split(r"(?=[, ])", column, maxsplit=1)
    return "".join([COLUMN_WORDS.get(name, name.replace("_", " ")), *rest])


def worst_words(report: Report) -> str:
    """Return what the worst images have of the score that ranks them."""
    end = "highest" if report.lower_is_better else "lowest"
    return f"{end} {column_words(report.ranking).partition(',')[0]}"


# ---- files ---------------------------------------------------------------------------------------


def _csv(report: Report) -> str:
    """Return rows of images by run, means with intervals, divergences, and the protocol as CSV."""
    bands = report.frequency[0].divergence if report.frequency else ()
    columns = [*score_columns(report), *bands]
    lines: list[Sequence[object]] = [["row", "run", "name", "images", *columns]]
    # Without a comparison, the name of the run is empty.
    runs = report.runs if report.comparison else {"": report.only}
    for number, run in enumerate(runs):
        for image in report.images:
            scores = [*image.runs.values()][number]
            lines.append(["image", run, image.name, 1, *map(scores.get, columns)])
    for run, means in runs.items():
        parts: list[tuple[str, str, Means]] = [("mean", "all", means.total)]
        parts += [("subset", *part) for part in means.subsets.items()]
        parts += [("sequence", *part) for part in (means.sequences or {}).items()]
        lines += [[row, run, name, p["images"], *map(p.get, columns)] for row, name, p in parts]
        if means.confidence:
            bounds = [means.confidence.intervals.get(key) for key in columns]
            for side, end in enumerate(("low", "high")):
                sides = [pair and pair[side] for pair in bounds]
                lines.append([end, run, "all", means.total["images"], *sides])
        if report.comparison is not None:
            lines.append(["wins", run, "all", report.comparison.wins[run], *[None] * len(columns)])
    for label, spread in report.spreads.items():
        for part in ("mean", "deviation"):
            numbers = [getattr(spread.get(c), part, None) for c in columns]
            lines.append([f"seeds {part}", label, "all", len(report.seeds[label]), *numbers])
    lines += [["paper", name, "all", "", *map(r.get, columns)] for name, r in report.paper.items()]
    for row in report.frequency or []:
        for kind, values in (("divergence", row.divergence), ("chance", row.chance)):
            lines.append([kind, row.run, row.image, row.images, *map(values.get, columns)])
    empty = [None] * (len(columns) + 1)
    lines += [["protocol", "", note, *empty] for note in _notes(report)]
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows(lines)
    return file.getvalue()


def _latex(report: Report) -> str:
    """Return the table of methods for LaTeX's package booktabs, and the protocol as comments."""
    columns, rows = _methods_table(report)
    bold, second = r"\textbf{{{}}}".format, r"\underline{{{}}}".format
    lines = [[_in_latex(column_words(column)) for column in columns]]
    lines += [[_marked(c, bold, second, _in_latex(shown(c))) for c in row] for row in rows]
    head, *body = (" & ".join(line) + r" \\" for line in lines)
    notes = (f"% {note}" for note in _notes(report))
    begin = rf"\begin{{tabular}}{{l{'r' * (len(columns) - 1)}}}"
    parts = (*notes, begin, r"\toprule", head, r"\midrule", *body, r"\bottomrule")
    return "\n".join([*parts, r"\end{tabular}", ""])


def _in_latex(text: str) -> str:
    escaped = re.sub(r"([&%$#_{}])", r"\\\1", text.replace("\\", "/"))
    marks = {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$"}
    return "".join(marks.get(mark, mark) for mark in escaped)


def _markdown(report: Report) -> str:
    if report.comparison is not None:
        key = report.comparison.ranking
        tables = _comparison_tables(report)
        tables[f"{key} of every image"] = (
            ["image", *report.runs, "best"],
            [
                (i.name, *(scores[key] for scores in i.runs.values()), ", ".join(i.best))
                for i in report.images
            ],
        )
    else:
        tables = {"means": _means_table(report), "images": _images_table(report)}
    tables |= _frequency_table(report)
    parts = [f"## {title}\n\n{markdown_table(*table)}" for title, table in tables.items()]
    return "\n".join([*parts, "## protocol\n", *(f"- {note}" for note in _notes(report))]) + "\n"


# ---- The summary of prepare ----------------------------------------------------------------------


class PrepareSummary:
    """Counts finished records by split; a resumed run found `already` records finished.

    `split` is the only one that is prepared, if not "".
    """

    def __init__(self, already: int = 0, split: str = "") -> None:
        self.already, self.split = already, split
        self.shards: list[str] = []
        self._facts: dict[str, list[tuple[str, str, int, float]]] = defaultdict(list)
        """By split, what stated it for each record, the record's size, bytes and PSNR, or NaN."""

    @property
    def records(self) -> int:
        """The number of records counted so far."""
        return sum(map(len, self._facts.values()))

    def add(self, record: Record) -> None:
        """Count one record."""
        split, psnr = record.attrs.get("split"), record.attrs.get("psnr_blur", np.nan)
        # Records of older shards only have the split.
        source = record.attrs.get("split_source", "input" if split else "none")
        height, width = next(iter(record.images.values())).shape[:2]
        facts = str(source), f"{width}x{height}", record.bytes, psnr
        self._facts[str(split or "train")].append(facts)

    def as_dict(self) -> dict[str, Any]:
        """Return the counts of each split, `already`, `only_split` and the shards.

        A split has its records, how many a list file, `folder name`, `--validation`, `input` or
        `none` assigned, bytes, sizes (width x height), and the mean PSNR in dB of blurry images.
        """
        splits = {}
        for split, facts in self._facts.items():
            sources, sizes, bytes_of_images, psnr = zip(*facts, strict=True)
            known = [value for value in psnr if np.isfinite(value)]
            splits[split] = {
                "records": len(facts),
                "split_from": dict(Counter(sources).most_common()),
                "bytes": sum(bytes_of_images),
                "sizes": dict(Counter(sizes).most_common()),
                "psnr_blur": float(np.mean(known)) if known else None,
            }
        told = {"splits": splits, "already": self.already, "shards": self.shards}
        return told | {"only_split": self.split or None}

    def print(self, output: str, left_out: Sequence[str]) -> None:
        """Print the table, what was left out, and the source of each split."""
        splits, rows = self.as_dict()["splits"], []
        for split, facts in splits.items():
            sizes = [*facts["sizes"]]
            told = ", ".join(sizes[:2]) + (f" and {len(sizes) - 2} more" if sizes[2:] else "")
            size = f"{facts['bytes'] / 1e6:.1f} MB"
            rows.append((split, facts["records"], told, size, facts["psnr_blur"]))
        note = f"left out: {len(left_out)} (named above)" if left_out else "nothing left out"
        if self.already:
            note += f"; {self.already} records already existed"
        columns = ["split", "records", "sizes", "images", "PSNR(blur, sharp) dB"]
        print_table(f"prepared to {output}", columns, rows, note)
        for split, facts in splits.items():
            sources = facts["split_from"].items()
            words = {"none": "default", "input": "the input"}
            told = ", ".join(f"{count} by {words.get(source, source)}" for source, count in sources)
            say(f"split {split}: {told}" + (f"; only {split} by --split" if self.split else ""))
