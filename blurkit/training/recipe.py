"""What a recipe is to the training loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from blurkit.training.configuration import Configuration

Batch = Mapping[str, Tensor]
"""Images by name (`blur`, `sharp`): (N, 3, crop, crop) float32 in [0, 1], channels last."""

Losses = dict[str, Tensor]
"""Detached scalars by name, for the log."""

Update = Callable[[str, Tensor], None]
"""Called with an optimiser's name and its loss: backward, average, clip, step."""


States = Mapping[str, Tensor]
"""A state dict."""

ValidationProtocol = Literal["restores", "reblurs", "draws"]
"""How a training is validated: its images are compared with the sharp ones; they are made with the
blur of their own pair and compared with the blurry ones; or several new blurs of each sharp image
are compared with it and with each other."""


class Recipe(ABC):
    """One published training method: its networks, its optimisers, one step.

    `networks` are saved under their names, the roles of the checkpoint; `helpers` (a feature
    network, say) move to the device with them but are not saved. `images` are what a batch holds.
    `provenance` is what a checkpoint says of the helpers.
    """

    images: tuple[str, ...] = ("blur", "sharp")
    validation: ValidationProtocol = "restores"

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.networks: dict[str, nn.Module] = {}
        self.helpers: list[nn.Module] = []
        self.provenance: dict[str, Any] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.drawing = 0, slice(0, configuration.batch)
        """The step, and which of its crops are this process's; the loop keeps it."""

    @abstractmethod
    def step(self, batch: Batch, update: Update) -> Losses:
        """One training step, calling `update` once for each optimiser."""

    def check_collapse(self, losses: Mapping[str, float]) -> str:
        """Return a warning when these losses show that the training has collapsed, else "".

        Called for every line of the log, with finite losses only.
        """
        return ""

    def in_common(self, own: States, given: States) -> tuple[States, States]:
        """Return the tensors that a network of this training and another's in its role must share.

        Called with their state dicts where a training begins with the other's weights.
        """
        return own, given

    def learning_rate(self, optimizer: str, step: int) -> float:
        """The learning rate of the named optimiser at `step`: a cosine from start to end."""
        c = self.configuration
        fraction = min(step / (c.schedule_iterations or c.iterations), 1.0)
        fall = (1 + math.cos(math.pi * fraction)) / 2
        return c.final_learning_rate + (c.learning_rate - c.final_learning_rate) * fall

    def noise(self, *shape: int) -> Tensor:
        """Normal noise (crops of this process, *shape), on the CPU: from seed and step alone."""
        step, share = self.drawing
        generator = torch.Generator().manual_seed(self.configuration.seed + (step << 20))
        return torch.randn(self.configuration.batch, *shape, generator=generator)[share]

    def adam(self, *networks: nn.Module) -> torch.optim.Adam:
        """Adam over the trainable parameters of `networks`, as configured."""
        c = self.configuration
        return torch.optim.Adam(trainable(*networks), c.learning_rate, betas=(c.beta1, c.beta2))


@dataclass(frozen=True)
class Plan:
    """A training that can start: its configuration, and what makes the recipe once a seed is set.

    `unpaired` are shards of blurry photos, or folders of them, to learn from beside the pairs.
    """

    configuration: Configuration
    build: Callable[[], Recipe]
    unpaired: Sequence[Path] = ()


def trainable(*networks: nn.Module) -> list[nn.Parameter]:
    """The parameters of `networks` that are trained."""
    return [p for network in networks for p in network.parameters() if p.requires_grad]
