"""Generators steered by other pictures: against E, its upsampling and U-Nets run by hand."""

import numpy as np
import pytest
import skimage.data
import torch
from torch import Tensor

from blurkit.errors import UsageError
from blurkit.systems.msdi.inference import guided, slerp
from blurkit.systems.msdi.networks import JointModel, MSDINet, StackedGenerator
from blurkit.tasks.reblur import amounts
from tests.engine.networks import steered

PHOTOS = [(picture() / 255).astype(np.float32)[:64, 64:128] for picture in
          (skimage.data.astronaut, skimage.data.chelsea, skimage.data.coffee)]  # fmt: skip
X, Y, W = (torch.from_numpy(photo.transpose(2, 0, 1)[None].copy()) for photo in PHOTOS)


@pytest.fixture(scope="module")
def model() -> JointModel:
    return steered()


def by_hand(model: JointModel, role: str, image: Tensor, z: Tensor) -> Tensor:
    """The role's generator on `image`, steered by the degradation map `z`."""
    generator = model.inverse_generator if role == "reblur" else model.generator
    return generator(image, model.prior_upsampling(z))


def assert_near(first: Tensor, second: Tensor) -> None:
    np.testing.assert_allclose(first, second, atol=1e-5)


@pytest.mark.parametrize("role", ["reblur", "deblur"])
@torch.inference_mode()
def test_an_image_is_steered_by_its_guide(model: JointModel, role: str) -> None:
    network = guided(model.roles(), role)
    assert not network.training and network.stage == role
    with_y = network(X, Y)
    assert_near(with_y, by_hand(model, role, X, model.net_prior(Y)))
    assert_near(network(X), by_hand(model, role, X, model.net_prior(X)))
    with_w = network(X, W)
    assert (with_y - with_w).abs().mean() > 1 / 255, "the guide does not matter: a weak test"
    both = network(torch.cat([X, Y]), torch.cat([Y, W]))
    assert_near(both, torch.cat([with_y, by_hand(model, role, Y, model.net_prior(W))]))


@torch.inference_mode()
def test_a_whole_msdi_net_brings_its_encoder(model: JointModel) -> None:
    torch.manual_seed(3)
    whole = MSDINet(model.net_prior, model.prior_upsampling, width=8, hidden=8).eval()
    network = guided({"deblur": whole, "encoder": steered(1).net_prior}, "deblur")
    latents = model.prior_upsampling(model.net_prior(Y))
    for ours, theirs in zip(network(X, Y), whole(X, latents), strict=True):
        assert_near(ours, theirs)
    assert_near(network(X)[-1], whole(X)[-1])


@torch.inference_mode()
def test_stacked_generators_with_the_fifth_scale(model: JointModel) -> None:
    torch.manual_seed(4)
    stacked = StackedGenerator(8, 8, "paper", True, inject_stages="both").eval()
    network = guided({**model.roles(), "reblur": stacked}, "reblur")
    latents = model.prior_upsampling(model.net_prior(Y), bottleneck=True)
    assert len(latents) == 5
    assert_near(network(X, Y)[-1], stacked(X, latents)[-1])


@pytest.mark.parametrize("lacking", ["encoder", "latents", "reblur"])
def test_a_part_that_lacks(model: JointModel, lacking: str) -> None:
    held = {k: n for k, n in model.roles().items() if k != lacking}
    assert guided(held, "reblur") is None
    assert (guided(held, "deblur") is None) == (lacking != "reblur")


@torch.inference_mode()
def test_a_spherical_mixture_is_another(model: JointModel) -> None:
    reblurring = guided(model.roles(), "reblur")
    a, b = (model.net_prior(guide).double().numpy() for guide in (Y, W))
    z = torch.from_numpy(on_the_circle(a, b, 0.5)).float()
    wanted = by_hand(model, "reblur", X, z)
    mixed = reblurring(X, Y, W, amount=0.5, spherical=True)
    np.testing.assert_allclose(mixed, wanted, atol=1e-4)
    assert (reblurring(X, Y, W, amount=0.5) - wanted).abs().max() > 0.01


def on_the_circle(a: np.ndarray, b: np.ndarray, amount: float) -> np.ndarray:
    """Shoemake's formula for two vectors, in double precision."""
    angle = np.arccos(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b))
    return (np.sin((1 - amount) * angle) * a + np.sin(amount * angle) * b) / np.sin(angle)


@pytest.mark.parametrize("amount", [-0.5, 0.0, 0.1, 0.5, 1.0, 1.75])
def test_slerp_of_every_map_in_a_batch(amount: float) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 3, 8, 4, 4))
    a[1] *= 5  # lengths differ
    b[2] = 0.9 * a[2] + 0.1 * b[2]  # nearly the same way
    mixed = slerp(torch.from_numpy(a).float(), torch.from_numpy(b).float(), amount)
    expected = np.stack([on_the_circle(*pair, amount) for pair in zip(a, b, strict=True)])
    np.testing.assert_allclose(mixed, expected, atol=2e-4)
    assert mixed.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_slerp_of_maps_that_point_the_same_way_is_linear(dtype: torch.dtype) -> None:
    a = torch.rand(40, 4, 4, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    off = 1e-2 if dtype == torch.bfloat16 else 1e-5
    for b, amount, factor in ((a, 0.3, 1), (2 * a, 0.5, 1.5), (2 * a, -1.0, 0), (-a, 0.25, 0.5)):
        mixed = slerp(a, b, amount)
        assert mixed.dtype == dtype
        np.testing.assert_allclose(mixed.float(), factor * a.float(), atol=off)
    assert torch.isfinite(slerp(torch.zeros(1, 4, 4, 4), a[:1].float(), 0.5)).all()


def test_amounts() -> None:
    assert amounts(7) == pytest.approx([n / 6 for n in range(7)])
    assert amounts(5, 1, 0) == [1, 0.75, 0.5, 0.25, 0]
    path = amounts(8, -0.25, 1.5)
    assert (path[0], path[-1]) == (-0.25, 1.5)
    assert np.diff(path) == pytest.approx([0.25] * 7)
    assert amounts(1) == [1] and amounts(1, 0, 0.5) == [0.5]
    with pytest.raises(UsageError, match="--steps 0: at least 1"):
        amounts(0)
