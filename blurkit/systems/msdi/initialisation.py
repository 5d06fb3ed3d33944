"""Initial weights for MSDI-Net's networks in place of random ones."""

from __future__ import annotations

import torch
from torch import nn

from blurkit.systems.msdi.injection import PaperModulation
from blurkit.systems.msdi.networks import Generator, PriorUpsampling, StackedGenerator


@torch.no_grad()
def start_at_identity(network: Generator) -> None:
    """Zero the convolutions that output a network's images, so that it first returns its input.

    The residual is then learned from zero, not against the noise of random weights. Gamma and beta
    of the paper's modulation begin at 1 and 0 everywhere, so that a network trained without
    modulation continues from where it was.
    """
    zeroed = [*network.last.parameters()]
    if isinstance(network, StackedGenerator):
        zeroed += network.sam12.conv2.parameters()
    for module in network.modules():
        if isinstance(module, PaperModulation):  # its gamma already has a bias of 1
            zeroed += [module.mlp_gamma.get_parameter("weight"), *module.mlp_beta.parameters()]
    for parameter in zeroed:
        parameter.zero_()


@torch.no_grad()
def start_latents(upsampling: PriorUpsampling) -> None:
    """Initialise the upsampling so that latents are as strong as E's map.

    Spectral normalisation divides PyTorch's initial filters by several times their gain, so that
    full-size latents begin a thousand times weaker than the map and nothing is learned from them. A
    delta-orthogonal filter (Xiao et al. 2018) has norm 1 and passes everything on; the small values
    around its centre compensate for what LeakyReLU removes from smooth maps. Biases are zero.
    """
    taps = torch.full((3, 3), 0.05)
    taps[1, 1] = 0.99
    for module in upsampling.modules():
        if isinstance(module, nn.Conv2d):
            weight, bias = module.get_parameter("weight_orig"), module.get_parameter("bias")
            channels = nn.init.orthogonal_(weight.new_empty(weight.shape[:2]))
            weight.copy_(channels[:, :, None, None] * taps.to(weight.device))
            bias.zero_()
