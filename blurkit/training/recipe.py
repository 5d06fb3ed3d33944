"""What a recipe is to the training loop."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blurkit.training.configuration import Configuration

Batch = Mapping[str, Tensor]
"""Images by name (`blur`, `sharp`): (N, 3, crop, crop) float32 in [0, 1], channels last."""

Losses = dict[str, Tensor]
"""Detached scalars by name, for the log."""

Update = Callable[[str, Tensor], None]
"""Called with an optimiser's name and its loss: backward, average, clip, step."""


class Recipe(ABC):
    """One published training method: its networks, its optimisers, one step.

    `networks` are saved under their names, the roles of the checkpoint; `helpers` (a feature
    network, say) move to the device with them but are not saved. `images` are what a batch holds.
    `provenance` is what a checkpoint tells of the helpers.
    """

    images: tuple[str, ...] = ("blur", "sharp")

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

    def trouble(self, losses: Mapping[str, float]) -> str:
        """What is wrong with a training that logs these losses, if anything; else nothing.

        Called for every line of the log; finite losses only.
        """
        return ""

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


def trainable(*networks: nn.Module) -> list[nn.Parameter]:
    """The parameters of `networks` that are trained."""
    return [p for network in networks for p in network.parameters() if p.requires_grad]
