"""Levin et al.'s benchmark: photos of a shaken camera, deblurred with and without their kernels.

python -m tests.benchmarks.levin            measures and prints the table (some minutes)
    --count N        of the first N pairs alone
    --searches N     blind searches of the first N pairs instead (minutes each), as they usually
                     start and from the estimated blur; with --write those that
                     docs/benchmarks/levin.json has are not run again
    --iterations N   of the searches, in place of their own; --only NAME runs one of them alone
    --write          also writes docs/benchmarks/levin.json and the table in docs/benchmarks.md

The protocol is Levin's own (CVPR 2009 and 2011): 15 pixels are cut off on every side, the result
is moved by up to 10 pixels, in quarters, to where it fits best, and the error ratio is its sum of
squared differences against that of the true kernel's result by the same method, here `sparse`.
"""

import argparse
import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from blurkit.io.images import read_image
from blurkit.io.records import Record, from_float, to_float
from blurkit.systems.blind_search import TiledSearch, run_searches
from blurkit.systems.deconvolution.config import Estimation, WindowOptions
from blurkit.systems.deconvolution.fourier import cleaned
from blurkit.systems.deconvolution.inference import start_estimator
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import known
from blurkit.systems.kernel_space.objective import SearchContext
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from tests.benchmarks import inversion, pages
from tests.shared import shared_folder
from tests.systems.deconvolution.photos import without_blur

CROP, REACH = 15, 10

SEARCHES: dict[str, dict[str, Any]] = {
    "convolution": {"operator": "convolution"},
    "kernel space": {"operator": "kernel-space"},
    "SelfDeblur's schedule": {"preset": "selfdeblur"},
}
"""The searches that are compared, by name: options of `blind-deblur`."""

STARTS = ("usual", "estimate")

Pair = tuple[str, np.ndarray, np.ndarray, Tensor]
"""Name, photo, sharp, true kernel; all but the kernel (h, w) grey (H, W) in [0, 1]."""

Undo = Callable[[np.ndarray, Tensor], np.ndarray]
"""A grey photo (H, W) in [0, 1] and its kernel (h, w) to the restored one."""

Row = dict[str, Any]


def pairs(folder: Path) -> list[Pair]:
    """Return every pair.

    The kernels of the MATLAB file are those of a correlation, so they are turned round.
    """
    with h5py.File(folder / "kernels" / "Levin09.mat") as file:
        kernels = [file[place][()].T[::-1, ::-1].copy() for place in file["kernels"][()].ravel()]
    found = []
    for path in sorted((folder / "pairs" / "levin" / "blur").glob("*.png")):
        image, number = path.stem.removesuffix("_img").split("_kernel")
        blurry, sharp = (
            to_float(read_image(file).pixels)[:, :, 0]
            for file in (path, folder / "pairs" / "levin" / "sharp" / f"{image}.png")
        )
        kernel = torch.from_numpy(kernels[int(number) - 1]).float()
        found.append((f"{image} {number}", blurry, sharp, kernel))
    return found


# ---- scores --------------------------------------------------------------------------------------


def aligned_error(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the least mean of squared differences of grey images (H, W) over all shifts.

    The image is moved by up to `REACH` pixels in quarters, bilinearly, the best whole shift first.
    """
    target = sharp[CROP:-CROP, CROP:-CROP]
    height, width = target.shape

    def error(down: float, right: float) -> float:
        top, left = math.floor(down), math.floor(right)
        y, x = down - top, right - left
        part = image[CROP + top :, CROP + left :][: height + 1, : width + 1]
        rows = (1 - y) * part[:height] + y * part[-height:]
        moved = (1 - x) * rows[:, :width] + x * rows[:, -width:]
        return float(np.square(moved - target).mean())

    whole = range(-REACH, REACH + 1)
    _, down, right = min((error(a, b), a, b) for a in whole for b in whole)
    near = [q / 4 for q in range(-4, 5)]
    places = [(down + a, right + b) for a in near for b in near]
    return min(error(a, b) for a, b in places if max(abs(a), abs(b)) <= REACH)


def decibels(error: float) -> float:
    """Return the PSNR in dB of a mean of squared differences."""
    return -10 * math.log10(error)


def rounded_error(image: np.ndarray, sharp: np.ndarray) -> float:
    """Return the `aligned_error` of a restored photo (H, W), rounded to 8 bits."""
    return aligned_error(to_float(from_float(image, np.uint8)), sharp)


# ---- deconvolution -------------------------------------------------------------------------------


def methods(deconvolution: Deconvolution) -> dict[str, Undo]:
    """Return the second halves that are compared, by name."""

    def classical(undo: Callable[[Tensor, Tensor, float], Tensor], strength: float) -> Undo:
        def run(photo: np.ndarray, kernel: Tensor) -> np.ndarray:
            return undo(torch.from_numpy(photo)[None], kernel[None], strength)[0].numpy()

        return run

    def learned(photo: np.ndarray, kernel: Tensor) -> np.ndarray:
        colour = np.repeat(photo[:, :, None], 3, axis=2)
        windows = known(colour, kernel.numpy(), deconvolution.options, gamma=1.0)
        return without_blur(deconvolution, colour, windows).mean(2)

    return {
        "Wiener": classical(inversion.wiener, 200),
        "total variation": classical(inversion.total_variation, 2000),
        "hyper-Laplacian": classical(inversion.hyper_laplacian, 5000),
        "sparse": classical(inversion.sparse, 1000),
        "learned": learned,
    }


def measure(folder: Path, count: int | None) -> dict[str, Any]:
    """Return the errors and seconds of every method with true and with estimated kernels."""
    network = network_for("deconvolving", load_shipped("deconvolution"))
    deconvolution = Deconvolution(network, WindowOptions())
    undo = methods(deconvolution)
    rows = []
    for name, blurry, sharp, truth in pairs(folder)[:count]:
        colour = np.repeat(blurry[:, :, None], 3, axis=2)
        started = time.perf_counter()
        (window,) = deconvolution.windows(colour)
        seconds = time.perf_counter() - started
        row: Row = {"name": name, "estimating": seconds, "trust": window.trust}
        row["blurry"] = aligned_error(blurry, sharp)
        for kind, kernel in (("known", truth), ("estimated", window.kernel)):
            row[kind] = {method: scored(run, blurry, sharp, kernel) for method, run in undo.items()}
        chosen = without_blur(deconvolution, colour, [window]).mean(2)
        rows.append(row | {"as it chooses": rounded_error(chosen, sharp)})
    return {"window": deconvolution.options.as_dict(), "pairs": rows}


def scored(run: Undo, blurry: np.ndarray, sharp: np.ndarray, kernel: Tensor) -> dict[str, float]:
    """Return the error of what a method makes and its seconds."""
    started = time.perf_counter()
    result = run(blurry, kernel)
    seconds = time.perf_counter() - started
    return {"error": rounded_error(result, sharp), "s": seconds}


def tables(results: dict[str, Any]) -> str:
    rows = results["pairs"]
    blurry = [decibels(row["blurry"]) for row in rows]
    cells = []
    for method in rows[0]["known"]:
        true, found = ([row[kind][method] for row in rows] for kind in ("known", "estimated"))
        gains = [decibels(f["error"]) - b for f, b in zip(found, blurry, strict=True)]
        near = [f["error"] / t["error"] <= 3 for f, t in zip(found, true, strict=True)]
        means = (_mean([each["error"] for each in kind]) for kind in (true, found))
        gained = pages.gained(gains)[:2]
        seconds = _median([f["s"] for f in found])
        cells.append((method, *means, *gained, f"{np.mean(near):.0%}", f"{seconds:.2f}"))
    gains = [decibels(row["as it chooses"]) - b for row, b in zip(rows, blurry, strict=True)]
    cells.append(("`deblur --method shake`", "", "", *pages.gained(gains)[:2], "", ""))
    head = ("aligned PSNR, dB", "true kernel", "estimated", "gain", "least", "ratio up to 3")
    seconds = _median([row["estimating"] for row in rows])
    return (
        f"{len(rows)} pairs; aligned PSNR of the blurry photos {np.mean(blurry):.2f} dB.\n\n"
        f"{pages.table((*head, 'seconds'), cells)}\n\n"
        f"Estimating a kernel takes {seconds:.1f} s of these 255x255 pixels (median)."
    )


def _mean(errors: Sequence[float]) -> str:
    return f"{np.mean([decibels(error) for error in errors]):.2f}"


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))


# ---- searches ------------------------------------------------------------------------------------


def search_context(name: str, start: str, device: str, **options: Any) -> SearchContext:
    """Return what the searches of a kind share; `options` come on top of its own."""
    estimate = start == "estimate" or None
    chosen = SearchOptions.resolve(**SEARCHES[name] | options, start_estimate=estimate)
    network = estimator = None
    if chosen.operator == "kernel-space":
        network = network_for("search", load_shipped("kernel-space"))
    if chosen.start_estimate:
        undo = network_for("deconvolving", load_shipped("deconvolution"))
        estimator = start_estimator(undo, device, "auto")
    return SearchContext(chosen, network, device=device, estimator=estimator)


def measure_searches(
    pairs: Sequence[Pair],
    rows: list[Row],
    keep: Callable[[], None],
    names: Sequence[str],
    device: str,
    **options: Any,
) -> None:
    """Append to `rows` what searches make of each pair, but for those that are there already.

    `keep` is called after each. `options` are those of all searches, such as `iterations`.
    """
    for pair, name, start in product(pairs, names, STARTS):
        context = search_context(name, start, device, **options)
        about = {"pair": pair[0], "search": name, "start": start}
        about["iterations"] = context.options.iterations
        if not any(about.items() <= row.items() for row in rows):
            rows.append(about | searched(pair, context))
            keep()


def searched(pair: Pair, context: SearchContext) -> Row:
    """Return the errors of what a search makes of a pair, and its processor seconds.

    `error` is that of its picture, `kernel` that of the photo deconvolved by the kernel it found.
    """
    name, blurry, sharp, _ = pair
    photo = from_float(blurry[:, :, None], np.uint8)
    # What else a processor does is not counted; a GPU's work is known by the clock alone.
    clock = time.process_time if context.device.type == "cpu" else time.perf_counter
    started = clock()
    (job,) = run_searches([TiledSearch(Record(name, {"blur": photo}), context)])
    seconds = clock() - started
    record = job.result(name)
    attrs = record.attrs
    row: Row = {
        "taken": attrs["blind_iterations"],
        "warm-up": context.options.warm_up,
        "s": seconds,
        "with": attrs["restored_with"],
        "error": aligned_error(to_float(record.images["restored"])[:, :, 0], sharp),
    }
    if "blind_started" in attrs:
        row |= {"started": attrs["blind_started"] == 1, "trust": attrs["blind_trust"]}
    if context.options.operator == "convolution":
        c, kernel = Estimation(), torch.from_numpy(job.kernel())[None]
        clean = cleaned(kernel, c.floor, c.part)  # as estimates are
        undone = inversion.sparse(torch.from_numpy(blurry)[None], clean)[0].numpy()
        row["kernel"] = rounded_error(undone, sharp)
    return row


def search_table(rows: Sequence[Row], known: Sequence[Row]) -> str:
    """Return the rows of searches as Markdown, above them what needs no search for their pairs.

    `known` are the rows of `measure`, in which the pairs of the searches are looked up.
    """
    names = {row["pair"] for row in rows}
    there = [row for row in known if row["name"] in names]
    errors = {row["name"]: row["known"]["sparse"]["error"] for row in there}
    seconds = _median([row["estimating"] + row["estimated"]["learned"]["s"] for row in there])
    kernel = [row["estimated"]["sparse"]["error"] for row in there]
    ratio = np.mean([error / each for error, each in zip(kernel, errors.values(), strict=True)])
    picture = _mean([row["as it chooses"] for row in there])
    first = ("none: `--method shake`", "", "", len(there), picture, _mean(kernel), f"{ratio:.2f}")
    lines = [(*first, f"{seconds:.1f}"), *(_cells(group, errors) for group in grouped(rows))]
    head = ("search", "starts from", "iterations", "pairs", "picture, dB", "by its kernel, dB")
    return (
        f"{', '.join(sorted(names))}: aligned PSNR of the blurry photos "
        f"{_mean([row['blurry'] for row in there])} dB.\n\n"
        f"{pages.table((*head, 'ratio', 'seconds'), lines)}"
    )


def grouped(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield the rows that differ only in their pair, in the order of the table."""
    keys = sorted({row["iterations"] for row in rows})
    for name, count, start in product(SEARCHES, keys, STARTS):
        like = {"search": name, "iterations": count, "start": start}
        if group := [row for row in rows if like.items() <= row.items()]:
            yield group


def _cells(group: list[Row], errors: dict[str, float]) -> tuple[object, ...]:
    first = group[0]
    taken = f"{first['iterations']}" + (f" + {first['warm-up']}" if first["warm-up"] else "")
    kernel, ratio = "", ""
    if "kernel" in first:
        kernel = _mean([row["kernel"] for row in group])
        ratio = f"{np.mean([row['kernel'] / errors[row['pair']] for row in group]):.2f}"
    start = "the estimate" if first["start"] == "estimate" else "noise"
    picture, seconds = _mean([row["error"] for row in group]), _median([row["s"] for row in group])
    return first["search"], start, taken, len(group), picture, kernel, ratio, f"{seconds:.0f}"


# ---- all of it -----------------------------------------------------------------------------------


def write(results: dict[str, Any]) -> None:
    """Write the results, and the tables of what they hold into the page."""
    pages.keep("levin", results)
    pages.fill("levin", tables(results))
    if rows := results.get("searches"):
        pages.fill("levin searches", search_table(rows, results["pairs"]))


def search(o: argparse.Namespace, folder: Path) -> None:
    """Run the searches that the options name, and print and keep what they make."""
    results = pages.known("levin")
    rows = results.setdefault("searches", []) if o.write else []
    keep = partial(write, results) if o.write else lambda: None
    names = [o.only] if o.only else list(SEARCHES)
    chosen = pairs(folder)[: o.searches]
    measure_searches(chosen, rows, keep, names, o.device, iterations=o.iterations)
    pages.tell(search_table(rows, results["pairs"]))


def main() -> None:
    parser = pages.options(__doc__, searches=0)
    parser.add_argument("--count", type=int, help="the first so many pairs alone")
    parser.add_argument("--iterations", type=int, help="of the searches, in place of their own")
    parser.add_argument("--only", choices=SEARCHES, help="one of the searches")
    parser.add_argument("--device", default="auto", help="of the searches: auto, cpu, cuda")
    options = parser.parse_args()
    folder = shared_folder("data", "BLURKIT_DATA")
    if options.searches:
        search(options, folder)
        return
    results = measure(folder, options.count)
    pages.tell(tables(results))
    if options.write:
        write(pages.known("levin") | results)


if __name__ == "__main__":
    main()
