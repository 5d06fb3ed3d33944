"""Every known network: how to know its state dict, and how to build it from keys and shapes."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from blurkit.errors import BlurkitError
from blurkit.systems.dbgan.discriminators import (
    SpectralVGGDiscriminator,
    VGGDiscriminator,
    judged_crop,
)
from blurkit.systems.dbgan.networks import BGAN, DBGAN
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import KernelSpace
from blurkit.systems.kernel_space.stylegan import StyleGANMapping, StyleGANSynthesis
from blurkit.systems.kernel_space.stylegan2 import StyleGAN2
from blurkit.systems.msdi.blocks import SCALES
from blurkit.systems.msdi.discriminator import MultiscaleDiscriminator
from blurkit.systems.msdi.networks import (
    BlurEncoder,
    DegradationEncoder,
    JointGenerator,
    JointModel,
    MSDINet,
    PriorUpsampling,
    StackedGenerator,
)
from blurkit.systems.msfs.networks import MSFSNet


class Shapes(dict[str, tuple[int, ...]]):
    """Every key of a state dict, or of the part under `prefix`, with its tensor's shape."""

    prefix = ""

    def __missing__(self, key: str) -> tuple[int, ...]:
        raise BlurkitError(f"the state dict lacks {self.prefix + key!r}")

    def under(self, prefix: str) -> Shapes:
        """The part whose keys begin with `prefix`, without it."""
        part = Shapes({k.removeprefix(prefix): v for k, v in self.items() if k.startswith(prefix)})
        part.prefix = self.prefix + prefix
        return part

    def has(self, prefix: str) -> bool:
        """Whether any key begins with `prefix`."""
        return any(key.startswith(prefix) for key in self)

    def numbers(self, pattern: str) -> list[int]:
        """The number that is the one group of `pattern`, of every key that is of it, in order."""
        return sorted(int(match[1]) for key in self if (match := re.fullmatch(pattern, key)))


@dataclass(frozen=True)
class Network:
    """One line of the table: a network's name, how to know it, and how to build it.

    Keys that begin with one of `unused` may be there beyond the network's own; those that begin
    with one of `drawn` may be missing and then hold noise, the same every time.
    """

    name: str
    matches: Callable[[Shapes], bool]
    build: Callable[[Shapes], nn.Module]
    unused: tuple[str, ...] = ()
    drawn: tuple[str, ...] = ()


# -- MSDI-Net --------------------------------------------------------------------------------------


def _encoder(shapes: Shapes) -> DegradationEncoder:
    width, in_channels = shapes["layer1.0.weight_orig"][:2]
    return DegradationEncoder(
        version=2 if shapes.has("out.1.") or shapes.has("out_1d.1.") else 1,
        width=width,
        layers="paper" if "layer1.0.bias" in shapes else "official",
        in_channels=in_channels,
        code="1d" if shapes.has("out_1d.") else "2d",
    )


def _blur_encoder(shapes: Shapes) -> BlurEncoder:
    width, in_channels = shapes["layer1.0.weight_orig"][:2]
    return BlurEncoder(width, in_channels)


def _prior_upsampling(shapes: Shapes) -> PriorUpsampling:
    return PriorUpsampling(
        version=1 if shapes.has("conv_latent_init.") else 2,
        width=shapes["conv_latent_up6.conv_block.5.weight_orig"][0],
    )


def _generator_options(shapes: Shapes) -> dict[str, Any]:
    width, entering = shapes["conv_01.weight"][:2]
    leaving = shapes["last.weight"][0]
    options: dict[str, Any] = {"width": width, "unshuffle": math.isqrt(leaving // 3)}
    if not shapes.has("ad1_list."):
        return options | {"injection": "input" if entering > leaving else "none"}
    bottleneck = options["inject_bottleneck"] = shapes.has(f"ad1_list.{SCALES - 1}.")
    if shapes.has("ad1_list.0.reduce."):
        hidden = shapes["ad1_list.0.residual.conv_block.1.weight"][0]
        return options | {"injection": "concat", "hidden": hidden}
    # The deepest one, which alone is there with `injection="lowest"`.
    level = SCALES - 1 if bottleneck else SCALES - 2
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


def _stacked_options(shapes: Shapes) -> dict[str, Any]:
    options = _generator_options(shapes)
    both = shapes.has("ad2_list.") or shapes["conv_02.weight"][1] > shapes["last.weight"][0]
    return options | {"inject_stages": "both" if both else "first"}


def _generator(shapes: Shapes) -> JointGenerator | StackedGenerator:
    if shapes.has("sam12."):
        return StackedGenerator(**_stacked_options(shapes))
    return JointGenerator(**_generator_options(shapes))


def _msdi_net(shapes: Shapes) -> MSDINet:
    return MSDINet(
        _encoder(shapes.under("net_prior.")),
        _prior_upsampling(shapes.under("prior_upsampling.")),
        **_stacked_options(shapes),
    )


def _joint_model(shapes: Shapes) -> JointModel:
    return JointModel(
        _encoder(shapes.under("net_prior.")),
        _prior_upsampling(shapes.under("prior_upsampling.")),
        _generator(shapes.under("inverse_generator.")),
        _generator(shapes.under("generator.")),
    )


def _discriminator(shapes: Shapes) -> MultiscaleDiscriminator:
    width, in_channels = shapes["discriminator_0.model0.0.weight"][:2]
    return MultiscaleDiscriminator(width, in_channels)


# -- the blur kernel space -------------------------------------------------------------------------


def _kernel_space(shapes: Shapes) -> KernelSpace:
    def blocks(pattern: str) -> int:
        return len(shapes.numbers(pattern))

    width = shapes["feature_extractor.0.weight"][0]
    bottleneck = shapes["adapter.model." + 4 * "submodule." + "up.1.weight"]
    code = bottleneck[0] - bottleneck[1]
    return KernelSpace(
        width,
        code,
        front_blocks=blocks(r"feature_extractor\.(\d+)\.conv1\.weight"),
        back_blocks=blocks(r"recon_trunk\.(\d+)\.conv1\.weight"),
        code_blocks=blocks(r"kernel_extractor\.model\.(\d+)\.conv_block\.1\.weight"),
        variational=shapes["kernel_extractor.model.16.weight"][0] == 2 * code,
    )


# -- StyleGAN --------------------------------------------------------------------------------------


def _style_mapping(shapes: Shapes) -> StyleGANMapping:
    depth = len(shapes.numbers(r"dense(\d+)\.weight"))
    return StyleGANMapping(shapes["dense0.weight"][1], depth)


def _style_synthesis(shapes: Shapes) -> StyleGANSynthesis:
    widths = [shapes["blocks.4x4.const"][1]]
    resolution = max(shapes.numbers(r"blocks\.(\d+)x\1\..+"))
    while (side := 4 << len(widths)) <= resolution:
        widths.append(shapes[f"blocks.{side}x{side}.conv0_up.weight"][0])
    return StyleGANSynthesis(widths, shapes["blocks.4x4.epi1.style_mod.lin.weight"][1])


def _stylegan2(shapes: Shapes) -> StyleGAN2:
    larger = max(shapes.numbers(r"to_rgbs\.(\d+)\..+"), default=-1) + 1
    depth = len(shapes.numbers(r"style\.(\d+)\.weight"))
    widths = [
        shapes["input.input"][1],
        *(shapes[f"convs.{2 * i}.conv.weight"][1] for i in range(larger)),
    ]
    return StyleGAN2(widths, shapes["conv1.conv.modulation.weight"][1], depth)


def _light_kernel_space(shapes: Shapes) -> LightKernelSpace:
    width, code = shapes["scaled.0.scale.weight"][:2]
    values = shapes["spectral_encoder.look.12.weight"][0]
    blocks = sum(re.fullmatch(r"scaled\.\d+\.conv1\.weight", key) is not None for key in shapes)
    return LightKernelSpace(width, code, blocks, variational=values == 2 * code)


# -- MSFS-Net --------------------------------------------------------------------------------------


def _msfs_net(shapes: Shapes) -> MSFSNet:
    return MSFSNet(
        width=shapes["conv.main.0.weight"][0],
        encoder_blocks=len(shapes.numbers(r"Encoder\.2\.layers\.(\d+)\.main\.0\.main\.0\.weight")),
        latent_blocks=len(shapes.numbers(r"latent\.(\d+)\.body\.0\.weight")),
        decoder_blocks=len(shapes.numbers(r"Decoder\.0\.layers\.(\d+)\.body\.0\.weight")),
        layers="official" if shapes["tail_.weight"][2] == 1 else "paper",
        frequency_separation=shapes.has("changeChannel_."),
        cross_scale=shapes.has("mix1."),
    )


# -- BGAN and DBGAN --------------------------------------------------------------------------------


def _bgan(shapes: Shapes) -> BGAN:
    width, entering = shapes["head.weight"][:2]
    return BGAN(width, len(shapes.numbers(r"body\.(\d+)\.convs\.0\.weight")), noise=entering - 3)


def _dbgan(shapes: Shapes) -> DBGAN:
    return DBGAN(
        width=shapes["model.0.weight"][0],
        blocks=len(shapes.numbers(r"model\.1\.sub1\.(\d+)\.RDB1\.conv1\.0\.weight")),
        growth=shapes["model.1.sub1.0.RDB1.conv1.0.weight"][0],
    )


def _vgg_discriminator(shapes: Shapes) -> VGGDiscriminator:
    # Convolutions alone have weights of four dimensions, batch norms of one.
    convolutions = sum(key.startswith("features.") and len(s) == 4 for key, s in shapes.items())
    width, values = shapes["features.0.weight"][0], shapes["classifier.0.weight"][1]
    return VGGDiscriminator(judged_crop(convolutions, width, values), width)


def _spectral_discriminator(shapes: Shapes) -> SpectralVGGDiscriminator:
    convolutions = len(shapes.numbers(r"conv(\d+)\.weight_orig"))
    width, values = shapes["conv0.weight_orig"][0], shapes["linear0.weight_orig"][1]
    return SpectralVGGDiscriminator(judged_crop(convolutions, width, values), width)


# -- deconvolution ---------------------------------------------------------------------------------


def _deconvolver(shapes: Shapes) -> Deconvolver:
    levels = 1 + len(shapes.numbers(r"one\.network\.down\.(\d+)\.weight"))
    entering = [f"one.network.down.{level}.weight" for level in range(levels - 1)]
    widths = [shapes[key][1] for key in entering] + [shapes[entering[-1]][0]]
    return Deconvolver(widths)


# -- the table -------------------------------------------------------------------------------------

# Layers that an older release of the encoder saved but never ran.
_OLD_ENCODER = ("fc_0.", "fc_1.", "layer8_1.", "layer8_2.", "layer9_1.", "layer9_2.")

NETWORKS = [
    Network("MSDI-Net joint model", lambda s: s.has("inverse_generator."), _joint_model),
    Network("MSDI-Net", lambda s: s.has("net_prior.") and s.has("sam12."), _msdi_net),
    Network(
        "MSDI-Net generator",
        lambda s: s.has("down_path_1.") and s.has("conv_01."),
        _generator,
    ),
    Network(
        "MSDI-Net degradation encoder",
        lambda s: s.has("layer1.0.weight_orig") and s.has("res_"),
        _encoder,
        unused=_OLD_ENCODER,
    ),
    Network(
        "MSDI-Net blur-aware encoder",
        lambda s: s.has("layer1.0.weight_orig") and s.has("conv_7x7."),
        _blur_encoder,
    ),
    Network("MSDI-Net prior upsampling", lambda s: s.has("conv_latent_up6."), _prior_upsampling),
    Network("MSDI-Net discriminator", lambda s: s.has("discriminator_0.model0."), _discriminator),
    Network("blur kernel space network", lambda s: s.has("feature_extractor.0."), _kernel_space),
    Network(
        "light blur kernel space network", lambda s: s.has("spectral_encoder."), _light_kernel_space
    ),
    Network("StyleGAN mapping", lambda s: s.has("dense0."), _style_mapping),
    Network("StyleGAN synthesis", lambda s: s.has("blocks.4x4."), _style_synthesis),
    Network(
        "StyleGAN2 generator",
        lambda s: s.has("to_rgb1.") and s.has("conv1.conv.modulation."),
        _stylegan2,
        drawn=("noises.",),  # the released code does not insist on them either
    ),
    Network("MSFS-Net", lambda s: s.has("conv.main.0.") and s.has("latent."), _msfs_net),
    Network("DBGAN generator", lambda s: s.has("model.1.sub1.0.RDB1."), _dbgan),
    Network("BGAN generator", lambda s: "head.weight" in s and s.has("tail.1."), _bgan),
    Network(
        "deconvolution network",
        lambda s: "strengths" in s and s.has("one.network.") and s.has("two.network."),
        _deconvolver,
    ),
    Network(
        "VGG-style discriminator",
        lambda s: s.has("features.3.running_mean") and s.has("classifier.2."),
        _vgg_discriminator,
    ),
    Network(
        "spectral VGG-style discriminator",
        lambda s: s.has("conv0.weight_orig") and s.has("linear0.weight_orig"),
        _spectral_discriminator,
    ),
]
"""Every network a state dict can be of; the first that matches is taken."""
