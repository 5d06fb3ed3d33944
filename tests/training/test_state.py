"""States of training runs: one that was stopped ends with the same bits as one that was not."""

import json
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_checkpoint, load_tensors, with_checksums
from blurkit.training.loop import Stopped
from tests.cli.bgans import saved
from tests.cli.invoke import done, invoke
from tests.training.plain_descent import STAGES, descend
from tests.training.runs import (
    Interrupted,
    assert_same_run,
    beside,
    log_length,
    plain,
    read_log,
    tensors,
    toy,
    train,
)

Change = Callable[[dict[str, Any]], object]
PIECE = {"minutes": 1e-9}
"""A run that stops after each step but its last."""

DRAWN = {"synthesize": "realistic", "synthetic_share": 0.5, "sharp_pairs": 0.1}
FEATURES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "none": ({}, {}),
    "averaged weights": ({"ema": 0.7}, {}),
    "parts of a batch": ({}, {"accumulate": 2}),
    "mixed precision": ({}, {"precision": "bf16"}),
    "blur drawn for each crop": (DRAWN, {}),
    "crops drawn by processes": (DRAWN, {"jobs": 2}),
    "blur of a BGAN": ({"mix": 0.5}, {"augmentations": "bgan"}),
}
"""Features of the loop, as options of the recipe and of the run."""


def stopped(shards: Path, output: Path, how: dict[str, Any] | None = None, **options: Any) -> None:
    with pytest.raises(Stopped):
        toy(shards, output, PIECE | (how or {}), **options)


@pytest.mark.parametrize("feature", FEATURES)
def test_pieces_end_like_one_run(feature: str, training_shards: Path, tmp_path: Path) -> None:
    options, how = FEATURES[feature]
    if how.get("jobs") and sys.platform != "linux":
        pytest.skip("training takes processes on Linux only")
    if "augmentations" in how:
        how = {"augmentations": {"bgan": str(saved(tmp_path / "bgan.pt"))}}
    straight, output = tmp_path / "straight.pt", tmp_path / "pieces.pt"
    made = toy(training_shards, straight, how | {"jobs": 0}, **options)
    assert made.configuration | options == made.configuration
    for _ in range(3):
        stopped(training_shards, output, how, **options)
        assert beside(output, "state.pt").exists() and not output.exists()
    toy(training_shards, output, how | {"resume": True}, **options)
    assert_same_run(output, straight)
    assert [line["step"] for line in read_log(output)] == [1, 2, 3, 4]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_every_recipe_goes_on_with_the_same_bits(
    stage: str, training_shards: Path, stage_1: Path, tmp_path: Path
) -> None:
    """What recipes keep between steps, such as random values, depends on seed and step alone."""
    start = saved(tmp_path / "bgan.pt") if stage == "dbgan" else stage_1
    straight, output = tmp_path / "straight.pt", tmp_path / "pieces.pt"
    descend(stage, training_shards, start, straight, iterations=3)
    for _ in range(2):
        with pytest.raises(Stopped):
            descend(stage, training_shards, start, output, PIECE, iterations=3)
    descend(stage, training_shards, start, output, PIECE, iterations=3)
    assert_same_run(output, straight)


def test_a_run_killed_interrupted_and_terminated(training_shards: Path, tmp_path: Path) -> None:
    """Killed at any moment after its first save, stopped by Ctrl-C, terminated, finished."""
    straight, output = tmp_path / "straight.pt", tmp_path / "stopped.pt"
    command = plain(training_shards, output, 20, "--save-minutes", 0)
    log = beside(output, "log.jsonl")
    killed = Interrupted(*command)
    killed.wait_for(beside(output, "state.pt"))
    time.sleep(random.uniform(0, 0.1))
    assert killed.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        run = Interrupted(*command, "--resume")
        run.wait_for(log, lines=log_length(log))
        told = "stopped; the state is saved; continue with --resume\n"
        assert run.stop(number) == (status, told)
    assert not output.exists()
    train(*command, "--resume")
    train(*plain(training_shards, straight, 20))
    assert_same_run(output, straight)
    assert not list(tmp_path.glob(".*"))


def test_the_same_command_goes_on_after_its_time(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.pt"
    command = plain(training_shards, output, 2, "--minutes", 1e-9)
    ran = done(*command)
    assert ran.err == "time is up; the state is saved; run the same command to continue\n"
    assert_described(beside(output, "state.pt"))
    done(*command)
    assert output.exists() and not beside(output, "state.pt").exists()


def test_a_half_state_is_half_as_large_and_resumes_nearly_the_same(
    training_shards: Path, tmp_path: Path
) -> None:
    whole, half = tmp_path / "whole.pt", tmp_path / "half.pt"
    options = {"width": 512, "learning_rate": 1e-3, "final_learning_rate": 1e-3}
    stopped(training_shards, whole, **options)
    stopped(training_shards, half, {"half_state": True}, **options)
    sizes = [beside(output, "state.pt").stat().st_size for output in (half, whole)]
    assert sizes[0] < 0.6 * sizes[1]
    with beside(half, "state.pt").open("rb") as file:
        moments = load_tensors(file, "state")["optimizers"]["second"]["state"][0]
    assert moments["exp_avg"].dtype == moments["exp_avg_sq"].dtype == torch.bfloat16
    assert moments["step"].dtype == torch.float32  # a counter that must stay whole
    for output in (half, whole):
        toy(training_shards, output, {"resume": True, "half_state": output == half}, **options)
    own, wanted = tensors(half), tensors(whole)
    assert max(float((own[key] - wanted[key]).abs().max()) for key in wanted) < 6e-3
    assert not all(torch.equal(own[key], wanted[key]) for key in wanted)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"schedule_iterations": 4}, {}),
        ({"final_learning_rate": 0.1}, {}),  # constant, as it begins with it
        ({}, {"schedule_iterations": 3}),  # the length that the schedule has anyway
    ],
)
def test_a_run_may_grow_and_ends_like_one_that_was_always_so_long(
    before: dict[str, Any], after: dict[str, Any], training_shards: Path, tmp_path: Path
) -> None:
    output, straight = tmp_path / "grown.pt", tmp_path / "straight.pt"
    for _ in range(2):
        stopped(training_shards, output, **before, iterations=3)
    longer = {"iterations": 6, **before, **after}
    assert toy(training_shards, output, {"resume": True}, **longer).configuration["iterations"] == 6
    toy(training_shards, straight, **longer)
    assert_same_run(output, straight)


def test_a_schedule_of_a_systems_own(training_shards: Path, tmp_path: Path) -> None:
    """Warm restarts end with the run, whatever --schedule-iterations says; halving never ends."""
    space = "kernel-space", training_shards, Path(), tmp_path / "space.pt"
    for _ in range(2):
        with pytest.raises(Stopped):
            descend(*space, PIECE, batch=1, iterations=3)
    words = "over 3, which --iterations 6 would change; resume with --iterations 3"
    with pytest.raises(BlurkitError, match=words):
        descend(*space, {"resume": True}, batch=1, iterations=6)
    halved = "msfs", training_shards, Path(), tmp_path / "halved.pt"
    with pytest.raises(Stopped):
        descend(*halved, PIECE, batch=1, iterations=2, halve_every=2)
    made = descend(*halved, {"resume": True}, batch=1, iterations=3, halve_every=2)
    assert made.provenance["iterations"] == 3


def assert_described(path: Path) -> None:
    """What `info` says of a state after one step of two."""
    (told,) = done("info", path, "--json").json
    with path.open("rb") as file:
        state = load_tensors(file, "state")
    assert (told["kind"], told["system"]) == ("state of a training", "msdi")
    assert (told["step"], told["iterations"]) == (1, 2)
    assert told["configuration"] == json.loads(json.dumps(state["configuration"]))
    parameters = sum(t.numel() for t in state["networks"]["deblur"].values() if t.ndim)
    assert told["networks"]["deblur"]["parameters"] == parameters
    text = invoke("info", path).out.decode()
    assert "  kind: state of a training\n" in text and "  step: 1\n  iterations: 2\n" in text


@pytest.fixture(scope="module")
def halfway(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of three steps that was stopped after its second."""
    folder = tmp_path_factory.mktemp("halfway")
    for _ in range(2):
        stopped(training_shards, folder / "x.pt", iterations=3)
    return folder


@pytest.fixture
def output(halfway: Path, tmp_path: Path) -> Path:
    """The output of a copy of that run."""
    shutil.copytree(halfway, tmp_path / "run")
    return tmp_path / "run" / "x.pt"


def refused(words: str, shards: Path, output: Path, iterations: int = 3, **options: Any) -> None:
    """Resuming fails for that reason, in a line, and leaves the state as it is."""
    before = beside(output, "state.pt").read_bytes()
    with pytest.raises(BlurkitError) as caught:
        toy(shards, output, {"resume": True}, iterations=iterations, **options)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert beside(output, "state.pt").read_bytes() == before and not output.exists()


def without(key: str) -> Change:
    return lambda state: state.pop(key)


def foreign(state: dict[str, Any]) -> None:
    state["networks"] = {role: {"w": torch.zeros(2)} for role in state["networks"]}


STATES: dict[str, tuple[Change, str]] = {
    "without networks": (without("networks"), "is not the saved state of a training run"),
    "without configuration": (without("configuration"), "damaged, or of another run"),
    "of another network": (foreign, "damaged, or of another run"),
    "without a version": (without("version"), "state version 1, but this blurkit reads 2; train"),
    "without checksums": (without("checksums"), "damaged, its checksums are missing"),
    "changed": (lambda state: state.update(step=1), "damaged, 'step' has changed"),
}


@pytest.mark.parametrize("name", STATES)
def test_damaged_states(name: str, training_shards: Path, output: Path) -> None:
    change, words = STATES[name]
    path = beside(output, "state.pt")
    state = torch.load(path, weights_only=True)
    change(state)
    if name not in ("without checksums", "changed"):
        state = with_checksums({key: state[key] for key in state if key != "checksums"})
    torch.save(state, path)
    refused(f"x.state.pt: {words}", training_shards, output)


def test_a_flipped_bit(training_shards: Path, output: Path) -> None:
    path = beside(output, "state.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
    refused("x.state.pt: damaged, ", training_shards, output)


@pytest.mark.parametrize("line", ["\0\0\0garbage", '{"a": 1}', "3", '{"step": "one"}'])
def test_lines_of_the_log(line: str, training_shards: Path, output: Path) -> None:
    with beside(output, "log.jsonl").open("a") as file:
        file.write(line + "\n")
    refused("x.log.jsonl: line 3 is no line of a log; remove it", training_shards, output)


def test_a_schedule_that_would_change_is_refused(training_shards: Path, output: Path) -> None:
    words = "x.state.pt: the learning rates of its 2 steps follow a schedule over 3, which "
    words += "--iterations 6 would change; add --schedule-iterations 3"
    refused(words, training_shards, output, 6)
    words = "x.state.pt: is at step 2; --iterations 1 is too few"
    refused(words, training_shards, output, 1, schedule_iterations=3)


def test_shards_that_changed(training_shards: Path, output: Path, tmp_path: Path) -> None:
    """Their pixels, their checksums with them, or their pixels behind the first megabyte."""
    shards, other = tmp_path / "shards", tmp_path / "y.pt"
    shutil.copytree(training_shards, shards)
    path = next(shards.glob("train-*.h5"))
    with h5py.File(path, "r+") as file:
        last = file[max(file)]["sharp"]
        last[-1, -1, 0] ^= 1
    words = "train-00000.h5: record 00000002: image 'sharp' has changed since it was written"
    refused(words, shards, output)
    with pytest.raises(BlurkitError, match=words):
        toy(shards, other)
    toy(shards, other, {"verify": False})
    with pytest.raises(BlurkitError, match=r"x\.state\.pt: was trained with data "):
        toy(shards, output, {"resume": True, "verify": False}, iterations=3)


def test_a_log_that_exists_is_kept(training_shards: Path, tmp_path: Path) -> None:
    log = tmp_path / "x.log.jsonl"
    log.write_text("precious notes\n")
    with pytest.raises(BlurkitError, match=r"x\.log\.jsonl: exists already; give --force"):
        toy(training_shards, tmp_path / "x.pt")
    assert log.read_text() == "precious notes\n"
    toy(training_shards, tmp_path / "x.pt", {"force": True})
    assert "precious" not in log.read_text()


def test_a_resumed_run_may_replace_what_it_might(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.pt"
    output.write_text("an older checkpoint")
    stopped(training_shards, output, {"force": True})
    assert output.read_text() == "an older checkpoint"
    toy(training_shards, output, {"resume": True})
    assert load_checkpoint(output).provenance["iterations"] == 4
