"""The image prior of blind deblurring: a network whose weights are searched, not trained.

The hourglass network of "Deep Image Prior" (Ulyanov et al., CVPR 2018) with non-local blocks at its
three smallest sizes, as in the released code of the encoded blur kernel space and with its keys,
which count layers from 1.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from blurkit.nn.blocks import leaky
from blurkit.nn.size import SizeRequirement

PRIOR_SCALES = 5
SKIP_WIDTH = 16
FIRST_NON_LOCAL = 2
"""The first of the five sizes that has a non-local block."""


class ImagePrior(nn.Module):
    """Maps noise (N, in_channels, H, W) to an image (N, 3, H, W) in [0, 1]; sides from 64 pixels.

    The released code never leaves training mode, so normalisation always uses batch statistics.
    """

    size = SizeRequirement(minimum=64, multiple=32)

    def __init__(self, in_channels: int = 8, width: int = 128) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"in_channels": in_channels, "width": width}
        self.model = _counted(*_level(in_channels, width, 0), _conv(width, 3, 1), nn.Sigmoid())

    def forward(self, noise: Tensor) -> Tensor:
        """Return the image that these weights make from `noise`; any sides from 64 pixels."""
        image: Tensor = self.model(noise)
        return image


def _level(in_channels: int, width: int, scale: int) -> list[nn.Module]:
    """Return the layers of one size of the hourglass, including all smaller sizes."""
    skip = _counted(_conv(in_channels, SKIP_WIDTH, 1), nn.BatchNorm2d(SKIP_WIDTH), leaky())
    deeper = [_conv(in_channels, width, 3, stride=2), nn.BatchNorm2d(width), leaky()]
    if scale >= FIRST_NON_LOCAL:
        deeper.append(NonLocal(width))
    deeper += [_conv(width, width, 3), nn.BatchNorm2d(width), leaky()]
    if scale < PRIOR_SCALES - 1:
        deeper.append(_counted(*_level(width, width, scale + 1)))
    deeper.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    return [
        Joined(skip, _counted(*deeper)),
        nn.BatchNorm2d(SKIP_WIDTH + width),
        _conv(SKIP_WIDTH + width, width, 3),
        nn.BatchNorm2d(width),
        leaky(),
        _conv(width, width, 1),
        nn.BatchNorm2d(width),
        leaky(),
    ]


def _counted(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate(layers, 1)))


def _conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Sequential:
    # Zero padding: the released code requests reflection by a name that it does not recognise.
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2)
    )


class Joined(nn.Sequential):
    """The concatenated outputs of two branches, the larger one cut to its middle."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to both branches' channels, at the smaller height and width."""
        parts = [branch(x) for branch in self]
        height, width = (min(part.shape[axis] for part in parts) for axis in (2, 3))
        cut = []
        for part in parts:
            top, left = (part.shape[2] - height) // 2, (part.shape[3] - width) // 2
            cut.append(part[:, :, top : top + height, left : left + width])
        return torch.cat(cut, 1)


class NonLocal(nn.Module):
    """A non-local block (Wang et al., CVPR 2018): dot products without softmax, on pooled features.

    It is initialised to the identity.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.g = nn.Sequential(nn.Conv2d(width, inner, 1), nn.MaxPool2d(2))
        last = nn.BatchNorm2d(width)
        nn.init.zeros_(last.weight)
        self.W = nn.Sequential(nn.Conv2d(inner, width, 1), last)
        self.theta = nn.Conv2d(width, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(width, inner, 1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape; both sides must be at least 2."""
        queries, keys, values = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))
        similarity = queries.transpose(1, 2) @ keys / keys.shape[2]
        attended = (similarity @ values.transpose(1, 2)).transpose(1, 2)
        changed: Tensor = x + self.W(attended.reshape(*attended.shape[:2], *x.shape[2:]))
        return changed
