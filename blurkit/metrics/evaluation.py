"""The report of `eval`: the scores of one or more runs, and how every number was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from blurkit.metrics.frequency import Divergences, Frequency
from blurkit.metrics.scores import Scores
from blurkit.metrics.statistics import (
    RESAMPLES,
    Comparison,
    Scored,
    Totals,
    compare,
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
    def of(cls, rows: Mapping[str, Scored], key: str = "psnr") -> ImageScores:
        """Return the scores of one image; the `best` runs have the highest score `key`."""
        first = next(iter(rows.values()))
        runs = {run: row.scores for run, row in rows.items()}
        about = first.about
        if len(rows) > 1 and any(row.restored_with for row in rows.values()):
            about["restored_with"] = {run: row.restored_with for run, row in rows.items()}
        return cls(first.name, runs, winners(runs, key), about)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the scores of a single run, or the scores by run of several."""
        if len(self.runs) == 1:
            (only,) = self.runs.values()
            return {"name": self.name, **only, **self.about}
        return {"name": self.name, "runs": self.runs, "best": self.best, **self.about}


class Measured(Protocol):
    """What is known of how scores were computed: the score that ranks images, and a protocol."""

    @property
    def ranking(self) -> str:
        """The name of the score that ranks images and runs."""

    def protocol(self) -> dict[str, str]:
        """Return one line on how each score was computed."""


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

    `protocol` has one line for each kind of number and says how it was computed. `comparison` is
    set if there are several runs, `frequency` if it was requested, `network` if its checkpoint was
    given, and `part` (2/8) if only a part of the images was scored.
    """

    runs: dict[str, Totals]
    images: list[ImageScores]
    protocol: dict[str, str]
    comparison: Comparison | None = None
    network: NetworkCost | None = None
    frequency: list[Divergences] | None = None
    part: str = ""

    @property
    def only(self) -> Totals:
        """The means of the first run, which is the only one unless runs are compared."""
        return next(iter(self.runs.values()))

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
        values["protocol"] = self.protocol
        return {**values, "images": [i.as_dict() for i in self.images]} if images else values


def make_report(
    runs: Mapping[str, Sequence[Scored]],
    measures: Measured,
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
    intervals and of `frequency`. `costs` are the scores that say what the images took, with a line
    on each.
    Raises UsageError if `level` is not between 0 and 1.
    """
    means = {run: totals(rows, by_sequence, level, seed) for run, rows in runs.items()}
    key = measures.ranking
    protocol = _protocol(runs, means, measures)
    if level is not None:
        protocol["confidence"] = (
            f"{100 * level:g} % interval of the mean, percentile bootstrap, "
            f"{RESAMPLES} resamples, seed {seed}"
        )
    if len(runs) > 1:
        protocol["wins"] = f"images with the highest {key}; a tie counts for each"
    protocol |= costs or {}
    if frequency is not None:
        protocol |= frequency.protocol(seed)
    return Report(
        means,
        [
            ImageScores.of(dict(zip(runs, rows, strict=True)), key)
            for rows in zip(*runs.values(), strict=True)
        ],
        protocol,
        comparison=compare(runs, key) if len(runs) > 1 else None,
        network=network,
        frequency=None if frequency is None else frequency.rows(seed),
        part=part,
    )


def _protocol(
    runs: Mapping[str, Sequence[Scored]],
    means: Mapping[str, Totals],
    measures: Measured,
) -> dict[str, str]:
    """Return one line on how each score and the means were computed."""
    first = next(iter(means.values()))
    scored = [row for rows in runs.values() for row in rows]
    protocol = measures.protocol()
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
    if any(run.total["infinite"] for run in means.values()):
        counts = {name: run.total["infinite"] for name, run in means.items()}
        several = len(means) > 1
        infinite = [f"{count} {name}" if several else f"{count}" for name, count in counts.items()]
        protocol["infinite"] = f"identical images, left out of the mean PSNR: {', '.join(infinite)}"
    return protocol
