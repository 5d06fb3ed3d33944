"""Training: from a system's name and shards to a finished checkpoint, validated on the way."""

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
import xxhash
from torch import nn

from blurkit.data import sampler
from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, UsageError, without_secrets
from blurkit.io.checkpoints import Checkpoint, StateDict, load_checkpoint, prefixed_forms
from blurkit.io.images import write_image
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.io.shards import verify_shard
from blurkit.metrics.diversity import pairwise_psnr
from blurkit.metrics.psnr import psnr
from blurkit.metrics.scores import eight_bit
from blurkit.metrics.ssim import ssim_matlab
from blurkit.options import Placement, Protocol
from blurkit.reports.pictures import side_by_side
from blurkit.synthesis.drawing import Synthesis
from blurkit.systems.registry import differences, load_networks
from blurkit.systems.system import Use, augmentations, named, trainings
from blurkit.systems.uses import start_engine
from blurkit.tasks.reblur import random_blur, with_guides
from blurkit.training.batches import BatchAugmentation, CropSamples
from blurkit.training.configuration import (
    Configuration,
    Run,
    SavedConfiguration,
    TrainingInputs,
    ValidationProtocol,
)
from blurkit.training.distributed import Processes
from blurkit.training.loop import Trainer
from blurkit.training.memory import estimate, measure
from blurkit.training.recipe import Plan, Recipe, Samples, Validate, ValidationKind, trainable
from blurkit.training.state import finished_run
from blurkit.version import __version__


def train(
    command: str,
    system: str,
    shards: Sequence[str | Path],
    run: Run,
    preset: str | SavedConfiguration = "",
    inputs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Train a system on shards, write its checkpoint to `run.output` and return it.

    `command` is `train-reblur` or `train-deblur`, `system` one of the systems that it offers.
    `preset` sets the options of the method, by name ("": the first one) or as `read_configuration`
    read them, and `overrides` changes single ones; `inputs` are the files that the training reads
    in addition to its shards, such as `encoder`. Keys are the names of the options. In folders of
    shards, `train-*.h5` are trained on and `val-*.h5` are validated on; if there are none,
    `test-*.h5` are, and a warning says so.

    Raises UsageError for unknown or conflicting options, BlurkitError for files that are missing or
    unusable and for a loss that is not finite, and `training.loop.Stopped` when a signal or the end
    of `run.minutes` has stopped the training.
    """
    return run_plan(plan_training(command, system, run, preset, inputs, overrides), shards, run)


def needs_of(plan: Plan, run: Run, processes: int = 1, measure_steps: int = 0) -> dict[str, Any]:
    """Return `estimate` for one of so many processes; `measure_steps` steps add `measured`."""
    needs = estimate(plan.build, processes, run.accumulate, run.checkpointing == "on")
    if measure_steps:
        needs["measured"] = measure(plan.build(), run, measure_steps, processes)
    return needs


def plan_training(
    command: str,
    system: str,
    run: Run,
    preset: str | SavedConfiguration = "",
    inputs: Mapping[str, Any] | None = None,
    overrides: Mapping[str, Any] | None = None,
    dry_run: bool = False,
) -> Plan:
    """Return the plan that `train` runs, with its arguments; a `dry_run` downloads nothing."""
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
    own: type[Configuration] = named(folder, "config", training.configuration)
    own = own.for_inputs(given)
    files = kind(**given)
    if isinstance(preset, SavedConfiguration):
        if preset.system != system:
            raise UsageError(f"--system {system}: {preset.where} is of --system {preset.system}")
        changed = {name: value for name, value in overrides.items() if value is not None}
        files.check({**preset.values, **changed})
        overrides, preset = preset.options(own) | changed, next(iter(own.presets))
    files.check(overrides)
    plan, preset = named(folder, "recipe", training.plan), preset or next(iter(own.presets))
    if isinstance(plan, type):
        configuration = own.resolve(preset, **overrides)
        return Plan(configuration, partial(plan, configuration))
    return plan(files, preset, overrides, run, dry_run)


def run_plan(plan: Plan, inputs: Sequence[str | Path], run: Run) -> Checkpoint:
    """Train the recipe of a plan on the shards in `inputs`; return its checkpoint.

    If that is finished and to be resumed, nothing is done. The recipe is built after the seed is
    set. Raises BlurkitError for missing or unusable shards, and whatever `Trainer.train` raises.
    """
    paths, c = [Path(path) for path in inputs], plan.configuration
    if finished := finished_run(run, c):
        return finished
    shards = sampler.training_shards(paths)
    # Whatever chooses the best checkpoint is no test of it.
    held_out = sampler.find_shards(paths, "val") or sampler.find_shards(paths, "test")
    split = held_out[0].name.partition("-")[0] if held_out else ""
    unpaired = sampler.training_shards(plan.unpaired) if plan.unpaired else []
    for shard in [*shards, *unpaired, *held_out] if run.verify else ():
        verify_shard(shard)
    torch.manual_seed(c.seed)
    recipe = plan.build()
    initial = load_checkpoint(run.start) if run.start else None
    if initial is not None:
        begin_with(recipe, initial)
    changes: list[BatchAugmentation] = []
    for name, file in run.augmentations.items():
        folder, augmentation = augmentations()[name]
        changes.append(named(folder, "inference", augmentation.make)(file, c))
    samples: Samples
    score: Validate | None = None
    if plan.samples:
        samples = plan.samples(shards)
        if plan.validate and held_out and run.validate_on:
            score, scored = plan.validate(held_out), f"{run.validate_on} samples"
    else:
        synthesis = None if c.synthesize == "none" else Synthesis(c.synthesize)
        share = c.synthetic_share
        crops = sampler.CropSampler(shards, c.crop, recipe.images, c.sharp_pairs, synthesis, share)
        real = sampler.CropSampler(unpaired, c.crop, ("blur",)) if unpaired else None
        samples = CropSamples(crops if real is None else sampler.UnpairedSampler(crops, real), c)
        # With synthesis, held-out records may lack blur; validation leaves them out.
        partly = synthesis is not None
        scenes = sampler.map_scenes(held_out, recipe.images, partly) if held_out else []
        protocol = validation_protocol(recipe, run.validate_protocol)
        whole = [scene for scene in scenes if scene.whole]
        spread = np.linspace(0, len(whole) - 1, min(run.validate_on, len(whole)))
        if chosen := [whole[number] for number in spread.round().astype(int)]:
            score = partial(validate, recipe.validation, protocol, chosen)
            scored = f"{protocol}, {len(chosen)} records"
    provenance: dict[str, Any] = {
        "blurkit": __version__,
        "torch": str(torch.__version__),  # a subclass of str, which safe readers refuse
        "date": datetime.now(UTC).date().isoformat(),
        "command": " ".join(["blurkit", *map(without_secrets, sys.argv[1:])]),
        "data": fingerprint(shards),
        "records": len(samples),
        "seed": c.seed,
        **recipe.provenance,
    }
    if unpaired:
        provenance["real"] = fingerprint(unpaired)
    for name, file in run.augmentations.items():
        provenance[name] = hashlib.sha256(Path(file).read_bytes()).hexdigest()[:16]
    if score:
        provenance |= {"validation": scored, "validated_on": split}
    if initial is not None:
        provenance["start"] = initial.provenance or {"file": initial.name}
    identifying = ("data", "features", "real", "code", *augmentations())
    identity = {key: provenance.get(key) for key in identifying}
    trainer = Trainer(recipe, run, samples, provenance, identity, changes, score)
    if score and split == "test":
        trainer.warn(ON_TEST)
    return trainer.train()


ON_TEST = (
    "no val-*.h5: validation, and with it the choice of the best checkpoint, uses the test split, "
    "so test scores will be too good; blurkit prepare --validation 0.1 keeps scenes for it"
)


def begin_with(recipe: Recipe, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into the networks of the same role that `recipe` trains.

    The networks in a file of another program have the roles in which they are recognised. The
    recipe decides which tensors both networks must have in common. Raises BlurkitError if the
    checkpoint holds none of the roles, or another network in one of them.
    """
    trained = {role: network for role, network in recipe.networks.items() if trainable(network)}
    states = _states_by_role(checkpoint, trained)
    shared = [role for role in trained if role in states]
    if not shared:
        wanted, present = ", ".join(trained), ", ".join(states)
        raise BlurkitError(f"{checkpoint.where}: holds {present}; --start needs one of {wanted}")
    for role in shared:
        own, given = trained[role].state_dict(), dict(states[role])
        for key in recipe.may_differ(own, given):
            own.pop(key, None)
            given.pop(key, None)
        if different := differences(own, given):
            raise BlurkitError(
                f"{checkpoint.where}: its {role} is another network than this training's "
                f"({different}); use the options that it was trained with"
            )
        for key, value in own.items():
            value.copy_(given[key])


def _states_by_role(
    checkpoint: Checkpoint, trained: Mapping[str, nn.Module]
) -> Mapping[str, StateDict]:
    """Return a checkpoint's state dicts by role; one without a role is compared or recognised."""
    if "network" not in checkpoint.networks:
        return checkpoint.networks
    for state in prefixed_forms(checkpoint.networks["network"]):
        for role, network in trained.items():
            if network.state_dict().keys() == state.keys():
                return {role: state}
    return {role: network.state_dict() for role, network in load_networks(checkpoint).items()}


def fingerprint(shards: Sequence[Path]) -> str:
    """Return a hash of the shards' names and all of their bytes."""
    digest = xxhash.xxh3_128()
    for shard in shards:
        digest.update(f"{shard.name} {shard.stat().st_size}\n".encode())
        with shard.open("rb") as file:
            while data := file.read(1 << 24):
                digest.update(data)
    return str(digest.hexdigest())


# ---- Validation ----------------------------------------------------------------------------------

PICTURES = 4
VERSIONS = 3

SceneScores = tuple[Sequence[float], Sequence[Image]]
"""The scores of one scene, and the pictures that show them."""

SceneScorer = Callable[[Engine, sampler.StoredScene], SceneScores]


def validation_protocol(recipe: Recipe, named: ValidationProtocol) -> Protocol:
    """Return how the engine runs a recipe's networks on whole images; "paper" is as its paper did.

    Raises UsageError if they need more than the image, which is all that slices pass on.
    """
    if named == "paper":
        return recipe.protocol
    if recipe.validation != "restores" and named == "slices":
        raise UsageError("--validate-protocol slices: for trainings that restore; use tiles")
    return named


def validate(
    kind: ValidationKind,
    protocol: Protocol,
    scenes: Sequence[sampler.StoredScene],
    checkpoint: Checkpoint,
    processes: Processes,
    pictures: Path | None,
    step: int,
) -> dict[str, float]:
    """Return the mean scores of a checkpoint's networks, run by `protocol`, on `scenes`.

    Each of N processes scores every N-th scene; all return the same means, which leave out infinite
    values. With a folder for `pictures`, the input, the results and the target of the first few
    scenes are written there side by side.
    """
    use, names, score = KINDS[kind]
    placement = Placement(str(processes.device), protocol=protocol)
    engine = start_engine(use, checkpoint, placement=placement)
    table = torch.zeros(len(scenes), len(names), dtype=torch.float64)
    for number in range(processes.rank, len(scenes), processes.count):
        scene = scenes[number]
        values, images = score(engine, scene)
        table[number] = torch.tensor(values, dtype=torch.float64)
        if pictures is not None and number < PICTURES:
            path = pictures / f"{step:07d}-{scene.name.replace('/', '_')}.png"
            write_image(path, side_by_side([*images]))
    columns = zip(names, processes.sum(table).T, strict=True)
    finite = ((name, column[torch.isfinite(column)]) for name, column in columns)
    return {name: float(np.mean(column.numpy())) for name, column in finite if len(column)}


def _restored(engine: Engine, scene: sampler.StoredScene) -> SceneScores:
    """Return the scores of the restored image and its input against the sharp one."""
    blur, sharp = _images(scene)
    return _compared(blur, from_float(engine(to_float(blur)), blur.dtype), sharp)


def _reblurred(engine: Engine, scene: sampler.StoredScene) -> SceneScores:
    """Return the scores of the sharp image with the blur of its own pair against the blurry one."""
    blur, sharp = _images(scene)
    pair = Record(scene.name, {"sharp": sharp, "blur": blur})
    return _compared(sharp, with_guides(sharp, pair, engine, dtype=blur.dtype), blur)


def _compared(start: Image, made: Image, target: Image) -> SceneScores:
    """Return PSNR (dB) of the input and the result, and MATLAB SSIM of the result."""
    scores = psnr(start, target), psnr(made, target), ssim_matlab(made, target)
    return scores, [start, made, target]


def _drawn(engine: Engine, scene: sampler.StoredScene) -> SceneScores:
    """Return the PSNR (dB) of blurred versions against their sharp image and against each other.

    There is no target, since the real blur is that of other photos. The noise is the same at every
    validation.
    """
    sharp = _images(scene)[-1]
    records = [Record(f"{scene.name} {n}", {"sharp": sharp}) for n in range(VERSIONS)]
    versions = [random_blur(record, engine).images["reblurred"] for record in records]
    to_sharp = fmean(psnr(eight_bit(version), eight_bit(sharp)) for version in versions)
    return (to_sharp, pairwise_psnr(versions)), [sharp, *versions]


def _images(scene: sampler.StoredScene) -> list[Image]:
    return [np.ascontiguousarray(image[:]) for image in scene.images]


KINDS: dict[ValidationKind, tuple[Use | tuple[Use, ...], tuple[str, ...], SceneScorer]] = {
    "restores": ("deblurring", ("psnr_blur", "psnr", "ssim_matlab"), _restored),
    "reblurs": ("reblurring", ("psnr_sharp", "psnr", "ssim_matlab"), _reblurred),
    "draws": (("noise", "random"), ("psnr_sharp", "pairwise_psnr"), _drawn),
}
"""What a training is validated for: the use of its networks, and how a scene is scored."""
