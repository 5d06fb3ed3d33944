"""What the loop does around a recipe's step: clipping, averaging weights, and that it learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.nn.features import load_features
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.losses import psnr_loss
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.systems.registry import load_networks
from blurkit.training.recipe import Recipe
from tests.shared import shared_folder
from tests.training.plain_descent import descend
from tests.training.runs import batch

LEARNING: dict[str, Any] = {
    **{"width": 8, "hidden": 8, "learning_rate": 2e-3, "identity_start": False}
}
NO_ENCODER = Path("none")
STILL = {"iterations": 1, "learning_rate": 0.0, "final_learning_rate": 0.0}


def parameters(checkpoint: Checkpoint, roles: set[str]) -> Tensor:
    """All parameters of some networks in one vector."""
    networks = load_networks(checkpoint)
    return torch.cat([p.detach().flatten() for role in roles for p in networks[role].parameters()])


def test_clipping_bounds_the_norm_of_each_optimisers_gradients(
    training_shards: Path, tmp_path: Path
) -> None:
    """Under descent at rate 1 from a known start, a step is as long as its gradient."""
    start = descend("joint", training_shards, NO_ENCODER, tmp_path / "0.pt", **STILL)
    rates = {"iterations": 1, "learning_rate": 1.0, "ema": 0.0}
    lengths = []
    for name, clip in (("free", 0.0), ("clipped", 0.01)):
        output = tmp_path / f"{name}.pt"
        end = descend("joint", training_shards, NO_ENCODER, output, clip=clip, **rates)
        for roles in ({"encoder", "latents", "reblur", "deblur"}, {"discriminator"}):
            lengths.append(float((parameters(end, roles) - parameters(start, roles)).norm()))
    assert min(lengths[:2]) > 0.1
    assert lengths[2:] == pytest.approx([0.01, 0.01], rel=1e-3)


def test_averaged_weights_are_what_their_definition_says(
    training_shards: Path, tmp_path: Path
) -> None:
    """e_0 = w_0, e_k = 0.7 e_(k-1) + 0.3 w_k; statistics and spectral norms are the last ones."""

    def weights(steps: int, ema: float) -> dict[str, Tensor]:
        changed = {"iterations": steps, "schedule_iterations": 3, "ema": ema}
        output = tmp_path / f"{steps}-{ema}.pt"
        made = descend("joint", training_shards, NO_ENCODER, output, **changed)
        return {
            f"{r}.{k}": v.clone() for r, state in made.networks.items() for k, v in state.items()
        }

    start = descend("joint", training_shards, NO_ENCODER, tmp_path / "start.pt", **STILL)
    averaged = {f"{r}.{k}": v for r, state in start.networks.items() for k, v in state.items()}
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
    assert moved > 100


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
    recipe = ReblurRecipe(
        ReblurConfiguration.resolve(
            "small",
            **{"discriminator_width": 8, "reblur_loss": "adversarial", "encoder_rate": 1.0},
            **LEARNING,
        ),
        features,
    )
    crops = batch(training_shards)
    history = overfit(recipe, crops, steps=30)
    # Measured: 0.034, where the blurry crops are 0.039 away from the sharp ones; 37 to 4.9.
    assert history[-1]["deblur"] < float((crops["blur"] - crops["sharp"]).abs().mean())
    assert history[-1]["perceptual"] < 0.3 * history[0]["perceptual"]


def test_stage_2_learns_a_batch(training_shards: Path, stage_1: Path) -> None:
    torch.manual_seed(1)
    configuration = DeblurConfiguration.resolve("small", **LEARNING)
    recipe = DeblurRecipe(configuration, load_networks(load_checkpoint(stage_1)))
    crops = batch(training_shards)
    history = overfit(recipe, crops, steps=40)
    # Measured: from 19.0 dB to 31.3 dB, where the blurry crops have 24.1 dB; 2.3 to 0.80.
    assert history[-1]["psnr"] < float(psnr_loss(crops["blur"], crops["sharp"])) - 5
    assert history[-1]["blur"] < 0.5 * history[0]["blur"]
