"""BGAN, DBGAN and their discriminators ("Deblurring by Realistic Blurring", CVPR 2020).

BGAN, which was never released, blurs by a random vector; DBGAN deblurs, with the released names.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import InputShapes, SizeRequirement
from blurkit.engine.torch_runner import full_precision
from blurkit.errors import BlurkitError, UsageError
from blurkit.nn.blocks import SLOPE, Recomputable, Residual, conv, leaky
from blurkit.options import Protocol
from blurkit.systems.system import Shapes

RESIDUAL_SCALE = 0.2
"""The factor on what a dense block, or three of them together, add to their input."""


class DBGANResidualBlock(Recomputable):
    """Five 3x3 convolutions with ReLUs in between; the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(width, width) for _ in range(5))

    def forward(self, x: Tensor) -> Tensor:
        *others, last = self.convs
        y = x
        for layer in others:
            y = layer(y).relu()
        return x + last(y)


class BGAN(nn.Module):
    """The generator that learns to blur an image according to a noise vector (Section 3.2).

    It has a convolution, `blocks` residual blocks, and two convolutions with a ReLU in between. The
    image is added as in the released DBGAN; the paper does not say whether BGAN does so.
    """

    size = SizeRequirement()

    def __init__(self, width: int = 64, blocks: int = 9, noise: int = 4) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"width": width, "blocks": blocks, "noise": noise}
        self.head = conv(3 + noise, width)
        self.body = nn.Sequential(*(DBGANResidualBlock(width) for _ in range(blocks)))
        self.tail = nn.ModuleList([conv(width, width), conv(width, 3)])

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> BGAN:
        width, channels = shapes["head.weight"][:2]
        return cls(width, shapes.count(r"body\.\d+\.convs\.0\.weight"), noise=channels - 3)

    def input_shapes(self, height: int, width: int) -> InputShapes:
        return [(1, 3, height, width), (1, self.options["noise"])]

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """Return `image` (N, 3, H, W) in [0, 1] blurred by `noise` (N, noise), not clamped.

        `noise` is drawn from N(0, 1), one vector per image, and is the same at every pixel.
        """
        maps = noise[:, :, None, None].expand(-1, -1, *image.shape[-2:])
        features = self.body(self.head(torch.cat([image, maps], 1)))
        return image + self.tail[1](self.tail[0](features).relu())


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each on all features before it; the input is added."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(1, 5):
            layer = nn.Sequential(conv(width + (i - 1) * growth, growth), leaky())
            self.add_module(f"conv{i}", layer)
        self.conv5 = nn.Sequential(conv(width + 4 * growth, width))

    def forward(self, x: Tensor) -> Tensor:
        features = x
        *others, last = self.children()
        for layer in others:
            features = torch.cat([features, layer(features)], 1)
        return x + RESIDUAL_SCALE * last(features)


def rrdb(width: int, growth: int) -> Residual:
    """Return a residual-in-residual dense block (ESRGAN, Wang et al. 2018): three dense blocks."""
    return Residual(RESIDUAL_SCALE, **{f"RDB{i}": DenseBlock(width, growth) for i in (1, 2, 3)})


class RRDBTrunk(nn.Module):
    """A sequence of RRDBs and a convolution; the input is added."""

    def __init__(self, width: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.sub1 = nn.Sequential(*(rrdb(width, growth) for _ in range(blocks)))
        self.sub2 = nn.Sequential(conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sub2(self.sub1(x))


class DBGAN(nn.Module):
    """The generator that deblurs, as released (`RRDBNet`); the paper's text names plain blocks."""

    size = SizeRequirement()
    protocol: Protocol = "whole"  # how its paper measured it

    def __init__(self, width: int = 64, blocks: int = 16, growth: int = 32) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"width": width, "blocks": blocks, "growth": growth}
        self.model = nn.Sequential(
            *(conv(3, width), RRDBTrunk(width, blocks, growth)),
            *(conv(width, width), leaky(), conv(width, 3)),
        )

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> DBGAN:
        return cls(
            width=shapes["model.0.weight"][0],
            blocks=shapes.count(r"model\.1\.sub1\.\d+\.RDB1\.conv1\.0\.weight"),
            growth=shapes["model.1.sub1.0.RDB1.conv1.0.weight"][0],
        )

    def forward(self, blur: Tensor) -> Tensor:
        """Return the restored image from `blur`, both (N, 3, H, W) in [0, 1]."""
        return (blur + self.model(blur)).clamp(0, 1)  # as released: no gradient where it is cut


# ---- Discriminators ------------------------------------------------------------------------------
# They give one logit per crop of a fixed size. The paper calls them VGG19; the released code has
# ESRGAN's (Wang et al. 2018), whose layers and names are used here.

LARGE = 192
"""Crops of at least this side in pixels have six stages; smaller ones have five."""


def judged_crop(convolutions: int, width: int, values: int) -> int:
    """Return the side of the crops for a discriminator whose last map has `values` values."""
    stages = max(1, convolutions // 2)
    return math.isqrt(values // _widths(stages, width)[-1]) * 2**stages


def _widths(stages: int, width: int) -> list[int]:
    return [width * min(2**stage, 8) for stage in range(stages)]


class CropDiscriminator(nn.Module):
    """The base of both discriminators. Raises UsageError unless every stage can halve `crop`."""

    def __init__(self, crop: int, width: int) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"crop": crop, "width": width}
        stages = 5 if crop < LARGE else 6
        self._widths, self._side = _widths(stages, width), crop // 2**stages
        if crop < 1 or crop % 2**stages:
            raise UsageError(
                f"a discriminator of crops of {crop} pixels: it takes multiples of 32 below "
                f"{LARGE}, and of 64 from there on"
            )

    def _convolutions(self) -> Iterator[nn.Conv2d]:
        """Yield per stage a 3x3 convolution that widens and a 4x4 one that halves the size."""
        for narrow, wide in pairwise([3, *self._widths]):
            yield conv(narrow, wide)
            yield nn.Conv2d(wide, wide, 4, stride=2, padding=1)

    def _linears(self) -> tuple[nn.Linear, nn.Linear]:
        """Return the layer from the last map to 100 values, and that from these to a logit."""
        return nn.Linear(self._widths[-1] * self._side**2, 100), nn.Linear(100, 1)

    def _checked(self, image: Tensor) -> Tensor:
        crop, (height, width) = self.options["crop"], image.shape[-2:]
        if (height, width) != (crop, crop):
            raise BlurkitError(
                f"this discriminator judges crops of {crop}x{crop} pixels, not {height}x{width}"
            )
        return image

    def input_shapes(self, height: int, width: int) -> InputShapes:
        return [(1, 3, *2 * [self.options["crop"]])]


class VGGDiscriminator(CropDiscriminator):
    """Convolutions with batch norm (except the first) and LeakyReLU, then two linear layers."""

    def __init__(self, crop: int = 128, width: int = 64) -> None:
        super().__init__(crop, width)
        first, *others = self._convolutions()
        layers: list[nn.Module] = [first, leaky()]
        for convolution in others:
            layers += [convolution, nn.BatchNorm2d(convolution.out_channels), leaky()]
        hidden, last = self._linears()
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(hidden, leaky(), last)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> VGGDiscriminator:
        # Only convolutions have weights of four dimensions; those of batch norms have one.
        convolutions = sum(key.startswith("features.") and len(s) == 4 for key, s in shapes.items())
        width, values = shapes["features.0.weight"][0], shapes["classifier.0.weight"][1]
        return cls(judged_crop(convolutions, width, values), width)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits (N, 1), higher for real-looking images, from (N, 3, crop, crop) in [0, 1].

        Raises BlurkitError for images of another size.
        """
        return self.classifier(self.features(self._checked(image)).flatten(1))


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
        if not self.training:
            return self._layer(x, self.weight, self.bias)
        with full_precision(x.device):  # the vector stays in float32
            matrix = self.weight_orig.flatten(1)
            with torch.no_grad():
                v = F.normalize(matrix.T @ self.weight_u, dim=0)
                u = F.normalize(matrix @ v, dim=0)
            weight = self.weight_orig / (u @ matrix @ v)
        self.weight, self.weight_u = weight.detach(), u
        return self._layer(x, weight, self.bias)


class SpectralVGGDiscriminator(CropDiscriminator):
    """`VGGDiscriminator` with spectral norm on all layers in place of batch norms."""

    def __init__(self, crop: int = 128, width: int = 64) -> None:
        super().__init__(crop, width)
        for i, convolution in enumerate(self._convolutions()):
            self.add_module(f"conv{i}", SpectralLayer(convolution))
        self.linear0, self.linear1 = (SpectralLayer(linear) for linear in self._linears())

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> SpectralVGGDiscriminator:
        convolutions = shapes.count(r"conv\d+\.weight_orig")
        width, values = shapes["conv0.weight_orig"][0], shapes["linear0.weight_orig"][1]
        return cls(judged_crop(convolutions, width, values), width)

    def forward(self, image: Tensor) -> Tensor:
        x = self._checked(image)
        *convolutions, hidden, last = self.children()
        for convolution in convolutions:
            x = F.leaky_relu(convolution(x), SLOPE)
        return last(F.leaky_relu(hidden(x.flatten(1)), SLOPE))
