"""Build MSDI-Net's networks from the keys and shapes of a state dict."""

from __future__ import annotations

import math
from typing import Any

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
from blurkit.systems.msdi.unet import UNET_SCALES
from blurkit.systems.system import Shapes


def encoder(shapes: Shapes) -> DegradationEncoder:
    """Return a DegradationEncoder whose state dict has these shapes."""
    width, in_channels = shapes["layer1.0.weight_orig"][:2]
    return DegradationEncoder(
        version=2 if shapes.has("out.1.") or shapes.has("out_1d.1.") else 1,
        width=width,
        layers="paper" if "layer1.0.bias" in shapes else "official",
        in_channels=in_channels,
        code="1d" if shapes.has("out_1d.") else "2d",
    )


def blur_encoder(shapes: Shapes) -> BlurEncoder:
    """Return a BlurEncoder whose state dict has these shapes."""
    width, in_channels = shapes["layer1.0.weight_orig"][:2]
    return BlurEncoder(width, in_channels)


def prior_upsampling(shapes: Shapes) -> PriorUpsampling:
    """Return a PriorUpsampling whose state dict has these shapes."""
    return PriorUpsampling(
        version=1 if shapes.has("conv_latent_init.") else 2,
        width=shapes["conv_latent_up6.conv_block.5.weight_orig"][0],
    )


def _generator_options(shapes: Shapes) -> dict[str, Any]:
    width, in_channels = shapes["conv_01.weight"][:2]
    out_channels = shapes["last.weight"][0]
    options: dict[str, Any] = {"width": width, "unshuffle": math.isqrt(out_channels // 3)}
    if not shapes.has("ad1_list."):
        return options | {"injection": "input" if in_channels > out_channels else "none"}
    bottleneck = options["inject_bottleneck"] = shapes.has(f"ad1_list.{UNET_SCALES - 1}.")
    if shapes.has("ad1_list.0.reduce."):
        hidden = shapes["ad1_list.0.residual.conv_block.1.weight"][0]
        return options | {"injection": "concat", "hidden": hidden}
    # The deepest block, the only one with `injection="lowest"`.
    level = UNET_SCALES - 1 if bottleneck else UNET_SCALES - 2
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


def generator(shapes: Shapes) -> JointGenerator | StackedGenerator:
    """Return a JointGenerator whose state dict has these shapes."""
    if shapes.has("sam12."):
        return StackedGenerator(**_stacked_options(shapes))
    return JointGenerator(**_generator_options(shapes))


def msdi_net(shapes: Shapes) -> MSDINet:
    """Return an MSDINet whose state dict has these shapes."""
    return MSDINet(
        encoder(shapes.under("net_prior.")),
        prior_upsampling(shapes.under("prior_upsampling.")),
        **_stacked_options(shapes),
    )


def joint_model(shapes: Shapes) -> JointModel:
    """Return a JointModel whose state dict has these shapes."""
    return JointModel(
        encoder(shapes.under("net_prior.")),
        prior_upsampling(shapes.under("prior_upsampling.")),
        generator(shapes.under("inverse_generator.")),
        generator(shapes.under("generator.")),
    )


def discriminator(shapes: Shapes) -> MultiscaleDiscriminator:
    """Return a MultiscaleDiscriminator whose state dict has these shapes."""
    width, in_channels = shapes["discriminator_0.model0.0.weight"][:2]
    return MultiscaleDiscriminator(width, in_channels)
