"""A plot of the distributions of entropies that `eval --frequency` measures."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blurkit.metrics.frequency import Divergences
from blurkit.reports.plots import new_figure, save_figure

MOST_BITS = 8
"""The largest entropy of 8-bit values; the bins divide the range from 0 to it."""

Curves = Mapping[tuple[str, str], Mapping[str, Sequence[int]]]
"""By run and role, the counts of the bins by band and scale."""


def draw_frequency(path: Path, curves: Curves, rows: Sequence[Divergences]) -> None:
    """Draw `Frequency.curves` as in Figures 2 and 7 of the MSFS-Net paper.

    There is a column for each band and a row for each scale. Each panel shows the fraction of
    samples over their entropy; its title gives the divergences of `Frequency.rows`. Raises
    BlurkitError if the file cannot be written or matplotlib is missing.
    """
    figure = new_figure(10, 9)
    (target, counts), *others = ((_name(*key), counts) for key, counts in curves.items())
    grid = figure.subplots(3, 2, sharex="col")
    for axes, panel in zip(grid.T.flat, counts, strict=True):
        _stairs(axes, counts[panel], color="0.3", fill=True, alpha=0.25, label=target)
        for name, bins in others:
            _stairs(axes, bins[panel], linewidth=1.5, label=name)
        band, scale = panel.split()
        values = (f"{_name(row.run, row.image)} {row.divergence[panel]:.3f}" for row in rows)
        line = textwrap.fill(f"divergence from {target}: {', '.join(values)}", 64)
        axes.set_title(f"{band} frequencies, scale {scale}\n{line}", fontsize=10)
        axes.grid(alpha=0.3)
    figure.supxlabel("entropy in bits", fontsize=10)
    figure.supylabel("share of samples", fontsize=10)
    lines, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=min(len(names), 4))
    save_figure(figure, path)


def _stairs(axes: Any, counts: Sequence[int], **style: Any) -> None:
    """Draw a distribution as steps, from the first bin that is not empty to the last."""
    used = [number for number, count in enumerate(counts) if count]
    bins = range(used[0], used[-1] + 1)
    edges = [MOST_BITS * edge / len(counts) for edge in (*bins, bins.stop)]
    axes.stairs([counts[number] / sum(counts) for number in bins], edges, **style)


def _name(run: str, image: str) -> str:
    """Return a curve's label; a run's name is a path and may hold what matplotlib rejects."""
    return (run or image).encode(errors="replace").decode().replace("$", r"\$")
