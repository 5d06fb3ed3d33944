"""Camera shake made with measured kernels: Set5 and scikit-image's photos under Levin's kernels.

python -m tests.benchmarks.shake            measures and prints the tables (some minutes)
    --write          also writes docs/benchmarks/shake.json and the tables in docs/benchmarks.md
    --count N        the first so many pairs alone

Light is linear (gamma 2.2), the kernel's centroid its origin, noise of 1, 2 and 4/255 is added to
the 8-bit values, and a border that the blur reaches from outside is cut off. PSNR is that of
`eval`, of all three channels, not aligned.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import blurkit
from blurkit.cli.deblur import DeblurOptions, deblurring
from blurkit.io.records import Record, from_float, to_float
from blurkit.metrics.psnr import psnr
from blurkit.synthesis.kernels import read_kernels
from blurkit.systems.deconvolution.fourier import (
    centred,
    irfft2,
    measured_noise,
    rfft2,
    transfer_function,
)
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import known
from tests.benchmarks import inversion, pages
from tests.shared import shared_folder
from tests.systems.deconvolution.photos import without_blur

GAMMA = 2.2
NOISE = (1, 2, 4)
MARGIN = 22
"""Pixels of a border that blur reaches from outside the picture; Levin's kernels are up to 27."""

STRENGTHS: dict[str, tuple[Callable[[Tensor, Tensor, float], Tensor], float]] = {
    "Wiener": (inversion.wiener, 7e-4),
    "total variation": (inversion.total_variation, 7e-3),
    "hyper-Laplacian": (inversion.hyper_laplacian, 1.8e-2),
}
"""The classical methods, with their strengths times the variance of the noise.

So 200, 2000 and 5000 at Levin's noise of 0.0019, what is best there.
"""


def pairs(folder: Path) -> Iterator[Record]:
    """Yield `blur` and `sharp` (H, W, 3) uint8, with `kernel` and `noise`, in a fixed order.

    Each photo comes three times, under three kernels and three noises.
    """
    kernels = [kernel[::-1, ::-1] for _, kernel in read_kernels(folder / "kernels" / "Levin09.mat")]
    folders = [folder / "sharp" / name for name in ("set5", "skimage")]
    for number, photo in enumerate(blurkit.read_records(*folders, image="sharp")):
        for turn, noise in enumerate(NOISE):
            kernel = kernels[(number * len(NOISE) + turn) % len(kernels)]
            rng = np.random.default_rng([number, noise])
            yield pair(f"{photo.name} {noise}", to_float(photo.image("sharp")), kernel, noise, rng)


def pair(
    name: str, photo: np.ndarray, kernel: np.ndarray, noise: int, rng: np.random.Generator
) -> Record:
    """Return the record of a photo (H, W, C) under `kernel` (h, w), with noise in 255ths."""
    colour = np.repeat(photo, 3, axis=2) if photo.shape[2] == 1 else photo
    light = torch.from_numpy(colour).permute(2, 0, 1) ** GAMMA
    values = shaken(light, kernel, noise, rng)
    inside = slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN)
    images = {"blur": values[inside], "sharp": colour[inside]}
    pixels = {role: from_float(image, np.dtype(np.uint8)) for role, image in images.items()}
    return Record(name, pixels, {"kernel": kernel, "noise": noise})


def shaken(light: Tensor, kernel: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """Return linear light (3, H, W) under a kernel (h, w) as a photo (H, W, 3), not rounded.

    The kernel's centroid is its origin; values are clipped at white before the noise, in 255ths.
    """
    blur = torch.from_numpy(kernel.copy()).float()
    sides = light.shape[-2], light.shape[-1]
    transfer = centred(transfer_function(blur, *sides), blur, sides[1])
    blurry = irfft2(rfft2(light) * transfer, s=sides).clamp(0, 1) ** (1 / GAMMA)
    values = blurry.permute(1, 2, 0).numpy()
    return values + noise / 255 * rng.standard_normal(values.shape, dtype=np.float32)


def classical(record: Record, kernel: Tensor, method: str) -> np.ndarray:
    """Return `blur` (H, W, 3) without the blur of a kernel (h, w), each channel in linear light.

    The kernel's centroid is its origin.
    """
    undo, scale = STRENGTHS[method]
    light = torch.from_numpy(to_float(record.image("blur"))).permute(2, 0, 1) ** GAMMA
    noise = float(measured_noise(light[None]))
    result = undo(light, middled(kernel).expand(3, -1, -1), scale / max(noise, 1e-3) ** 2)
    return result.clamp(0, 1).pow(1 / GAMMA).permute(1, 2, 0).numpy()


def middled(kernel: Tensor) -> Tensor:
    """Return a kernel whose centroid is in its middle, in a square that is a little larger.

    Moved by fractions of a pixel it has values below 0.
    """
    side = (max(kernel.shape) + 8) | 1
    place = transfer_function(kernel, side, side)
    moved = irfft2(centred(place, kernel, side), s=(side, side))
    return torch.roll(moved, (side // 2, side // 2), (-2, -1))


# ---- measuring -----------------------------------------------------------------------------------


def measure(folder: Path, count: int | None) -> dict[str, Any]:
    """Return, for every pair, the PSNR and seconds of every method, and of `deblur`."""
    chooser: Any = deblurring(DeblurOptions(gamma=GAMMA, device="cpu", quiet=True))[0]
    deconvolution = chooser.deconvolution
    rows = []
    for number, record in enumerate(pairs(folder)):
        if number == count:
            break
        sharp, photo = record.image("sharp"), to_float(record.image("blur"))
        started = time.perf_counter()
        windows = deconvolution.windows(photo)
        chosen = without_blur(deconvolution, photo, windows, chooser.otherwise(photo))
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {"name": record.name, "noise": record.attrs["noise"]}
        row["blurry"] = psnr(record.image("blur"), sharp)
        row |= {"auto": scored(chosen, sharp), "auto s": seconds}
        best = max(windows, key=lambda window: window.trust)
        kernels = {"true": torch.from_numpy(record.attrs["kernel"].copy()), "found": best.kernel}
        for kind, kernel in kernels.items():
            row[kind] = {}
            for method in (*STRENGTHS, "learned"):
                started = time.perf_counter()
                if method == "learned":
                    result = learned(deconvolution, photo, kernel, best.gamma)
                else:
                    result = classical(record, kernel.float(), method)
                seconds = time.perf_counter() - started
                row[kind][method] = {"psnr": scored(result, sharp), "s": seconds}
        rows.append(row)
    return {"window": deconvolution.options.as_dict(), "pairs": rows}


def learned(
    deconvolution: Deconvolution, photo: np.ndarray, kernel: Tensor, gamma: float
) -> np.ndarray:
    """Return a photo (H, W, 3) without the blur of one kernel (h, w), by the network."""
    windows = known(photo, middled(kernel.float()).numpy(), deconvolution.options, gamma)
    return without_blur(deconvolution, photo, windows)


def scored(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the PSNR in dB of a float image (H, W, 3), rounded to 8 bits."""
    return psnr(from_float(image, np.dtype(np.uint8)), sharp)


# ---- tables --------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> str:
    rows = results["pairs"]
    chosen = []
    for noise in (*sorted({row["noise"] for row in rows}), "all"):
        part = [row for row in rows if noise in (row["noise"], "all")]
        blurry, seconds = ([row[key] for row in part] for key in ("blurry", "auto s"))
        cells = f"{np.mean(blurry):.2f}", *pages.gained([r["auto"] - r["blurry"] for r in part])
        chosen.append((noise, len(part), *cells, f"{np.median(seconds):.1f}"))
    undone = []
    for method in rows[0]["true"]:
        cells = []
        for kind in ("true", "found"):
            cells += pages.gained([r[kind][method]["psnr"] - r["blurry"] for r in rows])[:2]
        seconds = np.median([row["found"][method]["s"] for row in rows])
        undone.append((method, *cells, f"{seconds:.2f}"))
    heads = (
        ("noise", "pairs", "blurry, dB", "`deblur --method auto`", "least", "worse by 0.1"),
        ("gain, dB", "true kernel", "least", "estimated kernel", "least"),
    )
    both = zip(heads, (chosen, undone), strict=True)
    return "\n\n".join(pages.table((*head, "seconds"), cells) for head, cells in both)


def main() -> None:
    parser = pages.options(__doc__)
    parser.add_argument("--count", type=int, help="the first so many pairs alone")
    options = parser.parse_args()
    results = measure(shared_folder("data", "BLURKIT_DATA"), options.count)
    pages.publish(options.write, "shake", results, tables(results))


if __name__ == "__main__":
    main()
