"""The report of `deblur --html`: what restoration did to each photo."""

from __future__ import annotations

from pathlib import Path

from blurkit.io.records import Record
from blurkit.metrics.evaluation import ImageScores, Report
from blurkit.metrics.scores import Measures, Scores
from blurkit.metrics.statistics import Scored, totals
from blurkit.reports.comparing import RESTORED
from blurkit.reports.page import ReportFolder

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
    """Collects restored records and writes their report to a folder; errors as `ReportFolder`'s."""

    def __init__(self, folder: Path, force: bool = False) -> None:
        self._folder = ReportFolder(folder, force)
        self._measures = Measures()
        self._rows: list[Scored] = []

    def add(self, record: Record) -> None:
        """Add a record with `blur` and `restored`; if it has `sharp`, PSNR and SSIM are measured.

        Raises BlurkitError if an image is missing or cannot be written.
        """
        record.image("blur"), record.image("restored")
        scores: Scores = {k: float(record.attrs[k]) for k in ATTRIBUTES if k in record.attrs}
        if "sharp" in record.images:
            scores = self._measures.score(record) | scores
        pictures = [(c, record.images[r]) for r, c in RESTORED.items() if r in record.images]
        self._folder.add(record.name, pictures, 1)
        self._rows.append(Scored.of(record, scores))

    def write(self) -> Path | None:
        """Write the page and return its path; without records, write nothing."""
        if not self._rows:
            return None
        measured = {key for row in self._rows for key in row.scores}
        known = self._measures.protocol() | {"psnr_blur": "of the photo"} | ATTRIBUTES
        settings = sorted({row.restored_with for row in self._rows} - {""})
        protocol = {key: text for key, text in known.items() if key in measured}
        protocol |= {"restored": " or ".join(settings[:3])} if settings else {}
        protocol["confidence"] = f"{100 * LEVEL:g} % interval of the mean, percentile bootstrap"
        images = [ImageScores(row.name, {"": row.scores}, [], row.about) for row in self._rows]
        means = {"": totals(self._rows, level=LEVEL)}
        self._folder.write("blurkit deblur", Report(means, images, protocol))
        return self._folder.page
