"""What image sizes a network takes: read by padding and tiling alike."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]
InputShapes = list[Shape | list[Shape]]
"""The shapes of a network's inputs; a list of shapes is one input of several tensors."""


@dataclass(frozen=True)
class SizeRequirement:
    """A network's smallest height and width, and what both must be multiples of, in pixels."""

    minimum: int = 1
    multiple: int = 1

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """The smallest valid (height, width) that holds an image of `height` x `width` pixels."""
        return self._side(height), self._side(width)

    def _side(self, length: int) -> int:
        return -(-max(length, self.minimum) // self.multiple) * self.multiple
