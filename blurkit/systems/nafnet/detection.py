"""Build NAFNet from the keys and shapes of a state dict."""

from __future__ import annotations

from typing import Any

from blurkit.systems.msdi.detection import encoder, prior_upsampling
from blurkit.systems.nafnet.guided import GuidedNAFNet
from blurkit.systems.nafnet.networks import NAFNet
from blurkit.systems.system import Shapes


def nafnet(shapes: Shapes) -> NAFNet:
    """Return a NAFNet whose state dict has these shapes."""
    return NAFNet(**_options(shapes))


def guided_nafnet(shapes: Shapes) -> GuidedNAFNet:
    """Return a GuidedNAFNet whose state dict has these shapes."""
    parts = encoder(shapes.under("net_prior.")), prior_upsampling(shapes.under("prior_upsampling."))
    hidden = shapes["modulations.0.mlp_gamma.weight"][1]
    return GuidedNAFNet(*parts, hidden=hidden, **_options(shapes))


def _options(shapes: Shapes) -> dict[str, Any]:
    width, channels = shapes["intro.weight"][:2]
    levels = len(shapes.numbers(r"downs\.(\d+)\.weight"))
    counts = {
        part: [len(shapes.numbers(rf"{part}\.{n}\.(\d+)\.beta")) for n in range(levels)]
        for part in ("encoders", "decoders")
    }
    return {
        "width": width,
        "encoder_blocks": counts["encoders"],
        "middle_blocks": len(shapes.numbers(r"middle_blks\.(\d+)\.beta")),
        "decoder_blocks": counts["decoders"],
        "channels": channels,
    }
