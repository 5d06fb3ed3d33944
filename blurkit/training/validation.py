"""Validation in training: the checkpoint as it stands, run as the commands would run it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from blurkit.data.sampler import StoredScene
from blurkit.io.checkpoints import Checkpoint
from blurkit.io.images import write_image
from blurkit.io.records import from_float, to_float
from blurkit.metrics.psnr import psnr
from blurkit.metrics.ssim import ssim_matlab
from blurkit.reports.pictures import side_by_side
from blurkit.restoration.deblur import deblurring_network, trained_tile
from blurkit.restoration.engine import Engine
from blurkit.restoration.reblur import reblurring_network

PICTURES = 4


def validate(
    checkpoint: Checkpoint,
    scenes: Sequence[StoredScene],
    device: str,
    pictures: Path | None,
    step: int,
) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM (MATLAB's) of what the networks make, and PSNR of what they made it
    of.

    `scenes` hold blur and sharp. Deblurring is held to the sharp images and compared with the
    blurry ones, `psnr_blur`; a kernel space reblurs each scene with its own blur, is held to the
    blurry images and compared with the sharp ones, `psnr_sharp`. With a folder for `pictures`, what
    it was, became and should be stands there side by side for the first few.
    """
    reblurs = checkpoint.system == "kernel-space"
    network = (reblurring_network if reblurs else deblurring_network)(checkpoint)
    engine = Engine(network, trained_tile(checkpoint, network), device=device)
    scores = []
    for number, scene in enumerate(scenes):
        blur, sharp = (np.ascontiguousarray(image[:]) for image in scene.images)
        start, target = (sharp, blur) if reblurs else (blur, sharp)
        guides = [to_float(sharp), to_float(blur)] if reblurs else []
        result = from_float(engine(to_float(start), *guides), blur.dtype)
        scores.append((psnr(start, target), psnr(result, target), ssim_matlab(result, target)))
        if pictures is not None and number < PICTURES:
            name = scene.name.replace("/", "_")
            picture = side_by_side([start, result, target])
            write_image(pictures / f"{step:07d}-{name}.png", picture)
    before, after, similarity = (float(np.mean(column)) for column in zip(*scores, strict=True))
    compared = "psnr_sharp" if reblurs else "psnr_blur"
    return {compared: before, "psnr": after, "ssim_matlab": similarity}


def evenly(scenes: Sequence[StoredScene], count: int) -> list[StoredScene]:
    """At most `count` scenes, evenly spread over those there are."""
    places = np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int)
    return [scenes[place] for place in places]
