"""Options for estimating a blur and for deconvolving with it. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from blurkit.options import Options, option
from blurkit.training.configuration import Configuration, TrainingInputs

FULL = 41
"""Side of the kernels that are looked for first; a longer blur is found in a smaller photo."""


@dataclass(frozen=True)
class Estimation(Options):
    """Options for the estimation of a kernel."""

    turns: int = option(5, "Alternations of sharp image and kernel at every scale.", 1)
    scale_ratio: float = option(1.4142, "Ratio between the scales of the pyramid.", 1.05)
    beta_growth: float = option(2.83, "Factor of beta between steps of the sharp image.", 1.1)
    largest_beta: float = option(300.0, "Value of beta at which those steps end.")
    weight_decay: float = option(1.1, "Divisor of the prior's weight after every turn.", 1)
    least_weight: float = option(1e-4, "Smallest weight of the prior.")
    ridge: float = option(2.5e-5, "Weight of the kernel's squares, per pixel of the image.")
    noise_ridge: float = option(20.0, "Increase of that weight per variance of the image's noise.")
    kernel_steps: int = option(30, "Gradient steps of the kernel per turn.", 1)
    edge: float = option(0.1, "Gradient of light from which an edge refines a kernel.")
    edges: float = option(0.02, "Fraction of pixels that refine it at least, of largest gradient.")
    floor: float = option(0.05, "Values below this fraction of the largest become 0.", below=1)
    part: float = option(0.1, "Parts with less than this fraction of the sum are dropped.", below=1)


@dataclass(frozen=True)
class WindowOptions(Estimation):
    """Options for dividing a photo into windows, and for believing their kernels."""

    window: int = option(384, "Side of the windows, each with its own kernel, pixels.", 64)
    overlap: int = option(48, "Overlap of neighbouring windows, pixels.", 0)
    seen: int = option(320, "Side of the window's middle used to estimate its kernel.", 48)
    megapixels: float = option(
        2.0, "Larger photos are shrunk to this; their detail is added to the result.", 0.01
    )
    longest_side: float = option(
        0.25, "Side of the largest kernel of a whole photo, part of its shorter side."
    )
    weight: float = option(2e-3, "Initial weight of the sharp image's prior.")
    gammas: tuple[float, ...] = option(
        (2.2, 1.0), "Exponents from pixel values to light to try, the usual one first."
    )
    doubt: float = option(
        0.12, "By which part of its log improvement an unusual gamma must be better."
    )
    voice: float = option(0.3, "Bonus of a kernel that neighbours agree with, as log improvement.")
    trust: float = option(0.7, "Smallest agreement between kernels of the same blur.", 0, 1)
    sure: float = option(0.9, "Median trust in windows from which no longer blur is looked for.")
    sharpest: float = option(0.6, "Peak value from which a kernel counts as no blur.", 0, 1)
    margin: float = option(0.15, "Smallest expected log improvement to accept a result.")
    caution: float = option(2.5, "More improvement needed, per square of the lacking trust.")
    least_change: float = option(
        1.5, "RMS change by a network, of 255 levels, below which it is dropped."
    )
    clipped: float = option(5e-4, "Part of clipped pixels from which lights may hide a blur.", 0, 1)
    certain: float = option(0.9, "Trust below which a network must promise much.", 0, 1)
    much: float = option(0.8, "Smallest log improvement by a network in such windows.")
    promise: float = option(0.4, "Smallest log improvement by a network in sharp windows.")
    little: float = option(0.1, "Smallest log improvement by a network in blurry windows.")
    decision: float = option(10.0, "Steepness of the transition at that margin.")

    def long_sizes(self, sides: Sequence[int]) -> list[int]:
        """Return the sides of longer kernels to estimate in a whole photo of these sides, if any.

        They begin half as large again as those of windows, and grow by half.
        """
        sizes = []
        size = 1.5 * FULL
        while size <= self.longest_side * min(sides):
            sizes.append(int(size) | 1)
            size *= 1.5
        return sizes


# ---- training ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class DeconvolutionInputs(TrainingInputs):
    """The input files of the training: optionally a network that drafts."""

    draft: str = option("", "Checkpoint that deblurs: train a step that joins its results as well.")


@dataclass(frozen=True)
class DeconvolutionConfiguration(Configuration):
    """Blur estimator and deconvolution network, by AdamW on photos under new blur and on pairs."""

    system: ClassVar[str] = "deconvolution"

    iterations: int = option(100_000, "Training steps.", 1)
    batch: int = option(4, "Crops per step, over all devices together.", 1)
    crop: int = option(256, "Side of the square training crops, pixels.", 32)
    learning_rate: float = option(
        4e-4, "AdamW's rate for the deconvolution network before its decay; 0: it stays as it is."
    )
    estimator_rate: float = option(
        5e-4, "AdamW's rate for the blur estimator before its decay; 0: it stays as it is."
    )
    final_learning_rate: float = option(1e-6, "Smallest learning rate.", rare=True)
    constant: float = option(
        0.5, "Fraction of the schedule before the learning rate falls.", below=1, rare=True
    )
    weight_decay: float = option(1e-4, "AdamW's weight decay.", rare=True)
    clip: float = option(0.5, "Largest total gradient norm; 0: no clipping.", rare=True)
    ema: float = option(0.999, "Decay of the averaged weights that are saved.", below=1, rare=True)
    judges_only: bool = option(
        False, "Of the deconvolution network, train only what predicts its errors.", rare=True
    )
    edges: Literal["soft", "head", "unet"] = option(
        "unet", "How a turn finds edges: strong ones, or selected and repaired by a network."
    )
    width: int = option(32, "Channels of the network that repairs edges.", 1)
    kernel_width: int = option(
        48, "Channels of the network that cleans kernels; 0: least squares has the last word."
    )
    seed: int = option(11, "Seed of weights, crops and all other random numbers.")
