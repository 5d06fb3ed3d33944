"""MSDI-Net's losses against plain numpy formulas; official scalars are in test_parity.py."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.systems.msdi import losses
from blurkit.systems.msdi.encoder import BlurEncoder, DegradationEncoder


def scales(seed: int) -> list[list[Tensor]]:
    """Two scales of four feature maps and a score map, as a discriminator gives them."""
    rng = np.random.default_rng(seed)
    return [
        [
            torch.from_numpy(rng.normal(size=(2, channels, size, size + 1))).requires_grad_()
            for channels in (3, 4, 5, 6, 1)
        ]
        for size in (9, 5)
    ]


def images(seed: int, size: int = 32) -> Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).random((2, 3, size, size), dtype=np.float32)
    )


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy().astype(np.float64)


def test_hinge_losses() -> None:
    fake, real = scales(1), scales(2)
    score = [array(features[-1]) for features in fake]
    assert losses.hinge_generator_loss(fake).item() == pytest.approx(
        -(score[0].mean() + score[1].mean()) / 2
    )
    on_fake, on_real = losses.hinge_discriminator_loss(fake, real)
    # The paper's Eq. 4 writes the same with min(0, .) and a minus sign.
    expected_fake = [-np.minimum(0, -1 - array(features[-1])).mean() for features in fake]
    expected_real = [-np.minimum(0, -1 + array(features[-1])).mean() for features in real]
    assert on_fake.item() == pytest.approx(np.mean(expected_fake))
    assert on_real.item() == pytest.approx(np.mean(expected_real))


def test_feature_matching() -> None:
    fake, real = scales(1), scales(2)
    loss = losses.feature_matching_loss(fake, real)
    expected = 0.0
    for f, r in zip(fake, real, strict=True):
        for i in range(4):
            expected += np.abs(array(f[i]) - array(r[i])).mean() / 2
    assert loss.item() == pytest.approx(expected)
    loss.backward()
    assert all(t.grad is None for features in real for t in features)
    assert all(t.grad is not None for features in fake for t in features[:-1])
    assert all(features[-1].grad is None for features in fake)


def test_psnr_loss() -> None:
    restored, sharp = images(1), images(2)
    error = ((array(restored) - array(sharp)) ** 2).mean(axis=(1, 2, 3))
    expected = -np.mean(10 * np.log10(1 / error))
    assert losses.psnr_loss(restored, sharp).item() == pytest.approx(expected, rel=1e-5)
    # Equal images give the bound that the added 1e-8 sets, 80 dB.
    assert losses.psnr_loss(sharp, sharp).item() == pytest.approx(-80, rel=1e-6)


@pytest.mark.parametrize(("layers", "count"), [("blur", 5), ("all", 13)])
def test_blur_aware_loss(layers: str, count: int) -> None:
    torch.manual_seed(0)
    encoder = DegradationEncoder(1, 4).eval()
    restored, sharp = images(1, 128).requires_grad_(), images(2, 128).requires_grad_()
    loss = losses.blur_aware_loss(encoder, restored, sharp, layers)
    maps = [encoder.features(x, layers) for x in (restored, sharp)]
    assert len(maps[0]) == count
    # Eq. 7: the sum over layers of the L1 norm over the number of values.
    expected = sum(
        np.abs(array(a) - array(b)).sum() / a.numel() for a, b in zip(*maps, strict=True)
    )
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert sharp.grad is None
    assert restored.grad.abs().sum() > 0


def test_blur_aware_loss_takes_the_partial_encoder() -> None:
    torch.manual_seed(0)
    whole, part = DegradationEncoder(1, 4).eval(), BlurEncoder(4).eval()
    part.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith("res_")})
    both = [
        losses.blur_aware_loss(encoder, images(1), images(2)).item() for encoder in (whole, part)
    ]
    assert both[0] == both[1] > 0


def test_frequency_loss_is_the_l1_distance_of_spectra() -> None:
    one, other = images(1), images(2)
    spectra = (np.fft.rfft2(image.double().numpy()) for image in (one, other))
    difference = np.subtract(*spectra)
    direct = (np.abs(difference.real) + np.abs(difference.imag)).mean() / 2
    assert float(losses.frequency_loss(one, other)) == pytest.approx(direct, rel=1e-4)
    assert float(losses.frequency_loss(one, one)) == 0
