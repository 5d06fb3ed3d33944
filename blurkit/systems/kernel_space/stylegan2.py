"""StyleGAN2's generator: noise to a latent, and latents, one per layer, to an image.

"Analyzing and Improving the Image Quality of StyleGAN", CVPR 2020. Keys are those of the widely
used PyTorch port, whose files store the averaged generator under `g_ema`. The port gives every
image of a batch its own weights; here the features are scaled before and after one convolution,
which gives the same numbers at less cost.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.nn.blocks import SLOPE
from blurkit.systems.kernel_space.stylegan import (
    MAPPING_RATE,
    Dense,
    Filter,
    Noise,
    StyleSynthesis,
    UnitLength,
    low_pass,
)
from blurkit.systems.system import Shapes


class StyleGAN2(StyleSynthesis):
    """Maps latents, one for each layer, to an image in [-1, 1]; `style` maps noise to a latent.

    `widths` are the channels at each size from 4x4 to the resolution.
    """

    def __init__(self, widths: Sequence[int], latent: int = 512, depth: int = 8) -> None:
        super().__init__()
        widths = list(widths)
        self.layers = 2 * len(widths)
        self.resolution = 2 << len(widths)
        self.noise_sides = [2 ** ((layer + 5) // 2) for layer in range(self.layers - 1)]
        self.options = {
            "resolution": self.resolution,
            "widths": widths,
            "latent": latent,
            "depth": depth,
        }
        self.style = nn.Sequential(UnitLength(), *(StyleLayer(latent) for _ in range(depth)))
        self.input = Constant(widths[0])
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
        """Return the network whose state dict has these shapes."""
        larger = max(shapes.numbers(r"to_rgbs\.(\d+)\..+"), default=-1) + 1
        depth = len(shapes.numbers(r"style\.(\d+)\.weight"))
        widths = [
            shapes["input.input"][1],
            *(shapes[f"convs.{2 * i}.conv.weight"][1] for i in range(larger)),
        ]
        return cls(widths, shapes["conv1.conv.modulation.weight"][1], depth)

    def forward(self, latents: Tensor, noises: Sequence[Tensor] = ()) -> Tensor:
        """Map latents (N, layers, latent) to images (N, 3, resolution, resolution), not clamped.

        `noises` are (N or 1, 1, side, side), with the sides in `noise_sides`; by default they are
        those stored with the weights.
        """
        noises = noises or list(self.noises.buffers())
        rows = latents.unbind(1)
        x = self.conv1(self.input.input.expand(len(latents), -1, -1, -1), rows[0], noises[0])
        image: Tensor = self.to_rgb1(x, rows[1])
        for i, to_rgb in enumerate(self.to_rgbs):
            # The third latent is also the first of the next size.
            first, second, third = rows[2 * i + 1 : 2 * i + 4]
            x = self.convs[2 * i](x, first, noises[2 * i + 1])
            x = self.convs[2 * i + 1](x, second, noises[2 * i + 2])
            image = to_rgb(x, third, image)
        return image


# -- parts -----------------------------------------------------------------------------------------


class StyleLayer(Dense):
    """One layer of the mapping, with its LeakyReLU."""

    def __init__(self, latent: int) -> None:
        super().__init__(latent, latent, rate=MAPPING_RATE)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, latent) to the same shape."""
        return _activated(super().forward(x))


def _activated(x: Tensor) -> Tensor:
    """Return LeakyReLU(x), with the gain that preserves variances."""
    return F.leaky_relu(x, SLOPE) * math.sqrt(2)


class Constant(nn.Module):
    """The learned features of 4x4 that all images start from."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input = nn.Parameter(torch.randn(1, width, 4, 4))


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
        """Map x (N, inputs, H, W) and a latent (N, latent) to (N, outputs, H, W).

        With `enlarge`, H and W are doubled.
        """
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


class BiasedActivation(nn.Module):
    """A bias per channel, then the LeakyReLU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        return _activated(x + self.bias[:, None, None])


class StyledConvolution(nn.Module):
    """A modulated 3x3 convolution, noise, bias and LeakyReLU."""

    def __init__(self, inputs: int, outputs: int, latent: int, enlarge: bool = False) -> None:
        super().__init__()
        self.conv = ModulatedConvolution(inputs, outputs, 3, latent, enlarge)
        self.noise = Noise(1)
        self.activate = BiasedActivation(outputs)

    def forward(self, x: Tensor, latent: Tensor, noise: Tensor) -> Tensor:
        """Map x (N, inputs, H, W), a latent (N, latent) and noise of the output's size."""
        features: Tensor = self.activate(self.noise(self.conv(x, latent), noise))
        return features


class ToRGB(nn.Module):
    """Maps features to an image, and adds the enlarged image of the next smaller size."""

    def __init__(self, inputs: int, latent: int, enlarge: bool = True) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1, 3, 1, 1))
        self.upsample = Doubling() if enlarge else None
        self.conv = ModulatedConvolution(inputs, 3, 1, latent, demodulate=False)

    def forward(self, x: Tensor, latent: Tensor, smaller: Tensor | None = None) -> Tensor:
        """Map x (N, inputs, H, W) and a latent (N, latent) to an image (N, 3, H, W).

        `smaller` is (N, 3, H / 2, W / 2).
        """
        image: Tensor = self.conv(x, latent) + self.bias
        if self.upsample is None or smaller is None:
            return image
        larger: Tensor = self.upsample(smaller)
        return image + larger


class Doubling(Filter):
    """Doubles the size of an image: zeros between its pixels, then a low-pass filter."""

    def __init__(self) -> None:
        super().__init__(4 * low_pass(1, 3, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C, 2 H, 2 W)."""
        channels = x.shape[1]
        taps = self.kernel.expand(channels, 1, *self.kernel.shape)
        return F.conv_transpose2d(x, taps, stride=2, padding=1, groups=channels)
