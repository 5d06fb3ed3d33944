"""The StyleGAN prior: its files, its latents, and the search among them."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.errors import BlurkitError, UsageError
from blurkit.systems.kernel_space.style_prior import (
    SphericalAdam,
    StylePrior,
    bicubic_downsample,
    geocross,
    load_style_prior,
    one_cycle_drop,
)
from blurkit.systems.kernel_space.stylegan import StyleGAN2, StyleGANMapping, StyleGANSynthesis
from tests.shared import shared_folder

FOLDER = shared_folder("parity", "BLURKIT_PARITY")


@pytest.fixture(scope="module")
def official() -> dict[str, Tensor]:
    arrays = np.load(FOLDER / "kernel_losses.npz")
    told = json.loads((FOLDER / "kernel_losses.json").read_text())
    return {name: torch.from_numpy(arrays[name]) for name in told["arrays"]}


def assert_close(value: Tensor, reference: Tensor) -> None:
    value = value.detach().reshape(reference.shape)
    assert (value - reference).abs().max() <= 1e-5 * reference.abs().max()


# -- official numbers ------------------------------------------------------------------------------


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


# -- other ways to the same ------------------------------------------------------------------------


def test_bicubic_downsample_at_its_limits() -> None:
    image = torch.rand(2, 3, 7, 9)
    assert torch.allclose(bicubic_downsample(image, 1), image)
    assert torch.allclose(bicubic_downsample(torch.ones(1, 2, 8, 16), 4), torch.ones(1, 2, 2, 4))
    with pytest.raises(UsageError, match="an image of 9x7 is too small to be made 5x smaller"):
        bicubic_downsample(image, 5)


# -- the prior -------------------------------------------------------------------------------------

LATENT = 16


def saved(folder: Path, **networks: torch.nn.Module) -> list[Path]:
    """A file for each network, as the released ones are: a bare state dict."""
    files = []
    for name, network in networks.items():
        files.append(folder / f"{name}.pt")
        torch.save(network.state_dict(), files[-1])
    return files


def prior(folder: Path, version: int) -> StylePrior:
    torch.manual_seed(2)
    if version == 2:
        return load_style_prior(*saved(folder, two=StyleGAN2((8, 6, 4), LATENT)))
    mapping, synthesis = StyleGANMapping(LATENT), StyleGANSynthesis((8, 6, 4), LATENT)
    return load_style_prior(*saved(folder, synthesis=synthesis, mapping=mapping))


@pytest.mark.parametrize(
    ("version", "sides", "divisor"), [(1, [4, 4, 8, 8, 16, 16], 8), (2, [4, 8, 8, 16, 16], 6)]
)
def test_one_interface_to_both(
    tmp_path: Path, version: int, sides: list[int], divisor: float
) -> None:
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
    with pytest.raises(UsageError, match=r"latents of 8x16 for a generator of 16x16 .* takes 6x16"):
        found.image(torch.zeros(1, 8, LATENT), noises)
    with pytest.raises(UsageError, match=r"noise maps of sides \[4, .*the generator takes \[4, "):
        found.image(latents, noises[:-1])


@pytest.mark.parametrize("version", [1, 2])
@torch.no_grad()
def test_the_gaussian_is_that_of_the_mapping_before_its_last_activation(
    tmp_path: Path, version: int
) -> None:
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
    mapping, wide, synthesis, generator = saved(
        tmp_path,
        mapping=StyleGANMapping(LATENT),
        wide=StyleGANMapping(2 * LATENT),
        synthesis=StyleGANSynthesis((4, 4), LATENT),
        generator=StyleGAN2((4, 4), LATENT),
    )
    for paths, message in (
        ([mapping], "mapping.pt: holds only StyleGAN's mapping; add the file of its synthesis"),
        ([synthesis], "synthesis.pt: holds only StyleGAN's synthesis; add the file of its map"),
        ([wide, synthesis], r"wide.pt \+ .*synthesis.pt: the mapping gives latents of 32 values"),
        ([tmp_path / "none.pt"], "none.pt: no such checkpoint"),
    ):
        with pytest.raises(BlurkitError, match=message):
            load_style_prior(*paths)

    torch.save({"fc.weight": torch.zeros(2, 2)}, tmp_path / "foreign.pt")
    with pytest.raises(BlurkitError, match=r"foreign.pt: no known network has this state dict"):
        load_style_prior(tmp_path / "foreign.pt")
    state = torch.load(generator, weights_only=True)
    del state["to_rgb1.bias"]
    torch.save(state, tmp_path / "cut.pt")
    with pytest.raises(BlurkitError, match=r"cut.pt: not a whole StyleGAN2 .* to_rgb1.bias"):
        load_style_prior(tmp_path / "cut.pt")


def test_another_network_is_named(tmp_path: Path) -> None:
    from blurkit.systems.msdi.networks import MultiscaleDiscriminator

    (path,) = saved(tmp_path, critic=MultiscaleDiscriminator(4))
    with pytest.raises(BlurkitError, match=r"holds discriminator \(Multiscale.*no StyleGAN"):
        load_style_prior(path)
