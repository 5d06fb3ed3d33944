"""Training options of NAFNet. Imports no torch.

Released values: `paper` of width 32 for GoPro, `wide` of width 64, `sidd` for the noise of SIDD.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.options import option, rare
from blurkit.training.configuration import Configuration, TrainingInputs

Blocks = tuple[tuple[int, ...], int, tuple[int, ...]]

BLOCKS: dict[str, Blocks] = {
    "gopro": ((1, 1, 1, 28), 1, (1, 1, 1, 1)),
    "sidd": ((2, 2, 4, 8), 12, (2, 2, 2, 2)),
    "small": ((1, 1, 2), 2, (1, 1, 1)),
}
"""The numbers of blocks: of each level of the encoder, in the middle, of each of the decoder."""


@dataclass(frozen=True)
class NAFNetInputs(TrainingInputs):
    """The input files of NAFNet: optionally the encoder of MSDI-Net's stage 1."""

    encoder: tuple[str, ...] = option(
        (), "Checkpoint with encoder and latents, from train-reblur, to condition the network by."
    )


@dataclass(frozen=True)
class NAFNetConfiguration(Configuration):
    """NAFNet: minus the PSNR, by AdamW."""

    system: ClassVar[str] = "nafnet"

    learning_rate: float = option(1e-3, "AdamW's learning rate at the start of the cosine.")
    beta2: float = rare(0.9, "AdamW's second decay rate.", below=1)
    weight_decay: float = rare(1e-3, "AdamW's weight decay, of all parameters.")
    clip: float = rare(0.01, "Largest total gradient norm; 0: no clipping.")
    width: int = option(32, "Channels at full size; deeper levels double it.", 1)
    blocks: Literal["gopro", "sidd", "small"] = option(
        "gopro", "Numbers of blocks: the released networks', 36 in all, or 9."
    )
    hidden: int = rare(
        32, "With --encoder: hidden channels of each skip connection's modulation.", 1
    )

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "wide": {"width": 64, "iterations": 400_000, "batch": 64},
        "sidd": {"blocks": "sidd", "weight_decay": 0.0, "orientations": "none"},
        "small": {
            "iterations": 1200,
            "batch": 4,
            "crop": 128,
            "final_learning_rate": 1e-6,
            "ema": 0.98,
            "width": 16,
            "blocks": "small",
            "hidden": 16,
        },
    }
