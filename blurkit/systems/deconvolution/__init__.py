"""Estimate the blur of a photo, then undo it; see docs/deconvolution.md."""

from __future__ import annotations

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
            "the network that undoes a known or estimated blur; --draft trains its last step.",
            "DeconvolutionConfiguration",
            "plan",
            "DeconvolutionInputs",
        ),
        Training(
            "estimator",
            "train-deblur",
            "the networks that estimate a blur, on sharp photos under drawn paths of the camera.",
            "EstimatorConfiguration",
            "estimator_plan",
            "EstimatorInputs",
        ),
    ),
)
