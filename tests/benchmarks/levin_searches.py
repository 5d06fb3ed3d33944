"""Levin's benchmark for the blind search: as it usually starts, and from the estimated blur.

`python -m tests.benchmarks.levin --searches N` runs it; see there for the protocol.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from blurkit.io.records import Record, from_float, to_float
from blurkit.systems.blind_search import TiledSearch, run_searches
from blurkit.systems.deconvolution.config import Estimation
from blurkit.systems.deconvolution.fourier import cleaned
from blurkit.systems.deconvolution.inference import start_estimator
from blurkit.systems.deconvolution.restoration import sparse
from blurkit.systems.kernel_space.objective import SearchContext, make_context
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from tests.benchmarks.scores import aligned_error, decibels

SEARCHES: dict[str, dict[str, Any]] = {
    "convolution": {"operator": "convolution"},
    "kernel space": {"operator": "kernel-space"},
    "SelfDeblur's schedule": {"preset": "selfdeblur"},
}
"""The searches that are compared, by name: options of `blind-deblur`."""

STARTS = ("usual", "estimate")

Pair = tuple[str, np.ndarray, np.ndarray, Tensor]
"""Name, photo, sharp, true kernel, as `levin.pairs` gives them."""


def search_context(name: str, start: str, device: str, **options: Any) -> SearchContext:
    """Return what the searches of a kind share; `options` come on top of its own."""
    chosen = SearchOptions.resolve(
        **SEARCHES[name] | options, start_estimate=start == "estimate" or None
    )
    checkpoint = load_shipped("kernel-space") if chosen.operator == "kernel-space" else None
    estimator = None
    if chosen.start_estimate:
        undo = network_for("deconvolving", load_shipped("deconvolution"))
        estimator = start_estimator(undo, device, "auto")
    network = None if checkpoint is None else network_for("search", checkpoint)
    return make_context(chosen, network, device=device, estimator=estimator)


def measure_searches(
    pairs: Sequence[Pair],
    rows: list[dict[str, Any]],
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
        about = {
            "pair": pair[0],
            "search": name,
            "start": start,
            "iterations": context.options.iterations,
        }
        if not any(about.items() <= row.items() for row in rows):
            rows.append(about | searched(pair, context))
            keep()


def searched(pair: Pair, context: SearchContext) -> dict[str, Any]:
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
    row: dict[str, Any] = {
        "taken": attrs["blind_iterations"],
        "warm-up": context.options.warm_up,
        "s": seconds,
        "with": attrs["restored_with"],
        "error": aligned_error(to_float(record.images["restored"])[:, :, 0], sharp),
    }
    if "blind_started" in attrs:
        row |= {"started": attrs["blind_started"] == 1, "trust": attrs["blind_trust"]}
    if context.options.operator == "convolution":
        row["kernel"] = undone(blurry, job.kernel(), sharp)
    return row


def undone(blurry: np.ndarray, kernel: np.ndarray, sharp: np.ndarray) -> float:
    """Return the error of a photo that is deconvolved by a kernel, cleaned as estimates are."""
    c = Estimation()
    clean = cleaned(torch.from_numpy(kernel)[None], c.floor, c.part)
    result = sparse(torch.from_numpy(blurry)[None], clean)[0].numpy()
    return aligned_error(to_float(from_float(result, np.uint8)), sharp)


# ---- table ---------------------------------------------------------------------------------------


def search_table(rows: Sequence[dict[str, Any]], known: Sequence[dict[str, Any]]) -> str:
    """Return the rows of searches as Markdown, above them what needs no search for their pairs.

    `known` are the rows of `levin.measure`, in which the pairs of the searches are looked up.
    """
    names = {row["pair"] for row in rows}
    there = [row for row in known if row["name"] in names]
    errors = {row["name"]: row["known"]["sparse"]["error"] for row in there}
    seconds = _median([row["estimating"] + row["estimated"]["learned"]["s"] for row in there])
    kernel = [row["estimated"]["sparse"]["error"] for row in there]
    ratio = np.mean([row["estimated"]["sparse"]["error"] / errors[row["name"]] for row in there])
    picture = _mean([row["as it chooses"] for row in there])
    lines = [
        f"{', '.join(sorted(names))}: aligned PSNR of the blurry photos "
        f"{_mean([row['blurry'] for row in there])} dB.",
        "",
        "| search | starts from | iterations | pairs | picture, dB | by its kernel, dB | ratio "
        "| seconds |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
        f"| none: `--method shake` | | | {len(there)} | {picture} | {_mean(kernel)} | {ratio:.2f} "
        f"| {seconds:.1f} |",
    ]
    return "\n".join([*lines, *(_line(group, errors) for group in grouped(rows))])


def grouped(rows: Sequence[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows that differ only in their pair, in the order of the table."""
    keys = sorted({row["iterations"] for row in rows})
    for name, count, start in product(SEARCHES, keys, STARTS):
        like = {"search": name, "iterations": count, "start": start}
        if group := [row for row in rows if like.items() <= row.items()]:
            yield group


def _line(group: list[dict[str, Any]], errors: dict[str, float]) -> str:
    first = group[0]
    taken = f"{first['iterations']}" + (f" + {first['warm-up']}" if first["warm-up"] else "")
    kernel, ratio = "", ""
    if "kernel" in first:
        kernel = _mean([row["kernel"] for row in group])
        ratio = f"{np.mean([row['kernel'] / errors[row['pair']] for row in group]):.2f}"
    start = "the estimate" if first["start"] == "estimate" else "noise"
    return (
        f"| {first['search']} | {start} | {taken} | {len(group)} | "
        f"{_mean([row['error'] for row in group])} | {kernel} | {ratio} | "
        f"{_median([row['s'] for row in group]):.0f} |"
    )


def _mean(errors: Sequence[float]) -> str:
    return f"{np.mean([decibels(error) for error in errors]):.2f}"


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
