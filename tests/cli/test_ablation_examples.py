"""The scripts that train variants side by side, really run at the smallest budget."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from blurkit.io.checkpoints import load_checkpoint
from tests.cli.command import assert_done, blurred, photo, plant_pair, records, shell, write
from tests.shared import ROOT, shared_folder

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


DBGAN_TINY = "--width 8 --blocks 1 --discriminator-width 8 --crop 64 --batch 2 --device cpu"


@pytest.fixture(scope="module")
def dbgan_run(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What dbgan.sh leaves behind with its own preset and two steps."""
    folder = tmp_path_factory.mktemp("dbgan")
    for number in range(3):
        write(folder / f"real/{number}.jpg", blurred(photo(number, 96, 128)))
    command = f"DATA={training_shards} bash {ROOT}/examples/dbgan.sh '' real/ 2 out {DBGAN_TINY}"
    assert_done(shell(command, folder))
    return folder / "out"


def test_dbgan(training_shards: Path, dbgan_run: Path) -> None:
    """From unpaired photos to DBGAN(+): samples, and the three variants at equal budget."""
    found = table(dbgan_run)
    assert list(found) == ["DBGAN(-)", "DBGAN", "DBGAN(+)", "blurry"]
    assert (found["DBGAN"][0], found["DBGAN(+)"][0]) == (30.43, 31.10)
    samples = records(dbgan_run / "samples.h5")
    scenes = records(*sorted(training_shards.glob("val-*.h5")))
    assert len(samples) == 4 * len(scenes)
    checkpoints = {
        name: load_checkpoint(dbgan_run / f"{name}.pt")
        for name in ("bgan", "minus", "plain", "half", "plus")
    }
    variants = {name: c.configuration.get("variant") for name, c in checkpoints.items()}
    assert variants == {
        **{"bgan": None, "minus": "minus", "plain": "plain", "half": "plain", "plus": "plus"}
    }
    steps = {name: c.provenance["iterations"] for name, c in checkpoints.items()}
    assert steps == {"bgan": 2, "minus": 2, "plain": 2, "half": 1, "plus": 1}
    assert checkpoints["plus"].provenance["bgan"] and checkpoints["plus"].provenance["start"]


def test_dbgan_is_scored_on_whole_images_in_float32(dbgan_run: Path) -> None:
    """As in the released test script."""
    found = table(dbgan_run)
    for name, label in (("minus", "DBGAN(-)"), ("plain", "DBGAN"), ("plus", "DBGAN(+)")):
        scores = json.loads((dbgan_run / f"{name}.json").read_text())
        how = scores["protocol"]["restored"]
        assert "protocol=whole" in how and "precision=float32" in how
        assert found[label][-2] == pytest.approx(scores["total"]["psnr"], abs=0.006)


def test_dbgan_trains_by_the_preset_of_the_environment(
    training_shards: Path, dbgan_run: Path, tmp_path: Path
) -> None:
    """Without ITERATIONS the preset's own would do; here two, and PROTOCOL is another one."""
    features = shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"
    environment = f"PRESET=paper PROTOCOL=tiles BLURKIT_FEATURES={features}"
    arguments = f"{training_shards} {dbgan_run.parent}/real 2 out {DBGAN_TINY}"
    assert_done(shell(f"{environment} bash {ROOT}/examples/dbgan.sh {arguments}", tmp_path))
    for name in ("bgan", "minus", "plain", "half", "plus"):
        made = load_checkpoint(tmp_path / f"out/{name}.pt").configuration
        assert made["learning_rate"] == 1e-4 and made["orientations"] == "flip"
        assert made["initial_deviation"] == 0.01 and made["perceptual"] == "features"
    scores = json.loads((tmp_path / "out/plain.json").read_text())
    assert "protocol=tiles" in scores["protocol"]["restored"]


def test_the_recipe_of_figure_5_shows_the_three_variants(dbgan_run: Path, tmp_path: Path) -> None:
    """The line of docs/papers.md, on what the script wrote."""
    page = (ROOT / "docs/papers.md").read_text()
    (line,) = (line for line in page.splitlines() if line.startswith("| Fig. 5: DBGAN(-)"))
    command = line.split("`")[1].replace("examples/", f"bash {ROOT}/examples/")
    plant_pair(tmp_path / "GOPRO_Large/test", "GOPR0001/000001", 1, height=96, width=112)
    (tmp_path / "dbgan").symlink_to(dbgan_run)
    assert_done(shell(command, tmp_path))
    compared = (tmp_path / "comparison/comparison.md").read_text()
    assert all(name in compared for name in ("minus", "plain", "plus"))
    assert list((tmp_path / "comparison/pictures").rglob("*.png"))
