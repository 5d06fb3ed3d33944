"""Octave convolution, and MSFS-Net's frequency separation module built from it (Section 3.3)."""

from __future__ import annotations

from typing import Literal, NamedTuple

from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.nn.blocks import Recomputable

Layers = Literal["paper", "official"]
"""The layers of the paper's text or those of the released code."""

LOW = 0.5
"""The fraction of channels that hold low frequencies, alpha in the paper."""


class Separated(NamedTuple):
    """Features of one scale: high frequencies, low ones at half the size, and both fused again."""

    high: Tensor
    low: Tensor
    fused: Tensor


class OctaveConv(nn.Module):
    """A convolution of features in two octaves (Chen et al., ICCV 2019; Eq. 1-2), without bias.

    `low_in` and `low_out` are the fractions of low channels before and after it; 0 means none.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, low_in: float, low_out: float
    ) -> None:
        super().__init__()
        from_low, to_low = int(low_in * in_channels), int(low_out * out_channels)
        from_high, to_high = in_channels - from_low, out_channels - to_low

        def conv(channels: int, to: int) -> nn.Conv2d | None:
            if not channels or not to:
                return None
            return nn.Conv2d(channels, to, kernel, padding=kernel // 2, bias=False)

        self.conv_l2l = conv(from_low, to_low)
        self.conv_l2h = conv(from_low, to_high)
        self.conv_h2l = conv(from_high, to_low)
        self.conv_h2h = nn.Conv2d(from_high, to_high, kernel, padding=kernel // 2, bias=False)

    def forward(self, high: Tensor, low: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return high and low frequencies from `high` (N, C, H, W) and `low`.

        Low frequencies have half the size, rounded down, or are None.
        """
        new_high, new_low = self.conv_h2h(high), None
        if low is not None and self.conv_l2h is not None:
            larger = F.interpolate(self.conv_l2h(low), scale_factor=2, mode="nearest")
            missing = [new_high.shape[i] - larger.shape[i] for i in (3, 2)]  # 1 where a side is odd
            new_high = new_high + F.pad(larger, (0, missing[0], 0, missing[1]))
        if self.conv_h2l is not None:
            new_low = self.conv_h2l(F.avg_pool2d(high, 2))
            if low is not None and self.conv_l2l is not None:
                new_low = new_low + self.conv_l2l(low)
        return new_high, new_low


class OctaveLayer(nn.Module):
    """An octave convolution; with the official layers, batch norm and ReLU follow on both parts."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        low_in: float,
        low_out: float,
        layers: Layers,
    ) -> None:
        super().__init__()
        self.conv = OctaveConv(in_channels, out_channels, kernel, low_in, low_out)
        low = int(low_out * out_channels)
        official = layers == "official"
        self.bn_h = nn.BatchNorm2d(out_channels - low) if official else None
        self.bn_l = nn.BatchNorm2d(low) if official and low else None

    def forward(self, high: Tensor, low: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Return high and low frequencies as `OctaveConv` does."""
        high, low = self.conv(high, low)
        if self.bn_h is not None:
            high = F.relu(self.bn_h(high))
        if self.bn_l is not None and low is not None:
            low = F.relu(self.bn_l(low))
        return high, low


class FrequencySeparation(Recomputable):
    """The FSM (Fig. 4b): three octave convolutions separate, update and fuse the frequencies.

    The input is added to the fused features: unchanged if the number of channels is the same
    (paper), else through a 1x1 convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, layers: Layers) -> None:
        super().__init__()
        self.oct1 = OctaveLayer(in_channels, in_channels, 1, 0, LOW, layers)
        self.oct2 = OctaveLayer(in_channels, in_channels, 3, LOW, LOW, layers)
        self.oct3 = OctaveLayer(in_channels, out_channels, 1, LOW, 0, layers)
        self.conv: nn.Module = nn.Conv2d(in_channels, out_channels, 1)
        if layers == "paper" and in_channels == out_channels:
            self.conv = nn.Identity()

    def forward(self, x: Tensor) -> Separated:
        """Return the frequencies after `oct2` and the output.

        `x` is (N, C, H, W) with sides of 2 or more.
        """
        high, low = self.oct2(*self.oct1(x))
        fused, _ = self.oct3(high, low)
        return Separated(high, low, self.conv(x) + fused)


class PlainConvolution(nn.Conv2d):
    """The 3x3 convolution that replaces the FSM in the ablation without it.

    It separates nothing: its output serves as high, low and fused features.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Separated:  # type: ignore[override]
        """Return features of the same size as `x` (N, C, H, W), three times."""
        features = super().forward(x)
        return Separated(features, features, features)
