"""MSFS-Net: "Multi-scale frequency separation network for image deblurring" (Zhang et al. 2022).

Attribute names are those of the released state dicts. Features come finest scale first: full size,
1/2, 1/4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from blurkit.nn.blocks import conv, leaky
from blurkit.nn.size import SizeRequirement
from blurkit.systems.msfs.octave import FrequencySeparation, Layers, PlainConvolution, Separated

ATTENTION_REDUCTION = 16
"""Channels for each channel inside the channel attention."""

MIX_STARTS = (-1.0, -0.6)
"""Where theta and gamma of Eq. 3 and 4 begin, in the released code; the paper does not say."""


class ConvLayer(nn.Module):
    """A 3x3 convolution, with or without ReLU."""

    def __init__(self, in_channels: int, out_channels: int, relu: bool) -> None:
        super().__init__()
        self.main = nn.Sequential(conv(in_channels, out_channels), *[nn.ReLU()] * relu)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same size."""
        return self.main(x)


class MSFSResidualBlock(nn.Module):
    """Two 3x3 convolutions with a ReLU between, and the input added."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.main = nn.Sequential(ConvLayer(width, width, True), ConvLayer(width, width, False))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return self.main(x) + x


class ResidualBlocks(nn.Module):
    """Residual blocks one after another."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(MSFSResidualBlock(width) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return self.layers(x)


class Down(nn.Module):
    """A 3x3 convolution of stride 2 without bias, and LeakyReLU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        halving = nn.Conv2d(width, width, 3, stride=2, padding=1, bias=False)
        self.dual_module = nn.Sequential(nn.Sequential(halving, leaky()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to half the size."""
        return self.dual_module(x)


class ChannelAttention(nn.Module):
    """Every channel times a factor in (0, 1) that the means of all channels decide."""

    def __init__(self, width: int) -> None:
        super().__init__()
        hidden = max(1, width // ATTENTION_REDUCTION)
        self.avg_pool = nn.AdaptiveAvgPool2d(1)
        self.conv_du = nn.Sequential(
            conv(width, hidden, 1), nn.ReLU(), conv(hidden, width, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return x * self.conv_du(self.avg_pool(x))


class RCAB(nn.Module):
    """A residual channel attention block (Zhang et al., ECCV 2018), without norms."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(width, width), nn.ReLU(), conv(width, width), ChannelAttention(width)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same."""
        return self.body(x) + x


class DecoderLevel(nn.Module):
    """RCABs, and a pixel shuffle to twice the size."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(*(RCAB(width) for _ in range(blocks)))
        self.up = nn.Sequential(conv(width, 4 * width), nn.PixelShuffle(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, 2H, 2W)."""
        return self.up(self.layers(x))


class Mix(nn.Module):
    """The adaptive mix-up of two features, whose share is learned (Eq. 3-4)."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([start]))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """sigmoid(w) first + (1 - sigmoid(w)) second."""
        share = torch.sigmoid(self.w)
        return share * first + (1 - share) * second


class Restoration(NamedTuple):
    """What MSFS-Net makes of a blurry image, finest scale first.

    `images` are the restored image and, with the official layers, those of 1/2 and 1/4; `encoder`
    and `decoder` the separated features, high and low ones of equally many channels in both.
    """

    images: list[Tensor]
    encoder: list[Separated]
    decoder: list[Separated]


class MSFSNet(nn.Module):
    """The network of Fig. 3: an encoder and a decoder that part frequencies at three scales.

    `layers="paper"` has what the text names: no norms and an input added as it is in the FSM, a 3x3
    convolution at the end, one encoder for blurry and restored images. "official" is as released:
    batch norm and ReLU after every octave convolution, a 1x1 convolution at the end, residual
    blocks at full size for sharp images alone, and image heads at 1/2 and 1/4.

    Ablations (Table 4): without `frequency_separation` a convolution stands in each FSM's place;
    without `cross_scale` the decoder gets its own features where those of the encoder would be.
    """

    size = SizeRequirement(minimum=8, multiple=8)

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

        def separation(in_channels: int) -> FrequencySeparation | PlainConvolution:
            if frequency_separation:
                return FrequencySeparation(in_channels, width, layers)
            return PlainConvolution(in_channels, width)

        self.conv = ConvLayer(3, width, relu=True)
        self.latent = nn.Sequential(*(RCAB(width) for _ in range(latent_blocks)))
        self.Encoder = nn.ModuleList(
            [
                ResidualBlocks(width, encoder_blocks) if official else nn.Identity(),
                Down(width),
                ResidualBlocks(width, encoder_blocks),
                Down(width),
            ]
        )
        self.Decoder = nn.ModuleList([DecoderLevel(2 * width, decoder_blocks) for _ in range(2)])
        self.octblock = nn.ModuleList(separation(width * n) for n in (1, 1, 1, 1, 2, 2))
        self.tail_ = conv(width, 3, 1 if official else 3)
        if frequency_separation:
            self.changeChannel_ = conv(width, width // 2, 1)
        if cross_scale:
            self.mix1, self.mix2 = (Mix(start) for start in MIX_STARTS)
        if official:
            self.conv_2_, self.conv_4 = (conv(width, 3, 1) for _ in range(2))

    def forward(self, blur: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1], sides multiples of 8, to the restored image, not clamped."""
        *_, finest = self._decode(blur)
        return self.tail_(finest.fused) + blur

    def restore(self, blur: Tensor) -> Restoration:
        """The same with all that the losses compare."""
        encoder, deepest, middle, finest = self._decode(blur)
        images = [self.tail_(finest.fused) + blur]
        if self.options["layers"] == "official":
            smaller = blur[..., ::2, ::2]
            images.append(self.conv_2_(middle.fused) + smaller)
            images.append(self.conv_4(deepest.fused) + smaller[..., ::2, ::2])
        decoder = [self._narrowed(finest), self._narrowed(middle), deepest]
        return Restoration(images, encoder, decoder)

    def separate(self, image: Tensor) -> list[Separated]:
        """What the encoder makes of a sharp or restored image (N, 3, H, W), to compare with."""
        return self._encode(image, sharp=True)[0]

    def _decode(self, blur: Tensor) -> tuple[list[Separated], Separated, Separated, Separated]:
        """The encoder's separated features, and the decoder's at 1/4, 1/2 and full size."""
        # Nothing of full size passes residual blocks on this way, in the released code either.
        encoder, half, quarter = self._encode(blur)
        deepest = self.octblock[3](self.latent(encoder[2].fused))
        middle = self.octblock[4](self.Decoder[0](self._fuse("mix1", quarter, deepest.fused)))
        finest = self.octblock[5](self.Decoder[1](self._fuse("mix2", half, middle.fused)))
        return encoder, deepest, middle, finest

    def _encode(self, image: Tensor, sharp: bool = False) -> tuple[list[Separated], Tensor, Tensor]:
        """The separated features, and those of 1/2 and 1/4 before their separation."""
        full = self.octblock[0](self.conv(image))
        half = self.Encoder[1](self.Encoder[0](full.fused) if sharp else full.fused)
        separated_half = self.octblock[1](half)
        quarter = self.Encoder[3](self.Encoder[2](separated_half.fused))
        return [full, separated_half, self.octblock[2](quarter)], half, quarter

    def _fuse(self, mix: str, encoder: Tensor, decoder: Tensor) -> Tensor:
        """The cross-scale fusion (Eq. 3-4): the encoder's features, and a mixture with them.

        As printed, Eq. 4 mixes features of two sizes; it is read as Eq. 3 is, one scale finer.
        """
        if not self.options["cross_scale"]:
            return torch.cat([decoder, decoder], 1)
        return torch.cat([encoder, self.get_submodule(mix)(encoder, decoder)], 1)

    def _narrowed(self, separated: Separated) -> Separated:
        """The decoder's features with as many high channels as the encoder's have."""
        if not self.options["frequency_separation"]:
            return separated
        return separated._replace(high=self.changeChannel_(separated.high))
