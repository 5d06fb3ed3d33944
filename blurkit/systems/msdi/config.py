"""Training options of both stages of MSDI-Net. Imports no torch.

The defaults gave the paper's numbers: network and losses of the released version 1 with schedule
and batch of the text. Its stage 1 is not released: where the text is silent, version 2 decides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import option, rare
from blurkit.training.configuration import WIDTH, Configuration, FeatureInputs, TrainingInputs

TEXT: dict[str, Any] = {
    "clip": 0.0,
    "modulation": "paper",
    "inject_stages": "both",
    "inject_bottleneck": True,
}
"""What the text says, or does not mention, of both stages (Sections 3.3 and 4.1)."""

SMALL: dict[str, Any] = {
    "batch": 4,
    "crop": 128,
    "final_learning_rate": 1e-6,
    "clip": 0.0,
    "ema": 0.98,
    "width": 12,
    "hidden": 24,
    "identity_start": True,
}
"""The options that both stages share in the preset for a CPU."""


ReblurInputs = FeatureInputs
"""The input files of stage 1."""


@dataclass(frozen=True)
class DeblurInputs(TrainingInputs):
    """The input files of stage 2: networks from stage 1."""

    encoder: tuple[str, ...] = option(
        (), "Checkpoint with encoder and latents, from train-reblur; repeatable."
    )
    blur_encoder: str = option("", "Separate encoder for the blur-aware loss (released v2).")

    def check(self, overrides: Mapping[str, Any]) -> None:
        """Raise UsageError without the encoders that stage 2 needs."""
        if not self.encoder and overrides.get("injection") != "none":
            raise UsageError("--encoder FILE: name the checkpoint that train-reblur wrote")


@dataclass(frozen=True)
class MSDIConfiguration(Configuration):
    """The options that both stages share: where the networks of paper and released code differ."""

    system: ClassVar[str] = "msdi"

    clip: float = rare(0.01, "Largest total gradient norm; 0: no clipping.")
    width: int = WIDTH
    hidden: int = rare(128, "Hidden channels of each skip connection's modulation.", 1)
    injection: Literal["multi-scale", "lowest", "input", "concat", "none"] = option(
        "multi-scale", "Where and how the degradation is injected (Table 4)."
    )
    modulation: Literal["paper", "official"] = rare(
        "official", "paper: Eq. 9, from the latent alone; official: from latent and features."
    )
    inject_stages: Literal["both", "first"] = rare(
        "first", "Stacked U-Nets that receive the degradation (text: both)."
    )
    inject_bottleneck: bool = rare(
        False, "Inject at the bottleneck too, the fifth scale of the text."
    )
    generator: Literal["stacked", "single"] = option(
        "stacked", "Two stacked U-Nets or a single one (official, in stage 1)."
    )
    unshuffle: int = rare(
        1, "Side of the pixel blocks that become channels; 2: U-Nets at half size.", 1
    )
    identity_start: bool = rare(
        False, "Start with networks that return their input, and full-strength latents."
    )

    def check(self) -> None:
        """Raise UsageError for invalid options; the U-Nets normalise half of their channels."""
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
    encoder_rate: float = rare(
        1.0, "Learning rate of encoder and latents, relative to the generators'."
    )
    encoder_layers: Literal["paper", "official"] = rare(
        "official", "paper: spectral norm (supplement, Table 1); official: and instance norm."
    )
    code: Literal["2d", "1d"] = rare(
        "2d", "Degradation as a map or as one vector (ablation in the supplement)."
    )
    reblurring: bool = option(
        True, "Learn to reblur; if off, the encoder learns by deblurring only (Table 4)."
    )
    reblur_loss: Literal["adversarial", "l1"] = option(
        "adversarial", "Reblurring loss: adversarial and perceptual, or L1 (supplement)."
    )
    discriminator_width: int = rare(64, "Channels of the discriminator's first layer.", 1)
    adversarial_weight: float = option(1.0, "Weight of the hinge loss (Eq. 4); 0: off.")
    perceptual_weight: float = option(
        30.0, "Weight of the perceptual or L1 loss of reblurring (lambda 1)."
    )
    deblur_weight: float = option(10.0, "Weight of the L1 deblurring loss (lambda 2, Eq. 6).")
    matching_weight: float = rare(10.0, "Weight of feature matching (text: none).")
    schedule_generator: bool = rare(
        True, "Apply the cosine schedule to the generators too (official: no)."
    )
    perceptual: Literal["features", "auto", "none"] = option(
        "features", "Perceptual loss; auto: only if a feature network is available."
    )

    @property
    def adversarial(self) -> bool:
        """Whether reblurring is trained with the discriminator and the perceptual loss."""
        return self.reblurring and self.reblur_loss == "adversarial"

    def check(self) -> None:
        """Raise UsageError for invalid options; without injection, there is nothing to learn."""
        super().check()
        if self.injection == "none":
            raise UsageError(
                "--injection none: train-reblur learns degradations, which this omits; "
                "only train-deblur accepts it"
            )

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "text": {**TEXT, "encoder_layers": "paper", "matching_weight": 0.0},
        "official": {  # MSDINet2e-Train.yml and the code that it runs
            "iterations": 240_000,
            "schedule_iterations": 250_000,
            "learning_rate": 2e-4,
            "encoder_version": "2",
            "generator": "single",
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
            "matching_weight": 0.0,
            "generator": "single",
            "perceptual": "auto",
        },
    }


@dataclass(frozen=True)
class DeblurConfiguration(MSDIConfiguration):
    """Stage 2 of MSDI-Net: a deblurring network with the frozen encoder (Eq. 7-8)."""

    iterations: int = option(400_000, "Training steps.", 1)
    batch: int = option(64, "Crops per step, over all devices together.", 1)
    pixel_loss: Literal["psnr", "l1"] = rare(
        "psnr", "Pixel loss: PSNR (Eq. 8), or L1, which suits --sharp-pairs better."
    )
    psnr_weight: float = option(0.5, "Weight of the pixel loss (Eq. 8: 1).")
    frequency_weight: float = rare(0.0, "Weight of an L1 loss on spectra (MIMO-UNet: 0.1); 0: off.")
    supervise_first: bool = rare(
        True, "Apply the pixel loss to the first U-Net's image too (Eq. 8: no)."
    )
    blur_weight: float = option(1.0, "Weight of the blur-aware loss (lambda 3, Eq. 7).")
    blur_layers: Literal["all", "official"] = rare(
        "official", "Encoder layers in the blur-aware loss: all (Eq. 7) or five (official)."
    )

    def check(self) -> None:
        """Raise UsageError for invalid options; all layers of E need crops of 128 pixels."""
        super().check()
        if self.blur_weight and self.blur_layers == "all" and self.crop < 128:
            raise UsageError(f"--crop {self.crop}: --blur-layers all needs at least 128")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "text": {**TEXT, "psnr_weight": 1.0, "supervise_first": False, "blur_layers": "all"},
        "official": {"batch": 24},  # MSDINet2-Train.yml; the rest is as in MSDINet-Train.yml
        "small": {"iterations": 800, **SMALL, "learning_rate": 1e-3, "psnr_weight": 1.0},
    }
