"""How blurred real pairs are, and synthetic ones: their PSNR, the length and form of their blur.

    python -m tests.benchmarks.blur
    --interpolated   compares blur from interpolated frames with blur from all frames of a fast
                     camera instead

prints a table of docs/commands/prepare.md. Of a video of 240 frames per second, every second to
sixteenth frame is kept, the dropped ones are interpolated, and the mean is compared with that of
all real frames.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import scipy.ndimage

from blurkit.data.sources import read_records
from blurkit.io.images import read_image
from blurkit.io.records import Image, Record, to_float
from blurkit.metrics.psnr import psnr
from blurkit.reports.progress import say
from blurkit.synthesis import BlurKind
from blurkit.synthesis.averaging import Averaging, average_frames, interpolated_average
from blurkit.synthesis.drawing import Synthesis, synthesize
from tests.benchmarks import pages
from tests.shared import shared_folder
from tests.synthesis.exposures import averaged_records

PHOTOS: list[tuple[str, list[str], int, int, dict[str, Any]]] = [
    ("GoPro's own sharp frames", ["pairs/gopro", "pairs/gopro_avg"], 1, 6, {}),
    ("Urban100, 1024 pixels wide", ["sharp/urban100"], 1, 2, {}),
    ("BSDS500, 481 pixels wide", ["sharp/bsds500_test"], 2, 1, {}),
    ("the same, `--scale 1.5 2.5`", ["sharp/bsds500_test"], 4, 1, {"scale": (1.5, 2.5)}),
    ("the same, `--kernel-size 1 14`", ["sharp/bsds500_test"], 2, 1, {"extent": (1, 14)}),
]
"""Sharp photos: their name, where they lie, one of how many is taken, copies, options."""

SMOOTHED = 1.5
"""The Gaussian, pixels, that joins the dots that a kernel consists of where frames are averaged."""

LONG = 6.0
"""The length in pixels from which the straightness of blur counts."""


HEAD = (
    *("pairs", "number", "PSNR: mean", "5 %", "25 %", "50 %", "75 %", "95 %"),
    *("length: 25 %", "50 %", "75 %", "straightness: 50 %"),
)


def main() -> None:
    parser = pages.options(__doc__, write=False)
    parser.add_argument("--interpolated", action="store_true", help="blur of interpolated frames")
    data = shared_folder("data", "BLURKIT_DATA")
    if parser.parse_args().interpolated:
        interpolated(data / "video/gopr0477_240fps")
        return
    rows = [
        row(f"real: {name}", read_records([data / "pairs" / name]))
        for name in ("gopro", "gopro_avg", "reds_180p")
    ]
    for count in (8, 11, 13):
        records = averaged_records([data / "video/gopr0477_240fps"], Averaging(count, 6))
        rows.append(row(f"real: GOPR0477, `--average {count}`", records))
    kinds: list[tuple[BlurKind, Any]] = [("realistic", photos) for photos in PHOTOS]
    name, folders, every, *_ = PHOTOS[0]
    plain = name, folders, every, 1, {"extent": (5, 45)}
    kinds += [(kind, plain) for kind in get_args(BlurKind)[:3]]
    for kind, (name, folders, *how) in kinds:
        records = blurred(kind, [data / folder for folder in folders], *how)
        rows.append(row(f"`{kind}` on {name}", records))
    pages.tell(pages.table(HEAD, rows))


def blurred(
    kind: BlurKind, inputs: list[Any], every: int, copies: int, options: dict[str, Any]
) -> Iterator[Record]:
    """Blur of a kind, of every so manieth photo."""
    synthesis = Synthesis(kind, **options)
    for number, record in enumerate(read_records(inputs, image="sharp")):
        if number % every == 0:
            for copy in range(copies):
                yield synthesize(record, synthesis, copy=copy)


def row(name: str, records: Iterable[Record]) -> tuple[object, ...]:
    """Return one line: quantiles of PSNR, dB, and of the blur's length, pixels, and form."""
    values, forms = [], []
    for record in records:
        blur, sharp = record.image("blur"), record.image("sharp")
        values.append(psnr(blur, sharp))
        forms += local_forms(to_float(blur), to_float(sharp))
    lengths, straightness = np.array(forms).T
    numbers = [np.mean([value for value in values if np.isfinite(value)])]
    numbers += [*np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))]
    numbers += [*np.quantile(lengths, (0.25, 0.5, 0.75))]
    say(f"{name}: {len(values)} pairs, {len(forms)} kernels", False)
    straight = f"{np.median(straightness[lengths > LONG]):.2f}"
    return name, len(values), *(f"{n:.1f}" for n in numbers), straight


def local_forms(blur: np.ndarray, sharp: np.ndarray) -> list[tuple[float, float]]:
    """How long the blur is in parts of a pair, pixels, and how straight, 0 to 1.

    In each part, a fifth of the image or 192 pixels, the kernel is the least-squares solution for
    the gradients of both images in linear light, regularised in the frequency domain. Its largest
    values that hang together are kept. It is as long as a straight and uniform kernel that spreads
    as much along its main axis; 1 minus the ratio of its widths across and along is its
    straightness. Parts in which no kernel stands out, for want of detail or since things move
    there, are left out.
    """
    side = 192 if min(blur.shape[:2]) > 400 else 128
    light = [(image**2.2).mean(axis=2) for image in (blur, sharp)]
    window = np.outer(np.hanning(side), np.hanning(side))
    forms = []
    for top in range(0, blur.shape[0] - side + 1, side):
        for left in range(0, blur.shape[1] - side + 1, side):
            parts = [image[top : top + side, left : left + side] for image in light]
            form = _form(_kernel(*parts, window))
            forms += [form] if form else []
    return forms


def _kernel(blur: np.ndarray, sharp: np.ndarray, window: np.ndarray) -> np.ndarray:
    cross = power = np.zeros(1)
    for axis in (0, 1):
        edges = (np.gradient(image, axis=axis) * window for image in (blur, sharp))
        of_blur, of_sharp = map(np.fft.fft2, edges)
        cross = cross + np.conj(of_sharp) * of_blur
        power = power + np.abs(of_sharp) ** 2
    kernel = np.fft.ifft2(cross / (power + 0.01 * power.mean() + 1e-12)).real
    middle, reach = len(window) // 2, len(window) // 4
    inside = slice(middle - reach, middle + reach + 1)
    return np.fft.fftshift(kernel)[inside, inside]


def _form(kernel: np.ndarray) -> tuple[float, float] | None:
    spreads = _spreads(kernel)
    if spreads is None:
        return None
    point = np.zeros_like(kernel)
    point[len(kernel) // 2, len(kernel) // 2] = 1
    across, along = np.maximum(spreads - _spreads(point), 0)
    return float(np.sqrt(12 * along + 1)), float(1 - np.sqrt(across / max(along, 1e-6)))


def _spreads(kernel: np.ndarray) -> np.ndarray | None:
    """The variances (2,) across and along a smoothed, cleared kernel's main axis.

    None if it is in pieces.
    """
    kernel = scipy.ndimage.gaussian_filter(kernel, SMOOTHED)
    kernel = np.where(kernel > 0.15 * kernel.max(), kernel, 0)
    labels, count = scipy.ndimage.label(kernel, structure=np.ones((3, 3)))
    if not count:
        return None
    sums = scipy.ndimage.sum_labels(kernel, labels, range(1, count + 1))
    if sums.max() < 0.6 * kernel.sum():
        return None
    places = np.argwhere(labels == 1 + np.argmax(sums)).T
    weights = kernel[tuple(places)] / sums.max()
    places = places - (places @ weights)[:, None]
    return np.linalg.eigvalsh((places * weights) @ places.T)


# ---- interpolated frames -------------------------------------------------------------------------

SPAN = 16
"""Gaps between the frames of each blur: 17 frames, 1/15 s at 240 frames per second."""

KEPT = {2: "every 2nd", 4: "every 4th", 8: "every 8th", 16: "every 16th"}

GAMMA = 2.2


def interpolated(folder: Path) -> None:
    """Measure and print the table of blur from interpolated frames of a folder."""
    frames = [read_image(path).pixels for path in sorted(folder.glob("*.png"))]
    clips = [frames[start : start + SPAN + 1] for start in range(0, len(frames) - SPAN, SPAN)]
    rows = []
    for every, name in KEPT.items():
        means = np.mean([scores(clip, every) for clip in clips], axis=0)
        options = f"`--average {SPAN // every + 1} --interpolate {every}`"
        numbers = [f"{value:.1f}" for value in means[:3]]
        rows.append((f"{name}, {240 / every:g} fps", options, *numbers, f"{means[3]:.3f}"))
    head = ("kept", "options", "kept frames alone", "cross-dissolve", "`--interpolate`")
    pages.tell(pages.table((*head, "agreement"), rows))


def scores(frames: Sequence[Image], every: int) -> tuple[float, float, float, float]:
    """Return how close three blurs made of every `every`-th frame are to the blur of all `frames`.

    PSNR in dB of the mean of the kept frames alone, with cross-dissolved frames between them, and
    with interpolated ones; and the fraction of pixels where the flow agrees.
    """
    real, kept = average_frames(frames), frames[::every]
    made, attrs = interpolated_average(kept, Averaging(len(kept), gamma=GAMMA, interpolate=every))
    blurs = (average_frames(kept), cross_dissolve(kept, every), made)
    alone, dissolved, flow = (psnr(blur, real) for blur in blurs)
    return alone, dissolved, flow, attrs["flow_agreement"]


def cross_dissolve(frames: Sequence[Image], steps: int) -> Image:
    """Return the mean of uint8 frames and of `steps - 1` mixtures of each two of them."""
    light = [(frame / 255) ** GAMMA for frame in frames]
    total = np.sum(light, axis=0)
    for first, second in pairwise(light):
        total += (steps - 1) / 2 * (first + second)
    mean = total / ((len(frames) - 1) * steps + 1)
    return np.floor(255 * mean ** (1 / GAMMA)).astype(np.uint8)


if __name__ == "__main__":
    main()
