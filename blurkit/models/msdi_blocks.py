"""The parts of MSDI-Net's U-Nets: modulation by latents, convolution blocks, decoder steps."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.models.blocks import leaky, spectral_conv

ModulationKind = Literal["official", "paper"]

SCALES = 5
"""Feature sizes of the U-Net, from the image's to 1/16 of it."""


# -- modulation ------------------------------------------------------------------------------------


class SpatialParameters(nn.Module):
    """Scale and shift of every feature value, predicted from a latent: f * (1 + gamma) + beta.

    Plain (joint generators): from the latent alone, on batch-normalised features. With
    `see_features` (deblurring network): from features and latent together, the features left as
    they are; the batch normalisation is then only in the state dict.
    """

    def __init__(self, channels: int, hidden: int, see_features: bool) -> None:
        super().__init__()
        self.see_features = see_features
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        if see_features:
            self.mlp_shared = nn.Sequential(
                nn.Conv2d(2 * channels, channels, 1),
                leaky(),
                nn.Conv2d(channels, hidden, 3, padding=1),
                leaky(),
                nn.Conv2d(hidden, hidden, 3, padding=1),
                leaky(),
            )
        else:
            self.mlp_shared = nn.Sequential(nn.Conv2d(channels, hidden, 3, padding=1), nn.ReLU())
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        """Features and latent, both (N, C, H, W), to modulated features of that shape."""
        if self.see_features:
            shared = self.mlp_shared(torch.cat([f, latent], 1))
        else:
            f = self.param_free_norm(f)
            shared = self.mlp_shared(latent)
        return f * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class Modulation(nn.Module):
    """The released injection: modulate, LeakyReLU, convolve, add to the features."""

    def __init__(self, channels: int, hidden: int, see_features: bool) -> None:
        super().__init__()
        self.conv_0 = spectral_conv(channels, channels, padding=1)
        self.norm_0 = SpatialParameters(channels, hidden, see_features)
        self.activation = leaky()

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        """Features (N, C, H, W) and a latent of C channels, any size, to features."""
        modulated = self.norm_0(f, _resized(latent, f))
        return f + self.conv_0(self.activation(modulated))


class PaperModulation(nn.Module):
    """Eq. 9: F = gamma * f + beta, both predicted from the latent by 3x3 convolutions."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(
            nn.Conv2d(channels, hidden, 3, padding=1),
            leaky(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            leaky(),
        )
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)
        # The paper gives no initial values; around gamma = 1 the skip connections start open.
        nn.init.ones_(self.mlp_gamma.get_parameter("bias"))

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        """Features (N, C, H, W) and a latent of C channels, any size, to features."""
        shared = self.mlp_shared(_resized(latent, f))
        return self.mlp_gamma(shared) * f + self.mlp_beta(shared)


def _resized(latent: Tensor, like: Tensor) -> Tensor:
    size = like.shape[-2:]
    return latent if latent.shape[-2:] == size else F.interpolate(latent, size=size)


# -- U-Net parts -----------------------------------------------------------------------------------


class ConvBlock(nn.Module):
    """Two 3x3 convolutions beside a 1x1 one, as in HINet; always the size of its input.

    `half_norm` normalises the first half of the channels after the first convolution, `cross_stage`
    adds features of the stage before, `pointwise` is the two-stage network's extra 1x1 convolution
    (its second one, `conv_4`, is in the released state dicts but never used). `downsample` only
    holds the convolution that halves the size; the U-Net applies it.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        pointwise: bool,
        half_norm: bool = False,
        cross_stage: bool = False,
        downsample: bool = False,
    ) -> None:
        super().__init__()
        self.pointwise = pointwise
        self.half_norm = half_norm
        self.activation = leaky()
        self.identity = nn.Conv2d(in_channels, out_channels, 1, bias=not pointwise)
        self.conv_1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv_2 = nn.Conv2d(out_channels, out_channels, 3, padding=1)
        if pointwise:
            self.conv_3 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
            self.conv_4 = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        if cross_stage:
            self.csff_enc = nn.Conv2d(out_channels, out_channels, 1, bias=False)
            self.csff_dec = nn.Conv2d(out_channels, out_channels, 1, bias=False)
        if half_norm:
            self.norm = nn.InstanceNorm2d(out_channels // 2, affine=True)
        if downsample:
            self.downsample = nn.Conv2d(
                out_channels, out_channels, 4, stride=2, padding=1, bias=False
            )

    def forward(self, x: Tensor, stage: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """(N, in, H, W) to (N, out, H, W); `stage` holds encoder and decoder features to add."""
        t = self.conv_1(x)
        if self.half_norm:
            first, second = t.chunk(2, dim=1)
            t = torch.cat([self.norm(first), second], 1)
        t = self.activation(t)
        if self.pointwise:
            t = self.activation(self.conv_3(t))
        t = self.activation(self.conv_2(t)) + self.identity(x)
        if stage is not None:
            t = t + self.csff_enc(stage[0]) + self.csff_dec(stage[1])
        return t


class UpStep(nn.Module):
    """A decoder step: upsample by 2, join the skip connection, convolve."""

    def __init__(self, channels: int, pointwise: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.conv_block = ConvBlock(2 * channels, channels, pointwise)

    def forward(self, x: Tensor, bridge: Tensor) -> Tensor:
        """(N, 2 C, H, W) and the bridge (N, C, 2 H, 2 W) to (N, C, 2 H, 2 W)."""
        return self.conv_block(torch.cat([self.up(x), bridge], 1))


class SupervisedAttention(nn.Module):
    """HINet's link between stages: the first stage's image, and features weighted by it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, 3, 3, padding=1)
        self.conv3 = nn.Conv2d(3, channels, 3, padding=1)

    def forward(self, f: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, C, H, W) and image (N, 3, H, W) to features and restored image."""
        restored = self.conv2(f) + image
        return self.conv1(f) * torch.sigmoid(self.conv3(restored)) + f, restored


# -- paths ----------------------------------------------------------------------------------------


def modulations(
    width: int, hidden: int, kind: ModulationKind, see_features: bool, bottleneck: bool
) -> nn.ModuleList:
    """One modulation per skip connection, full size first, and one at 1/16 with `bottleneck`."""
    blocks = nn.ModuleList()
    for level in range(SCALES if bottleneck else SCALES - 1):
        channels = width * 2**level
        if kind == "paper":
            blocks.append(PaperModulation(channels, hidden))
        else:
            blocks.append(Modulation(channels, hidden, see_features))
    return blocks


def down_path(width: int, pointwise: bool, cross_stage: bool = False) -> nn.ModuleList:
    """The encoder's five blocks, full size first."""
    blocks = nn.ModuleList()
    for level in range(SCALES):
        last = level == SCALES - 1
        blocks.append(
            ConvBlock(
                width * 2 ** max(level - 1, 0),
                width * 2**level,
                pointwise,
                half_norm=True,
                cross_stage=cross_stage and not last,
                downsample=not last,
            )
        )
    return blocks


def up_path(width: int, pointwise: bool) -> nn.ModuleList:
    """The decoder's four steps, deepest first."""
    return nn.ModuleList(UpStep(channels, pointwise) for channels in _skip_widths(width))


def skip_convs(width: int) -> nn.ModuleList:
    """A convolution block for each skip connection, deepest first."""
    return nn.ModuleList(ConvBlock(c, c, True, half_norm=True) for c in _skip_widths(width))


def _skip_widths(width: int) -> list[int]:
    return [width * 2**level for level in reversed(range(SCALES - 1))]


def encode(
    path: nn.ModuleList, f: Tensor, stage: Iterable[tuple[Tensor, Tensor]] = ()
) -> tuple[list[Tensor], Tensor]:
    """Features at the skip connections, full size first, and at the bottleneck.

    `stage` holds, for each skip connection, the encoder and decoder features of the stage before.
    """
    pairs = iter(stage)
    skips = []
    for block in path[:-1]:
        assert isinstance(block, ConvBlock)
        skips.append(block(f, next(pairs, None)))
        f = block.downsample(skips[-1])
    return skips, path[-1](f)


def decode(
    path: nn.ModuleList,
    skips: list[Tensor],
    f: Tensor,
    latents: list[Tensor],
    modulation: nn.ModuleList | None,
    before: Sequence[nn.ModuleList] = (),
    after: Sequence[nn.ModuleList] = (),
) -> list[Tensor]:
    """Decoder features of one U-Net, full size first.

    Each skip connection runs through the blocks `before`, its modulation and the blocks `after`.
    """
    if modulation is not None and len(modulation) == SCALES:
        f = modulation[-1](f, latents[SCALES - 1])
    decoded: list[Tensor] = []
    for j, step in enumerate(path):
        level = SCALES - 2 - j
        bridge = skips[level]
        for blocks in before:
            bridge = blocks[j](bridge)
        if modulation is not None:
            bridge = modulation[level](bridge, latents[level])
        for blocks in after:
            bridge = blocks[j](bridge)
        f = step(f, bridge)
        decoded.insert(0, f)
    return decoded
