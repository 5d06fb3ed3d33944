"""Validation in training: the checkpoint as it stands, run as the commands would run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blurkit.data.sampler import StoredScene
from blurkit.engine.engine import Engine
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.images import write_image
from blurkit.io.records import Image, Record, from_float, to_float
from blurkit.metrics.diversity import Diversity
from blurkit.metrics.psnr import psnr
from blurkit.metrics.ssim import ssim_matlab
from blurkit.reports.pictures import side_by_side
from blurkit.systems.uses import network_for, trained_tile
from blurkit.tasks.reblur import random_blur

PICTURES = 4
VERSIONS = 3


def validate(
    checkpoint: Checkpoint,
    scenes: Sequence[StoredScene],
    device: str,
    pictures: Path | None,
    step: int,
) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM (MATLAB's) of what the networks make, and PSNR of what they made it
    of.

    `scenes` hold blur and sharp, for a BGAN at least sharp; see `_versions`. Deblurring is held to
    the sharp images and compared with the blurry ones, `psnr_blur`; a kernel space reblurs each
    scene with its own blur, is held to the blurry images and compared with the sharp ones,
    `psnr_sharp`. With a folder for `pictures`, what it was, became and should be stands there side
    by side for the first few.
    """
    if checkpoint.system == "bgan":
        return _versions(checkpoint, scenes, device, pictures, step)
    reblurs = checkpoint.system == "kernel-space"
    network = network_for("reblurring" if reblurs else "deblurring", checkpoint)
    engine = Engine(network, trained_tile(checkpoint, network), device=device)
    scores = []
    for number, scene in enumerate(scenes):
        blur, sharp = (np.ascontiguousarray(image[:]) for image in scene.images)
        start, target = (sharp, blur) if reblurs else (blur, sharp)
        guides = [to_float(sharp), to_float(blur)] if reblurs else []
        result = from_float(engine(to_float(start), *guides), blur.dtype)
        scores.append((psnr(start, target), psnr(result, target), ssim_matlab(result, target)))
        if number < PICTURES:
            _show(pictures, step, scene.name, [start, result, target])
    before, after, similarity = (float(np.mean(column)) for column in zip(*scores, strict=True))
    compared = "psnr_sharp" if reblurs else "psnr_blur"
    return {compared: before, "psnr": after, "ssim_matlab": similarity}


def _versions(
    checkpoint: Checkpoint,
    scenes: Sequence[StoredScene],
    device: str,
    pictures: Path | None,
    step: int,
) -> dict[str, float]:
    """Of a BGAN: the mean PSNR (dB) of blurred versions to their sharp photo, and to each other.

    Real blur is of other photos, so there is nothing that it should be equal to. The same noise at
    every validation; the pictures are the sharp photo and its versions.
    """
    network = network_for("noise", checkpoint)
    engine = Engine(network, trained_tile(checkpoint, network), device=device)
    diversity = Diversity()
    for number, scene in enumerate(scenes):
        sharp = np.ascontiguousarray(scene.images[-1][:])
        records = [Record(f"{scene.name} {n}", {"sharp": sharp}) for n in range(VERSIONS)]
        made = [random_blur(record, engine, "").images["reblurred"] for record in records]
        for version in made:
            diversity.add(scene.name, version, sharp)
        if number < PICTURES:
            _show(pictures, step, scene.name, [sharp, *made])
    means = diversity.summary()
    found = {key: means.get(key) for key in ("psnr_sharp", "pairwise_psnr")}
    return {key: value for key, value in found.items() if value is not None}


def _show(pictures: Path | None, step: int, name: str, images: Sequence[Image]) -> None:
    if pictures is not None:
        write_image(pictures / f"{step:07d}-{name.replace('/', '_')}.png", side_by_side([*images]))


def evenly(scenes: Sequence[StoredScene], count: int) -> list[StoredScene]:
    """At most `count` scenes, evenly spread over those there are."""
    places = np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int)
    return [scenes[place] for place in places]
