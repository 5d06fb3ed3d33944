"""The divergence of codes against torch's distributions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from blurkit.systems.kernel_space.recipe import kl_divergence


def test_kl_divergence() -> None:
    mean, deviation = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 8)))
    normal = torch.distributions.Normal(0.0, 1.0)
    found = torch.distributions.Normal(mean, deviation.abs())
    expected = 2 * torch.distributions.kl_divergence(found, normal).sum()
    # Equal but for the 1e-8 beside the variance.
    assert kl_divergence(mean, deviation).item() == pytest.approx(expected.item(), rel=1e-6)
    assert kl_divergence(torch.zeros(3), -torch.ones(3)).item() == pytest.approx(0, abs=1e-6)
    assert np.isfinite(kl_divergence(torch.zeros(3), torch.zeros(3)).item())
