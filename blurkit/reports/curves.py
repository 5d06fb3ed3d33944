"""What a search or a training logged, step by step, as a plot. Needs matplotlib, an extra:
`pip install 'blurkit[plots]'`.

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
from blurkit.reports.progress import say

Curve = tuple[list[int], list[float]]
"""Steps and values."""


def read_curve(path: Path, key: str = "objective") -> Curve:
    """The values of `key` over the steps of a log of JSON lines; of several photos, means.

    Lines without it are passed by, as are values that are not finite. Raises BlurkitError for a
    file that is no such log or has no such key.
    """
    values: dict[int, list[float]] = defaultdict(list)
    keys: dict[str, None] = {}
    try:
        for line in path.read_text().splitlines():
            said = json.loads(line)
            keys |= dict.fromkeys(said)
            value = said.get(key)
            if isinstance(value, (int, float)) and math.isfinite(value):
                values[int(said["step"])].append(value)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BlurkitError(f"{path}: is no log of JSON lines ({one_line(error)})") from error
    if not values:
        raise BlurkitError(f"{path}: no line tells {key!r}; there are {', '.join(keys) or 'none'}")
    steps = sorted(values)
    return steps, [sum(values[step]) / len(values[step]) for step in steps]


def draw_curves(curves: Mapping[str, Curve], path: Path, what: str = "objective") -> None:
    """Draw curves by name over one another, `what` on a logarithmic axis, to a .png, .pdf or .svg.

    Raises BlurkitError when the file cannot be written, and without matplotlib.
    """
    figure = new_figure(6, 4)
    axes = figure.add_subplot(xlabel="step", ylabel=what, yscale="log")
    for name, (steps, values) in curves.items():
        axes.plot(steps, values, label=name)
    axes.grid(alpha=0.3)
    axes.legend()
    save_figure(figure, path)


def main(arguments: Sequence[str]) -> int:
    """Draw as the command line says; the exit status."""
    parser = argparse.ArgumentParser("python -m blurkit.reports.curves", description=__doc__)
    parser.add_argument("logs", nargs="+", metavar="[NAME=]LOG", help="logs of JSON lines")
    parser.add_argument("-o", "--output", required=True, help="a .png, .pdf or .svg")
    parser.add_argument("--key", default="objective", help="what of each line to draw")
    parser.add_argument("--force", action="store_true", help="overwrite existing output")
    options = parser.parse_args(arguments)
    output = Path(options.output)
    try:
        check_plot(output, options.force)
        curves = {}
        for log in options.logs:
            name, _, path = log.rpartition("=")
            curves[name or Path(path).stem] = read_curve(Path(path), options.key)
        draw_curves(curves, output, options.key)
    except (BlurkitError, OSError) as error:
        say(f"error: {one_line(error)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
