"""Curves of logs, and frequencies, as pictures."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.errors import BlurkitError
from blurkit.metrics.frequency import Divergences
from blurkit.reports.plots import check_plot, draw_frequency, main, read_curve

# ---- curves --------------------------------------------------------------------------------------

BLUE, ORANGE = (31, 119, 180), (255, 127, 14)  # matplotlib's first two colours


def log(path: Path, *lines: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.fixture
def logs(tmp_path: Path) -> list[Path]:
    falling = [{"step": n, "time": 0, "name": "a", "objective": 1 / n} for n in range(1, 30)]
    flat = [{"step": n, "objective": 0.5, "charbonnier": 0.25} for n in range(1, 30)]
    return [log(tmp_path / "one.jsonl", *falling), log(tmp_path / "two.jsonl", *flat)]


def test_photos_of_one_log_are_averaged(tmp_path: Path) -> None:
    path = log(
        tmp_path / "log.jsonl",
        {"step": 10, "name": "a", "objective": 3.0},
        {"step": 1, "name": "b", "objective": 4},
        {"step": 10, "name": "b", "objective": 5.0},
        {"step": 20, "name": "b", "objective": None},
        {"step": 20, "name": "b", "objective": float("nan")},
        {"step": 30, "time": 7},
    )
    assert read_curve(path) == ([1, 10], [4.0, 4.0])
    words = "no values of 'loss'; the keys are step, name, objective"
    with pytest.raises(BlurkitError, match=words):
        read_curve(path, "loss")
    endless, deep = '{"step": Infinity, "objective": 1}\n', "[" * 100_000
    for text in ("no JSON\n", "[1]\n", '{"objective": 1}\n', endless, deep):
        path.write_text(text)
        with pytest.raises(BlurkitError, match=r"log.jsonl: is not a log of JSON lines"):
            read_curve(path)


def test_every_curve_is_drawn(logs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "new/curves.png"
    assert main([str(logs[0]), f"second={logs[1]}", "-o", str(output)]) == 0
    drawn = imageio.imread(output)[..., :3]
    for colour in (BLUE, ORANGE):
        assert (drawn == colour).all(2).sum() > 100
    # The flat one is a level line, the other falls.
    rows = {c: np.nonzero((drawn == c).all(2)[:, :500])[0] for c in (BLUE, ORANGE)}
    assert np.ptp(rows[BLUE]) > 3 * np.ptp(rows[ORANGE])
    assert main([str(logs[1]), "-o", str(tmp_path / "c.svg"), "--key", "charbonnier"]) == 0
    assert "<svg" in (tmp_path / "c.svg").read_text()


def test_what_goes_wrong_is_one_line(
    logs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "c.png"
    output.write_bytes(b"mine")
    for arguments, words in (
        ([logs[0], "-o", output], "c.png: exists already; give --force"),
        ([logs[0], "-o", tmp_path / "c.txt"], "c.txt: name a file that ends in .png, .pdf, .svg"),
        ([tmp_path / "none.jsonl", "-o", tmp_path / "d.png"], "none.jsonl"),
    ):
        assert main([*map(str, arguments)]) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ") and words in told and told.count("\n") == 1
    assert output.read_bytes() == b"mine"
    assert not (tmp_path / "d.png").exists()


# ---- frequencies ---------------------------------------------------------------------------------

PANELS = ["high 1", "high 1/2", "high 1/4", "low 1", "low 1/2", "low 1/4"]


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


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(BlurkitError, match=r"not installed: pip install 'blurkit\[plots\]'"):
        check_plot(tmp_path / "a.png")
