"""Training: from a system's name and shards to a finished checkpoint."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

import torch
import xxhash

from blurkit.data.sampler import (
    CropSampler,
    UnpairedSampler,
    find_shards,
    map_scenes,
    training_shards,
)
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.io.shards import verify_shard
from blurkit.synthesis.drawing import Synthesis
from blurkit.systems.registry import differences
from blurkit.systems.system import augmentations, named, trainings
from blurkit.tasks.validation import evenly, validate, validation_protocol
from blurkit.training.batches import BatchAugmentation
from blurkit.training.configuration import Configuration, Run, SavedConfiguration, TrainingInputs
from blurkit.training.loop import Trainer
from blurkit.training.memory import estimate, measure
from blurkit.training.recipe import Plan, Recipe, trainable
from blurkit.version import __version__


def train(
    command: str,
    system: str,
    shards: Sequence[str | Path],
    run: Run,
    preset: str | SavedConfiguration = "paper",
    inputs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Train a system on shards, write its checkpoint to `run.output` and return it.

    `command` is `train-reblur` or `train-deblur`, `system` one of the systems that it offers.
    `preset` sets the options of the method, by name or as `training.saved.read_configuration` read
    them, and `overrides` changes single ones; `inputs` are the files that the training reads in
    addition to its shards, such as `encoder`. Keys are the names of the options. In folders of
    shards, `train-*.h5` are trained on, `test-*.h5` and `val-*.h5` are validated on.

    Raises UsageError for unknown or conflicting options, BlurkitError for files that are missing or
    unusable and for a loss that is not finite, and `training.loop.Stopped` when a signal or the end
    of `run.minutes` has stopped the training.
    """
    plan = plan_training(command, system, run, preset, inputs, overrides)
    return run_plan(plan, shards, run)


def estimate_training(
    command: str,
    system: str,
    run: Run,
    preset: str | SavedConfiguration = "paper",
    inputs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    processes: int = 1,
    measure_steps: int = 0,
) -> tuple[Configuration, dict[str, Any]]:
    """Return the configuration of a training, and the needs that `training.estimate` predicts.

    They are those of one of so many `processes`. With `measure_steps`, as many steps run on the
    device, and the needs have `measured`, from `training.fitting.measure`. The other arguments and
    the errors are those of `train`. No shard is read and nothing is written.
    """
    plan = plan_training(command, system, run, preset, inputs, overrides, dry_run=True)
    measured = {}
    if measure_steps:
        measured["measured"] = measure(plan.build(), run, measure_steps, processes)
    on = run.checkpointing == "on"
    needs = estimate(plan.build, processes, run.accumulate, on)
    return plan.configuration, needs | measured


def plan_training(
    command: str,
    system: str,
    run: Run,
    preset: str | SavedConfiguration = "paper",
    inputs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Plan:
    """Return the plan that `train` runs; with `dry_run`, nothing is downloaded."""
    offered, inputs, overrides = trainings(command), inputs or {}, overrides or {}
    if system not in offered:
        raise UsageError(f"--system {system}: {command} has {', '.join(offered)}")
    folder, training = offered[system]
    kind = named(folder, "config", training.inputs) if training.inputs else TrainingInputs
    given = {name: value for name, value in inputs.items() if value}
    for name in given.keys() - {f.name for f in fields(kind)}:
        raise UsageError(f"--{name.replace('_', '-')} is not an option of --system {system}")
    if overrides.get("mix") is not None and not run.augmentations:
        names = " or ".join(f"--{name} FILE" for name in augmentations())
        raise UsageError(f"--mix requires {names}")
    if isinstance(preset, SavedConfiguration):
        own: type[Configuration] = named(folder, "config", training.configuration)
        if preset.system != system:
            raise UsageError(f"--system {system}: {preset.where} is of --system {preset.system}")
        changed = {name: value for name, value in overrides.items() if value is not None}
        overrides, preset = preset.options(own) | changed, next(iter(own.presets))
    files = kind(**given)
    files.check(overrides)
    plan: Plan = named(folder, "recipe", training.plan)(files, preset, overrides, run, dry_run)
    return plan


def run_plan(plan: Plan, inputs: Sequence[str | Path], run: Run) -> Checkpoint:
    """Train the recipe of a plan on the shards in `inputs`; return its checkpoint.

    The recipe is built after the seed is set. Raises BlurkitError for missing or unusable shards,
    and whatever `Trainer.train` raises.
    """
    paths, c = [Path(path) for path in inputs], plan.configuration
    shards = training_shards(paths)
    held_out = [*find_shards(paths, "test"), *find_shards(paths, "val")]
    unpaired = training_shards(plan.unpaired) if plan.unpaired else []
    if run.verify:
        for shard in [*shards, *unpaired, *held_out]:
            verify_shard(shard)
    torch.manual_seed(c.seed)
    recipe = plan.build()
    initial = load_checkpoint(run.start) if run.start else None
    if initial is not None:
        begin_with(recipe, initial)
    synthesis = None if c.synthesize == "none" else Synthesis(c.synthesize)
    paired = CropSampler(shards, c.crop, recipe.images, c.sharp_pairs, synthesis, c.synthetic_share)
    sampler: CropSampler | UnpairedSampler = paired
    if unpaired:
        sampler = UnpairedSampler(paired, CropSampler(unpaired, c.crop, ("blur",)))
    changes = _augmentations(run, c)
    # With synthesis, held-out records may lack blur; validation leaves them out.
    scenes = map_scenes(held_out, recipe.images, synthesis is not None) if held_out else []
    protocol = validation_protocol(recipe, run.validate_protocol)
    chosen = evenly([scene for scene in scenes if scene.whole], run.validate_on)
    provenance: dict[str, Any] = {
        "blurkit": __version__,
        "torch": str(torch.__version__),  # a subclass of str, which safe readers refuse
        "date": datetime.now(timezone.utc).date().isoformat(),
        "command": " ".join(["blurkit", *sys.argv[1:]]),
        "data": fingerprint(shards),
        "records": len(sampler),
        "seed": c.seed,
        **recipe.provenance,
    }
    if unpaired:
        provenance["real"] = fingerprint(unpaired)
    for name, file in run.augmentations.items():
        provenance[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    if chosen:
        provenance["validation"] = f"{protocol}, {len(chosen)} records"
    if initial is not None:
        provenance["start"] = initial.provenance
    unchanged = ("data", "features", "real", *augmentations())
    return Trainer(
        recipe,
        run,
        sampler,
        provenance,
        {key: provenance.get(key) for key in unchanged},
        changes,
        partial(validate, recipe.validation, protocol, chosen) if chosen else None,
    ).train()


def _augmentations(run: Run, configuration: Configuration) -> list[BatchAugmentation]:
    known = augmentations()
    loaded = []
    for name, file in run.augmentations.items():
        folder, augmentation = known[name]
        loaded.append(named(folder, "inference", augmentation.make)(file, configuration))
    return loaded


def begin_with(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into the networks of the same role that `recipe` trains.

    Roles that it does not hold stay unchanged, as do frozen networks. The recipe decides which
    tensors both networks of a role must have in common. Raises BlurkitError if the checkpoint holds
    none of the roles, or another network in one of them.
    """
    trained = {role: network for role, network in recipe.networks.items() if trainable(network)}
    shared = [role for role in trained if role in checkpoint.networks]
    if not shared:
        wanted, present = ", ".join(trained), ", ".join(checkpoint.networks)
        raise BlurkitError(f"{checkpoint.where}: holds {present}; --start needs one of {wanted}")
    for role in shared:
        own, given = recipe.in_common(trained[role].state_dict(), checkpoint.networks[role])
        if different := differences(own, given):
            raise BlurkitError(
                f"{checkpoint.where}: its {role} is another network than this training's "
                f"({different}); use the options that it was trained with"
            )
        for key, value in own.items():
            value.copy_(given[key])


def fingerprint(shards: Sequence[Path]) -> str:
    """Return a hash of the shards' names and all of their bytes."""
    digest = xxhash.xxh3_128()
    for shard in shards:
        digest.update(f"{shard.name} {shard.stat().st_size}\n".encode())
        with shard.open("rb") as file:
            while data := file.read(1 << 24):
                digest.update(data)
    return str(digest.hexdigest())
