"""One engine that runs any restoration network on any image."""

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
from blurkit.engine.tiles import Canvas, Inputs, last_output, run_slices, starts, together
from blurkit.errors import BlurkitError, UsageError
from blurkit.nn.local_statistics import with_local_statistics
from blurkit.nn.size import Shape, SizeRequirement

Protocol = Literal["tiles", "slices", "whole", "local"]
Warn = Callable[[str], None]
OVERLAP = 32
"""Pixels that tiles share unless told otherwise."""


@dataclass
class Engine:
    """Runs a network over whole images: padding, tiles, precision, recovery.

    `network` takes (N, 3, H, W) in [0, 1] and returns the same or a list whose last is meant;
    behind the image it takes its guides, each (N, 3, H, W), and conditions by name. The engine
    takes it over: moves it to the device and prepares it for inference. `tile` is the side it works
    at: smaller images are padded to it by reflection, larger ones cut into tiles that
    overlap by `overlap` pixels (None: 32, or half a small tile) and are blended.
    The other protocols are how papers measured, in float32: "slices" averages tiles uniformly;
    "whole" gives the network the image as one, reflected right and below to the size it takes;
    "local" does too, with means that are local as for training crops of `tile` pixels. `warn` is
    told of everything that was done again.
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
        """What determines the result beside the weights, for records and reports."""
        cut = {"tile": self.tile, "overlap": self._overlap if self.protocol == "tiles" else 0}
        return {
            "protocol": self.protocol,
            **({} if self.protocol == "whole" else cut),
            "precision": str(self._dtype).removeprefix("torch."),
            "device": self._device.type,
        }

    def told(self) -> str:
        """`describe` as one line, which records keep."""
        return " ".join(f"{key}={value}" for key, value in self.describe().items())

    @torch.inference_mode()
    def __call__(self, image: np.ndarray, *guides: np.ndarray, **conditions: Any) -> np.ndarray:
        """Return the restored image, (H, W, C) float32, not clamped, from one like it in [0, 1].

        Any size from 1x1; C = 1 runs as gray RGB and comes back averaged. `guides` are images of
        any size too: with each tile goes a guide's tile from the same place of the picture, at its
        own scale. Of `conditions` a tensor (C, rows, columns) is a map of the image, padded to the
        size that the network takes: a tile gets its part of it, (N, C, ...). Anything else goes to
        the network as it is. Raises BlurkitError when even float32 gives values that are not
        finite, or the smallest tile has no room.
        """
        height, width, channels = image.shape
        inputs = self._inputs(image, guides, conditions)
        if self.protocol == "slices":
            result = run_slices(
                lambda tiles: self._run_safely(Inputs((tiles,), {}, inputs.shared)),
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
    ) -> Inputs:
        """Everything padded, as a batch of one."""
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
        return Inputs(images, maps, shared)

    def _pad_map(self, values: Tensor, given: Shape, padded: Shape) -> Tensor:
        """A map (C, rows, columns) reflected as its image is, (1, C, rows', columns')."""
        least = self.size.padded(*given[:2])
        sides = zip(values.shape[1:], least, padded, strict=False)
        more = [(0, rows * wanted // length - rows) for rows, length, wanted in sides]
        reflected = np.pad(values.numpy(), ((0, 0), *more), mode="symmetric")
        return torch.from_numpy(reflected[None])

    def _pad(self, image: np.ndarray) -> np.ndarray:
        """As RGB, reflected right and below to the tile and to the sizes the network takes.

        An image that is to be run as one is not made larger than the network needs.
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

    def _run_tiles(self, inputs: Inputs) -> np.ndarray:
        height, width = inputs.images[0].shape[2:]
        canvas = Canvas(height, width, 3, self._overlap)
        places = [
            (top, left)
            for top in starts(height, self.tile, self._overlap)
            for left in starts(width, self.tile, self._overlap)
        ]
        while places:  # the batch may shrink on the way
            group, places = places[: self._batch], places[self._batch :]
            tiles = together([inputs.cut(*place, self.tile) for place in group])
            for (top, left), result in zip(group, self._run_safely(tiles), strict=True):
                canvas.add(top, left, result.numpy().transpose(1, 2, 0))
        return canvas.image()

    def _run_safely(self, tiles: Inputs, dtype: torch.dtype | None = None) -> Tensor:
        """A batch of tiles, checked: again in float32 where not finite, halved where no memory."""
        dtype = dtype or self._dtype
        result = self._run(tiles, dtype)
        if result is None:
            return self._run_halved(tiles, dtype)
        broken = ~torch.isfinite(result).flatten(1).all(1)
        if broken.any() and dtype != torch.float32:
            name = str(dtype).removeprefix("torch.")
            self.warn(f"{int(broken.sum())} tiles were not finite in {name}; done in float32")
            result[broken] = self._run_safely(tiles[broken], torch.float32)
        elif broken.any():
            raise BlurkitError("the network gives values that are not finite, in float32 too")
        return result

    def _run(self, tiles: Inputs, dtype: torch.dtype) -> Tensor | None:
        """The network's last output on the CPU, or None when memory ran out.

        Only after the return is the error gone, and with it the memory its traceback holds on to.
        """
        try:
            moved = tiles.to(self._device)
            with autocast(self._device, dtype):
                output = self.network(*moved.images, **moved.maps, **moved.shared)
                return last_output(output).float().cpu()
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def _run_halved(self, tiles: Inputs, dtype: torch.dtype) -> Tensor:
        """After running out of memory: half the batch, or quarters of a single tile."""
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        count, (height, width) = len(tiles), tiles.images[0].shape[2:]
        if count > 1:
            self._batch = count // 2
            self.warn(f"out of memory; going on with {self._batch} tiles at a time")
            parts = [tiles[n : n + self._batch] for n in range(0, count, self._batch)]
            return torch.cat([self._run_safely(part, dtype) for part in parts])
        side = self.size.padded(height // 2 + self._overlap, 1)[0]
        if side >= height:
            raise BlurkitError(f"out of memory even for a tile of {height} pixels")
        self.warn(f"out of memory; this tile again in tiles of {side}")
        canvas = Canvas(height, width, 3, self._overlap)
        for top in starts(height, side, self._overlap):
            for left in starts(width, side, self._overlap):
                part = self._run_safely(tiles.cut(top, left, side), dtype)
                canvas.add(top, left, part[0].numpy().transpose(1, 2, 0))
        return torch.from_numpy(canvas.image().transpose(2, 0, 1)[None])


def fold_spectral_norm(network: nn.Module) -> nn.Module:
    """Replace every spectrally normalised weight by its value, which inference need not recompute.

    Changes `network` in place and returns it; its outputs in eval mode stay the same to the bit.
    """
    for module in network.modules():
        hooks = module._forward_pre_hooks.values()
        if any(type(hook).__name__ == "SpectralNorm" for hook in hooks):
            nn.utils.remove_spectral_norm(module)
    return network


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, which devices tell in several ways."""
    texts = ("out of memory", "not enough memory", "can't allocate memory")
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        text in str(error) for text in texts
    )
