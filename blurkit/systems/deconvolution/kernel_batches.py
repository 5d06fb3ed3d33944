"""Operations on blur kernels alone: cleaning, centring, resizing, shape, and comparison.

Kernels are batches (N, size, size) float32: odd size, values from 0, sum 1, origin in the middle.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.deconvolution.fourier import fast_length, irfft2, rfft2


def cleaned(kernels: Tensor, floor: float, part: float) -> Tensor:
    """Return kernels without specks, as an estimate needs after every step.

    Values below `floor` times the largest become 0, and so do connected parts with less than `part`
    of the sum. The result has sum 1 and its centroid at most half a pixel from the middle, unless
    centring moves a part of it over the border. A kernel that becomes empty is replaced by one
    without blur.
    """
    results = kernels.clamp_min(0).cpu().numpy().copy()
    for kernel in results:
        kernel[kernel < kernel.max() * floor] = 0
        labels, count = ndimage.label(kernel, np.ones((3, 3)))
        if count > 1:
            sums = ndimage.sum_labels(kernel, labels, np.arange(1, count + 1))
            small = 1 + np.flatnonzero(sums < part * kernel.sum())
            kernel[np.isin(labels, small)] = 0
        middle = kernel.shape[0] // 2, kernel.shape[1] // 2
        if kernel.sum() <= 0:
            kernel[middle] = 1
        kernel /= kernel.sum()
        centre = ndimage.center_of_mass(kernel)
        shift = [round(m - c) for m, c in zip(middle, centre, strict=True)]
        kernel[:] = ndimage.shift(kernel, shift, order=0)  # what crosses a border is lost
        kernel /= kernel.sum()
    return torch.from_numpy(results).to(kernels)


def resized_kernels(kernels: Tensor, size: int) -> Tensor:
    """Return kernels (N, size, size) of the same blur in an image resized by the same factor."""
    sides = (size, size)
    grown = F.interpolate(kernels[:, None], sides, mode="bicubic", align_corners=False)[:, 0]
    grown = grown.clamp_min(0)
    return grown / grown.sum((-2, -1), keepdim=True)


def padded(kernels: Tensor, size: int) -> Tensor:
    """Return kernels (..., size, size), with zeros added on all sides or, if too large, cut.

    The origin, the middle of each side, stays the middle.
    """
    before = [size // 2 - side // 2 for side in kernels.shape[-2:]]
    after = [size - side - b for side, b in zip(kernels.shape[-2:], before, strict=True)]
    return F.pad(kernels, (before[1], after[1], before[0], after[0]))


def trimmed(kernels: Tensor) -> Tensor:
    """Return kernels in the smallest common odd square that contains the values above 0."""
    away = (kernels > 0).flatten(0, -3).any(0).nonzero() - kernels.shape[-1] // 2
    return padded(kernels, 2 * int(away.abs().max()) + 1)


def kernel_agreement(first: Tensor, second: Tensor) -> Tensor:
    """Return the similarity of kernels, (...): 1 for the same blur, wherever its origin is.

    It is the largest value of their normalised cross-correlation; shapes (..., size, size)
    broadcast.
    """
    size = fast_length(first.shape[-1] + second.shape[-1] - 1)
    sides = (size, size)
    product = rfft2(first, s=sides) * rfft2(second, s=sides).conj()
    most = irfft2(product, s=sides).amax((-2, -1))
    powers = first.square().sum((-2, -1)) * second.square().sum((-2, -1))
    return most / powers.sqrt()


@dataclass(frozen=True)
class KernelShape:
    """The shape of a kernel.

    `length` is in pixels along its main axis; `angle` in degrees counterclockwise from the right, 0
    to 180; `straightness` is 0 for a blob and 1 for a line.
    """

    length: float
    angle: float
    straightness: float


def shape(kernel: Tensor) -> KernelShape:
    """Return the shape of a kernel (h, w), from its second moments.

    The length is that of a straight, uniform stroke with the same spread.
    """
    values = kernel.double().cpu().numpy()
    rows, columns = np.indices(values.shape)
    row, column = (values * rows).sum(), (values * columns).sum()
    dy, dx = row - rows, columns - column  # up is positive
    covariance = np.array([[(values * a * b).sum() for a in (dx, dy)] for b in (dx, dy)])
    spreads, axes = np.linalg.eigh(covariance)
    across, along = np.sqrt(np.maximum(spreads, 0))
    angle = math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180
    straightness = 1 - across / along if along > 0 else 0.0
    return KernelShape(float(along * math.sqrt(12)), angle, float(straightness))
