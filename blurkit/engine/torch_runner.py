"""Networks of torch, run by an engine."""

from __future__ import annotations

import warnings
from typing import Any

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
from blurkit.engine.engine import Engine, Protocol, Runner, Warn
from blurkit.engine.tiles import TileInputs
from blurkit.errors import UsageError, is_out_of_memory
from blurkit.nn.local_statistics import with_local_statistics
from blurkit.nn.size import SizeRequirement


def torch_engine(
    network: nn.Module,
    tile: int = 256,
    overlap: int | None = None,
    device: str = "auto",
    precision: Precision = "auto",
    protocol: Protocol = "tiles",
    warn: Warn = warnings.warn,
) -> Engine:
    """Return the engine that runs `network`, which is moved to the device and changed in place.

    The network may return a list, of which the last image is used. Unless `precision` says
    otherwise, the protocols of papers run in float32. Raises as `Engine` and `choose_device` do,
    and UsageError if the network has no means to make local.
    """
    if protocol != "tiles" and precision == "auto":
        precision = "fp32"
    runner = TorchRunner(network, device, precision)
    engine = Engine(runner, tile, overlap, protocol, warn)
    if protocol == "local":
        with_local_statistics(network, tile)
    return engine


class TorchRunner(Runner):
    """A network of torch on a device, ready for inference."""

    network: nn.Module

    def __init__(self, network: nn.Module, device: str, precision: Precision) -> None:
        self._device = choose_device(device)
        self._dtype = _accepted(network, precision, choose_precision(precision, self._device))
        self.size = getattr(network, "size", SizeRequirement())
        self.batch = 8 if self._device.type == "cuda" else 1
        self.precision = str(self._dtype).removeprefix("torch.")
        self.device = self._device.type
        folded = fold_spectral_norm(network.eval()).to(self._device)
        self.network = channels_last(folded) if getattr(network, "any_layout", True) else folded

    def __call__(self, inputs: TileInputs, exact: bool = False) -> np.ndarray | None:
        """Return the network's images (N, 3, H, W) float32, or None if memory ran out."""
        result = self._run(inputs, torch.float32 if exact else self._dtype)
        if result is None and self._device.type == "cuda":
            torch.cuda.empty_cache()
        return result

    @torch.inference_mode()
    def _run(self, inputs: TileInputs, dtype: torch.dtype) -> np.ndarray | None:
        """Return the images, or None if memory ran out.

        The error's traceback holds on to memory, which is freed only when this method returns.
        """
        try:
            images, conditions = self.moved(inputs)
            with autocast(self._device, dtype):
                output = self.network(*images, **conditions)
            last: Tensor = output if isinstance(output, Tensor) else output[-1]
            return last.float().cpu().numpy()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None

    def moved(self, inputs: TileInputs) -> tuple[list[Tensor], dict[str, Any]]:
        """Return the images, in channels-last layout, and the conditions, all on the device."""
        images = [torch.from_numpy(image).to(self._device) for image in inputs.images]
        conditions = {
            name: torch.from_numpy(values).to(self._device) for name, values in inputs.maps.items()
        }
        for name, value in inputs.shared.items():
            conditions[name] = value.to(self._device) if isinstance(value, Tensor) else value
        return [image.contiguous(memory_format=torch.channels_last) for image in images], conditions


def _accepted(network: nn.Module, precision: Precision, dtype: torch.dtype) -> torch.dtype:
    """Return `dtype`, or float32 if `precision` is auto and the network does not run in `dtype`.

    A network may have `dtypes`, those that it runs in. Raises UsageError for one that it lacks.
    """
    if dtype in getattr(network, "dtypes", [dtype]):
        return dtype
    if precision != "auto":
        raise UsageError(f"--precision {precision}: this network does not run in it; use fp32")
    return torch.float32


def fold_spectral_norm(network: nn.Module) -> nn.Module:
    """Replace spectrally normalised weights by their values, to save recomputing them.

    Changes `network` in place and returns it; in eval mode its outputs stay bit-identical.
    """
    for module in network.modules():
        hooks = module._forward_pre_hooks.values()
        if any(type(hook).__name__ == "SpectralNorm" for hook in hooks):
            nn.utils.remove_spectral_norm(module)
    return network
