"""Orientations of training crops against numpy's flips."""

from __future__ import annotations

import numpy as np
import torch

from blurkit.training.orientation import turned


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
