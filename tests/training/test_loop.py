"""What the loop does around a recipe's step: clipping, averages, checkpoints that are kept."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.blocks import psnr_loss
from blurkit.nn.features import load_features
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.systems.registry import load_networks
from blurkit.training.recipe import Recipe
from tests.cli.command import assert_refused, files
from tests.cli.invoke import done, invoke
from tests.shared import shared_folder
from tests.training.plain_descent import descend
from tests.training.runs import (
    Interrupted,
    assert_same_bits,
    batch,
    beside,
    plain,
    read_log,
    tensors,
    toy,
    train,
)

LEARNING = {"width": 8, "hidden": 8, "learning_rate": 2e-3, "identity_start": False}


def test_clipping_bounds_each_optimisers_gradients(training_shards: Path, tmp_path: Path) -> None:
    """Under descent at rate 1 from a known start, a step is as long as its gradient."""
    tiny = {"real_share": 0.0, "discriminator": "spectral", "initial_deviation": 0.3, "ema": 0.0}
    tiny |= {"iterations": 1, "final_learning_rate": 0.0}

    def weights(rate: float, clip: float) -> list[Tensor]:
        options = tiny | {"learning_rate": rate, "clip": clip}
        output = tmp_path / f"{rate}-{clip}.pt"
        made = load_networks(descend("bgan", training_shards, Path(), output, **options))
        return [torch.cat([p.flatten() for p in n.parameters()]) for n in made.values()]

    start, free, clipped = weights(0.0, 0.0), weights(1.0, 0.0), weights(1.0, 0.01)
    pairs = [*zip(start, free, strict=True), *zip(start, clipped, strict=True)]
    lengths = [(after - before).norm().item() for before, after in pairs]
    assert min(lengths[:2]) > 0.1
    assert lengths[2:] == pytest.approx([0.01, 0.01], rel=1e-3)


def test_averaged_weights_are_those_of_the_formula(training_shards: Path, tmp_path: Path) -> None:
    """e_0 = w_0, e_k = 0.7 e_(k-1) + 0.3 w_k; statistics and spectral norms are the last ones."""

    def weights(steps: int, ema: float, **options: Any) -> dict[str, Tensor]:
        output = tmp_path / f"{steps}-{ema}-{len(options)}.pt"
        toy(training_shards, output, schedule_iterations=3, iterations=steps, ema=ema, **options)
        return tensors(output)

    averaged = weights(1, 0.0, learning_rate=0.0, final_learning_rate=0.0)
    for step in (1, 2, 3):
        last = weights(step, 0.0)
        averaged = {key: 0.7 * averaged[key] + 0.3 * last[key] for key in last}
    buffers = ("_u", "_v", "running_mean", "running_var", "num_batches_tracked")
    moved = 0
    for key, value in weights(3, 0.7).items():
        if key.endswith(buffers):
            assert torch.equal(value, last[key]), key
        else:
            torch.testing.assert_close(value, averaged[key], rtol=1e-5, atol=1e-7, msg=key)
            moved += not torch.equal(value, last[key])
    assert moved == 6  # weight and bias of a convolution, a batch norm, and another convolution


def overfit(recipe: Recipe, crops: dict[str, Tensor], steps: int) -> list[dict[str, float]]:
    """The losses of many steps on one batch."""

    def update(name: str, loss: Tensor) -> None:
        optimizer = recipe.optimizers[name]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    history = []
    for _ in range(steps):
        for network in recipe.networks.values():
            network.train()
        losses = recipe.step(crops, update)
        history.append({name: float(loss) for name, loss in losses.items()})
    return history


@pytest.mark.slow
def test_stage_1_learns_a_batch(training_shards: Path) -> None:
    torch.manual_seed(1)
    weights = shared_folder("weights", "BLURKIT_WEIGHTS")
    features = load_features(weights / "squeezenet1_1_caffe_features.safetensors")
    options = {"discriminator_width": 8, "reblur_loss": "adversarial", "encoder_rate": 1.0}
    recipe = ReblurRecipe(ReblurConfiguration.resolve("small", **options, **LEARNING), features)
    crops = batch(training_shards)
    history = overfit(recipe, crops, steps=30)
    # Measured: 0.034, where the blurry crops are 0.039 away from the sharp ones; 37 to 4.9.
    assert history[-1]["deblur"] < float((crops["blur"] - crops["sharp"]).abs().mean())
    assert history[-1]["perceptual"] < 0.3 * history[0]["perceptual"]


@pytest.mark.slow
def test_stage_2_learns_a_batch(training_shards: Path, stage_1: Path) -> None:
    torch.manual_seed(1)
    networks = load_networks(load_checkpoint(stage_1))
    recipe = DeblurRecipe(DeblurConfiguration.resolve("small", **LEARNING), networks)
    crops = batch(training_shards)
    history = overfit(recipe, crops, steps=40)
    # Measured: from 19.0 dB to 31.3 dB, where the blurry crops have 24.1 dB; 2.3 to 0.80.
    assert history[-1]["psnr"] < float(psnr_loss(crops["blur"], crops["sharp"])) - 5
    assert history[-1]["blur"] < 0.5 * history[0]["blur"]


# ---- checkpoints that are kept: of every so many steps, and the best one -------------------------

KEPT = ["x.2.pt", "x.4.pt", "x.best.pt", "x.log.jsonl", "x.pt"]


def scored(shards: Path, output: Path, iterations: int, *options: object) -> list[object]:
    """A training that is validated after each step."""
    each = ("--schedule-iterations", 4, "--validate-on", 1, "--validate-every", 1, "--no-samples")
    return plain(shards, output, iterations, *each, *options)


@pytest.fixture(scope="module")
def kept(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four steps, of which every second and the best were kept."""
    output = tmp_path_factory.mktemp("kept") / "x.pt"
    train(*scored(training_shards, output, 4, "--save-every", 2))
    assert list(files(output.parent)) == KEPT
    return output


def test_kept_are_of_runs_that_end_there(kept: Path, training_shards: Path, tmp_path: Path) -> None:
    scores = {line["step"]: line["validation"] for line in read_log(kept) if "validation" in line}
    best = max(scores, key=lambda step: scores[step]["psnr"])
    for path, step in ((beside(kept, "2.pt"), 2), (beside(kept, "best.pt"), best)):
        about = load_checkpoint(path).provenance
        assert (about["iterations"], about["metrics"]) == (step, scores[step])
    short = tmp_path / "short.pt"
    train(*scored(training_shards, short, 2))
    assert_same_bits(beside(kept, "2.pt"), short)
    assert_same_bits(beside(kept, "4.pt"), kept)


def test_the_best_is_not_replaced_by_a_worse_one(training_shards: Path, tmp_path: Path) -> None:
    """A wild learning rate spoils the network after its first step, which changes little."""
    output = tmp_path / "x.pt"
    wild = ["--learning-rate", 0.05, "--final-learning-rate", 0.05, "--ema", 0]
    loud = [option for option in scored(training_shards, output, 3, *wild) if option != "-q"]
    ran = done(*loud)
    assert "step 3 of 3: 6 crops in " in ran.err and " crops/s" in ran.err
    scores = [line["validation"]["psnr"] for line in read_log(output) if "validation" in line]
    best = load_checkpoint(beside(output, "best.pt")).provenance
    assert best["metrics"]["psnr"] == max(scores) > scores[-1]
    assert f"the best so far, saved as {beside(output, 'best.pt')}" in ran.err


def test_a_resumed_run_keeps_its_own(kept: Path, training_shards: Path, tmp_path: Path) -> None:
    pieces = scored(training_shards, tmp_path / "x.pt", 4, "--save-every", 2)
    for _ in range(3):
        done(*pieces, "--minutes", 1e-9)
    done(*pieces, "--resume")
    assert list(files(tmp_path)) == KEPT
    for name in KEPT:
        if name.endswith(".pt"):
            assert_same_bits(tmp_path / name, kept.with_name(name))


def test_a_killed_run_that_kept_some_can_be_resumed(training_shards: Path, tmp_path: Path) -> None:
    """Long before its first regular save."""
    output = tmp_path / "x.pt"
    rarely = scored(training_shards, output, 8, "--save-minutes", 60)
    killed = Interrupted(*rarely)
    killed.wait_for(beside(output, "state.pt"))
    killed.stop(signal.SIGKILL)
    assert load_checkpoint(beside(output, "best.pt")).provenance["iterations"] < 8
    done(*rarely, "--resume")
    assert load_checkpoint(output).provenance["iterations"] == 8


@pytest.mark.parametrize("name", ["x.best.pt", "x.100.pt"])
def test_what_others_kept_is_left_alone(name: str, training_shards: Path, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"precious")
    kept = scored(training_shards, tmp_path / "x.pt", 2, "--save-every", 1)
    assert_refused(invoke(*kept), f"{name}: exists already; give --force to overwrite it")
    assert list(files(tmp_path)) == [name]
    assert (tmp_path / name).read_bytes() == b"precious"
    # Without validation and interval nothing of these would be written.
    done(*kept, "--validate-on", 0, "--save-every", 0, "--iterations", 1)
    assert (tmp_path / name).read_bytes() == b"precious"
    done(*kept, "--force")
    assert load_checkpoint(tmp_path / "x.best.pt").provenance["iterations"] in (1, 2)


def test_safetensors_are_kept_as_such(training_shards: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    done(*scored(training_shards, output, 1, "--save-every", 1))
    for name in ("x.1.safetensors", "x.best.safetensors"):
        assert load_checkpoint(tmp_path / name).provenance["iterations"] == 1
