"""Estimate the blur of a photo, then undo it; see docs/deconvolution.md."""

from blurkit.systems.system import Architecture, System, Training

SYSTEM = System(
    "deconvolution",
    "deconvolution",
    architectures=(
        Architecture(
            "deconvolution network",
            "deconvolution",
            "networks.Deconvolver",
            ("strengths", "one.network.", "two.network."),
        ),
        Architecture(
            "blur estimator", "estimator", "estimator.BlurEstimator", ("threshold", "ridge")
        ),
    ),
    uses={"deconvolving": "a deconvolution network"},
    weights="deconvolution.pt",
    trainings=(
        Training(
            "deconvolution",
            "train-deblur",
            "Networks that estimate a blur and undo it.",
            "DeconvolutionConfiguration",
            "plan",
            "DeconvolutionInputs",
        ),
    ),
)
