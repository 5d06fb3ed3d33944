"""Checkpoints that a run keeps while it trains: one every so many steps, and the best one."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from blurkit.io.checkpoints import load_checkpoint
from tests.cli.command import assert_done, assert_refused, files
from tests.cli.invoke import invoke
from tests.training.runs import DEBLUR, Interrupted, beside, read_log, tensors, train

PLAIN = [
    *("--width", 8, "--generator", "single", "--unshuffle", 2, "--injection", "none"),
    *("--blur-weight", 0, "--validate-on", 1, "--validate-every", 1, "--no-samples"),
]
KEPT = ["x.2.pt", "x.4.pt", "x.best.pt", "x.log.jsonl", "x.pt"]


def command(shards: Path, output: Path, iterations: int, *options: object) -> list[object]:
    return [
        *("train-deblur", shards, *DEBLUR, *PLAIN, "--iterations", iterations, "-o", output),
        *("--schedule-iterations", 4, *options),
    ]


@pytest.fixture(scope="module")
def kept(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, of which every second and the best were kept."""
    output = tmp_path_factory.mktemp("kept") / "x.pt"
    train(*command(training_shards, output, 4, "--save-every", 2))
    assert list(files(output.parent)) == KEPT
    return output


def test_the_kept_are_those_of_runs_that_ended_there(
    kept: Path, training_shards: Path, tmp_path: Path
) -> None:
    scores = {line["step"]: line["validation"] for line in read_log(kept) if "validation" in line}
    best = max(scores, key=lambda step: scores[step]["psnr"])
    for path, step in ((beside(kept, "2.pt"), 2), (beside(kept, "best.pt"), best)):
        about = load_checkpoint(path).provenance
        assert (about["iterations"], about["metrics"]) == (step, scores[step])
    short = tmp_path / "short.pt"
    train(*command(training_shards, short, 2))
    own, wanted = tensors(beside(kept, "2.pt")), tensors(short)
    assert all(torch.equal(own[key], wanted[key]) for key in wanted)
    own, wanted = tensors(beside(kept, "4.pt")), tensors(kept)
    assert all(torch.equal(own[key], wanted[key]) for key in wanted)


def test_commands_take_them(kept: Path, training_shards: Path, tmp_path: Path) -> None:
    for ending in ("2.pt", "best.pt"):
        path = beside(kept, ending)
        assert_done(invoke("info", path))
        started = command(training_shards, tmp_path / ending, 1, "--start", path)
        assert_done(invoke(*started))
    shard = next(training_shards.glob("val*.h5"))
    assert_done(invoke("deblur", shard, "-c", path, "-o", tmp_path / "out.h5", "-q"))


def test_the_best_is_not_replaced_by_a_worse_one(training_shards: Path, tmp_path: Path) -> None:
    """A wild learning rate spoils the network after its first step, which changes little."""
    output = tmp_path / "x.pt"
    wild = ["--learning-rate", 0.05, "--final-learning-rate", 0.05, "--ema", 0]
    loud = [option for option in command(training_shards, output, 3, *wild) if option != "-q"]
    ran = invoke(*loud)
    assert ran.status == 0, ran.err
    scores = [line["validation"]["psnr"] for line in read_log(output) if "validation" in line]
    best = load_checkpoint(beside(output, "best.pt")).provenance
    assert best["metrics"]["psnr"] == max(scores) > scores[-1]
    assert f"the best so far, saved as {beside(output, 'best.pt')}" in ran.err


def test_a_resumed_run_goes_on_with_its_own(
    kept: Path, training_shards: Path, tmp_path: Path
) -> None:
    output = tmp_path / "x.pt"
    pieces = command(training_shards, output, 4, "--save-every", 2)
    for _ in range(3):
        assert_done(invoke(*pieces, "--minutes", 1e-9))
    assert_done(invoke(*pieces, "--resume"))
    assert list(files(tmp_path)) == KEPT
    for name in KEPT:
        if name.endswith(".pt"):
            own, wanted = tensors(tmp_path / name), tensors(kept.with_name(name))
            assert all(torch.equal(own[key], wanted[key]) for key in wanted), name


def test_a_killed_run_that_kept_something_can_be_resumed(
    training_shards: Path, tmp_path: Path
) -> None:
    """Long before its first regular save."""
    output = tmp_path / "x.pt"
    rarely = command(training_shards, output, 40, "--save-minutes", 60)
    killed = Interrupted(*rarely)
    killed.wait_for(beside(output, "state.pt"))
    killed.stop(signal.SIGKILL)
    assert load_checkpoint(beside(output, "best.pt")).provenance["iterations"] < 40
    assert_done(invoke(*rarely, "--resume"))
    assert load_checkpoint(output).provenance["iterations"] == 40


@pytest.mark.parametrize("name", ["x.best.pt", "x.100.pt"])
def test_what_others_kept_is_left_alone(name: str, training_shards: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    kept = command(training_shards, tmp_path / "x.pt", 2, "--save-every", 1)
    assert_refused(invoke(*kept), f"{name}: exists already; give --force to overwrite it")
    assert list(files(tmp_path)) == [name]
    assert (tmp_path / name).read_bytes() == b"precious"
    # Without validation and interval nothing of these would be written.
    off = ["--validate-on", 0, "--save-every", 0, "--iterations", 1]
    assert_done(invoke(*kept, *off))
    assert (tmp_path / name).read_bytes() == b"precious"
    assert_done(invoke(*kept, "--force"))
    assert load_checkpoint(tmp_path / "x.best.pt").provenance["iterations"] in (1, 2)


def test_safetensors_are_kept_as_such(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    assert_done(invoke(*command(training_shards, output, 1, "--save-every", 1)))
    for name in ("x.1.safetensors", "x.best.safetensors"):
        assert load_checkpoint(tmp_path / name).provenance["iterations"] == 1
