"""Uniform blur: images convolved with kernels, many at once, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from blurkit.synthesis.kernels import Kernel


def convolve(image: Tensor, kernel: Kernel) -> Tensor:
    """An image (C, H, W) convolved with a kernel (a true convolution: the kernel is turned round).

    Mirrored beyond its borders, as often as needed. In float64, where the device has it.
    """
    return convolve_each(image[None], [kernel])[0]


def convolve_each(images: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """Images (N, C, H, W), each convolved with its own kernel, as `convolve` does."""
    together = _same_size(kernels)
    down, right = (length // 2 for length in together.shape[1:])
    rows, columns = (
        torch.from_numpy(mirrored(n, reach, reach)).to(images.device)
        for n, reach in zip(images.shape[2:], (down, right), strict=True)
    )
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    padded = images.to(exact)[:, :, rows][:, :, :, columns]
    size = [scipy.fft.next_fast_len(length, real=True) for length in padded.shape[2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(torch.from_numpy(together).to(padded)[:, None], s=size)
    whole = torch.fft.irfft2(spectrum, s=size)
    whole = whole[:, :, 2 * down : padded.shape[2], 2 * right : padded.shape[3]]
    return whole.clamp_min(0).to(images.dtype)


def _same_size(kernels: Sequence[Kernel]) -> np.ndarray:
    """(N, height, width): kernels in the middle of zeros, both sides odd."""
    sides = np.max([kernel.shape for kernel in kernels], axis=0) // 2 * 2 + 1
    together = np.zeros((len(kernels), *sides))
    for place, kernel in zip(together, kernels, strict=True):
        top, left = (side // 2 - n // 2 for side, n in zip(sides, kernel.shape, strict=True))
        place[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return together


def disk(radius: float) -> Kernel:
    """The kernel of a lens out of focus: a disk, its edge as soft as a pixel."""
    reach = int(np.ceil(radius))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel: Kernel = np.clip(radius + 0.5 - np.hypot(down, right), 0, 1)
    return kernel / kernel.sum()


def mirrored(length: int, before: int, after: int) -> np.ndarray:
    """Which pixel of a row stands where, from `before` pixels before it to `after` after it."""
    return np.pad(np.arange(length), (before, after), mode="symmetric")
