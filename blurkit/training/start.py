"""From shards and a configuration to a finished checkpoint: what a training command calls."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import blurkit
from blurkit.data.sampler import CropSampler, find_shards, map_scenes
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
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
    sampler = CropSampler(shards, configuration.crop, recipe.images, configuration.sharp_pairs)
    validation = map_scenes(held_out, ("blur", "sharp")) if held_out else []
    provenance: dict[str, Any] = {
        "blurkit": blurkit.__version__,
        "torch": str(torch.__version__),  # a class of its own, which no safe reader takes
        "command": " ".join(["blurkit", *sys.argv[1:]]),
        "data": fingerprint(shards),
        "records": len(sampler),
        "seed": configuration.seed,
        **recipe.provenance,
    }
    trainer = Trainer(recipe, run, sampler, evenly(validation, run.validate_on), provenance)
    return trainer.train()


def fingerprint(shards: Sequence[Path]) -> str:
    """A short hash of the shards' names, sizes and first megabytes, where their records stand."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(f"{shard.name} {shard.stat().st_size}\n".encode())
        with shard.open("rb") as file:
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]
