"""StyleGAN and StyleGAN2 found again from their files; official outputs are in test_parity.py."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems import from_state_dict
from blurkit.systems.kernel_space.stylegan import (
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
def test_each_image_of_a_batch_is_the_one_it_would_be_alone(kind: type[Any]) -> None:
    network = small(kind)
    latents, noises = inputs(network)
    images = network(latents, noises)
    assert images.shape == (2, 3, network.resolution, network.resolution)
    alone = network(latents[1:], [noise[1:] for noise in noises])
    assert torch.allclose(images[1:], alone, atol=1e-5 * float(images.abs().max()))


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
    values, others = (
        torch.cat([noise.flatten() for noise in found.get_submodule("noises").buffers()])
        for found in (first, second)
    )
    assert torch.equal(values, others)
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
    told = {}
    for network in (StyleGANMapping(16, 3), small(StyleGANSynthesis), small(StyleGAN2)):
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
