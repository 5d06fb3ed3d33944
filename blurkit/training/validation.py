"""Validation in training: the checkpoint as it stands, run as `blurkit deblur` would run it."""

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

PICTURES = 4


def validate(
    checkpoint: Checkpoint,
    scenes: Sequence[StoredScene],
    device: str,
    pictures: Path | None,
    step: int,
) -> dict[str, float]:
    """Mean PSNR (dB) and SSIM (MATLAB's) of the restored scenes, and PSNR of the blurry ones.

    `scenes` hold blur and sharp. With a folder for `pictures`, blur, restored and sharp of the
    first few go there side by side.
    """
    network = deblurring_network(checkpoint)
    engine = Engine(network, trained_tile(checkpoint, network), device=device)
    scores = []
    for number, scene in enumerate(scenes):
        blur, sharp = (np.ascontiguousarray(image[:]) for image in scene.images)
        restored = from_float(engine(to_float(blur)), blur.dtype)
        scores.append((psnr(blur, sharp), psnr(restored, sharp), ssim_matlab(restored, sharp)))
        if pictures is not None and number < PICTURES:
            name = scene.name.replace("/", "_")
            picture = side_by_side([blur, restored, sharp])
            write_image(pictures / f"{step:07d}-{name}.png", picture)
    before, after, similarity = (float(np.mean(column)) for column in zip(*scores, strict=True))
    return {"psnr_blur": before, "psnr": after, "ssim_matlab": similarity}


def evenly(scenes: Sequence[StoredScene], count: int) -> list[StoredScene]:
    """At most `count` scenes, evenly spread over those there are."""
    places = np.linspace(0, len(scenes) - 1, min(count, len(scenes))).round().astype(int)
    return [scenes[place] for place in places]
