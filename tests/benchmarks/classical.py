"""What restores photos without learning: sharpening and deconvolution, as scikit-image does them.

None of them knows the blur. Each is a bank of settings, of which the one that scores best on a
whole set of pairs is taken: more than a user who has only the blurry photo could know.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from skimage.draw import line
from skimage.filters import gaussian, unsharp_mask
from skimage.morphology import disk
from skimage.restoration import richardson_lucy, wiener

from blurkit.io.records import Image, central_crop, from_float, to_float
from blurkit.metrics.psnr import psnr

Restore = Callable[[np.ndarray], np.ndarray]
"""float32 (H, W, C) in [0, 1] to float of the same shape, whatever its range."""

MARGIN = 32
"""Pixels by which an image is mirrored beyond its border: deconvolution takes it for black there,
or for what is at the other side."""


MIDDLE = 384
"""The side of the middle of an image by which a setting is judged."""


def point_spreads() -> dict[str, np.ndarray]:
    """By what they are, the blurs that a user may guess: odd squares (k, k) whose sum is 1."""
    spreads = {}
    for sigma in (0.5, 1, 1.5, 2, 3):
        radius = int(3 * sigma)
        spot = np.zeros((2 * radius + 1, 2 * radius + 1))
        spot[radius, radius] = 1
        spreads[f"Gaussian, sigma {sigma:g}"] = gaussian(spot, sigma)
    for radius in (1, 2, 3, 5):
        spreads[f"disk, radius {radius}"] = disk(radius).astype(float)
    for length in (5, 9, 15):
        last = length - 1
        for degrees, ends in {
            0: (last // 2, 0, last // 2, last),
            45: (last, 0, 0, last),
            90: (0, last // 2, last, last // 2),
            135: (0, 0, last, last),
        }.items():
            stroke = np.zeros((length, length))
            stroke[line(*ends)] = 1
            spreads[f"motion, {length} pixels at {degrees} degrees"] = stroke
    return {name: spread / spread.sum() for name, spread in spreads.items()}


def unsharp_masks() -> dict[str, Restore]:
    """Unsharp masking of several radii and amounts."""
    return {
        f"radius {radius:g}, amount {amount:g}": partial(
            unsharp_mask, radius=radius, amount=amount, channel_axis=2
        )
        for radius in (1, 2, 4, 8)
        for amount in (0.25, 0.5, 1, 2)
    }


def richardson_lucys() -> dict[str, Restore]:
    """Richardson-Lucy deconvolution with every guessed blur and several numbers of iterations."""
    return {
        f"{name}, iterations {count}": _each_channel(
            partial(richardson_lucy, psf=spread, num_iter=count)
        )
        for name, spread in point_spreads().items()
        for count in (1, 3, 10)
    }


def wieners() -> dict[str, Restore]:
    """Wiener deconvolution with every guessed blur and several balances of noise and detail."""
    return {
        f"{name}, balance {balance:g}": _each_channel(
            partial(wiener, psf=spread.astype(np.float32), balance=balance)
        )
        for name, spread in point_spreads().items()
        for balance in (0.01, 0.1, 1, 10)
    }


METHODS: dict[str, Callable[[], dict[str, Restore]]] = {
    "unsharp masking": unsharp_masks,
    "Richardson-Lucy": richardson_lucys,
    "Wiener": wieners,
}
"""By name, the banks of settings."""


def restored(image: Image, restore: Restore) -> Image:
    """`image` (H, W, C) restored, of the same shape and depth."""
    return from_float(restore(to_float(image)), image.dtype)


def best(bank: Mapping[str, Restore], blurs: Sequence[Image], sharps: Sequence[Image]) -> str:
    """The setting of the highest mean PSNR over some pairs, judged by their middle pixels."""
    middles = [
        (central_crop(blur, MIDDLE, MIDDLE), central_crop(sharp, MIDDLE, MIDDLE))
        for blur, sharp in zip(blurs, sharps, strict=True)
    ]

    def score(setting: str) -> float:
        return float(np.mean([psnr(restored(b, bank[setting]), s) for b, s in middles]))

    return max(bank, key=score)


def _each_channel(deconvolve: Restore) -> Restore:
    """A deconvolution of one channel (H, W) as one of an image, mirrored beyond its border."""

    def restore(image: np.ndarray) -> np.ndarray:
        around = ((MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
        wide = np.pad(image, around, mode="symmetric")
        done = [deconvolve(np.ascontiguousarray(wide[:, :, c])) for c in range(image.shape[2])]
        return np.stack(done, axis=2)[MARGIN:-MARGIN, MARGIN:-MARGIN]

    return restore
