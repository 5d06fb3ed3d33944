"""What trains MSFS-Net: its options, their defaults the paper's values. No torch here.

No training code is released: `--preset official` is the released network, trained with the defaults
of the released options and the features that its forward pass is made for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import option
from blurkit.training.configuration import Configuration

GOPRO = 2103
"""GoPro's pairs for training: an epoch of the paper."""


@dataclass(frozen=True)
class MSFSConfiguration(Configuration):
    """MSFS-Net: L1 with losses on the frequencies of its features (Eq. 5-7)."""

    system: ClassVar[str] = "msfs"

    iterations: int = option(3000 * GOPRO // 4, "Training steps.", 1)
    batch: int = option(4, "Crops per step, over all devices together.", 1)
    learning_rate: float = option(1e-4, "Adam's learning rate at the start.")
    halve_every: int = option(
        500 * GOPRO // 4,
        "Steps between halvings of the learning rate, 500 epochs of GoPro; 0: a cosine.",
        0,
        rare=True,
    )
    beta2: float = option(0.9, "Adam's second decay rate.", below=1, rare=True)
    weight_decay: float = option(0.0, "Adam's weight decay (official: 1e-6).", rare=True)
    layers: Literal["paper", "official"] = option(
        "paper", "The network as the text has it, or as released, with batch norm in the FSMs."
    )
    encoder_blocks: int = option(8, "Residual blocks of the encoder at each scale that has any.", 0)
    latent_blocks: int = option(10, "RCABs between encoder and decoder.", 1)
    decoder_blocks: int = option(30, "RCABs of the decoder at each scale.", 1)
    frequency_separation: bool = option(
        True, "Part frequencies; without, convolutions and no loss on features (Table 4: FSM)."
    )
    cross_scale: bool = option(
        True, "Fuse the encoder's features into the decoder's (Table 4: CSFFM)."
    )
    contrastive_weight: float = option(
        0.005, "Weight of the contrastive loss on high frequencies (lambda 1; Table 4: CLM)."
    )
    consistency_weight: float = option(
        0.005, "Weight of the consistency of low frequencies (lambda 2; Table 4)."
    )
    positive: Literal["restored", "sharp"] = option(
        "restored",
        "Whose features the losses hold to: the restored image's (paper), or the sharp one's "
        "(official).",
        rare=True,
    )
    fixed_references: bool = option(
        True,
        "Features that others are held to or pushed from don't learn themselves (official: they "
        "do; the paper does not say).",
        rare=True,
    )
    image_loss: Literal["l1", "charbonnier"] = option(
        "l1", "Distance of the restored image (Eq. 7: L1); the released code has both.", rare=True
    )
    edge_weight: float = option(
        0.0,
        "Weight of the Charbonnier distance of Laplacians, which the released code has.",
        rare=True,
    )
    scales_weight: float = option(
        0.0, "Weight of the images at 1/2 and 1/4, which only the official layers give.", rare=True
    )
    identity_start: bool = option(False, "Begin with a network that returns its input.", rare=True)

    def check(self) -> None:
        """As for every configuration; frequencies have half of the channels each."""
        super().check()
        if self.width % 2:
            raise UsageError(f"--width {self.width}: must be even")
        if self.scales_weight and self.layers != "official":
            raise UsageError("--scales-weight goes with --layers official, which has such images")

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "official": {
            "batch": 2,
            "iterations": 3000 * GOPRO // 2,
            "halve_every": 500 * GOPRO // 2,
            "beta2": 0.999,
            "weight_decay": 1e-6,
            "layers": "official",
            "positive": "sharp",
            "fixed_references": False,
            "scales_weight": 1.0,
        },
        "small": {
            "iterations": 1200,
            "crop": 128,
            "learning_rate": 1e-3,
            "final_learning_rate": 1e-6,
            "halve_every": 0,
            "beta2": 0.99,
            "ema": 0.98,
            "layers": "official",
            "width": 16,
            "encoder_blocks": 2,
            "latent_blocks": 3,
            "decoder_blocks": 3,
            "identity_start": True,
        },
    }
