"""Orientations of training crops against numpy's flips."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from blurkit.data.sampler import CropSampler
from blurkit.training.batches import CropSamples, turned
from blurkit.training.configuration import Configuration


def test_every_crop_is_turned_as_numpy_turns_it() -> None:
    crops = np.random.default_rng(0).random((16, 5, 5, 3), dtype=np.float32)
    turns = np.array([*range(8), *reversed(range(8))])
    batch = torch.from_numpy(crops).permute(0, 3, 1, 2)
    result = turned(batch, turns)
    assert result.is_contiguous(memory_format=torch.channels_last)
    for crop, turn, found in zip(crops, turns, result, strict=True):
        wanted = np.flipud(crop) if turn & 1 else crop
        wanted = np.fliplr(wanted) if turn & 2 else wanted
        wanted = wanted.transpose(1, 0, 2) if turn & 4 else wanted
        np.testing.assert_array_equal(found.permute(1, 2, 0).numpy(), wanted)


def test_the_eight_orientations_all_differ() -> None:
    crop = torch.rand(1, 1, 3, 3)
    results = [turned(crop, np.array([turn])) for turn in range(8)]
    assert len({tuple(r.flatten().tolist()) for r in results}) == 8


@pytest.mark.parametrize(("orientations", "seen"), [("all", 8), ("flip", 2), ("none", 1)])
def test_crops_come_in_the_chosen_orientations(
    orientations: Any, seen: int, training_shards: Path
) -> None:
    """Which crops are drawn, and where a flip is, does not depend on the choice."""
    sampler = CropSampler(sorted(training_shards.glob("train-*.h5")), 64, ("blur", "sharp"))
    options = Configuration(seed=3, batch=64, crop=64, orientations="none")
    plain, _, _ = CropSamples(sampler, options).load(0, slice(None))
    samples = CropSamples(sampler, replace(options, orientations=orientations))
    loaded = samples.load(0, slice(None))
    batch = samples.to_device(loaded, torch.device("cpu"))
    assert len(set(loaded[1])) == seen
    for name, crops in zip(sampler.images, plain, strict=True):
        for crop, turn, found in zip(crops, sampler.turns(3, 0, 64), batch[name], strict=True):
            wanted = np.fliplr(crop) if orientations != "none" and turn & 2 else crop
            if orientations == "all":
                wanted = np.flipud(wanted) if turn & 1 else wanted
                wanted = wanted.transpose(1, 0, 2) if turn & 4 else wanted
            np.testing.assert_array_equal((found * 255).round().permute(1, 2, 0).numpy(), wanted)
