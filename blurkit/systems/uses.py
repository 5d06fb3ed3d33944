"""What networks can be used for: the interface between a system's networks and the tasks.

The `inference` module of a system has a function for each use that its `SYSTEM` lists. Given the
networks of a checkpoint by role, it returns the network to run, or None if a part is missing.
Without one for `deblurring`, the system's own network in the role `deblur` is run.

    deblurring(networks)                  image -> restored image
    reblurring(networks)                  image, guides -> image with the blur of the guides
    interpolation(networks, deblur)       image, two guides, amount, spherical -> image
    random(networks), noise(networks)     image, random values -> image with a new blur
    coding(networks)                      image, code -> image with the blur of the code
    deconvolving(networks)                inverts a known kernel
    search(networks)                      blurs in a blind search

An `Engine` runs the returned network. It reads the attribute `size`, a `SizeRequirement`. `guides`
are the roles of another record's images, which follow the image as inputs. `stage` is the key of
the configuration, in packed weights, that holds the size of the training crops.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any

import numpy as np
from torch import Tensor, nn

from blurkit.engine.engine import Engine, SizeRequirement
from blurkit.engine.torch_runner import torch_engine
from blurkit.errors import BlurkitError, Say, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.options import Placement
from blurkit.systems.registry import assemble, describe_networks
from blurkit.systems.system import Use, inference, network_class, providers, systems

WORDS: dict[Use, str] = {
    "random": "random blur",
    "noise": "random blur from noise",
    "coding": "a blur code",
    "deconvolving": "a kernel",
    "search": "the blind search",
}
"""What messages call a use, if not by its name."""


class Reblurrer(nn.Module):
    """A network that gives a photo the blur of `guides`, the roles of another record's images."""

    guides: tuple[str, ...] = ("blur",)

    def drawn(self, image: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Return the random values for a photo (H, W, C), as conditions for an `Engine`."""
        return {}


class Drawer(nn.Module, ABC):
    """A network that gives a photo a random blur (`use`), by default of the deviation `scale`."""

    use: Use
    scale: float

    @abstractmethod
    def drawn(
        self, image: np.ndarray, generator: np.random.Generator, scale: float
    ) -> dict[str, Tensor]:
        """Return random values for the blur of a photo (H, W, C), as conditions for an `Engine`."""

    def typical(
        self, image: np.ndarray, generator: np.random.Generator
    ) -> tuple[dict[str, Tensor], float | None]:
        """Return the random values to use by default, and their deviation if they are normal."""
        return self.drawn(image, generator, self.scale), self.scale

    def kept(self, drawn: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Return the attributes of a record that hold the random values."""
        return {}


class Coder(Drawer):
    """A network that gives a photo the blur of a code, given or random."""

    @abstractmethod
    def condition(self, code: np.ndarray, image: np.ndarray) -> dict[str, Tensor]:
        """Return a code as a condition for an image (H, W, C). Raises BlurkitError for bad ones."""


def network_for(
    use: Use | tuple[Use, ...],
    checkpoint: Checkpoint,
    *others: Checkpoint,
    system: str | None = None,
    networks: dict[str, nn.Module] | None = None,
    **options: Any,
) -> nn.Module:
    """Return the network of a checkpoint for a use, or for the first of several, in eval mode.

    Encoder and latents are taken from the `others`, if any; `networks` are what `assemble` has made
    of all, if it was called. Raises BlurkitError, naming the checkpoint's networks, if they do not
    suffice, and UsageError if it is not of the `system`, if given, or does not accept an encoder.
    """
    networks = assemble(checkpoint, *others) if networks is None else networks
    uses = (use,) if isinstance(use, str) else use
    for name in uses:
        for folder, provider in providers(name).items():
            if system in (None, provider.name):
                try:
                    network = _function(folder, name)(networks, **options)
                except BlurkitError as error:
                    raise type(error)(f"{checkpoint.where}: {error}") from error
                if network is not None:
                    if others and not provider.companions:
                        raise UsageError(
                            f"{checkpoint.where}: {provider.title} does not accept --encoder"
                        )
                    return network.eval()
    holds = f"{checkpoint.where}: holds {describe_networks(networks)}"
    if system is not None:
        raise UsageError(f"{holds}, not --system {system}")
    needs = "; or ".join(system.uses[name] for name in uses for system in providers(name).values())
    task = WORDS.get(uses[-1], uses[-1])
    raise BlurkitError(f"{holds}; {task} needs {needs}")


def _function(folder: str, use: Use) -> Callable[..., nn.Module | None]:
    """Return a system's function for a use; without one, its own network `deblur` deblurs."""
    module = f"blurkit.systems.{folder}.inference"
    if find_spec(module) and hasattr(inference(folder), use):
        return getattr(inference(folder), use)
    own = (a for a in systems()[folder].architectures if a.role == "deblur")
    kinds = tuple(network_class(folder, architecture) for architecture in own)
    return lambda networks: n if isinstance(n := networks.get("deblur"), kinds) else None


def trained_tile(checkpoint: Checkpoint, network: nn.Module) -> int:
    """Return the side of the crops that a checkpoint's network was trained on, in pixels.

    Of a checkpoint that does not say, it is 256, or the next side that the network takes.
    An encoder then sees images like those of its training. Packed weights have a configuration for
    each stage. Raises BlurkitError if the checkpoint states something else.
    """
    configuration = checkpoint.configuration
    stage = configuration.get(getattr(network, "stage", "deblur"), configuration)
    default = getattr(network, "size", SizeRequirement()).padded(Engine.tile, Engine.tile)[0]
    crop = stage.get("crop", default) if isinstance(stage, dict) else stage
    if type(crop) is not int or crop < 1:
        raise BlurkitError(f"{checkpoint.where}: damaged, its crops have {str(crop)[:50]!r} pixels")
    return crop


# ---- Engines -------------------------------------------------------------------------------------


def start_engine(
    use: Use | tuple[Use, ...],
    checkpoint: Checkpoint,
    *others: Checkpoint,
    placement: Placement = Placement(),
    warn: Say = warnings.warn,
    **options: Any,
) -> Engine:
    """Return the engine that runs the network of a checkpoint for a use.

    `others` and `options` are those of `network_for`. The default tile is the size of the crops
    that the network was trained on. A network that says that it is not `tiled` runs on whole
    images, unless a tile or an overlap is given. Raises as `network_for` and `torch_engine` do.
    """
    network = network_for(use, checkpoint, *others, **options)
    if placement.protocol == "own":
        placement = replace(placement, protocol=getattr(network, "protocol", "tiles"))
    if not getattr(network, "tiled", True) and placement.protocol == "tiles":
        if placement.tile is None and placement.overlap is None:
            placement = replace(placement, protocol="whole")
        else:
            warn(f"{network.name} is meant for whole images; tiles may differ from each other")
    if placement.tile is None:
        placement = replace(placement, tile=trained_tile(checkpoint, network))
    engine = torch_engine(network, placement, warn)
    engine.name = checkpoint.name
    return engine


# ---- Blind search --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Estimate:
    """The blur of a photo (H, W, 3) and the deblurred photo, both found by another method.

    `kernel` (side, side) is a kernel of true convolution: values from 0, sum 1, origin in the
    middle. `picture` (1, 3, H, W) is in [0, 1]. `trust`, from 0 to 1, is how reliable the estimate
    is, and `believed` is whether that suffices to start from it.
    """

    kernel: Tensor
    picture: Tensor
    trust: float
    believed: bool

    def doubt(self) -> str:
        """Return the reason why a search cannot start from this estimate."""
        if not self.believed:
            return f"no estimated blur is believed (trust {self.trust:.2f})"
        return f"the estimated blur needs --kernel-size {self.kernel.shape[-1]}"


Estimator = Callable[[np.ndarray], Estimate]
"""A function that returns the estimate for a photo (H, W, 3), float32 in [0, 1]."""
