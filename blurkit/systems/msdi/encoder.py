"""MSDI-Net's degradation encoder E, and the upsampling of its map to latents.

"Learning Degradation Representations for Image Deblurring", ECCV 2022, and its supplement.
Version 1 is the paper's model, version 2 the lighter joint stage released later: a larger E
followed by fewer upsampling steps. Keys are those of the released checkpoints.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import InputShapes
from blurkit.errors import UsageError
from blurkit.nn.blocks import Recomputable, leaky, spectral_conv, spectral_instance_conv
from blurkit.systems.system import Shapes

Version = Literal[1, 2]
EncoderLayers = Literal["official", "paper"]
FeatureLayers = Literal["official", "all"]

ENCODER_SIZE = 256
"""Side in pixels to which E resizes every image, so that its map always has the same size."""


class _FirstLayers(nn.Module):
    """The layers of E down to 1/16 of the image size, common to all encoders."""

    options: dict[str, Any]

    def __init__(self, width: int, in_channels: int, layers: EncoderLayers) -> None:
        super().__init__()
        self.paper = layers == "paper"
        self.activation = leaky()
        self.layer1 = self._conv(in_channels, width, stride=2, padding=1)
        self.layer2 = self._conv(width, 2 * width, stride=2, padding=1)
        self.layer3 = self._conv(2 * width, 4 * width, stride=2, padding=1)
        self.layer4 = self._conv(4 * width, 8 * width, stride=2, padding=1)

    @property
    def arguments(self) -> dict[str, Any]:
        return {**self.options, "in_channels": self.layer1[0].in_channels}

    def _conv(
        self, in_channels: int, out_channels: int, norm: bool = True, **options: Any
    ) -> nn.Sequential:
        if self.paper or not norm:
            return nn.Sequential(spectral_conv(in_channels, out_channels, **options))
        return spectral_instance_conv(in_channels, out_channels, **options)

    def _plain_conv(self, channels: int, kernel: int, **options: Any) -> nn.Conv2d:
        if self.paper:
            return spectral_conv(channels, channels, kernel, **options)
        return nn.Conv2d(channels, channels, kernel, **options)

    def _add_conv_7x7(self, width: int) -> None:
        # Registered last, as in the released state dicts.
        self.conv_7x7 = self._plain_conv(width, 7, padding=3, padding_mode="reflect")

    def features(self, x: Tensor, layers: FeatureLayers = "official") -> list[Tensor]:
        """Return the five maps of the blur-aware loss, before their activation.

        They are of `layer1`, `conv_7x7`, `layer2`, `layer3`, `layer4`: `width` x 1, 1, 2, 4, 8
        channels at 1/2, 1/2, 1/4, 1/8, 1/16 of the size. `x` is (N, 3, H, W) in [0, 1], sides from
        32 pixels, not resized. Raises UsageError for `layers="all"`, which needs a complete E.
        """
        if layers == "all":
            raise UsageError("this encoder holds the first layers of E only, not all of them")
        maps = [self.layer1(x)]
        for layer in (self.conv_7x7, self.layer2, self.layer3, self.layer4):
            maps.append(layer(self.activation(maps[-1])))
        return maps


class BlurEncoder(_FirstLayers):
    """The part of E (version 1) that the official blur-aware loss uses; it has only `features`.

    `layer5`, `layer6` and `out` never run; they exist because the released state dict has them.
    """

    def __init__(self, width: int = 64, in_channels: int = 3) -> None:
        super().__init__(width, in_channels, "official")
        self.options = {"width": width}
        self.layer5 = self._conv(8 * width, 8 * width, stride=2, padding=1)
        self.layer6 = self._conv(8 * width, 8 * width, padding=1)
        self.out = self._conv(8 * width, 4 * width, padding=1, padding_mode="reflect")
        self._add_conv_7x7(width)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> BlurEncoder:
        width, in_channels = shapes["layer1.0.weight_orig"][:2]
        return cls(width, in_channels)


class EncoderResidualBlock(Recomputable):
    """Two 3x3 convolutions with reflection padding, added to their input, then LeakyReLU."""

    def __init__(self, first: nn.Conv2d, second: nn.Conv2d) -> None:
        super().__init__()
        pad = nn.ReflectionPad2d(1)
        self.conv_block = nn.Sequential(pad, first, leaky(), pad, second)
        self.activation = leaky()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(x + self.conv_block(x))


class DegradationEncoder(_FirstLayers):
    """E, which maps a blurry image to its degradation map (supplement, Table 1).

    `layers="official"` is the released network: InstanceNorm after every convolution except the 7x7
    one and those of the residual blocks, which have no spectral norm either. `layers="paper"`
    follows the supplement literally: spectral norm on all convolutions, reflection padding on all
    convolutions of stride 1, no InstanceNorm. Version 2, not the paper's, raises UsageError.

    `code="1d"` is the supplement's ablation: the spatial mean of the map, expanded to its size. The
    last layer, `out_1d`, then has no InstanceNorm, after which all means would be zero.
    """

    def __init__(
        self,
        version: Version = 1,
        width: int = 64,
        layers: EncoderLayers = "official",
        in_channels: int = 3,
        code: Literal["2d", "1d"] = "2d",
    ) -> None:
        if layers == "paper" and version != 1:
            raise UsageError("the paper describes version 1 of the degradation encoder only")
        super().__init__(width, in_channels, layers)
        self.version = version
        self.vector = code == "1d"
        self.options = {"version": version, "width": width, "layers": layers, "code": code}
        self.residuals = [f"res_{i}" for i in range(5 if version == 1 else 3)]
        inner = 8 * width * version
        self.layer5 = self._conv(8 * width, inner, stride=2, padding=1)
        if version == 1:
            padding_mode = "reflect" if self.paper else "zeros"
            self.layer6 = self._conv(inner, inner, padding=1, padding_mode=padding_mode)
        for name in self.residuals:
            first, second = self._plain_conv(inner, 3), self._plain_conv(inner, 3)
            self.add_module(name, EncoderResidualBlock(first, second))
        norm = not self.vector
        if version == 1:
            out = self._conv(inner, 4 * width, norm, padding=1, padding_mode="reflect")
        else:
            steps: list[nn.Module] = []
            for narrow, normed in ((inner, True), (2 * inner, True), (2 * inner, norm)):
                steps += [nn.ReflectionPad2d(1), self._conv(narrow, 2 * inner, normed), leaky()]
            out = nn.Sequential(*steps)
        self.out_name = "out_1d" if self.vector else "out"
        self.add_module(self.out_name, out)
        self._add_conv_7x7(width)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> DegradationEncoder:
        width, in_channels = shapes["layer1.0.weight_orig"][:2]
        return cls(
            version=2 if shapes.has("out.1.") or shapes.has("out_1d.1.") else 1,
            width=width,
            layers="paper" if "layer1.0.bias" in shapes else "official",
            in_channels=in_channels,
            code="1d" if shapes.has("out_1d.") else "2d",
        )

    def features(self, x: Tensor, layers: FeatureLayers = "official") -> list[Tensor]:
        """Return the five maps of the blur-aware loss or, with `layers="all"`, all layers' outputs.

        "all" adds `layer5`, `layer6` (version 1), the residual blocks and, last, E's map.
        `x` is (N, 3, H, W) in [0, 1] and is not resized; both sides are at least 32 pixels for
        "official" and 128 for "all", whose deepest map has 1/64 (version 1) of the size.
        """
        maps = super().features(x)
        if layers == "official":
            return maps
        maps.append(self.layer5(self.activation(maps[-1])))
        if self.version == 1:
            maps.append(self.layer6(self.activation(maps[-1])))
        for name in self.residuals:
            block = self.get_submodule(name)
            # Version 1 halves its map once more between the third and the fourth block.
            maps.append(block(F.avg_pool2d(maps[-1], 2) if name == "res_3" else maps[-1]))
        code = self.get_submodule(self.out_name)(maps[-1])
        maps.append(code.mean((2, 3), keepdim=True).expand_as(code) if self.vector else code)
        return maps

    def forward(self, x: Tensor) -> Tensor:
        """Return E(x) for `x` (N, 3, H, W) in [0, 1] of any size.

        It is (N, 4 * width, 4, 4), in version 2 (N, 32 * width, 8, 8); constant with a 1-D code.
        """
        if x.shape[-2:] != (ENCODER_SIZE, ENCODER_SIZE):
            x = F.interpolate(x, size=(ENCODER_SIZE, ENCODER_SIZE), mode="bilinear")
        return self.features(x, "all")[-1]


class UpBlock(Recomputable):
    """Convolution, nearest-neighbour upsampling by 2, convolution (Section 3.3)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(
            *(nn.ReflectionPad2d(1), spectral_conv(in_channels, out_channels), leaky()),
            nn.Upsample(scale_factor=2, mode="nearest"),
            *(nn.ReflectionPad2d(1), spectral_conv(out_channels, out_channels), leaky()),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_block(x)


class PriorUpsampling(nn.Module):
    """The chain that upsamples the degradation map E(y) to latents at the U-Net's scales."""

    def __init__(self, version: Version = 1, width: int = 64) -> None:
        super().__init__()
        self.version = version
        self.options: dict[str, Any] = {"version": version, "width": width}
        if version == 1:
            self.conv_latent_init = UpBlock(4 * width, 32 * width)
        for scale in range(2, 7):
            channels = width << (6 - scale)
            self.add_module(f"conv_latent_up{scale}", UpBlock(2 * channels, channels))

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> PriorUpsampling:
        return cls(
            version=1 if shapes.has("conv_latent_init.") else 2,
            width=shapes["conv_latent_up6.conv_block.5.weight_orig"][0],
        )

    def input_shapes(self, height: int, width: int) -> InputShapes:
        scale = self.options["width"]
        side, channels = (4, 4 * scale) if self.version == 1 else (8, 32 * scale)
        return [(1, channels, side, side)]

    def forward(self, z: Tensor, bottleneck: bool = False) -> list[Tensor]:
        """Return latents of sizes 256, 128, 64, 32 with `width` x 1, 2, 4, 8 channels.

        `z` is E's map. `bottleneck` adds the paper's fifth, of size 16 with 16 * width channels.
        """
        if self.version == 1:
            z = self.conv_latent_init(z)
        latents: list[Tensor] = []
        for scale in range(2, 7):
            z = self.get_submodule(f"conv_latent_up{scale}")(z)
            latents.insert(0, z)
        return latents if bottleneck else latents[:-1]
