"""MSDI-Net's discriminator D."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.nn.blocks import leaky, spectral_instance_conv
from blurkit.nn.size import InputShapes
from blurkit.systems.system import Shapes


class PatchDiscriminator(nn.Module):
    """Five 4x4 convolutions that judge overlapping patches of an image."""

    def __init__(self, width: int, in_channels: int) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.Conv2d(in_channels, width, 4, stride=2, padding=2), leaky())
        self.model1 = _layer(width, 2 * width, stride=2)
        self.model2 = _layer(2 * width, 4 * width, stride=2)
        self.model3 = _layer(4 * width, 8 * width, stride=1)
        self.model4 = nn.Sequential(nn.Conv2d(8 * width, 1, 4, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return four feature maps of `x` (N, in_channels, H, W) and, last, the patch scores."""
        outputs = []
        for layer in (self.model0, self.model1, self.model2, self.model3, self.model4):
            x = layer(x)
            outputs.append(x)
        return outputs


def _layer(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    conv = spectral_instance_conv(in_channels, out_channels, 4, stride=stride, padding=2)
    return nn.Sequential(conv, leaky())


class MultiscaleDiscriminator(nn.Module):
    """MSDI-Net's D: one patch discriminator at full size, one at half size (as in pix2pixHD)."""

    def __init__(self, width: int = 64, in_channels: int = 6) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"width": width, "in_channels": in_channels}
        self.discriminator_0 = PatchDiscriminator(width, in_channels)
        self.discriminator_1 = PatchDiscriminator(width, in_channels)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> MultiscaleDiscriminator:
        """Return the network whose state dict has these shapes."""
        width, in_channels = shapes["discriminator_0.model0.0.weight"][:2]
        return cls(width, in_channels)

    def input_shapes(self, height: int, width: int) -> InputShapes:
        """Return the input shapes for an image of `height` x `width` pixels."""
        return [(1, self.options["in_channels"], height, width)]

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Return per scale four feature maps and, last, the patch scores (N, 1, h, w), unbounded.

        `x` (N, in_channels, H, W) is the sharp and the (re)blurred image in [0, 1], concatenated
        along the channels.
        """
        half = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return [self.discriminator_0(x), self.discriminator_1(half)]
