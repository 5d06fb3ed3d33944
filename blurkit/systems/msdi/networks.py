"""MSDI-Net: U-Nets that restore or blur an image, conditioned on latents of a degradation map.

"Learning Degradation Representations for Image Deblurring", ECCV 2022. The released code differs
from the paper. The defaults here are the released networks with their keys; each reading of the
paper is an option, as is each of its ablations (`injection`, Table 4). Two options are ours:
`unshuffle=2` turns blocks of 2 x 2 pixels into channels, so that the U-Nets run at half size, see
twice as far and cost a quarter; `latent_width` allows latents of another width than the network's.
`latents` are `PriorUpsampling`'s list, full size first; a latent that differs in size from its skip
connection is resized (nearest). Images are RGB in [0, 1]; outputs are not clamped.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import InputShapes, Shape, SizeRequirement
from blurkit.nn.blocks import conv, leaky, spectral_instance_conv
from blurkit.options import Protocol
from blurkit.systems.msdi import unet
from blurkit.systems.msdi.encoder import ENCODER_SIZE, DegradationEncoder, PriorUpsampling
from blurkit.systems.system import Shapes

STEERING = ("encoder", "latents")
"""The roles of the networks that condition a generator."""

STEERING_KEYS = ("net_prior.", "prior_upsampling.")
"""Key prefixes of the encoder and its upsampling inside an `MSDINet`."""

MODULATION_KEYS = ("ad1_list.", "ad2_list.")
"""Key prefixes of the modulated skip connections."""


class Generator(nn.Module):
    """The base of both generators; `options` are those with an effect for their injection."""

    protocol: Protocol = "slices"  # how its paper measured it
    last: nn.Conv2d

    def __init__(
        self,
        width: int = 64,
        hidden: int = 128,
        modulation: unet.ModulationKind = "official",
        inject_bottleneck: bool = False,
        injection: unet.Injection = "multi-scale",
        unshuffle: int = 1,
        latent_width: int | None = None,
    ) -> None:
        super().__init__()
        latent_width = latent_width or width
        at_skips = injection not in ("input", "none")
        options: dict[str, Any] = {"width": width, "injection": injection, "unshuffle": unshuffle}
        if at_skips:
            options["hidden"] = hidden
        if injection in ("multi-scale", "lowest"):
            options["modulation"] = modulation
        options["inject_bottleneck"] = inject_bottleneck and at_skips
        self.options = options | {"latent_width": latent_width}
        self.size = SizeRequirement(minimum=32 * unshuffle, multiple=16 * unshuffle)
        self.channels = 3 * unshuffle**2
        self.fold, self.unfold = nn.PixelUnshuffle(unshuffle), nn.PixelShuffle(unshuffle)
        self._injections = partial(
            unet.injections, width, hidden, modulation, inject_bottleneck, latent_width
        )

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> Generator:
        return cls(**_generator_options(shapes))

    def input_shapes(self, height: int, width: int) -> InputShapes:
        scale, scales = self.options["latent_width"], 4 + self.options["inject_bottleneck"]
        latents: list[Shape] = [
            (1, scale << n, ENCODER_SIZE >> n, ENCODER_SIZE >> n) for n in range(scales)
        ]
        return [(1, 3, height, width), latents]


class JointGenerator(Generator):
    """One U-Net with modulated skip connections: the released joint stage's G_r and G_d."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        width, injection = self.options["width"], self.options["injection"]
        self.down_path_1 = unet.down_path(width, pointwise=False)
        self.conv_01 = unet.entrance(self.channels, width, injection)
        self.conv_02 = conv(3, width)  # in the released state dict, never run
        self.ad1_list = self._injections(injection, see_features=False)
        self.up_path_1 = unet.up_path(width, pointwise=False)
        self.last = conv(width, self.channels)

    def forward(self, image: Tensor, latents: list[Tensor] | None = None) -> Tensor:
        """Return `image` reblurred (Eq. 3) or deblurred (Eq. 5), both (N, 3, H, W)."""
        latents = latents or []
        entered = unet.enter(self.conv_01, self.fold(image), latents)
        skips, f = unet.encode(self.down_path_1, entered)
        decoded = unet.decode(self.up_path_1, skips, f, latents, self.ad1_list)
        return self.unfold(self.last(decoded[0])) + image


class StackedGenerator(Generator):
    """Two U-Nets, stacked as in HINet, with modulated skip connections.

    In the released network, only the first one is modulated; in the paper, both are
    (`inject_stages="both"`). `inject_bottleneck` adds the paper's fifth scale, and
    `modulation="paper"` is its Eq. 9. With `injection="none"`, an image is restored without any
    latents. `prior` are modules to register where the released state dict has those of `MSDINet`.
    """

    def __init__(
        self,
        *arguments: Any,
        inject_stages: Literal["first", "both"] = "first",
        prior: Mapping[str, nn.Module] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*arguments, **options)
        width, injection = self.options["width"], self.options["injection"]
        if injection != "none":
            self.options["inject_stages"] = inject_stages
        second: unet.Injection = injection if inject_stages == "both" else "none"
        self.down_path_1 = unet.down_path(width, pointwise=True)
        self.down_path_2 = unet.down_path(width, pointwise=True, cross_stage=True)
        self.conv_01 = unet.entrance(self.channels, width, injection)
        self.conv_02 = unet.entrance(self.channels, width, second)
        for name, module in (prior or {}).items():
            self.add_module(name, module)
        self.ad1_list = self._injections(injection, see_features=True)
        self.ad2_list = self._injections(second, see_features=True)
        self.up_path_1, self.up_path_2 = (unet.up_path(width, pointwise=True) for _ in range(2))
        skips = [unet.skip_convs(width) for _ in range(6)]
        self.skip_conv_1, self.skip_conv_2, self.skip_conv_3 = skips[:3]
        self.skip_conv_4, self.skip_conv_5, self.skip_conv_6 = skips[3:]
        self.sam12 = unet.SupervisedAttention(width, self.channels)
        self.cat12 = conv(2 * width, width, 1)
        self.last = conv(width, self.channels)

    def forward(self, image: Tensor, latents: list[Tensor] | None = None) -> list[Tensor]:
        """Return both stages' images [out_1, out_2], each (N, 3, H, W); out_2 is the result."""
        latents = latents or []
        folded = self.fold(image)
        skips, f = unet.encode(self.down_path_1, unet.enter(self.conv_01, folded, latents))
        before, after = [self.skip_conv_1], [self.skip_conv_3]
        decoded = unet.decode(self.up_path_1, skips, f, latents, self.ad1_list, before, after)
        attended, first = self.sam12(decoded[0], folded)
        f = self.cat12(torch.cat([unet.enter(self.conv_02, folded, latents), attended], 1))
        skips, f = unet.encode(self.down_path_2, f, zip(skips, decoded, strict=True))
        before, after = [self.skip_conv_2], [self.skip_conv_4, self.skip_conv_5, self.skip_conv_6]
        decoded = unet.decode(self.up_path_2, skips, f, latents, self.ad2_list, before, after)
        return [self.unfold(first), self.unfold(self.last(decoded[0])) + image]


class MSDINet(StackedGenerator):
    """The deblurring network: a `StackedGenerator` conditioned on its input's degradation map.

    Encoder and upsampling are trained in the joint stage and frozen here (Section 3.2); call
    `requires_grad_` on them to continue their training. `options` are `StackedGenerator`'s.
    """

    prior_upsampling: PriorUpsampling
    net_prior: DegradationEncoder

    def __init__(
        self, encoder: DegradationEncoder, prior_upsampling: PriorUpsampling, **options: Any
    ) -> None:
        prior = {"prior_upsampling": prior_upsampling, "net_prior": encoder}
        super().__init__(**options, prior=prior)
        self.own_options = self.options
        self.options = {**encoder.options, **self.options}
        encoder.requires_grad_(False)
        prior_upsampling.requires_grad_(False)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> MSDINet:
        return cls(*encoding_parts(shapes), **_generator_options(shapes))

    @property
    def arguments(self) -> dict[str, Any]:
        steering = {"encoder": self.net_prior, "prior_upsampling": self.prior_upsampling}
        return {**steering, **self.own_options}

    def input_shapes(self, height: int, width: int) -> InputShapes:
        return [(1, 3, height, width)]

    def forward(self, image: Tensor, latents: list[Tensor] | None = None) -> list[Tensor]:
        """Return both stages' images as `StackedGenerator` does, by default from own latents."""
        if latents is None:
            latents = steering_latents(self.prior_upsampling, self.net_prior(image), self)
        return super().forward(image, latents)


class JointModel(nn.Module):
    """Joint reblurring and deblurring (Section 3.1): one encoder, two generators.

    Each generator is a `JointGenerator` (released) or a `StackedGenerator` (paper). Without an
    `inverse_generator` it only deblurs (Table 4, "w/o reblurring").
    """

    def __init__(
        self,
        encoder: DegradationEncoder,
        prior_upsampling: PriorUpsampling,
        inverse_generator: Generator | None,
        generator: Generator,
    ) -> None:
        super().__init__()
        self.options = {**encoder.options, **generator.options}
        self.size = generator.size
        self.prior_upsampling = prior_upsampling
        self.net_prior = encoder
        self.inverse_generator = inverse_generator
        self.generator = generator

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> JointModel:
        inverse, forward = (shapes.under(f"{name}.") for name in ("inverse_generator", "generator"))
        return cls(*encoding_parts(shapes), _generator(inverse), _generator(forward))

    @property
    def arguments(self) -> dict[str, nn.Module | None]:
        steering = {"encoder": self.net_prior, "prior_upsampling": self.prior_upsampling}
        generators = {"inverse_generator": self.inverse_generator, "generator": self.generator}
        return {**steering, **generators}

    def roles(self) -> dict[str, nn.Module]:
        """Return its networks by their role in a checkpoint."""
        roles: dict[str, nn.Module] = {"encoder": self.net_prior, "latents": self.prior_upsampling}
        if self.inverse_generator is not None:
            roles["reblur"] = self.inverse_generator
        return roles | {"deblur": self.generator}

    def latents_of(self, z: Tensor) -> list[Tensor]:
        """Return the latents of E's maps `z`, as both generators take them."""
        generators = [g for g in (self.inverse_generator, self.generator) if g is not None]
        return steering_latents(self.prior_upsampling, z, *generators)

    def deblur(self, blur: Tensor, latents: list[Tensor]) -> Tensor:
        """Return `blur` (N, 3, H, W) without the blur that `latents` describe."""
        return images_of(self.generator(blur, latents))[-1]

    def reblur(self, sharp: Tensor, latents: list[Tensor]) -> Tensor:
        """Return `sharp` (N, 3, H, W) with the blur that `latents` describe."""
        assert self.inverse_generator is not None
        return images_of(self.inverse_generator(sharp, latents))[-1]

    def forward(self, blur: Tensor, sharp: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (deblurred, reblurred or None) from `blur` and `sharp`, all (N, 3, H, W)."""
        latents = self.latents_of(self.net_prior(blur))
        reblurred = self.reblur(sharp, latents) if self.inverse_generator else None
        return self.deblur(blur, latents), reblurred


def steering_latents(
    prior_upsampling: PriorUpsampling, z: Tensor, *generators: Generator
) -> list[Tensor]:
    """Return the latents of a degradation map, as `generators` take them.

    `z` is E's map; the latents are (N, width * 2**n, 256 / 2**n, 256 / 2**n), full size first:
    four, and a fifth if any generator is conditioned at its bottleneck.
    """
    bottleneck = any(generator.options["inject_bottleneck"] for generator in generators)
    return prior_upsampling(z, bottleneck=bottleneck)


def images_of(output: Tensor | list[Tensor]) -> list[Tensor]:
    """Return the image of each U-Net of a generator, the result last."""
    return output if isinstance(output, list) else [output]


def encoding_parts(shapes: Shapes) -> tuple[DegradationEncoder, PriorUpsampling]:
    """Return the encoder and the prior upsampling of a network with these shapes."""
    encoder = DegradationEncoder.from_shapes(shapes.under("net_prior."))
    return encoder, PriorUpsampling.from_shapes(shapes.under("prior_upsampling."))


def _generator(shapes: Shapes) -> Generator:
    return (StackedGenerator if shapes.has("sam12.") else JointGenerator).from_shapes(shapes)


def _generator_options(shapes: Shapes) -> dict[str, Any]:
    width, in_channels = shapes["conv_01.weight"][:2]
    out_channels = shapes["last.weight"][0]
    options: dict[str, Any] = {"width": width, "unshuffle": math.isqrt(out_channels // 3)}
    if shapes.has("sam12."):
        both = shapes.has("ad2_list.") or shapes["conv_02.weight"][1] > out_channels
        options["inject_stages"] = "both" if both else "first"
    if not shapes.has("ad1_list."):
        return options | {"injection": "input" if in_channels > out_channels else "none"}
    bottleneck = options["inject_bottleneck"] = shapes.has(f"ad1_list.{unet.UNET_SCALES - 1}.")
    if shapes.has("ad1_list.0.reduce."):
        hidden = shapes["ad1_list.0.residual.conv_block.1.weight"][0]
        return options | {"injection": "concat", "hidden": hidden}
    # The deepest block, the only one with `injection="lowest"`.
    level = unet.UNET_SCALES - 2 + bottleneck
    last = f"ad1_list.{level}."
    paper = shapes.has(f"{last}mlp_gamma.")
    gamma = "mlp_gamma.weight" if paper else "norm_0.mlp_gamma.weight"
    if paper:
        options["latent_width"] = shapes[last + "mlp_shared.0.weight"][1] // 2**level
    return options | {
        "injection": "multi-scale" if shapes.has("ad1_list.0.") else "lowest",
        "hidden": shapes[last + gamma][1],
        "modulation": "paper" if paper else "official",
    }


# ---- Discriminator -------------------------------------------------------------------------------


class PatchDiscriminator(nn.Module):
    """Five 4x4 convolutions that judge overlapping patches of an image."""

    def __init__(self, width: int, in_channels: int) -> None:
        super().__init__()
        self.model0 = nn.Sequential(nn.Conv2d(in_channels, width, 4, stride=2, padding=2), leaky())
        self.model1 = _layer(width, 2 * width, stride=2)
        self.model2 = _layer(2 * width, 4 * width, stride=2)
        self.model3 = _layer(4 * width, 8 * width, stride=1)
        self.model4 = nn.Sequential(nn.Conv2d(8 * width, 1, 4, padding=2))

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return four feature maps of `x` (N, in_channels, H, W) and, last, the patch scores."""
        outputs = []
        for layer in self.children():
            x = layer(x)
            outputs.append(x)
        return outputs


def _layer(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    conv = spectral_instance_conv(in_channels, out_channels, 4, stride=stride, padding=2)
    return nn.Sequential(conv, leaky())


class MultiscaleDiscriminator(nn.Module):
    """MSDI-Net's D: one patch discriminator at full size, one at half size (as in pix2pixHD)."""

    def __init__(self, width: int = 64, in_channels: int = 6) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"width": width, "in_channels": in_channels}
        self.discriminator_0 = PatchDiscriminator(width, in_channels)
        self.discriminator_1 = PatchDiscriminator(width, in_channels)

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> MultiscaleDiscriminator:
        width, in_channels = shapes["discriminator_0.model0.0.weight"][:2]
        return cls(width, in_channels)

    def input_shapes(self, height: int, width: int) -> InputShapes:
        return [(1, self.options["in_channels"], height, width)]

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """Return per scale four feature maps and, last, the patch scores (N, 1, h, w), unbounded.

        `x` (N, in_channels, H, W) has the channels of the sharp and of the (re)blurred image.
        """
        half = F.avg_pool2d(x, 3, stride=2, padding=1, count_include_pad=False)
        return [self.discriminator_0(x), self.discriminator_1(half)]
