"""The parts of MSDI-Net's U-Nets: convolution blocks, encoder and decoder paths."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from blurkit.nn.blocks import Recomputable, leaky

UNET_SCALES = 5
"""The number of feature sizes in the U-Net, from the image's to 1/16 of it."""


# -- blocks ----------------------------------------------------------------------------------------


class ConvBlock(Recomputable):
    """Two 3x3 convolutions parallel to a 1x1 one, as in HINet; the size stays the same.

    `half_norm` normalises the first half of the channels after the first convolution, `cross_stage`
    adds features of the previous stage, `pointwise` is the two-stage network's extra 1x1
    convolution (its second one, `conv_4`, is in the released state dicts but never used).
    `downsample` only holds the convolution that halves the size; the U-Net applies it.
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
        """Return features (N, out_channels, H, W) from `x` (N, in_channels, H, W).

        `stage` holds the encoder and decoder features to add.
        """
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


class UpStep(Recomputable):
    """A decoder step: upsample by 2, join the skip connection, convolve."""

    def __init__(self, channels: int, pointwise: bool) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, stride=2)
        self.conv_block = ConvBlock(2 * channels, channels, pointwise)

    def forward(self, x: Tensor, bridge: Tensor) -> Tensor:
        """Return (N, C, 2 H, 2 W) from (N, 2 C, H, W) and the skip connection (N, C, 2 H, 2 W)."""
        return self.conv_block(torch.cat([self.up(x), bridge], 1))


class SupervisedAttention(Recomputable):
    """HINet's link between stages: the first stage's image, and features weighted by it."""

    def __init__(self, channels: int, image_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, image_channels, 3, padding=1)
        self.conv3 = nn.Conv2d(image_channels, channels, 3, padding=1)

    def forward(self, f: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and restored image from features (N, C, H, W) and image (N, 3, H, W)."""
        restored = self.conv2(f) + image
        return self.conv1(f) * torch.sigmoid(self.conv3(restored)) + f, restored


# -- paths ----------------------------------------------------------------------------------------


def down_path(width: int, pointwise: bool, cross_stage: bool = False) -> nn.ModuleList:
    """Return the encoder's five blocks, full size first."""
    blocks = nn.ModuleList()
    for level in range(UNET_SCALES):
        last = level == UNET_SCALES - 1
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
    """Return the decoder's four steps, deepest first."""
    return nn.ModuleList(UpStep(channels, pointwise) for channels in _skip_widths(width))


def skip_convs(width: int) -> nn.ModuleList:
    """Return a convolution block for each skip connection, deepest first."""
    return nn.ModuleList(ConvBlock(c, c, True, half_norm=True) for c in _skip_widths(width))


def _skip_widths(width: int) -> list[int]:
    return [width * 2**level for level in reversed(range(UNET_SCALES - 1))]


def encode(
    path: nn.ModuleList, f: Tensor, stage: Iterable[tuple[Tensor, Tensor]] = ()
) -> tuple[list[Tensor], Tensor]:
    """Return the features at the skip connections, full size first, and at the bottleneck.

    `stage` holds, for each skip connection, the encoder and decoder features of the previous stage.
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
    injections: nn.ModuleList | None,
    before: Sequence[nn.ModuleList] = (),
    after: Sequence[nn.ModuleList] = (),
) -> list[Tensor]:
    """Return the decoder features of one U-Net, full size first.

    Each skip connection passes through the blocks `before`, its injection and the blocks `after`.
    """
    if injections is not None and len(injections) == UNET_SCALES:
        f = injections[-1](f, latents[UNET_SCALES - 1])
    decoded: list[Tensor] = []
    for j, step in enumerate(path):
        level = UNET_SCALES - 2 - j
        bridge = skips[level]
        for blocks in before:
            bridge = blocks[j](bridge)
        if injections is not None:
            bridge = injections[level](bridge, latents[level])
        for blocks in after:
            bridge = blocks[j](bridge)
        f = step(f, bridge)
        decoded.insert(0, f)
    return decoded
