"""The run of `blurkit reblur`: writes the reblurred records and measures them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from blurkit.cli.batch import (
    Problems,
    refuse_hopeless,
    remaining_jobs,
    run_jobs,
    warn,
)
from blurkit.cli.common import print_json
from blurkit.cli.reblur import ReblurOptions
from blurkit.cli.resuming import open_resumable, remember_options
from blurkit.data.collection import refuse_unpaired
from blurkit.data.films import check_film_output
from blurkit.data.places import WorkPart, shard_prefix
from blurkit.data.sources import read_records
from blurkit.errors import UsageError
from blurkit.io.formats import is_image
from blurkit.io.paths import is_folder
from blurkit.io.records import Record
from blurkit.io.sinks import ShardFolder, Sink
from blurkit.metrics.diversity import Diversity
from blurkit.metrics.statistics import Scored, mean_scores
from blurkit.reports.pictures import REBLURRED
from blurkit.reports.progress import say
from blurkit.reports.tables import print_table

if TYPE_CHECKING:
    from blurkit.engine.engine import Engine


def reblur_records(inputs: list[str], options: ReblurOptions) -> None:
    """Reblur all records of the inputs. Raises UsageError before torch is imported."""
    problems = Problems.of([*inputs, *options.like], options)
    check_film_output(inputs, options.output)
    sink = _open(options, problems.part)
    alone = options.copies == 1 and not options.swaps
    refuse_hopeless(inputs, sink, problems, "reblurred", "sharp", same_names=alone)
    if options.way in ("like", "search") and not options.like:
        remedy = "" if options.way == "search" else "; name what to take the blur from with --like"
        refuse_unpaired(inputs, "sharp", "blur", remedy)

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.cli.reblur_jobs import as_pairs, jobs_of
    from blurkit.tasks.deblur import SCORES

    jobs, engine = jobs_of(inputs, options, problems)
    if options.swaps:
        jobs = as_pairs(jobs)
    jobs = remaining_jobs(jobs, sink, problems, problems.part)
    total = _total(inputs, options)
    with closing(run_jobs(jobs, sink, problems, "reblur", options.quiet, total)) as finished:
        done = _measure(finished, SCORES, options, engine)
    problems.finish(done, "reblurred")


def _total(inputs: list[str], options: ReblurOptions) -> int | None:
    """Return the number of results if all of them are made in this run and it is known."""
    if "-" in inputs or options.resume or options.part != "1/1":
        return None
    photos = read_records(inputs, on_error=lambda *_: None).total
    return None if photos is None else photos * options.copies


def _measure(
    records: Iterable[Record], keys: Sequence[str], options: ReblurOptions, engine: Engine | None
) -> int:
    """Print the attributes `keys` of the finished records, and warnings; return their number."""
    from blurkit.tasks.deblur import WORTH, reblurring_warnings

    scores, diversity = [], Diversity()
    shown = options.json or not options.quiet
    for record in records:
        score = {key: record.attrs[key] for key in keys if key in record.attrs}
        scores.append(Scored.of(record, score))
        warnings = reblurring_warnings(record.attrs)
        warn(record.name, warnings, options)
        if options.by != "network":
            say(f"{record.name}: {_source(record)}", options.quiet or options.json)
        image = record.image("reblurred", "blur")
        if options.copies > 1 and shown:
            diversity.add(record.name, image, record.image("sharp", "restored"))
        if options.json:
            like = record.attrs["blur_from" if options.swaps else "reblurred_like"]
            print_json(
                {"name": record.name, "like": like}
                | {"width": image.shape[1], "height": image.shape[0]}
                | {"seconds": record.attrs["reblurred_seconds"], **score}
                | {key: record.attrs[key] for key in WORTH if key in record.attrs}
                | {"warnings": warnings}
                | (_estimate(record) or (engine.describe() if engine is not None else {}))
            )
    measured = [row for row in scores if row.scores]  # photos of the scene of their reference
    total, versions = mean_scores(measured or scores), diversity.summary()
    if options.json:
        means = {key: total[key] for key in ("images", *keys) if key in total}
        print_json({"total": means | versions})
    if not options.quiet:
        _print_tables(total, versions, keys)
    return len(scores)


def _estimate(record: Record) -> dict[str, float]:
    """Return what a reblurred record tells of an estimated blur, {} if it has none."""
    from blurkit.tasks.deblur import ESTIMATED

    keys = [f"reblurred_{key}" for key in ESTIMATED]
    return {key: record.attrs[key] for key in keys if key in record.attrs}


def _source(record: Record) -> str:
    """Return what says where the blur of a record comes from."""
    like = record.attrs.get("reblurred_like", record.attrs.get("blur_from"))
    found = _estimate(record)
    if not found:
        return f"no uniform blur found in {like}, so blurred by the network"
    length, angle = found["reblurred_length"], found["reblurred_angle"]
    return f"blur of {length:.0f} pixels at {angle:.0f} degrees, from {like}"


def _print_tables(total: dict[str, Any], versions: dict[str, Any], keys: Sequence[str]) -> None:
    """Print the means over records and over versions of photos, if these were measured."""
    if "reblurred_psnr" in total:
        print_table(
            "how close the reblurred images are to the blurry ones",
            ["mean of", "reblurred, dB", "sharp, dB"],
            [(total["images"], *(total[key] for key in keys))],
            note="PSNR against the real blurry image, 8 bits",
        )
    if versions:
        print_table(
            "how much the versions of a photo differ",
            ["mean of", "identical", "from each other, dB", "from the photo, dB"],
            [tuple(versions.values())],
            note="PSNR, 8 bits; identical images, whose PSNR is infinite, are left out",
        )


def _open(options: ReblurOptions, part: WorkPart) -> Sink:
    """Return the sink for `-o`; a folder receives shards if the output is a dataset."""
    output = options.output
    if options.pairs and (output is None or is_image(Path(output))):
        raise UsageError("--pairs writes a dataset: name a folder/, a shard (.h5) or - with -o")
    if options.swaps and (options.format or options.quality):
        raise UsageError("--format and --quality are for images, but the output is a dataset")
    if options.compare and options.swaps:
        raise UsageError("--compare excludes --pairs and --shuffle without --like")
    if options.swaps and output is not None and is_folder(output):
        remember_options(options, output, options.resume)
        force, prefix = options.force, shard_prefix(part)
        return ShardFolder(Path(output), force=force, resume=options.resume, part=prefix)
    return open_resumable(options, output, ("reblurred", "blur"), "reblurred", REBLURRED)
