"""Options of estimating a blur and undoing it. No torch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from blurkit.options import Options, option


@dataclass(frozen=True)
class Estimation(Options):
    """What the estimation of a kernel depends on."""

    turns: int = option(5, "Turns of sharp image and kernel at every scale.", 1)
    scale_ratio: float = option(1.4142, "From one scale of the pyramid to the next.", 1.05)
    beta_growth: float = option(2.83, "From one step of the sharp image to the next.", 1.1)
    largest_beta: float = option(300.0, "Where those steps end.")
    weight_decay: float = option(1.1, "What the prior's weight is divided by after every turn.", 1)
    least_weight: float = option(1e-4, "The prior's smallest weight.")
    ridge: float = option(2.5e-5, "Weight of the kernel's squares, per pixel of the image.")
    noise_ridge: float = option(20.0, "What is added to it, per variance of the image's noise.")
    kernel_steps: int = option(30, "Gradient steps of the kernel in every turn.", 1)
    floor: float = option(0.05, "Kernel values below this part of the largest become 0.", below=1)
    part: float = option(0.1, "Parts of a kernel that hold less of its sum are dropped.", below=1)


@dataclass(frozen=True)
class Shake(Estimation):
    """How a photo is cut into windows, and which of their kernels are believed."""

    window: int = option(384, "Side of the windows that have a kernel each, pixels.", 64)
    overlap: int = option(48, "Pixels that neighbouring windows share.", 0)
    seen: int = option(320, "Side of the middle of a window that its kernel is estimated on.", 48)
    megapixels: float = option(2.0, "Photos with more are shrunk to it to estimate kernels.", 0.01)
    kernel_sizes: tuple[int, ...] = option(
        (61, 41, 27), "Sides of the kernels that are looked for, pixels, largest first."
    )
    long: float = option(
        29.0, "Length of the blur from which the larger two sizes are looked for, else the smaller."
    )
    weight: float = option(2e-3, "Weight of the sharp image's prior to start with.")
    gammas: tuple[float, ...] = option(
        (2.2, 1.0), "From pixels to the light of the blur: what is tried, the usual first."
    )
    doubt: float = option(
        0.03, "How much better photos must become in another light than the usual, as a logarithm."
    )
    voice: float = option(
        0.3, "What neighbours that agree with a kernel count for, as a logarithm of errors."
    )
    trust: float = option(0.7, "Agreement from which kernels are of the same blur.", 0, 1)
    belief: float = option(
        0.82, "Trust in a kernel and half its expected gain, from which it is believed."
    )
    sharpest: float = option(0.3, "Largest value of a kernel from which it is no blur.", 0, 1)
    margin: float = option(
        0.15, "How much smaller the expected error must be, as a logarithm, to take a result."
    )
    least_change: float = option(
        1.5, "Mean change by a network, of 255 levels, below which a window stays as it is."
    )
    decision: float = option(10.0, "How sharply results are taken or left at that margin.")

    def sizes(self, sides: Sequence[int]) -> list[int]:
        """Return the sides of the kernels to look for in a photo of these sides, largest first.

        Kernels are at most a third as large as the photo.
        """
        most = (min(sides) // 3 - 1) | 1
        return sorted({min(size, most) for size in self.kernel_sizes}, reverse=True)
