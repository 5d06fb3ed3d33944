"""The run of `blurkit deblur`: reads the kernel, deblurs the records and reports each of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from blurkit.cli.batch import Problems, choose_part, refuse_hopeless, run_records
from blurkit.cli.common import print_json
from blurkit.cli.deblur import DeblurOptions
from blurkit.cli.resuming import open_resumable
from blurkit.data.sources import read_records
from blurkit.errors import UsageError
from blurkit.io.records import Record
from blurkit.reports.progress import say
from blurkit.synthesis.kernels import read_kernels

FOUND = (
    "restored_windows",
    "restored_believed",
    "restored_left",
    "blur_length",
    "blur_angle",
    "blur_trust",
    "blur_gamma",
)
"""Attributes of an estimated blur that --json prints."""


def deblur_records(inputs: list[str], options: DeblurOptions) -> None:
    """Deblur all records of the inputs. Raises UsageError before torch is imported."""
    problems = Problems(choose_part(options.part, options.quiet), not options.quiet)
    kernel = read_one_kernel(options.kernel) if options.kernel is not None else None
    sink = open_resumable(options, options.output, ("restored",), "deblurred")
    refuse_hopeless(inputs, sink, problems, "deblurred", blur=options.blur)

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.cli.work import Work, restoring, undoing
    from blurkit.tasks.deblur import kernel_summary

    otherwise = options.way == "auto"
    work: Work
    if options.way != "network":
        work, engine = undoing(options, kernel, otherwise), None
    else:
        work, engine = restoring(options)
    records = read_records(inputs, blur=options.blur, part=problems.part, on_error=problems.add)
    problems.already = records.drop(sink.is_done)
    done, quiet = 0, options.quiet
    for record in run_records(records, work, sink, problems, "deblur", quiet, records.total):
        done += 1
        if engine is None:
            say(f"{record.name}: {kernel_summary(record, otherwise)}", options.quiet)
        if options.json:
            print_json(_line(record, options.strength) | (engine.describe() if engine else {}))
    problems.finish(done, "deblurred")


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
    kernel = (
        {"kernel": record.attrs["kernel"].tolist()} if estimate and "kernel" in record.attrs else {}
    )
    return about | {"strength": strength} | estimate | kernel
