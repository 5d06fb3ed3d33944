"""Plots of logs over their steps, and of frequencies: `pip install 'blurkit[plots]'`."""

import json
import math
import textwrap
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from blurkit.errors import BlurkitError, UsageError, one_line
from blurkit.io.writing import refuse_output, replacing
from blurkit.metrics.frequency import Divergences
from blurkit.reports.values import flat

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
        why = "plots need matplotlib, which is not installed: pip install 'blurkit[plots]'"
        raise BlurkitError(why) from error
    return Figure(figsize=(width, height), layout="constrained")  # pyplot would need a display


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format of the path's suffix, whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=150)


# ---- Curves of logs ------------------------------------------------------------------------------


def read_log(path: Path) -> dict[str, tuple[list[int], list[float]]]:
    """Return the steps and values of a log of JSON lines by name, such as `losses/l1`.

    Several values of one step, such as those of several photos, are averaged; what is no finite
    number is left out. Raises BlurkitError if the file is not such a log or holds no values.
    """
    values: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    try:
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            step = int(entry.pop("step"))
            entry.pop("time", None)
            for name, value in flat(entry):
                if isinstance(value, (int, float)) and math.isfinite(value):
                    values[name][step].append(value)
        curves = {
            name: (sorted(by_step), [fmean(by_step[step]) for step in sorted(by_step)])
            for name, by_step in values.items()
        }
    except OSError as error:
        raise BlurkitError(f"{path}: cannot be read ({error.strerror})") from error
    # RecursionError: brackets without end; OverflowError: an infinite step or sum
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as why:
        raise BlurkitError(f"{path}: is not a log of JSON lines ({one_line(why)})") from why
    if not curves:
        raise BlurkitError(f"{path}: holds no values")
    return curves


def describe_log(path: Path) -> dict[str, Any]:
    """Return the last step and the first, last, lowest and highest values of `read_log`."""
    curves = read_log(path)
    about: dict[str, Any] = {"kind": "log", "step": max(steps[-1] for steps, _ in curves.values())}
    for name, (_, values) in curves.items():
        group, _, key = name.rpartition("/")
        ends = {"first": values[0], "last": values[-1], "min": min(values), "max": max(values)}
        (about.setdefault(group, {}) if group else about)[key] = ends
    return about


def draw_logs(path: Path, logs: Sequence[Path]) -> None:
    """Draw a panel for each value in the logs, with a curve for each log under its file's name."""
    curves = {log.name.partition(".")[0]: read_log(log) for log in logs}
    if len(curves) < len(logs):
        curves = {str(log): read_log(log) for log in logs}
    names = [*dict.fromkeys(name for values in curves.values() for name in values)]
    rows = math.ceil(len(names) / 2)
    figure = new_figure(10, 2.5 * rows + 0.5)
    panels = [*figure.subplots(rows, 2, squeeze=False).flat]
    colours = {run: f"C{number}" for number, run in enumerate(curves)}
    for axes, name in zip(panels, names, strict=False):
        for run, (steps, values) in ((r, c[name]) for r, c in curves.items() if name in c):
            dots = "." if len(steps) < 20 else ""
            axes.plot(steps, values, label=_name(run, ""), color=colours[run], marker=dots)
        falling = name.startswith(("losses/", "learning_rates/", "objective"))
        if falling and axes.get_ylim()[0] > 0:
            axes.set_yscale("log")
        axes.set_title(_name(name, ""), fontsize=10)
        axes.grid(alpha=0.3)
    for axes in panels[len(names) :]:
        axes.remove()
    figure.supxlabel("step", fontsize=10)
    shown = {_name(run, ""): panels[0].plot([], [], color=c)[0] for run, c in colours.items()}
    figure.legend(shown.values(), shown, loc="outside upper center", ncols=min(len(shown), 4))
    save_figure(figure, path)


# ---- Frequencies ---------------------------------------------------------------------------------

Curves = Mapping[tuple[str, str], Mapping[str, Sequence[int]]]
"""By run and role, the counts of the bins by band and scale."""


def draw_frequency(path: Path, curves: Curves, rows: Sequence[Divergences]) -> None:
    """Draw `Frequency.curves` and `Frequency.rows` as in Figures 2 and 7 of the MSFS-Net paper."""
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
    edges = [8 * edge / len(counts) for edge in (*bins, bins.stop)]  # in bits
    axes.stairs([counts[number] / sum(counts) for number in bins], edges, **style)


def _name(run: str, image: str) -> str:
    """Return a curve's label; a run's name is a path and may hold what matplotlib rejects."""
    return (run or image).encode(errors="replace").decode().replace("$", r"\$")
