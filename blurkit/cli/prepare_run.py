"""The run of `blurkit prepare`: what blurs the records, one function a way, and where they go."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from blurkit.cli.batch import Problems
from blurkit.cli.common import print_json, processes
from blurkit.cli.prepare import PrepareOptions
from blurkit.data.collection import collect
from blurkit.data.prepare import (
    Preparation,
    WorkList,
    find,
    prepared,
    read_kernel_files,
    unfinished,
)
from blurkit.data.sources import parse_part
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.io.shards import is_shard
from blurkit.io.sinks import ShardFolder, ShardSink, Sink, is_folder, open_sink
from blurkit.metrics.psnr import psnr
from blurkit.reports.progress import Progress, say
from blurkit.reports.sheets import PairSheet
from blurkit.reports.summary import Prepared
from blurkit.synthesis.averaging import Averaging, read_response
from blurkit.synthesis.drawing import Synthesis


def prepare_records(inputs: list[str], options: PrepareOptions) -> None:
    """Prepare all records of the inputs. Raises UsageError before torch is imported."""
    share = parse_part(options.part)
    preparation = preparation_of(options)
    pictures = PairSheet(options.sheet, options.force) if options.sheet else None
    problems = Problems()
    found = _find(inputs, preparation, options, share, problems)
    sink = _open(options, share)
    finished = sink.finished if isinstance(sink, ShardFolder) else {}
    items = unfinished(found.items, preparation, finished.values())
    if options.transfer_from:
        preparation = replace(preparation, transfer=_transfer(options, problems))
    done = {name for names in finished.values() for name in names}
    already = len(found.items) - len(items)
    progress = Progress("prepare", found.count, "scene", already, options.quiet)
    table = Prepared(already=len(done))
    jobs = processes(options.jobs)
    ready = prepared(items, preparation, jobs, problems.add, lambda: progress.advance())
    with sink, closing(ready):
        for record in ready:
            if record.name in done:
                continue
            with problems.guard(record.name):
                sink.claim(record)
                sink.write(record)
                table.add(record)
                if pictures:
                    pictures.add(record)
        progress.close()
    if pictures:
        with problems.guard(str(options.sheet)):
            pictures.finish()
    if isinstance(sink, ShardFolder):
        table.shards = [str(path) for path in sink.paths]
    if options.json:
        print_json(table.as_dict() | {"left_out": problems.failed})
    written = table.records + table.already
    if written and not options.quiet:
        table.print(options.output, problems.failed)
    problems.finish(written, "prepared")


# ---- what is done to every record ----------------------------------------------------------------


def preparation_of(options: PrepareOptions) -> Preparation:
    """Return what is done to every record. Raises UsageError for values out of their ranges."""
    # Frames may be averaged and blurred besides.
    return Preparation(
        average=_averaging(options) if options.average else None,
        synthesis=_synthesis(options) if options.synthesize else None,
        copies=options.copies,
        crop=options.crop,
        stride=options.crop_stride or (0 if options.average else options.stride),
        split=options.split,
        validation=options.validation,
        seed=options.seed,
        measure=psnr,
    )


def _averaging(options: PrepareOptions) -> Averaging:
    """Return how frames become a blurred image."""
    if options.response is not None:
        read_response(options.response)  # which says that it is wrong once, not for every record
    return Averaging(
        options.average,
        options.stride,
        options.gamma,
        options.response,
        options.interpolate,
        options.agreement,
    )


def _synthesis(options: PrepareOptions) -> Synthesis:
    """Return what blur is drawn."""
    assert options.synthesize is not None
    return Synthesis(
        options.synthesize,
        read_kernel_files(options.kernels),
        extent=options.kernel_size,
        gamma=options.gamma,
        response=read_response(options.response) if options.response else None,
        highlights=options.highlights,
        noise=options.noise,
        shot=options.shot,
        jpeg=options.jpeg,
        scale=options.scale,
    )


def _transfer(options: PrepareOptions, problems: Problems) -> Callable[[Record, int], Record]:
    """Return what gives a photo, and a copy of it, the blur of one of the pairs."""
    donors = collect(options.transfer_from, on_error=problems.add)
    if not len(donors):
        raise BlurkitError(f"--transfer-from {' '.join(options.transfer_from)}: holds no record")

    # Only now what imports torch, so that wrong usage is refused at once.
    from blurkit.cli.work import transferring

    return transferring(options, donors)


# ---- from the inputs to the output ---------------------------------------------------------------


def _find(
    inputs: list[str],
    preparation: Preparation,
    options: PrepareOptions,
    share: tuple[int, int],
    problems: Problems,
) -> WorkList:
    """Return the items that the inputs hold; print their layouts, and what is left out."""
    found = find(
        inputs, preparation, options.role, options.blur, options.lists, options.limit, share
    )
    for layout in found.layouts:
        say(layout, options.quiet)
    for where, reason in found.left_out:
        problems.add(where, BlurkitError(reason))
    return found


def _open(options: PrepareOptions, share: tuple[int, int]) -> Sink:
    """Return the sink for `-o`: a folder takes shards here, not images."""
    output, path = options.output, Path(options.output)
    compression = "gzip" if options.compress else None
    if is_folder(output):
        part = f"p{share[0]}of{share[1]}-" if share[1] > 1 else ""
        size = options.shard_size << 20
        return ShardFolder(path, size, options.force, options.resume, compression, part)
    if options.resume:
        raise UsageError("--resume goes with a folder of shards as output")
    if is_shard(path):
        return ShardSink(path, options.force, compression)
    return open_sink(output, ("blur", "sharp"), "prepared", options.force)
