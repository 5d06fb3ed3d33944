"""What trains BGAN and DBGAN: their options, the defaults the paper's values. No torch here.

No training code is released. Where the paper gives no number, it is ours: the iterations, and the
cosine between its two learning rates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import option
from blurkit.training.configuration import Configuration, FeatureInputs

SMALL: dict[str, Any] = {
    "iterations": 1200,
    "crop": 64,
    "learning_rate": 1e-3,
    "ema": 0.98,
    "width": 16,
    "initial_deviation": 0.0,
    "discriminator_width": 16,
    "perceptual": "auto",
    "perceptual_weight": 0.1,
}
"""What both share in the preset for a CPU."""


@dataclass(frozen=True)
class BGANInputs(FeatureInputs):
    """The files of BGAN's training."""

    blurry: tuple[str, ...] = option(
        (),
        "Shards of blurry photos, or folders of them, whose blur --system bgan is to learn; they "
        "need not show what the sharp ones show.",
    )


@dataclass(frozen=True)
class DBGANInputs(FeatureInputs):
    """The files of DBGAN's training."""


@dataclass(frozen=True)
class AdversarialConfiguration(Configuration):
    """What BGAN and DBGAN share: a generator against a discriminator, and perceptual loss."""

    iterations: int = option(300_000, "Training steps.", 1)
    batch: int = option(4, "Crops per step, over all devices together.", 1)
    crop: int = option(128, "Side of the square training crops, pixels.", 32)
    learning_rate: float = option(1e-4, "Adam's learning rate at the start.")
    final_learning_rate: float = option(1e-6, "Learning rate at the end of the cosine.", rare=True)
    beta2: float = option(0.999, "Adam's second decay rate.", below=1, rare=True)
    initial_deviation: float = option(
        0.01, "Standard deviation of initial weights; 0: PyTorch's own.", rare=True
    )
    discriminator: Literal["vgg", "spectral"] = option(
        "vgg", "With batch norm or with spectral norm; the released code has both."
    )
    discriminator_width: int = option(
        64, "Channels of the discriminator's first layer.", 1, rare=True
    )
    perceptual: Literal["features", "auto", "none"] = option(
        "features", "features: needs a feature network; auto: if one is at hand; none: without."
    )
    perceptual_weight: float = option(1.0, "Weight of the perceptual loss (Eq. 9-10).", rare=True)
    adversarial_weight: float = option(0.01, "Weight of the adversarial loss (beta).", rare=True)
    content_loss: Literal["l2", "l1"] = option(
        "l2", "Distance of the pixels: l2 (Section 3.4) or l1 (Section 3.3)."
    )
    content_weight: float = option(0.005, "Weight of that distance (alpha).", rare=True)

    def check(self) -> None:
        """As for every configuration; the discriminators take crops of certain sizes."""
        super().check()
        unit = 64 if self.crop >= 192 else 32
        if self.crop % unit:
            raise UsageError(
                f"--crop {self.crop}: the discriminator takes a multiple of 32, from 192 on of 64"
            )


@dataclass(frozen=True)
class BGANConfiguration(AdversarialConfiguration):
    """BGAN: blur like that of unrelated photos, on sharp ones (Eq. 9)."""

    system: ClassVar[str] = "bgan"

    content_weight: float = option(
        0.0, "Weight of that distance (alpha); BGAN: to the records' own blurry images.", rare=True
    )
    blocks: int = option(9, "Residual blocks, of five convolutions each.", 1)
    noise_length: int = option(4, "Values of the noise vector.", 1, rare=True)
    noise_tries: int = option(
        1,
        "Noise vectors drawn for each crop, of which the one learns whose blur is nearest; more "
        "than the paper's 1 give different noise different blur.",
        1,
    )
    warm_up: int = option(
        100_000, "Steps with the records' own blur alone, before that of --blurry (Section 3.4)."
    )
    real_share: float = option(
        0.5, "After them: share of the crops that the discriminator sees of --blurry."
    )

    def check(self) -> None:
        """As above; shares are shares."""
        super().check()
        if self.real_share > 1:
            raise UsageError(f"--real-share {self.real_share}: must be at most 1")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "small": {
            **SMALL,
            "content_weight": 100.0,
            "adversarial_weight": 0.05,
            "blocks": 3,
            "noise_tries": 6,
            "warm_up": 600,
        },
    }


@dataclass(frozen=True)
class DBGANConfiguration(AdversarialConfiguration):
    """DBGAN: deblurring against a discriminator of sharp photos (Eq. 10)."""

    system: ClassVar[str] = "dbgan"

    variant: Literal["plain", "minus", "plus"] = option(
        "plain",
        "plain: the relativistic loss; minus: a traditional one; plus: with --bgan, whose blur is "
        "mixed in (Section 4.3).",
    )
    traditional_loss: Literal["vanilla", "lsgan", "wgan-gp"] = option(
        "vanilla", "Adversarial loss of --variant minus.", rare=True
    )
    blocks: int = option(16, "Blocks of three dense blocks each.", 1)
    growth: int = option(32, "Channels that each convolution of a dense block adds.", 1)

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "small": {
            **SMALL,
            "content_loss": "l1",
            "content_weight": 1.0,
            "blocks": 2,
            "growth": 8,
        },
    }
