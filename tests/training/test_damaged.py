"""Resuming from damaged logs and states, and on shards that have changed: one line each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from blurkit.io.checkpoints import with_checksums
from tests.cli.command import assert_done, assert_refused
from tests.cli.invoke import invoke
from tests.training.runs import beside
from tests.training.test_growing import command, stopped

Change = Callable[[dict[str, Any]], None]


def without(key: str) -> Change:
    def change(state: dict[str, Any]) -> None:
        del state[key]

    return change


def foreign(state: dict[str, Any]) -> None:
    state["networks"] = {role: {"w": torch.zeros(2)} for role in state["networks"]}


STATES: dict[str, tuple[Change, str]] = {
    "without networks": (without("networks"), "is not the saved state of a training run"),
    "without configuration": (without("configuration"), "damaged, or of another run"),
    "of another network": (foreign, "damaged, or of another run"),
    "without a version": (without("version"), "state version 1, but this blurkit reads 2; train"),
    "without checksums": (without("checksums"), "damaged, its checksums are missing"),
    "changed": (lambda state: state["metrics"].update(psnr=1.0), "'metrics/psnr' has changed"),
}


@pytest.fixture(scope="module")
def halfway(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that was stopped after its second step."""
    folder = tmp_path_factory.mktemp("halfway")
    stopped(training_shards, folder / "x.pt")
    return folder


@pytest.fixture
def output(halfway: Path, tmp_path: Path) -> Path:
    """The output of a copy of that run."""
    shutil.copytree(halfway, tmp_path / "run")
    return tmp_path / "run" / "x.pt"


def refused(shards: Path, output: Path, *words: str) -> None:
    before = beside(output, "state.pt").read_bytes()
    assert_refused(invoke(*command(shards, output, 3, "--resume")), *words)
    assert beside(output, "state.pt").read_bytes() == before


@pytest.mark.parametrize("name", STATES)
def test_states(name: str, training_shards: Path, output: Path) -> None:
    change, words = STATES[name]
    path = beside(output, "state.pt")
    state = torch.load(path, weights_only=True)
    change(state)
    if name not in ("without checksums", "changed"):
        state = with_checksums({key: state[key] for key in state if key != "checksums"})
    torch.save(state, path)
    refused(training_shards, output, "x.state.pt: ", words)


def test_a_flipped_bit(training_shards: Path, output: Path) -> None:
    path = beside(output, "state.pt")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x40
    path.write_bytes(data)
    refused(training_shards, output, "x.state.pt: damaged, ")


@pytest.mark.parametrize("line", ["\0\0\0garbage", '{"a": 1}', "3", '{"step": "one"}'])
def test_lines_of_the_log(line: str, training_shards: Path, output: Path) -> None:
    log = beside(output, "log.jsonl")
    count = len(log.read_text().splitlines())
    with log.open("a") as file:
        file.write(line + "\n")
    refused(
        training_shards, output, f"x.log.jsonl: line {count + 1} is no line of a log; remove it"
    )


def test_a_log_that_exists_is_kept(training_shards: Path, tmp_path: Path) -> None:
    log = tmp_path / "x.log.jsonl"
    log.write_text("precious notes\n")
    ran = invoke(*command(training_shards, tmp_path / "x.pt", 1))
    assert_refused(ran, "x.log.jsonl: exists already; give --force")
    assert log.read_text() == "precious notes\n"
    assert_done(invoke(*command(training_shards, tmp_path / "x.pt", 1, "--force")))
    assert "precious" not in log.read_text()


def test_shards_that_changed(training_shards: Path, output: Path, tmp_path: Path) -> None:
    """Their pixels, their checksums with them, or their pixels behind the first megabyte."""
    shards = tmp_path / "shards"
    shutil.copytree(training_shards, shards)
    path = next(shards.glob("train-*.h5"))
    with h5py.File(path, "r+") as file:
        last = file[max(file)]["sharp"]
        last[-1, -1, 0] ^= 1
    words = "train-00000.h5: record 00000002: image 'sharp' has changed since it was written"
    refused(shards, output, words)
    assert_refused(invoke(*command(shards, tmp_path / "y.pt", 1)), words)
    changed = command(shards, tmp_path / "y.pt", 1, "--no-verify", "--force")
    assert_done(invoke(*changed))
    ran = invoke(*command(shards, output, 3, "--resume", "--no-verify"))
    assert_refused(ran, "x.state.pt: was trained with data ")


def test_a_resumed_run_may_replace_what_it_was_allowed_to(
    training_shards: Path, tmp_path: Path
) -> None:
    output = tmp_path / "x.pt"
    output.write_text("an older checkpoint")
    assert_done(invoke(*command(training_shards, output, 3, "--force", "--minutes", 1e-9)))
    assert output.read_text() == "an older checkpoint"
    assert_done(invoke(*command(training_shards, output, 3, "--resume")))
    assert torch.load(output, weights_only=True)["format"] == "blurkit-checkpoint"
