"""Choice of the device and number format for inference and training."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from blurkit.errors import UsageError
from blurkit.options import Precision, own_gpu


def choose_device(name: str = "auto") -> torch.device:
    """Return the device named `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; `auto` prefers a GPU.

    Among several processes of one machine, `auto` and `cuda` mean the GPU of this process, which
    becomes the current one. Raises UsageError if this machine does not have the device.
    """
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
