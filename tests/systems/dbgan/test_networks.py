"""BGAN and DBGAN: what their layers do, sizes, initial values, errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.dbgan.networks import (
    BGAN,
    DBGAN,
    CropDiscriminator,
    SpectralVGGDiscriminator,
    VGGDiscriminator,
    initialise,
)
from blurkit.systems.registry import describe, from_state_dict
from blurkit.systems.uses import network_for


def image(height: int = 40, width: int = 48, count: int = 1) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.random((count, 3, height, width), dtype=np.float32))


def seeded(kind: type[nn.Module], *arguments: int) -> nn.Module:
    torch.manual_seed(0)
    return kind(*arguments)


@pytest.mark.parametrize(
    ("network", "parameters"),
    [
        (BGAN, 1_704_515),
        (DBGAN, 11_588_163),
        (VGGDiscriminator, 14_502_281),
        (SpectralVGGDiscriminator, 14_496_521),
    ],
)
def test_paper_sizes(network: type[nn.Module], parameters: int) -> None:
    with torch.device("meta"):
        assert describe(network())["parameters"] == parameters


# -- BGAN ------------------------------------------------------------------------------------------


@torch.no_grad()
def test_bgan_layer_by_layer() -> None:
    network, sharp, noise = seeded(BGAN, 6, 2, 3), image(), torch.randn(1, 3)
    w = network.state_dict()

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    maps = torch.ones(1, 3, 40, 48) * noise.view(1, 3, 1, 1)
    x = conv(torch.cat([sharp, maps], 1), "head")
    for i in range(2):
        y = x
        for j in range(4):
            y = F.relu(conv(y, f"body.{i}.convs.{j}"))
        x = x + conv(y, f"body.{i}.convs.4")
    expected = sharp + conv(F.relu(conv(x, "tail.0")), "tail.1")
    assert len(w) == 2 * (1 + 2 * 5 + 2)
    torch.testing.assert_close(network(sharp, noise), expected)


@torch.no_grad()
def test_noise_is_one_vector_for_each_image() -> None:
    network, sharp = seeded(BGAN, 8, 2), image(count=2)
    first, second = torch.randn(2, 4), torch.randn(2, 4)
    both = network(sharp, first)
    assert not torch.allclose(both, network(sharp, second), atol=1e-3)
    alone = network(sharp[1:], first[1:])
    torch.testing.assert_close(both[1:], alone)
    # With no image to tell places apart, all but the border, which sees zeros, is one color.
    seen = 1 + 2 * 5 + 2
    blank = network(torch.full((1, 3, 40, 40), 0.5), first[:1])
    inside = blank[..., seen:-seen, seen:-seen]
    assert inside.numel() > 0 and inside.flatten(2).std(2).max() < 1e-6


@torch.no_grad()
def test_bgan_moves_with_its_image() -> None:
    network, sharp, noise = seeded(BGAN, 8, 1), image(48, 56), torch.randn(1, 4)
    seen = 1 + 5 + 2
    whole, part = network(sharp, noise), network(sharp[..., 5:, 9:], noise)
    inside = (..., slice(seen, -seen), slice(seen, -seen))
    torch.testing.assert_close(whole[..., 5:, 9:][inside], part[inside])


def test_bgan_learns_through_image_and_noise() -> None:
    network, sharp, noise = seeded(BGAN, 8, 1), image(), torch.randn(1, 4).requires_grad_()
    sharp.requires_grad_()
    network(sharp, noise).square().sum().backward()
    assert noise.grad.abs().min() > 0 and sharp.grad.abs().min() > 0
    assert all(p.grad.abs().sum() > 0 for p in network.parameters())


# -- DBGAN -----------------------------------------------------------------------------------------


@torch.no_grad()
def test_dbgan_layer_by_layer() -> None:
    network, blur = seeded(DBGAN, 6, 2, 4), image()
    w = network.state_dict()

    def conv(x: Tensor, name: str) -> Tensor:
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    features = x = conv(blur, "model.0")
    for i in range(2):
        before = x
        for j in (1, 2, 3):
            dense = [x]
            for k in (1, 2, 3, 4):
                name = f"model.1.sub1.{i}.RDB{j}.conv{k}.0"
                dense.append(F.leaky_relu(conv(torch.cat(dense, 1), name), 0.2))
            x = x + 0.2 * conv(torch.cat(dense, 1), f"model.1.sub1.{i}.RDB{j}.conv5.0")
        x = before + 0.2 * x
    x = features + conv(x, "model.1.sub2.0")
    residual = conv(F.leaky_relu(conv(x, "model.2"), 0.2), "model.4")
    torch.testing.assert_close(network.model(blur), residual)
    torch.testing.assert_close(network(blur), (blur + residual).clamp(0, 1))


def test_dbgan_is_clamped_in_training_too() -> None:
    network = seeded(DBGAN, 4, 1, 4)
    nn.init.zeros_(network.model[4].weight)
    network.model[4].bias.data = torch.tensor([2.0, -2.0, 0.0])
    restored = network.train()(image())
    assert (restored[:, 0] == 1).all() and (restored[:, 1] == 0).all()
    torch.testing.assert_close(restored[:, 2], image()[:, 2])
    restored.sum().backward()
    # Where the sum is out of range there is nothing to learn from.
    assert network.model[4].bias.grad.tolist() == [0, 0, 40 * 48]


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (33, 2)])
@torch.no_grad()
def test_both_take_images_of_any_size(size: tuple[int, int]) -> None:
    for network, more in ((DBGAN(4, 1, 4), ()), (BGAN(4, 1), (torch.randn(1, 4),))):
        assert network.size.padded(*size) == size
        made = network(image(*size), *more)
        assert made.shape == (1, 3, *size) and torch.isfinite(made).all()


def test_dbgan_deblurs_on_its_own() -> None:
    network = network_for("deblurring", Checkpoint({"network": DBGAN(4, 1, 4).state_dict()}))
    assert isinstance(network, DBGAN)
    bgan = Checkpoint({"network": BGAN(4, 1).state_dict()}, where="bgan.pt")
    with pytest.raises(BlurkitError, match=r"holds bgan \(BGAN\); .* or an MSFS-Net; or a DBGAN"):
        network_for("deblurring", bgan)


# -- initial values --------------------------------------------------------------------------------


@pytest.mark.parametrize("deviation", [0.01, 0.1])
def test_initial_values(deviation: float) -> None:
    kinds = (BGAN(16, 2), DBGAN(16, 1, 8), VGGDiscriminator(32, 8), SpectralVGGDiscriminator(32, 8))
    for network in kinds:
        torch.manual_seed(0)
        initialise(network, deviation)
        state = dict(network.named_parameters())
        weights = torch.cat([p.flatten() for p in state.values() if p.ndim > 1])
        assert weights.mean().item() == pytest.approx(0, abs=deviation / 50)
        assert weights.std().item() == pytest.approx(deviation, rel=0.02)
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        assert all((norm.weight == 1).all() for norm in norms)
        assert not any(p.any() for name, p in state.items() if name.endswith("bias"))


@torch.no_grad()
def test_training_begins_with_the_image() -> None:
    torch.manual_seed(0)
    for network, more in ((DBGAN(16, 2, 8), ()), (BGAN(), (torch.randn(1, 4),))):
        initialise(network, 0.01)
        made = network(image(), *more)
        assert (made - image()).abs().max() < 0.01 and not torch.equal(made, image())


# -- discriminators --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VGGDiscriminator, SpectralVGGDiscriminator])
@torch.no_grad()
def test_discriminators_judge_crops_of_one_size(kind: type[CropDiscriminator]) -> None:
    network = kind(64, 4).eval()
    assert network(image(64, 64, 3)).shape == (3, 1)
    for height, width in ((64, 96), (128, 128), (32, 32)):
        with pytest.raises(BlurkitError, match=f"crops of 64x64 pixels, not {height}x{width}$"):
            network(image(height, width))
    for crop in (0, -32, 100, 16, 224):
        with pytest.raises(UsageError, match=f"crops of {crop} pixels: it takes multiples of 32"):
            kind(crop, 4)


@pytest.mark.parametrize("crop", [96, 128, 192])
@torch.no_grad()
def test_vgg_discriminator_layer_by_layer(crop: int) -> None:
    network = seeded(VGGDiscriminator, crop, 4)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    crops = image(crop, crop, 2)
    w = network.eval().state_dict()
    stages = 6 if crop == 192 else 5
    x = F.leaky_relu(F.conv2d(crops, w["features.0.weight"], w["features.0.bias"], padding=1), 0.2)
    for i in range(2, 3 * 2 * stages - 1, 3):
        weight, part = w[f"features.{i}.weight"], f"features.{i + 1}"
        x = F.conv2d(x, weight, w[f"features.{i}.bias"], stride=weight.shape[2] - 2, padding=1)
        scale = w[f"{part}.weight"] / (w[f"{part}.running_var"] + 1e-5).sqrt()
        shift = w[f"{part}.bias"] - w[f"{part}.running_mean"] * scale
        x = F.leaky_relu(x * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1), 0.2)
    assert x.shape[1:] == (32, crop // 2**stages, crop // 2**stages)
    hidden = F.linear(x.flatten(1), w["classifier.0.weight"], w["classifier.0.bias"])
    logits = F.linear(F.leaky_relu(hidden, 0.2), w["classifier.2.weight"], w["classifier.2.bias"])
    torch.testing.assert_close(network(crops), logits, rtol=1e-4, atol=1e-5)


def test_spectral_norms_come_to_one() -> None:
    network = seeded(SpectralVGGDiscriminator, 32, 4)
    crops = image(32, 32, 2)
    trained = {name: p.clone() for name, p in network.named_parameters()}
    with torch.no_grad():
        for _ in range(100):
            made = network(crops)
        for layer in network.children():
            singular = np.linalg.svd(layer.weight.flatten(1).numpy(), compute_uv=False)
            assert singular[0] == pytest.approx(1, rel=1e-3)
        # What is trained is untouched; in eval mode nothing moves.
        assert all(torch.equal(p, trained[name]) for name, p in network.named_parameters())
        kept = {key: value.clone() for key, value in network.state_dict().items()}
        network.eval()
        assert torch.equal(network(crops), made)
        assert all(torch.equal(value, kept[key]) for key, value in network.state_dict().items())


def test_a_spectral_norm_is_learned_through() -> None:
    """The gradient of W / sigma by W, with sigma = u W v and fixed u and v, by float64 numpy."""
    network = seeded(SpectralVGGDiscriminator, 32, 4).double()
    layer, x = network.linear0, torch.randn(3, 32, dtype=torch.float64)
    u = layer.weight_u.numpy().copy()
    layer(x).square().sum().backward()
    w = layer.weight_orig.detach().numpy()
    v = w.T @ u / np.linalg.norm(w.T @ u)
    u = w @ v / np.linalg.norm(w @ v)
    sigma = u @ w @ v
    np.testing.assert_allclose(layer.weight_u.numpy(), u)
    np.testing.assert_allclose(layer.weight.numpy(), w / sigma)
    output = x.numpy() @ (w / sigma).T + layer.bias.detach().numpy()
    by_weight = 2 * output.T @ x.numpy()
    expected = by_weight / sigma - (by_weight * w).sum() / sigma**2 * np.outer(u, v)
    np.testing.assert_allclose(layer.weight_orig.grad.numpy(), expected, rtol=1e-9)


def test_a_spectral_discriminator_can_be_trained_after_loading() -> None:
    network = seeded(SpectralVGGDiscriminator, 32, 4)
    loaded = from_state_dict(network.state_dict()).train()
    loaded(image(32, 32)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in loaded.parameters())


def test_spectral_vectors_keep_their_precision() -> None:
    network, again = (seeded(SpectralVGGDiscriminator, 32, 4) for _ in range(2))
    with torch.no_grad():
        exact = network(image(32, 32))
        with torch.autocast("cpu", torch.bfloat16):
            coarse = again(image(32, 32))
    assert coarse.dtype == torch.bfloat16
    torch.testing.assert_close(coarse.float(), exact, rtol=0.05, atol=0.05)
    for key, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
