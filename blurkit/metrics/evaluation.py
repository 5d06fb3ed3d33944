"""The report of `eval`: the scores of one or several runs, and how every number was made."""

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
    """The scores of one image by run, and the runs that are the `best` on it."""

    name: str
    runs: dict[str, Scores]
    best: list[str]

    @classmethod
    def of(cls, name: str, runs: Mapping[str, Scores], key: str = "psnr") -> ImageScores:
        """Return the scores with the runs whose `key` is highest."""
        return cls(name, dict(runs), winners(runs, key))

    def as_dict(self) -> dict[str, Any]:
        """Return the image as plain values: of one run its scores, of several those by run."""
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
    """What `eval` measured: the means of every run, every image, and how they were made.

    `comparison` is there where there are several runs, `frequency` where it was asked for, and
    `network` where its checkpoint was given. `protocol` has one line for each kind of number.
    """

    runs: dict[str, Totals]
    images: list[ImageScores]
    protocol: dict[str, str]
    comparison: Comparison | None = None
    network: NetworkCost | None = None
    frequency: list[Divergences] | None = None

    @property
    def only(self) -> Totals:
        """The means of the first run, which is the only one if nothing is compared."""
        return next(iter(self.runs.values()))

    def as_dict(self, images: bool = True) -> dict[str, Any]:
        """Return the report as plain values, on request without those of every image.

        Of one run its means are at the top; of several they are by run under `runs`.
        """
        found = self.only.as_dict()
        if self.comparison is not None:
            wins = self.comparison.wins
            runs = {run: {**t.as_dict(), "wins": wins[run]} for run, t in self.runs.items()}
            found = {"runs": runs, **self.comparison.as_dict()}
        if self.network is not None:
            found["network"] = asdict(self.network)
        if self.frequency is not None:
            found["frequency"] = [asdict(row) for row in self.frequency]
        found["protocol"] = self.protocol
        return {**found, "images": [i.as_dict() for i in self.images]} if images else found


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
    """Return the report of `runs`, by name with as many rows in the same order.

    `blurry` names the folder of the blurry images where it was given, `level` the confidence of
    intervals of the means, and `seed` what these and `frequency` are drawn from. Raises UsageError
    unless `level` is between 0 and 1.
    """
    found = {run: totals(rows, by_sequence, level, seed) for run, rows in runs.items()}
    key = measures.ranking
    protocol = _protocol(runs, found, measures, blurry)
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
        found,
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
    found: Mapping[str, Totals],
    measures: Measures,
    blurry: str | None,
) -> dict[str, str]:
    """Return how the scores and their means were made, one line each."""
    first = next(iter(found.values()))
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
    if any(run.total["infinite"] for run in found.values()):
        infinite = [f"{run.total['infinite']} {name}".strip() for name, run in found.items()]
        protocol["infinite"] = f"identical images, left out of the mean PSNR: {', '.join(infinite)}"
    return protocol
