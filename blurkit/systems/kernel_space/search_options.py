"""The options of a blind search, which include all of its constants.

Imports no torch: the command line reads this class to build its help.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import Options, option

HALVES = "before and after --switch (default: --objective's)."

RELEASED = {"prior_width": 128, "image_rate": 5e-4, "kernel_rate": 5e-4}
"""Network width and learning rates of the released code."""

ALGORITHM_1 = {
    "search": "alternating",
    "kernel_warm_up": 0,
    "start_blur": 0.0,
    "redraw": True,
    "kernel_steps": 1000,
    "kernel_patience": 20,
    "patience": 100,
    "switch": 0.0,
    "input_noise": "normal",
    "input_scale": 1.0,
    "noise": 0.0,
    "rate_decay": 1.0,
    "keep": "last",
    "align": False,
}
"""What Algorithm 1 states: normal inputs, random starts, and a new search for the blur before each
step of the image. Both loops end when the objective no longer falls; the paper does not say how it
decides that, so the patience is ours."""

SELFDEBLUR = {
    "operator": "convolution",
    "charbonnier": (0, 0),
    "squared": (1, 0),
    "similarity": (0, 1),
    "code_norm": (0, 0),
    "gradient": (0, 0),
    "switch": 0.2,
    "iterations": 5000,
    "prior_width": 128,
    "image_rate": 1e-2,
    "kernel_rate": 1e-4,
    "rate_decay": 0.5,
    "rate_hold": 1,
    "patience": 0,
    "keep": "last",
}
"""Loss and schedule of SelfDeblur ("Neural Blind Deconvolution Using Deep Priors", CVPR 2020) as
released for Levin's photos: the squared distance for 1000 of 5000 steps, then 1 - SSIM; the
learning rates are halved after 2000, 3000 and 4000 steps."""

STARTED = {"warm_up": 100}
"""With an estimate to start from, the image first moves to its picture, unless the preset says how
to warm up."""

OFFICIAL_STYLEGAN = {
    "objective": "official",
    "search": "alternating",
    "first": "image",
    "image_rate": 0.2,
    "iterations": 7500,
    "image_steps": 300,
    "kernel_steps": 200,
    "kernel_warm_up": 150,
    "kernel_rate": 5e-4,
    "patience": 0,
    "align": False,
    "enough": 20.0,
}
"""The released code's search among the latents of a StyleGAN2: 25 turns of 300 and 200 steps, of
which the turn with the lowest objective is kept."""

PAPER_STYLEGAN = {
    **ALGORITHM_1,
    "latents": "sphere",
    "noise_layers": 0,
    "image_rate": 0.2,
    "iterations": 7500,
    "kernel_rate": 5e-4,
    "enough": 20.0,
}
"""Algorithm 1 with a StyleGAN (Section 3.3): one z on the sphere of radius sqrt(d). The paper gives
no rates; these are the released code's."""


@dataclass(frozen=True)
class BlindOptions(Options):
    """The options of Algorithm 1 and of the search in its released code.

    "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021). An iteration is a step of
    the image.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": {},
        "paper": {**ALGORITHM_1, **RELEASED, "iterations": 5000},
        "official": {
            **RELEASED,
            "objective": "official",
            "iterations": 5000,
            "warm_up": 300,
            "kernel_warm_up": 300,
            "patience": 0,
            "keep": "last",
            "align": False,
        },
        "selfdeblur": SELFDEBLUR,
    }
    """`paper` follows Algorithm 1, the only settings that the paper states; `official` follows the
    released code in everything; `small` finishes in minutes on a processor."""
    stylegan_presets: ClassVar[dict[str, dict[str, Any]]] = {
        "small": OFFICIAL_STYLEGAN | {"iterations": 600, "image_steps": 60, "kernel_steps": 40},
        "paper": PAPER_STYLEGAN,
        "official": OFFICIAL_STYLEGAN,
    }
    """The presets with `--prior stylegan`; they share nothing with those above."""

    prior: Literal["dip", "stylegan"] = option(
        "dip", "Image prior: an untrained network, or the latents of --generator."
    )
    operator: Literal["kernel-space", "convolution", "downsampling"] = option(
        "kernel-space",
        "Blur: F of -c with a code; one kernel (no -c); bicubic downsampling.",
    )
    kernel_size: int = option(31, "Side of the kernel of --operator convolution, pixels; odd.", 3)
    downsampling: int = option(4, "Factor of --operator downsampling (PULSE).", 1, rare=True)
    objective: Literal["paper", "official"] = option(
        "paper", "Objective: Eq. 5, or the released code's, which requires --features."
    )
    charbonnier: tuple[float, float] | None = option(
        None, f"Charbonnier weights {HALVES}", rare=True
    )
    perceptual: tuple[float, float] | None = option(None, f"Perceptual weights {HALVES}", rare=True)
    similarity: tuple[float, float] | None = option(None, f"1 - SSIM weights {HALVES}", rare=True)
    squared: tuple[float, float] | None = option(None, f"Squared-error weights {HALVES}", rare=True)
    code_norm: tuple[float, float] | None = option(None, f"Blur norm weights {HALVES}", rare=True)
    gradient: tuple[float, float] | None = option(
        None, f"Gradient prior weights {HALVES}", rare=True
    )
    geocross: tuple[float, float] | None = option(
        None, f"StyleGAN latent weights {HALVES}", rare=True
    )
    power: float = option(0.66, "Exponent of the gradient prior (the paper's alpha).", rare=True)
    switch: float = option(
        0.5,
        "Fraction of the search after which the second weights apply.",
        below=1,
        rare=True,
    )
    search: Literal["joint", "alternating"] = option(
        "joint", "Update image and blur together, or in turn (Algorithm 1)."
    )
    iterations: int = option(600, "Number of image steps.", 1)
    image_steps: int = option(1, "With alternating: image steps per turn.", 1, rare=True)
    kernel_steps: int = option(20, "With alternating: blur steps per turn, at most.", 1, rare=True)
    kernel_patience: int = option(
        0,
        "With alternating: end a blur turn after this many steps without improvement; 0: never.",
        rare=True,
    )
    first: Literal["kernel", "image"] = option(
        "kernel", "With alternating: what moves first.", rare=True
    )
    redraw: bool = option(
        False,
        "With alternating: restart the blur every turn (Algorithm 1, lines 4-5).",
        rare=True,
    )
    warm_up: int = option(0, "Image steps towards the photo before the search.")
    kernel_warm_up: int = option(60, "Blur steps towards its start before the search.", rare=True)
    start_blur: float = option(
        4.0, "Start from G's code for a Gaussian of this deviation, pixels; 0: off."
    )
    start_code: str = option(
        "", "File with a code to start from, like the released kernel.pth.", rare=True
    )
    start_estimate: bool = option(
        False, "Start from the blur and the picture that --method shake finds."
    )
    image_rate: float = option(1e-2, "Learning rate of the image.")
    kernel_rate: float = option(2e-4, "Learning rate of the blur.")
    rate_decay: float = option(
        0.7, "Factor by which both rates decay after each of --rate-steps.", rare=True
    )
    rate_steps: int = option(
        5, "Parts of the search, each with its own learning rate.", 1, rare=True
    )
    rate_hold: int = option(0, "Parts after the first that keep its learning rate.", rare=True)
    prior_width: int = option(64, "Channels of the image network.", 1)
    input_noise: Literal["uniform", "normal"] = option(
        "uniform", "Distribution of the input noise.", rare=True
    )
    input_scale: float = option(0.1, "Factor of the input noise.", rare=True)
    noise: float = option(
        1e-3, "Deviation of the noise that every step adds to the input.", rare=True
    )
    average: float = option(
        0.0, "Decay of the average of images; 0: use the last.", below=1, rare=True
    )
    patience: int = option(
        100,
        "Stop if the objective stays as high for this many iterations after --switch; 0: never.",
    )
    tolerance: float = option(
        1e-3, "Relative decrease of the objective that counts as improvement.", rare=True
    )
    keep: Literal["best", "last"] = option(
        "best", "Result: the image and blur of the lowest objective, or of the last iteration."
    )
    enough: float = option(
        30.0,
        "Warn if image and blur together reproduce the photo with a lower PSNR, dB.",
        rare=True,
    )
    align: bool = option(
        True, "Move the picture to where the photo shows it; a blur may shift what it blurs."
    )
    latents: Literal["layers", "sphere"] = option(
        "layers", "StyleGAN: latents for each layer, or one z on a sphere (the paper).", rare=True
    )
    noise_layers: int = option(5, "StyleGAN noise maps to search too, from the first.", rare=True)
    gaussian_samples: int = option(
        1_000_000, "Samples of StyleGAN's mapping to fit the latents' distribution.", 2, rare=True
    )
    batch: int = option(1, "Photos or tiles that are searched together.", 1)
    seed: int = option(0, "Seed of weights, inputs and noise.")

    @classmethod
    def resolve(cls, preset: str = "small", **overrides: Any) -> BlindOptions:
        """Return the options of a preset with `overrides` on top; see `Options.resolve`.

        The prior `stylegan` has its own presets; `start_estimate` adds a warm-up of the image if
        the preset does not set one. Raises UsageError if the prior does not have the preset.
        """
        given = {key: value for key, value in overrides.items() if value is not None}
        presets = cls.presets
        if given.get("prior") == "stylegan":
            presets = cls.stylegan_presets
            if preset in cls.presets and preset not in presets:
                names = ", ".join(presets)
                raise UsageError(f"--preset {preset}: with --prior stylegan, use one of {names}")
        values = presets.get(preset, {})
        if given.get("start_estimate") and "warm_up" not in values:
            values = STARTED | values
        if preset in presets:
            preset, given = "small", values | given
        return super().resolve(preset, **given)

    def check(self) -> None:
        """Raise UsageError for invalid values, naming the option."""
        super().check()
        if self.kernel_size % 2 == 0:
            raise UsageError(f"--kernel-size {self.kernel_size}: must be odd")
        if self.start_code and self.operator != "kernel-space":
            raise UsageError("--start-code requires --operator kernel-space")
        if self.start_estimate and self.start_code:
            raise UsageError("--start-estimate and --start-code exclude each other")
        if self.start_estimate and self.operator == "downsampling":
            raise UsageError("--start-estimate requires --operator kernel-space or convolution")
        if self.redraw and self.search == "joint":
            raise UsageError("--redraw requires --search alternating")
        if self.latents == "sphere" and self.prior != "stylegan":
            raise UsageError("--latents sphere requires --prior stylegan")

    @property
    def encoded(self) -> bool:
        """Whether F of a checkpoint is the operator."""
        return self.operator == "kernel-space"

    def described(self) -> str:
        """Return a short description of the search, which records keep."""
        names = ("prior", "operator", "objective", "search", "iterations", "seed")
        words = ["blind", *(f"{name}={getattr(self, name)}" for name in names)]
        return " ".join([*words, "start=estimate"] if self.start_estimate else words)
