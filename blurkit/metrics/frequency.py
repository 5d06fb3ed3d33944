"""How images differ from sharp ones by frequency band and scale: distributions of entropies.

This is the study in Section 3.1 and Figures 2 and 7 of the MSFS-Net paper. The paper does not give
the width of the Gaussian, the bins or the conversion to gray; the protocol and docs/metrics.md
state the values used here.
"""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Image, Record
from blurkit.metrics.psnr import luma
from blurkit.metrics.scores import MEASURED_IMAGES, Measures, eight_bit

BANDS = ("high", "low")
BAND_SCALES = ("1", "1/2", "1/4")
BAND_SIGMA = 3.0
"""The Gaussian's sigma in pixels of each scale; 1 to 5 give the same order of bands and scales."""
BINS = 64
"""The bins of a distribution, over 0 to 8 bits, the entropies that 8-bit values can have. They are
the same for every set of images, so that divergences of different sets can be compared."""
COARSEST = 2 ** (len(BAND_SCALES) - 1)
"""The side of a pixel of the smallest scale, in pixels of the image."""
EXCHANGES = 200

Counts = np.ndarray
"""(2, 3, 64): the number of samples in each bin of entropy, by band and scale."""


def entropy(values: np.ndarray) -> float:
    """Return the Shannon entropy in bits, 0 to 8, of uint8 values of any shape."""
    from scipy.special import entr  # imported when used, so that wrong usage is refused at once

    counts = np.bincount(values.ravel(), minlength=256)
    return float(entr(counts / values.size).sum() / math.log(2))


def jensen_shannon(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the Jensen-Shannon divergence, 0 to 1 (base 2), along the last axis.

    `first` and `second` are counts or probabilities of one shape. scipy's `jensenshannon` returns
    the square root of the divergence, the distance.
    """
    from scipy.special import rel_entr

    p, q = (values / values.sum(axis=-1, keepdims=True) for values in (first, second))
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=-1) / (2 * math.log(2))
    return np.maximum(divergence, 0)  # rounding can give -1e-17


def bands_of(image: Image, least: int = COARSEST) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield the high and the low band of an image, (H, W) uint8, at each of the three scales.

    `image` (H, W, C) of any depth is rounded to 8 bits; its BT.601 luma, 0 to 255, is halved from
    scale to scale by means of 2x2 pixels. At each scale the low band is the output of a Gaussian
    (sigma 3, edges reflected) and the high band the rest plus 128; both are rounded to 8 bits.
    Raises BlurkitError if a side of the image is shorter than `least` pixels.
    """
    from scipy.ndimage import gaussian_filter

    height, width = image.shape[:2]
    if min(height, width) < least:
        raise BlurkitError(
            f"the image is {width}x{height}; its frequencies need {least} pixels a side"
        )
    gray = (255 * luma(eight_bit(image))[:, :, 0] - 16) * (255 / 219)
    for _ in BAND_SCALES:
        low = gaussian_filter(gray, BAND_SIGMA)
        yield tuple(np.rint(b).clip(0, 255).astype(np.uint8) for b in (gray - low + 128, low))
        rows, columns = (length // 2 for length in gray.shape)  # without an odd last one
        gray = gray[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2).mean(axis=(1, 3))


def band_entropies(image: Image, patch: int | None = None) -> np.ndarray:
    """Return the entropies in bits of the `bands_of` an image at three scales, (2, 3, samples).

    Without `patch` the whole image is one sample. With `patch`, a multiple of 4, each square of
    `patch` pixels a side is a sample; at the smaller scales it covers the same area of the image.
    Raises BlurkitError if a side of the image is shorter than `patch` or 4 pixels.
    """
    entropies = [
        [[*map(entropy, _samples(band, patch, scale))] for band in bands]
        for scale, bands in enumerate(bands_of(image, patch or COARSEST))
    ]
    return np.swapaxes(np.array(entropies), 0, 1)


def distributions(entropies: np.ndarray) -> Counts:
    """Count the entropies (2, 3, samples) in each of 64 bins from 0 to 8 bits."""
    return np.apply_along_axis(lambda bits: np.histogram(bits, BINS, (0, 8))[0], -1, entropies)


def chance(first: np.ndarray, second: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the divergences (2, 3) below which 95 % of random exchanges stay.

    `first` and `second` are the counts (images, 2, 3, 64) of the two images of each pair. In each
    of 200 trials the images of every pair are exchanged with probability 1/2. If the images of a
    pair differed only by noise, the measured divergence would be distributed like these. All
    samples of an image are exchanged together, because they are not independent.
    """
    coins = np.random.default_rng(seed).random((EXCHANGES, len(first))) < 0.5
    moved = np.tensordot(coins, second - first, 1)
    drawn = jensen_shannon(first.sum(axis=0) + moved, second.sum(axis=0) - moved)
    return np.quantile(drawn, 0.95, axis=0)


@dataclass(frozen=True)
class Divergences:
    """The divergences of the images of one role in one run from their targets, and by `chance`.

    They are 0 to 1, by band and scale; `images` and `samples` are the numbers of each.
    """

    run: str
    image: str
    images: int
    samples: int
    divergence: dict[str, float]
    chance: dict[str, float]


class Frequency:
    """Collects distributions of entropies, scene by scene.

    They are those of the images that `measures` measures, of the images they were made from, and of
    their targets. Raises UsageError if `patch` is not a multiple of 4, or is below 32.
    """

    def __init__(self, measures: Measures, patch: int | None = None) -> None:
        if patch is not None and (patch < 32 or patch % COARSEST):
            raise UsageError(f"--patch {patch}: give a multiple of {COARSEST}, 32 or more")
        self._measures, self._patch = measures, patch
        self._targets: list[Counts] = []
        self._pairs: dict[tuple[str, str], list[tuple[Counts, Counts]]] = defaultdict(list)
        """By run and role, the counts of each image and of its target."""

    def add(self, scene: Mapping[str, Record]) -> None:
        """Add the records of a scene by run, as `data.collection.RestorationRuns` yields them.

        The name of a single run is replaced by "". Raises BlurkitError if an image is missing or
        too small; nothing of the scene is then added.
        """
        target, first = self._measures.target, next(iter(scene.values()))
        before = MEASURED_IMAGES[target][-1]
        images = {("", before): first.images[before]} if before in first.images else {}
        for run, record in scene.items():
            role = self._measures.role(record)
            images[run if len(scene) > 1 else "", role] = record.images[role]
        target_counts = self._counts(first.image(target))
        counts = {key: self._counts(image) for key, image in images.items()}
        self._targets.append(target_counts)
        for key, made in counts.items():
            self._pairs[key].append((made, target_counts))

    def rows(self, seed: int = 0) -> list[Divergences]:
        """Return the divergences of each run and role; `seed` is that of `chance`."""
        rows = []
        for (run, role), pairs in self._pairs.items():
            made, targets = (np.array(side, np.int64) for side in zip(*pairs, strict=True))
            samples = int(made[:, 0, 0].sum())
            measured = _named(jensen_shannon(made.sum(axis=0), targets.sum(axis=0)))
            by_chance = _named(chance(made, targets, seed))
            rows.append(Divergences(run, role, len(pairs), samples, measured, by_chance))
        return rows

    def curves(self) -> dict[tuple[str, str], dict[str, list[int]]]:
        """Return the counts of the 64 bins by band and scale: the targets', then runs and roles."""
        sets = {("", self._measures.target): self._targets}
        sets |= {key: [made for made, _ in pairs] for key, pairs in self._pairs.items()}
        return {key: _named(np.sum(counts, axis=0)) for key, counts in sets.items()}

    def protocol(self, seed: int = 0) -> dict[str, str]:
        """Return one line on how each kind of number was computed."""
        count, plural = len(self._targets), "s" * (len(self._targets) != 1)
        samples = f"{count} whole image{plural}"
        if self._patch:
            squares = int(sum(counts[0, 0].sum() for counts in self._targets))
            samples = f"{squares} squares of {self._patch} pixels from {count} image{plural}"
        elif count < 200:
            samples += f", few for {BINS} bins: compare with chance, or give --patch 64"
        return {
            "divergence": "Jensen-Shannon, base 2, 0 to 1, between the distributions of entropies "
            f"and those of {self._measures.target} ({BINS} bins from 0 to 8 bits; MSFS-Net)",
            "entropy": f"of 8-bit values; luma of BT.601, 0 to 255, at {', '.join(BAND_SCALES)} "
            f"(2x2 means); low: Gaussian, sigma {BAND_SIGMA:g} at each scale; high: the rest + 128",
            "samples": samples,
            "chance": f"what 95 % of {EXCHANGES} random exchanges within the pairs stay below, "
            f"seed {seed}",
        }

    def _counts(self, image: Image) -> Counts:
        return distributions(band_entropies(image, self._patch)).astype(np.int32)


def _named(values: np.ndarray) -> dict[str, Any]:
    """Return values (2, 3, ...) by the names of band and scale, such as `high 1/2`."""
    return {
        f"{band} {scale}": values[b, s].tolist()
        for b, band in enumerate(BANDS)
        for s, scale in enumerate(BAND_SCALES)
    }


def _samples(values: np.ndarray, patch: int | None, scale: int) -> np.ndarray:
    """Return (H, W) as (samples, pixels): all of it, or squares of `patch` pixels at scale 0."""
    if patch is None:
        return values.reshape(1, -1)
    side = patch >> scale
    rows, columns = (length // side for length in values.shape)
    squares = values[: rows * side, : columns * side].reshape(rows, side, columns, side)
    return squares.swapaxes(1, 2).reshape(rows * columns, -1)
