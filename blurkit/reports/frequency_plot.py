"""The distributions of entropies that `eval --frequency` found, drawn over one another."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blurkit.metrics.frequency import Divergences
from blurkit.reports.plots import new_figure, save_figure

MOST_BITS = 8
"""The entropy of 8-bit values at its most; the bins divide the range from 0 to it."""

Curves = Mapping[tuple[str, str], Mapping[str, Sequence[int]]]
"""By run and image, the counts of the bins by band and scale."""


def draw_frequency(path: Path, curves: Curves, rows: Sequence[Divergences]) -> None:
    """Draw `Frequency.curves` as the MSFS-Net paper's Figures 2 and 7: a column for each band, a
    row for each scale, the share of samples over their entropy, and the divergences of
    `Frequency.rows` above.

    Raises BlurkitError when the file cannot be written, and without matplotlib.
    """
    figure = new_figure(10, 9)
    (target, counts), *others = ((_name(*key), counts) for key, counts in curves.items())
    grid = figure.subplots(3, 2, sharex="col")
    for axes, panel in zip(grid.T.flat, counts, strict=True):
        _stairs(axes, counts[panel], color="0.3", fill=True, alpha=0.25, label=target)
        for name, made in others:
            _stairs(axes, made[panel], linewidth=1.5, label=name)
        band, scale = panel.split()
        found = (f"{_name(row.run, row.image)} {row.divergence[panel]:.3f}" for row in rows)
        told = textwrap.fill(f"divergence from {target}: {', '.join(found)}", 64)
        axes.set_title(f"{band} frequencies, scale {scale}\n{told}", fontsize=10)
        axes.grid(alpha=0.3)
    figure.supxlabel("entropy in bits", fontsize=10)
    figure.supylabel("share of samples", fontsize=10)
    lines, names = grid[0, 0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside upper center", ncols=min(len(names), 4))
    save_figure(figure, path)


def _stairs(axes: Any, counts: Sequence[int], **style: Any) -> None:
    """A distribution as steps from its first bin that holds something to its last."""
    used = [number for number, count in enumerate(counts) if count]
    bins = range(used[0], used[-1] + 1)
    edges = [MOST_BITS * edge / len(counts) for edge in (*bins, bins.stop)]
    axes.stairs([counts[number] / sum(counts) for number in bins], edges, **style)


def _name(run: str, image: str) -> str:
    """What a curve is called; a run's name is a path, of which matplotlib takes not everything."""
    return (run or image).encode(errors="replace").decode().replace("$", r"\$")
