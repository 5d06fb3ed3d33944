"""Plots of logs over their steps, and of frequencies: `pip install 'blurkit[plots]'`.

python -m blurkit.reports.plots convolution.jsonl encoded=kernel.jsonl -o curves.png

Each log, of `blind-deblur --log` or of a training, becomes a curve under its file's name or the
one before its `=`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.io.writing import refuse_output, replacing
from blurkit.metrics.frequency import Divergences
from blurkit.reports.progress import program

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def check_plot(path: Path, force: bool = False) -> None:
    """Raise UsageError if a plot's suffix is not one of `PLOT_SUFFIXES`.

    Raises BlurkitError if the file exists and `force` is not set, or if matplotlib is missing.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"{path}: name a file that ends in {', '.join(PLOT_SUFFIXES)}")
    refuse_output(path, force)
    new_figure(1, 1)  # raises without matplotlib


def new_figure(width: float, height: float) -> Any:
    """Return an empty figure; sides are in inches. Raises BlurkitError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BlurkitError(
            "plots need matplotlib, which is not installed: pip install 'blurkit[plots]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")  # pyplot would need a display


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format of the path's suffix, whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=150)


# ---- Curves of logs ------------------------------------------------------------------------------

Curve = tuple[list[int], list[float]]
"""Steps and values."""


WRONG_LINE = (
    *(ValueError, KeyError, TypeError, AttributeError),
    *(RecursionError, OverflowError),  # brackets without end, an infinite step
)
"""What is raised for a line that is no line of a log."""


def read_curve(path: Path, key: str = "objective") -> Curve:
    """Return the finite values of `key` over the steps of a log of JSON lines.

    Several values of one step, such as those of several photos, are averaged. Raises BlurkitError
    if the file is not such a log or does not contain the key.
    """
    values: dict[int, list[float]] = defaultdict(list)
    keys: dict[str, None] = {}
    try:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            keys |= dict.fromkeys(entry)
            value = entry.get(key)
            if isinstance(value, (int, float)) and math.isfinite(value):
                values[int(entry["step"])].append(value)
    except WRONG_LINE as error:
        raise BlurkitError(f"{path}: is not a log of JSON lines ({one_line(error)})") from error
    if not values:
        raise BlurkitError(
            f"{path}: no values of {key!r}; the keys are {', '.join(keys) or 'none'}"
        )
    steps = sorted(values)
    return steps, [sum(values[step]) / len(values[step]) for step in steps]


@program
def main(arguments: Sequence[str]) -> None:
    """Draw the logs given on the command line."""
    parser = argparse.ArgumentParser("python -m blurkit.reports.plots", description=__doc__)
    parser.add_argument("logs", nargs="+", metavar="[NAME=]LOG", help="logs of JSON lines")
    parser.add_argument("-o", "--output", required=True, help="the plot: a .png, .pdf or .svg")
    parser.add_argument("--key", default="objective", help="the value to draw")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    check_plot(output, options.force)
    curves = {}
    for log in options.logs:
        name, _, path = log.rpartition("=")
        curves[name or Path(path).stem] = read_curve(Path(path), options.key)
    figure = new_figure(6, 4)
    axes = figure.add_subplot(xlabel="step", ylabel=options.key, yscale="log")
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))


# ---- Frequencies ---------------------------------------------------------------------------------

MOST_BITS = 8
"""The largest entropy of 8-bit values; the bins divide the range from 0 to it."""

Curves = Mapping[tuple[str, str], Mapping[str, Sequence[int]]]
"""By run and role, the counts of the bins by band and scale."""


def draw_frequency(path: Path, curves: Curves, rows: Sequence[Divergences]) -> None:
    """Draw `Frequency.curves` as in Figures 2 and 7 of the MSFS-Net paper.

    Each panel, of a band and a scale, shows the fraction of samples over their entropy; its title
    gives the divergences of `Frequency.rows`. Raises BlurkitError if the file cannot be written.
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
