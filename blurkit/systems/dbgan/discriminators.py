"""The discriminators of BGAN and DBGAN: one logit for a crop of one size.

The paper calls them VGG19; the released code has ESRGAN's (Wang et al. 2018), whose layers and
names these are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.nn.blocks import SLOPE, leaky
from blurkit.nn.size import InputShapes

HIDDEN = 100
"""Values between the two linear layers."""

WIDEST = 8
"""The widest stage has so many times the first one's channels."""

LARGE = 192
"""From this crop on, in pixels, there are six stages; below, five."""


def judged_crop(convolutions: int, width: int, values: int) -> int:
    """The crop of a discriminator of so many convolutions whose last map has so many values."""
    stages = max(1, convolutions // 2)
    return math.isqrt(values // _channels(stages - 1, width)) * 2**stages


def _channels(stage: int, width: int) -> int:
    return width * min(2**stage, WIDEST)


class CropDiscriminator(nn.Module):
    """What both discriminators share: the crop and the convolutions that it leads to.

    Raises UsageError for a crop that the stages, each of which halves it, do not divide.
    """

    def __init__(self, crop: int, width: int) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"crop": crop, "width": width}
        self._stages = 5 if crop < LARGE else 6
        if crop < 1 or crop % 2**self._stages:
            raise UsageError(
                f"a discriminator of crops of {crop} pixels: it takes multiples of 32 below "
                f"{LARGE}, and of 64 from there on"
            )

    def _convolutions(self) -> Iterator[nn.Conv2d]:
        """Per stage one of 3x3 that widens and one of 4x4 that halves the size."""
        in_channels, width = 3, self.options["width"]
        for stage in range(self._stages):
            channels = _channels(stage, width)
            yield nn.Conv2d(in_channels, channels, 3, padding=1)
            yield nn.Conv2d(channels, channels, 4, stride=2, padding=1)
            in_channels = channels

    def _linears(self) -> tuple[nn.Linear, nn.Linear]:
        """All values of the last map to `HIDDEN`, and those to the logit."""
        channels = _channels(self._stages - 1, self.options["width"])
        side = self.options["crop"] // 2**self._stages
        return nn.Linear(channels * side**2, HIDDEN), nn.Linear(HIDDEN, 1)

    def _checked(self, image: Tensor) -> Tensor:
        crop, (height, width) = self.options["crop"], image.shape[-2:]
        if (height, width) != (crop, crop):
            raise BlurkitError(
                f"this discriminator judges crops of {crop}x{crop} pixels, not {height}x{width}"
            )
        return image

    def input_shapes(self, height: int, width: int) -> InputShapes:
        """Return the shapes of what it takes for an image of `height` x `width` pixels."""
        return [(1, 3, *2 * [self.options["crop"]])]


class VGGDiscriminator(CropDiscriminator):
    """Convolutions with batch norm, all but the first, and LeakyReLU; two linear layers."""

    def __init__(self, crop: int = 128, width: int = 64) -> None:
        super().__init__(crop, width)
        first, *others = self._convolutions()
        layers: list[nn.Module] = [first, leaky()]
        for conv in others:
            layers += [conv, nn.BatchNorm2d(conv.out_channels), leaky()]
        hidden, last = self._linears()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(hidden, leaky(), last)

    def forward(self, image: Tensor) -> Tensor:
        """(N, 3, crop, crop) in [0, 1] to logits (N, 1), higher where it looks real.

        Raises BlurkitError for an image of another size.
        """
        return self.classifier(self.features(self._checked(image)).flatten(1))


class SpectralLayer(nn.Module):
    """A convolution or linear layer divided by its spectral norm, kept as the released code does.

    In train mode each forward pass takes one power iteration from `weight_u`, and keeps the new
    vector and the weight that it used; in eval mode that weight is used as it is. `weight_orig` is
    what is trained. torch's own layers keep a second vector, which the released files lack.
    """

    weight: Tensor
    weight_u: Tensor

    def __init__(self, layer: nn.Conv2d | nn.Linear) -> None:
        super().__init__()
        self.bias, self.weight_orig = layer.bias, layer.weight
        self.register_buffer("weight", layer.weight.detach().clone())
        self.register_buffer("weight_u", F.normalize(torch.randn(len(layer.weight)), dim=0))
        self._layer: Callable[..., Tensor] = F.linear
        if isinstance(layer, nn.Conv2d):
            self._layer = partial(F.conv2d, stride=layer.stride, padding=layer.padding)

    def forward(self, x: Tensor) -> Tensor:
        """As the layer that was given."""
        weight = self.weight
        if self.training:
            with torch.autocast(x.device.type, enabled=False):  # the vector stays in float32
                weight = self._normalised()
        return self._layer(x, weight, self.bias)

    def _normalised(self) -> Tensor:
        matrix = self.weight_orig.flatten(1)
        with torch.no_grad():
            v = F.normalize(matrix.T @ self.weight_u, dim=0)
            u = F.normalize(matrix @ v, dim=0)
        weight = self.weight_orig / (u @ matrix @ v)
        self.weight, self.weight_u = weight.detach(), u
        return weight


class SpectralVGGDiscriminator(CropDiscriminator):
    """The same with spectral norms on all layers in place of batch norms."""

    def __init__(self, crop: int = 128, width: int = 64) -> None:
        super().__init__(crop, width)
        for i, conv in enumerate(self._convolutions()):
            self.add_module(f"conv{i}", SpectralLayer(conv))
        self.linear0, self.linear1 = (SpectralLayer(linear) for linear in self._linears())

    def forward(self, image: Tensor) -> Tensor:
        """As `VGGDiscriminator`."""
        x = self._checked(image)
        *convolutions, hidden, last = self.children()
        for conv in convolutions:
            x = F.leaky_relu(conv(x), SLOPE)
        return last(F.leaky_relu(hidden(x.flatten(1)), SLOPE))
