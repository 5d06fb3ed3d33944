"""Recipes under plain gradient descent, alone or as a script under `torchrun`.

Adam divides each gradient by its own size, so its first steps turn rounding noise into full steps
wherever the true gradient is zero or tiny. Plain descent leaves noise as small as it is, and so
shows whether many processes follow the same gradients as one.
"""

import faulthandler
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems.dbgan.config import BGANConfiguration, DBGANConfiguration
from blurkit.systems.dbgan.recipe import BGANRecipe, DBGANRecipe
from blurkit.systems.kernel_space.config import KernelSpaceConfiguration
from blurkit.systems.kernel_space.recipe import KernelSpaceRecipe
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.systems.msfs.config import MSFSConfiguration
from blurkit.systems.msfs.recipe import MSFSRecipe
from blurkit.systems.registry import load_networks
from blurkit.tasks.train import run_plan
from blurkit.training.recipe import Plan, Recipe
from tests.training.runs import quiet, tensors, together

RATES = {"learning_rate": 1e-3, "final_learning_rate": 5e-4}
OPTIONS: dict[str, Any] = RATES | {
    **{"iterations": 3, "batch": 4, "crop": 64, "width": 8, "hidden": 8, "ema": 0.5},
    **{"identity_start": False, "sharp_pairs": 0.0, "clip": 5.0},
}
JOINT: dict[str, Any] = OPTIONS | {
    **{"discriminator_width": 8, "matching_weight": 10.0, "perceptual": "none"},
    **{"reblur_loss": "adversarial", "encoder_rate": 1.0},
}
ADVERSARIAL: dict[str, Any] = RATES | {
    **{"iterations": 2, "batch": 4, "crop": 64, "width": 8, "blocks": 1, "ema": 0.5},
    **{"discriminator_width": 8, "perceptual": "none", "initial_deviation": 0.1},
    **{"adversarial_weight": 1.0},
}
SEPARATING: dict[str, Any] = RATES | {
    **{"iterations": 1, "batch": 4, "crop": 64, "width": 8, "ema": 0.5, "identity_start": False},
    **{"contrastive_weight": 1.0},
}
SPACE: dict[str, Any] = {
    **{"iterations": 2, "batch": 4, "crop": 256, "width": 8, "variational": True, "ema": 0.5},
    **{"learning_rate": 1e-7, "final_learning_rate": 5e-8},
}
STAGES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "joint": (ReblurRecipe, ReblurConfiguration, JOINT),
    "deblur": (DeblurRecipe, DeblurConfiguration, OPTIONS),
    "msfs": (MSFSRecipe, MSFSConfiguration, SEPARATING),
    "kernel-space": (KernelSpaceRecipe, KernelSpaceConfiguration, SPACE),
    "bgan": (BGANRecipe, BGANConfiguration, ADVERSARIAL),
    "dbgan": (DBGANRecipe, DBGANConfiguration, ADVERSARIAL),
}


def make(stage: str, *helpers: Any, preset: str = "small", **changed: Any) -> Recipe:
    """The recipe of one of `STAGES`, with `changed` options; `helpers` are its other arguments."""
    kind, configuration, options = STAGES[stage]
    recipe: Recipe = kind(configuration.resolve(preset, **options | changed), *helpers)
    return recipe


Options = dict[str, Any] | None


def descend(
    stage: str, shards: Path, start: Path, output: Path, how: Options = None, **changed: Any
) -> Checkpoint:
    """A few steps of a training of one of `STAGES`, with `changed` options; `how` are a run's.

    `start` is the checkpoint of stage 1, or the BGAN whose blur DBGAN gets.
    """

    def build() -> Recipe:
        pretrained = [load_networks(load_checkpoint(start))] if stage == "deblur" else []
        recipe = make(stage, *pretrained, **changed)
        recipe.optimizers = {
            name: torch.optim.SGD(optimizer.param_groups[0]["params"])
            for name, optimizer in recipe.optimizers.items()
        }
        return recipe

    mixes = stage == "dbgan" and changed.get("variant") != "minus"
    run = quiet(output, how, augmentations={"bgan": str(start)} if mixes else {})
    return run_plan(Plan(build().configuration, build), [shards], run)


def apart(stage: str, shards: Path, start: Path, folder: Path, **changed: Any) -> dict[str, float]:
    """How far two processes end from one; see `distances`."""
    one, two = folder / "one.pt", folder / "two.pt"
    descend(stage, shards, start, one, **changed)
    given = "tests.training.plain_descent", stage, shards, start, two, json.dumps(changed)
    done = together(*given)
    assert done.returncode == 0, done.stderr
    return distances(one, two)


def differences(one: Path, two: Path) -> dict[str, Tensor]:
    """How far values of two checkpoints are apart; of a tensor's largest where that is above 1."""
    shared = tensors(two)
    return {
        key: (value.double() - shared[key].double()).abs() / max(1.0, float(value.abs().max()))
        for key, value in tensors(one).items()
    }


def distances(one: Path, two: Path) -> dict[str, float]:
    """The largest of the `differences`, by tensor."""
    return {key: float(apart.max()) for key, apart in differences(one, two).items()}


if __name__ == "__main__":
    faulthandler.dump_traceback_later(300)  # of processes that wait for each other
    descend(sys.argv[1], *map(Path, sys.argv[2:5]), **json.loads(sys.argv[5]))
