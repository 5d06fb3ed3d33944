"""Two processes with half of the batch each end where one with the whole batch ends.

Measured for one step in float32 against float64: Adam turns 138 of 3.2 million values of the joint
stage, and 627 of 2.0 million of the deblurring stage, the other way. All have gradients below
1e-5 of the largest, like the biases in front of an instance norm, whose true gradient is zero. So
under Adam a few may be up to two learning rates apart; under plain descent every value must agree.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from blurkit.errors import UsageError
from blurkit.systems.dbgan.recipe import gradient_penalty
from blurkit.training.distributed import Processes, SynchronisedBatchNorm, synchronise_batch_norm
from tests.cli.bgans import saved
from tests.cli.command import ENVIRONMENT
from tests.shared import ROOT
from tests.training.plain_descent import apart, descend, differences, distances
from tests.training.runs import (
    DEBLUR,
    JOINT,
    WHOLE,
    beside,
    read_log,
    together,
    train,
    two_processes,
)

TOLERANCE = 1e-5


UNEQUAL: dict[str, Any] = {"batch": 5, "discriminator": "spectral", "real_share": 0.0}
"""Of five crops, one process has two parts of one crop, the other parts of one and two."""


STAGES = {"train-reblur": [*JOINT, "--start"], "train-deblur": [*DEBLUR, "--encoder"]}
STEP = ("--iterations", 1, "--ema", 0, "--no-samples", *WHOLE)


@pytest.fixture(scope="module")
def two(training_shards: Path, stage_1: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what two processes made: gradients of a penalty, a descent, and a step."""
    folder = tmp_path_factory.mktemp("two")
    ran = two_processes("tests.training.test_distributed", training_shards, stage_1, folder)
    for status, told in ran:
        assert status == 0, told
    return folder


def descent(shards: Path, output: Path, **how: Any) -> None:
    descend("bgan", shards, Path(), output, how, **UNEQUAL)


def penalty_gradients() -> list[Tensor]:
    """The gradients of all parameters, averaged over processes with a part of a batch each."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.LeakyReLU(0.2), nn.Conv2d(4, 1, 3)]
    network = nn.Sequential(*layers)
    real, fake, share = torch.rand(3, 4, 3, 8, 8)
    processes = Processes(torch.device("cpu"))
    if processes.count > 1:
        synchronise_batch_norm(network)
    own = processes.share(4)
    gradient_penalty(network, real[own], fake[own], share[own][:, :1, :1, :1]).backward()
    gradients = [p.grad for p in network.parameters() if p.grad is not None]
    return [processes.sum(gradient) / processes.count for gradient in gradients]


def test_two_processes_have_the_gradient_penalty_of_one(two: Path) -> None:
    """Its gradient goes twice through the statistics of a batch norm, the sums over processes."""
    for one, shared in zip(penalty_gradients(), torch.load(two / "gradients.pt"), strict=True):
        torch.testing.assert_close(shared, one, rtol=1e-4, atol=1e-5)


def test_two_processes_with_parts_and_unequal_shares_follow_one(
    two: Path, training_shards: Path, tmp_path: Path
) -> None:
    descent(training_shards, tmp_path / "one.pt")
    assert max(distances(tmp_path / "one.pt", two / "two.pt").values()) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "tolerance", "changed"),
    [
        *(("joint", 1e-5, {}), ("deblur", 1e-5, {})),
        # Means over the whole batch; of each process's own lead 6e-4, 0.1 and more apart.
        *(("msfs", 5e-5, {}), ("bgan", 1e-3, {})),
        # Means of each process's own lead 0.7 apart. One step, as in the second rounding decides: a
        # millionth in the weights of one process alone leads 0.014 apart.
        ("dbgan", 1e-3, {"iterations": 1}),
        ("msfs", 5e-5, {"batch": 3, "layers": "official"}),  # batch norms of unequal shares
    ],
)
def test_two_processes_follow_the_gradients_of_one(
    stage: str,
    tolerance: float,
    changed: dict,
    training_shards: Path,
    stage_1: Path,
    tmp_path: Path,
) -> None:
    given = stage, training_shards, saved(tmp_path / "bgan.pt") if stage == "dbgan" else stage_1
    found = apart(*given, tmp_path, **changed)
    assert {key: distance for key, distance in found.items() if distance > tolerance} == {}
    still = {"learning_rate": 0, "final_learning_rate": 0}
    descend(*given, tmp_path / "still.pt", **changed | still)
    assert max(distances(tmp_path / "one.pt", tmp_path / "still.pt").values()) > 5 * tolerance


def train_together(*arguments: object) -> None:
    """A training command by the examples' `train`, in two processes."""
    script = ["bash", "-c", 'source "$0"; train "$@"', ROOT / "examples/train.sh"]
    command, environment = [*map(str, (*script, *arguments))], ENVIRONMENT | {"GPUS": "2"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr


def assert_same_step(stage: str, one: Path, two: Path) -> None:
    """Two processes have found the losses and the weights of one."""
    (losses, validation), (own_losses, own_validation) = map(read_log, (one, two))
    # One crop has no other to exchange its degradation with: only a process of two measures that.
    exchange = ["exchange"] if stage == "train-reblur" else []
    for name in ("degradations", "restored", *exchange):
        assert losses["losses"].pop(name) > 0
    assert own_losses["losses"] == pytest.approx(losses["losses"], rel=TOLERANCE)
    assert own_validation["validation"] == pytest.approx(validation["validation"], rel=1e-3)
    apart = torch.cat([values.flatten() for values in differences(one, two).values()])
    assert (apart > TOLERANCE).double().mean() < 0.02
    assert apart.max() <= 2 * losses["learning_rates"].popitem()[1]


def test_two_processes_take_the_same_step(
    two: Path, training_shards: Path, stage_1: Path, tmp_path: Path
) -> None:
    given = (*STAGES["train-reblur"], stage_1, *STEP)
    train("train-reblur", training_shards, *given, "-o", tmp_path / "one.pt")
    assert_same_step("train-reblur", tmp_path / "one.pt", two / "step.pt")


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_the_examples_start_two_processes(
    stage: str, training_shards: Path, stage_1: Path, tmp_path: Path
) -> None:
    options = [*STAGES[stage], stage_1, *STEP]
    train(stage, training_shards, *options, "-o", tmp_path / "one.pt")
    beside(tmp_path / "two.pt", "log.jsonl").write_text("of a run killed before its first save\n")
    train_together(stage, tmp_path / "two.pt", training_shards, *options)
    assert_same_step(stage, tmp_path / "one.pt", tmp_path / "two.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_synchronised_batch_norm_alone_is_batch_norm(dtype: torch.dtype) -> None:
    """Values far from zero, where the mean of squares less the square of the mean has no digits."""
    torch.manual_seed(0)
    values = (100 + torch.randn(3, 5, 7, 9)).to(dtype)
    weights = torch.randn(3, 5, 7, 9)
    whole, results = nn.Sequential(nn.BatchNorm2d(5)), []
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        synchronise_batch_norm(whole)
        for network in (whole[0], nn.BatchNorm2d(5)):
            x = values.clone().requires_grad_()
            y = network(x)
            (y.float() * weights).sum().backward()
            results.append((y, x.grad, network.running_mean, network.running_var))
    finally:
        dist.destroy_process_group()
    assert type(whole[0]) is SynchronisedBatchNorm
    for a, b in zip(*results, strict=True):
        rough = 2e-2 if a.dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(a, b, rtol=rough, atol=rough)  # which compares types, too


FEWER = "--batch 1: fewer crops than the 2 processes; start fewer"


def test_shares_of_a_batch() -> None:
    first, second = (Processes(torch.device("cpu")) for _ in range(2))
    first.count = second.count = 2
    second.rank = 1
    assert (first.share(5), second.share(5)) == (slice(0, 2), slice(2, 5))
    with pytest.raises(UsageError, match=FEWER):
        first.share(1)


@pytest.mark.slow
def test_fewer_crops_than_processes(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.pt"
    done = together("blurkit", "train-reblur", training_shards, *JOINT, "--batch", 1, "-o", output)
    assert done.returncode == 1
    assert f"error: {FEWER}" in done.stderr.splitlines()
    assert list(tmp_path.iterdir()) == []


if __name__ == "__main__":
    shards, stage_1, folder = map(Path, sys.argv[1:])
    gradients = penalty_gradients()
    descent(shards, folder / "two.pt", accumulate=2)
    if os.environ["RANK"] == "0":
        torch.save(gradients, folder / "gradients.pt")
    given = (*STAGES["train-reblur"], stage_1, *STEP)
    train("train-reblur", shards, *given, "-o", folder / "step.pt")
