"""What the weights that come with blurkit were trained on: in the files, and on the page."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from blurkit.io.checkpoints import load_checkpoint, save_checkpoint
from blurkit.systems.system import WEIGHTS
from tests.cli.invoke import invoke
from tests.shared import ROOT
from tests.tools.convert import card, main
from tests.tools.test_pack import first_stage, steered

CARDS = sorted((ROOT / "examples" / "cards").glob("*.tsv"))


@pytest.mark.parametrize("table", CARDS, ids=lambda path: path.stem)
def test_a_shipped_file_says_what_the_page_says(table: Path) -> None:
    page = (ROOT / "docs" / "weights.md").read_text().splitlines()
    with table.open(newline="") as file:
        _, *rows = csv.reader(file, csv.excel_tab)
    for row in rows:
        assert f"| {' | '.join(row)} |" in page
    shipped = load_checkpoint(WEIGHTS / f"{table.stem}.pt").provenance
    assert shipped["trained_on"] == card(table)


def test_every_shipped_file_has_a_card_that_info_shows_line_by_line() -> None:
    told = invoke("info", WEIGHTS / "msdi.pt").out.decode().splitlines()
    start = told.index("    trained_on:") + 1
    lines = card(ROOT / "examples" / "cards" / "msdi.tsv")
    assert [line.strip() for line in told[start : start + len(lines)]] == lines
    assert {path.stem for path in WEIGHTS.glob("*.pt")} == {path.stem for path in CARDS}


def test_a_card_changes_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, table = tmp_path / "enc.pt", tmp_path / "data.tsv"
    save_checkpoint(first_stage(steered()), file)
    before = load_checkpoint(file)
    rows = ["data number use terms", "photos 20 blurred CC0", "films 3 averaged none-stated"]
    table.write_text("\n".join(rows).replace(" ", "\t") + "\n")
    assert main(["describe", str(table), str(file)]) == 0
    after = load_checkpoint(file)
    lines = ["photos (20): blurred; terms: CC0", "films (3): averaged; terms: none-stated"]
    assert after.provenance == before.provenance | {"trained_on": lines}
    assert (after.system, after.configuration) == (before.system, before.configuration)
    for role, state in before.networks.items():
        for key, value in state.items():
            assert value.equal(after.networks[role][key]), key
    assert f"trained_on: {', '.join(lines)}\n" in invoke("info", file).out.decode()

    content = file.read_bytes()
    for bad in ("", "data\tterms\nmy photos\tCC0\n", "data\tnumber\tuse\tterms\nphotos\t20\n"):
        table.write_text(bad)
        assert main(["describe", str(table), str(file)]) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: {table}: ")
    assert file.read_bytes() == content
