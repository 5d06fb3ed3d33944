"""Blur of a BGAN in training batches: where the draw says so, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from blurkit.systems.dbgan.inference import BlurMixing
from blurkit.systems.dbgan.networks import BGAN

SIZE = 8


@pytest.fixture(scope="module")
def network() -> BGAN:
    torch.manual_seed(3)
    return BGAN(8, 1, 4)


@pytest.fixture(scope="module")
def batch() -> dict[str, Tensor]:
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1) / 255
    sharp = torch.stack([photo[:, 40 * i : 40 * i + 32, 100:132] for i in range(SIZE)])
    return {"sharp": sharp, "blur": sharp.flip(2)}


def changed(before: dict[str, Tensor], after: dict[str, Tensor]) -> list[bool]:
    return [not torch.equal(a, b) for a, b in zip(before["blur"], after["blur"], strict=True)]


def test_a_share_of_the_blur_is_made_anew(network: BGAN, batch: dict[str, Tensor]) -> None:
    mixing = BlurMixing(network, 0.25)
    kept = {name: images.clone() for name, images in batch.items()}
    share = []
    for step in range(100):
        mixed = mixing(batch, 5, step, SIZE, slice(None))
        assert mixed["sharp"] is batch["sharp"]
        share += changed(batch, mixed)
    assert 0.2 < np.mean(share) < 0.3
    assert all(torch.equal(batch[name], kept[name]) for name in kept)  # the batch itself stays
    assert BlurMixing(network, 0.0)(batch, 5, 0, SIZE, slice(None)) is batch
    assert all(changed(batch, BlurMixing(network, 1.0)(batch, 5, 0, SIZE, slice(None))))


def test_what_is_made_is_the_networks_and_depends_on_seed_and_step(
    network: BGAN, batch: dict[str, Tensor]
) -> None:
    mixing = BlurMixing(network, 1.0)
    whole = mixing(batch, 5, 2, SIZE, slice(None))["blur"]
    assert torch.equal(whole, mixing(batch, 5, 2, SIZE, slice(None))["blur"])
    for seed, step in ((6, 2), (5, 3)):
        assert not torch.equal(whole, mixing(batch, seed, step, SIZE, slice(None))["blur"])
    generator = np.random.default_rng([5, 7, 2])
    generator.random(SIZE)
    noise = torch.from_numpy(generator.standard_normal((SIZE, 4), np.float32))
    with torch.no_grad():
        wanted = network(batch["sharp"], noise).clamp(0, 1)
    torch.testing.assert_close(whole, wanted)
    # Two processes with half of the batch each make what one makes.
    for part in (slice(0, 4), slice(4, 8)):
        half = {name: images[part] for name, images in batch.items()}
        torch.testing.assert_close(mixing(half, 5, 2, SIZE, part)["blur"], whole[part])
    assert not any(p.requires_grad for p in network.parameters()) and not whole.requires_grad
