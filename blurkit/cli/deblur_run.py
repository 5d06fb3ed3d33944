"""The run of `blurkit deblur`: reads the kernel, deblurs the records and reports each of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.cli.batch import Problems, Work, refuse_hopeless, run_records, warn
from blurkit.cli.common import print_json
from blurkit.cli.deblur import DeblurOptions
from blurkit.cli.light import onnx_file, restoring_by_onnx
from blurkit.cli.resuming import open_resumable
from blurkit.cli.shared import Networks, load_checkpoints, start
from blurkit.data.films import check_film_output
from blurkit.data.sources import read_records
from blurkit.engine.engine import Engine
from blurkit.errors import UsageError
from blurkit.io.records import Record
from blurkit.reports.page import RestorationReport
from blurkit.reports.pictures import RESTORED
from blurkit.reports.progress import Stages, say
from blurkit.synthesis.kernels import read_kernels
from blurkit.tasks.deblur import (
    appraised,
    deblur,
    deblur_by_kernel,
    kernel_summary,
    restoration_warnings,
    sharpness_summary,
)

FOUND = (
    "sharpness_before",
    "sharpness_after",
    "restored_change",
    "restored_windows",
    "restored_believed",
    "restored_left",
    "blur_length",
    "blur_angle",
    "blur_trust",
    "blur_gamma",
)
"""Attributes of a restoration that --json prints if a record has them."""


def deblur_records(inputs: list[str], options: DeblurOptions) -> None:
    """Deblur all records of the inputs. Raises UsageError before torch is imported."""
    problems = Problems.of(inputs, options)
    kernel = read_one_kernel(options.kernel) if options.kernel is not None else None
    check_film_output(inputs, options.output)
    sink = open_resumable(options, options.output, ("restored",), "deblurred", RESTORED)
    page = RestorationReport(options.html, options.force) if options.html else None
    refuse_hopeless(inputs, sink, problems, "deblurred", blur=options.blur)

    otherwise = options.way == "auto"
    work, engine = deblurring(options, kernel)
    records = read_records(inputs, blur=options.blur, part=problems.part, on_error=problems.add)
    problems.already = records.drop(sink.is_done)
    done, quiet = 0, options.quiet
    shown = page is not None or options.json or options.compare

    def restored(record: Record) -> Record:
        finished = work(record)
        if shown or "film" not in record.attrs:  # of a frame, nothing is shown otherwise
            finished = appraised(finished)
        return finished

    for record in run_records(records, restored, sink, problems, "deblur", quiet, records.total):
        done += 1
        if page is not None:
            with problems.guard(str(options.html)):
                page.add(record)
        if "film" not in record.attrs:
            found = "" if engine else f"{kernel_summary(record, otherwise)}; "
            line = f"{record.name}: {found}{sharpness_summary(record.attrs)}"
            say(line, options.quiet or (options.json and not found))
            warn(record.name, restoration_warnings(record), options)
        if options.json:
            warnings = {"warnings": restoration_warnings(record)}
            report = _line(record, options.strength) | warnings
            print_json(report | (engine.describe() if engine else {}))
    if page is not None and (written := page.write()):
        say(f"wrote {written}", options.quiet)
    problems.finish(done, "deblurred")


def deblurring(
    options: DeblurOptions, kernel: np.ndarray | None = None
) -> tuple[Work, Engine | None]:
    """Return the function that deblurs records, and the engine if it is a network for any blur.

    Raises BlurkitError for a bad file, and UsageError for options that do not fit it.
    """
    if file := onnx_file(options):
        return restoring_by_onnx(file, options)

    if options.way == "network":
        return restoring(options)
    return undoing(options, kernel, options.way == "auto"), None


def read_one_kernel(path: Path) -> np.ndarray:
    """Return the kernel (h, w) in a file.

    Raises UsageError if the file holds several kernels, or values below 0.
    """
    kernels = read_kernels(path)
    if len(kernels) > 1:
        names = ", ".join(name for name, _ in kernels[:3])
        raise UsageError(
            f"--kernel {path}: holds {len(kernels)} kernels ({names}, ...); name a file with one"
        )
    kernel = kernels[0][1]
    if (kernel < 0).any():
        raise UsageError(f"--kernel {path}: holds values below 0, which is not a blur kernel")
    return kernel


def _line(record: Record, strength: float) -> dict[str, Any]:
    """Return the line that --json prints for a record."""
    height, width = record.images["restored"].shape[:2]
    seconds = record.attrs["restored_seconds"]
    estimate = {key: record.attrs[key] for key in FOUND if key in record.attrs}
    about = {"name": record.name, "width": width, "height": height, "seconds": seconds}
    kept = "blur_length" in record.attrs and "kernel" in record.attrs
    kernel = {"kernel": record.attrs["kernel"].tolist()} if kept else {}
    return about | {"strength": strength} | estimate | kernel


def restoring(options: DeblurOptions) -> tuple[Work, Engine]:
    """Return the function that deblurs records with a network for any blur, and its engine."""
    engine, name = start("deblurring", options, options, options.quiet, protocol=options.protocol)
    return partial(deblur, engine=engine, checkpoint=name, strength=options.strength), engine


def undoing(options: DeblurOptions, kernel: np.ndarray | None, otherwise: bool) -> Work:
    """Return the function that deblurs records by inverting their blur.

    The blur is `kernel` (h, w), or an estimate if that is None. With `otherwise`, a network
    restores what no estimate explains. Raises BlurkitError for a bad file.
    """
    (loaded,) = load_checkpoints("deconvolving", Networks(options.checkpoint), options.quiet)
    return deblur_by_kernel(
        loaded,
        options.device,
        options.precision,
        kernel=kernel,
        otherwise=start("deblurring", Networks(), options, True)[0] if otherwise else None,
        gamma=options.gamma or 2.2,
        strength=options.strength,
        keep_kernel=options.keep_kernel,
        watch=Stages("window", options.quiet),
    )
