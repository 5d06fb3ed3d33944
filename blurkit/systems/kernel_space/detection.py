"""Building the networks of the blur kernel space and StyleGANs from state-dict keys and shapes."""

from __future__ import annotations

import re

from blurkit.systems.kernel_space.codes import BlurCodes
from blurkit.systems.kernel_space.light import LightKernelSpace
from blurkit.systems.kernel_space.networks import KernelSpace
from blurkit.systems.kernel_space.stylegan import StyleGANMapping, StyleGANSynthesis
from blurkit.systems.kernel_space.stylegan2 import StyleGAN2
from blurkit.systems.system import Shapes


def kernel_space(shapes: Shapes) -> KernelSpace:
    """Return a KernelSpace whose state dict has these shapes."""

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


def blur_codes(shapes: Shapes) -> BlurCodes:
    """Return BlurCodes whose state dict has these shapes."""
    count, code, *_ = shapes["codes"]
    return BlurCodes(count, code)


def style_mapping(shapes: Shapes) -> StyleGANMapping:
    """Return a StyleGANMapping whose state dict has these shapes."""
    depth = len(shapes.numbers(r"dense(\d+)\.weight"))
    return StyleGANMapping(shapes["dense0.weight"][1], depth)


def style_synthesis(shapes: Shapes) -> StyleGANSynthesis:
    """Return a StyleGANSynthesis whose state dict has these shapes."""
    widths = [shapes["blocks.4x4.const"][1]]
    resolution = max(shapes.numbers(r"blocks\.(\d+)x\1\..+"))
    while (side := 4 << len(widths)) <= resolution:
        widths.append(shapes[f"blocks.{side}x{side}.conv0_up.weight"][0])
    return StyleGANSynthesis(widths, shapes["blocks.4x4.epi1.style_mod.lin.weight"][1])


def stylegan2(shapes: Shapes) -> StyleGAN2:
    """Return a StyleGAN2 whose state dict has these shapes."""
    larger = max(shapes.numbers(r"to_rgbs\.(\d+)\..+"), default=-1) + 1
    depth = len(shapes.numbers(r"style\.(\d+)\.weight"))
    widths = [
        shapes["input.input"][1],
        *(shapes[f"convs.{2 * i}.conv.weight"][1] for i in range(larger)),
    ]
    return StyleGAN2(widths, shapes["conv1.conv.modulation.weight"][1], depth)


def light_kernel_space(shapes: Shapes) -> LightKernelSpace:
    """Return a LightKernelSpace whose state dict has these shapes."""
    width, code = shapes["scaled.0.scale.weight"][:2]
    values = shapes["spectral_encoder.look.12.weight"][0]
    blocks = sum(re.fullmatch(r"scaled\.\d+\.conv1\.weight", key) is not None for key in shapes)
    return LightKernelSpace(width, code, blocks, variational=values == 2 * code)
