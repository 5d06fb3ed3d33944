"""BGAN and DBGAN: BGAN's layers, sizes, initial values, errors; for DBGAN see test_parity.py."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.nn.blocks import initialise
from blurkit.systems.dbgan.networks import (
    BGAN,
    DBGAN,
    CropDiscriminator,
    SpectralVGGDiscriminator,
    VGGDiscriminator,
)
from blurkit.systems.registry import from_state_dict
from blurkit.systems.uses import network_for


def image(height: int = 40, width: int = 48, count: int = 1) -> Tensor:
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.random((count, 3, height, width), dtype=np.float32))


def seeded(kind: type[nn.Module], *arguments: int) -> nn.Module:
    torch.manual_seed(0)
    return kind(*arguments)


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
    plain = Checkpoint({"network": DBGAN(4, 1, 4).state_dict()})
    assert isinstance(network_for("deblurring", plain), DBGAN)
    bgan = Checkpoint({"network": BGAN(4, 1).state_dict()}, where="bgan.pt")
    with pytest.raises(BlurkitError, match=r"holds bgan \(BGAN\); .* or an MSFS-Net; or a DBGAN"):
        network_for("deblurring", bgan)


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
    loaded = from_state_dict(seeded(SpectralVGGDiscriminator, 32, 4).state_dict()).train()
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
    torch.testing.assert_close(again.state_dict(), network.state_dict(), rtol=0, atol=0)
