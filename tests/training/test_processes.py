"""Two processes with half of the batch each end where one with the whole batch ends.

Measured for one step in float32 against float64: Adam turns 138 of 3.2 million values of the joint
stage, and 627 of 2.0 million of the deblurring stage, the other way. All have gradients below
1e-5 of the largest, like the biases in front of an instance norm, whose true gradient is zero. So
under Adam a few may be up to two learning rates apart; under plain descent every value must agree.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from blurkit.io.checkpoints import load_checkpoint
from blurkit.systems.uses import network_for
from blurkit.training.distributed import SynchronisedBatchNorm, synchronise_batch_norm
from tests.training.penalty import penalty_gradients
from tests.training.plain_descent import apart, descend
from tests.training.runs import (
    DEBLUR,
    JOINT,
    batch,
    beside,
    read_log,
    tensors,
    together,
    train,
    train_together,
)

TOLERANCE = 1e-5


def distances(first: Tensor, second: Tensor) -> Tensor:
    """Absolute differences, over the tensor's largest value where that is above 1."""
    scale = max(1.0, float(first.abs().max()))
    return (first.double() - second.double()).abs() / scale


def restored(checkpoint: Path, photo: Tensor) -> Tensor:
    with torch.no_grad():
        output = network_for("deblurring", load_checkpoint(checkpoint))(photo)
        return output if isinstance(output, Tensor) else output[-1]


@pytest.mark.slow  # the recipes of other systems do so in their own tests
@pytest.mark.parametrize("stage", ["joint", "deblur"])
def test_two_processes_follow_the_gradients_of_one(
    stage: str, training_shards: Path, stage_1: Path, tmp_path: Path
) -> None:
    found = apart(stage, training_shards, stage_1, tmp_path)
    one, two, still = (tmp_path / f"{name}.pt" for name in ("one", "two", "still"))
    assert {key: d for key, d in found.items() if d > TOLERANCE} == {}
    photo = batch(training_shards)["blur"]
    assert distances(restored(one, photo), restored(two, photo)).max() <= TOLERANCE
    # The weights did move, by far more than the tolerance.
    descend(stage, training_shards, stage_1, still, learning_rate=0, final_learning_rate=0)
    moved = distances(restored(one, photo), restored(still, photo))
    assert moved.max() > 100 * TOLERANCE


@pytest.mark.parametrize(
    "stage", ["train-reblur", pytest.param("train-deblur", marks=pytest.mark.slow)]
)
def test_two_processes_under_torchrun_take_the_same_step(
    stage: str, training_shards: Path, stage_1: Path, tmp_path: Path
) -> None:
    given = [*JOINT, "--start"] if stage == "train-reblur" else [*DEBLUR, "--encoder"]
    options = [*given, stage_1, "--iterations", 1, "--ema", 0, "--no-samples"]
    train(stage, training_shards, *options, "-o", tmp_path / "one.pt")
    beside(tmp_path / "two.pt", "log.jsonl").write_text("of a run killed before its first save\n")
    train_together(stage, tmp_path / "two.pt", training_shards, *options)
    (losses, validation), (own_losses, own_validation) = (
        read_log(tmp_path / name) for name in ("one.pt", "two.pt")
    )
    # One crop has no other to exchange its degradation with: only a process of two measures that.
    exchange = ["exchange"] if stage == "train-reblur" else []
    for name in ("degradations", "restored", *exchange):
        assert losses["losses"].pop(name) > 0
    assert own_losses["losses"] == pytest.approx(losses["losses"], rel=TOLERANCE)
    assert own_validation["validation"] == pytest.approx(validation["validation"], rel=1e-3)
    alone, shared = tensors(tmp_path / "one.pt"), tensors(tmp_path / "two.pt")
    apart = torch.cat([distances(alone[key], shared[key]).flatten() for key in alone])
    assert (apart > TOLERANCE).double().mean() < 0.02
    assert apart.max() <= 2 * losses["learning_rates"].popitem()[1]


def test_two_processes_have_the_gradient_penalty_of_one(tmp_path: Path) -> None:
    """Its gradient goes twice through the statistics of a batch norm, the sums over processes."""
    done = together("tests.training.penalty", tmp_path / "gradients.pt")
    assert done.returncode == 0, done.stderr
    for one, shared in zip(penalty_gradients(), torch.load(tmp_path / "gradients.pt"), strict=True):
        torch.testing.assert_close(shared, one, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_synchronised_batch_norm_alone_is_batch_norm(dtype: torch.dtype) -> None:
    """Values far from zero, where the mean of squares less the square of the mean has no digits."""
    torch.manual_seed(0)
    values = (100 + torch.randn(3, 5, 7, 9)).to(dtype)
    weights = torch.randn(3, 5, 7, 9)
    whole, wanted = nn.Sequential(nn.BatchNorm2d(5)), nn.BatchNorm2d(5)
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        synchronise_batch_norm(whole)
        own = whole[0]
        results = []
        for network in (own, wanted):
            x = values.clone().requires_grad_()
            y = network(x)
            (y.float() * weights).sum().backward()
            results.append((y, x.grad, network.running_mean, network.running_var))
    finally:
        dist.destroy_process_group()
    assert type(own) is SynchronisedBatchNorm
    for a, b in zip(*results, strict=True):
        assert a is not None and b is not None and a.dtype == b.dtype
        rough = 2e-2 if a.dtype == torch.bfloat16 else 1e-4
        torch.testing.assert_close(a, b, rtol=rough, atol=rough)


def test_fewer_crops_than_processes(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.pt"
    done = together("blurkit", "train-reblur", training_shards, *JOINT, "--batch", 1, "-o", output)
    assert done.returncode == 1
    message = "error: --batch 1: fewer crops than the 2 processes; start fewer"
    assert message in done.stderr.splitlines()
    assert list(tmp_path.iterdir()) == []
