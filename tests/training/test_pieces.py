"""Training in pieces: so many minutes each, small states, crops drawn by processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from blurkit.io.checkpoints import load_tensors
from tests.cli.command import Ran, assert_done
from tests.cli.invoke import invoke
from tests.training.runs import DEBLUR, beside, tensors, train

PLAIN = [
    *(*DEBLUR, "--generator", "single", "--unshuffle", 2, "--width", 8, "--injection", "none"),
    *("--blur-weight", 0, "--frequency-weight", 0.1, "--pixel-loss", "l1"),
    *("--sharp-pairs", 0.1, "--precision", "fp32"),
    *("--synthesize", "realistic", "--synthetic-share", 0.5, "--validate-on", 0),
]
"""The U-Net on 2x2 blocks, on stored blur and blur made for every crop."""


def piece(*arguments: object) -> Ran:
    """One training command as short as can be: a step, if it is not the last."""
    done = invoke(*arguments, "--minutes", 1e-9)
    assert_done(done)
    return done


@pytest.fixture(scope="module")
def straight(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps without a pause."""
    output = tmp_path_factory.mktemp("straight") / "straight.pt"
    train("train-deblur", training_shards, *PLAIN, "--iterations", 3, "-o", output)
    return output


def test_the_same_command_goes_on_and_ends_with_the_same_bits(
    straight: Path, training_shards: Path, tmp_path: Path
) -> None:
    output = tmp_path / "pieces.pt"
    arguments = ["train-deblur", training_shards, *PLAIN, "--iterations", 3, "-o", output]
    for _ in range(2):
        done = piece(*arguments)
        assert done.err == "time is up; the state is saved; run the same command to continue\n"
        assert beside(output, "state.pt").exists() and not output.exists()
    assert_done(piece(*arguments))  # the last step, which ends the training
    assert output.exists() and not beside(output, "state.pt").exists()
    own, wanted = tensors(output), tensors(straight)
    assert all(torch.equal(own[key], wanted[key]) for key in wanted)
    lines = [json.loads(line) for line in beside(output, "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "losses" in line] == [1, 2, 3]
    assert all(line["crops_per_second"] > 0 for line in lines if "losses" in line)
    terms = {"l1", "frequency", "restored"}
    assert all(terms == {*line["losses"]} for line in lines if "losses" in line)


def test_a_half_state_is_half_as_large_and_resumes_nearly_the_same(
    straight: Path, training_shards: Path, tmp_path: Path
) -> None:
    sizes = {}
    for name, options in (("whole", []), ("half", ["--half-state"])):
        output = tmp_path / f"{name}.pt"
        arguments = ["train-deblur", training_shards, *PLAIN, "--iterations", 3, "-o", output]
        piece(*arguments, *options)
        sizes[name] = beside(output, "state.pt").stat().st_size
    assert sizes["half"] < 0.6 * sizes["whole"]
    with beside(output, "state.pt").open("rb") as file:
        state = load_tensors(file, "state")
    moments = state["optimizers"]["deblur"]["state"][0]
    assert moments["exp_avg"].dtype == moments["exp_avg_sq"].dtype == torch.bfloat16
    assert moments["step"].dtype == torch.float32  # a counter that must stay whole
    train(*arguments, "--half-state", "--resume")
    own, wanted = tensors(output), tensors(straight)
    # Two steps at a learning rate of 1e-3 stay near those that began with all digits.
    assert max(float((own[key] - wanted[key]).abs().max()) for key in wanted) < 4e-3
    assert not all(torch.equal(own[key], wanted[key]) for key in wanted)


@pytest.mark.skipif(sys.platform != "linux", reason="training takes processes on Linux only")
def test_processes_draw_the_same_crops(
    straight: Path, training_shards: Path, tmp_path: Path
) -> None:
    output = tmp_path / "jobs.pt"
    options = [*PLAIN, "--iterations", 3, "--jobs", 2]
    train("train-deblur", training_shards, *options, "-o", output)
    own, wanted = tensors(output), tensors(straight)
    assert all(torch.equal(own[key], wanted[key]) for key in wanted)


def test_speed_is_told(training_shards: Path, tmp_path: Path) -> None:
    loud = [option for option in PLAIN if option != "-q"]
    output = tmp_path / "loud.pt"
    done = invoke("train-deblur", training_shards, *loud, "--iterations", 2, "-o", output)
    assert_done(done)
    assert "step 2 of 2: 4 crops in " in done.err and " crops/s" in done.err
