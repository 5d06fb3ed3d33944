"""From shards and a configuration to a finished checkpoint: what a training command calls."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

import blurkit
from blurkit.data.drawing import Synthesis
from blurkit.data.sampler import CropSampler, find_shards, map_scenes
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.models.msdi import STEERING_KEYS
from blurkit.training.configuration import Configuration, Run
from blurkit.training.loop import Trainer
from blurkit.training.recipe import Recipe
from blurkit.training.validation import evenly


def start_training(
    configuration: Configuration,
    run: Run,
    inputs: Sequence[Path],
    build: Callable[[], Recipe],
) -> Checkpoint:
    """Train the recipe that `build` makes on the shards in `inputs`; returns its checkpoint.

    Folders give their `train-*.h5`, and `test-*.h5` and `val-*.h5` to validate on. `build` is
    called after the seed is set. Raises BlurkitError for missing or unusable shards, and whatever
    `Trainer.train` raises.
    """
    shards = find_shards(inputs, "train")
    if not shards:
        names = ", ".join(map(str, inputs))
        raise BlurkitError(f"{names}: holds no train-*.h5; make them with: blurkit prepare")
    held_out = [*find_shards(inputs, "test"), *find_shards(inputs, "val")]
    torch.manual_seed(configuration.seed)
    recipe = build()
    begun = load_checkpoint(run.start) if run.start else None
    if begun is not None:
        begin_with(recipe, begun)
    c = configuration
    synthesis = None if c.synthesize == "none" else Synthesis(c.synthesize)
    sampler = CropSampler(
        shards, c.crop, recipe.images, c.sharp_pairs, synthesis, c.synthetic_share
    )
    partly = synthesis is not None
    scenes = map_scenes(held_out, ("blur", "sharp"), partly) if held_out else []
    validation = [scene for scene in scenes if scene.whole]
    provenance: dict[str, Any] = {
        "blurkit": blurkit.__version__,
        "torch": str(torch.__version__),  # a class of its own, which no safe reader takes
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": " ".join(["blurkit", *sys.argv[1:]]),
        "data": fingerprint(shards),
        "records": len(sampler),
        "seed": configuration.seed,
        **recipe.provenance,
    }
    if begun is not None:
        provenance["start"] = begun.provenance
    trainer = Trainer(recipe, run, sampler, evenly(validation, run.validate_on), provenance)
    return trainer.train()


def begin_with(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Give the networks of `recipe` the weights that `checkpoint` holds for their roles.

    Roles that it does not hold stay as they are, and so does an encoder that a packed network goes
    without. Raises BlurkitError when it holds none of the roles, or another network in one.
    """
    shared = [role for role in recipe.networks if role in checkpoint.networks]
    if not shared:
        wanted, there = ", ".join(recipe.networks), ", ".join(checkpoint.networks)
        raise BlurkitError(f"{checkpoint.where}: holds {there}; --start needs one of {wanted}")
    for role in shared:
        own, given = recipe.networks[role].state_dict(), checkpoint.networks[role]
        own = {k: v for k, v in own.items() if k in given or not k.startswith(STEERING_KEYS)}
        wrong = [k for k in {**own, **given} if k not in own or k not in given]
        wrong += [k for k in own if k in given and own[k].shape != given[k].shape]
        if wrong:
            raise BlurkitError(
                f"{checkpoint.where}: its {role} is another network than this training's "
                f"({wrong[0]} differs); give the options that it was trained with"
            )
        for key, value in own.items():
            value.copy_(given[key])


def fingerprint(shards: Sequence[Path]) -> str:
    """A short hash of the shards' names, sizes and first megabytes, where their records stand."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(f"{shard.name} {shard.stat().st_size}\n".encode())
        with shard.open("rb") as file:
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]
