"""The options of a blind search, with all constants of Algorithm 1. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import Options, constant, option, read_options

PRESETS = {
    "dip": ("small", "paper", "official", "selfdeblur"),
    "stylegan": ("small", "paper", "official"),
}
"""The presets of each prior; those of a StyleGAN share nothing with the others."""

HALVES = "before and after switch_at; default: those of the objective."


@dataclass(frozen=True)
class SearchOptions(Options):
    """The options of Algorithm 1 and of the search in its released code.

    An iteration is a step of the image. The defaults are the preset `small`.
    """

    presets: ClassVar[dict[str, dict[str, Any]]] = {"small": {}}

    prior: Literal["dip", "stylegan"] = option(
        "dip", "Image prior: an untrained network, or the latents of --generator."
    )
    operator: Literal["kernel-space", "convolution", "downsampling"] = option(
        "kernel-space", "Blur: F of -c with a code; one kernel (no -c); bicubic downsampling."
    )
    kernel_size: int = option(31, "Side of the kernel of --operator convolution, pixels; odd.", 3)
    objective: Literal["paper", "official"] = option(
        "paper", "Objective: Eq. 5, or the released code's, which requires --features."
    )
    search: Literal["joint", "alternating"] = option(
        "joint", "Update image and blur together, or in turn (Algorithm 1)."
    )
    iterations: int = option(600, "Number of image steps.", 1)
    start_estimate: bool = option(
        False, "Start from the blur and the picture that --method shake finds."
    )
    seed: int = option(0, "Seed of weights, inputs and noise.")

    # ---- the objective ---------------------------------------------------------------------------

    charbonnier: tuple[float, float] | None = constant(None, f"Charbonnier weights {HALVES}")
    perceptual: tuple[float, float] | None = constant(None, f"Perceptual weights {HALVES}")
    similarity: tuple[float, float] | None = constant(None, f"1 - SSIM weights {HALVES}")
    squared: tuple[float, float] | None = constant(None, f"Squared-error weights {HALVES}")
    code_norm: tuple[float, float] | None = constant(
        None, f"Weights of the norm of the code or kernel {HALVES}"
    )
    gradient: tuple[float, float] | None = constant(None, f"Gradient prior weights {HALVES}")
    geocross: tuple[float, float] | None = constant(
        None, f"Weights of the distance between a StyleGAN's latents {HALVES}"
    )
    gradient_power: float = constant(0.66, "Exponent of the gradient prior (the paper's alpha).")
    switch_at: float = constant(
        0.5, "Fraction of the iterations after which the second weights apply.", below=1
    )

    # ---- steps -----------------------------------------------------------------------------------

    image_steps: int = constant(1, "Alternating: image steps per turn.", 1)
    kernel_steps: int = constant(20, "Alternating: blur steps per turn, at most.", 1)
    kernel_patience: int = constant(
        0, "Alternating: end a blur turn after this many steps without improvement; 0: never."
    )
    first_turn: Literal["kernel", "image"] = constant("kernel", "Alternating: what moves first.")
    restart_blur: bool = constant(
        False, "Alternating: restart the blur every turn (Algorithm 1, lines 4-5)."
    )
    warm_up: int = constant(
        0,
        "Image steps towards the photo, or the estimated picture, before the search; with "
        "start_estimate 100 unless the preset sets it.",
    )
    kernel_warm_up: int = constant(60, "Blur steps towards its start before the search.")
    start_gaussian: float = constant(
        4.0, "Start from G's code for a Gaussian of this deviation, pixels; 0: off."
    )
    start_code_file: str = constant(
        "", "File with a code to start from, like the released kernel.pth."
    )
    image_rate: float = constant(1e-2, "Learning rate of the image.")
    kernel_rate: float = constant(2e-4, "Learning rate of the blur.")
    rate_decay: float = constant(0.7, "Factor of both learning rates after each of rate_parts.")
    rate_parts: int = constant(5, "Equal parts of the search, each with its own learning rates.", 1)
    rate_held_parts: int = constant(
        0, "Parts after the first that keep the learning rates of the first."
    )

    # ---- networks and latents --------------------------------------------------------------------

    prior_width: int = constant(64, "Channels of the image network.", 1)
    input_distribution: Literal["uniform", "normal"] = constant(
        "uniform", "Distribution of the networks' inputs."
    )
    input_scale: float = constant(0.1, "Factor of the networks' inputs.")
    step_noise: float = constant(
        1e-3, "Standard deviation of the noise that every step adds to the inputs."
    )
    downsampling: int = constant(4, "Factor of the operator downsampling (PULSE).", 1)
    latents: Literal["layers", "sphere"] = constant(
        "layers", "StyleGAN: latents for each layer, or one z on a sphere (the paper)."
    )
    noise_maps: int = constant(5, "StyleGAN: number of noise maps, from the first, to search too.")
    gaussian_samples: int = constant(
        1_000_000, "StyleGAN: samples of the mapping to fit the latents' distribution to.", 2
    )

    # ---- the result ------------------------------------------------------------------------------

    patience: int = constant(
        100, "Stop after this many iterations without improvement after switch_at; 0: never."
    )
    tolerance: float = constant(
        1e-3, "Relative decrease of the objective that counts as improvement."
    )
    result: Literal["best", "last"] = constant(
        "best", "Return the image and blur of the lowest objective, or of the last iteration."
    )
    average_decay: float = constant(
        0.0, "Decay of the moving average of images that is returned; 0: no average.", below=1
    )
    align_picture: bool = constant(
        True, "Shift the picture to its place in the photo; a blur may shift what it blurs."
    )
    warn_below: float = constant(
        30.0, "Warn if image and blur reproduce the photo with a lower PSNR, dB."
    )

    @classmethod
    def resolve(
        cls, preset: str = "small", config: str | Path | None = None, **overrides: Any
    ) -> SearchOptions:
        """Return the options of a preset, replaced by those of a file, then by `overrides`.

        Each prior has its own presets; `start_estimate` adds a warm-up of the image if the preset
        sets none. Raises UsageError if the prior lacks the preset, an override is unknown or a
        value is invalid; BlurkitError as `read_options` does.
        """
        given = read_options(config, cls) if config else {}
        given |= {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in overrides.items()
            if value is not None
        }
        prior = given.get("prior", "dip")
        names = PRESETS.get(prior, ())
        if names and preset not in names:
            among = f"with --prior {prior}, " if preset in PRESETS["dip"] else ""
            raise UsageError(f"--preset {preset}: {among}use one of {', '.join(names)}")
        values = read_options(preset_file(preset, prior), cls) if names else {}
        if given.get("start_estimate"):  # first moves the image to the estimated picture
            values = {"warm_up": 100} | values
        return super().resolve("small", **{**values, **given})

    def check(self) -> None:
        super().check()
        if self.kernel_size % 2 == 0:
            raise UsageError(f"--kernel-size {self.kernel_size}: must be odd")
        if self.start_code_file and self.operator != "kernel-space":
            raise UsageError("start_code_file requires --operator kernel-space")
        if self.start_estimate and self.start_code_file:
            raise UsageError("--start-estimate and start_code_file exclude each other")
        if self.start_estimate and self.operator == "downsampling":
            raise UsageError("--start-estimate requires --operator kernel-space or convolution")
        if self.restart_blur and self.search == "joint":
            raise UsageError("restart_blur requires --search alternating")
        if self.latents == "sphere" and self.prior != "stylegan":
            raise UsageError("latents sphere requires --prior stylegan")

    @property
    def encoded(self) -> bool:
        """Whether F of a checkpoint is the operator."""
        return self.operator == "kernel-space"

    def described(self) -> str:
        """Return a short description of the search, which records keep."""
        names = ("prior", "operator", "objective", "search", "iterations", "seed")
        words = ["blind", *(f"{name}={getattr(self, name)}" for name in names)]
        return " ".join([*words, "start=estimate"] if self.start_estimate else words)


def preset_file(name: str, prior: str = "dip") -> Path:
    """Return the file of a prior's preset: values for `--config`, with their sources."""
    return Path(__file__).with_name("search_presets") / prior / f"{name}.json"
