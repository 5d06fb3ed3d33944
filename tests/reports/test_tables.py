"""Tables on terminals of any width."""

import pytest

from blurkit.metrics.evaluation import Merged, make_report
from blurkit.metrics.statistics import Scored
from blurkit.reports.tables import Best, print_report, print_table

COLUMNS = ["network", *(f"score {number}" for number in range(8))]
ROWS = [
    ("first.pt", *(Best(10.5 + number) for number in range(8))),
    ("second.onnx", *(20.5 + number for number in range(8))),
]


def printed(width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", str(width))
    print_table("eval", COLUMNS, ROWS, note="8 scores")
    return capsys.readouterr().err


def test_a_table_too_wide_for_its_terminal_is_turned(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "│ first.pt    │   10.50 │   11.50 │" in printed(120, capsys, monkeypatch)
    narrow = printed(60, capsys, monkeypatch).splitlines()
    assert narrow[2] == "┃ network ┃ first.pt ┃ second.onnx ┃"
    scores = [f"│ score {n} │    {10.5 + n:.2f} │       {20.5 + n:.2f} │" for n in range(8)]
    assert narrow[4:12] == scores


def test_a_long_list_stays_a_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_table("eval", ["image", "psnr"], [(f"a long name, number {n}", 30.0) for n in range(9)])
    assert capsys.readouterr().err.count("30.00") == 9


@pytest.mark.parametrize(
    ("better", "title", "listed"),
    [("lower", "the 50 of highest niqe", range(10, 60)), ("higher", "lowest niqe", range(50))],
)
def test_of_many_images_the_worst_are_listed(
    better: str,
    title: str,
    listed: range,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    line = f"pyiqa 0.1, of the image alone, {better} is better"
    measures = Merged({}, {"niqe": line}, "psnr", None, {})
    rows = [Scored(f"image-{n}.", {"niqe": float(n)}, "") for n in range(60)]
    print_report(make_report({"": rows}, measures))
    text = capsys.readouterr().err
    assert title in " ".join(text.split())
    assert [n for n in range(60) if f"image-{n}." in text] == [*listed]
