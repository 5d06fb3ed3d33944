"""The scripts that train variants side by side, really run at the smallest budget."""

from __future__ import annotations

from pathlib import Path

import pytest

from blurkit.io.checkpoints import load_checkpoint
from tests.cli.command import assert_done, blurred, photo, records, shell, write
from tests.shared import ROOT

pytestmark = pytest.mark.slow


def table(folder: Path) -> dict[str, list[float]]:
    """The lines of table.txt below its head: by name the numbers, paper's and measured."""
    _, *lines = (folder / "table.txt").read_text().splitlines()
    return {
        line[:28].strip(): [float(cell) for cell in line[28:].split() if cell != "-"]
        for line in lines
    }


def test_msfs_net(training_shards: Path, tmp_path: Path) -> None:
    """Table 4: every variant is trained with its option, and measured."""
    script = ROOT / "examples/msfs_ablation.sh"
    command = f"bash {script} {training_shards} 2 out"
    assert_done(shell(command, tmp_path))
    found = table(tmp_path / "out")
    papers = {"without FSM": 29.80, "without CSFFM": 30.22, "without CLM": 31.08}
    papers |= {"without consistency": 31.54, "full": 32.73}
    assert found.keys() == {*papers, "blurry"}
    for name, paper in papers.items():
        assert found[name][0] == paper and len(found[name]) == 4
        assert abs(found[name][2] - found["blurry"][0]) < 1  # two steps change little
    options = {
        name: load_checkpoint(tmp_path / f"out/{name}.pt").configuration
        for name in ("without-fsm", "without-csffm", "without-clm", "without-consistency", "full")
    }
    assert not options["without-fsm"]["frequency_separation"]
    assert not options["without-csffm"]["cross_scale"]
    assert options["without-clm"]["contrastive_weight"] == 0
    assert options["without-consistency"]["consistency_weight"] == 0
    made = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.pt")}
    assert_done(shell(command, tmp_path))  # again: nothing is trained anew
    assert {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.pt")} == made


def test_dbgan(training_shards: Path, tmp_path: Path) -> None:
    """From unpaired photos to DBGAN(+): samples, and the three variants at equal budget."""
    for number in range(3):
        write(tmp_path / f"real/{number}.jpg", blurred(photo(number, 96, 128)))
    script = ROOT / "examples/dbgan.sh"
    assert_done(shell(f"bash {script} {training_shards} real/ 4 out", tmp_path))
    found = table(tmp_path / "out")
    assert list(found) == ["DBGAN(-)", "DBGAN", "DBGAN(+)", "blurry"]
    assert (found["DBGAN"][0], found["DBGAN(+)"][0]) == (30.43, 31.10)
    samples = records(tmp_path / "out/samples.h5")
    scenes = records(*sorted(training_shards.glob("val-*.h5")))
    assert len(samples) == 4 * len(scenes)
    checkpoints = {
        name: load_checkpoint(tmp_path / f"out/{name}.pt")
        for name in ("bgan", "minus", "plain", "half", "plus")
    }
    variants = {name: c.configuration.get("variant") for name, c in checkpoints.items()}
    assert variants == {
        **{"bgan": None, "minus": "minus", "plain": "plain", "half": "plain", "plus": "plus"}
    }
    steps = {name: c.provenance["iterations"] for name, c in checkpoints.items()}
    assert steps == {"bgan": 4, "minus": 4, "plain": 4, "half": 2, "plus": 2}
    assert checkpoints["plus"].provenance["bgan"] and checkpoints["plus"].provenance["start"]
