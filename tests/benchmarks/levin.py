"""Levin et al.'s benchmark: photos of a shaken camera, deblurred with and without their kernels.

python -m tests.benchmarks.levin            measures and prints the table (some minutes)
    --count N        of the first N pairs alone
    --searches N     blind searches of the first N pairs instead (minutes each); with --write
                     those that docs/benchmarks/levin.json has are not run again
    --iterations N   of the searches, in place of their own; --only NAME runs one of them alone
    --write          also writes docs/benchmarks/levin.json and the table in docs/benchmarks.md

The protocol is Levin's own (CVPR 2009 and 2011): 15 pixels are cut off on every side, the result
is moved by up to 10 pixels, in quarters, to where it fits best, and the error ratio is its sum of
squared differences against that of the true kernel's result by the same method, here `sparse`.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from torch import Tensor

from blurkit.io.images import read_image
from blurkit.io.records import from_float, to_float
from blurkit.io.writing import replacing
from blurkit.reports.values import to_json
from blurkit.systems.deconvolution import restoration
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.photo import Deconvolution, Window, known
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from tests.benchmarks.levin_searches import SEARCHES, measure_searches, search_table
from tests.benchmarks.scores import aligned_error, decibels
from tests.shared import ROOT, shared_folder

RESULTS = ROOT / "docs" / "benchmarks" / "levin.json"
PAGE = ROOT / "docs" / "benchmarks.md"

Undo = Callable[[np.ndarray, Tensor], np.ndarray]
"""A grey photo (H, W) in [0, 1] and its kernel (h, w) to the restored one."""


def pairs(folder: Path) -> list[tuple[str, np.ndarray, np.ndarray, Tensor]]:
    """Return every pair as (name, photo, sharp, true kernel), grey (H, W) in [0, 1].

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


def methods(deconvolution: Deconvolution) -> dict[str, Undo]:
    """Return the second halves that are compared, by name."""

    def classical(undo: Callable[[Tensor, Tensor, float], Tensor], strength: float) -> Undo:
        def run(photo: np.ndarray, kernel: Tensor) -> np.ndarray:
            result = undo(torch.from_numpy(photo)[None], kernel[None], strength)
            return result[0].numpy()

        return run

    def learned(photo: np.ndarray, kernel: Tensor) -> np.ndarray:
        colour = np.repeat(photo[:, :, None], 3, axis=2)
        windows = known(colour, kernel.numpy(), deconvolution.options, gamma=1.0)
        return deconvolution.restore(colour, windows).mean(2)

    return {
        "Wiener": classical(restoration.wiener, 200),
        "total variation": classical(restoration.total_variation, 2000),
        "hyper-Laplacian": classical(restoration.hyper_laplacian, 5000),
        "sparse": classical(restoration.sparse, 1000),
        "learned": learned,
    }


def measure(folder: Path, count: int | None) -> dict[str, Any]:
    """Return the errors and seconds of every method with true and with estimated kernels."""
    deconvolution = Deconvolution(
        network_for("deconvolving", load_shipped("deconvolution")), WindowOptions()
    )
    undo = methods(deconvolution)
    rows = []
    for name, blurry, sharp, truth in pairs(folder)[:count]:
        colour = np.repeat(blurry[:, :, None], 3, axis=2)
        started = time.perf_counter()
        (window,) = deconvolution.windows(colour)
        seconds = time.perf_counter() - started
        row: dict[str, Any] = {"name": name, "estimating": seconds, "trust": window.trust}
        row["blurry"] = aligned_error(blurry, sharp)
        for kind, kernel in (("known", truth), ("estimated", window.kernel)):
            row[kind] = {method: scored(run, blurry, sharp, kernel) for method, run in undo.items()}
        row["as it chooses"] = chosen(deconvolution, colour, sharp, window)
        rows.append(row)
    return {"window": deconvolution.options.as_dict(), "pairs": rows}


def scored(run: Undo, blurry: np.ndarray, sharp: np.ndarray, kernel: Tensor) -> dict[str, float]:
    """Return the error of what a method makes, rounded to 8 bits, and its seconds."""
    started = time.perf_counter()
    result = run(blurry, kernel)
    seconds = time.perf_counter() - started
    return {"error": aligned_error(to_float(from_float(result, np.uint8)), sharp), "s": seconds}


def chosen(
    deconvolution: Deconvolution, colour: np.ndarray, sharp: np.ndarray, window: Window
) -> float:
    """Return the error of what `deblur --method shake` makes of a photo."""
    restored = deconvolution.restore(colour, [window]).mean(2)
    return aligned_error(to_float(from_float(restored, np.uint8)), sharp)


# ---- tables --------------------------------------------------------------------------------------


def tables(results: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows = results["pairs"]
    blurry = np.mean([decibels(row["blurry"]) for row in rows])
    lines = [
        f"{len(rows)} pairs; aligned PSNR of the blurry photos {blurry:.2f} dB.",
        "",
        "| aligned PSNR, dB | true kernel | estimated | gain | least | ratio up to 3 | seconds |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for method in rows[0]["known"]:
        true = [decibels(row["known"][method]["error"]) for row in rows]
        found = [decibels(row["estimated"][method]["error"]) for row in rows]
        gains = [f - decibels(row["blurry"]) for f, row in zip(found, rows, strict=True)]
        ratios = [row["estimated"][method]["error"] / row["known"][method]["error"] for row in rows]
        part = np.mean([ratio <= 3 for ratio in ratios])
        seconds = np.median([row["estimated"][method]["s"] for row in rows])
        lines.append(
            f"| {method} | {np.mean(true):.2f} | {np.mean(found):.2f} | {np.mean(gains):+.2f} | "
            f"{min(gains):+.2f} | {part:.0%} | {seconds:.2f} |"
        )
    gains = [decibels(row["as it chooses"]) - decibels(row["blurry"]) for row in rows]
    seconds = np.median([row["estimating"] for row in rows])
    lines += [
        f"| `deblur --method shake` | | | {np.mean(gains):+.2f} | {min(gains):+.2f} | | |",
        "",
        f"Estimating a kernel takes {seconds:.1f} s of these 255x255 pixels (median).",
    ]
    return "\n".join(lines)


def write(results: dict[str, Any]) -> None:
    """Write the results, and the tables of what they hold into the page."""
    with replacing(RESULTS) as partial:
        partial.write_text(to_json(results) + "\n")
    fill("levin", tables(results))
    if rows := results.get("searches"):
        fill("levin searches", search_table(rows, results["pairs"]))


def fill(mark: str, text: str, page: Path = PAGE) -> None:
    """Put a table between its marks in a page of docs/."""
    before, rest = page.read_text().split(f"<!-- {mark} -->\n")
    after = rest.split(f"<!-- end {mark} -->")[1]
    page.write_text(f"{before}<!-- {mark} -->\n\n{text}\n\n<!-- end {mark} -->{after}")


def search(o: argparse.Namespace, folder: Path) -> None:
    """Run the searches that the options name, and print and keep what they make."""
    results = json.loads(RESULTS.read_text())
    rows = results.setdefault("searches", []) if o.write else []
    keep = partial(write, results) if o.write else lambda: None
    names = [o.only] if o.only else list(SEARCHES)
    chosen = pairs(folder)[: o.searches]
    measure_searches(chosen, rows, keep, names, o.device, iterations=o.iterations)
    sys.stdout.write(search_table(rows, results["pairs"]) + "\n")


def main(arguments: list[str]) -> None:
    """Measure, print, and write what `--write` asks for."""
    parser = argparse.ArgumentParser("levin", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="write the results into docs/")
    parser.add_argument("--count", type=int, help="the first so many pairs alone")
    parser.add_argument("--searches", type=int, default=0, help="search so many pairs instead")
    parser.add_argument("--iterations", type=int, help="of the searches, in place of their own")
    parser.add_argument("--only", choices=SEARCHES, help="one of the searches")
    parser.add_argument("--device", default="auto", help="of the searches: auto, cpu, cuda")
    options = parser.parse_args(arguments)
    folder = shared_folder("data", "BLURKIT_DATA")
    if options.searches:
        search(options, folder)
        return
    results = measure(folder, options.count)
    sys.stdout.write(tables(results) + "\n")
    if options.write:
        there = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
        write(there | results)


if __name__ == "__main__":
    main(sys.argv[1:])
