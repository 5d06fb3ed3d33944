"""The report of `eval`: the scores of one or more runs, and how every number was computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from blurkit.metrics.frequency import Divergences, Frequency
from blurkit.metrics.scores import Measures, Scores
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
    """The scores of one image by run, and the runs that score `best` on it."""

    name: str
    runs: dict[str, Scores]
    best: list[str]

    @classmethod
    def of(cls, name: str, runs: Mapping[str, Scores], key: str = "psnr") -> ImageScores:
        """Return the scores of the image `name`; the `best` runs have the highest score `key`."""
        return cls(name, dict(runs), winners(runs, key))

    def as_dict(self) -> dict[str, Any]:
        """Return plain values: the scores of a single run, or the scores by run of several."""
        if len(self.runs) == 1:
            (only,) = self.runs.values()
            return {"name": self.name, **only}
        return asdict(self)


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
    set if there are several runs, `frequency` if it was requested, and `network` if its checkpoint
    was given.
    """

    runs: dict[str, Totals]
    images: list[ImageScores]
    protocol: dict[str, str]
    comparison: Comparison | None = None
    network: NetworkCost | None = None
    frequency: list[Divergences] | None = None

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
        values["protocol"] = self.protocol
        return {**values, "images": [i.as_dict() for i in self.images]} if images else values


def make_report(
    runs: Mapping[str, Sequence[Scored]],
    measures: Measures,
    blurry: str | None = None,
    by_sequence: bool = False,
    level: float | None = None,
    seed: int = 0,
    network: NetworkCost | None = None,
    frequency: Frequency | None = None,
) -> Report:
    """Return the report of `runs`, the rows of each run by its name, in the same order in all runs.

    `blurry` is the folder of the blurry images if the user named one, `level` the confidence level
    of the intervals of the means, and `seed` the seed of the intervals and of `frequency`.
    Raises UsageError if `level` is not between 0 and 1.
    """
    means = {run: totals(rows, by_sequence, level, seed) for run, rows in runs.items()}
    key = measures.ranking
    protocol = _protocol(runs, means, measures, blurry)
    if level is not None:
        protocol["confidence"] = (
            f"{100 * level:g} % interval of the mean, percentile bootstrap, "
            f"{RESAMPLES} resamples, seed {seed}"
        )
    if len(runs) > 1:
        protocol["wins"] = f"images with the highest {key}; a tie counts for each"
    if frequency is not None:
        protocol |= frequency.protocol(seed)
    return Report(
        means,
        [
            ImageScores.of(
                rows[0].name, {run: row.scores for run, row in zip(runs, rows, strict=True)}, key
            )
            for rows in zip(*runs.values(), strict=True)
        ],
        protocol,
        comparison=compare(runs, key) if len(runs) > 1 else None,
        network=network,
        frequency=None if frequency is None else frequency.rows(seed),
    )


def _protocol(
    runs: Mapping[str, Sequence[Scored]],
    means: Mapping[str, Totals],
    measures: Measures,
    blurry: str | None,
) -> dict[str, str]:
    """Return one line on how each score and the means were computed."""
    first = next(iter(means.values()))
    scored = [row for rows in runs.values() for row in rows]
    protocol = measures.protocol()
    if "psnr_blur" in first.total:
        folders = [blurry] if blurry else sorted({row.blurred for row in scored} - {""})
        protocol["psnr_blur"] = f"of the images in {', '.join(folders)}" if folders else "of blur"
    if "psnr_sharp" in first.total:
        protocol["psnr_sharp"] = "of sharp, what a network that does nothing would score"
    if settings := sorted({row.restored_with for row in scored} - {""}):
        protocol["restored"] = " or ".join(settings[:3])
    if first.subsets:
        count, images = first.subsets["blurriest"]["images"], first.total["images"]
        protocol["subsets"] = f"the {count} of {images} images of lowest and of highest psnr_blur"
    if any(run.total["infinite"] for run in means.values()):
        infinite = [f"{run.total['infinite']} {name}".strip() for name, run in means.items()]
        protocol["infinite"] = f"identical images, left out of the mean PSNR: {', '.join(infinite)}"
    return protocol
