"""Plots the logs of searches and training runs over their steps.

python -m blurkit.reports.curves convolution.jsonl encoded=kernel.jsonl -o curves.png

Each log, of `blind-deblur --log` or of a training, becomes a curve under its file's name or the
one before its `=`.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from blurkit.errors import BlurkitError, one_line
from blurkit.reports.plots import check_plot, new_figure, save_figure
from blurkit.reports.programs import program

Curve = tuple[list[int], list[float]]
"""Steps and values."""


def read_curve(path: Path, key: str = "objective") -> Curve:
    """Return the values of `key` over the steps of a log of JSON lines.

    Several values of one step, such as those of several photos, are averaged. Lines without the key
    and values that are not finite are skipped. Raises BlurkitError if the file is not such a log or
    does not contain the key.
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlurkitError(f"{path}: is not a log of JSON lines ({one_line(error)})") from error
    if not values:
        raise BlurkitError(
            f"{path}: no values of {key!r}; the keys are {', '.join(keys) or 'none'}"
        )
    steps = sorted(values)
    return steps, [sum(values[step]) / len(values[step]) for step in steps]


def draw_curves(curves: Mapping[str, Curve], path: Path, what: str = "objective") -> None:
    """Draw the named curves in one plot, with a logarithmic axis labelled `what`.

    `path` is a .png, .pdf or .svg file. Raises BlurkitError if it cannot be written or matplotlib
    is missing.
    """
    figure = new_figure(6, 4)
    axes = figure.add_subplot(xlabel="step", ylabel=what, yscale="log")
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


@program
def main(arguments: Sequence[str]) -> None:
    """Draw the logs given on the command line."""
    parser = argparse.ArgumentParser("python -m blurkit.reports.curves", description=__doc__)
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
    draw_curves(curves, output, options.key)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
