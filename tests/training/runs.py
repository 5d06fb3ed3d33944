"""Small training runs, started as a user starts them, and what they leave behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import skimage.data
import torch
from torch import Tensor, nn

from blurkit.data.sampler import CropSampler
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.nn.blocks import spectral_conv
from blurkit.tasks.train import run_plan
from blurkit.training.configuration import Configuration, Run
from blurkit.training.recipe import Batch, Losses, Plan, Recipe
from blurkit.training.steps import gather_values
from tests.cli.command import ENVIRONMENT, warm_environment
from tests.cli.invoke import done
from tests.engine.networks import stored
from tests.shared import ROOT

STEPS = 4
TIMES = ("time", "crops_per_second")
TINY = [*("--preset", "small", "--batch", 2, "--crop", 64, "--hidden", 8, "--ema", 0.9)]
OFTEN = [*("--log-every", 1, "--validate-every", STEPS // 2, "--validate-on", 2)]
SHORT = [*("--iterations", STEPS, "--save-minutes", 0.004, "--device", "cpu", "-q")]
NARROW = [*("--width", 8, "--discriminator-width", 8, "--matching-weight", 10)]

JOINT = [*TINY, *OFTEN, *SHORT, *NARROW, "--perceptual", "none", "--reblur-loss", "adversarial"]
DEBLUR = [*TINY, *OFTEN, *SHORT]
WHOLE = ("--validate-protocol", "whole")
"""Validation in one piece, which takes a tenth of the time that the paper's slices take."""

PLAIN = [
    *(*DEBLUR, "--generator", "single", "--unshuffle", 2, "--width", 8, "--injection", "none"),
    *("--blur-weight", 0, "--validate-on", 0),
]
"""A U-Net on 2x2 blocks, which needs no encoder."""

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
    done("prepare", photos, *shake, "-o", f"{shards}/")
    return shards


def plain(shards: Path, output: Path, iterations: int, *options: object) -> list[object]:
    """A training command whose steps take little time."""
    return [*("train-deblur", shards, *PLAIN, "--iterations", iterations, "-o", output), *options]


def train(*arguments: object) -> None:
    """A training command to its end, in this process, on one thread as those that are started."""
    threads, argv = torch.get_num_threads(), sys.argv
    torch.set_num_threads(1)
    sys.argv = ["blurkit", *map(str, arguments)]  # which provenance keeps
    try:
        done(*arguments)
    finally:
        torch.set_num_threads(threads)
        sys.argv = argv


class Toy(Recipe):
    """Two optimisers, a spectral norm and a batch norm; the second loss sees the first update."""

    def __init__(self, learning_rate: float = 1.0, width: int = 4, **options: Any) -> None:
        small = {"batch": 4, "crop": 32} | options
        super().__init__(Configuration(learning_rate=learning_rate, **small))
        torch.manual_seed(0)
        self.first = nn.Sequential(spectral_conv(3, width), nn.BatchNorm2d(width))
        self.second = nn.Conv2d(width, 1, 3)
        self.networks = {"first": self.first, "second": self.second}
        self.optimizers = {name: self.adam(network) for name, network in self.networks.items()}
        self.seen: list[Tensor] = []

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        if optimizer == "first":
            loss = self.second(self.first(batch["blur"])).square().mean()
        else:
            with torch.no_grad():
                features = self.first(batch["blur"])
            self.seen.append(features)
            values = gather_values(self.second(features).mean((1, 2, 3)))
            loss = values.square().mean() / values.abs().mean()
        return loss, {optimizer: loss}


def toy(
    shards: Path, output: Path, how: dict[str, Any] | None = None, **options: Any
) -> Checkpoint:
    """Four steps of `Toy` with `options`; `how` are a run's."""
    options = {"iterations": 4, "learning_rate": 0.1, "final_learning_rate": 0.01} | options
    run = quiet(output, how)
    return run_plan(Plan(Toy(**options).configuration, lambda: Toy(**options)), [shards], run)


def quiet(output: Path, how: dict[str, Any] | None, **more: Any) -> Run:
    """A run on the CPU that logs each step and validates nothing, with the options `how`."""
    how = {"log_every": 1, "validate_on": 0, "quiet": True} | (how or {})
    return Run(str(output), "cpu", **how, **more)


def save_untrained(recipe: Recipe, output: Path) -> Path:
    """The checkpoint of a training before its first step."""
    about = recipe.configuration
    return stored(output, recipe.networks, about.system, **about.as_dict())


def together(*arguments: object) -> subprocess.CompletedProcess[str]:
    """`python -m ARGUMENTS` in two processes under torchrun."""
    command = ["torchrun", "--standalone", "--nproc_per_node", "2", "-m", *map(str, arguments)]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)


def two_processes(module: str, *arguments: object) -> list[tuple[int, str]]:
    """`python -m MODULE ARGUMENTS` in two processes, as torchrun starts them: status and errors."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}
    group |= {"MASTER_PORT": port}
    processes = [
        started("-m", module, *arguments, **group, RANK=rank, LOCAL_RANK=rank) for rank in "01"
    ]
    told = [process.communicate(timeout=600)[1] for process in processes]
    return [(p.returncode, text) for p, text in zip(processes, told, strict=True)]


def started(*arguments: object, **variables: str) -> subprocess.Popen[str]:
    """`blurkit ARGUMENTS` in the background, with more environment variables."""
    command, environment = ["blurkit", *map(str, arguments)], warm_environment() | variables
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


class Interrupted:
    """A training run in the background, that will be stopped."""

    def __init__(self, *arguments: object) -> None:
        self.process = started(*arguments)

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


def assert_same_bits(output: Path, straight: Path) -> None:
    own, wanted = tensors(output), tensors(straight)
    assert own.keys() == wanted.keys()
    assert [key for key in wanted if not torch.equal(own[key], wanted[key])] == []


def assert_same_run(output: Path, straight: Path) -> None:
    """The same bits, and every step in the log once, in order, with the same losses."""
    assert_same_bits(output, straight)
    assert read_log(output) == read_log(straight)
    assert not beside(output, "state.pt").exists()


def batch(shards: Path, crop: int = 64, count: int = 2) -> dict[str, Tensor]:
    """Crops of blurry and sharp photos, (N, 3, crop, crop) in [0, 1]."""
    names = ("blur", "sharp")
    sampler = CropSampler(sorted(shards.glob("train-*.h5")), crop, names)
    images = (torch.from_numpy(each).permute(0, 3, 1, 2) for each in sampler.batch(3, 0, count))
    return {name: image / 255 for name, image in zip(names, images, strict=True)}
