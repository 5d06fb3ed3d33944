"""StyleGAN and StyleGAN2 found again from their files, and the prior for searches made of them."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint, load_checkpoint
from blurkit.systems import from_state_dict
from blurkit.systems.kernel_space.priors import (
    SphericalAdam,
    StylePrior,
    bicubic_downsample,
    geocross,
    load_style_prior,
    one_cycle_drop,
)
from blurkit.systems.kernel_space.stylegan import StyleGAN2, StyleGANMapping, StyleGANSynthesis
from blurkit.systems.msdi.networks import MultiscaleDiscriminator
from blurkit.systems.registry import load_networks
from blurkit.tasks.inspect import describe_checkpoint
from tests.shared import shared_folder
from tests.systems.kernel_space.searches import style_network

Generator = StyleGANSynthesis | StyleGAN2
WIDTHS = {"StyleGANSynthesis": (12, 10, 8, 6, 4, 2), "StyleGAN2": (8, 6, 4)}


def small(kind: type[Any]) -> Any:
    """A generator of few channels whose every weight has an effect."""
    return style_network(WIDTHS[kind.__name__], kind).eval()


def inputs(network: Generator) -> tuple[Tensor, list[Tensor]]:
    """Latents and noises for two images."""
    torch.manual_seed(4)
    latents = torch.randn(2, network.layers, 16)
    return latents, [torch.randn(2, 1, side, side) for side in network.noise_sides]


V1, V2 = (512,) * 4 + (256, 128, 64, 32, 16), (512,) * 5 + (256, 128)


@pytest.mark.parametrize(
    ("kind", "widths", "parameters", "keys", "sizes"),
    [
        (StyleGANSynthesis, (V1,), 24_110_771, 100, {"layers": 18, "resolution": 1024}),
        (StyleGAN2, (V2,), 30_034_338, 135, {"layers": 14, "resolution": 256}),
        (StyleGANMapping, (), 2_101_248, 16, {}),
    ],
)
def test_official_sizes(
    kind: type[Any], widths: tuple, parameters: int, keys: int, sizes: dict[str, int]
) -> None:
    with torch.device("meta"):
        network = kind(*widths)
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == keys
    assert {name: getattr(network, name) for name in sizes} == sizes
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
    ((role, found),) = load_networks(load_checkpoint(tmp_path / "stylegan2.pt")).items()
    assert role == "generator" and found.options == network.options
    assert torch.equal(found.get_buffer("noises.noise_2"), network.noises.noise_2)
    assert from_state_dict(content).options == network.options


def test_noise_that_is_missing_is_drawn_alike_each_time() -> None:
    network = small(StyleGAN2)
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("noises.")}
    first, second = from_state_dict(state), from_state_dict(state)
    assert first.options == network.options
    values, others = (
        torch.cat([noise.flatten() for noise in found.noises.buffers()])
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
    assert [shape[-1] for shape in told["generator"]["inputs"][1]] == [4, 8, 8, 16, 16]
    assert all(told[role]["gmacs"] is not None for role in told)


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    arrays = np.load(shared_folder("parity", "BLURKIT_PARITY") / "kernel_losses.npz")
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def assert_close(value: Tensor, reference: Tensor) -> None:
    value = value.detach().reshape(reference.shape)
    assert (value - reference).abs().max() <= 1e-5 * reference.abs().max()


@pytest.mark.parametrize(("layers", "divisor"), [(18, 8), (14, 6)])
def test_geocross(official: dict[str, Tensor], layers: int, divisor: float) -> None:
    latents = official[f"input_latent{layers}"]
    assert_close(geocross(latents, divisor).sum(), official[f"output_geocross{layers}"])
    # One value for each image, whatever is beside it.
    batch = torch.cat([latents, latents.roll(1, 1), latents[:, :1].expand(-1, layers, -1)])
    values = geocross(batch, divisor)
    assert torch.allclose(values[1], values[0])
    assert values.shape == (3,) and values[2] < 1e-3 * values[0]


def test_geocross_has_a_gradient_where_latents_are_equal() -> None:
    latents = torch.ones(1, 4, 8, requires_grad=True)
    geocross(latents, 8).sum().backward()
    assert latents.grad is not None and latents.grad.isfinite().all()


def test_bicubic_downsample(official: dict[str, Tensor]) -> None:
    assert_close(bicubic_downsample(official["input_x"], 4), official["output_bicubic_down4"])


def test_spherical_adam(official: dict[str, Tensor]) -> None:
    variable = official["input_sphere_p"].clone().requires_grad_()
    optimizer = SphericalAdam([variable], lr=0.2)
    for expected in official["output_sphere_p"]:
        variable.grad = official["input_sphere_grad"].clone()
        optimizer.step()
        assert_close(variable, expected)


def test_one_cycle_drop(official: dict[str, Tensor]) -> None:
    reference = official["output_linear1cycledrop_mult"]
    values = [one_cycle_drop(step, 7500) for step in range(0, 7500, 25)]
    assert_close(torch.tensor(values, dtype=reference.dtype), reference)
    assert one_cycle_drop(45, 100) == 1


def test_bicubic_downsample_at_its_limits() -> None:
    image = torch.rand(2, 3, 7, 9)
    assert torch.allclose(bicubic_downsample(image, 1), image)
    assert torch.allclose(bicubic_downsample(torch.ones(1, 2, 8, 16), 4), torch.ones(1, 2, 2, 4))
    with pytest.raises(UsageError, match="an image of 9x7 is too small to be made 5x smaller"):
        bicubic_downsample(image, 5)


LATENT = 16


def saved(folder: Path, **networks: nn.Module) -> list[Path]:
    """A file for each network, as the released ones are: a bare state dict."""
    for name, network in networks.items():
        torch.save(network.state_dict(), folder / f"{name}.pt")
    return [folder / f"{name}.pt" for name in networks]


def prior(folder: Path, version: int) -> StylePrior:
    torch.manual_seed(2)
    if version == 2:
        return load_style_prior(*saved(folder, two=StyleGAN2((8, 6, 4), LATENT)))
    mapping, synthesis = StyleGANMapping(LATENT), StyleGANSynthesis((8, 6, 4), LATENT)
    return load_style_prior(*saved(folder, synthesis=synthesis, mapping=mapping))


@pytest.mark.parametrize(
    ("version", "sides", "divisor"), [(1, [4, 4, 8, 8, 16, 16], 8), (2, [4, 8, 8, 16, 16], 6)]
)
def test_one_door_to_both(tmp_path: Path, version: int, sides: list[int], divisor: float) -> None:
    found = prior(tmp_path, version)
    assert (found.layers, found.latent, found.resolution) == (6, LATENT, 16)
    assert (found.noise_sides, found.divisor) == (sides, divisor)
    mean, std = found.fit_gaussian(1000)
    v = torch.randn(2, 6, LATENT, requires_grad=True)
    noises = [torch.randn(1, 1, side, side, requires_grad=True) for side in sides]
    image = found.image(found.latents(v, mean, std), noises)
    assert image.shape == (2, 3, 16, 16)
    image.square().sum().backward()
    assert v.grad is not None and v.grad.abs().amax((0, 2)).min() > 0
    assert all(noise.grad is not None for noise in noises)
    assert not found.training and not any(p.requires_grad for p in found.parameters())

    with torch.no_grad():
        latents = found.latents(v, mean, std)
        assert torch.allclose(image, (found.synthesis(latents, noises) + 1) / 2)


@pytest.mark.parametrize("version", [1, 2])
@torch.no_grad()
def test_the_gaussian_is_from_before_the_last_activation(tmp_path: Path, version: int) -> None:
    found = prior(tmp_path, version)
    noise = torch.randn(10_000, LATENT, generator=torch.Generator().manual_seed(5))
    outputs = found.mapping(noise).double().numpy()
    before = np.where(outputs < 0, 5 * outputs, outputs)
    mean, std = found.fit_gaussian(10_000, seed=5)
    assert mean.dtype == std.dtype == torch.float32
    assert np.allclose(mean, before.mean(0), atol=1e-5)
    assert np.allclose(std, before.std(0, ddof=1), rtol=1e-5)
    assert torch.equal(found.fit_gaussian(10_000, seed=5)[1], std)
    assert not torch.equal(found.fit_gaussian(10_000, seed=6)[1], std)


def test_files_that_make_no_prior(tmp_path: Path) -> None:
    mapping, wide, synthesis, critic = saved(
        tmp_path,
        mapping=StyleGANMapping(LATENT),
        wide=StyleGANMapping(2 * LATENT),
        synthesis=StyleGANSynthesis((4, 4), LATENT),
        critic=MultiscaleDiscriminator(4),
    )
    foreign, cut = tmp_path / "foreign.pt", tmp_path / "cut.pt"
    torch.save({"fc.weight": torch.zeros(2, 2)}, foreign)
    state = StyleGAN2((4, 4), LATENT).state_dict()
    del state["to_rgb1.bias"]
    torch.save(state, cut)
    for paths, message in (
        ([mapping], "mapping.pt: holds only StyleGAN's mapping; add the file of its synthesis"),
        ([synthesis], "synthesis.pt: holds only StyleGAN's synthesis; add the file of its map"),
        ([wide, synthesis], r"wide.pt \+ .*synthesis.pt: the mapping gives latents of 32 values"),
        ([tmp_path / "none.pt"], "none.pt: no such checkpoint"),
        ([foreign], "foreign.pt: no known network has this state dict"),
        ([cut], "cut.pt: not a whole StyleGAN2 .* to_rgb1.bias"),
        ([critic], r"holds discriminator \(Multiscale.*no StyleGAN"),
    ):
        with pytest.raises(BlurkitError, match=message):
            load_style_prior(*paths)
