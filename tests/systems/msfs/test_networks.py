"""Octave convolutions and the modules made of them; official outputs are in test_parity.py."""

import torch

from blurkit.systems.msfs.networks import FrequencySeparation, OctaveLayer, PlainConvolution


@torch.no_grad()
def test_without_low_frequencies_on_either_side_parts_are_missing() -> None:
    first = OctaveLayer(6, 6, 1, 0, 0.5, "paper")
    last = OctaveLayer(6, 4, 1, 0.5, 0, "paper")
    assert list(first.conv.state_dict()) == ["conv_h2l.weight", "conv_h2h.weight"]
    assert list(last.conv.state_dict()) == ["conv_l2h.weight", "conv_h2h.weight"]
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
