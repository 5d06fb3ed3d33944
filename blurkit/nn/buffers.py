"""The buffers of networks, such as running statistics, kept and put back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

Values = list[Tensor]
"""The values of all buffers, in order."""


class Buffers:
    """The buffers of some modules, which every forward pass in train mode may change.

    They are the running statistics of batch norms and the vectors of spectral norms.
    """

    def __init__(self, modules: Iterable[nn.Module]) -> None:
        held = {id(part): part for module in modules for part in module.modules()}
        self._places = [
            (part._buffers, name)
            for part in held.values()
            for name, value in part._buffers.items()
            if value is not None
        ]

    def values(self) -> Values:
        """Return copies of the buffers' values."""
        return [
            value.clone() for buffers, name in self._places if (value := buffers[name]) is not None
        ]

    def put(self, values: Values) -> None:
        """Replace the buffers by copies of `values`.

        They are new tensors, since a backward pass may still need the old ones.
        """
        for (buffers, name), value in zip(self._places, values, strict=True):
            buffers[name] = value.clone()

    @contextmanager
    def borrowed(self, values: Values) -> Iterator[None]:
        """Give the buffers these values for a while, whatever happens to them meanwhile."""
        own = self.values()
        self.put(values)
        try:
            yield
        finally:
            self.put(own)
