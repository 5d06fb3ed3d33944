"""The parts of MSDI-Net's U-Nets: convolution blocks, encoder and decoder paths."""

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import UsageError
from blurkit.nn.blocks import Recomputable, conv, leaky, spectral_conv, zero
from blurkit.systems.msdi.encoder import EncoderResidualBlock

UNET_SCALES = 5
"""The number of feature sizes in the U-Net, from the image's to 1/16 of it."""


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
        self.conv_1, self.conv_2 = conv(in_channels, out_channels), conv(out_channels, out_channels)
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
        """Map (N, in_channels, H, W) to (N, out_channels, H, W); add the features of a `stage`."""
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

    def __init__(self, channels: int, image_channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv(channels, channels), conv(channels, image_channels)
        self.conv3 = conv(image_channels, channels)

    def forward(self, f: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and restored image from features (N, C, H, W) and image (N, 3, H, W)."""
        restored = self.conv2(f) + image
        return self.conv1(f) * torch.sigmoid(self.conv3(restored)) + f, restored


def down_path(width: int, pointwise: bool, cross_stage: bool = False) -> nn.ModuleList:
    """Return the encoder's five blocks, full size first."""
    widths = [width, *(width * 2**level for level in range(UNET_SCALES))]
    *others, last = pairwise(widths)
    blocks = [ConvBlock(*pair, pointwise, True, cross_stage, downsample=True) for pair in others]
    return nn.ModuleList([*blocks, ConvBlock(*last, pointwise, True)])


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
    """Return decoder features, full size first; a skip passes `before`, its injection, `after`."""
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


# ---- Injection -----------------------------------------------------------------------------------
# How latents of the degradation map are injected into MSDI-Net's U-Nets. The paper's method is
# spatial modulation at every skip connection (Section 3.3, Eq. 9); the others are those of its
# ablation study (Table 4). Blocks map features (N, C, H, W) and a latent (N, C', h, w) of any size
# to features; only the paper's modulation allows C' to differ from C.

Injection = Literal["multi-scale", "lowest", "input", "concat", "none"]
"""Modulation at all scales or at the lowest alone, concatenation at the network's input or at all
scales, or no injection at all (Table 4)."""

ModulationKind = Literal["official", "paper"]


def takes_any_width(injection: Injection, modulation: ModulationKind) -> bool:
    """Return whether latents may have any width: Eq. 9, at all scales, convolves them alone."""
    return injection == "multi-scale" and modulation == "paper"


def injections(
    width: int,
    hidden: int,
    modulation: ModulationKind,
    bottleneck: bool,
    latent_width: int,
    injection: Injection,
    see_features: bool,
) -> nn.ModuleList | None:
    """Return one block per skip connection, full size first, and one at 1/16 with `bottleneck`.

    Returns None if nothing is injected there. Raises UsageError if `latent_width` and `width`, both
    at full size, differ without the paper's modulation at all scales.
    """
    if injection == "none":
        return None
    if latent_width != width and not takes_any_width(injection, modulation):
        raise UsageError(
            f"latents have width {latent_width}, the network {width}; only the paper's modulation "
            "at all scales allows that"
        )
    if injection == "input":
        return None
    blocks = nn.ModuleList()
    scales = UNET_SCALES if bottleneck else UNET_SCALES - 1
    for level in range(scales):
        channels = width * 2**level
        if injection == "lowest" and level < scales - 1:
            blocks.append(Unchanged())
        elif injection == "concat":
            blocks.append(Concatenation(channels, hidden))
        elif modulation == "paper":
            blocks.append(PaperModulation(channels, hidden, latent_width * 2**level))
        else:
            blocks.append(Modulation(channels, hidden, see_features))
    return blocks


def entrance(channels: int, width: int, injection: Injection) -> nn.Conv2d:
    """Return a U-Net's first convolution, which also takes the latent with `injection="input"`."""
    return conv(channels + width if injection == "input" else channels, width)


def enter(convolution: nn.Conv2d, image: Tensor, latents: list[Tensor]) -> Tensor:
    """Apply an `entrance` to `image` (N, C, H, W) and, if it takes one, the full-size latent."""
    if convolution.in_channels > image.shape[1]:
        image = torch.cat([image, resized_latent(latents[0], image)], 1)
    return convolution(image)


def resized_latent(latent: Tensor, like: Tensor) -> Tensor:
    """Return a latent (N, C, h, w) at the height and width of `like`, by nearest neighbour."""
    size = like.shape[-2:]
    return latent if latent.shape[-2:] == size else F.interpolate(latent, size=size)


class SpatialParameters(nn.Module):
    """Scale and shift of every feature value, predicted from a latent: f * (1 + gamma) + beta.

    By default (joint generators), they come from the latent alone and apply to batch-normalised
    features. With `see_features` (deblurring network), they come from features and latent together
    and apply to the features; the batch normalisation is then only in the state dict.
    """

    def __init__(self, channels: int, hidden: int, see_features: bool) -> None:
        super().__init__()
        self.see_features = see_features
        self.param_free_norm = nn.BatchNorm2d(channels, affine=False)
        if see_features:
            self.mlp_shared = nn.Sequential(
                *(conv(2 * channels, channels, 1), leaky()),
                *(conv(channels, hidden), leaky(), conv(hidden, hidden), leaky()),
            )
        else:
            self.mlp_shared = nn.Sequential(conv(channels, hidden), nn.ReLU())
        self.mlp_gamma, self.mlp_beta = conv(hidden, channels), conv(hidden, channels)

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        """Return modulated features from features and a latent, all (N, C, H, W)."""
        if self.see_features:
            shared = self.mlp_shared(torch.cat([f, latent], 1))
        else:
            f = self.param_free_norm(f)
            shared = self.mlp_shared(latent)
        return f * (1 + self.mlp_gamma(shared)) + self.mlp_beta(shared)


class Modulation(Recomputable):
    """The released injection: modulate, apply LeakyReLU, convolve, add to the features."""

    def __init__(self, channels: int, hidden: int, see_features: bool) -> None:
        super().__init__()
        self.conv_0 = spectral_conv(channels, channels, padding=1)
        self.norm_0 = SpatialParameters(channels, hidden, see_features)
        self.activation = leaky()

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        return f + self.conv_0(self.activation(self.norm_0(f, resized_latent(latent, f))))


class PaperModulation(Recomputable):
    """Eq. 9: F = gamma * f + beta, both predicted from the latent by 3x3 convolutions."""

    def __init__(self, channels: int, hidden: int, latent_channels: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(
            conv(latent_channels, hidden), leaky(), conv(hidden, hidden), leaky()
        )
        self.mlp_gamma, self.mlp_beta = conv(hidden, channels), conv(hidden, channels)
        # The paper gives no initial values; near gamma = 1, the skip connections start open.
        nn.init.ones_(self.mlp_gamma.get_parameter("bias"))

    def start_at_identity(self) -> None:
        """Set gamma to 1 and beta to 0 everywhere, whatever the latent."""
        nn.init.zeros_(self.mlp_gamma.weight)
        zero(self.mlp_beta)

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        shared = self.mlp_shared(resized_latent(latent, f))
        return self.mlp_gamma(shared) * f + self.mlp_beta(shared)


class Concatenation(Recomputable):
    """Latent and features concatenated, reduced to the features' channels; then a residual block.

    Table 4, "w/ concat injection". The paper gives no sizes but asks for the cost of modulation;
    3x3 convolutions with `hidden` channels inside the block come close to it.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = conv(2 * channels, channels)
        self.residual = EncoderResidualBlock(
            nn.Conv2d(channels, hidden, 3), nn.Conv2d(hidden, channels, 3)
        )

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        return self.residual(self.reduce(torch.cat([f, resized_latent(latent, f)], 1)))


class Unchanged(nn.Module):
    """No injection at this scale (Table 4, "injection w/o multi-scale")."""

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        return f
