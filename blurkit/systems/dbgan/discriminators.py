"""The discriminators of BGAN and DBGAN: one logit per crop of a fixed size.

The paper calls them VGG19; the released code has ESRGAN's (Wang et al. 2018), whose layers and
names are used here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.nn.blocks import SLOPE, leaky
from blurkit.nn.size import InputShapes
from blurkit.systems.system import Shapes

HIDDEN = 100
"""The number of values between the two linear layers."""

WIDEST = 8
"""The ratio of the widest stage's channels to the first one's."""

LARGE = 192
"""Crops of at least this side in pixels have six stages; smaller ones have five."""


def judged_crop(convolutions: int, width: int, values: int) -> int:
    """Return the crop's side for a discriminator, from its layout.

    It has `convolutions` and a first stage of `width` channels; its last map has `values` values.
    """
    stages = max(1, convolutions // 2)
    return math.isqrt(values // _channels(stages - 1, width)) * 2**stages


def _channels(stage: int, width: int) -> int:
    return width * min(2**stage, WIDEST)


class CropDiscriminator(nn.Module):
    """The base of both discriminators: the crop and the layers that follow from it.

    Raises UsageError unless every stage can halve `crop` without a remainder.
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
        """Yield per stage a 3x3 convolution that widens and a 4x4 one that halves the size."""
        in_channels, width = 3, self.options["width"]
        for stage in range(self._stages):
            channels = _channels(stage, width)
            yield nn.Conv2d(in_channels, channels, 3, padding=1)
            yield nn.Conv2d(channels, channels, 4, stride=2, padding=1)
            in_channels = channels

    def _linears(self) -> tuple[nn.Linear, nn.Linear]:
        """Return the layer from the last map to `HIDDEN` values, and that from these to a logit."""
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
        """Return the input shapes, which are those of a crop for an image of any size."""
        return [(1, 3, *2 * [self.options["crop"]])]


class VGGDiscriminator(CropDiscriminator):
    """Convolutions with batch norm (except the first) and LeakyReLU, then two linear layers."""

    def __init__(self, crop: int = 128, width: int = 64) -> None:
        super().__init__(crop, width)
        first, *others = self._convolutions()
        layers: list[nn.Module] = [first, leaky()]
        for conv in others:
            layers += [conv, nn.BatchNorm2d(conv.out_channels), leaky()]
        hidden, last = self._linears()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(hidden, leaky(), last)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> VGGDiscriminator:
        """Return the network whose state dict has these shapes."""
        # Only convolutions have weights of four dimensions; those of batch norms have one.
        convolutions = sum(key.startswith("features.") and len(s) == 4 for key, s in shapes.items())
        width, values = shapes["features.0.weight"][0], shapes["classifier.0.weight"][1]
        return cls(judged_crop(convolutions, width, values), width)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, 1), higher for real-looking images, from (N, 3, crop, crop) in [0, 1].

        Raises BlurkitError for images of another size.
        """
        return self.classifier(self.features(self._checked(image)).flatten(1))


def full_precision(device: str) -> AbstractContextManager[object]:
    """Return a context without mixed precision on a kind of device, even one that has none."""
    if torch.amp.is_autocast_available(device):
        return torch.autocast(device, enabled=False)
    return nullcontext()


class SpectralLayer(nn.Module):
    """A convolution or linear layer with spectral norm, stored as in the released code.

    In train mode, each forward pass runs one power iteration from `weight_u` and stores the new
    vector and the weight that it used; in eval mode, the stored weight is used. `weight_orig` is
    trained. torch's own layers store a second vector, which the released files lack.
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
        """Return the output of the given layer with the normalised weight."""
        weight = self.weight
        if self.training:
            with full_precision(x.device.type):  # the vector stays in float32
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
    """`VGGDiscriminator` with spectral norm on all layers in place of batch norms."""

    def __init__(self, crop: int = 128, width: int = 64) -> None:
        super().__init__(crop, width)
        for i, conv in enumerate(self._convolutions()):
            self.add_module(f"conv{i}", SpectralLayer(conv))
        self.linear0, self.linear1 = (SpectralLayer(linear) for linear in self._linears())

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> SpectralVGGDiscriminator:
        """Return the network whose state dict has these shapes."""
        convolutions = len(shapes.numbers(r"conv(\d+)\.weight_orig"))
        width, values = shapes["conv0.weight_orig"][0], shapes["linear0.weight_orig"][1]
        return cls(judged_crop(convolutions, width, values), width)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits as `VGGDiscriminator` does."""
        x = self._checked(image)
        *convolutions, hidden, last = self.children()
        for conv in convolutions:
            x = F.leaky_relu(conv(x), SLOPE)
        return last(F.leaky_relu(hidden(x.flatten(1)), SLOPE))
