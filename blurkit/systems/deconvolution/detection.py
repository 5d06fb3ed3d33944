"""Building the deconvolution network from the keys and shapes of a state dict."""

from __future__ import annotations

from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.system import Shapes


def deconvolver(shapes: Shapes) -> Deconvolver:
    """Return a Deconvolver whose state dict has these shapes."""
    levels = 1 + len(shapes.numbers(r"one\.network\.down\.(\d+)\.weight"))
    entering = [f"one.network.down.{level}.weight" for level in range(levels - 1)]
    widths = [shapes[key][1] for key in entering] + [shapes[entering[-1]][0]]
    return Deconvolver(widths, "draft_ties" in shapes)
