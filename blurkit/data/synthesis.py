"""Blur made from sharp images: a convolution in linear light, the same on every run."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Literal

import numpy as np

from blurkit.data.kernels import Kernel, random_trajectory_kernel
from blurkit.errors import UsageError
from blurkit.io.records import Image, Record, from_float, to_float

Kind = Literal["shake"]


def synthesize(
    record: Record,
    kind: Kind = "shake",
    kernels: Sequence[tuple[str, Kernel]] = (),
    seed: int = 0,
    copy: int = 0,
    size: tuple[int, int] = (9, 41),
    gamma: float = 2.2,
    noise: float = 0.0,
) -> Record:
    """`record` with a new image `blur`: its `sharp` as a shaking camera would have taken it.

    The kernel is one of `kernels`, or else a random hand shake of `size` pixels, drawn from an
    inclusive range. `noise` is the standard deviation, in [0, 1], of Gaussian noise added after.
    The random numbers depend on `seed`, the record's name and `copy` only, so neither order nor
    number of processes matters. `copy` counts the versions of one record; all but version 0 have
    it in their names. Adds the attributes `kernel` (float64 array), `seed`, `gamma`, `noise` and,
    for given kernels, `kernel_name`.

    Raises UsageError for an unknown kind or options out of range, BlurkitError when the record
    has no sharp image.
    """
    if kind != "shake":
        raise UsageError(f"no blur is called {kind!r}; there is 'shake'")
    low, high = size
    if not (1 <= low <= high and gamma > 0 and noise >= 0 and seed >= 0):
        raise UsageError(
            "blur takes sizes of 1 pixel or more, the smaller first, a gamma above 0, and noise "
            f"and seed of 0 or more; got {low} to {high}, {gamma:g}, {noise:g} and {seed}"
        )
    sharp = record.image("sharp")
    rng = np.random.default_rng([seed, zlib.crc32(record.name.encode()), copy])
    attrs = record.attrs | {"seed": seed, "gamma": gamma, "noise": noise}
    if kernels:
        attrs["kernel_name"], kernel = kernels[int(rng.integers(len(kernels)))]
    else:
        kernel = random_trajectory_kernel(rng, int(rng.integers(low, high + 1)) // 2 * 2 + 1)
    attrs["kernel"] = kernel
    values = blur_linear(to_float(sharp), kernel, gamma)
    if noise:
        values += noise * rng.standard_normal(values.shape)
    name = f"{record.name}-copy{copy}" if copy else record.name
    return Record(name, record.images | {"blur": from_float(values, sharp.dtype)}, attrs)


def blur_linear(image: Image, kernel: Kernel, gamma: float = 2.2) -> np.ndarray:
    """`image` (H, W, C), float in [0, 1], convolved with `kernel` in linear light, as float64.

    Raised to `gamma`, convolved (a true convolution: the kernel is turned round), brought back.
    Beyond its border the image is mirrored, the border pixels doubled, as often as needed.
    """
    import scipy.signal  # takes as long as all other imports together, and few commands blur

    height, width = kernel.shape
    before = (height - 1) // 2, (width - 1) // 2
    around = [(before[0], height - 1 - before[0]), (before[1], width - 1 - before[1]), (0, 0)]
    linear = np.pad(image.astype(np.float64) ** gamma, around, mode="symmetric")
    blurred = scipy.signal.oaconvolve(linear, kernel[:, :, None], mode="valid", axes=(0, 1))
    return np.clip(blurred, 0, None) ** (1 / gamma)
