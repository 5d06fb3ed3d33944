"""The engine, which runs any restoration network on images of any size. Imports no torch."""

from __future__ import annotations

import math
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from blurkit.errors import BlurkitError, Say, UsageError
from blurkit.options import Protocol

OVERLAP = 32
"""The default overlap of tiles, in pixels."""

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
        multiple = self.multiple
        rows, columns = (-(-max(n, self.minimum) // multiple) * multiple for n in (height, width))
        return (max(rows, columns), max(rows, columns)) if self.square else (rows, columns)


class Runner(ABC):
    """A network on a device.

    `network` is what runs, `size` the sides it takes, `batch` the number of tiles that it takes at
    once, `precision` and `device` the names of the number format and the kind of device.
    """

    network: Any
    size: SizeRequirement
    batch: int
    precision: str
    device: str

    @abstractmethod
    def __call__(self, inputs: TileInputs, exact: bool = False) -> np.ndarray | None:
        """Return images (N, 3, H, W) float32, also computed so if `exact`; None without memory."""


@dataclass
class Engine:
    """Runs a network over whole images: padding, tiles, recovery from errors.

    The network of `runner` maps (N, 3, H, W) in [0, 1] to the same shape. After the image it takes
    its guides, each (N, 3, H, W), and its conditions by name.

    With the protocol "tiles", images smaller than `tile` pixels a side are padded by reflection;
    larger ones are cut into tiles that overlap by `overlap` pixels (None: 32, or half a small tile)
    and are blended. The other protocols follow the papers' measurements: "slices" averages tiles
    uniformly; "whole" runs the image in one piece, reflected at the right and bottom to a valid
    size; "local" does the same with a network whose means are local, as for training crops of
    `tile` pixels. `warn` is called for everything that has to be repeated. `name` is that of the
    network's file.
    """

    runner: Runner
    tile: int = 256
    overlap: int | None = None
    protocol: Protocol = "tiles"
    warn: Say = warnings.warn
    name: str = ""

    def __post_init__(self) -> None:
        self.size = self.runner.size
        if self.protocol == "tiles":  # tiles are square, images need not be
            self.size = replace(self.size, square=False)
        if self.tile % self.size.multiple or self.tile < self.size.minimum:
            raise UsageError(
                f"--tile {self.tile}: this network needs a multiple of {self.size.multiple}, "
                f"at least {self.size.minimum}"
            )
        half = self.tile // 2
        self._overlap = min(OVERLAP, half) if self.overlap is None else self.overlap
        if self.protocol == "tiles" and not 0 <= self._overlap <= half:
            raise UsageError(f"--overlap {self._overlap}: from 0 to half the tile ({self.tile})")
        self._batch = self.runner.batch

    def describe(self) -> dict[str, str | int]:
        """Return the settings that, besides the weights, determine the result."""
        settings: dict[str, str | int] = {"protocol": self.protocol}
        if self.protocol != "whole":
            overlap = self._overlap if self.protocol == "tiles" else 0
            settings |= {"tile": self.tile, "overlap": overlap}
        return settings | {"precision": self.runner.precision, "device": self.runner.device}

    def summary(self) -> str:
        """Return `describe` as one line, as stored in records."""
        return " ".join(f"{key}={value}" for key, value in self.describe().items())

    def __call__(self, image: np.ndarray, *guides: np.ndarray, **conditions: Any) -> np.ndarray:
        """Return the restored image (H, W, C), float32, not clamped, for an image in [0, 1].

        Any size from 1x1 is allowed; C = 1 runs as gray RGB and is averaged afterwards. `guides`
        are images of any size; each tile comes with the guide's tile from the same relative
        position, at the guide's own scale. Conditions (C, rows, columns) are maps of the image,
        padded with it, and each tile gets its part of them, (N, C, ...).
        All other conditions are passed to the network unchanged.

        Raises BlurkitError if values are not finite even in float32, or if memory does not suffice
        for the smallest tile.
        """
        height, width, channels = image.shape
        inputs = self._inputs(image, guides, conditions)
        if self.protocol in ("tiles", "slices"):
            restored = self._run_tiles(inputs)
        else:
            restored = self._run_safely(inputs)[0].transpose(1, 2, 0)
        restored = restored[:height, :width]
        return restored.mean(axis=2, keepdims=True) if channels == 1 else restored

    def _inputs(
        self, image: np.ndarray, guides: Sequence[np.ndarray], conditions: Mapping[str, Any]
    ) -> TileInputs:
        """Return the padded inputs as a batch of one."""
        padded = [self._pad(picture) for picture in (image, *guides)]
        images = tuple(np.ascontiguousarray(p).transpose(2, 0, 1)[None] for p in padded)
        maps, shared = {}, {}
        for name, value in conditions.items():
            if getattr(value, "ndim", 0) == 3:
                maps[name] = self._pad_map(np.asarray(value), image.shape, padded[0].shape)
            else:
                shared[name] = value
        return TileInputs(images, maps, shared)

    def _pad_map(self, values: np.ndarray, given: Shape, padded: Shape) -> np.ndarray:
        """Return a map (C, rows, columns), reflected like its image, as (1, C, rows', columns')."""
        least = self.size.padded(*given[:2])
        sides = zip(values.shape[1:], least, padded, strict=False)
        more = [(0, rows * wanted // length - rows) for rows, length, wanted in sides]
        return np.pad(values, ((0, 0), *more), mode="symmetric")[None]

    def _pad(self, image: np.ndarray) -> np.ndarray:
        """Return the image as RGB, extended by reflection to a valid size, or to a tile."""
        if image.shape[2] == 1:
            image = np.repeat(image, 3, axis=2)
        height, width = image.shape[:2]
        least = self.tile if self.protocol in ("tiles", "slices") else 1
        wanted = [max(side, least) for side in (height, width)]
        if self.protocol != "slices":
            wanted = list(self.size.padded(*wanted))
        if wanted == [height, width]:
            return image
        mode: Literal["reflect", "edge"] = "reflect" if min(height, width) > 1 else "edge"
        return np.pad(image, ((0, wanted[0] - height), (0, wanted[1] - width), (0, 0)), mode=mode)

    def _run_tiles(self, inputs: TileInputs) -> np.ndarray:
        height, width = inputs.images[0].shape[2:]
        overlap = self._overlap if self.protocol == "tiles" else 0  # averages slices uniformly
        canvas = Canvas(height, width, 3, overlap)
        places = slices(height, width, self.tile, overlap)
        while places:  # the batch size may shrink meanwhile
            group, places = places[: self._batch], places[self._batch :]
            tiles = together([inputs.cut(*place, self.tile) for place in group])
            for (top, left), result in zip(group, self._run_safely(tiles), strict=True):
                canvas.add(top, left, result.transpose(1, 2, 0))
        return canvas.image()

    def _run_safely(self, tiles: TileInputs, exact: bool = False) -> np.ndarray:
        """Run a batch; repeat it in float32 if not finite, or in smaller parts if out of memory."""
        result = self.runner(tiles, exact)
        if result is None:
            return self._run_halved(tiles, exact)
        broken = ~np.isfinite(result).all((1, 2, 3))
        if not broken.any():
            return result
        name = self.runner.precision
        if exact or name == "float32":
            raise BlurkitError("the network's output is not finite, in float32 too")
        self.warn(f"{int(broken.sum())} tiles were not finite in {name}; repeated in float32")
        result[broken] = self._run_safely(tiles[broken], True)
        return result

    def _run_halved(self, tiles: TileInputs, exact: bool) -> np.ndarray:
        """Run half the batch, or quarters of a single tile, after running out of memory."""
        count, (height, width) = len(tiles), tiles.images[0].shape[2:]
        if count > 1:
            self._batch = count // 2
            self.warn(f"out of memory; continuing with {self._batch} tiles at a time")
            parts = [tiles[n : n + self._batch] for n in range(0, count, self._batch)]
            return np.concatenate([self._run_safely(part, exact) for part in parts])
        side = self.size.padded(height // 2 + self._overlap, 1)[0]
        if side >= height:
            raise BlurkitError(f"out of memory even for a tile of {height} pixels")
        self.warn(f"out of memory; repeating this tile in tiles of {side}")
        canvas = Canvas(height, width, 3, self._overlap)
        for top, left in slices(height, width, side, self._overlap):
            part = self._run_safely(tiles.cut(top, left, side), exact)
            canvas.add(top, left, part[0].transpose(1, 2, 0))
        return canvas.image().transpose(2, 0, 1)[None]


# ---- Tiles ---------------------------------------------------------------------------------------


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


def slices(height: int, width: int, size: int, overlap: int = 0) -> list[tuple[int, int]]:
    """Return the (top, left) of an image's tiles, of which there are as few as cover it.

    Without an overlap, these are MSDI-Net's test slices (section 4.2: 256x256 slices); 1280x720
    gives rows 0, 232, 464 and columns 0, 256, 512, 768, 1024.
    """
    rows, columns = starts(height, size, overlap), starts(width, size, overlap)
    return [(top, left) for top in rows for left in columns]


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
        """Return the tile of `side` pixels at (top, left), at a guide's same relative position.

        A map is cut to the cells whose centres are nearest to those of the tile's cells.
        """
        height, width = self.images[0].shape[2:]
        images, maps = [], {}
        for image in self.images:
            y = _same_place(top, height - side, image.shape[2] - side)
            x = _same_place(left, width - side, image.shape[3] - side)
            images.append(image[:, :, y : y + side, x : x + side])
        for name, values in self.maps.items():
            rows = _places(top, side, height, values.shape[2])
            columns = _places(left, side, width, values.shape[3])
            maps[name] = values[:, :, rows][:, :, :, columns]
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
