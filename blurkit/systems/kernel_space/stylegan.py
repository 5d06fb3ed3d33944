"""StyleGAN's generator as two networks: noise to a latent, and latents, one per layer, to an image.

"A Style-Based Generator Architecture for Generative Adversarial Networks", CVPR 2019. Keys are
those of the prior of faces of the encoded blur kernel space (`stylegan_mapping.pt`,
`stylegan_synthesis.pt`). Weights are scaled where they are used (equalised learning rate).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import InputShapes, Shape
from blurkit.nn.blocks import SLOPE, leaky
from blurkit.systems.system import Shapes

MAPPING_RATE = 0.01
"""How much slower the mapping's layers learn: the factor in their weights and biases."""


class StyleGANMapping(nn.Sequential):
    """Maps noise z (N, latent), of any norm, to a latent w (N, latent), without truncation."""

    def __init__(self, latent: int = 512, depth: int = 8) -> None:
        layers = OrderedDict[str, nn.Module](norm=unit_length(latent))
        for i in range(depth):
            layers[f"dense{i}"] = Dense(latent, latent, math.sqrt(2), MAPPING_RATE)
            layers[f"activate{i}"] = leaky()
        super().__init__(layers)
        self.options: dict[str, Any] = {"latent": latent, "depth": depth}

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> StyleGANMapping:
        return cls(shapes["dense0.weight"][1], shapes.count(r"dense\d+\.weight"))

    def input_shapes(self, height: int, width: int) -> InputShapes:
        return [(1, self.options["latent"])]


class StyleSynthesis(nn.Module):
    """What StyleGANs of both versions share; `widths` are the channels at each size from 4x4 on."""

    noise_sides: list[int]

    def __init__(self, widths: Sequence[int], latent: int, **options: int) -> None:
        super().__init__()
        self.layers, self.resolution = 2 * len(widths), 2 << len(widths)
        sizes = {"resolution": self.resolution, "widths": [*widths], "latent": latent}
        self.options: dict[str, Any] = sizes | options

    @property
    def arguments(self) -> dict[str, Any]:
        return {name: value for name, value in self.options.items() if name != "resolution"}

    def input_shapes(self, height: int, width: int) -> InputShapes:
        noises: list[Shape] = [(1, 1, side, side) for side in self.noise_sides]
        return [(1, self.layers, self.options["latent"]), noises]


class StyleGANSynthesis(StyleSynthesis):
    """Maps latents, two for each size from 4x4 on, and noises to an image in [-1, 1]."""

    def __init__(self, widths: Sequence[int], latent: int = 512) -> None:
        super().__init__(widths, latent)
        self.noise_sides = [2 ** (layer // 2 + 2) for layer in range(self.layers)]
        self.torgb = EqualizedConvolution(widths[-1], 3, 1, gain=1)
        blocks: dict[str, nn.Module] = {"4x4": FirstBlock(widths[0], latent)}
        for i, (narrow, wide) in enumerate(zip(widths[1:], widths[:-1], strict=True), 1):
            blocks[f"{4 << i}x{4 << i}"] = Block(wide, narrow, latent, fused=4 << i >= 128)
        self.blocks = nn.ModuleDict(blocks)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> StyleGANSynthesis:
        widths = [shapes["blocks.4x4.const"][1]]
        resolution = max(shapes.numbers(r"blocks\.(\d+)x\1\..+"))
        while (side := 4 << len(widths)) <= resolution:
            widths.append(shapes[f"blocks.{side}x{side}.conv0_up.weight"][0])
        return cls(widths, shapes["blocks.4x4.epi1.style_mod.lin.weight"][1])

    def forward(self, latents: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """Map latents (N, layers, latent) to images (N, 3, resolution, resolution), not clamped."""
        x = latents
        for i, block in enumerate(self.blocks.values()):
            pair = slice(2 * i, 2 * i + 2)
            x = block(x, latents[:, pair].unbind(1), noises[pair])
        return self.torgb(x)


# Layers map features (N, C, H, W) to features, by latents (N, latent) and noises (N or 1, 1, H, W)
# where they take any.


def unit_length(latent: int) -> nn.RMSNorm:
    """Return the layer that divides vectors (N, latent) by the root of their mean square."""
    return nn.RMSNorm(latent, 1e-8, elementwise_affine=False)


class Dense(nn.Module):
    """A linear layer with weights scaled by gain / sqrt(inputs); `rate` scales the bias too."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1, rate: float = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale, self.rate = gain * rate / math.sqrt(inputs), rate

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight * self.scale, self.bias * self.rate)


class Filter(nn.Module):
    """A fixed low-pass filter on each channel, with a border of zeros one pixel wide."""

    kernel: Tensor

    def __init__(self, kernel: Tensor) -> None:
        super().__init__()
        self.register_buffer("kernel", kernel)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape for 3x3 taps, to a row and a column less for 4x4."""
        channels = x.shape[1]
        taps = self.kernel.expand(channels, 1, *self.kernel.shape[-2:])
        return F.conv2d(x, taps, padding=1, groups=channels)


def low_pass(*taps: float) -> Tensor:
    """Return the square filter with sum 1 whose rows and columns are proportional to `taps`."""
    row = torch.tensor(taps)
    return row.outer(row) / row.sum() ** 2


class EqualizedConvolution(nn.Module):
    """A convolution that keeps the size, with weights scaled by gain / sqrt(inputs)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, gain: float = math.sqrt(2)) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.scale = gain / math.sqrt(inputs * kernel**2)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class EnlargingConvolution(EqualizedConvolution):
    """A 3x3 convolution that doubles the size, then a low-pass filter, then the bias.

    `fused` enlarges by a transposed convolution: the other form with a mirrored kernel.
    """

    def __init__(self, inputs: int, outputs: int, fused: bool) -> None:
        super().__init__(inputs, outputs, 3)
        self.fused = fused
        self.intermediate = Filter(low_pass(1, 2, 1)[None, None])

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if self.fused:
            # The sum of four shifted kernels is what nearest neighbours make of one pixel.
            wide = F.pad(weight.transpose(0, 1), (1, 1, 1, 1))
            wide = wide[..., 1:] + wide[..., :-1]
            x = F.conv_transpose2d(x, wide[..., 1:, :] + wide[..., :-1, :], stride=2, padding=1)
        else:
            x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
        return self.intermediate(x) + self.bias[:, None, None]


class Epilogue(nn.Module):
    """Noise, LeakyReLU, instance norm, and scale and shift of each channel by a latent."""

    def __init__(self, channels: int, latent: int) -> None:
        super().__init__()
        self.noise = nn.ParameterDict({"weight": torch.zeros(channels)})
        self.style_mod = nn.ModuleDict({"lin": Dense(latent, 2 * channels)})

    def forward(self, x: Tensor, latent: Tensor, noise: Tensor) -> Tensor:
        x = x + self.noise["weight"][:, None, None] * noise
        x = F.instance_norm(F.leaky_relu(x, SLOPE))
        scale, shift = self.style_mod["lin"](latent)[..., None, None].chunk(2, 1)
        return x * (scale + 1) + shift


class FirstBlock(nn.Module):
    """The block of size 4x4, which starts from a learned constant; `x` is only used for N."""

    def __init__(self, width: int, latent: int) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.ones(1, width, 4, 4))
        self.bias = nn.Parameter(torch.ones(width))
        self.epi1 = Epilogue(width, latent)
        self.conv = EqualizedConvolution(width, width, 3)
        self.epi2 = Epilogue(width, latent)

    def forward(self, x: Tensor, latents: Sequence[Tensor], noises: Sequence[Tensor]) -> Tensor:
        begin = (self.const + self.bias[:, None, None]).expand(len(x), -1, -1, -1)
        first = self.epi1(begin, latents[0], noises[0])
        return self.epi2(self.conv(first), latents[1], noises[1])


class Block(nn.Module):
    """A block that doubles the size."""

    def __init__(self, inputs: int, width: int, latent: int, fused: bool) -> None:
        super().__init__()
        self.conv0_up = EnlargingConvolution(inputs, width, fused)
        self.epi1 = Epilogue(width, latent)
        self.conv1 = EqualizedConvolution(width, width, 3)
        self.epi2 = Epilogue(width, latent)

    def forward(self, x: Tensor, latents: Sequence[Tensor], noises: Sequence[Tensor]) -> Tensor:
        first = self.epi1(self.conv0_up(x), latents[0], noises[0])
        return self.epi2(self.conv1(first), latents[1], noises[1])


# ---- StyleGAN2 -----------------------------------------------------------------------------------
# "Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020. Keys are those of the widely
# used PyTorch port, whose files store the averaged generator under `g_ema`. The port gives every
# image of a batch its own weights; here the features are scaled before and after one convolution,
# which gives the same numbers at less cost.


class StyleGAN2(StyleSynthesis):
    """Maps latents, one for each layer, to an image in [-1, 1]; `style` maps noise to a latent."""

    def __init__(self, widths: Sequence[int], latent: int = 512, depth: int = 8) -> None:
        super().__init__(widths, latent, depth=depth)
        self.noise_sides = [2 ** ((layer + 5) // 2) for layer in range(self.layers - 1)]
        layers = (StyleLayer(latent, latent, rate=MAPPING_RATE) for _ in range(depth))
        self.style = nn.Sequential(unit_length(latent), *layers)
        self.input = nn.ParameterDict({"input": torch.randn(1, widths[0], 4, 4)})
        self.conv1 = StyledConvolution(widths[0], widths[0], latent)
        self.to_rgb1 = ToRGB(widths[0], latent, enlarge=False)
        self.convs, self.to_rgbs = nn.ModuleList(), nn.ModuleList()
        for narrow, wide in zip(widths[1:], widths[:-1], strict=True):
            self.convs.append(StyledConvolution(wide, narrow, latent, enlarge=True))
            self.convs.append(StyledConvolution(narrow, narrow, latent))
            self.to_rgbs.append(ToRGB(narrow, latent))
        self.noises = nn.Module()
        for i, side in enumerate(self.noise_sides):
            self.noises.register_buffer(f"noise_{i}", torch.randn(1, 1, side, side))

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> StyleGAN2:
        larger = max(shapes.numbers(r"to_rgbs\.(\d+)\..+"), default=-1) + 1
        depth = shapes.count(r"style\.\d+\.weight")
        others = (shapes[f"convs.{2 * i}.conv.weight"][1] for i in range(larger))
        widths = [shapes["input.input"][1], *others]
        return cls(widths, shapes["conv1.conv.modulation.weight"][1], depth)

    def forward(self, latents: Tensor, noises: Sequence[Tensor] = ()) -> Tensor:
        """Map latents (N, layers, latent) to images (N, 3, resolution, resolution), not clamped.

        `noises` are (N or 1, 1, side, side), of `noise_sides`; default: those of the weights.
        """
        noises = noises or list(self.noises.buffers())
        rows = latents.unbind(1)
        x = self.conv1(self.input["input"].expand(len(latents), -1, -1, -1), rows[0], noises[0])
        image: Tensor = self.to_rgb1(x, rows[1])
        for i, to_rgb in enumerate(self.to_rgbs):
            # The third latent is also the first of the next size.
            first, second, third = rows[2 * i + 1 : 2 * i + 4]
            x = self.convs[2 * i](x, first, noises[2 * i + 1])
            x = self.convs[2 * i + 1](x, second, noises[2 * i + 2])
            image = to_rgb(x, third, image)
        return image


class StyleLayer(Dense):
    """One layer of the mapping, with its LeakyReLU."""

    def forward(self, x: Tensor) -> Tensor:
        return _activated(super().forward(x))


def _activated(x: Tensor) -> Tensor:
    """Return LeakyReLU(x), with the gain that preserves variances."""
    return F.leaky_relu(x, SLOPE) * math.sqrt(2)


class ModulatedConvolution(nn.Module):
    """A convolution whose input channels are scaled by a latent; `enlarge` doubles the size.

    With `demodulate`, output channels are divided by the norm of their scaled weights.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        latent: int,
        enlarge: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.demodulate = demodulate
        self.scale = 1 / math.sqrt(inputs * kernel**2)
        self.weight = nn.Parameter(torch.randn(1, outputs, inputs, kernel, kernel))
        self.blur = Filter(4 * low_pass(1, 3, 3, 1)) if enlarge else None
        self.modulation = Dense(latent, inputs)
        nn.init.ones_(self.modulation.bias)

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        style = self.modulation(latent)
        weight = self.weight[0] * self.scale
        x = x * style[..., None, None]
        if self.blur is None:
            x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
        else:
            x = self.blur(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2))
        if not self.demodulate:
            return x
        squares = style.square() @ weight.square().sum((2, 3)).T
        return x * (squares + 1e-8).rsqrt()[..., None, None]


class StyledConvolution(nn.Module):
    """A modulated 3x3 convolution, noise, bias and LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, latent: int, enlarge: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(inputs, outputs, 3, latent, enlarge)
        self.noise = nn.ParameterDict({"weight": torch.zeros(1)})
        self.activate = nn.ParameterDict({"bias": torch.zeros(outputs)})

    def forward(self, x: Tensor, latent: Tensor, noise: Tensor) -> Tensor:
        x = self.conv(x, latent) + self.noise["weight"][:, None, None] * noise
        return _activated(x + self.activate["bias"][:, None, None])


class ToRGB(nn.Module):
    """Maps features to an image, and adds the enlarged one of the next smaller size, `smaller`."""

    def __init__(self, inputs: int, latent: int, enlarge: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Filter(4 * low_pass(1, 3, 3, 1)) if enlarge else None
        self.conv = ModulatedConvolution(inputs, 3, 1, latent, demodulate=False)

    def forward(self, x: Tensor, latent: Tensor, smaller: Tensor | None = None) -> Tensor:
        image: Tensor = self.conv(x, latent) + self.bias
        if self.upsample is None or smaller is None:
            return image
        # Zeros between the pixels, then the low-pass filter.
        taps = self.upsample.kernel.expand(3, 1, -1, -1)
        return image + F.conv_transpose2d(smaller, taps, stride=2, padding=1, groups=3)
