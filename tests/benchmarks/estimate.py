"""The estimate of a blur: in windows under drawn hand paths, in photos under long and slight ones.

python -m tests.benchmarks.estimate          measures and prints the tables (some minutes)
    --write          also writes docs/benchmarks/estimate.json and docs/deconvolution.md's tables
    --sets windows   windows, long, slight, rested, print, turning: these alone; rows of the others
                     are kept
    --count N        the first so many of each set alone
    --seed N         another draw

Blur is made in linear light (gamma 2.2), noise of 1.5/255 is added to the 8-bit values. `windows`
are crops of gb82's photos, 320x320, under paths of 9 to 41 pixels; kernels are estimated for the
true gamma and compared by their agreement with the true one, and by the gain in PSNR of the
deconvolution network with them. `long` are whole photos of gb82 and Set5 under paths of 45 to 101
pixels, every second one with lights of 3 to 30 times white; they go through `blurkit.load().deblur`
and are scored after alignment. `slight` are the same photos under paths of 0 to 4 pixels, `rested`
under paths of 9 to 41 pixels on which the camera rests for 30, 60 and 75 % of the exposure in turn.
`print` are scikit-image's page and text, also enlarged, in drawn inks on drawn papers, every third
one bright on dark, under paths of 9 to 41 pixels. `turning` are sharp frames of GoPro, under paths
of 9 to 41 pixels on which the camera also turns about the middle, by 5 to 20 pixels in the corners.
"""

import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import skimage.data
import torch
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

import blurkit
from blurkit.io.records import Record, from_float, to_float
from blurkit.synthesis.kernels import (
    draw_path,
    random_trajectory,
    random_trajectory_kernel,
    scaled_path,
)
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.estimation import estimate_kernels
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded, trimmed
from blurkit.systems.deconvolution.inference import deconvolving
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.samples import rested
from blurkit.systems.registry import load_networks
from blurkit.systems.system import load_shipped
from tests.benchmarks import pages
from tests.benchmarks.shake import GAMMA, scored, shaken
from tests.shared import shared_folder

NOISE = 1.5
SIDE, FULL, LIMIT = 320, 41, 23
"""Side of a window, of the kernels estimated there, and the border that no score counts, pixels."""

Estimate = Callable[[np.ndarray], Tensor]
"""From a window (H, W, 3) in [0, 1] to its kernel (41, 41)."""


def photos(*folders: str) -> list[np.ndarray]:
    """Return the photos (H, W, 3) in [0, 1] of folders of the shared data."""
    found = [shared_folder("data", "BLURKIT_DATA") / folder for folder in folders]
    images = (record.image("sharp") for record in blurkit.read_records(*found, image="sharp"))
    return [to_float(np.repeat(x, 3, axis=2) if x.shape[2] == 1 else x) for x in images]


def taken(
    photo: np.ndarray, kernel: np.ndarray, rng: np.random.Generator, lights: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return a photo (H, W, 3) under a kernel and sharp, with so many lights, as uint8.

    The lights are 3 to 30 times as bright as white, and clipped in both.
    """
    light = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1) ** GAMMA
    height, width = light.shape[-2:]
    for _ in range(lights):
        y, x, side = rng.integers(height), rng.integers(width), rng.integers(1, 4)
        light[:, y : y + side, x : x + side] = float(rng.uniform(3, 30))
    sharp = light.clamp(0, 1).pow(1 / GAMMA).permute(1, 2, 0).numpy()
    blurry = shaken(light, kernel, NOISE, rng)
    return from_float(blurry, np.dtype(np.uint8)), from_float(sharp, np.dtype(np.uint8))


# ---- windows -------------------------------------------------------------------------------------


def windows(count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray, Tensor]]:
    """Yield blurry and sharp windows (320, 320, 3) in [0, 1] and their true kernels (41, 41)."""
    pool = photos("more/sharp/gb82")
    rng = np.random.default_rng(seed)
    margin = FULL // 2 + 2
    for number in range(count):
        photo = pool[number % len(pool)]
        kernel = random_trajectory_kernel(rng, int(rng.integers(4, 21)) * 2 + 1)
        top, left = (int(rng.integers(n - SIDE - 2 * margin + 1)) for n in photo.shape[:2])
        wide = photo[top : top + SIDE + 2 * margin, left : left + SIDE + 2 * margin]
        inside = slice(margin, -margin), slice(margin, -margin)
        blurry = to_float(taken(wide, kernel, rng)[0])
        yield blurry[inside], wide[inside], padded(torch.from_numpy(kernel).float(), FULL)


def estimates(deconvolution: Deconvolution) -> dict[str, Estimate]:
    """Return the ways to estimate a kernel, by name."""
    options = WindowOptions()

    def l0(photo: np.ndarray) -> Tensor:
        grey = (torch.from_numpy(np.ascontiguousarray(photo)) ** GAMMA).mean(2)[None]
        return estimate_kernels(grey, FULL, torch.tensor([options.weight]), options)[0].cpu()

    def chosen(photo: np.ndarray) -> Tensor:
        choice = deconvolution.choice
        light = options.gammas.index(GAMMA)
        found = choice.starts(photo, light)
        (number,) = choice.chosen([found], [[]])
        return choice.refined([photo], [choice.finished(photo, found, number, light)])[0].kernel

    return {"L0": l0, "chosen": chosen}


def measure_windows(count: int, seed: int) -> list[dict[str, Any]]:
    """Return, for every window, agreement, gain and seconds of every estimate; one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    network = deconvolving(load_networks(load_shipped("deconvolution", "deconvolving")))
    deconvolution = Deconvolution(network, WindowOptions(), "cpu", "fp32")
    ways = estimates(deconvolution)
    rows = []
    for photo, sharp, true in windows(count, seed):
        row: dict[str, Any] = {"true": {"gain": gained(deconvolution, photo, sharp, true)}}
        for name, estimate in ways.items():
            started = time.perf_counter()
            kernel = estimate(photo)
            row[name] = {"s": time.perf_counter() - started}
            row[name]["agreement"] = float(kernel_agreement(true, kernel[None])[0])
            row[name]["gain"] = gained(deconvolution, photo, sharp, kernel)
        rows.append(row)
    torch.set_num_threads(threads)
    return rows


def gained(
    deconvolution: Deconvolution, photo: np.ndarray, sharp: np.ndarray, kernel: Tensor
) -> float:
    """Return the gain in PSNR, dB, of a window restored with a kernel."""
    x = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None]
    restored, _ = deconvolution.undo(x, trimmed(kernel[None]), [GAMMA])
    return inner_psnr(restored[0].permute(1, 2, 0).numpy(), sharp) - inner_psnr(photo, sharp)


# ---- whole photos --------------------------------------------------------------------------------


SIZES = {"long": (45, 101), "slight": (1, 5), "rested": (9, 41), "print": (9, 41)}
"""The least and the largest side of kernels in a set."""

RESTS = (0.3, 0.6, 0.75)
"""For which part of the exposure the camera rests in photos of *rested*, in turn."""


def printed(number: int, rng: np.random.Generator) -> np.ndarray:
    """Return a photo (H, W, 3) in [0, 1] of a page in drawn colours."""
    page = skimage.data.text() if number % 4 == 3 else skimage.data.page()
    grey = ndimage.zoom(page / 255, 1 + number % 2, order=1)[..., None]
    dark, bright = rng.uniform(0, 0.3, 3), rng.uniform(0.7, 1, 3)
    ink, paper = (bright, dark) if number % 3 == 2 else (dark, bright)
    return (ink + (paper - ink) * grey).astype(np.float32)


def pairs(kind: str, count: int, seed: int) -> Iterator[Record]:
    """Yield photos of gb82 and Set5 in turn, under a kind of blur, or of "print"."""
    sets = [photos("more/sharp/gb82"), photos("sharp/set5")]
    rng = np.random.default_rng([seed, kind == "long"])
    for number in range(count):
        pool = sets[number % 4 == 3]
        photo = printed(number, rng) if kind == "print" else pool[int(rng.integers(len(pool)))]
        least, most = SIZES[kind]
        most = min(most, min(photo.shape[:2]) // 3)  # a photo of Set5 is too small for more
        side = int(rng.integers(least // 2, most // 2 + 1)) * 2 + 1
        path = random_trajectory(rng)
        if kind == "rested":
            path = rested(path, int(rng.integers(len(path))), RESTS[number % len(RESTS)])
        kernel = draw_path(path, side)
        lights = int(rng.integers(15, 41)) if kind == "long" and number % 2 else 0
        blur, sharp = taken(photo, kernel, rng, lights)
        attrs = {"kernel": kernel, "lights": lights}
        yield Record(f"{kind} {number}", {"blur": blur, "sharp": sharp}, attrs)


POSES = 120
"""How many places of a camera that turns are averaged."""


def turning(count: int, seed: int) -> Iterator[Record]:
    """Yield frames of GoPro in turn, seen by a camera that moves and turns."""
    pool = photos("pairs/gopro", "pairs/gopro_avg")
    rng = np.random.default_rng([seed, 77])
    for number in range(count):
        photo = pool[number % len(pool)]
        height, width = photo.shape[:2]
        path, angle = (random_trajectory(rng) for _ in range(2))
        path = scaled_path(path, int(rng.integers(4, 21)))
        by = scaled_path(angle.real, rng.uniform(5, 20)).real / (np.hypot(height, width) / 2)
        light = torch.from_numpy(np.ascontiguousarray(photo)).permute(2, 0, 1)[None] ** GAMMA
        down, right = np.ogrid[:height, :width]
        places = right - (width - 1) / 2 + 1j * (down - (height - 1) / 2)
        exposed = torch.zeros_like(light)
        for pose in np.linspace(0, len(path) - 1, POSES).round().astype(int):
            at = (places - path[pose]) / (1 + 1j * by[pose])
            grid = torch.from_numpy(np.stack([2 * at.real / width, 2 * at.imag / height], -1))
            exposed += F.grid_sample(
                light, grid[None].float(), "bicubic", "reflection", align_corners=False
            )
        seen = (exposed[0] / POSES).clamp(0, 1) ** (1 / GAMMA)
        blurry = seen.permute(1, 2, 0).numpy() + rng.normal(0, NOISE / 255, photo.shape)
        made = {"blur": blurry.astype(np.float32), "sharp": photo}
        images = {role: from_float(image, np.dtype(np.uint8)) for role, image in made.items()}
        yield Record(f"turning {number}", images, {})


def measure_photos(kind: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Return the gain and the seconds of `deblur`, and what it said of every photo."""
    model = blurkit.load(device="cpu")
    rows = []
    for record in turning(count, seed) if kind == "turning" else pairs(kind, count, seed):
        started = time.perf_counter()
        result = model.deblur(record)
        seconds = time.perf_counter() - started
        sharp = to_float(record.image("sharp"))
        before, after = (aligned_psnr(result.image(role), sharp) for role in ("blur", "restored"))
        told = {key: result.attrs.get(key) for key in ("blur_length", "restored_believed")}
        rows.append({"name": record.name, "before": before, "gain": after - before, "s": seconds})
        rows[-1] |= told
    return rows


def aligned_psnr(image: np.ndarray, sharp: np.ndarray, reach: int = 20) -> float:
    """Return the PSNR in dB at the best shift by whole pixels, without the border `LIMIT`."""
    values = to_float(image)
    grey = [np.fft.rfft2(x.mean(2) - x.mean()) for x in (values, sharp)]
    correlation = np.fft.irfft2(grey[0] * grey[1].conj(), s=sharp.shape[:2])
    near = np.roll(correlation, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    best = np.unravel_index(int(near.argmax()), near.shape)
    moved = np.roll(values, [reach - int(at) for at in best], (0, 1))
    return inner_psnr(moved, sharp)


def inner_psnr(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the PSNR in dB of float images (H, W, 3) in 8 bits, without the border `LIMIT`."""
    inside = slice(LIMIT, -LIMIT), slice(LIMIT, -LIMIT)
    return scored(image[inside], from_float(sharp[inside], np.dtype(np.uint8)))


# ---- tables --------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> str:
    made = []
    if windows := results.get("windows"):
        rows = []
        for name in windows[0]:
            gain, least, _ = pages.gained([row[name]["gain"] for row in windows])
            agreement, seconds = (
                "" if name == "true" else f"{np.mean([row[name][key] for row in windows]):.3f}"
                for key in ("agreement", "s")
            )
            rows.append((name, agreement, gain, least, seconds))
        made.append(pages.table(["windows", "agreement", "gain, dB", "least", "seconds"], rows))
    parts = {}
    if photos := results.get("long"):
        parts |= {"long, without lights": photos[::2], "long, with lights": photos[1::2]}
    others = ("slight", "rested", "print", "turning")
    parts |= {kind: results[kind] for kind in others if kind in results}
    rows = []
    for name, photos in parts.items():
        seconds = np.median([row["s"] for row in photos])
        numbers = pages.gained([row["gain"] for row in photos])
        rows.append((name, len(photos), *numbers, f"{seconds:.1f}"))
    if rows:
        head = ["photos", "number", "gain, dB", "least", "worse by 0.1", "seconds"]
        made.append(pages.table(head, rows))
    return "\n\n".join(made)


COUNTS = {"windows": 20, "long": 16, "slight": 24, "rested": 12, "print": 12, "turning": 8}
"""How many windows and photos each set has."""


def main(arguments: list[str]) -> None:
    parser = pages.options(__doc__, seed=7)
    parser.add_argument("--sets", nargs="+", choices=COUNTS, default=list(COUNTS))
    parser.add_argument("--count", type=int, help="the first so many of each set alone")
    o = parser.parse_args(arguments)
    results = pages.known("estimate") if o.write else {}
    for kind in o.sets:
        measure = measure_windows if kind == "windows" else partial(measure_photos, kind)
        results[kind] = measure(o.count or COUNTS[kind], o.seed)
    pages.publish(o.write, "estimate", results, tables(results), pages.DOCS / "deconvolution.md")


if __name__ == "__main__":
    main(sys.argv[1:])
