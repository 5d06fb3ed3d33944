"""Validation during training: the current checkpoint, run as the commands would run it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from blurkit.data.sampler import StoredScene
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.images import write_image
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.diversity import Diversity
from blurkit.metrics.psnr import psnr
from blurkit.metrics.ssim import ssim_matlab
from blurkit.reports.pictures import side_by_side
from blurkit.tasks.engines import start_engine
from blurkit.tasks.reblur import guides, random_blur
from blurkit.training.recipe import ValidationProtocol

PICTURES = 4
VERSIONS = 3

Show = Callable[[str, Sequence[Image]], None]
"""A function called with the name of each scene and its pictures."""


def validate(
    protocol: ValidationProtocol,
    scenes: Sequence[StoredScene],
    checkpoint: Checkpoint,
    device: str,
    pictures: Path | None,
    step: int,
) -> dict[str, float]:
    """Return the mean scores of a checkpoint's networks on `scenes`.

    `scenes` hold blur and sharp; for new random blurs, sharp is enough. With a folder for
    `pictures`, the input, the results and the target of the first few scenes are written there side
    by side.
    """
    shown: list[str] = []

    def show(name: str, images: Sequence[Image]) -> None:
        if pictures is not None and len(shown) < PICTURES:
            shown.append(name)
            path = pictures / f"{step:07d}-{name.replace('/', '_')}.png"
            write_image(path, side_by_side([*images]))

    return PROTOCOLS[protocol](scenes, checkpoint, device, show)


def _scored(
    use: Literal["deblurring", "reblurring"],
    scenes: Sequence[StoredScene],
    checkpoint: Checkpoint,
    device: str,
    show: Show,
) -> dict[str, float]:
    """Return PSNR (dB) and MATLAB SSIM of the results, and the PSNR of what they are made from.

    Deblurring is compared with the sharp images; reblurring, of sharp images with the blur of their
    own pair, with the blurry ones.
    """
    engine = start_engine(use, checkpoint, device=device)
    reblurs = use == "reblurring"
    scores = ValidationScores("psnr_sharp" if reblurs else "psnr_blur")
    for scene in scenes:
        blur, sharp = (np.ascontiguousarray(image[:]) for image in scene.images)
        start, target = (sharp, blur) if reblurs else (blur, sharp)
        pair = Record(scene.name, {"sharp": sharp, "blur": blur})
        result = engine(to_float(start), *(guides(pair, engine) if reblurs else ()))
        made = from_float(result, blur.dtype)
        scores.add(start, made, target)
        show(scene.name, [start, made, target])
    return scores.means()


def _drawn(
    scenes: Sequence[StoredScene], checkpoint: Checkpoint, device: str, show: Show
) -> dict[str, float]:
    """Return the PSNR (dB) of blurred versions against their sharp image and against each other.

    There is no target, since the real blur is that of other photos. The noise is the same at every
    validation.
    """
    engine = start_engine(("noise", "random"), checkpoint, device=device)
    diversity = Diversity()
    for scene in scenes:
        sharp = np.ascontiguousarray(scene.images[-1][:])
        records = [Record(f"{scene.name} {n}", {"sharp": sharp}) for n in range(VERSIONS)]
        versions = [random_blur(record, engine, "").images["reblurred"] for record in records]
        for version in versions:
            diversity.add(scene.name, version, sharp)
        show(scene.name, [sharp, *versions])
    means = diversity.summary()
    scores = {key: means.get(key) for key in ("psnr_sharp", "pairwise_psnr")}
    return {key: value for key, value in scores.items() if value is not None}


PROTOCOLS: dict[
    ValidationProtocol,
    Callable[[Sequence[StoredScene], Checkpoint, str, Show], dict[str, float]],
] = {
    "restores": partial(_scored, "deblurring"),
    "reblurs": partial(_scored, "reblurring"),
    "draws": _drawn,
}


class ValidationScores:
    """Mean scores over pairs of images; `before` is the key of the inputs' PSNR."""

    def __init__(self, before: str) -> None:
        self.before = before
        self._rows: list[tuple[float, float, float]] = []

    def add(self, start: Image, result: Image, target: Image) -> None:
        """Score one image and its input against its target."""
        row = psnr(start, target), psnr(result, target), ssim_matlab(result, target)
        self._rows.append(row)

    def means(self) -> dict[str, float]:
        """Return the means: PSNR in dB of inputs and results, MATLAB SSIM of results."""
        columns = (float(np.mean(column)) for column in zip(*self._rows, strict=True))
        return dict(zip((self.before, "psnr", "ssim_matlab"), columns, strict=True))


def evenly(scenes: Sequence[StoredScene], count: int) -> list[StoredScene]:
    """Return at most `count` scenes, evenly spread over all."""
    indices = np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int)
    return [scenes[index] for index in indices]
