"""How training commands fail: one line that says what, where and what to do, and a status."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import pytest
import torch

from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.io.records import Record
from blurkit.io.streams import ShardWriter
from tests.cli.command import ENVIRONMENT, Ran, assert_refused, files, photo
from tests.cli.invoke import invoke
from tests.training.runs import DEBLUR, JOINT, beside, train

pytestmark = pytest.mark.usefixtures("one_thread")

QUICK = [*JOINT, "--validate-on", 0, "--iterations", 2]


def refused(*arguments: object, words: tuple[str, ...], status: int = 1) -> None:
    assert_refused(invoke(*arguments), *words, status=status)


def one_shard(folder: Path, *images: str) -> Path:
    """A folder with a training shard whose records hold some images."""
    folder.mkdir()
    with ShardWriter(folder / "train-0.h5") as writer:
        for number in range(2):
            writer.write(Record(f"{number}", {name: photo(number) for name in images}))
    return folder


# ---- shards and encoders -------------------------------------------------------------------------


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["blur"] = [1.0, 2.0]


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: path.write_bytes(b"no shard at all, but some text " * 100),
        lambda path: path.write_bytes(b""),
        foreign,
    ],
    ids=["truncated", "text", "empty", "foreign"],
)
def test_a_damaged_shard(damage: Callable[[Path], None], tmp_path: Path) -> None:
    shards = one_shard(tmp_path / "shards", "blur", "sharp")
    damage(shards / "train-0.h5")
    words = ("error: ", "train-0.h5: ")
    refused("train-reblur", shards, *QUICK, "-o", tmp_path / "x.pt", words=words)
    assert sorted(files(tmp_path)) == ["shards/train-0.h5"]


def test_shards_that_do_not_serve(tmp_path: Path) -> None:
    one_shard(tmp_path / "blurry", "blur")
    test = one_shard(tmp_path / "test", "blur", "sharp")
    (test / "train-0.h5").rename(test / "test-0.h5")
    before = files(tmp_path)
    for name, words in (
        ("nowhere", ("nowhere: no such shard or folder", "blurkit prepare")),
        ("test", ("holds no train-*.h5; make them with: blurkit prepare", str(test))),
        ("blurry", ("train-0.h5: no record holds blur and sharp",)),
    ):
        refused("train-reblur", tmp_path / name, *QUICK, "-o", tmp_path / "x.pt", words=words)
    assert files(tmp_path) == before


def test_encoders_that_do_not_serve(
    training_shards: Path, stage_1: Path, stage_2: Path, tmp_path: Path
) -> None:
    part, garbage, absent = (tmp_path / f"{n}.pt" for n in ("part", "garbage", "absent"))
    save_checkpoint(Checkpoint({"encoder": load_checkpoint(stage_1).networks["encoder"]}), part)
    garbage.write_bytes(os.urandom(1000))
    command = ["train-deblur", training_shards, *DEBLUR, "-o", tmp_path / "x.pt"]
    refused(*command, words=("--encoder FILE", "train-reblur"), status=2)
    for options, words in (
        ([absent], (f"{absent}: no such file (from --encoder)",)),
        ([garbage], ("garbage.pt: ", "not a checkpoint")),
        ([part], ("part.pt: holds encoder (DegradationEncoder)", "needs encoder and latents")),
        ([stage_2], ("deblur.pt: holds deblur (MSDINet)", "needs encoder and latents")),
        ([stage_1, "--blur-encoder", stage_2], ("deblur.pt: holds deblur (MSDINet), but no enc",)),
        ([stage_1, "--width", 16], ("its latents have width 8, the network 16",)),
    ):
        refused(*command, "--encoder", *options, words=words)
    assert list(files(tmp_path)) == ["garbage.pt", "part.pt"]


# ---- outputs and resuming ------------------------------------------------------------------------


def test_existing_output_is_left_alone(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "enc.pt"
    command = ["train-reblur", training_shards, *QUICK, "-o", output]
    output.write_bytes(b"precious")
    refused(*command, words=("enc.pt: exists already", "--force"))
    output.rename(beside(output, "state.pt"))
    refused(
        *command, words=("enc.state.pt: holds the state of a stopped run", "--resume", "--force")
    )
    assert beside(output, "state.pt").read_bytes() == b"precious"
    assert len(files(tmp_path)) == 1


def test_a_saved_state_is_not_lost_to_a_pipe(
    training_shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("train.state.pt").write_bytes(b"precious")
    words = ("train.state.pt: holds the state of a stopped run",)
    refused("train-reblur", training_shards, *QUICK, "-o", "-", words=words)
    assert Path("train.state.pt").read_bytes() == b"precious"


@pytest.mark.parametrize("name", ["x.txt", "folder", "folder.pt"])
def test_names_that_are_no_checkpoints(name: str, training_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "folder.pt").mkdir()
    words = (f"{name}: name a checkpoint ending in .pt",)
    refused("train-reblur", training_shards, *QUICK, "-o", tmp_path / name, words=words, status=2)


def test_output_that_cannot_be_written(training_shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    output = tmp_path / "file" / "enc.pt"
    refused("train-reblur", training_shards, *QUICK, "-o", output, words=("error: ", "file"))


def test_nothing_to_resume(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "enc.pt"
    command = ["train-reblur", training_shards, *QUICK, "-o", output, "--resume"]
    refused(*command, words=("enc.state.pt: no saved state to resume; run without --resume",))
    output.write_bytes(b"done")
    refused(*command, words=("enc.pt is finished",))
    assert output.read_bytes() == b"done"
    torch.save({"weights": torch.zeros(1)}, beside(output, "state.pt"))
    refused(*command, words=("enc.state.pt: is not the saved state of a training run",))


def test_resuming_another_run(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "enc.pt"
    command: list[Any] = ["train-reblur", training_shards, *JOINT, "-o", output]
    train(*command, "--minutes", 1e-9)  # its first step
    before = files(tmp_path)
    words = ("was trained with batch 2 (now 4), ema 0.9 (now 0.5)", "same options")
    refused(*command, "--resume", "--batch", 4, "--ema", 0.5, words=words)
    others = one_shard(tmp_path / "shards", "blur", "sharp")
    ran = invoke("train-reblur", others, *command[2:], "--resume")
    assert_refused(ran, "enc.state.pt: was trained with data ", "(now ")
    assert {k: v for k, v in files(tmp_path).items() if k in before} == before


# ---- features, numbers, choices ------------------------------------------------------------------


def test_no_such_feature_network(training_shards: Path, tmp_path: Path) -> None:
    words = ("absent.pth: no such file (from --features)",)
    command = ["train-reblur", training_shards, *QUICK, "--features", tmp_path / "absent.pth"]
    for perceptual in ("features", "auto"):
        refused(*command, "--perceptual", perceptual, "-o", tmp_path / "x.pt", words=words)


def test_no_feature_network_and_no_connection(training_shards: Path, tmp_path: Path) -> None:
    nowhere = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path / "hub")}
    environment = {k: v for k, v in ENVIRONMENT.items() if k != "BLURKIT_FEATURES"} | nowhere
    options = [*QUICK, "--perceptual", "features", "-o", tmp_path / "x.pt"]
    command = ["blurkit", "train-reblur", str(training_shards), *map(str, options)]
    done = subprocess.run(command, env=environment, capture_output=True, timeout=60)
    ran = Ran(done.returncode, done.stdout, done.stderr.decode())
    assert_refused(ran, "vgg19", "--features FILE", "BLURKIT_FEATURES", "--perceptual none")
    assert files(tmp_path) == {}


def test_a_loss_that_is_not_finite(training_shards: Path, tmp_path: Path) -> None:
    wild = ["--learning-rate", 1e30, "--iterations", 4, "-o", tmp_path / "x.pt"]
    words = ("step ", "loss is not finite", "lower --learning-rate", "--force")
    refused("train-reblur", training_shards, *QUICK, *wild, words=words)
    assert not (tmp_path / "x.pt").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        *(("--crop", 40), ("--batch", 0), ("--ema", 1), ("--seed", -1), ("--clip", -1)),
        *(("--width", 9), ("--log-every", 0), ("--learning-rate", "nan"), ("--beta1", 1)),
    ],
)
def test_values_that_make_no_sense(wrong: tuple[Any, ...], training_shards: Path) -> None:
    refused("train-reblur", training_shards, *QUICK, *wrong, words=(wrong[0],), status=2)


@pytest.mark.parametrize(
    "wrong",
    [
        *(("--preset", "tiny"), ("--generator", "triple"), ("--batch", "many")),
        *(("--precision", "int8"), ("--no-such-option",)),
    ],
)
def test_unknown_choices(wrong: tuple[str, ...]) -> None:
    ran = invoke("train-reblur", *wrong)
    assert ran.status == 2 and ran.out == b""
    assert ran.lines[-1].startswith("Error: ") and wrong[0] in ran.lines[-1]


def test_an_unknown_device(training_shards: Path, tmp_path: Path) -> None:
    command = ["train-reblur", training_shards, *QUICK, "-o", tmp_path / "x.pt", "--device"]
    refused(*command, "cuda:99", words=("--device cuda:99: this machine does not",), status=2)
    refused(*command, "toaster", words=("--device toaster: use auto, cpu",), status=2)
