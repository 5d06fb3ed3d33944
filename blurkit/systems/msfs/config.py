"""Training options of MSFS-Net. Imports no torch.

No training code is released. `paper` is the released network, which gave the paper's numbers, with
the text's losses, schedule and batch; where the text is silent, the released options decide.
`official` has their defaults, and the features that the network's forward pass is made for.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import option, rare
from blurkit.training.configuration import WIDTH, Configuration

GOPRO = 2103
"""The number of GoPro's training pairs, one epoch of the paper."""


@dataclass(frozen=True)
class MSFSConfiguration(Configuration):
    """MSFS-Net: L1 with losses on the frequencies of its features (Eq. 5-7)."""

    system: ClassVar[str] = "msfs"

    iterations: int = option(3000 * GOPRO // 4, "Training steps.", 1)
    batch: int = option(4, "Crops per step, over all devices together.", 1)
    learning_rate: float = option(1e-4, "Adam's learning rate at the start.")
    halve_every: int = rare(
        500 * GOPRO // 4, "Steps between halvings of the learning rate; 0: cosine schedule.", 0
    )
    # The text's 0.9 is probably a misprint.
    beta2: float = rare(0.999, "Adam's second decay rate (text: 0.9).", below=1)
    weight_decay: float = rare(1e-6, "Adam's weight decay (text: none).")
    layers: Literal["paper", "official"] = option(
        "official", "Network of the text, or the released one, with batch norm in the FSMs."
    )
    width: int = WIDTH
    encoder_blocks: int = option(8, "Residual blocks at each encoder scale that has any.", 0)
    latent_blocks: int = option(10, "Attention blocks (RCAB) between encoder and decoder.", 1)
    decoder_blocks: int = option(30, "Attention blocks (RCAB) at each decoder scale.", 1)
    frequency_separation: bool = option(
        True, "Separate frequencies; if off, no losses on features (Table 4: FSM)."
    )
    cross_scale: bool = option(
        True, "Fuse the encoder's features into the decoder's (Table 4: CSFFM)."
    )
    contrastive_weight: float = option(
        0.005, "Weight of the contrastive loss of high frequencies (lambda 1; Table 4)."
    )
    consistency_weight: float = option(
        0.005, "Weight of the consistency loss of low frequencies (lambda 2; Table 4)."
    )
    positive: Literal["restored", "sharp"] = rare(
        "restored", "Reference of the feature losses: restored (paper) or sharp image (official)."
    )
    # The paper does not say whether gradients flow into the reference features.
    fixed_references: bool = rare(False, "Stop gradients into the reference features.")
    image_loss: Literal["l1", "charbonnier"] = rare(
        "l1", "Loss on the restored image (Eq. 7: L1); the released code has both."
    )
    edge_weight: float = rare(
        0.0, "Weight of the Charbonnier loss of Laplacians (in the released code)."
    )
    scales_weight: float = rare(
        0.0, "Weight of the losses at 1/2 and 1/4; requires --layers official."
    )
    identity_start: bool = rare(False, "Start with a network that returns its input.")

    def check(self) -> None:
        """Raise UsageError for invalid options; each frequency band has half of the channels."""
        super().check()
        if self.width % 2:
            raise UsageError(f"--width {self.width}: must be even")
        if self.scales_weight and self.layers != "official":
            raise UsageError(
                "--scales-weight requires --layers official, which outputs these images"
            )

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {"orientations": "flip"},
        "text": {
            "beta2": 0.9,
            "weight_decay": 0.0,
            "orientations": "none",
            "layers": "paper",
            "fixed_references": True,
        },
        "official": {
            "batch": 2,
            "iterations": 3000 * GOPRO // 2,
            "halve_every": 500 * GOPRO // 2,
            "orientations": "flip",
            "positive": "sharp",
            "scales_weight": 1.0,
        },
        "small": {
            "iterations": 1200,
            "crop": 128,
            "learning_rate": 1e-3,
            "final_learning_rate": 1e-6,
            "halve_every": 0,
            "beta2": 0.99,
            "weight_decay": 0.0,
            "ema": 0.98,
            "width": 16,
            "encoder_blocks": 2,
            "latent_blocks": 3,
            "decoder_blocks": 3,
            "fixed_references": True,
            "identity_start": True,
        },
    }
