"""The generators of BGAN and DBGAN ("Deblurring by Realistic Blurring", Zhang et al., CVPR 2020).

BGAN blurs a sharp image according to a random vector, DBGAN deblurs. Attribute names of DBGAN are
those of the released state dict; BGAN was never released. The discriminators are in
`discriminators.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from blurkit.nn.blocks import Recomputable, conv, leaky
from blurkit.nn.size import InputShapes, SizeRequirement
from blurkit.systems.system import Shapes

RESIDUAL_SCALE = 0.2
"""The factor on what a dense block, or three of them together, add to their input."""

BLOCK_CONVOLUTIONS = 5
"""The number of convolutions in a residual block of BGAN and in a dense block of DBGAN."""


def initialise(network: nn.Module, deviation: float = 0.01) -> None:
    """Draw weights of convolutions and linear layers from N(0, deviation^2), and zero their biases.

    Norms keep their initial 1 and 0. The paper uses 0.01 (Section 4.2).
    """
    _initialise(network, partial(nn.init.normal_, std=deviation))


def initialise_like_esrgan(network: nn.Module, scale: float) -> None:
    """Draw weights by Kaiming's rule (normal, fan-in) times `scale`, and zero their biases.

    The released code has this from ESRGAN, with 0.1 for the generator and 1 for the discriminator.
    """
    _initialise(network, lambda weight: nn.init.kaiming_normal_(weight).mul_(scale))


@torch.no_grad()
def _initialise(network: nn.Module, draw: Callable[[Tensor], Tensor]) -> None:
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            draw(parameter)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


# -- BGAN ------------------------------------------------------------------------------------------


class DBGANResidualBlock(Recomputable):
    """Five 3x3 convolutions with ReLUs in between; the input is added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(conv(width, width) for _ in range(BLOCK_CONVOLUTIONS))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x` (N, C, H, W)."""
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
        """Return the network whose state dict has these shapes."""
        width, channels = shapes["head.weight"][:2]
        return cls(width, len(shapes.numbers(r"body\.(\d+)\.convs\.0\.weight")), noise=channels - 3)

    def input_shapes(self, height: int, width: int) -> InputShapes:
        """Return the input shapes for an image of `height` x `width` pixels."""
        return [(1, 3, height, width), (1, self.options["noise"])]

    def forward(self, image: Tensor, noise: Tensor) -> Tensor:
        """Return `image` (N, 3, H, W) in [0, 1] blurred by `noise` (N, noise), not clamped.

        `noise` is drawn from N(0, 1), one vector per image, and is the same at every pixel.
        """
        maps = noise[:, :, None, None].expand(-1, -1, *image.shape[-2:])
        features = self.body(self.head(torch.cat([image, maps], 1)))
        return image + self.tail[1](self.tail[0](features).relu())


# -- DBGAN -----------------------------------------------------------------------------------------


class DenseBlock(nn.Module):
    """Five 3x3 convolutions, each on all features before it; the input is added."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        for i in range(1, BLOCK_CONVOLUTIONS):
            layer = nn.Sequential(conv(width + (i - 1) * growth, growth), leaky())
            self.add_module(f"conv{i}", layer)
        self.conv5 = nn.Sequential(conv(width + (BLOCK_CONVOLUTIONS - 1) * growth, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x` (N, C, H, W)."""
        features = x
        *others, last = self.children()
        for layer in others:
            features = torch.cat([features, layer(features)], 1)
        return x + RESIDUAL_SCALE * last(features)


class RRDB(Recomputable):
    """A residual-in-residual dense block (ESRGAN, Wang et al. 2018): three dense blocks in one."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.RDB1, self.RDB2, self.RDB3 = (DenseBlock(width, growth) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x` (N, C, H, W)."""
        return x + RESIDUAL_SCALE * self.RDB3(self.RDB2(self.RDB1(x)))


class RRDBTrunk(nn.Module):
    """A sequence of RRDBs and a convolution; the input is added."""

    def __init__(self, width: int, blocks: int, growth: int) -> None:
        super().__init__()
        self.sub1 = nn.Sequential(*(RRDB(width, growth) for _ in range(blocks)))
        self.sub2 = nn.Sequential(conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return features of the shape of `x` (N, C, H, W)."""
        return x + self.sub2(self.sub1(x))


class DBGAN(nn.Module):
    """The generator that deblurs, as released (`RRDBNet`); the paper's text names plain blocks."""

    size = SizeRequirement()

    def __init__(self, width: int = 64, blocks: int = 16, growth: int = 32) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"width": width, "blocks": blocks, "growth": growth}
        self.model = nn.Sequential(
            conv(3, width),
            RRDBTrunk(width, blocks, growth),
            conv(width, width),
            leaky(),
            conv(width, 3),
        )

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> DBGAN:
        """Return the network whose state dict has these shapes."""
        return cls(
            width=shapes["model.0.weight"][0],
            blocks=len(shapes.numbers(r"model\.1\.sub1\.(\d+)\.RDB1\.conv1\.0\.weight")),
            growth=shapes["model.1.sub1.0.RDB1.conv1.0.weight"][0],
        )

    def forward(self, blur: Tensor) -> Tensor:
        """Return the restored image from `blur` (N, 3, H, W) in [0, 1].

        It is clamped to [0, 1], in training too, as in the released code: no gradient flows where
        the sum leaves [0, 1].
        """
        return (blur + self.residual(blur)).clamp(0, 1)

    def residual(self, blur: Tensor) -> Tensor:
        """Return what the network adds to `blur` (N, 3, H, W) before the clamp."""
        return self.model(blur)
