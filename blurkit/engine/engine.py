"""The engine, which runs any restoration network on any image."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from blurkit.engine.device import (
    Precision,
    autocast,
    channels_last,
    choose_device,
    choose_precision,
)
from blurkit.engine.tiles import Canvas, TileInputs, last_output, run_slices, starts, together
from blurkit.errors import BlurkitError, UsageError, is_out_of_memory
from blurkit.nn.local_statistics import with_local_statistics
from blurkit.nn.size import Shape, SizeRequirement

Protocol = Literal["tiles", "slices", "whole", "local"]
Warn = Callable[[str], None]
OVERLAP = 32
"""The default overlap of tiles, in pixels."""


@dataclass
class Engine:
    """Runs a network over whole images: padding, tiles, precision, recovery from errors.

    `network` maps (N, 3, H, W) in [0, 1] to the same shape, or to a list of which the last is used.
    After the image it takes its guides, each (N, 3, H, W), and its conditions by name. The engine
    moves the network to the device and prepares it for inference, in place.

    With the protocol "tiles", images smaller than `tile` pixels a side are padded by reflection;
    larger ones are cut into tiles that overlap by `overlap` pixels (None: 32, or half a small tile)
    and are blended. The other protocols follow the papers' measurements, in float32 unless
    `precision` says otherwise: "slices" averages tiles uniformly; "whole" runs the image in one
    piece, reflected at the right and bottom to a valid size; "local" does the same with local
    means, as for training crops of `tile` pixels. `warn` is called for everything that has to be
    repeated.
    """

    network: nn.Module
    tile: int = 256
    overlap: int | None = None
    device: str = "auto"
    precision: Precision = "auto"
    protocol: Protocol = "tiles"
    warn: Warn = warnings.warn

    def __post_init__(self) -> None:
        self.size: SizeRequirement = getattr(self.network, "size", SizeRequirement())
        if self.tile % self.size.multiple or self.tile < self.size.minimum:
            raise UsageError(
                f"--tile {self.tile}: this network needs a multiple of {self.size.multiple}, "
                f"at least {self.size.minimum}"
            )
        half = self.tile // 2
        self._overlap = min(OVERLAP, half) if self.overlap is None else self.overlap
        if self.protocol == "tiles" and not 0 <= self._overlap <= half:
            raise UsageError(f"--overlap {self._overlap}: from 0 to half the tile ({self.tile})")
        exact = self.protocol != "tiles" and self.precision == "auto"
        self._device = choose_device(self.device)
        self._dtype = choose_precision("fp32" if exact else self.precision, self._device)
        self._batch = 8 if self._device.type == "cuda" else 1
        if self.protocol == "local":
            with_local_statistics(self.network, self.tile)
        self.network = channels_last(fold_spectral_norm(self.network.eval()).to(self._device))

    def describe(self) -> dict[str, str | int]:
        """Return the settings that, besides the weights, determine the result."""
        cut = {"tile": self.tile, "overlap": self._overlap if self.protocol == "tiles" else 0}
        return {
            "protocol": self.protocol,
            **({} if self.protocol == "whole" else cut),
            "precision": str(self._dtype).removeprefix("torch."),
            "device": self._device.type,
        }

    def summary(self) -> str:
        """Return `describe` as one line, as stored in records."""
        return " ".join(f"{key}={value}" for key, value in self.describe().items())

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, *guides: np.ndarray, **conditions: Any) -> np.ndarray:
        """Return the restored image (H, W, C), float32, not clamped, for an image in [0, 1].

        Any size from 1x1 is allowed; C = 1 runs as gray RGB and is averaged afterwards. `guides`
        are images of any size; each tile comes with the guide's tile from the same relative
        position, at the guide's own scale. A tensor (C, rows, columns) in `conditions` is a map of
        the image: it is padded with the image, and each tile gets its part of the map, (N, C, ...).
        All other conditions are passed to the network unchanged.

        Raises BlurkitError if values are not finite even in float32, or if memory does not suffice
        for the smallest tile.
        """
        height, width, channels = image.shape
        inputs = self._inputs(image, guides, conditions)
        if self.protocol == "slices":
            result = run_slices(
                lambda tiles: self._run_safely(TileInputs((tiles,), {}, inputs.shared)),
                inputs.images[0],
                self.tile,
                batch=self._batch,
            )
            restored = result[0].numpy().transpose(1, 2, 0)
        elif self.protocol == "tiles":
            restored = self._run_tiles(inputs)
        else:
            restored = self._run_safely(inputs)[0].numpy().transpose(1, 2, 0)
        restored = restored[:height, :width]
        return restored.mean(axis=2, keepdims=True) if channels == 1 else restored

    def _inputs(
        self, image: np.ndarray, guides: Sequence[np.ndarray], conditions: Mapping[str, Any]
    ) -> TileInputs:
        """Return the padded inputs as a batch of one."""
        padded = [self._pad(picture) for picture in (image, *guides)]
        images = tuple(
            torch.from_numpy(np.ascontiguousarray(p)).permute(2, 0, 1)[None] for p in padded
        )
        maps, shared = {}, {}
        for name, value in conditions.items():
            if isinstance(value, Tensor) and value.ndim == 3:
                maps[name] = self._pad_map(value, image.shape, padded[0].shape)
            else:
                shared[name] = value
        return TileInputs(images, maps, shared)

    def _pad_map(self, values: Tensor, given: Shape, padded: Shape) -> Tensor:
        """Return a map (C, rows, columns), reflected like its image, as (1, C, rows', columns')."""
        least = self.size.padded(*given[:2])
        sides = zip(values.shape[1:], least, padded, strict=False)
        more = [(0, rows * wanted // length - rows) for rows, length, wanted in sides]
        reflected = np.pad(values.numpy(), ((0, 0), *more), mode="symmetric")
        return torch.from_numpy(reflected[None])

    def _pad(self, image: np.ndarray) -> np.ndarray:
        """Return the image as RGB, extended by reflection to the tile and to a valid size.

        An image that runs in one piece is made no larger than the network requires.
        """
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
        canvas = Canvas(height, width, 3, self._overlap)
        places = [
            (top, left)
            for top in starts(height, self.tile, self._overlap)
            for left in starts(width, self.tile, self._overlap)
        ]
        while places:  # the batch size may shrink meanwhile
            group, places = places[: self._batch], places[self._batch :]
            tiles = together([inputs.cut(*place, self.tile) for place in group])
            for (top, left), result in zip(group, self._run_safely(tiles), strict=True):
                canvas.add(top, left, result.numpy().transpose(1, 2, 0))
        return canvas.image()

    def _run_safely(self, tiles: TileInputs, dtype: torch.dtype | None = None) -> Tensor:
        """Run a batch; repeat it in float32 if not finite, or in smaller parts if out of memory."""
        dtype = dtype or self._dtype
        result = self._run(tiles, dtype)
        if result is None:
            return self._run_halved(tiles, dtype)
        broken = ~torch.isfinite(result).flatten(1).all(1)
        if broken.any() and dtype != torch.float32:
            name = str(dtype).removeprefix("torch.")
            self.warn(f"{int(broken.sum())} tiles were not finite in {name}; repeated in float32")
            result[broken] = self._run_safely(tiles[broken], torch.float32)
        elif broken.any():
            raise BlurkitError("the network's output is not finite, in float32 too")
        return result

    def _run(self, tiles: TileInputs, dtype: torch.dtype) -> Tensor | None:
        """Return the network's last output on the CPU, or None if memory ran out.

        The error's traceback holds on to memory, which is freed only when this method returns.
        """
        try:
            moved = tiles.to(self._device)
            with autocast(self._device, dtype):
                output = self.network(*moved.images, **moved.maps, **moved.shared)
                return last_output(output).float().cpu()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _run_halved(self, tiles: TileInputs, dtype: torch.dtype) -> Tensor:
        """Run half the batch, or quarters of a single tile, after running out of memory."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        count, (height, width) = len(tiles), tiles.images[0].shape[2:]
        if count > 1:
            self._batch = count // 2
            self.warn(f"out of memory; continuing with {self._batch} tiles at a time")
            parts = [tiles[n : n + self._batch] for n in range(0, count, self._batch)]
            return torch.cat([self._run_safely(part, dtype) for part in parts])
        side = self.size.padded(height // 2 + self._overlap, 1)[0]
        if side >= height:
            raise BlurkitError(f"out of memory even for a tile of {height} pixels")
        self.warn(f"out of memory; repeating this tile in tiles of {side}")
        canvas = Canvas(height, width, 3, self._overlap)
        for top in starts(height, side, self._overlap):
            for left in starts(width, side, self._overlap):
                part = self._run_safely(tiles.cut(top, left, side), dtype)
                canvas.add(top, left, part[0].numpy().transpose(1, 2, 0))
        return torch.from_numpy(canvas.image().transpose(2, 0, 1)[None])


def fold_spectral_norm(network: nn.Module) -> nn.Module:
    """Replace spectrally normalised weights by their values, to save recomputing them.

    Changes `network` in place and returns it; in eval mode its outputs stay bit-identical.
    """
    for module in network.modules():
        hooks = module._forward_pre_hooks.values()
        if any(type(hook).__name__ == "SpectralNorm" for hook in hooks):
            nn.utils.remove_spectral_norm(module)
    return network
