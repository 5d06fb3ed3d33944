"""Small training runs, started as a user starts them, and what they leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import skimage.data
import torch
from torch import Tensor

from blurkit.data.sampler import CropSampler
from blurkit.io.checkpoints import Checkpoint, load_checkpoint, save_checkpoint
from blurkit.training.recipe import Recipe
from tests.cli.command import ENVIRONMENT, assert_done, warm_environment
from tests.cli.invoke import invoke
from tests.shared import ROOT

STEPS = 10
TIMES = ("time", "crops_per_second")
TINY = [*("--preset", "small", "--batch", 2, "--crop", 64, "--hidden", 8, "--ema", 0.9)]
OFTEN = [*("--log-every", 1, "--validate-every", STEPS // 2, "--validate-on", 2)]
SHORT = [*("--iterations", STEPS, "--save-minutes", 0.004, "--device", "cpu", "-q")]
NARROW = [*("--width", 8, "--discriminator-width", 8, "--matching-weight", 10)]

JOINT = [
    *(*TINY, *OFTEN, *SHORT, *NARROW),
    *("--perceptual", "none", "--reblur-loss", "adversarial"),
]
DEBLUR = [*TINY, *OFTEN, *SHORT]

PHOTOS = [
    *(("astronaut", 0, 150), ("coffee", 120, 150), ("chelsea", 60, 100)),
    *(("rocket", 100, 250), ("astronaut", 250, 60), ("coffee", 180, 320)),
]


def make_shards(folder: Path) -> Path:
    """Shards of six photos with camera shake: half of them to train, half to validate on."""
    photos, shards = folder / "photos", folder / "shards"
    photos.mkdir()
    for number, (name, top, left) in enumerate(PHOTOS):
        photo = getattr(skimage.data, name)()[top : top + 160, left : left + 176]
        imageio.imwrite(photos / f"{number}-{name}.png", photo)
    shake = [*("--synthesize", "shake", "--kernel-size", 9, 15, "--validation", 0.34)]
    shake += ["--seed", 1, "--jobs", 1, "-q"]
    assert_done(invoke("prepare", photos, *shake, "-o", f"{shards}/"))
    return shards


def train(*arguments: object) -> None:
    """A training command to its end, in this process, on one thread as those that are started."""
    threads, argv = torch.get_num_threads(), sys.argv
    torch.set_num_threads(1)
    sys.argv = ["blurkit", *map(str, arguments)]  # which provenance keeps
    try:
        assert_done(invoke(*arguments))
    finally:
        torch.set_num_threads(threads)
        sys.argv = argv


def save_untrained(recipe: Recipe, output: Path) -> Path:
    """The checkpoint of a training before its first step."""
    networks = {
        role: {key: value.clone() for key, value in network.state_dict().items()}
        for role, network in recipe.networks.items()
    }
    configuration = recipe.configuration
    save_checkpoint(Checkpoint(networks, configuration.system, configuration.as_dict()), output)
    return output


def together(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m ARGUMENTS` in two processes under torchrun."""
    command = ["torchrun", "--standalone", "--nproc_per_node", "2"]
    command += ["-m", *map(str, arguments)]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def train_together(stage: str, output: Path, *arguments: object) -> None:
    """A training command by the examples' `train`, in two processes."""
    command = ["bash", "-c", 'source "$0"; train "$@"', ROOT / "examples/train.sh"]
    done = subprocess.run(
        [*map(str, [*command, stage, output, *arguments])],
        env=ENVIRONMENT | {"GPUS": "2"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr


class Interrupted:
    """A training run in the background, that will be stopped."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            ["blurkit", *map(str, arguments)],
            env=warm_environment(),
            stderr=subprocess.PIPE,
            text=True,
        )

    def wait_for(self, path: Path, lines: int = 0) -> None:
        """Until `path` is there and has more than so many lines."""
        while not (path.exists() and (not lines or log_length(path) > lines)):
            assert self.process.poll() is None, self.process.communicate()[1]
            time.sleep(0.01)

    def stop(self, number: signal.Signals) -> tuple[int, str]:
        """Send a signal; the exit status and what was said."""
        assert self.process.poll() is None, "the run was over before it could be stopped"
        os.kill(self.process.pid, number)
        said = self.process.communicate(timeout=60)[1]
        return self.process.returncode, said


def resumed(folder: Path, *command: object) -> Path:
    """The checkpoint of 5 steps of a training, after one that was stopped and resumed has the same
    bits.
    """
    straight, stopped = folder / "straight.pt", folder / "stopped.pt"
    command = (*command, "--iterations", 5, "--log-every", 1, "--save-minutes", 0)
    train(*command, "-o", straight)
    first = Interrupted(*command, "-o", stopped)
    first.wait_for(beside(stopped, "log.jsonl"), lines=2)
    assert first.stop(signal.SIGINT)[0] == 130
    train(*command, "-o", stopped, "--resume")
    one, other = tensors(stopped), tensors(straight)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[key], other[key]) for key in one)
    return straight


def beside(output: Path, ending: str) -> Path:
    """A companion of a checkpoint: its `log.jsonl`, `state.pt` or `samples`."""
    return output.with_name(f"{output.stem}.{ending}")


def log_length(path: Path) -> int:
    """The number of lines in a log that may be just being written."""
    return path.read_text().count("\n")


def read_log(output: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without times and speeds."""
    lines = beside(output, "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in TIMES} for line in lines]


def tensors(checkpoint: Path) -> dict[str, Tensor]:
    """Every tensor of a checkpoint under role and key."""
    networks = load_checkpoint(checkpoint).networks
    return {f"{role}.{key}": t for role, state in networks.items() for key, t in state.items()}


def batch(shards: Path, crop: int = 64, count: int = 2) -> dict[str, Tensor]:
    """Crops of blurry and sharp photos, (N, 3, crop, crop) in [0, 1]."""
    sampler = CropSampler(sorted(shards.glob("train-*.h5")), crop, ("blur", "sharp"))
    pairs = zip(("blur", "sharp"), sampler.batch(3, 0, count), strict=True)
    return {
        name: torch.from_numpy(values.transpose(0, 3, 1, 2).astype(np.float32) / 255)
        for name, values in pairs
    }
