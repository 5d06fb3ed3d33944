"""The interface between a training recipe and the training loop, and parts of recipes."""

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import Checkpoint
from blurkit.nn.features import BACKBONES, VARIABLE, FeatureNetwork, find_features, load_features
from blurkit.options import Protocol as WholeProtocol
from blurkit.reports.progress import say
from blurkit.training.configuration import Configuration
from blurkit.training.distributed import Processes

Batch = dict[str, Tensor]
"""Images by name (`blur`, `sharp`): (N, 3, crop, crop) float32 in [0, 1], channels last; and what
else a recipe's own samples have, (N, ...)."""

Losses = dict[str, Tensor]
"""Scalars by name, for the log."""

Update = Callable[[str, Tensor], None]
"""Called with an optimiser's name and what it minimises; runs backward and updates."""

States = Mapping[str, Tensor]
"""A state dict."""

Validate = Callable[[Checkpoint, Processes, Path | None, int], dict[str, float]]
"""Returns the scores of (checkpoint, by all processes, folder for pictures or None, step) by name.
"""


class Samples(Protocol):
    """The samples of a training; those of a step depend on the seed and the step alone.

    Their number is that of the scenes or photos that they are drawn from.
    """

    def __len__(self) -> int: ...

    def load(self, step: int, part: slice) -> Any:
        """Return the samples of a step that this process has, as arrays; may run in another one."""

    def to_device(self, loaded: Any, device: torch.device) -> Batch:
        """Return loaded samples as a batch on a device."""


ValidationKind = Literal["restores", "reblurs", "draws"]
"""How a training is validated: restored images are compared with the sharp ones; sharp images,
reblurred with the blur of their own pair, are compared with the blurry ones; or several newly
blurred versions of each sharp image are compared with it and with each other."""


class Recipe(ABC):
    """A published training method: its networks, its optimisers and what each of them minimises.

    `networks` are saved under their names, the roles of the checkpoint; `helpers` (such as a
    feature network) move to the device with them but are not saved. `images` are the names of the
    images in a batch. `provenance` describes the helpers in the checkpoint. `protocol` is how the
    paper ran its networks on whole images when it measured them; validation does the same. The best
    checkpoint is that with the highest score `best`; some validations do not have it. `code` is the
    user's own code, if that builds a network (`systems.code`).
    """

    images: tuple[str, ...] = ("blur", "sharp")
    validation: ValidationKind = "restores"
    protocol: WholeProtocol = "tiles"
    best: str = "psnr"
    code: Any = None

    def __init__(self, configuration: Configuration) -> None:
        self.configuration = configuration
        self.networks: dict[str, nn.Module] = {}
        self.helpers: list[nn.Module] = []
        self.provenance: dict[str, Any] = {}
        self.optimizers: dict[str, torch.optim.Optimizer] = {}
        self.drawing = 0, slice(0, configuration.batch)
        """The step, and the slice of its crops that are computed; set by the loop."""

    @abstractmethod
    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return what the named optimiser minimises on some crops of a step, and its terms.

        In a step, every optimiser is updated before the loss of the next one is computed; only its
        own parameters require gradients then. Tensors that a loss adds to `batch` are there for the
        losses of the next optimisers. The loss is a mean over the crops, since those of a step may
        be computed in parts: by several processes, or one after another; what has to be compared
        over all of them goes through `gather_values`. It may be called more than once with the same
        crops, and must then return the same.
        """

    def step(self, batch: Batch, update: Update) -> Losses:
        """Run one training step on a whole batch and return the terms of all losses, detached."""
        losses: Losses = {}
        batch = dict(batch)
        for name in self.optimizers:
            with self.training_only(name):
                total, terms = self.loss(name, batch)
                update(name, total)
            losses |= {term: value.detach() for term, value in terms.items()}
        return losses

    @contextmanager
    def training_only(self, optimizer: str) -> Iterator[None]:
        """Let no parameters of other optimisers than the named one require gradients."""
        others = [p for n, o in self.optimizers.items() if n != optimizer for p in parameters_of(o)]
        for parameter in others:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)

    def measures(self, batch: Batch) -> Losses:
        """Return what else the log shows of a step, from its crops, measured for log lines only.

        Among several processes, the first one measures its own crops. The training must stay as it
        is to the bit; the loop sets train mode again.
        """
        return {}

    def check_collapse(self, losses: Mapping[str, float]) -> str:
        """Return a warning if these losses show that the training has collapsed, else "".

        The loop calls it for every log line, with the step's losses and `measures`, all finite.
        """
        return ""

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shapes of one sample in a batch, by name."""
        return dict.fromkeys(self.images, (3, self.configuration.crop, self.configuration.crop))

    def may_differ(self, own: States, given: States) -> set[str]:
        """Return the keys that need not match in a network and in the weights it starts from.

        `own` is the state dict of a network of this training, `given` that of the network in the
        same role from which it is initialised.
        """
        return set()

    def learning_rate(self, optimizer: str, step: int) -> float:
        """Return the learning rate of the named optimiser at `step`, by a cosine schedule."""
        c = self.configuration
        fraction = min(step / (c.schedule_iterations or c.iterations), 1.0)
        fall = (1 + math.cos(math.pi * fraction)) / 2
        return c.final_learning_rate + (c.learning_rate - c.final_learning_rate) * fall

    def noise(self, *shape: int) -> Tensor:
        """Return normal noise (crops of this process, *shape) on the CPU, by seed and step only."""
        step, part = self.drawing
        generator = torch.Generator().manual_seed(self.configuration.seed + (step << 20))
        return torch.randn(self.configuration.batch, *shape, generator=generator)[part]

    def use_features(self, network: FeatureNetwork | None) -> None:
        """Set the feature network of a perceptual loss, or None, as `features` and a helper."""
        self.features = network
        self.helpers = [] if network is None else [network]
        self.provenance = {"features": "none" if network is None else network.name}

    def adam(
        self, *networks: nn.Module, kind: type[torch.optim.Adam] = torch.optim.Adam, **options: Any
    ) -> torch.optim.Adam:
        """Return the configured Adam over the trainable parameters of `networks`."""
        c = self.configuration
        return kind(trainable(*networks), c.learning_rate, (c.beta1, c.beta2), **options)


@dataclass(frozen=True)
class Plan:
    """A training that is ready to start.

    `build` builds the recipe after the seed is set. `unpaired` are shards or folders of blurry
    photos to learn from in addition to the pairs. `samples` makes the samples of a recipe that does
    not learn from crops of pairs from shards, and `validate` its validation from held-out shards.
    """

    configuration: Configuration
    build: Callable[[], Recipe]
    unpaired: Sequence[Path] = ()
    samples: Callable[[Sequence[Path]], Samples] | None = None
    validate: Callable[[Sequence[Path]], Validate] | None = None


def trainable(*networks: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of `networks` that require gradients."""
    return [p for network in networks for p in network.parameters() if p.requires_grad]


def parameters_of(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    """Return all parameters that an optimiser updates."""
    return [p for group in optimizer.param_groups for p in group["params"]]


def weighted(terms: Mapping[str, tuple[float, Tensor]]) -> tuple[Tensor, Losses]:
    """Return the sum of a loss's terms, given the weight and the value of each, and the values."""
    first, *others = (weight * value for weight, value in terms.values())
    return sum(others, first), {name: value for name, (_, value) in terms.items()}


def feature_network(
    want: str, file: str, quiet: bool = False, dry_run: bool = False, layers: Sequence[str] = ()
) -> FeatureNetwork | None:
    """Return the feature network of a perceptual loss, or None for training without it.

    `want` is `features` (required, and downloaded if necessary), `auto` (used if available;
    otherwise a message says so) or `none`. A dry run downloads nothing: it uses an untrained VGG-19
    in place of the one that a run would download. `file` is as for `find_features`, whose errors
    are raised, and `layers` as for `FeatureNetwork`.
    """
    if want == "none":
        return None
    required = want == "features"
    remedy = ", or train without it: --perceptual none"
    try:
        found = find_features(file, required and not dry_run, remedy)
    except BlurkitError:
        if file or os.environ.get(VARIABLE) or (required and not dry_run):
            raise
        if required:
            return FeatureNetwork(BACKBONES[0], layers)
        text = "no feature network found: training without the perceptual loss (see --features)"
        say(text, quiet or dry_run)
        return None
    return load_features(found, layers)


COLLAPSED_LINES = 3
"""Consecutive log lines that count as a collapse; a single batch of four shows little."""


class Patience:
    """Counts consecutive log lines with a bad sign."""

    def __init__(self) -> None:
        self._lines = 0

    def ends(self, bad: bool) -> bool:
        """Count a line; return whether it is the one at which bad lines become a collapse."""
        self._lines = self._lines + 1 if bad else 0
        return self._lines == COLLAPSED_LINES
