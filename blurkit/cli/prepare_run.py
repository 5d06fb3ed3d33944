"""The run of `blurkit prepare`: finds the items, prepares them and writes their records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from blurkit.cli.batch import Problems, choose_part
from blurkit.cli.common import print_json, processes
from blurkit.cli.prepare import PrepareOptions
from blurkit.cli.shared import Networks, start
from blurkit.data.collection import collect
from blurkit.data.films import VIDEO_SUFFIXES
from blurkit.data.places import WorkPart, shard_prefix
from blurkit.data.prepare import (
    Preparation,
    WorkList,
    find,
    prepared,
    read_kernel_files,
    unfinished,
)
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.paths import is_folder
from blurkit.io.records import Record
from blurkit.io.shards import is_shard
from blurkit.io.sinks import ShardFolder, ShardSink, Sink
from blurkit.metrics.psnr import psnr
from blurkit.reports.pictures import PairSheet
from blurkit.reports.progress import Progress, say
from blurkit.reports.tables import Prepared
from blurkit.synthesis.averaging import Averaging, read_response
from blurkit.synthesis.drawing import Synthesis
from blurkit.tasks.reblur import transferred


def prepare_records(inputs: list[str], options: PrepareOptions) -> None:
    """Prepare all records of the inputs. Raises UsageError before torch is imported."""
    part = choose_part(options.part, options.quiet)
    preparation = replace(preparation_of(options), part=part)
    pictures = PairSheet(options.sheet, options.force) if options.sheet else None
    films = VIDEO_SUFFIXES if options.average else ()
    problems = Problems([*inputs, *options.transfer_from], films, part)
    work_list = _find(inputs, preparation, options, problems)
    sink = _open(options, part)
    finished = sink.finished if isinstance(sink, ShardFolder) else {}
    items = unfinished(work_list.items, preparation, finished.values())
    if options.transfer_from:
        preparation = replace(preparation, transfer=_transfer(options, problems))
    done = {name for names in finished.values() for name in names}
    already = len(work_list.items) - len(items)
    progress = Progress("prepare", work_list.count, "scene", already, options.quiet)
    table = Prepared(len(done), options.split)
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


# ---- the preparation of a record -----------------------------------------------------------------


def preparation_of(options: PrepareOptions) -> Preparation:
    """Return the preparation of every record. Raises UsageError if a value is out of range."""
    # Frames may be both averaged and blurred.
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
    """Return how frames are averaged to a blurred image."""
    if options.response is not None:
        read_response(options.response)  # reports a bad file once, not for every record
    return Averaging(
        options.average,
        options.stride,
        options.gamma,
        options.response,
        options.interpolate,
        options.agreement,
    )


def _synthesis(options: PrepareOptions) -> Synthesis:
    """Return how synthetic blur is drawn."""
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
    """Return the function that gives a photo the blur of a pair, drawn by a copy's number."""
    donors = collect(options.transfer_from, on_error=problems.add)
    if not len(donors):
        raise BlurkitError(f"--transfer-from {' '.join(options.transfer_from)}: holds no record")

    # Import torch only now, so that wrong usage is refused at once.

    return transferring(options, donors)


# ---- from the inputs to the output ---------------------------------------------------------------


def _find(
    inputs: list[str],
    preparation: Preparation,
    options: PrepareOptions,
    problems: Problems,
) -> WorkList:
    """Return the items of the inputs; print their layouts, and report what is left out."""
    work_list = find(inputs, preparation, options.role, options.blur, options.lists, options.limit)
    for layout in work_list.layouts:
        say(layout, options.quiet)
    for where, reason in work_list.left_out:
        problems.add(where, BlurkitError(reason))
    return work_list


def _open(options: PrepareOptions, part: WorkPart) -> Sink:
    """Return the sink for `-o`; a folder receives shards, not images."""
    output, path = options.output, Path(options.output)
    compression = "gzip" if options.compress else None
    if is_folder(output):
        size, prefix = options.shard_size << 20, shard_prefix(part)
        return ShardFolder(path, size, options.force, options.resume, compression, prefix)
    if options.resume:
        raise UsageError("--resume requires a folder of shards as output")
    if is_shard(path):
        return ShardSink(path, options.force, compression)
    return open_sink(output, ("blur", "sharp"), "prepared", FileOptions(options.force))


def transferring(
    options: PrepareOptions, pairs: Sequence[Record]
) -> Callable[[Record, int], Record]:
    """Return the function that gives a photo the blur of a pair, drawn by a copy's number.

    Without `-c`, it uses the network with blur codes, because random changes of the codes make more
    kinds of blur.
    """
    networks = Networks(options.checkpoint)
    engine, name = start("reblurring", networks, options, options.quiet, shipped="coding")
    return partial(transferred, pairs=pairs, engine=engine, checkpoint=name, seed=options.seed)
