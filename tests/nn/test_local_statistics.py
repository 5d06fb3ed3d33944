"""Local means against scipy's, and networks that use them at test time."""

from __future__ import annotations

import numpy as np
import pytest
import skimage.data
import torch
from torch import nn

from blurkit.engine.torch_runner import LocalMean, with_local_statistics
from blurkit.errors import UsageError
from blurkit.systems.msfs.networks import ChannelAttention, MSFSNet
from tests.systems.oracle import local_means


@pytest.mark.parametrize("window", [(5, 9), (8, 6), (40, 7), (99, 99)])
def test_local_means_are_scipys(window: tuple[int, int]) -> None:
    image = skimage.data.coffee()[:40, :52].astype(np.float32)
    means = LocalMean(*window)(torch.from_numpy(image).permute(2, 0, 1)[None])
    found = means[0].permute(1, 2, 0).numpy()
    np.testing.assert_allclose(found, local_means(image, window), rtol=2e-5)


@torch.no_grad()
def test_windows_are_half_again_as_large_as_what_a_crop_showed() -> None:
    torch.manual_seed(0)
    network = with_local_statistics(MSFSNet(16, 1, 1, 1), 256)
    windows = {n: m.window for n, m in network.named_modules() if isinstance(m, LocalMean)}
    assert windows == {
        "latent.0.body.3.avg_pool": (96, 96),
        "Decoder.0.layers.0.body.3.avg_pool": (96, 96),
        "Decoder.1.layers.0.body.3.avg_pool": (192, 192),
    }


@torch.no_grad()
def test_only_images_larger_than_the_windows_are_changed() -> None:
    torch.manual_seed(0)
    plain = MSFSNet(16, 1, 1, 1).eval()
    for attention in (m for m in plain.modules() if isinstance(m, ChannelAttention)):
        for parameter in attention.parameters():
            parameter *= 100  # random ones hardly differ between channels
    plain.tail_.weight *= 100
    local = MSFSNet(16, 1, 1, 1).eval()
    local.load_state_dict(plain.state_dict())
    assert with_local_statistics(local, 64) is local
    for attention in (m for m in local.modules() if isinstance(m, ChannelAttention)):
        assert isinstance(attention.avg_pool, LocalMean)
    image = torch.from_numpy(skimage.data.astronaut() / 255).float().permute(2, 0, 1)[None]
    small, large = image[..., :96, :96], image[..., :96, :256]
    torch.testing.assert_close(local(small), plain(small))
    assert (local(large) - plain(large)).abs().max() > 1e-3
    assert list(local.state_dict()) == list(plain.state_dict())


def test_a_network_without_pooling_is_refused() -> None:
    with pytest.raises(UsageError, match="--protocol local: Sequential has no global average"):
        with_local_statistics(nn.Sequential(nn.Conv2d(3, 3, 1)), 64)
