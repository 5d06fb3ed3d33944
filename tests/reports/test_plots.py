"""Curves of logs, and frequencies, as pictures."""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

import blurkit
from blurkit.errors import BlurkitError
from blurkit.metrics.frequency import Divergences
from blurkit.reports.plots import check_plot, draw_frequency, read_log
from tests.cli.command import assert_refused
from tests.cli.invoke import done, invoke
from tests.io.scenes import refusal

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


def test_values_of_a_log(tmp_path: Path) -> None:
    """Photos of one step are averaged, nested values have their path, and the rest is left out."""
    path = log(
        tmp_path / "log.jsonl",
        {"step": 10, "name": "a", "objective": 3.0, "time": 5},
        {"step": 1, "name": "b", "objective": 4},
        {"step": 10, "name": "b", "objective": 5.0, "losses": {"l1": 2, "a": {"b": 1}}},
        {"step": 20, "name": "b", "objective": None, "warning": "the loss is 0"},
        {"step": 20, "name": "b", "objective": float("nan"), "losses": {"l1": 0.5}},
        {"step": 30, "time": 7},
    )
    assert read_log(path) == {
        "objective": ([1, 10], [4.0, 4.0]),
        "losses/l1": ([10, 20], [2, 0.5]),
        "losses/a/b": ([10], [1]),
    }
    assert blurkit.info(path)["losses"]["l1"] == {"first": 2, "last": 0.5, "min": 0.5, "max": 2}
    endless, deep = '{"step": Infinity, "objective": 1}\n', "[" * 100_000
    vast = '{"step": 1, "objective": 1e308}\n' * 2
    for text in ("no JSON\n", "[1]\n", '{"objective": 1}\n', endless, vast, deep, "\xff"):
        path.write_text(text, encoding="latin-1")
        assert refusal(read_log, path).startswith("is not a log of JSON lines")
    path.write_text('{"step": 1}\n')
    assert refusal(read_log, path) == "holds no values"


def test_every_curve_is_drawn(logs: list[Path], tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    output = tmp_path / "new/curves.png"
    ran = done("info", *logs, "--figure", output)
    assert b"objective: first 1; last 0.0344828" in ran.out and f"wrote {output}" in ran.err
    drawn = imageio.imread(output)[..., :3]
    half = drawn[200:, : drawn.shape[1] // 2]
    for colour in (BLUE, ORANGE):
        assert (half == colour).all(2).sum() > 100
    # The flat one is a level line, the other falls; its second value is in a panel of its own.
    rows = {c: np.nonzero((half == c).all(2))[0] for c in (BLUE, ORANGE)}
    assert np.ptp(rows[BLUE]) > 3 * np.ptp(rows[ORANGE])
    other = drawn[200:, drawn.shape[1] // 2 :]
    assert (other == ORANGE).all(2).any() and not (other == BLUE).all(2).any()


def test_the_logs_of_a_folder(tmp_path: Path) -> None:
    """Beside a checkpoint and pictures; a run that failed is named, and the others are drawn."""
    pytest.importorskip("matplotlib")
    for number, name in enumerate(("a$x", "b")):
        fields: dict[str, Any] = {"losses": {"l1": 1 / (1 + number)}, "crops_per_second": 3}
        validation = {"step": 4, "validation": {"psnr": 20.0 + number}}
        lines = ({"step": n, **fields, "learning_rates": {"deblur": 0.1 / n}} for n in (1, 4))
        log(tmp_path / f"{name}.log.jsonl", *lines, validation)
    (tmp_path / "c.log.jsonl").write_text("?\n")
    (tmp_path / "a.pt").write_bytes(b"")
    ran = invoke("info", tmp_path, "--figure", tmp_path / "c.svg", "--json", "-q")
    assert ran.status == 1 and "c.log.jsonl: is not a log" in ran.err
    assert [line["validation"]["psnr"]["last"] for line in ran.json] == [20, 21]
    assert {"losses", "learning_rates", "crops_per_second"} < ran.json[0].keys()
    assert (tmp_path / "c.svg").read_text().count("<!-- losses/l1 -->") == 1


def test_what_goes_wrong_is_one_line(logs: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "c.png"
    output.write_bytes(b"mine")
    for arguments, words, status in (
        ([logs[0], "--figure", output], "c.png: exists already; give --force", 1),
        ([logs[0], "--figure", tmp_path / "c.txt"], "c.txt: name a file that ends in .png", 2),
        ([tmp_path, "--figure", tmp_path / "d.png"], "--figure plots logs of trainings", 2),
    ):
        assert_refused(invoke("info", *arguments), words, status=status)
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
