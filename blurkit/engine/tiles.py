"""Cutting an image into tiles and joining the results: the papers' slices, and blended tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor | Sequence[Tensor]]
"""An image batch (N, 3, H, W) in [0, 1] to one like it; of several outputs the last is meant."""


def starts(length: int, tile: int, overlap: int = 0) -> list[int]:
    """Where tiles of `tile` pixels start along a side of `length`, `overlap` or more in common.

    Evenly spaced, the last one moved back to end at the border; one tile where one suffices.
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    step = math.ceil((length - tile) / (count - 1))
    return [min(i * step, length - tile) for i in range(count)]


def slices(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """(top, left) of the slices that MSDI-Net is tested on (section 4.2: 256x256 slices).

    As few as cover the image, evenly spaced; 1280x720 gives rows 0, 232, 464 and columns 0, 256,
    512, 768, 1024.
    """
    return [(top, left) for top in starts(height, size) for left in starts(width, size)]


def run_slices(network: Network, image: Tensor, size: int, batch: int = 1) -> Tensor:
    """`network` on every slice of `image` (1, 3, H, W), uniformly averaged where they overlap.

    The test protocol of MSDI-Net and HINet; H and W at least `size`. Not clamped.
    """
    places = slices(image.shape[2], image.shape[3], size)
    total = torch.zeros_like(image)
    hits = torch.zeros_like(image[:, :1])
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        tiles = torch.cat([image[:, :, y : y + size, x : x + size] for y, x in group])
        for (top, left), result in zip(group, last_output(network(tiles)), strict=True):
            total[0, :, top : top + size, left : left + size] += result
            hits[0, :, top : top + size, left : left + size] += 1
    return total / hits


def last_output(output: Tensor | Sequence[Tensor]) -> Tensor:
    """The final image of a network that returns one per stage, or its only one."""
    return output if isinstance(output, Tensor) else output[-1]


@dataclass(frozen=True)
class Inputs:
    """A batch of what a network takes.

    `images` are the image and its guides, (N, 3, H, W) each; `maps` are conditions with a value for
    each place of the image, (N, C, rows, columns), `shared` those that all tiles have in common.
    """

    images: tuple[Tensor, ...]
    maps: dict[str, Tensor] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images[0])

    def __getitem__(self, chosen: slice | Tensor) -> Inputs:
        """Return some of the batch, by slice or mask."""
        maps = {name: values[chosen] for name, values in self.maps.items()}
        return Inputs(tuple(image[chosen] for image in self.images), maps, self.shared)

    def cut(self, top: int, left: int, side: int) -> Inputs:
        """Return the tile at (top, left) of every image.

        With it goes a guide's tile from the same place of the picture, at its own scale, and the
        part of a map whose places have their middle nearest to those of the tile.
        """
        height, width = self.images[0].shape[2:]
        images = []
        for image in self.images:
            y = _same_place(top, height - side, image.shape[2] - side)
            x = _same_place(left, width - side, image.shape[3] - side)
            images.append(image[:, :, y : y + side, x : x + side])
        maps = {
            name: values[:, :, _places(top, side, height, values.shape[2])][
                :, :, :, _places(left, side, width, values.shape[3])
            ]
            for name, values in self.maps.items()
        }
        return Inputs(tuple(images), maps, self.shared)

    def to(self, device: torch.device) -> Inputs:
        """Return the batch on `device`, its images with channels last."""
        moved = (image.to(device) for image in self.images)
        return Inputs(
            tuple(image.contiguous(memory_format=torch.channels_last) for image in moved),
            {name: values.to(device) for name, values in self.maps.items()},
            {
                name: value.to(device) if isinstance(value, Tensor) else value
                for name, value in self.shared.items()
            },
        )


def together(batch: Sequence[Inputs]) -> Inputs:
    """Return several batches of one size as one."""
    first = batch[0]
    images = zip(*(one.images for one in batch), strict=True)
    maps = {name: torch.cat([one.maps[name] for one in batch]) for name in first.maps}
    return Inputs(tuple(map(torch.cat, images)), maps, first.shared)


def _same_place(start: int, room: int, other_room: int) -> int:
    """Where a tile at `start` of `room` pixels starts in a picture with `other_room`."""
    return round((start / room if room else 0.5) * other_room)


def _places(start: int, side: int, length: int, count: int) -> Tensor:
    """The places of a tile's side, of `count` along an image's side of `length` pixels."""
    stride = length // count
    return (start + stride // 2 + stride * torch.arange(side // stride)) // stride


def window(tile: tuple[int, int], overlap: int) -> np.ndarray:
    """Blending weights (H, W, 1) of a tile: 1 inside, falling as a cosine over `overlap` pixels.

    Two that overlap by just that add up to 1, and the outermost pixels, where a network lacks
    context, hardly count.
    """
    ramps = []
    for side in tile:
        distance = np.minimum(np.arange(side) + 1, side - np.arange(side))
        ramps.append(np.sin(np.pi / 2 * np.minimum(distance / (overlap + 1), 1)) ** 2)
    return np.outer(*ramps).astype(np.float32)[:, :, None]


class Canvas:
    """Collects overlapping tiles of an image (H, W, C) and blends them without seams."""

    def __init__(self, height: int, width: int, channels: int, overlap: int) -> None:
        self._overlap = overlap
        self._total = np.zeros((height, width, channels), np.float32)
        self._weight = np.zeros((height, width, 1), np.float32)

    def add(self, top: int, left: int, tile: np.ndarray) -> None:
        """Lay `tile` (h, w, C) with its upper left corner at (top, left)."""
        height, width = tile.shape[:2]
        weight = window((height, width), self._overlap)
        place = (slice(top, top + height), slice(left, left + width))
        self._total[place] += tile * weight
        self._weight[place] += weight

    def image(self) -> np.ndarray:
        """The blended image (H, W, C) float32; the canvas is used up."""
        self._total /= self._weight
        return self._total
