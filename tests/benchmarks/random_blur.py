"""How random blur compares with that of real pairs: strengths, directions, fringes, weave.

python -m tests.benchmarks.random_blur         measures and prints the tables (some minutes)
    --write          also writes docs/benchmarks/random_blur.json and the tables in docs/metrics.md
    -c FILE          measures other weights

The sharp image of every pair gets random blur, several times. *Strength* is the PSNR of the blurry
image against the sharp one, over whole images. *Anisotropy* is how much more a blur takes from
gradients across one direction than from those across another, in parts of 320x180 pixels.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
import torch

import blurkit
from blurkit.io.records import Image, Record, central_crop, to_float
from blurkit.metrics.psnr import psnr
from blurkit.model import Model
from blurkit.reports.tables import print_table
from tests.benchmarks import pages
from tests.benchmarks.bgan import kept
from tests.benchmarks.measure import machine
from tests.benchmarks.real_pairs import held_out, trained_on

DRAWS = {"gopro_avg": 4, "reds_180p": 2}
"""Random blurs of each sharp image, by set."""

PART = 180, 320
"""Height and width of the parts of an image whose gradients are measured, pixels."""

BINS = {
    "strength": (0, 20, 22, 24, 26, 28, 30, 32, 99),
    "anisotropy": (0, 0.2, 0.4, 0.6, 0.8, 1),
    "direction": (-22.5, 22.5, 67.5, 112.5, 157.5),
}
"""Edges of the histograms: dB, 1, degrees."""

SIDE = 180
"""Side of the middle of an image that shows fringes, pixels."""

NORMAL = 1.2
"""The deviation of the released code's normal codes."""

Numbers = dict[str, list[float]]

# ---- one pair ------------------------------------------------------------------------------------


def measured(blur: Image, sharp: Image) -> Numbers:
    """Return the strength of a blur in dB, and by part its anisotropy, direction and weave."""
    found: Numbers = {"strength": [psnr(blur, sharp)], "anisotropy": [], "direction": []}
    found["weave"] = [weave(to_float(blur)), weave(to_float(sharp))]
    for pair in zip(_parts(to_float(blur)), _parts(to_float(sharp)), strict=True):
        anisotropy, direction = along(*pair)
        found["anisotropy"].append(anisotropy)
        found["direction"].append(direction)
    return found


def along(blur: np.ndarray, sharp: np.ndarray) -> tuple[float, float]:
    """Return how directed a blur is, from 0 to 1, and its direction in degrees, 0 to 180.

    The energy that gradients keep, relative to the sharp image's, depends on their direction: it
    is smallest along the motion. Anisotropy is 1 minus the quotient of smallest and largest.
    Directions are clockwise from the right, -22.5 to 157.5.
    """
    least, most, angle = kept(blur, sharp)
    return 1 - least / most, float((np.degrees(angle) + 22.5) % 180 - 22.5)


def _parts(image: np.ndarray) -> Iterator[np.ndarray]:
    height, width = PART
    for top in range(0, image.shape[0] - height + 1, height):
        for left in range(0, image.shape[1] - width + 1, width):
            yield image[top : top + height, left : left + width]


def weave(image: np.ndarray) -> float:
    """Return how unevenly fine detail is spread over the pixels of F's blocks of 4x4.

    It is the deviation of the mean absolute Laplacian over the 16 places, relative to its mean.
    """
    gray = image.mean(axis=2)
    detail = np.abs(4 * gray[1:-1, 1:-1] - gray[:-2, 1:-1] - gray[2:, 1:-1]
                    - gray[1:-1, :-2] - gray[1:-1, 2:])  # fmt: skip
    height, width = (side // 4 * 4 for side in detail.shape)
    places = detail[:height, :width].reshape(height // 4, 4, width // 4, 4).mean(axis=(0, 2))
    return float(places.std() / places.mean())


def fringes(blur: Image) -> float:
    """Return how coloured the result of a gray photo is, gray levels: the spread of its channels.

    It is that which one pixel in a hundred exceeds.
    """
    return float(np.quantile(np.ptp(blur.astype(float), axis=2), 0.99))


# ---- all pairs -----------------------------------------------------------------------------------


def measure(weights: Model) -> dict[str, dict[str, Numbers]]:
    """Return, by set, the numbers of the real pairs, of random blur and of normal codes."""
    found: dict[str, dict[str, Numbers]] = {}
    for name, draws in DRAWS.items():
        found[name] = {"real": {}, "random": {}, "normal codes": {}}
        for record in [*held_out(name), *trained_on(name)]:
            sharp = record.image("sharp")
            _add(found[name]["real"], measured(record.image("blur"), sharp))
            gray = central_crop(sharp, SIDE, SIDE).mean(axis=2, keepdims=True)
            gray = np.repeat(gray.round().astype(np.uint8), 3, axis=2)
            for kind, scale in (("random", None), ("normal codes", NORMAL)):
                for seed in range(draws if scale is None else 1):
                    photo = Record(record.name, {"sharp": sharp})
                    made = weights.random_blur(photo, seed=seed, scale=scale)
                    _add(found[name][kind], measured(made.image("reblurred"), sharp))
                seed = len(found[name][kind]["strength"])
                coloured = weights.random_blur(gray, seed=seed, scale=scale)
                _add(found[name][kind], {"fringes": [fringes(coloured)]})
    return found


def _add(total: Numbers, more: Numbers) -> None:
    for key, values in more.items():
        total.setdefault(key, []).extend(values)


# ---- tables --------------------------------------------------------------------------------------


def histogram(values: Sequence[float], edges: Sequence[float]) -> list[float]:
    """Return the percentage of values in each bin; those outside count for the nearest one."""
    counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
    return [float(percent) for percent in 100 * counts / len(values)]


def table(key: str, found: dict[str, dict[str, Numbers]]) -> list[tuple[str, ...]]:
    """Return a histogram's rows: its bins, then a row for each set and kind of blur."""
    edges = BINS[key]
    bins = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    if key == "strength":
        bins[0], bins[-1] = f"below {edges[1]:g}", f"{edges[-2]:g} and more"
    rows = [(f"{key}, %", *bins, "median")]
    for name, kinds in found.items():
        for kind, numbers in kinds.items():
            cells = [f"{percent:.0f}" for percent in histogram(numbers[key], edges)]
            median = "" if key == "direction" else f"{np.median(numbers[key]):.2f}"
            rows.append((f"{name}, {kind}", *cells, median))
    return rows


def artefacts(found: dict[str, dict[str, Numbers]]) -> list[tuple[str, ...]]:
    """Return the rows of fringes and weave: means over all blurs of a set."""
    rows = [("artefacts", "colour of gray photos, gray levels", "weave")]
    for name, kinds in found.items():
        for kind, numbers in kinds.items():
            colour = f"{np.mean(numbers['fringes']):.1f}" if "fringes" in numbers else "0"
            rows.append((f"{name}, {kind}", colour, f"{np.mean(numbers['weave'][::2]):.3f}"))
    return rows


def main() -> None:
    parser = pages.options(__doc__)
    parser.add_argument("-c", "--checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(blurkit.load(options.checkpoint, system="kernel-space"))
    tables = [*(table(key, found) for key in BINS), artefacts(found)]
    for head, *rows in tables:
        print_table("random blur beside real pairs", head, rows, note=machine())
    if options.write:
        pages.keep("random_blur", found)
        text = "\n\n".join(pages.table(head, rows) for head, *rows in tables)
        pages.fill("random blur", text, pages.DOCS / "metrics.md")


if __name__ == "__main__":
    main()
