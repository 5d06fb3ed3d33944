"""Cut an image into tiles and join the results: the papers' slices, and blended tiles."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

RunTiles = Callable[[np.ndarray], np.ndarray]
"""Maps images (N, 3, H, W) in [0, 1] to the same shape."""


def starts(length: int, tile: int, overlap: int = 0) -> list[int]:
    """Return where tiles of `tile` pixels start along a side of `length` pixels.

    They overlap by `overlap` pixels or more and are evenly spaced, except that the last one ends at
    the border. A single tile is used where it suffices.
    """
    if length <= tile:
        return [0]
    count = math.ceil((length - overlap) / (tile - overlap))
    step = math.ceil((length - tile) / (count - 1))
    return [min(i * step, length - tile) for i in range(count)]


def slices(height: int, width: int, size: int) -> list[tuple[int, int]]:
    """Return the (top, left) of MSDI-Net's test slices (section 4.2: 256x256 slices).

    They are evenly spaced and as few as cover the image; 1280x720 gives rows 0, 232, 464 and
    columns 0, 256, 512, 768, 1024.
    """
    return [(top, left) for top in starts(height, size) for left in starts(width, size)]


def run_slices(run: RunTiles, image: np.ndarray, size: int, batch: int = 1) -> np.ndarray:
    """Return the results of `run` on every slice of `image` (1, 3, H, W), averaged uniformly.

    This is the test protocol of MSDI-Net and HINet. H and W must be at least `size`. The result is
    not clamped.
    """
    places = slices(image.shape[2], image.shape[3], size)
    total = np.zeros_like(image)
    hits = np.zeros_like(image[:, :1])
    for first in range(0, len(places), batch):
        group = places[first : first + batch]
        tiles = np.concatenate([image[:, :, y : y + size, x : x + size] for y, x in group])
        for (top, left), result in zip(group, run(tiles), strict=True):
            total[0, :, top : top + size, left : left + size] += result
            hits[0, :, top : top + size, left : left + size] += 1
    return total / hits


@dataclass(frozen=True)
class TileInputs:
    """A batch of a network's inputs.

    `images` are the image and its guides, each (N, 3, H, W). `maps` are conditions with a value for
    each location in the image, (N, C, rows, columns); `shared` are conditions common to all tiles.
    """

    images: tuple[np.ndarray, ...]
    maps: dict[str, np.ndarray] = field(default_factory=dict)
    shared: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images[0])

    def __getitem__(self, chosen: slice | np.ndarray) -> TileInputs:
        """Return the part of the batch selected by a slice or mask."""
        maps = {name: values[chosen] for name, values in self.maps.items()}
        return TileInputs(tuple(image[chosen] for image in self.images), maps, self.shared)

    def cut(self, top: int, left: int, side: int) -> TileInputs:
        """Return the tile of `side` pixels at (top, left) of every image.

        A guide's tile is taken from the same relative position, at the guide's own scale. A map is
        cut to the cells whose centres are nearest to those of the tile's cells.
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
        return TileInputs(tuple(images), maps, self.shared)


def together(batch: Sequence[TileInputs]) -> TileInputs:
    """Concatenate batches of the same image size into one."""
    first = batch[0]
    images = zip(*(inputs.images for inputs in batch), strict=True)
    maps = {name: np.concatenate([inputs.maps[name] for inputs in batch]) for name in first.maps}
    return TileInputs(tuple(map(np.concatenate, images)), maps, first.shared)


def _same_place(start: int, margin: int, guide_margin: int) -> int:
    """Return the start of a guide's tile; margins are image sides minus tile sides, in pixels."""
    return round((start / margin if margin else 0.5) * guide_margin)


def _places(start: int, side: int, length: int, count: int) -> np.ndarray:
    """Return the map cells of a tile's side; an image side has `length` pixels, `count` cells."""
    stride = length // count
    return (start + stride // 2 + stride * np.arange(side // stride)) // stride


def window(tile: tuple[int, int], overlap: int) -> np.ndarray:
    """Return the blending weights (H, W, 1) of a tile: 1 inside, a cosine ramp of `overlap` pixels.

    The weights of two tiles that overlap by exactly `overlap` add up to 1. The outermost pixels,
    where a network lacks context, hardly count.
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
        """Add `tile` (h, w, C) with its upper left corner at (top, left)."""
        height, width = tile.shape[:2]
        weight = window((height, width), self._overlap)
        place = (slice(top, top + height), slice(left, left + width))
        self._total[place] += tile * weight
        self._weight[place] += weight

    def image(self) -> np.ndarray:
        """Return the blended image (H, W, C) float32; the canvas cannot be used afterwards."""
        self._total /= self._weight
        return self._total
