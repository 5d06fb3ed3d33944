"""How latents of the degradation map are injected into MSDI-Net's U-Nets.

The paper's method is spatial modulation at every skip connection (Section 3.3, Eq. 9); the others
are those of its ablation study (Table 4).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import UsageError
from blurkit.nn.blocks import Recomputable, leaky, spectral_conv
from blurkit.systems.msdi.encoder import EncoderResidualBlock
from blurkit.systems.msdi.unet import UNET_SCALES

Injection = Literal["multi-scale", "lowest", "input", "concat", "none"]
"""Modulation at all scales or at the lowest alone, concatenation at the network's input or at all
scales, or no injection at all (Table 4)."""

ModulationKind = Literal["official", "paper"]


def takes_any_width(injection: Injection, modulation: ModulationKind) -> bool:
    """Return whether the widths of latents and features may differ.

    Only the paper's modulation at all scales allows it, since it convolves the latents alone.
    """
    return injection == "multi-scale" and modulation == "paper"


def injections(
    width: int,
    hidden: int,
    injection: Injection,
    modulation: ModulationKind,
    see_features: bool,
    bottleneck: bool,
    latent_width: int,
) -> nn.ModuleList | None:
    """Return one block per skip connection, full size first, and one at 1/16 with `bottleneck`.

    Each block takes features and a latent. Returns None if nothing is injected at the skip
    connections. Raises UsageError if `latent_width` and `width`, both at full size, differ without
    the paper's modulation at all scales.
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
    return nn.Conv2d(channels + width if injection == "input" else channels, width, 3, padding=1)


def enter(convolution: nn.Conv2d, image: Tensor, latents: list[Tensor]) -> Tensor:
    """Apply an `entrance` to `image` (N, C, H, W) and, if it takes one, the full-size latent."""
    if convolution.in_channels > image.shape[1]:
        image = torch.cat([image, resized_latent(latents[0], image)], 1)
    return convolution(image)


def resized_latent(latent: Tensor, like: Tensor) -> Tensor:
    """Return a latent (N, C, h, w) at the height and width of `like`, by nearest neighbour."""
    size = like.shape[-2:]
    return latent if latent.shape[-2:] == size else F.interpolate(latent, size=size)


# -- modulation ------------------------------------------------------------------------------------


class SpatialParameters(nn.Module):
    """Scale and shift of every feature value, predicted from a latent: f * (1 + gamma) + beta.

    By default (joint generators), they are predicted from the latent alone and applied to
    batch-normalised features. With `see_features` (deblurring network), they are predicted from
    features and latent together and applied to the features themselves; the batch normalisation is
    then only in the state dict.
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
        """Return features from features (N, C, H, W) and a latent of C channels and any size."""
        modulated = self.norm_0(f, resized_latent(latent, f))
        return f + self.conv_0(self.activation(modulated))


class PaperModulation(Recomputable):
    """Eq. 9: F = gamma * f + beta, both predicted from the latent by 3x3 convolutions."""

    def __init__(self, channels: int, hidden: int, latent_channels: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(
            nn.Conv2d(latent_channels, hidden, 3, padding=1),
            leaky(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            leaky(),
        )
        self.mlp_gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(hidden, channels, 3, padding=1)
        # The paper gives no initial values; near gamma = 1, the skip connections start open.
        nn.init.ones_(self.mlp_gamma.get_parameter("bias"))

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        """Return features from features (N, C, H, W) and a latent (N, latent_channels, h, w)."""
        shared = self.mlp_shared(resized_latent(latent, f))
        return self.mlp_gamma(shared) * f + self.mlp_beta(shared)


# -- ablation study --------------------------------------------------------------------------------


class Concatenation(Recomputable):
    """Latent and features concatenated, reduced to the features' channels; then a residual block.

    Table 4, "w/ concat injection". The paper gives no sizes but asks for the cost of modulation;
    3x3 convolutions with `hidden` channels inside the block come close to it.
    """

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(2 * channels, channels, 3, padding=1)
        self.residual = EncoderResidualBlock(
            nn.Conv2d(channels, hidden, 3), nn.Conv2d(hidden, channels, 3)
        )

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        """Return features from features (N, C, H, W) and a latent of C channels and any size."""
        return self.residual(self.reduce(torch.cat([f, resized_latent(latent, f)], 1)))


class Unchanged(nn.Module):
    """No injection at this scale (Table 4, "injection w/o multi-scale")."""

    def forward(self, f: Tensor, latent: Tensor) -> Tensor:
        """Return the features unchanged."""
        return f
