"""The run of `blurkit blind-deblur`: opens its output, networks and records."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from blurkit.cli.batch import Problems, choose_part, refuse_hopeless
from blurkit.cli.blind_deblur import BlindRunOptions
from blurkit.cli.shared import Networks, load_checkpoints
from blurkit.data.sources import read_records
from blurkit.errors import UsageError
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.paths import is_folder
from blurkit.io.shards import is_shard
from blurkit.io.sinks import Sink
from blurkit.tasks.blind_deblur import BlindSearch, start_search


def search_records(inputs: list[str], run: BlindRunOptions, options: Any) -> None:
    """Deblur all records by searches. Raises UsageError before torch is imported."""
    part = choose_part(run.part, run.quiet)
    read = partial(read_records, inputs, blur=run.blur, part=part)
    sink = _open(run)
    fresh = not run.resume
    refuse_hopeless(
        inputs, sink, Problems(inputs, part=part), "deblurred", blur=run.blur, same_names=fresh
    )

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.cli.blind_run import BlindRun

    search, by = searching(run, options)
    BlindRun(inputs, run, sink, search, by).deblur(lambda problems: read(on_error=problems.add))


def _open(run: BlindRunOptions) -> Sink:
    """Return the sink for `-o`; with --resume, an existing shard may be rewritten."""
    output = run.output
    fills_shard = (
        output is not None and output != "-" and not is_folder(output) and is_shard(Path(output))
    )
    if run.save_every and run.save_to is None and (output == "-" or fills_shard):
        raise UsageError("--save-every with a shard or a stream requires --save-to FOLDER")
    force = run.force or (run.resume and fills_shard)
    files = FileOptions(force, format=run.format, quality=run.quality)
    return open_sink(output, ("restored",), "deblurred", files)


def searching(run: BlindRunOptions, options: Any) -> tuple[BlindSearch, str]:
    """Return what the searches of a run share, and what records say they were restored by."""
    checkpoint = None
    if options.encoded:
        (checkpoint,) = load_checkpoints("search", Networks(run.checkpoint), run.quiet)
    search = start_search(
        options, checkpoint, run.generator, run.features, run.device, run.precision
    )
    return search, checkpoint.name if checkpoint else options.operator
