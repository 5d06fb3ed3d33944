"""What networks are good for: the interface between a system's networks and the tasks.

`inference` of a system has a function for each use that its `SYSTEM` names: from the networks of a
checkpoint by role it gives the one to run, or None where a part is missing.

    deblurring(networks)                  image -> restored image
    reblurring(networks)                  image, guides -> image with the blur of the guides
    interpolation(networks, deblur)       image, two guides, amount, spherical -> image
    random(networks), noise(networks)     image, what was drawn -> image with a new blur
    coding(networks)                      image, code -> image with the blur of the code
    deconvolving(networks)                what undoes a kernel that is known
    search(networks)                      what blurs in a blind search

An `Engine` runs what comes back. It reads the attribute `size`, a `SizeRequirement`; `guides` are
the images of another record that go behind the image, by role; `stage` is the part of packed
weights' configuration that tells the size of the training crops.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import Checkpoint
from blurkit.systems.roles import assemble, held
from blurkit.systems.system import Use, inference, providers

WORDS: dict[Use, str] = {
    "random": "drawing blur",
    "noise": "drawing blur from noise",
    "coding": "a blur code",
    "deconvolving": "a kernel",
    "search": "the blind search",
}
"""What messages call a use, where that is not its name."""

DEFAULT_TILE = 256


class Reblurrer(nn.Module):
    """A network that gives a photo the blur of `guides`, images of another record by role."""

    guides: tuple[str, ...] = ("blur",)

    def drawn(self, image: np.ndarray, generator: np.random.Generator) -> dict[str, Tensor]:
        """Return what it draws anew for every photo (H, W, C), as conditions for an `Engine`."""
        return {}


class Drawer(nn.Module):
    """A network that gives a photo a new blur, or that of a code.

    `use` is random or noise, `scale` the deviation of what is drawn.
    """

    use: Use
    scale: float

    def drawn(
        self, image: np.ndarray, generator: np.random.Generator, scale: float
    ) -> dict[str, Tensor]:
        """Return what the blur of a photo (H, W, C) is made of, as conditions for an `Engine`."""
        raise NotImplementedError

    def condition(self, code: np.ndarray, image: np.ndarray) -> dict[str, Tensor]:
        """Return a code that is known as the condition for an image (H, W, C).

        Raises BlurkitError for one that the network does not accept.
        """
        raise NotImplementedError

    def kept(self, drawn: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
        """Return the attributes by which a record tells what was drawn."""
        return {}


def network_for(
    use: Use | tuple[Use, ...],
    checkpoint: Checkpoint,
    *beside: Checkpoint,
    system: str | None = None,
    **options: Any,
) -> nn.Module:
    """Return the network of a checkpoint for a use, or for the first of several, in eval mode.

    Encoder and latents come from the files `beside` it where these are given. `system` is the name
    of the one that it has to be of. Raises BlurkitError naming what the checkpoint holds if that is
    not enough, UsageError if it is of another system or does not accept what is beside it.
    """
    networks = assemble(checkpoint, *beside)
    uses = (use,) if isinstance(use, str) else use
    for one in uses:
        for folder, provider in providers(one).items():
            if system in (None, provider.name):
                try:
                    network: nn.Module | None = getattr(inference(folder), one)(networks, **options)
                except BlurkitError as error:
                    raise type(error)(f"{checkpoint.where}: {error}") from error
                if network is not None:
                    if beside and not provider.companions:
                        raise UsageError(
                            f"{checkpoint.where}: {provider.title} does not accept --encoder"
                        )
                    return network.eval()
    if system is not None:
        raise UsageError(f"{checkpoint.where}: holds {held(networks)}, not --system {system}")
    needs = "; or ".join(system.uses[one] for one in uses for system in providers(one).values())
    words = WORDS.get(uses[-1], uses[-1])
    raise BlurkitError(f"{checkpoint.where}: holds {held(networks)}; {words} needs {needs}")


def trained_tile(checkpoint: Checkpoint, network: nn.Module) -> int:
    """Return the side of the crops that a checkpoint's network was trained on, so that an encoder
    sees what it knows; else 256. Packed weights have a configuration for each stage.
    """
    configuration = checkpoint.configuration
    stage = configuration.get(getattr(network, "stage", "deblur"), configuration)
    return int(stage.get("crop", DEFAULT_TILE))
