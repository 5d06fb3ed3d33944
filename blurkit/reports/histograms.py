"""Histograms as plain rectangles, for pages that draw them as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

_WIDTH, _BASE, _TALLEST = 240, 90, 84
"""The width of a chart, the height of its baseline, and that of its longest bar, in units."""
_BINS = 20


def histogram(name: str, runs: Sequence[Sequence[float | None]]) -> dict[str, Any]:
    """Return the histograms of the values of some runs over common bins.

    The result has the `name`, the ends `low` and `high` of the axis as texts, and under `runs` a
    list of bars for each run: `x`, `y`, `width`, `height`, and `text`, which says what a bar
    counts. Values that are None or not finite are left out.
    """
    known = [[v for v in values if v is not None and math.isfinite(v)] for values in runs]
    everything = [value for values in known for value in values]
    if not everything:
        return {"name": name, "low": "", "high": "", "runs": []}
    edges = np.histogram_bin_edges(everything, _BINS)
    counts = [np.histogram(values, edges)[0] for values in known]
    most = max(int(count.max()) for count in counts)
    return {
        "name": name,
        "low": f"{edges[0]:.4g}",
        "high": f"{edges[-1]:.4g}",
        "runs": [_bars(count, edges, most) for count in counts],
    }


def _bars(counts: np.ndarray, edges: np.ndarray, most: int) -> list[dict[str, Any]]:
    width = _WIDTH / len(counts)
    return [
        {
            "x": round(number * width + 0.5, 2),
            "y": round(_BASE - _TALLEST * count / most, 2),
            "width": round(width - 1, 2),
            "height": round(_TALLEST * count / most, 2),
            "text": f"{low:.4g} to {high:.4g}: {count}",
        }
        for number, (count, low, high) in enumerate(zip(counts, edges, edges[1:], strict=False))
        if count
    ]
