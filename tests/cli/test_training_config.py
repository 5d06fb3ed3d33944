"""`--config FILE`: a training is repeated by what a dry run printed, or by its checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from tests.cli.command import assert_done, assert_refused
from tests.cli.invoke import invoke
from tests.training.runs import tensors

pytestmark = pytest.mark.usefixtures("one_thread")

NARROW = [*("--width", 8, "--encoder-blocks", 1, "--latent-blocks", 1, "--decoder-blocks", 1)]
MSFS = ["--system", "msfs", "--preset", "small", *NARROW, "--crop", 32, "--batch", 2]
RUN = ["--device", "cpu", "--validate-on", 0, "-q"]


@pytest.fixture
def printed(tmp_path: Path) -> Path:
    """What a dry run of two steps of MSFS-Net printed."""
    ran = invoke("train-deblur", *MSFS, "--iterations", 2, "--ema", 0.5, "--dry-run", "-q")
    assert_done(ran)
    path = tmp_path / "msfs.json"
    path.write_bytes(ran.out)
    return path


def test_a_run_is_repeated_by_one_file(
    printed: Path, training_shards: Path, tmp_path: Path
) -> None:
    first, again, other = (tmp_path / f"{name}.pt" for name in ("first", "again", "other"))
    learn = ["train-deblur", training_shards, *RUN]
    assert_done(invoke(*learn, "--config", printed, "-o", first))
    shown = json.loads(printed.read_text())
    made = load_checkpoint(first)
    assert {**shown, **made.configuration, "system": made.system} == shown
    assert made.configuration.keys() == shown.keys() - {"system", "estimate"}
    # Its checkpoint says the same, also where an option is given that it has anyway.
    assert_done(invoke(*learn, f"--config={first}", "--system", "msfs", "-o", again))
    assert all(torch.equal(t, tensors(first)[key]) for key, t in tensors(again).items())
    assert load_checkpoint(again).configuration == made.configuration
    # Single options win.
    assert_done(invoke(*learn, "--config", first, "--seed", 3, "--no-cross-scale", "-o", other))
    changed = {**made.configuration, "seed": 3, "cross_scale": False}
    assert load_checkpoint(other).configuration == changed


@pytest.mark.slow
def test_stage_2_is_repeated_with_its_encoder(stage_1: Path, stage_2: Path, tmp_path: Path) -> None:
    ran = invoke("train-deblur", "--config", stage_2, "--encoder", stage_1, "--dry-run", "-q")
    assert_done(ran)
    (shown,) = ran.json
    assert {**shown, **load_checkpoint(stage_2).configuration} == shown
    ran = invoke("train-reblur", "--config", stage_1, "--dry-run", "-q")
    assert_done(ran)
    assert {**ran.json[0], **load_checkpoint(stage_1).configuration} == ran.json[0]


def test_help_shows_the_options_of_the_files_system(printed: Path) -> None:
    shown = invoke("train-deblur", "--config", printed, "--help").out.decode()
    assert "Options of --system msfs" in shown and "--encoder-blocks" in shown


def test_an_older_file_leaves_new_options_at_their_defaults(printed: Path, tmp_path: Path) -> None:
    shown = json.loads(printed.read_text())
    del shown["cross_scale"], shown["estimate"]
    old = tmp_path / "old.json"
    old.write_text(json.dumps(shown, indent=2))
    ran = invoke("train-deblur", "--config", old, "--dry-run", "-q")
    assert_done(ran)
    assert ran.json[0]["cross_scale"] is True and ran.json[0]["ema"] == 0.5


@pytest.mark.parametrize(
    ("changed", "given", "words", "status"),
    [
        ({}, ["--preset", "small"], "--preset and --config exclude each other", 2),
        ({}, ["--system", "dbgan"], "--system dbgan: ", 2),
        ({}, ["--hidden", 8], "--hidden is not an option of --system msfs", 2),
        ({"system": "bgan"}, [], "is of --system bgan; train-deblur has msdi, msfs, dbgan", 2),
        ({"system": ""}, [], "x.json: holds no configuration of a training", 1),
        ({"depth": 3, "tea\n": 1}, [], "of --system msfs: 'depth', 'tea\\n'", 1),
        ({"batch": "many"}, [], "x.json: batch is 'many', not int", 1),
        ({"batch": True}, [], "x.json: batch is 'True', not int", 1),
        ({"batch": 0}, [], "--batch 0: must be at least 1", 2),
        ({"layers": "all"}, [], "--layers all: use one of", 2),
    ],
)
def test_what_does_not_fit_is_refused(
    changed: dict[str, Any], given: list[Any], words: str, status: int, printed: Path
) -> None:
    file = printed.with_name("x.json")
    file.write_text(json.dumps({**json.loads(printed.read_text()), **changed}))
    ran = invoke("train-deblur", "--config", file, *given, "--dry-run", "-q")
    assert_refused(ran, words, status=status)


def test_files_without_a_configuration(stage_2: Path, stage_1: Path, tmp_path: Path) -> None:
    learn = ["train-deblur", "--dry-run", "-q", "--config"]
    assert_refused(invoke(*learn, tmp_path / "no.json"), "no.json: no such file (from --config)")
    assert_refused(invoke(*learn, tmp_path / "no.pt"), "no.pt: no such checkpoint")
    for content in (b"text", b"[1]", b"\xff\xfe", b""):
        (tmp_path / "x.json").write_bytes(content)
        assert_refused(invoke(*learn, tmp_path / "x.json"), "is neither what --dry-run prints nor")
    network = load_checkpoint(stage_2).networks["deblur"]
    save_checkpoint(Checkpoint({"deblur": network}), tmp_path / "bare.pt")
    assert_refused(invoke(*learn, tmp_path / "bare.pt"), "holds no configuration of a training")
    # The configuration of stage 1, of a system of the same name.
    words = "enc.pt: not options of this training of --system msdi: "
    assert_refused(invoke(*learn, stage_1), words)
