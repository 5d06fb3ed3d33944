"""Uniform blur: convolution of batches of images with kernels, on any device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.fft
import torch
from torch import Tensor

from blurkit.synthesis.kernels import Kernel


def convolve(image: Tensor, kernel: Kernel) -> Tensor:
    """Return an image (C, H, W) convolved with a kernel (true convolution: the kernel is flipped).

    The image is mirrored beyond its borders as often as needed. It is computed in float64 if the
    device supports that.
    """
    return convolve_each(image[None], [kernel])[0]


def convolve_each(images: Tensor, kernels: Sequence[Kernel]) -> Tensor:
    """Return images (N, C, H, W), each convolved with its own kernel as in `convolve`."""
    stacked = _same_size(kernels)
    down, right = (length // 2 for length in stacked.shape[1:])
    rows, columns = (
        torch.from_numpy(mirrored(n, reach, reach)).to(images.device)
        for n, reach in zip(images.shape[2:], (down, right), strict=True)
    )
    exact = torch.float32 if images.device.type == "mps" else torch.float64
    padded = images.to(exact)[:, :, rows][:, :, :, columns]
    size = [scipy.fft.next_fast_len(length, real=True) for length in padded.shape[2:]]
    spectrum = torch.fft.rfft2(padded, s=size)
    spectrum *= torch.fft.rfft2(torch.from_numpy(stacked).to(padded)[:, None], s=size)
    whole = torch.fft.irfft2(spectrum, s=size)
    whole = whole[:, :, 2 * down : padded.shape[2], 2 * right : padded.shape[3]]
    return whole.clamp_min(0).to(images.dtype)


def _same_size(kernels: Sequence[Kernel]) -> np.ndarray:
    """Return kernels (N, height, width), centred on zeros, with odd height and width."""
    sides = np.max([kernel.shape for kernel in kernels], axis=0) // 2 * 2 + 1
    stacked = np.zeros((len(kernels), *sides))
    for padded, kernel in zip(stacked, kernels, strict=True):
        top, left = (side // 2 - n // 2 for side, n in zip(sides, kernel.shape, strict=True))
        padded[top : top + kernel.shape[0], left : left + kernel.shape[1]] = kernel
    return stacked


def disk(radius: float) -> Kernel:
    """Return the kernel of defocus: a disk of `radius` pixels with an edge one pixel soft."""
    reach = int(np.ceil(radius))
    down, right = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    kernel: Kernel = np.clip(radius + 0.5 - np.hypot(down, right), 0, 1)
    return kernel / kernel.sum()


def mirrored(length: int, before: int, after: int) -> np.ndarray:
    """Return the indices that extend a row of `length` pixels by mirroring.

    It is extended by `before` pixels at its start and by `after` at its end.
    """
    return np.pad(np.arange(length), (before, after), mode="symmetric")
