"""A run that was killed, interrupted and terminated ends with the same bits as one that was not."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.training.runs import (
    DEBLUR,
    JOINT,
    STEPS,
    Interrupted,
    beside,
    log_length,
    read_log,
    tensors,
    train,
)


def stop_thrice_and_finish(output: Path, *arguments: object) -> None:
    """Kill a run at any moment after its first save, stop it by Ctrl-C, terminate it, finish it."""
    state, log = beside(output, "state.pt"), beside(output, "log.jsonl")
    killed = Interrupted(*arguments)
    killed.wait_for(state)
    time.sleep(random.uniform(0, 0.3))
    assert killed.stop(signal.SIGKILL)[0] == -signal.SIGKILL
    for number, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        stopped = Interrupted(*arguments, "--resume")
        stopped.wait_for(log, lines=log_length(log))
        assert stopped.stop(number) == (
            status,
            "stopped; the state is saved; continue with --resume\n",
        )
    assert not output.exists()
    train(*arguments, "--resume")


def assert_same_bits(output: Path, straight: Path) -> None:
    own, wanted = tensors(output), tensors(straight)
    assert own.keys() == wanted.keys()
    different = [key for key in own if own[key].numpy().tobytes() != wanted[key].numpy().tobytes()]
    assert different == []


def assert_same_log(output: Path, straight: Path) -> None:
    """Every step stands in the log once, in order, with the same losses.

    SSIM may differ in its last digit, with where its arrays lie in memory.
    """
    for own, wanted in zip(read_log(output), read_log(straight), strict=True):
        assert own.pop("validation", {}) == pytest.approx(wanted.pop("validation", {}), rel=1e-12)
        assert own == wanted
    steps = [line["step"] for line in read_log(output) if "losses" in line]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.slow  # MSFS-Net's does so in its own tests
@pytest.mark.parametrize("stage", ["train-reblur", "train-deblur"])
def test_a_stopped_run_ends_with_the_same_bits(
    stage: str, training_shards: Path, joint_run: Path, deblur_run: Path, tmp_path: Path
) -> None:
    output = tmp_path / "stopped.pt"
    options = JOINT if stage == "train-reblur" else [*DEBLUR, "--encoder", joint_run]
    stop_thrice_and_finish(output, stage, training_shards, *options, "-o", output)
    straight = joint_run if stage == "train-reblur" else deblur_run
    assert_same_bits(output, straight)
    assert_same_log(output, straight)
    assert not beside(output, "state.pt").exists()
    assert not list(tmp_path.glob(".*"))
