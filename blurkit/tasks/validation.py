"""Validation during training: the current checkpoint, run as the commands would run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from blurkit.data.sampler import StoredScene
from blurkit.engine.engine import Engine, Protocol
from blurkit.errors import UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.images import write_image
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.diversity import pairwise_psnr
from blurkit.metrics.psnr import psnr
from blurkit.metrics.scores import eight_bit
from blurkit.metrics.ssim import ssim_matlab
from blurkit.reports.pictures import side_by_side
from blurkit.systems.system import Use
from blurkit.systems.uses import start_engine
from blurkit.tasks.reblur import guides, random_blur
from blurkit.training.configuration import ValidationProtocol
from blurkit.training.distributed import Processes
from blurkit.training.recipe import Recipe, ValidationKind

PICTURES = 4
VERSIONS = 3

SceneScores = tuple[Sequence[float], Sequence[Image]]
"""The scores of one scene, and the pictures that show them."""


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
    scenes: Sequence[StoredScene],
    checkpoint: Checkpoint,
    processes: Processes,
    pictures: Path | None,
    step: int,
) -> dict[str, float]:
    """Return the mean scores of a checkpoint's networks, run by `protocol`, on `scenes`.

    Each of N processes scores every N-th scene; all return the same means, which leave out infinite
    values. `scenes` hold blur and sharp; for new random blurs, sharp is enough. With a
    folder for `pictures`, the input, the results and the target of the first few scenes are written
    there side by side.
    """
    use, names, score = KINDS[kind]
    device = str(processes.device)
    engine = start_engine(use, checkpoint, device=device, protocol=protocol)
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


def _restored(engine: Engine, scene: StoredScene) -> SceneScores:
    """Return the scores of the restored image and its input against the sharp one."""
    blur, sharp = _images(scene)
    return _compared(blur, from_float(engine(to_float(blur)), blur.dtype), sharp)


def _reblurred(engine: Engine, scene: StoredScene) -> SceneScores:
    """Return the scores of the sharp image with the blur of its own pair against the blurry one."""
    blur, sharp = _images(scene)
    pair = Record(scene.name, {"sharp": sharp, "blur": blur})
    made = engine(to_float(sharp), *guides(pair, engine))
    return _compared(sharp, from_float(made, blur.dtype), blur)


def _compared(start: Image, made: Image, target: Image) -> SceneScores:
    """Return PSNR (dB) of the input and the result, and MATLAB SSIM of the result."""
    scores = psnr(start, target), psnr(made, target), ssim_matlab(made, target)
    return scores, [start, made, target]


def _drawn(engine: Engine, scene: StoredScene) -> SceneScores:
    """Return the PSNR (dB) of blurred versions against their sharp image and against each other.

    There is no target, since the real blur is that of other photos. The noise is the same at every
    validation.
    """
    sharp = _images(scene)[-1]
    records = [Record(f"{scene.name} {n}", {"sharp": sharp}) for n in range(VERSIONS)]
    versions = [random_blur(record, engine, "").images["reblurred"] for record in records]
    to_sharp = fmean(psnr(eight_bit(version), eight_bit(sharp)) for version in versions)
    return (to_sharp, pairwise_psnr(versions)), [sharp, *versions]


def _images(scene: StoredScene) -> list[Image]:
    return [np.ascontiguousarray(image[:]) for image in scene.images]


KINDS: dict[
    ValidationKind,
    tuple[Use | tuple[Use, ...], tuple[str, ...], Callable[[Engine, StoredScene], SceneScores]],
] = {
    "restores": ("deblurring", ("psnr_blur", "psnr", "ssim_matlab"), _restored),
    "reblurs": ("reblurring", ("psnr_sharp", "psnr", "ssim_matlab"), _reblurred),
    "draws": (("noise", "random"), ("psnr_sharp", "pairwise_psnr"), _drawn),
}
"""What a training is validated for: the use of its networks, and how a scene is scored."""


def evenly(scenes: Sequence[StoredScene], count: int) -> list[StoredScene]:
    """Return at most `count` scenes, evenly spread over all."""
    indices = np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int)
    return [scenes[index] for index in indices]
