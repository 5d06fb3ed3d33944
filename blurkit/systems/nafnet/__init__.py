"""NAFNet (Chen et al., "Simple baselines for image restoration", ECCV 2022)."""

from __future__ import annotations

from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "nafnet",
    "NAFNet",
    architectures=(
        Architecture(
            "NAFNet guided by a degradation encoder",
            "deblur",
            "guided_nafnet",
            ("intro.", "middle_blks.0.sca.1.", "modulations."),
            ("guided.GuidedNAFNet",),
        ),
        Architecture(
            "NAFNet",
            "deblur",
            "nafnet",
            ("intro.", "middle_blks.0.sca.1."),
            ("networks.NAFNet",),
        ),
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
