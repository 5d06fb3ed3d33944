"""`blurkit transfer`: the blur of a pair put onto other photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
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
    System,
    Tile,
    load_checkpoints,
    print_json,
    refuse_json_and_stream,
    refuse_two_streams,
    run_jobs,
    start_engine,
    tile_side,
)
from blurkit.errors import UsageError

if TYPE_CHECKING:
    from blurkit.data.collection import Collection
    from blurkit.io.records import Record


def transfer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B_SHARP B_BLUR",
            help="Photos to blur, then the pair whose blur they get: images or folders; or A and "
            "PAIRS, a dataset, shard or - with both images.",
        ),
    ],
    checkpoint: CheckpointFile = None,
    system: System = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="An image, a folder/, a shard (.h5) or -; else A.transferred beside each photo.",
            show_default=False,
        ),
    ] = None,
    encoder: EncoderFiles = [],  # noqa: B006
    tile: Tile = "auto",
    overlap: Overlap = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Put the blur of a pair onto other photos.

    Every photo of A gets the blur of every pair B. B's own sharp image is reblurred too, and how
    near that comes to its real blur is printed: what the transfer is worth. Sizes may differ. With
    more than one B the results are named A/B.

    Examples: blurkit transfer a.png b_sharp.png b_blur.png;
    blurkit transfer photos/ pairs.h5 -o blurred/
    """
    refuse_json_and_stream(json, output)
    refuse_two_streams(inputs, [checkpoint, *encoder])
    if len(inputs) not in (2, 3):
        raise UsageError("transfer takes A B_SHARP B_BLUR, or A PAIRS")
    side = tile_side(tile)

    from blurkit.data.collection import collect_pairs
    from blurkit.errors import BlurkitError
    from blurkit.io.sinks import open_sink

    sink = open_sink(output, ("reblurred",), "transferred", force)
    problems = Problems()
    pairs = collect_pairs(inputs[1:], ("sharp", "blur"), problems.add)
    if not len(pairs):
        raise BlurkitError(f"{' '.join(inputs[1:])}: holds no pair of a sharp and a blurry image")
    if len(pairs) > 1 and output is None:
        raise UsageError(
            f"{len(pairs)} pairs give as many results: name a folder/, shard or - (-o)"
        )

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.reports.tables import print_table
    from blurkit.tasks.reblur import SCORES, reblur, reproduce

    loaded = load_checkpoints(checkpoint, encoder, quiet, system, "reblurring")
    engine = start_engine("reblurring", loaded, side, overlap, device, precision, system=system)
    reproduced: dict[str, tuple[str, dict[str, float]]] = {}

    def work(record: Record, pair: Record, place: str) -> Record:
        if place not in reproduced:
            reproduced[place] = pair.name, reproduce(pair, engine)
        finished = reblur(record, pair, engine, loaded[0].name)
        finished.attrs |= reproduced[place][1]
        return finished

    done = 0
    jobs = _jobs(inputs[0], pairs, work, problems)
    for record in run_jobs(jobs, sink, problems, "transfer", quiet):
        done += 1
        if json:
            like = record.attrs["reblurred_like"]
            height, width = record.images["reblurred"].shape[:2]
            print_json(
                {"name": record.name, "like": like, "width": width, "height": height}
                | {"seconds": record.attrs["reblurred_seconds"]}
                | {key: record.attrs[key] for key in SCORES}
                | engine.describe()
            )
    if reproduced and not quiet:
        print_table(
            "how well the blur is reproduced on its own sharp image",
            ["pair", "reblurred, dB", "sharp, dB"],
            [(name, *each.values()) for name, each in reproduced.values()],
            note="PSNR against the real blurry image, 8 bits",
        )
    problems.finish(done, "transferred")


def _jobs(
    photos: str,
    pairs: Collection,
    work: Callable[[Record, Record, str], Record],
    problems: Problems,
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Every photo with every pair; a single pair is read once."""
    from blurkit.data.sources import read_records
    from blurkit.io.records import Record

    only = pairs[0] if len(pairs) == 1 else None
    for photo in read_records([photos], image="sharp", on_error=problems.add):
        for number in range(len(pairs)):
            with problems.guard(pairs.places[number]):
                pair = only or pairs[number]
                name = photo.name if only else f"{photo.name}/{pair.name}"
                record = Record(name, photo.images, photo.attrs)
                yield record, partial(work, record, pair, pairs.places[number])
