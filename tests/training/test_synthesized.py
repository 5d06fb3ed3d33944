"""Training on blur that is made for every crop, of photos that have none."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import get_args, get_type_hints

import pytest

from blurkit.errors import UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.synthesis import BLUR_KINDS
from blurkit.systems.msdi.config import ReblurConfiguration
from tests.cli.command import assert_done, assert_refused, run
from tests.training.runs import JOINT, Interrupted, beside, log_length, tensors, train

MADE = [*JOINT, "--synthesize", "realistic", "--synthetic-share", 0.5]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, training_shards: Path) -> Path:
    """Shards of the sharp photos alone."""
    folder = tmp_path_factory.mktemp("sharp")
    sharp = training_shards.parent / "photos"
    assert_done(run("prepare", sharp, "--as", "sharp", "-o", f"{folder}/", "-q"))
    return folder


@pytest.mark.slow  # test_resume.py does the same without drawn blur
def test_a_stopped_run_ends_with_the_same_bits(
    photos: Path, training_shards: Path, tmp_path: Path
) -> None:
    straight, output = tmp_path / "straight.pt", tmp_path / "stopped.pt"
    arguments = ["train-reblur", photos, training_shards, *MADE]
    train(*arguments, "-o", straight)
    stopped = Interrupted(*arguments, "-o", output)
    stopped.wait_for(beside(output, "log.jsonl"), lines=4)
    assert stopped.stop(signal.SIGINT)[0] == 130
    train(*arguments, "-o", output, "--resume")
    own, wanted = tensors(output), tensors(straight)
    assert own.keys() == wanted.keys()
    assert all(own[key].numpy().tobytes() == wanted[key].numpy().tobytes() for key in own)
    assert log_length(beside(output, "log.jsonl")) == log_length(beside(straight, "log.jsonl"))
    saved = load_checkpoint(straight)
    assert saved.configuration["synthesize"] == "realistic"
    assert saved.configuration["synthetic_share"] == 0.5
    assert saved.provenance["records"] == 6 + 3  # all photos, and the pairs to train on


def test_photos_alone_are_no_pairs(photos: Path, tmp_path: Path) -> None:
    ran = run("train-reblur", photos, *JOINT, "-o", tmp_path / "x.pt")
    assert_refused(ran, "no record holds blur and sharp")


def test_options_that_go_together() -> None:
    for options, words in (
        ({"synthetic_share": 0.5}, "--synthetic-share requires --synthesize"),
        ({"synthesize": "camera", "synthetic_share": 1.5}, "must be at most 1"),
        ({"synthesize": "spin"}, "--synthesize spin: use one of none, shake, camera"),
    ):
        with pytest.raises(UsageError, match=words):
            ReblurConfiguration.resolve("small", **options)
    assert ReblurConfiguration.resolve("small", synthesize="camera", synthetic_share=1.0)
    assert get_args(get_type_hints(ReblurConfiguration)["synthesize"]) == ("none", *BLUR_KINDS)
