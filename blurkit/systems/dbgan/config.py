"""Training options of BGAN and DBGAN; the defaults are the paper's values. Imports no torch.

No training code is released. Two choices that the paper leaves open are ours: the number of
iterations, and the cosine between its two learning rates. There is no preset `text`: `paper` says
what the text says, but for DBGAN's network, which is the released one.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import option, rare
from blurkit.training.configuration import WIDTH, Configuration, FeatureInputs


@dataclass(frozen=True)
class BGANInputs(FeatureInputs):
    """The input files of BGAN's training; the blurry photos may show anything."""

    blurry: tuple[str, ...] = option(
        (), "Shards of unrelated blurry photos, or folders of shards, to learn from."
    )


@dataclass(frozen=True)
class AdversarialConfiguration(Configuration):
    """The options that BGAN and DBGAN share: adversarial training and a perceptual loss."""

    iterations: int = option(300_000, "Training steps.", 1)
    batch: int = option(4, "Crops per step, over all devices together.", 1)
    crop: int = option(128, "Side of the square training crops, pixels.", 32)
    learning_rate: float = option(1e-4, "Adam's learning rate at the start.")
    final_learning_rate: float = rare(1e-6, "Learning rate at the end of the cosine.")
    beta2: float = rare(0.999, "Adam's second decay rate.", below=1)
    width: int = WIDTH
    initial_weights: Literal["normal", "kaiming"] = rare(
        "normal", "Initial weights: normal, or Kaiming's, a tenth in the generator."
    )
    initial_deviation: float = rare(
        0.01, "Deviation of normal initial weights; 0: PyTorch's own weights."
    )
    discriminator: Literal["vgg", "spectral"] = option(
        "vgg", "Discriminator with batch norm (vgg) or spectral norm; both are released."
    )
    discriminator_width: int = rare(64, "Channels of the discriminator's first layer.", 1)
    perceptual: Literal["features", "auto", "none"] = option(
        "features", "Perceptual loss; auto: only if a feature network is available."
    )
    perceptual_weight: float = rare(1.0, "Weight of the perceptual loss (Eq. 9-10).")
    adversarial_weight: float = rare(0.01, "Weight of the adversarial loss (beta).")
    content_loss: Literal["l2", "l1"] = option(
        "l2", "Content (pixel) loss: l2 (Section 3.4) or l1 (Section 3.3)."
    )
    content_weight: float = rare(0.005, "Weight of the content loss (alpha).")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"orientations": "flip"},  # Section 4.2
        "official": {"initial_weights": "kaiming"},  # the released code
        "small": {
            "iterations": 1200,
            "crop": 64,
            "learning_rate": 1e-3,
            "ema": 0.98,
            "width": 16,
            "initial_deviation": 0.0,
            "discriminator_width": 16,
            "perceptual": "auto",
            "perceptual_weight": 0.1,
        },
    }

    def check(self) -> None:
        """Raise UsageError for invalid options; the discriminators accept certain crops only."""
        super().check()
        unit = 64 if self.crop >= 192 else 32
        if self.crop % unit:
            raise UsageError(
                f"--crop {self.crop}: the discriminator takes a multiple of 32, from 192 on of 64"
            )


@dataclass(frozen=True)
class BGANConfiguration(AdversarialConfiguration):
    """BGAN: gives sharp photos blur like that of unrelated ones (Eq. 9)."""

    system: ClassVar[str] = "bgan"

    content_weight: float = rare(
        0.0, "Weight of the content loss (alpha), to the records' own blurry images."
    )
    content_crops: Literal["all", "paired", "unpaired"] = rare(
        "all", "Crops with a content loss: paired (pixels), unpaired like --blurry (means), all."
    )
    blocks: int = option(9, "Residual blocks of five convolutions each.", 1)
    noise_length: int = rare(4, "Length of the noise vector.", 1)
    # With more than the paper's 1, different noise vectors give different blur.
    noise_tries: int = option(
        1, "Noise vectors tried per crop, of which only the best one learns.", 1
    )
    warm_up: int = option(
        100_000, "Steps with the records' own blur only, before --blurry (Section 3.4)."
    )
    real_share: float = option(0.5, "After --warm-up: fraction of real crops taken from --blurry.")

    def check(self) -> None:
        """Raise UsageError for invalid options; `real_share` is at most 1."""
        super().check()
        if self.real_share > 1:
            raise UsageError(f"--real-share {self.real_share}: must be at most 1")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **AdversarialConfiguration.presets,
        "small": {
            **AdversarialConfiguration.presets["small"],
            "content_weight": 100.0,
            "adversarial_weight": 0.05,
            "blocks": 3,
            "noise_tries": 6,
            "warm_up": 600,
        },
    }


@dataclass(frozen=True)
class DBGANConfiguration(AdversarialConfiguration):
    """DBGAN: deblurring against a discriminator of sharp photos (Eq. 10; variants: Section 4.3)."""

    system: ClassVar[str] = "dbgan"

    variant: Literal["plain", "minus", "plus"] = option(
        "plain", "plain: relativistic loss; minus: traditional loss; plus: with --bgan."
    )
    traditional_loss: Literal["vanilla", "lsgan", "wgan-gp"] = rare(
        "vanilla", "Adversarial loss of --variant minus."
    )
    blocks: int = option(16, "Blocks (RRDB) of three dense blocks each.", 1)
    growth: int = option(32, "Channels added by each convolution of a dense block.", 1)

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        **AdversarialConfiguration.presets,
        "small": {
            **AdversarialConfiguration.presets["small"],
            "content_loss": "l1",
            "content_weight": 1.0,
            "blocks": 2,
            "growth": 8,
        },
    }
