"""From shards and a configuration to a finished checkpoint: what a training command calls."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import blurkit
from blurkit.data.sampler import CropSampler, UnpairedSampler, find_shards, map_scenes
from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.synthesis.drawing import Synthesis
from blurkit.systems.msdi.networks import MODULATION_KEYS, STEERING_KEYS
from blurkit.systems.registry import differences
from blurkit.systems.uses import network_for
from blurkit.training.configuration import Configuration, Run
from blurkit.training.loop import Trainer
from blurkit.training.mixing import BlurMixing
from blurkit.training.recipe import Recipe, trainable
from blurkit.training.validation import evenly


def start_training(
    configuration: Configuration,
    run: Run,
    inputs: Sequence[Path],
    build: Callable[[], Recipe],
    photos: Sequence[Path] = (),
) -> Checkpoint:
    """Train the recipe that `build` makes on the shards in `inputs`; returns its checkpoint.

    Folders give their `train-*.h5`, and `test-*.h5` and `val-*.h5` to validate on. `photos` are
    shards of blurry photos that stand beside the crops, unrelated to them. `build` is called after
    the seed is set. Raises BlurkitError for missing or unusable shards, and whatever
    `Trainer.train` raises.
    """
    shards = _training_shards(inputs)
    held_out = [*find_shards(inputs, "test"), *find_shards(inputs, "val")]
    torch.manual_seed(configuration.seed)
    recipe = build()
    begun = load_checkpoint(run.start) if run.start else None
    if begun is not None:
        begin_with(recipe, begun)
    c = configuration
    synthesis = None if c.synthesize == "none" else Synthesis(c.synthesize)
    paired = CropSampler(shards, c.crop, recipe.images, c.sharp_pairs, synthesis, c.synthetic_share)
    sampler: CropSampler | UnpairedSampler = paired
    beside = _training_shards(photos) if photos else []
    if beside:
        sampler = UnpairedSampler(paired, CropSampler(beside, c.crop, ("blur",)))
    mixing = None
    if run.bgan:
        mixing = BlurMixing(network_for("noise", load_checkpoint(run.bgan)).network, c.mix)  # type: ignore
    # With synthesis, held-out records may lack blur too; those validate nothing.
    scenes = map_scenes(held_out, recipe.images, synthesis is not None) if held_out else []
    validation = evenly([scene for scene in scenes if scene.whole], run.validate_on)
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
    if beside:
        provenance["real"] = fingerprint(beside)
    if mixing is not None:
        recipe.helpers.append(mixing.network)
        provenance["bgan"] = hashlib.sha256(Path(run.bgan).read_bytes()).hexdigest()[:16]
    if begun is not None:
        provenance["start"] = begun.provenance
    return Trainer(recipe, run, sampler, validation, provenance, mixing).train()


def _training_shards(inputs: Sequence[Path]) -> list[Path]:
    shards = find_shards(inputs, "train")
    if not shards:
        names = ", ".join(map(str, inputs))
        raise BlurkitError(f"{names}: holds no train-*.h5; make them with: blurkit prepare")
    return shards


def begin_with(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Give the networks that `recipe` trains the weights that `checkpoint` holds for their roles.

    Roles that it does not hold stay as they are, as does what is frozen. A network that goes
    without modulation and one with it give each other all the rest. Raises BlurkitError when it
    holds none of the roles, or another network in one.
    """
    trained = {role: network for role, network in recipe.networks.items() if trainable(network)}
    shared = [role for role in trained if role in checkpoint.networks]
    if not shared:
        wanted, there = ", ".join(trained), ", ".join(checkpoint.networks)
        raise BlurkitError(f"{checkpoint.where}: holds {there}; --start needs one of {wanted}")
    for role in shared:
        own, given = _in_common(trained[role].state_dict(), checkpoint.networks[role])
        if told := differences(own, given):
            raise BlurkitError(
                f"{checkpoint.where}: its {role} is another network than this training's "
                f"({told}); give the options that it was trained with"
            )
        for key, value in own.items():
            value.copy_(given[key])


def _in_common(*states: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Each without what steers a network, and without the modulation if only one has any."""
    modulated = [any(key.startswith(MODULATION_KEYS) for key in state) for state in states]
    apart = STEERING_KEYS if all(modulated) else (*STEERING_KEYS, *MODULATION_KEYS)
    return ({k: v for k, v in state.items() if not k.startswith(apart)} for state in states)


def fingerprint(shards: Sequence[Path]) -> str:
    """A short hash of the shards' names, sizes and first megabytes, where their records stand."""
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(f"{shard.name} {shard.stat().st_size}\n".encode())
        with shard.open("rb") as file:
            digest.update(file.read(1 << 20))
    return digest.hexdigest()[:16]
