"""MSFS-Net: "Multi-scale frequency separation network for image deblurring" (Zhang et al. 2022).

Attribute names are those of the released state dicts. Features are listed finest scale first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import SizeRequirement
from blurkit.nn.blocks import Recomputable, Residual, conv, leaky
from blurkit.options import Protocol
from blurkit.systems.system import Shapes


def conv_layer(in_channels: int, out_channels: int, relu: bool) -> nn.Sequential:
    """Return a 3x3 convolution that keeps the size, with or without ReLU."""
    main = nn.Sequential(conv(in_channels, out_channels), *[nn.ReLU()] * relu)
    return nn.Sequential(OrderedDict(main=main))


def residual_blocks(width: int, count: int) -> nn.Sequential:
    """Return residual blocks of two 3x3 convolutions with a ReLU in between."""

    def block() -> Residual:
        convs = nn.Sequential(conv_layer(width, width, True), conv_layer(width, width, False))
        return Residual(main=convs)

    return nn.Sequential(OrderedDict(layers=nn.Sequential(*(block() for _ in range(count)))))


def down(width: int) -> nn.Sequential:
    """Return a 3x3 convolution without bias that halves the size, then LeakyReLU."""
    halving = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
    return nn.Sequential(OrderedDict(dual_module=nn.Sequential(nn.Sequential(halving, leaky()))))


class ChannelAttention(nn.Module):
    """Every channel is multiplied by a factor in (0, 1) computed from the means of all channels."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // 16)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_du = nn.Sequential(
            conv(width, hidden, 1), nn.ReLU(), conv(hidden, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv_du(self.avg_pool(x))


def rcab(width: int) -> Residual:
    """Return a residual channel attention block (Zhang et al., ECCV 2018), without norms."""
    convs = conv(width, width), nn.ReLU(), conv(width, width)
    return Residual(body=nn.Sequential(*convs, ChannelAttention(width)))


def decoder_level(width: int, blocks: int) -> nn.Sequential:
    """Return RCABs, then a pixel shuffle to twice the size."""
    layers = nn.Sequential(*(rcab(width) for _ in range(blocks)))
    up = nn.Sequential(conv(width, 4 * width), nn.PixelShuffle(2))
    return nn.Sequential(OrderedDict(layers=layers, up=up))


class Restoration(NamedTuple):
    """MSFS-Net's outputs for a blurry image, finest scale first.

    `images` are the restored image and, with the official layers, those at 1/2 and 1/4; `encoder`
    and `decoder` are the separated features, whose high frequencies have equally many channels.
    """

    images: list[Tensor]
    encoder: list[Separated]
    decoder: list[Separated]


class MSFSNet(nn.Module):
    """The network of Fig. 3: an encoder and a decoder that separate frequencies at three scales.

    `layers="paper"` follows the text: no norms and an identity shortcut in the FSM, a 3x3
    convolution at the end, one encoder for blurry and restored images. "official" is as released:
    batch norm and ReLU after every octave convolution, a 1x1 convolution at the end, residual
    blocks at full size for sharp images only, and image heads at 1/2 and 1/4. Ablations (Table 4):
    without `frequency_separation`, a convolution replaces each FSM; without `cross_scale`, the
    decoder gets its own features in place of the encoder's.
    """

    size = SizeRequirement(minimum=8, multiple=8)
    protocol: Protocol = "whole"  # how its paper measured it

    def __init__(
        self,
        width: int = 64,
        encoder_blocks: int = 8,
        latent_blocks: int = 10,
        decoder_blocks: int = 30,
        layers: Layers = "paper",
        frequency_separation: bool = True,
        cross_scale: bool = True,
    ) -> None:
        super().__init__()
        self.options: dict[str, Any] = {
            "width": width,
            "encoder_blocks": encoder_blocks,
            "latent_blocks": latent_blocks,
            "decoder_blocks": decoder_blocks,
            "layers": layers,
            "frequency_separation": frequency_separation,
            "cross_scale": cross_scale,
        }
        official = layers == "official"
        self.conv = conv_layer(3, width, relu=True)
        self.latent = nn.Sequential(*(rcab(width) for _ in range(latent_blocks)))
        first = residual_blocks(width, encoder_blocks) if official else nn.Identity()
        encoder = [first, down(width), residual_blocks(width, encoder_blocks), down(width)]
        self.Encoder = nn.ModuleList(encoder)
        self.Decoder = nn.ModuleList(decoder_level(2 * width, decoder_blocks) for _ in range(2))
        separation: Callable[[int, int], nn.Module] = PlainConvolution
        if frequency_separation:
            separation = partial(FrequencySeparation, layers=layers)
        self.octblock = nn.ModuleList(separation(width * n, width) for n in (1, 1, 1, 1, 2, 2))
        self.tail_ = conv(width, 3, 1 if official else 3)
        if frequency_separation:
            self.changeChannel_ = conv(width, width // 2, 1)
        if cross_scale:
            # Theta and gamma of Eq. 3 and 4 start as in the released code, not given in the paper.
            mixes = (nn.ParameterDict({"w": torch.tensor([start])}) for start in (-1.0, -0.6))
            self.mix1, self.mix2 = mixes
        if official:
            self.conv_2_, self.conv_4 = (conv(width, 3, 1) for _ in range(2))

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> MSFSNet:
        return cls(
            width=shapes["conv.main.0.weight"][0],
            encoder_blocks=shapes.count(r"Encoder\.2\.layers\.\d+\.main\.0\.main\.0\.weight"),
            latent_blocks=shapes.count(r"latent\.\d+\.body\.0\.weight"),
            decoder_blocks=shapes.count(r"Decoder\.0\.layers\.\d+\.body\.0\.weight"),
            layers="official" if shapes["tail_.weight"][2] == 1 else "paper",
            frequency_separation=shapes.has("changeChannel_."),
            cross_scale=shapes.has("mix1."),
        )

    def forward(self, blur: Tensor) -> Tensor:
        """Restore (N, 3, H, W) in [0, 1], with sides that are multiples of 8; not clamped."""
        *_, finest = self._decode(blur)
        return self.tail_(finest.fused) + blur

    def restore(self, blur: Tensor) -> Restoration:
        """Return the restored image with everything that the losses compare."""
        encoder, deepest, middle, finest = self._decode(blur)
        images = [self.tail_(finest.fused) + blur]
        if self.options["layers"] == "official":
            smaller = blur[..., ::2, ::2]
            images.append(self.conv_2_(middle.fused) + smaller)
            images.append(self.conv_4(deepest.fused) + smaller[..., ::2, ::2])
        decoder = [self._narrowed(finest), self._narrowed(middle), deepest]
        return Restoration(images, encoder, decoder)

    def separate(self, image: Tensor) -> list[Separated]:
        """Return the encoder's features of a sharp or restored image (N, 3, H, W), for losses."""
        return self._encode(image, sharp=True)[0]

    def _decode(self, blur: Tensor) -> tuple[list[Separated], Separated, Separated, Separated]:
        """Return the encoder's separated features, and the decoder's at 1/4, 1/2 and full size."""
        # As in the released code, no residual blocks run at full size here.
        encoder, half, quarter = self._encode(blur)
        deepest = self.octblock[3](self.latent(encoder[2].fused))
        middle = self.octblock[4](self.Decoder[0](self._fuse("mix1", quarter, deepest.fused)))
        finest = self.octblock[5](self.Decoder[1](self._fuse("mix2", half, middle.fused)))
        return encoder, deepest, middle, finest

    def _encode(self, image: Tensor, sharp: bool = False) -> tuple[list[Separated], Tensor, Tensor]:
        """Return the separated features, and those at 1/2 and 1/4 before their separation."""
        full = self.octblock[0](self.conv(image))
        half = self.Encoder[1](self.Encoder[0](full.fused) if sharp else full.fused)
        separated_half = self.octblock[1](half)
        quarter = self.Encoder[3](self.Encoder[2](separated_half.fused))
        return [full, separated_half, self.octblock[2](quarter)], half, quarter

    def _fuse(self, mix: str, encoder: Tensor, decoder: Tensor) -> Tensor:
        """Return the cross-scale fusion (Eq. 3-4): the encoder's features, and both mixed.

        As printed, Eq. 4 mixes features of two sizes; it is taken to be Eq. 3 one scale finer.
        """
        if not self.options["cross_scale"]:
            return torch.cat([decoder, decoder], 1)
        weight = torch.sigmoid(self.get_parameter(f"{mix}.w"))
        return torch.cat([encoder, weight * encoder + (1 - weight) * decoder], 1)

    def _narrowed(self, separated: Separated) -> Separated:
        """Return the decoder's features with as many high channels as the encoder's."""
        if not self.options["frequency_separation"]:
            return separated
        return separated._replace(high=self.changeChannel_(separated.high))


# ---- Octave convolutions -------------------------------------------------------------------------

Layers = Literal["paper", "official"]
"""The layers of the paper's text or those of the released code."""

LOW = 0.5
"""The fraction of channels that hold low frequencies, alpha in the paper."""


class Separated(NamedTuple):
    """Features of one scale: high frequencies, low ones at half the size, and both fused again."""

    high: Tensor
    low: Tensor
    fused: Tensor


class OctaveLayer(nn.Module):
    """A convolution of features in two octaves (Chen et al., ICCV 2019; Eq. 1-2), without bias.

    `low_in` and `low_out` are the fractions of low channels before and after it; 0 means none. With
    the official layers, batch norm and ReLU follow on both parts.
    """

    def __init__(
        self, inputs: int, outputs: int, kernel: int, low_in: float, low_out: float, layers: Layers
    ) -> None:
        super().__init__()
        from_low, to_low = int(low_in * inputs), int(low_out * outputs)
        before = {"l": from_low, "h": inputs - from_low}
        after = {"l": to_low, "h": outputs - to_low}
        self.conv = nn.ModuleDict()
        for (start, channels), (end, to) in product(before.items(), after.items()):
            if channels and to:
                path = nn.Conv2d(channels, to, kernel, padding=kernel // 2, bias=False)
                self.conv[f"conv_{start}2{end}"] = path
        official = layers == "official"
        self.bn_h = nn.BatchNorm2d(after["h"]) if official else None
        self.bn_l = nn.BatchNorm2d(to_low) if official and to_low else None

    def forward(self, high: Tensor, low: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return high frequencies, and low ones at half the size, rounded down, or None."""
        new_high, new_low = self.conv["conv_h2h"](high), None
        if low is not None and "conv_l2h" in self.conv:
            larger = F.interpolate(self.conv["conv_l2h"](low), scale_factor=2, mode="nearest")
            missing = [new_high.shape[i] - larger.shape[i] for i in (3, 2)]  # 1 where a side is odd
            new_high = new_high + F.pad(larger, (0, missing[0], 0, missing[1]))
        if "conv_h2l" in self.conv:
            new_low = self.conv["conv_h2l"](F.avg_pool2d(high, 2))
            if low is not None and "conv_l2l" in self.conv:
                new_low = new_low + self.conv["conv_l2l"](low)
        if self.bn_h is not None:
            new_high = F.relu(self.bn_h(new_high))
        if self.bn_l is not None and new_low is not None:
            new_low = F.relu(self.bn_l(new_low))
        return new_high, new_low


class FrequencySeparation(Recomputable):
    """The FSM (Fig. 4b): octave convolutions separate, update and fuse; the input is added."""

    def __init__(self, in_channels: int, out_channels: int, layers: Layers) -> None:
        super().__init__()
        self.oct1 = OctaveLayer(in_channels, in_channels, 1, 0, LOW, layers)
        self.oct2 = OctaveLayer(in_channels, in_channels, 3, LOW, LOW, layers)
        self.oct3 = OctaveLayer(in_channels, out_channels, 1, LOW, 0, layers)
        self.conv: nn.Module = nn.Conv2d(in_channels, out_channels, 1)
        if layers == "paper" and in_channels == out_channels:
            self.conv = nn.Identity()

    def forward(self, x: Tensor) -> Separated:
        """Return the frequencies after `oct2` and the output for (N, C, H, W), sides from 2 on."""
        high, low = self.oct2(*self.oct1(x))
        fused, _ = self.oct3(high, low)
        return Separated(high, low, self.conv(x) + fused)


class PlainConvolution(nn.Conv2d):
    """The 3x3 convolution that replaces the FSM: its output serves as high, low and fused."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Separated:  # type: ignore[override]
        features = super().forward(x)
        return Separated(features, features, features)
