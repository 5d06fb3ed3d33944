"""The plot of `eval --frequency`: every distribution is drawn in its place, and what goes wrong."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.errors import BlurkitError, UsageError
from blurkit.metrics.frequency import Divergences
from blurkit.reports.plots import check_plot, draw_frequency

PANELS = ["high 1", "high 1/2", "high 1/4", "low 1", "low 1/2", "low 1/4"]
BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # matplotlib's first two colours


def found(*names: tuple[str, str]) -> tuple[Any, Any]:
    """Curves of sharp and others, each with all its samples in a bin of its own, and their rows."""
    curves = {}
    for number, name in enumerate([("", "sharp"), *names]):
        counts = [0] * 64
        counts[20 + 10 * number] = 5
        curves[name] = dict.fromkeys(PANELS, counts)
    same = dict.fromkeys(PANELS, 1.0)
    rows = [Divergences(run, image, 1, 1, same, same) for run, image in names]
    return curves, rows


def test_every_distribution_is_drawn_in_every_panel(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "new/entropies.png"
    draw_frequency(output, *found(("", "blur"), ("", "restored")))
    drawn = imageio.imread(output)[..., :3]
    height, width = drawn.shape[0] // 3, drawn.shape[1] // 2
    for row in range(3):
        for column in range(2):
            top, left = row * height, column * width
            panel = drawn[top : top + height, left : left + width]
            blue, orange = (np.nonzero((panel == c).all(2))[1] for c in (BLUE, ORANGE))
            assert min(blue.size, orange.size) > 200
            assert np.median(blue) < np.median(orange)
    for suffix, start in ((".svg", b"<?xml"), (".pdf", b"%PDF")):
        output = output.with_suffix(suffix)
        draw_frequency(output, *found(("", "restored")))
        assert output.read_bytes().startswith(start)
    assert len([*output.parent.iterdir()]) == 3


def test_names_that_matplotlib_would_read(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        names = [(name, "restored") for name in ("a$\\bad$", "b\udcff", "run/" * 20)]
        draw_frequency(tmp_path / "names.svg", *found(*names))
    assert "<svg" in (tmp_path / "names.svg").read_text()


def test_what_goes_wrong_is_told_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "a.png"
    output.write_bytes(b"mine")
    with pytest.raises(BlurkitError, match=r"a.png: exists already; give --force"):
        check_plot(output)
    with pytest.raises(UsageError, match=r"a.txt: name a file that ends in .png, .pdf, .svg"):
        check_plot(tmp_path / "a.txt")
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BlurkitError, match=r"not installed: pip install 'blurkit\[plots\]'"):
        check_plot(output, force=True)
    assert output.read_bytes() == b"mine"
