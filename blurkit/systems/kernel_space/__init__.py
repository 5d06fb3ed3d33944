"""The encoded blur kernel space (Tran et al., CVPR 2021), with its StyleGAN priors."""

from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "kernel-space",
    "encoded blur kernel space",
    architectures=(
        Architecture(
            "blur kernel space network",
            "kernel_space",
            "networks.KernelSpace",
            ("feature_extractor.0.",),
        ),
        Architecture(
            "light blur kernel space network",
            "kernel_space",
            "networks.LightKernelSpace",
            ("spectral_encoder.",),
        ),
        Architecture("blur codes", "codes", "networks.BlurCodes", ("codes", "lengths")),
        Architecture("StyleGAN mapping", "mapping", "stylegan.StyleGANMapping", ("dense0.",)),
        Architecture(
            "StyleGAN synthesis", "synthesis", "stylegan.StyleGANSynthesis", ("blocks.4x4.",)
        ),
        Architecture(
            "StyleGAN2 generator",
            "generator",
            "stylegan.StyleGAN2",
            ("to_rgb1.", "conv1.conv.modulation."),
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
    weights="kernel_space.pt",
    trainings=(
        Training(
            "kernel-space",
            "train-reblur",
            "F and G of the encoded blur kernel space: F blurs by a code, G finds the code.",
            "KernelSpaceConfiguration",
            "KernelSpaceRecipe",
        ),
    ),
)
