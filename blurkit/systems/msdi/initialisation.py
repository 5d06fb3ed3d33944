"""Weights that MSDI-Net's networks can begin with in place of random ones."""

from __future__ import annotations

import torch
from torch import nn

from blurkit.systems.msdi.injection import PaperModulation
from blurkit.systems.msdi.networks import Generator, PriorUpsampling, StackedGenerator


@torch.no_grad()
def start_at_identity(network: Generator) -> None:
    """Zero the convolutions that make a network's images, so that it begins by returning its input.

    The residual is then learned from nothing, and not against the noise of random weights. What
    makes gamma and beta of the paper's modulation begins at 1 and 0 everywhere: a network that was
    trained without goes on from where it was.
    """
    zeroed = [*network.last.parameters()]
    if isinstance(network, StackedGenerator):
        zeroed += network.sam12.conv2.parameters()
    for module in network.modules():
        if isinstance(module, PaperModulation):  # whose gamma has a bias of 1 already
            zeroed += [module.mlp_gamma.get_parameter("weight"), *module.mlp_beta.parameters()]
    for parameter in zeroed:
        parameter.zero_()


@torch.no_grad()
def start_latents(upsampling: PriorUpsampling) -> None:
    """Begin with latents as strong as E's map: orthogonal filters, and no biases.

    Spectral normalisation divides PyTorch's initial filters by several times what they pass on, so
    that latents of the full size begin a thousand times weaker than the map and are not learned
    from. A delta-orthogonal filter (Xiao et al. 2018) has norm 1 and passes everything on; the
    little beside its centre makes up for what LeakyReLU takes from smooth maps.
    """
    taps = torch.full((3, 3), 0.05)
    taps[1, 1] = 0.99
    for module in upsampling.modules():
        if isinstance(module, nn.Conv2d):
            weight, bias = module.get_parameter("weight_orig"), module.get_parameter("bias")
            channels = nn.init.orthogonal_(weight.new_empty(weight.shape[:2]))
            weight.copy_(channels[:, :, None, None] * taps.to(weight.device))
            bias.zero_()
