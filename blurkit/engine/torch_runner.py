"""Networks of torch: where and in which number format they run, and how an engine runs them.

A network with global pooling has learned the statistics of training crops; the means of a whole
image differ from these. With local statistics, every pooling layer computes means over a window
around each pixel, 1.5 times as large as its input in training ("Revisiting Global Statistics
Aggregation", Chu et al. 2021). MSFS-Net's released code does the same in MSFS-Net-Local.
"""

import copy
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import Engine, Runner, SizeRequirement, TileInputs
from blurkit.errors import BlurkitError, Say, UsageError, is_out_of_memory, one_line
from blurkit.options import Placement, Precision, own_gpu
from blurkit.version import NEWEST_TORCH


def torch_engine(network: nn.Module, placement: Placement, warn: Say = warnings.warn) -> Engine:
    """Return the engine that runs `network`, which is moved to the device and changed in place.

    The network may return a list, of which the last image is used. Tiles have 256 pixels a side by
    default. Raises as `Engine` and `choose_device` do, and UsageError if the network has no means
    to make local.
    """
    precision, protocol = placement.precision, placement.protocol
    tile = Engine.tile if placement.tile is None else placement.tile
    if protocol != "tiles" and precision == "auto":
        precision = "fp32"
    runner = TorchRunner(network, placement.device, precision)
    engine = Engine(runner, tile, placement.overlap, protocol, warn)
    if protocol == "local":
        with_local_statistics(network, tile)
    return engine


class TorchRunner(Runner):
    """A network of torch on a device, ready for inference.

    It may have `dtypes`, those that it runs in; `auto` is float32 where it lacks another one.
    Several tiles run at the same time on a CPU, each on some of its processors.
    """

    network: nn.Module

    def __init__(self, network: nn.Module, device: str, precision: Precision) -> None:
        self._device = choose_device(device)
        self._dtype = choose_precision(precision, self._device)
        if self._dtype not in getattr(network, "dtypes", [self._dtype]):
            if precision != "auto":
                wrong = f"--precision {precision}: this network does not run in it; use fp32"
                raise UsageError(wrong)
            self._dtype = torch.float32
        self.size = getattr(network, "size", SizeRequirement())
        self.device = self._device.type
        self._workers = min(torch.get_num_threads(), 4) if self.device == "cpu" else 1
        self.batch = 8 if self.device == "cuda" or self._workers > 1 else 1
        self.precision = str(self._dtype).removeprefix("torch.")
        self.network = channels_last(fold_spectral_norm(network.eval()).to(self._device))

    def __call__(self, inputs: TileInputs, exact: bool = False) -> np.ndarray | None:
        dtype = torch.float32 if exact else self._dtype
        if self._workers > 1 and len(inputs) > 1:
            tiles = [inputs[number : number + 1] for number in range(len(inputs))]
            with worker_threads(self._device, self._workers) as pool:
                results = list(pool.map(partial(self._run, dtype=dtype), tiles))
            made = [result for result in results if result is not None]
            return np.concatenate(made) if len(made) == len(tiles) else None
        result = self._run(inputs, dtype)
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
        except Exception as error:  # of any kind, from any network
            if is_out_of_memory(error):
                return None
            if isinstance(error, BlurkitError):
                raise
            name = getattr(self.network, "name", type(self.network).__name__)
            sides = "x".join(map(str, inputs.images[0].shape[:1:-1]))
            text = f"{type(error).__name__}: {one_line(error)[:300]}"
            raise BlurkitError(f"{name} failed on {sides} pixels ({text})") from error

    def moved(self, inputs: TileInputs) -> tuple[list[Tensor], dict[str, Any]]:
        """Return the images, in channels-last layout, and the conditions, all on the device."""
        images = [torch.from_numpy(image).to(self._device) for image in inputs.images]
        conditions = {name: torch.from_numpy(v) for name, v in inputs.maps.items()} | inputs.shared
        for name, value in conditions.items():
            conditions[name] = value.to(self._device) if isinstance(value, Tensor) else value
        return [image.contiguous(memory_format=torch.channels_last) for image in images], conditions


def fold_spectral_norm(network: nn.Module) -> nn.Module:
    """Replace normalised weights by their values, in place, and return the network.

    This saves recomputing them; in eval mode, outputs stay bit-identical.
    """
    for module in network.modules():
        hooks = module._forward_pre_hooks.values()
        if any(type(hook).__name__ == "SpectralNorm" for hook in hooks):
            nn.utils.remove_spectral_norm(module)
    return network


# ---- Local statistics ----------------------------------------------------------------------------


class LocalMean(nn.Module):
    """Means over a window around each pixel; maps (N, C, H, W) to the same size.

    The window is limited to the size of the image. Near the borders, where it would extend beyond
    the image, the nearest mean of a complete window is used. Of images no larger than the window,
    the one mean is returned, (N, C, 1, 1).
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.window = height, width

    def forward(self, x: Tensor) -> Tensor:
        if all(n >= side for n, side in zip(self.window, x.shape[-2:], strict=True)):
            return F.adaptive_avg_pool2d(x, 1)
        means = self.means(x)
        missing = [x.shape[axis] - means.shape[axis] for axis in (-1, -2)]
        sides = [part for n in missing for part in (n // 2, n - n // 2)]
        return F.pad(means, sides, mode="replicate")

    def means(self, x: Tensor) -> Tensor:
        """Return the means of all complete windows."""
        return _means(x, self.window)


class FastLocalMean(LocalMean):
    """Means of every so manieth value of a window around each pixel, NAFNet's `fast_imp`.

    A stride is the largest of 5 to 1 that divides a side, but at most that in `strides`. Windows
    begin at the second value, and their means are repeated. They differ from those of `LocalMean`.
    """

    def __init__(self, height: int, width: int, strides: tuple[int, int]) -> None:
        super().__init__(height, width)
        self.strides = strides

    def means(self, x: Tensor) -> Tensor:
        down, across = (
            min(most, next(r for r in range(5, 0, -1) if side % r == 0))
            for most, side in zip(self.strides, x.shape[-2:], strict=True)
        )
        thin = x[..., ::down, ::across][..., 1:, 1:]
        means = _means(thin, (self.window[0] // down, self.window[1] // across))
        return means.repeat_interleave(down, -2).repeat_interleave(across, -1)


def _means(x: Tensor, window: tuple[int, int]) -> Tensor:
    """Return the means of all complete windows, one axis at a time, which is much cheaper."""
    height, width = (min(n, side) for n, side in zip(window, x.shape[-2:], strict=True))
    return F.avg_pool2d(F.avg_pool2d(x, (height, 1), stride=1), (1, width), stride=1)


def with_local_statistics(
    network: nn.Module, crop: int | tuple[int, int], fast: bool = False
) -> nn.Module:
    """Replace the global means of `network` by local ones, in place, and return it.

    `crop` is the side of its training crops in pixels, or their height and width. With `fast`, the
    means are those of `FastLocalMean`. Raises UsageError if the network has no global average
    pooling.
    """
    trained = (crop, crop) if isinstance(crop, int) else crop
    pools = {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1))
    }
    if not pools:
        raise UsageError(
            f"--protocol local: {type(network).__name__} has no global average pooling to "
            "make local"
        )
    for name, sides in _pooled_sizes(network, pools, trained).items():
        parent, _, attribute = name.rpartition(".")
        window = 3 * sides[0] // 2, 3 * sides[1] // 2
        strides = max(1, 5 * sides[0] // trained[0]), max(1, 5 * sides[1] // trained[1])
        local = FastLocalMean(*window, strides) if fast else LocalMean(*window)
        setattr(network.get_submodule(parent), attribute, local)
    return network


def _pooled_sizes(
    network: nn.Module, pools: set[str], crop: tuple[int, int]
) -> dict[str, tuple[int, int]]:
    """Return the size of each pooling layer's input for a crop, from a run on the meta device."""
    sizes: dict[str, tuple[int, int]] = {}
    shadow = copy.deepcopy(network).to("meta")
    for name in pools:

        def note(module: nn.Module, inputs: Any, name: str = name) -> None:
            sizes[name] = inputs[0].shape[-2:]

        shadow.get_submodule(name).register_forward_pre_hook(note)
    shadow(torch.empty(1, 3, *crop, device="meta"))
    return sizes


# ---- Devices and number formats ------------------------------------------------------------------


def choose_device(name: str = "auto") -> torch.device:
    """Return the device named `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `auto` prefers a GPU.

    Among several processes of one machine, `auto` and `cuda` mean the GPU of this process, which
    becomes the current one. Raises UsageError if this machine does not have the device.
    """
    warn_of_newer_torch(str(torch.__version__))
    if name in ("auto", "cuda") and torch.cuda.is_available():
        own = own_gpu(torch.cuda.device_count())
        if own is None:
            return torch.device("cuda")
        torch.cuda.set_device(own)  # or each process would also take memory of the first GPU
        return torch.device("cuda", own)
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"--device {name}: use auto, cpu, cuda, cuda:N or mps") from error
    missing = (
        (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count())
        or (device.type == "mps" and not torch.backends.mps.is_available())
        or device.type not in ("cpu", "cuda", "mps")
    )
    if missing:
        raise UsageError(f"--device {name}: this machine does not have it; use auto or cpu")
    return device


@cache
def warn_of_newer_torch(installed: str) -> None:
    """Warn, once, if a version of torch is newer than those that blurkit was tested with."""
    numbers = tuple(int(number) for number in installed.split(".")[:2] if number.isdigit())
    if numbers > NEWEST_TORCH:
        newest = ".".join(map(str, NEWEST_TORCH))
        text = f"torch {installed} is newer than {newest}, the newest that blurkit was tested with"
        warnings.warn(text, stacklevel=3)


def choose_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype that `precision` means on `device`.

    `auto` is bf16 where the hardware supports it, otherwise fp16 on CUDA and fp32 elsewhere. On a
    CPU, bf16 requires AVX-512 BF16 or AMX; convolutions are then about twice as fast. Raises
    UsageError if `precision` is unknown.
    """
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision != "auto":
        if precision not in named:
            raise UsageError(f"--precision {precision}: use auto, fp32, bf16 or fp16")
        return named[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if device.type == "cpu" and torch.cpu._is_avx512_bf16_supported():
        return torch.bfloat16
    return torch.float32


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Return a context of mixed precision in `dtype` on `device`; float32 changes nothing."""
    return nullcontext() if dtype == torch.float32 else torch.autocast(device.type, dtype)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that disables autocast; it does nothing on devices without autocast."""
    available = torch.amp.is_autocast_available(device.type)
    return torch.autocast(device.type, enabled=False) if available else nullcontext()


def channels_last(network: nn.Module) -> nn.Module:
    """Convert `network`, in place, to the fastest memory layout for convolutions; return it.

    A network whose attribute `any_layout` is false stays as it is.
    """
    if not getattr(network, "any_layout", True):
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


@contextmanager
def worker_threads(device: torch.device, most: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool whose workers share the processors: faster than one task on all of them.

    There is one worker for each, or `most` with as many processors as are left for each; for a GPU
    there is one worker: Apple's aborts if several use it. Afterwards torch uses as many threads as
    before; some builds share that number among threads.
    """
    threads = torch.get_num_threads()
    workers = min(threads, most or threads) if device.type == "cpu" else 1
    each = partial(torch.set_num_threads, threads // workers)
    pool = ThreadPoolExecutor(workers, initializer=each)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)  # what waits is not wanted after an interrupt
        torch.set_num_threads(threads)
