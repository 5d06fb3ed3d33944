"""What all plots share. They need matplotlib, an extra: `pip install 'blurkit[plots]'`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.paths import refuse_existing, replacing

PLOT_SUFFIXES = (".png", ".pdf", ".svg")


def check_plot(path: Path, force: bool = False) -> None:
    """Whether a plot can be written to `path`, before the work for it is done.

    Raises UsageError for a suffix that is none of ours, BlurkitError for an existing file without
    `force` and without matplotlib.
    """
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise UsageError(f"{path}: name a file that ends in {', '.join(PLOT_SUFFIXES)}")
    refuse_existing(path, force)
    new_figure(1, 1)  # matplotlib is there


def new_figure(width: float, height: float) -> Any:
    """An empty matplotlib figure of so many inches; raises BlurkitError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise BlurkitError(
            "plots need matplotlib, which is not installed: pip install 'blurkit[plots]'"
        ) from error
    return Figure(figsize=(width, height), layout="constrained")  # pyplot looks for a screen


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure in the format of the path's suffix, whole or not at all."""
    with replacing(path) as partial:
        figure.savefig(partial, format=path.suffix[1:].lower(), dpi=150)
