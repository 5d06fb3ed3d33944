"""Plots of logs: what is read of them, and that every curve is drawn."""

from __future__ import annotations

import json
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.errors import BlurkitError
from blurkit.reports.plots import main, read_curve

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
    with pytest.raises(
        BlurkitError, match="no values of 'loss'; the keys are step, name, objective"
    ):
        read_curve(path, "loss")
    for text in ("no JSON\n", "[1]\n", '{"objective": 1}\n'):
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
        ([logs[0], "-o", tmp_path / "c.txt"], "c.txt: name a file that ends in .png"),
        ([tmp_path / "none.jsonl", "-o", tmp_path / "d.png"], "none.jsonl"),
    ):
        assert main([*map(str, arguments)]) == 1
        told = capsys.readouterr().err
        assert told.startswith("error: ") and words in told and told.count("\n") == 1
    assert output.read_bytes() == b"mine"
    assert not (tmp_path / "d.png").exists()
