"""`blurkit reblur`: put the blur of one picture onto another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blurkit.cli.common import (
    CheckpointFile,
    Device,
    EncoderFiles,
    Force,
    Json,
    Overlap,
    Precision,
    Problems,
    Quiet,
    Seed,
    Tile,
    load_checkpoints,
    print_json,
    refuse_json_and_stream,
    refuse_two_streams,
    run_jobs,
    start_engine,
    tile_side,
)

if TYPE_CHECKING:
    from blurkit.data.collection import Collection
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink
    from blurkit.restoration.engine import Engine


def reblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Sharp images, folders, datasets, shards or - (a stream).")
    ],
    checkpoint: CheckpointFile = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="Blurry image to take the blur from; a folder, shard or several: one per input.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="An image, a folder/, a shard (.h5) or -; else NAME.reblurred beside each image.",
            show_default=False,
        ),
    ] = None,
    shuffle: Annotated[
        bool,
        typer.Option(
            "--shuffle", help="Draw who gets whose blur; without --like, a blur-swapped data set."
        ),
    ] = False,
    seed: Seed = 0,
    encoder: EncoderFiles = [],  # noqa: B006
    tile: Tile = "auto",
    overlap: Overlap = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Blur sharp photos like other photos are blurred.

    Without --like, records that hold blur and sharp reblur themselves, and it is measured how near
    that comes to their own blur; with --shuffle they exchange blurs, and the output is a data set
    of pairs to train on (a folder gets shards).

    Examples: blurkit reblur sharp.png --like blurry.png;
    blurkit reblur shards/train-*.h5 --shuffle -o swapped/
    """
    refuse_json_and_stream(json, output)
    refuse_two_streams(inputs, like or [], [checkpoint, *encoder])
    side = tile_side(tile)
    swap = shuffle and not like
    sink = _open(output, swap, force)

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.metrics.statistics import Scored, summary
    from blurkit.reports.tables import print_table
    from blurkit.restoration import reblur as room

    loaded = load_checkpoints(checkpoint, encoder, quiet)
    network = room.reblurring_network(*loaded)
    engine = start_engine(network, loaded[0], side, overlap, device, precision)
    problems = Problems()
    jobs = _jobs(inputs, like or [], shuffle, seed, engine, loaded[0].name, problems)
    if swap:
        jobs = ((record, partial(_swapped, work)) for record, work in jobs)
    done = 0
    scores = []
    for record in run_jobs(jobs, sink, problems, "reblur", quiet):
        done += 1
        score = {key: record.attrs[key] for key in room.SCORES if key in record.attrs}
        scores.append(Scored.of(record, score))
        if json:
            image = record.image("reblurred", "blur")
            print_json(
                {
                    "name": record.name,
                    "like": record.attrs["blur_from" if swap else "reblurred_like"],
                }
                | {"width": image.shape[1], "height": image.shape[0]}
                | {"seconds": record.attrs["reblurred_seconds"], **score}
                | engine.describe()
            )
    total = summary(scores)
    if json:
        print_json({"total": {key: total[key] for key in ("images", *room.SCORES) if key in total}})
    if "reblurred_psnr" in total and not quiet:
        print_table(
            "how near the reblurred images come to the blurry ones",
            ["mean of", "reblurred, dB", "sharp, dB"],
            [(total["images"], *(total[key] for key in room.SCORES))],
            note="PSNR against the real blurry image, 8 bits",
        )
    problems.finish(done, "reblurred")


def _open(output: str | None, swap: bool, force: bool) -> Sink:
    """The sink for `-o`; a folder takes shards when the output is a data set."""
    from blurkit.io.sinks import ShardFolder, is_folder, open_sink

    if swap and output is not None and is_folder(output):
        return ShardFolder(Path(output), force=force, resume=None)
    return open_sink(output, ("reblurred", "blur"), "reblurred", force)


def _jobs(
    inputs: list[str],
    like: list[str],
    shuffle: bool,
    seed: int,
    engine: Engine,
    checkpoint: str,
    problems: Problems,
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Every photo with the work of reblurring it like the one that it falls to."""
    from blurkit.data.collection import collect
    from blurkit.data.sources import read_records
    from blurkit.errors import BlurkitError, raise_error
    from blurkit.restoration import reblur as room

    references = collect(like)
    if like and not len(references):
        raise BlurkitError(f"--like {' '.join(like)}: holds no record")
    if len(references) == 1 or not (like or shuffle):
        one = references[0] if like else None
        for record in read_records(inputs, image="sharp", on_error=problems.add):
            yield record, partial(room.reblur, record, one or record, engine, checkpoint)
        return
    # Here who gets whose blur must not depend on which photos can be read: in order, one that is
    # left out would shift all behind it.
    in_order = like and not shuffle
    photos = collect(inputs, image="sharp", on_error=raise_error if in_order else problems.add)
    donors: Collection = references
    chosen: Iterator[int] = count()
    if not like:
        donors, chosen = photos, iter(room.exchange(len(photos), seed))
    elif shuffle:
        chosen = room.draw(len(references), seed)
    for number, donor in zip(range(len(photos)), chosen, strict=False):
        with problems.guard(photos.places[number]):
            if donor >= len(donors):
                place = photos.places[number]
                raise BlurkitError(f"{place}: no blur is left, --like holds {len(donors)} images")
            record = photos[number]
            yield record, partial(room.reblur, record, donors[donor], engine, checkpoint)


def _swapped(work: Callable[[], Record]) -> Record:
    from blurkit.restoration.reblur import swapped

    return swapped(work())
