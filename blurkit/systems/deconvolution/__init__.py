"""Estimate the blur of a photo, then undo it; see docs/deconvolution.md."""

from __future__ import annotations

from blurkit.systems.system import Architecture, System

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
    ),
    uses={"deconvolving": "a deconvolution network"},
    weights="deconvolution.pt",
)
