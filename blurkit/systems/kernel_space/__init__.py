"""The encoded blur kernel space (Tran et al., CVPR 2021), with its StyleGAN priors."""

from __future__ import annotations

from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "kernel-space",
    "encoded blur kernel space",
    architectures=(
        Architecture(
            "blur kernel space network",
            "kernel_space",
            "kernel_space",
            ("feature_extractor.0.",),
            ("networks.KernelSpace",),
        ),
        Architecture(
            "light blur kernel space network",
            "kernel_space",
            "light_kernel_space",
            ("spectral_encoder.",),
            ("light.LightKernelSpace",),
        ),
        Architecture(
            "blur codes", "codes", "blur_codes", ("codes", "lengths"), ("codes.BlurCodes",)
        ),
        Architecture(
            "StyleGAN mapping",
            "mapping",
            "style_mapping",
            ("dense0.",),
            ("stylegan.StyleGANMapping",),
        ),
        Architecture(
            "StyleGAN synthesis",
            "synthesis",
            "style_synthesis",
            ("blocks.4x4.",),
            ("stylegan.StyleGANSynthesis",),
        ),
        Architecture(
            "StyleGAN2 generator",
            "generator",
            "stylegan2",
            ("to_rgb1.", "conv1.conv.modulation."),
            ("stylegan2.StyleGAN2",),
            drawn=("noises.",),
        ),
    ),
    uses={
        "reblurring": "a blur kernel space",
        "random": "a variational blur kernel space, as written by train-reblur "
        "--system kernel-space --variational",
        "coding": "a blur kernel space, as written by train-reblur --system kernel-space",
        "search": "a blur kernel space, F and G, or --operator convolution",
    },
    search="search_options.BlindOptions",
    weights="kernel_space.pt",
    trainings=(
        Training(
            "kernel-space",
            "train-reblur",
            "F and G of the encoded blur kernel space: F blurs by a code, G finds the code.",
            "KernelSpaceConfiguration",
            "plan",
        ),
    ),
)
