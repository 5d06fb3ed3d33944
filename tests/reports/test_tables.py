"""Tables on terminals of any width."""

import pytest

from blurkit.reports.tables import Best, print_table

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
    assert narrow[4:12] == [
        f"│ score {n} │    {10.5 + n:.2f} │       {20.5 + n:.2f} │" for n in range(8)
    ]


def test_a_long_list_stays_a_list(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    print_table("eval", ["image", "psnr"], [(f"a long name, number {n}", 30.0) for n in range(9)])
    assert capsys.readouterr().err.count("30.00") == 9
