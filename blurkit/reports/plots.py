"""What all plots share. They require matplotlib: `pip install 'blurkit[plots]'`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.writing import refuse_existing, replacing

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def check_plot(path: Path, force: bool = False) -> None:
    """Check that a plot can be written to `path`, before any work is done for it.

    Raises UsageError if the suffix is not one of `PLOT_SUFFIXES`, and BlurkitError if the file
    exists and `force` is not set, or if matplotlib is missing.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"{path}: name a file that ends in {', '.join(PLOT_SUFFIXES)}")
    refuse_existing(path, force)
    new_figure(1, 1)  # raises without matplotlib


def new_figure(width: float, height: float) -> Any:
    """Return an empty matplotlib figure; `width` and `height` are in inches.

    Raises BlurkitError if matplotlib is missing.
    """
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
