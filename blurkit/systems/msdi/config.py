"""What trains MSDI-Net: both stages' options, their defaults the paper's values. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import option
from blurkit.training.configuration import Configuration, FeatureInputs, Inputs

OFFICIAL_INJECTION: dict[str, Any] = {
    "modulation": "official",
    "inject_stages": "first",
    "inject_bottleneck": False,
}
"""How the released networks are steered."""

SMALL: dict[str, Any] = {
    "batch": 4,
    "crop": 128,
    "final_learning_rate": 1e-6,
    "ema": 0.98,
    "width": 12,
    "hidden": 24,
    "identity_start": True,
    **OFFICIAL_INJECTION,
}
"""What both stages share in the preset for a CPU."""


@dataclass(frozen=True)
class ReblurInputs(FeatureInputs):
    """The files of stage 1."""


@dataclass(frozen=True)
class DeblurInputs(Inputs):
    """The files of stage 2: what stage 1 has learned."""

    encoder: tuple[str, ...] = option(
        (),
        "Checkpoint with encoder and latents, from train-reblur; several files add up. With "
        "--injection none it is for the blur-aware loss alone.",
    )
    blur_encoder: str = option("", "Another encoder for the blur-aware loss (released v2).")


@dataclass(frozen=True)
class MSDIConfiguration(Configuration):
    """What both stages of MSDI-Net share: where paper and released code differ in the networks."""

    system: ClassVar[str] = "msdi"

    hidden: int = option(128, "Channels inside the modulation of a skip connection.", 1, rare=True)
    injection: Literal["multi-scale", "lowest", "input", "concat", "none"] = option(
        "multi-scale",
        "How the degradation enters: by modulation at all scales or the lowest alone, concatenated "
        "at the network's input or at all scales, or not at all (Table 4).",
    )
    modulation: Literal["paper", "official"] = option(
        "paper",
        "paper: Eq. 9, from the latent alone; official: from latent and features.",
        rare=True,
    )
    inject_stages: Literal["both", "first"] = option(
        "both", "Which of two stacked U-Nets the degradation steers (official: first).", rare=True
    )
    inject_bottleneck: bool = option(
        True,
        "Inject at a fifth scale, the bottleneck, as the paper counts (official: no).",
        rare=True,
    )
    generator: Literal["stacked", "single"] = option(
        "stacked", "Two stacked U-Nets as in the paper, or a single one (official: stage 1's)."
    )
    unshuffle: int = option(
        1, "Side of the pixel blocks that become channels; 2: U-Nets at half size.", 1, rare=True
    )
    identity_start: bool = option(
        False,
        "Begin with networks that return their input and latents at full strength.",
        rare=True,
    )

    def check(self) -> None:
        """As for every configuration; the U-Nets normalise half of their channels."""
        super().check()
        if self.width % 2:
            raise UsageError(f"--width {self.width}: must be even")
        if self.crop % (16 * self.unshuffle):
            raise UsageError(
                f"--crop {self.crop}: with --unshuffle {self.unshuffle} it must be a multiple of "
                f"{16 * self.unshuffle}"
            )


@dataclass(frozen=True)
class ReblurConfiguration(MSDIConfiguration):
    """Stage 1 of MSDI-Net: E, G_r, G_d and D together (Eq. 3-6)."""

    encoder_version: Literal["1", "2"] = option(
        "1", "1: the paper's encoder; 2: the released joint stage's larger one."
    )
    encoder_rate: float = option(
        1.0, "Learning rate of E and its upsampling, as a share of the generators'.", rare=True
    )
    encoder_layers: Literal["paper", "official"] = option(
        "paper",
        "paper: spectral norm alone (supplement, Table 1); official: instance norm too.",
        rare=True,
    )
    code: Literal["2d", "1d"] = option(
        "2d",
        "Degradation as a map, or as one vector for the image (supplement's ablation).",
        rare=True,
    )
    reblurring: bool = option(
        True, "Learn to reblur; without, E learns from deblurring alone (Table 4)."
    )
    reblur_loss: Literal["adversarial", "l1"] = option(
        "adversarial", "Reblurring's losses: adversarial and perceptual, or L1 (supplement)."
    )
    discriminator_width: int = option(
        64, "Channels of the discriminator's first layer.", 1, rare=True
    )
    adversarial_weight: float = option(1.0, "Weight of the hinge loss (Eq. 4); 0: without.")
    perceptual_weight: float = option(
        30.0, "Weight of the perceptual loss, or of reblurring's L1 (lambda 1)."
    )
    deblur_weight: float = option(10.0, "Weight of the L1 deblurring loss (lambda 2, Eq. 6).")
    matching_weight: float = option(0.0, "Weight of feature matching (official: 10).", rare=True)
    schedule_generator: bool = option(
        True, "Let the cosine rule the generators too (official: it rules D alone).", rare=True
    )
    perceptual: Literal["features", "auto", "none"] = option(
        "features", "features: needs a feature network; auto: if one is at hand; none: without."
    )

    @property
    def adversarial(self) -> bool:
        """Whether reblurring learns from the discriminator and the perceptual loss."""
        return self.reblurring and self.reblur_loss == "adversarial"

    def check(self) -> None:
        """As for every configuration; without the degradation there is nothing to learn."""
        super().check()
        if self.injection == "none":
            raise UsageError(
                "--injection none: train-reblur learns degradations, which this leaves out; "
                "it is for train-deblur"
            )

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "official": {
            "iterations": 240_000,
            "schedule_iterations": 250_000,
            "learning_rate": 2e-4,
            "clip": 0.01,
            "encoder_version": "2",
            "encoder_layers": "official",
            "generator": "single",
            **OFFICIAL_INJECTION,
            "matching_weight": 10.0,
            "schedule_generator": False,
        },
        "small": {
            "iterations": 1000,
            **SMALL,
            "learning_rate": 5e-4,
            "encoder_rate": 0.06,
            "sharp_pairs": 0.25,
            "inject_bottleneck": True,
            "reblur_loss": "l1",
            "discriminator_width": 16,
            "encoder_layers": "official",
            "generator": "single",
            "perceptual": "auto",
        },
    }


@dataclass(frozen=True)
class DeblurConfiguration(MSDIConfiguration):
    """Stage 2 of MSDI-Net: a deblurring network with the frozen encoder (Eq. 7-8)."""

    iterations: int = option(400_000, "Training steps.", 1)
    batch: int = option(64, "Crops per step, over all devices together.", 1)
    pixel_loss: Literal["psnr", "l1"] = option(
        "psnr",
        "Loss on pixels: PSNR (Eq. 8), or L1, which alone goes well with --sharp-pairs.",
        rare=True,
    )
    psnr_weight: float = option(1.0, "Weight of the loss on pixels (Eq. 8; official: 0.5).")
    frequency_weight: float = option(
        0.0, "Weight of an L1 loss on spectra (MIMO-UNet: 0.1); 0: without.", rare=True
    )
    supervise_first: bool = option(
        False, "Put the loss on pixels on the first U-Net's image too (official: yes).", rare=True
    )
    blur_weight: float = option(1.0, "Weight of the blur-aware loss (lambda 3, Eq. 7).")
    blur_layers: Literal["all", "official"] = option(
        "all",
        "Layers of E in the blur-aware loss: all (Eq. 7) or the first five (official).",
        rare=True,
    )

    def check(self) -> None:
        """As for every configuration; all layers of E need crops of 128 pixels."""
        super().check()
        if self.blur_weight and self.blur_layers == "all" and self.crop < 128:
            raise UsageError(f"--crop {self.crop}: --blur-layers all needs at least 128")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "official": {
            "clip": 0.01,
            **OFFICIAL_INJECTION,
            "psnr_weight": 0.5,
            "supervise_first": True,
            "blur_layers": "official",
        },
        "small": {
            "iterations": 800,
            **SMALL,
            "learning_rate": 1e-3,
            "supervise_first": True,
            "blur_layers": "official",
        },
    }
