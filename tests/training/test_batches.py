"""Crops on their way to a batch: turned as numpy's flips do, blurred on the device."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurkit.data.sampler import CropSampler
from blurkit.training.batches import CropSamples
from blurkit.training.configuration import Configuration
from tests.cli.command import assert_refused
from tests.cli.invoke import done, invoke
from tests.training.runs import PLAIN


def oracle(crop: np.ndarray, turn: int, orientations: Any = "all") -> np.ndarray:
    """A crop (H, W, 3) as numpy flips it by the bits of `turn`: rows, columns, both axes."""
    crop = np.fliplr(crop) if orientations != "none" and turn & 2 else crop
    if orientations == "all":
        crop = np.flipud(crop) if turn & 1 else crop
        crop = crop.transpose(1, 0, 2) if turn & 4 else crop
    return crop


@pytest.mark.parametrize(("orientations", "seen"), [("all", 8), ("flip", 2), ("none", 1)])
def test_crops_come_in_orientations(orientations: Any, seen: int, training_shards: Path) -> None:
    """Which crops are drawn, and where a flip is, does not depend on the choice."""
    sampler = CropSampler(sorted(training_shards.glob("train-*.h5")), 64, ("blur", "sharp"))
    options = Configuration(seed=3, batch=64, crop=64, orientations="none")
    plain, _, _ = CropSamples(sampler, options).load(0, slice(None))
    samples = CropSamples(sampler, replace(options, orientations=orientations))
    loaded = samples.load(0, slice(None))
    batch = samples.to_device(loaded, torch.device("cpu"))
    assert len(set(loaded[1])) == seen
    assert batch["blur"].is_contiguous(memory_format=torch.channels_last)
    for name, crops in zip(sampler.images, plain, strict=True):
        for crop, turn, found in zip(crops, sampler.turns(3, 0, 64), batch[name], strict=True):
            pixels = (found * 255).round().permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(pixels, oracle(crop, turn, orientations))


def test_sharp_photos_serve_with_drawn_blur_alone(training_shards: Path, tmp_path: Path) -> None:
    photos, output = tmp_path / "sharp", tmp_path / "x.pt"
    done("prepare", training_shards.parent / "photos", "--as", "sharp", "-o", f"{photos}/", "-q")
    learn = ["train-deblur", photos, *PLAIN, "--iterations", 1, "-o", output]
    assert_refused(invoke(*learn), "no record holds blur and sharp")
    done(*learn, training_shards, "--synthesize", "realistic")
    (about,) = invoke("info", output, "--json").json
    assert about["configuration"]["synthesize"] == "realistic"
    assert about["provenance"]["records"] == 6 + 3  # all photos, and the pairs to train on
