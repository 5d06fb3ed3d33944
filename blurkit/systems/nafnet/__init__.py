"""NAFNet (Chen et al., "Simple baselines for image restoration", ECCV 2022)."""

from blurkit.systems.system import Architecture, System, Training

KEYS = ("intro.", "middle_blks.0.sca.1.", "middle_blks.0.conv2.weight")
"""KBNet has the other keys, but two convolutions in conv2."""

SYSTEM = System(
    "nafnet",
    "NAFNet",
    architectures=(
        Architecture(
            "NAFNet guided by a degradation encoder",
            "deblur",
            "networks.GuidedNAFNet",
            (*KEYS, "modulations."),
        ),
        Architecture("NAFNet", "deblur", "networks.NAFNet", KEYS),
    ),
    uses={"deblurring": "a NAFNet"},
    trainings=(
        Training(
            "nafnet",
            "train-deblur",
            "NAFNet, a U-Net without activation functions; --encoder conditions it as MSDI-Net.",
            "NAFNetConfiguration",
            "plan",
            "NAFNetInputs",
        ),
    ),
)
