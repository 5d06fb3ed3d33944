"""NAFNet: a U-Net of residual blocks without activation functions.

"Simple baselines for image restoration", ECCV 2022, with the keys of the released networks. Images
are RGB in [0, 1]; outputs are not clamped.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import SizeRequirement
from blurkit.nn.blocks import Recomputable
from blurkit.options import Protocol
from blurkit.systems.msdi.encoder import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.networks import encoding_parts
from blurkit.systems.msdi.unet import PaperModulation
from blurkit.systems.nafnet.config import BLOCKS
from blurkit.systems.system import Shapes


class LayerNorm2d(nn.Module):
    """Normalisation over the channels at each pixel, in float32 at least.

    The released code's sums overflow in float16; then a pixel silently becomes the bias.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        wide = x.permute(0, 2, 3, 1).to(self.weight.dtype)
        sides = (self.weight.numel(),)  # a plain number, which ONNX needs
        normalised = F.layer_norm(wide, sides, self.weight, self.bias, 1e-6)
        return normalised.permute(0, 3, 1, 2)


class NAFBlock(Recomputable):
    """Two residual parts, at first 0: gated convolution with channel attention, gated product."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        double = 2 * channels
        self.beta = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.conv1 = nn.Conv2d(channels, double, 1)
        self.conv2 = nn.Conv2d(double, double, 3, padding=1, groups=double)
        self.conv3 = nn.Conv2d(channels, channels, 1)
        self.sca = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, channels, 1))
        self.conv4 = nn.Conv2d(channels, double, 1)
        self.conv5 = nn.Conv2d(channels, channels, 1)
        self.norm1, self.norm2 = LayerNorm2d(channels), LayerNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        gated = gate(self.conv2(self.conv1(self.norm1(x))))
        y = x + self.beta * self.conv3(gated * self.sca(gated))
        return y + self.gamma * self.conv5(gate(self.conv4(self.norm2(y))))


def gate(x: Tensor) -> Tensor:
    """Return the first half of the channels of `x` (N, 2 C, H, W) times the second."""
    first, second = x.chunk(2, dim=1)
    return first * second


class NAFNet(nn.Module):
    """The U-Net, twice as wide at every level; it pads images by zeros inside, as released."""

    protocol: Protocol = "local"  # how its paper measured it

    def __init__(
        self,
        width: int = 32,
        encoder_blocks: Sequence[int] = BLOCKS["gopro"][0],
        middle_blocks: int = BLOCKS["gopro"][1],
        decoder_blocks: Sequence[int] = BLOCKS["gopro"][2],
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.options = {
            "width": width,
            "encoder_blocks": list(encoder_blocks),
            "middle_blocks": middle_blocks,
            "decoder_blocks": list(decoder_blocks),
            "channels": channels,
        }
        self.size = SizeRequirement()
        widths = [width << level for level in range(len(encoder_blocks) + 1)]
        self.intro = nn.Conv2d(channels, width, 3, padding=1)
        self.ending = nn.Conv2d(width, channels, 3, padding=1)
        self.encoders = nn.ModuleList(map(_blocks, widths, encoder_blocks))
        self.decoders = nn.ModuleList(map(_blocks, reversed(widths[:-1]), decoder_blocks))
        self.middle_blks = _blocks(widths[-1], middle_blocks)
        self.ups = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c, 2 * c, 1, bias=False), nn.PixelShuffle(2))
            for c in reversed(widths[1:])
        )
        self.downs = nn.ModuleList(nn.Conv2d(c, 2 * c, 2, stride=2) for c in widths[:-1])

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> NAFNet:
        return cls(**options_from_shapes(shapes))

    def forward(self, image: Tensor) -> Tensor:
        """Return the restored image, both (N, 3, H, W)."""
        return self.restored(image, [None] * (len(self.downs) + 1))

    def restored(self, image: Tensor, latents: Sequence[Tensor | None]) -> Tensor:
        """Return the restored image; `latents` condition the skip connections and the middle."""
        height, width = image.shape[-2:]
        multiple = 1 << len(self.downs)
        padded = F.pad(image, (0, -width % multiple, 0, -height % multiple))
        x, skips = self.intro(padded), []
        for blocks, down in zip(self.encoders, self.downs, strict=True):
            skips.append(blocks(x))
            x = down(skips[-1])
        x = self.conditioned(len(skips), self.middle_blks(x), latents[-1])
        for blocks, up in zip(self.decoders, self.ups, strict=True):
            level = len(skips) - 1
            x = blocks(up(x) + self.conditioned(level, skips.pop(), latents[level]))
        return (self.ending(x) + padded)[..., :height, :width]

    def conditioned(self, level: int, x: Tensor, latent: Tensor | None) -> Tensor:
        """Return the features of a level (N, C, H, W), here as they are."""
        return x


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(NAFBlock(channels) for _ in range(count)))


def options_from_shapes(shapes: Shapes) -> dict[str, Any]:
    """Return the options of the NAFNet whose state dict has these shapes."""
    width, channels = shapes["intro.weight"][:2]
    levels = shapes.count(r"downs\.\d+\.weight")
    counts = {
        part: [shapes.count(rf"{part}\.{n}\.\d+\.beta") for n in range(levels)]
        for part in ("encoders", "decoders")
    }
    return {
        "width": width,
        "encoder_blocks": counts["encoders"],
        "middle_blocks": shapes.count(r"middle_blks\.\d+\.beta"),
        "decoder_blocks": counts["decoders"],
        "channels": channels,
    }


# ---- Guided by a degradation encoder -------------------------------------------------------------


class GuidedNAFNet(NAFNet):
    """A NAFNet whose skip connections and middle are modulated by latents of a degradation map.

    The map is that of its input (Eq. 9 of MSDI-Net), for the middle and at most four other levels.
    """

    def __init__(
        self,
        encoder: DegradationEncoder,
        prior_upsampling: PriorUpsampling,
        hidden: int = 32,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.own_options = {**self.options, "hidden": hidden}
        self.options = {**encoder.options, **self.own_options}
        self.net_prior = encoder.requires_grad_(False)
        self.prior_upsampling = prior_upsampling.requires_grad_(False)
        wide, own = int(prior_upsampling.options["width"]), self.intro.out_channels
        levels = range(len(self.downs) + 1)
        modulations = [PaperModulation(own << n, hidden, wide << n) for n in levels]
        for modulation in modulations:  # starts as the identity, like the blocks
            modulation.start_at_identity()
        self.modulations = nn.ModuleList(modulations)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> GuidedNAFNet:
        hidden = shapes["modulations.0.mlp_gamma.weight"][1]
        return cls(*encoding_parts(shapes), hidden, **options_from_shapes(shapes))

    @property
    def arguments(self) -> dict[str, Any]:
        parts = {"encoder": self.net_prior, "prior_upsampling": self.prior_upsampling}
        return {**parts, **self.own_options}

    def forward(self, image: Tensor) -> Tensor:
        with torch.no_grad():
            latents = self.prior_upsampling.eval()(self.net_prior.eval()(image), bottleneck=True)
        return self.restored(image, latents[: len(self.modulations)])

    def conditioned(self, level: int, x: Tensor, latent: Tensor | None) -> Tensor:
        return self.modulations[level](x, latent)
