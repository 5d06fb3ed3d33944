"""A network of a user's own code, as the engine and the training run it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from blurkit.engine.engine import SizeRequirement
from blurkit.errors import BlurkitError
from blurkit.nn.blocks import Wrapper
from blurkit.systems.code import UserCode, blamed


class UserNetwork(Wrapper):
    """The network that `code`, a class or function, makes of `options`.

    It maps images (N, 3, H, W) in [0, 1] to the same shape, or to several results of which the last
    is one; code that fails or makes anything else raises BlurkitError. The sides that it takes are
    multiples of the module's `multiple`; without one, blurkit tries which power of 2 divides them.
    """

    any_layout = False  # its code may use views, which channels-last forbids

    def __init__(self, code: UserCode, options: Mapping[str, Any]) -> None:
        super().__init__()
        self.code, self.options, self.name = code, dict(options), code.name
        # Its tensors are real and initialised, even where networks are built without memory.
        with torch._C.DisableTorchFunction():
            model = code(**options)
            if not isinstance(model, nn.Module):
                kind = type(model).__name__
                raise BlurkitError(f"{code.name}: makes a {kind}, not a torch.nn.Module")
            self.model = model
            stated = getattr(model, "multiple", None)
            self.size = SizeRequirement(1, stated if type(stated) is int else self._found())

    @torch.no_grad()
    def _found(self) -> int:
        """Return the power of 2 that must divide the sides of images."""
        self.eval()  # the training and the engine choose their mode later
        reasons = []
        for multiple in (1, 2, 4, 8, 16, 32, 64, 128, 256):
            odd = -(-64 // multiple) | 1  # for sides of 64 pixels or more
            image = torch.zeros(1, 3, multiple * odd, multiple * odd)
            try:
                result = self(image)
            except BlurkitError as error:
                reasons.append(str(error).removeprefix(self.name))
                continue
            last = result[-1] if isinstance(result, (list, tuple)) else result
            if isinstance(last, Tensor) and last.shape == image.shape:
                return multiple
            shape = list(last.shape) if isinstance(last, Tensor) else type(last).__name__
            reasons.append(f": makes {shape} of {list(image.shape)}")
        raise BlurkitError(f"{self.name}{reasons[0]}; it must return an image of the same size")

    def forward(self, image: Tensor) -> Any:
        """Return what the module makes of `image`. Raises BlurkitError for what it raises."""
        with blamed(self.name, self.code.file):
            return self.model(image.contiguous())


def deblurring(networks: Mapping[str, nn.Module]) -> UserNetwork | None:
    """Return the network that restores an image."""
    network = networks.get("deblur")
    return network if isinstance(network, UserNetwork) else None
