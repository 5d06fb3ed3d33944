"""Resuming with another number of iterations: where the schedule allows it, with the same bits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from blurkit.io.checkpoints import load_checkpoint, load_tensors
from tests.cli.command import assert_done, assert_refused
from tests.cli.invoke import invoke
from tests.training.runs import DEBLUR, beside, read_log, tensors, train

PLAIN = [
    *("--width", 8, "--generator", "single", "--unshuffle", 2, "--injection", "none"),
    *("--blur-weight", 0, "--validate-on", 0),
]


def command(shards: Path, output: Path, iterations: int, *options: object) -> list[object]:
    return [
        *("train-deblur", shards, *DEBLUR, *PLAIN, "--iterations", iterations, "-o", output),
        *options,
    ]


def stopped(shards: Path, output: Path, *options: object) -> Path:
    """The state of a run of three steps that was stopped after its second."""
    for _ in range(2):
        assert_done(invoke(*command(shards, output, 3, *options, "--minutes", 1e-9)))
    return beside(output, "state.pt")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        pytest.param(["--schedule-iterations", 4], [], marks=pytest.mark.slow),
        (["--final-learning-rate", 1e-3], []),  # constant, as the small preset begins with it
        pytest.param(  # the length that the schedule has anyway
            [], ["--schedule-iterations", 3], marks=pytest.mark.slow
        ),
    ],
)
def test_a_run_may_grow_and_ends_like_one_that_was_always_so_long(
    before: list[object], after: list[object], training_shards: Path, tmp_path: Path
) -> None:
    output, straight = tmp_path / "grown.pt", tmp_path / "straight.pt"
    stopped(training_shards, output, *before)
    train(*command(training_shards, output, 6, *before, *after, "--resume"))
    train(*command(training_shards, straight, 6, *before, *after))
    own, wanted = tensors(output), tensors(straight)
    assert all(torch.equal(own[key], wanted[key]) for key in wanted)
    assert read_log(output) == read_log(straight)
    assert load_checkpoint(output).configuration["iterations"] == 6


def test_a_schedule_that_would_change_is_refused_with_what_to_do(
    training_shards: Path, tmp_path: Path
) -> None:
    output = tmp_path / "x.pt"
    state = stopped(training_shards, output)
    before = state.read_bytes()
    ran = invoke(*command(training_shards, output, 6, "--resume"))
    words = ("x.state.pt: the learning rates of its 2 steps follow a schedule over 3, which ",)
    words += ("--iterations 6 would change; add --schedule-iterations 3",)
    assert_refused(ran, *words)
    ran = invoke(*command(training_shards, output, 1, "--schedule-iterations", 3, "--resume"))
    assert_refused(ran, "x.state.pt: is at step 2; --iterations 1 is too few")
    assert state.read_bytes() == before and not output.exists()


def test_a_schedule_of_a_systems_own(training_shards: Path, tmp_path: Path) -> None:
    """Warm restarts end with the run, whatever --schedule-iterations says; halving never ends."""
    space = tmp_path / "space.pt"
    options: list[Any] = ["--preset", "small", "--batch", 1, "--validate-on", 0, "--device", "cpu"]
    learn = ["train-reblur", training_shards, "--system", "kernel-space", *options, "-q"]
    for _ in range(2):
        assert_done(invoke(*learn, "--iterations", 3, "--minutes", 1e-9, "-o", space))
    ran = invoke(*learn, "--iterations", 6, "--resume", "-o", space)
    assert_refused(ran, "over 3, which --iterations 6 would change; resume with --iterations 3")
    halved = tmp_path / "halved.pt"
    learn = ["train-deblur", training_shards, "--system", "msfs", *options, "--halve-every", 2]
    learn += ["--crop", 32, "--width", 8, "-q"]
    learn += ["--encoder-blocks", 1, "--latent-blocks", 1, "--decoder-blocks", 1, "-o", halved]
    assert_done(invoke(*learn, "--iterations", 2, "--minutes", 1e-9))
    assert_done(invoke(*learn, "--iterations", 3, "--resume"))
    assert load_checkpoint(halved).provenance["iterations"] == 3


def test_info_describes_a_state(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.pt"
    path = stopped(training_shards, output)
    ran = invoke("info", path, "--json")
    assert_done(ran)
    (told,) = ran.json
    with path.open("rb") as file:
        state = load_tensors(file, "state")
    assert (told["kind"], told["system"]) == ("state of a training", "msdi")
    assert (told["step"], told["iterations"]) == (2, 3)
    assert told["configuration"] == json.loads(json.dumps(state["configuration"]))
    parameters = sum(
        tensor.numel() for tensor in state["networks"]["deblur"].values() if tensor.ndim
    )
    assert told["networks"]["deblur"]["parameters"] == parameters
    text = invoke("info", path).out.decode()
    assert "  kind: state of a training\n" in text and "  step: 2\n  iterations: 3\n" in text
