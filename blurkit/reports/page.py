"""A report as a folder that opens offline: an HTML page of `eval` or `deblur`, and its pictures."""

import io
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image as Pillow
import xxhash

from blurkit.errors import BlurkitError
from blurkit.io.films import rgb, shown_frames
from blurkit.io.paths import REPORT_PICTURES
from blurkit.io.records import Image, Record, to_float
from blurkit.io.writing import refuse_existing, refuse_unwritable, replacing
from blurkit.metrics.evaluation import ImageScores, Report
from blurkit.metrics.scores import MEASURED_IMAGES, Measures, Scores, eight_bit
from blurkit.metrics.statistics import SMALLEST_SET, Scored, Spread, totals
from blurkit.reports.pictures import RESTORED, shrunk_to
from blurkit.reports.tables import (
    OF_INPUTS,
    Best,
    column_words,
    number_of,
    report_tables,
    score_columns,
    shown,
    worst_words,
)
from blurkit.reports.values import to_json
from blurkit.version import __version__

HERE = Path(__file__).parent

PICTURE_SIDE, THUMBNAIL = 1280, 288
"""The longest side of a picture and of its thumbnail in pixels."""

Captioned = Sequence[tuple[str, Image]]
"""The pictures of a scene with their captions: before, the results, the reference."""


class ReportFolder:
    """Writes the pictures of a report while a batch runs, and the page at its end.

    Pictures are named after their content, so a report that is replaced stays whole until then.
    Raises BlurkitError if `folder` holds a report and `force` is not set, or other files.
    """

    def __init__(self, folder: Path, force: bool = False) -> None:
        self.folder, self._force = folder, force
        self.page = folder / "index.html"
        self._images: dict[str, dict[str, Any]] = {}
        if folder.exists() and not folder.is_dir():
            raise BlurkitError(f"--html {folder}: is a file; name a folder")
        refuse_existing(self.page, force)
        refuse_unwritable(folder / REPORT_PICTURES)
        if others := {p.name for p in folder.glob("*")} - {self.page.name, REPORT_PICTURES}:
            raise BlurkitError(
                f"--html {folder}: holds other files ({min(others)}); name a new or empty folder"
            )

    def add(self, name: str, pictures: Captioned, result: int = 0) -> None:
        """Write pictures of an image; number `result`, unless 0, is compared with the first one."""
        first, chosen = pictures[0][1], pictures[result][1]
        self._images[name] = {
            "name": name,
            "pictures": [{"caption": c, "file": self._write(i, PICTURE_SIDE)} for c, i in pictures],
            "thumbnail": self._write(chosen, THUMBNAIL),
            "change": _change(first, chosen) if result else None,
        }

    def write(self, title: str, report: Report, text_of: Callable[[object], str] = shown) -> None:
        """Write the page of a report on images that were added, with cells as `text_of` gives them.

        Raises BlurkitError if it fails.
        """
        sign = -1 if report.lower_is_better else 1
        known = [i for i in report.images if i.name in self._images]  # the others cannot be shown
        images = [self._images[i.name] | _score(i.runs, report.ranking) for i in known]
        # The worst score comes first, or what changed most where none is known.
        images.sort(
            key=lambda i: (i["score"] is None, sign * (i["score"] or 0) or -(i["change"] or 0))
        )
        text = _render(title, report, images, text_of)
        with replacing(self.page, self._force) as partial:
            partial.write_text(text, encoding="utf-8", errors="replace")
        used = {p["file"] for i in images for p in i["pictures"]} | {i["thumbnail"] for i in images}
        for path in (self.folder / REPORT_PICTURES).glob("*.webp"):
            if f"{REPORT_PICTURES}/{path.name}" not in used:
                path.unlink()

    def _write(self, image: Image, longest: int) -> str:
        """Write a picture once, and return its path in the folder."""
        small, file = rgb(shrunk_to(eight_bit(image), longest)), io.BytesIO()
        # 1280x720 pixels take about 150 KB.
        Pillow.fromarray(small).save(file, "WEBP", quality=88, method=2)
        name = f"{REPORT_PICTURES}/{xxhash.xxh3_64_hexdigest(file.getvalue())}.webp"
        if not (self.folder / name).exists():
            with replacing(self.folder / name) as partial:
                partial.write_bytes(file.getvalue())
        return name


def scene_pictures(scene: Mapping[str, Record], measures: Measures) -> tuple[Captioned, int]:
    """Return the pictures of a scene as `eval` measures it, and the number of the first result.

    `scene` holds a record by run; the name of an only run may be empty.
    """
    first = next(iter(scene.values()))
    roles = {run: measures.role(record) for run, record in scene.items()}
    source = MEASURED_IMAGES[measures.target][-1]
    known = source in first.images and {*roles.values()} != {source}
    before = [("before", first.images[source])] if known else []
    results = [
        (run or ("after" if before else roles[run]), record.images[roles[run]])
        for run, record in scene.items()
    ]
    target = first.images.get(measures.target)
    reference = [] if target is None else [("reference", target)]
    return [*before, *results, *reference], len(before)


# ---- the page ------------------------------------------------------------------------------------


def _render(
    title: str, report: Report, images: list[dict[str, Any]], text_of: Callable[[object], str]
) -> str:
    """Return the page; every text is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader  # imported when used, as it takes long

    scores = {image.name: image.runs for image in report.images}
    names, columns = list(report.runs) if report.comparison else [], score_columns(report)
    shown_runs = {c: [*report.runs][: 1 if c in OF_INPUTS else None] for c in columns}
    places = [(column, run) for column, runs in shown_runs.items() for run in runs]
    rows = []
    for index, image in enumerate(images):
        of_runs = scores[image["name"]]
        image["scores"] = _scores_line(of_runs, columns, text_of)
        cells = [of_runs[run].get(column) for column, run in places]
        rows.append({"index": index, "image": image, "cells": cells})
    charts = [
        histogram(c, [[i.runs[run].get(c) for i in report.images] for run in runs])
        for c, runs in shown_runs.items()
    ]
    environment = Environment(autoescape=True, loader=FileSystemLoader(HERE))
    environment.filters |= {"cell": text_of, "key": _sort_key, "words": column_words}
    environment.tests["best"] = lambda value: isinstance(value, Best)
    environment.policies["json.dumps_function"] = to_json
    environment.policies["json.dumps_kwargs"] = {}
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy", "pillow"))
    versions = f"blurkit {__version__}, Python {platform.python_version()}, {packages}"
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return environment.get_template("page.html").render(
        title=title,
        version=__version__,
        about=f"{len(images)} images{''.join(f' · {name}' for name in names)} · {now}",
        style=(HERE / "page.css").read_text(encoding="utf-8"),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
        tables={n: {"columns": c, "rows": r} for n, (c, r) in report_tables(report).items()},
        galleries=_galleries(images, report),
        runs=names,
        charts=charts,
        columns=[f"{c}, {run}" if names and c not in OF_INPUTS else c for c, run in places],
        rows=rows,
        protocol=report.protocol | {"versions": versions},
        data={"report": report.as_dict(), "images": images},
    )


def _galleries(images: list[dict[str, Any]], report: Report) -> dict[str, list[dict[str, Any]]]:
    """Return the images to look at first, with the reason as heading."""
    by_score = list(enumerate(images))
    worst = worst_words(report)
    _, _, unit = column_words(report.ranking).partition(",")
    by_change = sorted(by_score, key=lambda item: -(item[1]["change"] or 0))
    galleries = {}
    for heading, numbered, field, text in (
        (worst[0].upper() + worst[1:], by_score, "score", "{:.2f}" + unit),
        ("Most changed", by_change, "change", "{:.1f} levels"),
    ):
        if known := [(n, image) for n, image in numbered if image[field] is not None][:6]:
            galleries[heading] = [
                {"index": n, "image": i, "value": text.format(i[field])} for n, i in known
            ]
    return galleries


def _score(runs: Mapping[str, Scores], key: str) -> Scores:
    """Return the mean over runs of the score that ranks images, None if it is unknown."""
    values = [v for v in (run.get(key) for run in runs.values()) if v is not None]
    mean = sum(values) / len(values) if values else math.inf
    return {"score": mean if math.isfinite(mean) else None}


def _scores_line(
    runs: Mapping[str, Scores], columns: Sequence[str], text_of: Callable[[object], str]
) -> str:
    lines = []
    for run, scores in runs.items():
        words = ((column_words(c).partition(", "), scores.get(c)) for c in columns)
        known = [
            f"{w[0]} {text_of(value)} {w[2]}".strip() for w, value in words if value is not None
        ]
        lines.append((f"{run}: " if len(runs) > 1 else "") + ", ".join(known))
    return "; ".join(lines)


def three_digits(value: object) -> str:
    """Return a cell's text as `shown` does, but floats with three digits."""
    if isinstance(value, tuple):
        return f"[{', '.join(map(three_digits, value))}]"
    if not isinstance(value, float) or not math.isfinite(value):
        return shown(value)
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:.{max(0, 3 - whole)}f}"


def _sort_key(value: object) -> str:
    numeric = isinstance(value, (int, float, Best, Spread))
    return repr(number_of(value)) if numeric else ""


def _change(before: Image, after: Image) -> float:
    """Return the root mean square of the change in 8-bit levels, 0 for different shapes."""
    if before.shape != after.shape:
        return 0.0
    return 255 * float(np.sqrt(np.mean(np.square(to_float(after) - to_float(before)))))


# ---- The page of deblur --------------------------------------------------------------------------

ATTRIBUTES = {
    "sharpness_before": "of the photo, 1 minus the blur metric of Crete et al. 2007 (docs/metrics)",
    "sharpness_after": "of the result",
    "restored_change": "root mean square of the change, in 8-bit levels",
    "blur_length": "pixels, of the blur that was estimated and undone",
    "restored_seconds": "time on this machine",
}
"""The attributes that the report shows, and how each is computed."""

LEVEL = 0.95
"""The confidence level of the intervals of means, unless another is given."""


class RestorationReport:
    """Collects restored records and writes their report to a folder; errors as `ReportFolder`'s.

    It shows a few frames of each film, of `only` these if they are given.
    """

    def __init__(self, folder: Path, force: bool = False, only: range | None = None) -> None:
        self._folder, self._only = ReportFolder(folder, force), only
        self._shown: tuple[Path, set[int]] = (Path(), set())
        self._measures = Measures()
        self._rows: list[Scored] = []

    def add(self, record: Record) -> None:
        """Add a record with `blur` and `restored`; if it has `sharp`, PSNR and SSIM are measured.

        Raises BlurkitError if an image is missing or cannot be written.
        """
        record.image("blur"), record.image("restored")
        if not self._shows(record):
            return
        scores: Scores = {k: float(record.attrs[k]) for k in ATTRIBUTES if k in record.attrs}
        if "sharp" in record.images:
            scores = self._measures.score(record) | scores
        pictures = [(c, record.images[r]) for r, c in RESTORED.items() if r in record.images]
        self._folder.add(record.name, pictures, 1)
        self._rows.append(Scored.of(record, scores))

    def _shows(self, record: Record) -> bool:
        """Return whether a record is a photo, or one of the frames that show a film."""
        if "film" not in record.attrs or not record.source.is_file():
            return True
        if self._shown[0] != record.source:
            self._shown = record.source, shown_frames(record.source, self._only)
        return record.attrs["frame"] in self._shown[1]

    def write(self) -> Path | None:
        """Write the page and return its path; without records, write nothing."""
        if not self._rows:
            return None
        measured = {key for row in self._rows for key in row.scores}
        known = self._measures.protocol() | {"psnr_blur": "of the photo"} | ATTRIBUTES
        settings = sorted({row.restored_with for row in self._rows} - {""})
        protocol = {key: text for key, text in known.items() if key in measured}
        protocol |= {"restored": " or ".join(settings[:3])} if settings else {}
        level = LEVEL if len(self._rows) >= SMALLEST_SET else None
        if level is not None:
            protocol["confidence"] = f"{100 * level:g} % interval of the mean, percentile bootstrap"
        images = [ImageScores(row.name, {"": row.scores}, [], row.about) for row in self._rows]
        means = {"": totals(self._rows, level=level)}
        self._folder.write("blurkit deblur", Report(means, images, protocol), three_digits)
        return self._folder.page


# ---- Histograms ----------------------------------------------------------------------------------

_WIDTH, _BASE, _TALLEST = 240, 90, 84
"""The width of a chart, the height of its baseline, and that of its longest bar, in units."""
_BINS = 20


def histogram(name: str, runs: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """Return the histograms of the values of some runs over common bins.

    The result has the `name`, the ends `low` and `high` of the axis as texts, and under `runs` the
    bars of each run, with a `text` that says what they count. Values that are None or not finite
    are left out.
    """
    known = [[v for v in values if v is not None and math.isfinite(v)] for values in runs]
    everything = [value for values in known for value in values]
    if not everything:
        return {"name": name, "low": "", "high": "", "runs": []}
    low, high = min(everything), max(everything)
    if np.float32(low) == np.float32(high):  # too close for bins between them
        low, high = low - 0.5, high + 0.5
    edges = np.linspace(low, high, _BINS + 1)
    counts = [np.histogram(values, edges)[0] for values in known]
    most, width = max(int(count.max()) for count in counts), _WIDTH / _BINS
    charts = [
        [
            {
                "x": round(number * width + 0.5, 2),
                "y": round(_BASE - _TALLEST * bar / most, 2),
                "width": round(width - 1, 2),
                "height": round(_TALLEST * bar / most, 2),
                "text": f"{edges[number]:.4g} to {edges[number + 1]:.4g}: {bar}",
            }
            for number, bar in enumerate(count)
            if bar
        ]
        for count in counts
    ]
    return {"name": name, "low": f"{edges[0]:.4g}", "high": f"{edges[-1]:.4g}", "runs": charts}
