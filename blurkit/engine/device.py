"""Choice of the device and number format for inference and training, and what this machine has."""

from __future__ import annotations

import platform
import re
import warnings
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, requires, version

import torch
from torch import nn

from blurkit.data.workers import processors
from blurkit.errors import UsageError
from blurkit.options import Precision, own_gpu
from blurkit.version import FORMAT_VERSIONS, NEWEST_TORCH, __version__

DEVELOPMENT = re.compile("extra == .(dev|docs|test)\\b")
"""What the requirements for developing blurkit say of themselves."""


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


def system_report() -> dict[str, str]:
    """Return what a report of a problem needs: versions and devices, and nothing private.

    It has no names of users, machines or files, and no values of the environment.
    """
    report = {
        "blurkit": f"{__version__} ({FORMAT_VERSIONS})",
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "system": platform.platform(),
        "processors": str(processors()),
        "device": _device_line(),
    }
    for package in _requirements():
        with suppress(PackageNotFoundError):
            report[package] = version(package)
    with suppress(ImportError):
        import onnxruntime

        report["ONNX Runtime on"] = ", ".join(onnxruntime.get_available_providers())
    return report


def _requirements() -> list[str]:
    """Return the names of the packages that blurkit requires, also for its extras."""
    try:
        lines = requires("blurkit") or []
    except PackageNotFoundError:  # it runs from a folder of its sources
        lines = ["torch", "numpy"]
    return [re.split("[^\\w.-]", line)[0] for line in lines if not DEVELOPMENT.search(line)]


def _device_line() -> str:
    """Describe the device that `auto` chooses, and the number format."""
    device = choose_device()
    number = str(choose_precision("auto", device)).removeprefix("torch.")
    if device.type != "cuda":
        return f"{device.type}, {number}"
    about = torch.cuda.get_device_properties(device)
    memory = f"{about.total_memory / 2**30:.0f} GiB, CUDA {torch.version.cuda}"
    return f"{torch.cuda.device_count()} x {about.name} ({memory}), {number}"


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
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def full_precision(device: torch.device) -> AbstractContextManager[object]:
    """Return a context that disables autocast; it does nothing on devices without autocast."""
    if torch.amp.is_autocast_available(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()


def channels_last(network: nn.Module) -> nn.Module:
    """Convert `network`, in place, to the fastest memory layout for convolutions; return it.

    A network whose attribute `any_layout` is false stays as it is.
    """
    if not getattr(network, "any_layout", True):
        return network
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
