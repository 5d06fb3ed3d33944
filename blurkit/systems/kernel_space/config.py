"""Options for training F and G of the encoded blur kernel space. Imports no torch.

The paper leaves the values to its supplement, which is not available. `paper` and `official` have
those released for the network without deviations; the other two released files differ a little.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from blurkit.errors import UsageError
from blurkit.options import option, rare
from blurkit.training.configuration import WIDTH, Configuration

CODE_STRIDE = 128
"""Image pixels per place of a code, along each side; crop sides must be multiples of it."""


@dataclass(frozen=True)
class KernelSpaceConfiguration(Configuration):
    """Options for training F and G together, by the distance of F(x, G(x, y)) to y (Eq. 4)."""

    system: ClassVar[str] = "kernel-space"

    iterations: int = option(600_000, "Number of training steps.", 1)
    batch: int = option(16, "Crops per step, summed over all devices.", 1)
    learning_rate: float = option(1e-4, "Adam's initial learning rate.")
    final_learning_rate: float = rare(1e-8, "Learning rate at the end of each cosine.")
    restarts: str = rare(
        "50000,150000,300000,450000",
        "Steps at which the cosine restarts, comma-separated; the last one ends with the run.",
    )
    seed: int = option(0, "Seed of weights, crops and all other random choices.")
    network: Literal["paper", "light"] = option(
        "paper", "The paper's F and G, or light ones that a CPU can train."
    )
    width: int = WIDTH
    code_length: int = option(512, "Values of a code at each place (128x128 pixels).", 1)
    front_blocks: int = rare(10, "Residual blocks shared by F and G (paper's network).", 1)
    back_blocks: int = rare(20, "Residual blocks at the end of F.", 1)
    code_blocks: int = rare(4, "Residual blocks at the end of G (paper's network).", 1)
    variational: bool = option(
        False, "Make G predict mean and deviation, so new blurs can be drawn (VAE)."
    )
    pixel_loss: Literal["charbonnier", "l1", "l2"] = option(
        "charbonnier", "Distance to the blurry image, summed over all values (Eq. 4)."
    )
    pixel_weight: float = rare(1.0, "Weight of --pixel-loss.")
    kl_weight: float = option(10.0, "Weight of the KL divergence with --variational.")

    def check(self) -> None:
        """Raise UsageError for invalid values; crops cover 2 or more whole places a side."""
        super().check()
        if self.crop % CODE_STRIDE or self.crop < 2 * CODE_STRIDE:
            raise UsageError(
                f"--crop {self.crop}: codes need a multiple of {CODE_STRIDE}, "
                f"at least {2 * CODE_STRIDE}"
            )
        steps = self.restart_steps
        if steps != sorted(set(steps)):
            raise UsageError(f"--restarts {self.restarts}: steps must increase")

    @property
    def restart_steps(self) -> list[int]:
        """The steps in `restarts`. Raises UsageError for anything but numbers and commas."""
        parts = [part.strip() for part in self.restarts.split(",") if part.strip()]
        if not all(part.isdecimal() for part in parts):
            raise UsageError(f"--restarts {self.restarts}: separate steps by commas")
        return [int(part) for part in parts]

    presets: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "official": {},  # GOPRO/woVAE and mix/woVAE
        "official-reds": {"batch": 13, "final_learning_rate": 1e-6},  # REDS/woVAE
        "official-vae": {"batch": 8, "variational": True},  # GOPRO/wVAE, from GOPRO/woVAE
        "small": {
            "network": "light",
            "iterations": 4000,
            "batch": 4,
            "learning_rate": 1e-3,
            "final_learning_rate": 1e-6,
            "restarts": "",
            "clip": 0.1,
            "ema": 0.99,
            "width": 48,
            "code_length": 64,
            "back_blocks": 8,
        },
    }
