"""One or several runs of scored images as one report of plain values, with how it was made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from blurkit.metrics.frequency import Frequency
from blurkit.metrics.scores import Measures, Scores
from blurkit.metrics.statistics import RESAMPLES, Scored, compare, totals, winners


def report(
    runs: Mapping[str, Sequence[Scored]],
    measures: Measures,
    blurry: str | None = None,
    by_sequence: bool = False,
    level: float | None = None,
    seed: int = 0,
    network: Mapping[str, Any] | None = None,
    frequency: Frequency | None = None,
) -> dict[str, Any]:
    """Everything that `eval` tells.

    `runs` by name, each with as many rows in the same order. One run gives `statistics.totals`;
    several give them by run with `wins` under `runs`, the `worst` and `best` images, and the score
    they are ranked by under `ranking`. `images` has an `image_line` per image, `network` what is
    known of the network that made the results, `frequency` what `Frequency.rows` gives, and
    `protocol` how every number was made. `blurry` names the folder of the blurry images where it
    was given. Raises UsageError for a `level` that is none.
    """
    told = {run: totals(rows, by_sequence, level, seed) for run, rows in runs.items()}
    (first, *others), key = told.values(), measures.ranking
    scored = [row for rows in runs.values() for row in rows]
    protocol = measures.protocol()
    if "psnr_blur" in first["total"]:
        folders = [blurry] if blurry else sorted({row.blurred for row in scored} - {""})
        protocol["psnr_blur"] = f"of the images in {', '.join(folders)}" if folders else "of blur"
    if "psnr_sharp" in first["total"]:
        protocol["psnr_sharp"] = "of sharp, what a network that does nothing would score"
    if settings := sorted({row.restored_with for row in scored} - {""}):
        protocol["restored"] = " or ".join(settings[:3])
    if "subsets" in first:
        count, images = first["subsets"]["blurriest"]["images"], first["total"]["images"]
        protocol["subsets"] = f"the {count} of {images} images of lowest and of highest psnr_blur"
    infinite = [f"{t['total']['infinite']} {run}".strip() for run, t in told.items()]
    if any(t["total"]["infinite"] for t in told.values()):
        protocol["infinite"] = f"identical images, left out of the mean PSNR: {', '.join(infinite)}"
    if level is not None:
        protocol["confidence"] = (
            f"{100 * level:g} % interval of the mean, percentile bootstrap, "
            f"{RESAMPLES} resamples, seed {seed}"
        )
    found = first
    if others:
        compared = compare(runs, key)
        wins = compared.pop("wins")
        found = {"runs": {run: {**t, "wins": wins[run]} for run, t in told.items()}, **compared}
        found["ranking"] = key
        protocol["wins"] = f"images with the highest {key}; a tie counts for each"
    images = [
        image_line(
            rows[0].name, {run: row.scores for run, row in zip(runs, rows, strict=True)}, key
        )
        for rows in zip(*runs.values(), strict=True)
    ]
    known: dict[str, Any] = {} if network is None else {"network": dict(network)}
    if frequency is not None:
        known["frequency"] = frequency.rows(seed)
        protocol |= frequency.protocol(seed)
    return {**found, **known, "protocol": protocol, "images": images}


def image_line(name: str, scores: Mapping[str, Scores], key: str = "psnr") -> dict[str, Any]:
    """One image as plain values: its scores, or those by run and the `best` runs by `key`."""
    if len(scores) == 1:
        (only,) = scores.values()
        return {"name": name, **only}
    return {"name": name, "runs": dict(scores), "best": winners(scores, key)}
