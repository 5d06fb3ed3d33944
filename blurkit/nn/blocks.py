"""Small parts shared by several networks."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.utils import spectral_norm

SLOPE = 0.2
"""The LeakyReLU slope of all MSDI-Net networks and of most others."""


def leaky() -> nn.LeakyReLU:
    """Return a LeakyReLU of slope 0.2."""
    return nn.LeakyReLU(SLOPE)


def conv(in_channels: int, out_channels: int, kernel: int = 3) -> nn.Conv2d:
    """Return a zero-padded convolution with bias that keeps the image size."""
    return nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)


def spectral_conv(
    in_channels: int, out_channels: int, kernel: int = 3, **options: Any
) -> nn.Conv2d:
    """Return a convolution normalised by its spectral norm (Miyato et al., ICLR 2018).

    `options` are passed to `torch.nn.Conv2d`. Of torch's two implementations this is the older,
    whose state dict keys (`weight_orig`, `weight_u`, `weight_v`) are those of the published
    checkpoints.
    """
    return spectral_norm(nn.Conv2d(in_channels, out_channels, kernel, **options))


def spectral_instance_conv(
    in_channels: int, out_channels: int, kernel: int = 3, **options: Any
) -> nn.Sequential:
    """Return a spectrally normalised convolution without bias and a non-affine InstanceNorm."""
    conv = spectral_conv(in_channels, out_channels, kernel, bias=False, **options)
    return nn.Sequential(conv, nn.InstanceNorm2d(out_channels))
