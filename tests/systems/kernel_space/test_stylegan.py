"""StyleGAN and StyleGAN2: found again from their files, and their parts against other ways."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import upfirdn
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems import from_state_dict
from blurkit.systems.kernel_space.stylegan import (
    Doubling,
    EnlargingConvolution,
    ModulatedConvolution,
    StyleGAN2,
    StyleGANMapping,
    StyleGANSynthesis,
)
from blurkit.systems.registry import load_networks
from blurkit.tasks.inspect import describe_checkpoint

Generator = StyleGANSynthesis | StyleGAN2
WIDTHS = {"StyleGANSynthesis": (12, 10, 8, 6, 4, 2), "StyleGAN2": (8, 6, 4)}


def small(kind: type[Any]) -> Any:
    """A generator of few channels whose every weight has an effect."""
    torch.manual_seed(3)
    network = kind(WIDTHS[kind.__name__], latent=16)
    for key, value in network.named_parameters():
        if "noise" in key:
            nn.init.normal_(value)
    return network.eval()


def inputs(network: Generator, count: int = 2) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(4)
    latents = torch.randn(count, network.layers, 16)
    return latents, [torch.randn(count, 1, side, side) for side in network.noise_sides]


@pytest.mark.parametrize(
    ("kind", "resolution", "parameters", "keys", "layers"),
    [
        (StyleGANSynthesis, 1024, 24_110_771, 100, 18),
        (StyleGAN2, 256, 30_034_338, 135, 14),
        (StyleGANMapping, None, 2_101_248, 16, None),
    ],
)
def test_official_sizes(
    kind: type[Any], resolution: int | None, parameters: int, keys: int, layers: int | None
) -> None:
    v1 = (512, 512, 512, 512, 256, 128, 64, 32, 16)
    widths = {1024: (v1,), 256: ((512, 512, 512, 512, 512, 256, 128),), None: ()}[resolution]
    with torch.device("meta"):
        network = kind(*widths)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == keys
    assert getattr(network, "layers", None) == layers
    assert getattr(network, "resolution", None) == resolution
    found = from_state_dict(network.state_dict())
    assert type(found) is kind and found.options == network.options


@pytest.mark.parametrize("kind", [StyleGANSynthesis, StyleGAN2])
@torch.no_grad()
def test_a_generator_is_found_again_and_makes_the_same_images(kind: type[Any]) -> None:
    network = small(kind)
    found = from_state_dict(network.state_dict())
    assert found.options == network.options
    latents, noises = inputs(network)
    images = network(latents, noises)
    assert images.shape == (2, 3, network.resolution, network.resolution)
    assert torch.equal(found(latents, noises), images)
    # Each image of a batch is the one it would be alone.
    alone = network(latents[1:], [noise[1:] for noise in noises])
    assert torch.allclose(images[1:], alone, atol=1e-5 * float(images.abs().max()))


@pytest.mark.parametrize("kind", [StyleGANSynthesis, StyleGAN2])
def test_every_latent_and_noise_has_an_effect(kind: type[Any]) -> None:
    network = small(kind).requires_grad_(False)
    latents, noises = inputs(network, 1)
    for tensor in (latents, *noises):
        tensor.requires_grad_()
    # Not the mean: without the last layer's own contrast, much of StyleGAN's would cancel.
    (network(latents, noises) * torch.randn(3, 1, network.resolution)).sum().backward()
    assert latents.grad is not None and latents.grad.abs().amax((0, 2)).min() > 0
    for noise in noises:
        assert noise.grad is not None and noise.grad.abs().max() > 0


@torch.no_grad()
def test_fused_enlarging_is_the_other_with_its_kernel_mirrored() -> None:
    torch.manual_seed(5)
    fused, plain = (EnlargingConvolution(3, 4, fused) for fused in (True, False))
    plain.load_state_dict(fused.state_dict())
    plain.weight.copy_(fused.weight.flip(2, 3))
    x = torch.randn(2, 3, 6, 7)
    assert fused(x).shape == (2, 4, 12, 14)
    assert torch.allclose(fused(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("enlarge", [False, True])
@torch.no_grad()
def test_modulation_is_that_of_each_image_s_own_weights(enlarge: bool) -> None:
    """Eq. 1 and 3 of StyleGAN2 as written: the weights scaled, normalised, then convolved with."""
    torch.manual_seed(6)
    convolution = ModulatedConvolution(5, 4, 3, 16, enlarge)
    x, latent = torch.randn(3, 5, 6, 7), torch.randn(3, 16)
    styles = latent @ convolution.modulation.weight.T / 4 + 1
    expected = []
    for image, style in zip(x, styles, strict=True):
        weight = convolution.weight[0] / 45**0.5 * style[None, :, None, None]
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()
        if not enlarge:
            expected.append(F.conv2d(image[None], weight, padding=1)[0])
            continue
        large = F.conv_transpose2d(image[None], weight.transpose(0, 1), stride=2)[0].numpy()
        for axis in (1, 2):  # of sum 2, since every other value was a zero
            large = upfirdn(np.array([1, 3, 3, 1]) / 4, large, axis=axis)
        expected.append(torch.from_numpy(large[:, 2:-2, 2:-2]).float())
    assert torch.allclose(convolution(x, latent), torch.stack(expected), atol=1e-5)


def test_doubling_is_upsampling_and_a_filter() -> None:
    x = np.random.default_rng(7).normal(size=(2, 3, 5, 6)).astype(np.float32)
    expected = x
    for axis in (2, 3):
        expected = upfirdn(np.array([1, 3, 3, 1]) / 4, expected, up=2, axis=axis)
    # The filter reaches past the end by as much on both sides.
    assert np.allclose(Doubling()(torch.from_numpy(x)), expected[:, :, 1:-1, 1:-1], atol=1e-5)


# -- files -----------------------------------------------------------------------------------------


def test_a_training_file_gives_its_averaged_generator(tmp_path: Path) -> None:
    network, other = small(StyleGAN2), StyleGAN2((4, 4), latent=8)
    content = {
        "g": other.state_dict(),
        "d": {"convs.0.0.weight": torch.zeros(4, 3, 1, 1)},
        "g_ema": network.state_dict(),
        "g_optim": torch.optim.Adam(other.parameters()).state_dict(),
        "args": Namespace(size=16, lr=0.002),
        "latent_avg": torch.zeros(16),
    }
    torch.save(content, tmp_path / "stylegan2.pt")
    networks = load_networks(load_checkpoint(tmp_path / "stylegan2.pt"))
    assert list(networks) == ["generator"]
    assert networks["generator"].options == network.options
    assert torch.equal(networks["generator"].get_buffer("noises.noise_2"), network.noises.noise_2)
    assert from_state_dict(content).options == network.options


def test_noise_that_is_missing_is_drawn_alike_each_time() -> None:
    network = small(StyleGAN2)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("noises.")}
    first, second = from_state_dict(state), from_state_dict(state)
    assert first.options == network.options
    values = torch.cat([noise.flatten() for noise in first.get_submodule("noises").buffers()])
    assert torch.equal(
        values,
        torch.cat([noise.flatten() for noise in second.get_submodule("noises").buffers()]),
    )
    assert abs(values.mean()) < 0.1 and abs(values.std() - 1) < 0.1
    latents, noises = inputs(network)
    assert torch.equal(first(latents, noises), network(latents, noises))


@pytest.mark.parametrize(
    ("kind", "key", "message"),
    [
        (StyleGANSynthesis, "torgb.bias", "not a whole StyleGAN synthesis; missing: torgb.bias"),
        (StyleGANSynthesis, "blocks.16x16.conv0_up.weight", "lacks 'blocks.16x16.conv0_up.weight'"),
        (StyleGAN2, "convs.2.conv.blur.kernel", "StyleGAN2 generator; missing: convs.2.conv.blur"),
        (StyleGAN2, "input.input", "lacks 'input.input'"),
    ],
)
def test_what_is_missing_is_named(kind: type[Any], key: str, message: str) -> None:
    state = small(kind).state_dict()
    del state[key]
    with pytest.raises(BlurkitError, match=message):
        from_state_dict(state)


def test_info_tells_of_them() -> None:
    mapping, synthesis, generator = (
        StyleGANMapping(16, 3),
        small(StyleGANSynthesis),
        small(StyleGAN2),
    )
    told = {}
    for network in (mapping, synthesis, generator):
        checkpoint = Checkpoint({"network": dict(network.state_dict())})
        told |= describe_checkpoint(checkpoint, 64, 64)["networks"]
    assert list(told) == ["mapping", "synthesis", "generator"]
    assert told["mapping"]["inputs"] == [(1, 16)]
    assert told["mapping"]["gmacs"] == round(3 * 16 * 16 / 1e9, 4)
    assert told["synthesis"]["resolution"] == 128 and told["generator"]["resolution"] == 16
    assert told["synthesis"]["inputs"][0] == (1, 12, 16)
    sides = [shape[-1] for shape in told["generator"]["inputs"][1]]
    assert sides == [4, 8, 8, 16, 16]
    assert all(told[role]["gmacs"] is not None for role in told)
