"""MSDI-Net's losses against plain numpy formulas; see also test_recipe.py and test_parity.py."""

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


def test_feature_matching_teaches_the_features_of_the_made_image_alone() -> None:
    fake, real = scales(1), scales(2)
    losses.feature_matching_loss(fake, real).backward()
    assert all(t.grad is None for features in real for t in features)
    assert all(t.grad is not None for features in fake for t in features[:-1])
    assert all(features[-1].grad is None for features in fake)


def test_psnr_loss_is_bounded() -> None:
    sharp = images(2)
    # Equal images give the bound that the added 1e-8 sets, 80 dB.
    assert losses.psnr_loss(sharp, sharp).item() == pytest.approx(-80, rel=1e-6)


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
