"""The image sizes that a network accepts, used for padding and tiling."""

from __future__ import annotations

from dataclasses import dataclass

Shape = tuple[int, ...]
InputShapes = list[Shape | list[Shape]]
"""The shapes of a network's inputs, as `input_shapes` returns them for an image of a height and a
width in pixels; a list of shapes is one input of several tensors."""


@dataclass(frozen=True)
class SizeRequirement:
    """A network's smallest side and the divisor of its sides in pixels; `square`: equal sides."""

    minimum: int = 1
    multiple: int = 1
    square: bool = False

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the smallest valid (height, width) that holds `height` x `width` pixels."""
        sides = self._side(height), self._side(width)
        return (max(sides), max(sides)) if self.square else sides

    def _side(self, length: int) -> int:
        return -(-max(length, self.minimum) // self.multiple) * self.multiple
