"""Octave convolution against Eq. 1-2 written out with scipy, and the module made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.signal import correlate2d
from torch import nn

from blurkit.systems.msfs.networks import FrequencySeparation, OctaveConv, PlainConvolution


def convolved(x: np.ndarray, conv: nn.Conv2d | None) -> np.ndarray:
    """(C, H, W) float64 under a convolution without bias, zeros around."""
    assert conv is not None and conv.bias is None
    weight = conv.weight.detach().double().numpy()
    return np.stack(
        [sum(correlate2d(c, k, mode="same") for c, k in zip(x, w, strict=True)) for w in weight]
    )


def pooled(x: np.ndarray) -> np.ndarray:
    """Means of 2x2 pixels; an odd row or column falls away."""
    channels, height, width = x.shape
    even = x[:, : height // 2 * 2, : width // 2 * 2]
    return even.reshape(channels, height // 2, 2, width // 2, 2).mean((2, 4))


def enlarged(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """Every pixel four times; zeros in a row or column that is missing."""
    larger = np.zeros((len(x), height, width))
    twice = x.repeat(2, 1).repeat(2, 2)
    larger[:, : twice.shape[1], : twice.shape[2]] = twice
    return larger


@pytest.mark.parametrize("size", [(8, 12), (9, 12), (7, 5)])
@pytest.mark.parametrize("kernel", [1, 3])
@torch.no_grad()
def test_an_octave_convolution_is_equations_1_and_2(size: tuple[int, int], kernel: int) -> None:
    torch.manual_seed(2)
    layer = OctaveConv(8, 12, kernel, 0.5, 0.25)
    high, low = torch.randn(1, 4, *size), torch.randn(1, 4, size[0] // 2, size[1] // 2)
    new_high, new_low = layer(high, low)
    x, y = high[0].double().numpy(), low[0].double().numpy()
    wanted = convolved(x, layer.conv_h2h) + enlarged(convolved(y, layer.conv_l2h), *size)
    np.testing.assert_allclose(new_high[0], wanted, atol=1e-5)
    assert new_low is not None and new_low.shape[1] == 3
    wanted = convolved(y, layer.conv_l2l) + convolved(pooled(x), layer.conv_h2l)
    np.testing.assert_allclose(new_low[0], wanted, atol=1e-5)


@torch.no_grad()
def test_without_low_frequencies_on_either_side_parts_are_missing() -> None:
    first, last = OctaveConv(6, 6, 1, 0, 0.5), OctaveConv(6, 4, 1, 0.5, 0)
    assert list(first.state_dict()) == ["conv_h2l.weight", "conv_h2h.weight"]
    assert list(last.state_dict()) == ["conv_l2h.weight", "conv_h2h.weight"]
    high, low = first(torch.rand(2, 6, 10, 8))
    assert high.shape == (2, 3, 10, 8) and low is not None and low.shape == (2, 3, 5, 4)
    fused, nothing = last(high, low)
    assert fused.shape == (2, 4, 10, 8) and nothing is None


@torch.no_grad()
def test_the_papers_module_is_linear_and_adds_its_input() -> None:
    """No norms, no ReLU: what it adds to its input is a linear function of it."""
    torch.manual_seed(1)
    module = FrequencySeparation(8, 8, "paper")
    x, y = torch.randn(2, 1, 8, 16, 16).unbind()
    both = module(x + 2 * y).fused
    torch.testing.assert_close(both, module(x).fused + 2 * module(y).fused)
    for parameter in module.oct3.parameters():
        parameter.zero_()
    assert torch.equal(module(x).fused, x)


@torch.no_grad()
def test_the_released_module_normalises_and_cuts() -> None:
    torch.manual_seed(1)
    module = FrequencySeparation(8, 4, "official").train()
    x = 30 * torch.randn(4, 8, 16, 16) + 7
    high, low, fused = module(x)
    assert high.shape == (4, 4, 16, 16) and low.shape == (4, 4, 8, 8) and fused.shape[1] == 4
    for part in (high, low):
        assert part.min() == 0 and part.max() < 10  # of unit variance before the ReLU
    assert (fused - module.conv(x)).min() >= -1e-4


def test_a_plain_convolution_separates_nothing() -> None:
    features = PlainConvolution(6, 4)(torch.rand(1, 6, 5, 7))
    assert features.high is features.low is features.fused
    assert features.fused.shape == (1, 4, 5, 7)
