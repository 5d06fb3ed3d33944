"""Validation: by the protocol of a paper, on as many records as wanted, by all processes."""

import shutil
from pathlib import Path

import pytest

from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.dbgan.recipe import DBGANRecipe
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.systems.msfs.recipe import MSFSRecipe
from tests.cli.command import assert_refused
from tests.cli.invoke import done, invoke
from tests.training.runs import beside, plain, read_log, together, train

PROTOCOLS = ("tiles", "slices", "whole")


def command(shards: Path, output: Path, *options: object) -> list[object]:
    """At a learning rate of 0 every run has the same network, far from returning its input."""
    still = ("--no-identity-start", "--learning-rate", 0, "--final-learning-rate", 0)
    return plain(shards, output, 1, "--validate-on", 9, *still, *options)


def validation(output: Path) -> dict[str, float]:
    """The scores in the log of a run of one step."""
    (scores,) = [line["validation"] for line in read_log(output) if "validation" in line]
    return dict(scores)


@pytest.fixture(scope="module")
def validated(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint that was validated by each protocol, and by the paper's."""
    folder = tmp_path_factory.mktemp("validated")
    for protocol in ("paper", *PROTOCOLS):
        given = () if protocol == "paper" else ("--validate-protocol", protocol)
        train(*command(training_shards, folder / f"{protocol}.pt", *given))
    return folder


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_it_scores_what_deblur_and_eval_do(
    protocol: str, validated: Path, training_shards: Path, tmp_path: Path
) -> None:
    output, restored = validated / f"{protocol}.pt", tmp_path / "restored.h5"
    assert load_checkpoint(output).provenance["validation"] == f"{protocol}, 3 records"
    held_out = sorted(training_shards.glob("val-*.h5"))
    options = ["--protocol", protocol, "--device", "cpu", "-q", "-o", restored]
    done("deblur", *held_out, "-c", output, *options)
    total = done("eval", restored, "--json", "-q").json[-1]["total"]
    scores = validation(output)
    assert scores == pytest.approx({key: total[key] for key in scores}, rel=1e-6)


def test_the_default_is_the_papers(validated: Path) -> None:
    assert ReblurRecipe.protocol == DeblurRecipe.protocol == "slices"
    assert MSFSRecipe.protocol == DBGANRecipe.protocol == "whole"
    paper, slices, tiles = (
        validation(validated / f"{name}.pt") for name in ("paper", "slices", "tiles")
    )
    assert paper == pytest.approx(slices, rel=1e-12)
    assert abs(tiles["psnr"] - paper["psnr"]) > 1e-4


@pytest.mark.slow
def test_two_processes_find_the_scores_of_one(
    validated: Path, training_shards: Path, tmp_path: Path
) -> None:
    """Three records: one process scores two of them, the other one."""
    one, two = validated / "paper.pt", tmp_path / "two.pt"
    ran = together("blurkit", *command(training_shards, two))
    assert ran.returncode == 0, ran.stderr
    assert validation(two) == pytest.approx(validation(one), rel=1e-12)
    samples = ({p.name for p in beside(output, "samples").iterdir()} for output in (one, two))
    assert next(samples) == next(samples)
    assert load_checkpoint(beside(two, "best.pt")).provenance["metrics"] == validation(two)


@pytest.mark.parametrize("splits", [("val", "test"), ("test",)])
def test_a_test_split_chooses_no_checkpoint_unless_it_is_all_there_is(
    splits: tuple[str, ...], training_shards: Path, tmp_path: Path
) -> None:
    shutil.copy(next(training_shards.glob("train-*.h5")), tmp_path / "train-00000.h5")
    for split, role in zip(splits, ("val", "train"), strict=False):
        shutil.copy(next(training_shards.glob(f"{role}-*.h5")), tmp_path / f"{split}-00000.h5")
    chosen, output = splits[0], tmp_path / "net.pt"
    ran = done(*command(tmp_path, output))
    about = load_checkpoint(beside(output, "best.pt")).provenance
    assert about["validated_on"] == chosen
    told = [line["warning"] for line in read_log(output) if "warning" in line]
    if chosen == "val":
        assert not told and "test split" not in ran.err and "warnings" not in about
    else:
        assert told == about["warnings"] and "uses the test split" in told[0]
        assert ran.err.count(told[0]) == 1


def test_reblurring_needs_more_than_slices(training_shards: Path, tmp_path: Path) -> None:
    learn = ["train-reblur", training_shards, "--system", "kernel-space", "--preset", "small"]
    learn += ["--device", "cpu", "-q", "-o", tmp_path / "x.pt"]
    ran = invoke(*learn, "--validate-protocol", "slices")
    assert_refused(ran, "--validate-protocol slices: for trainings that restore", status=2)
