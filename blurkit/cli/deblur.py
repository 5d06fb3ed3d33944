"""`blurkit deblur`: remove blur."""

from __future__ import annotations

from dataclasses import fields
from functools import partial
from typing import Annotated, Literal

import typer

from blurkit.cli.blind import Options, Run, deblur_blindly, refuse_search, with_blind_options
from blurkit.cli.common import (
    CheckpointFile,
    Device,
    EncoderFiles,
    Force,
    Json,
    Overlap,
    Part,
    Precision,
    Problems,
    Quiet,
    Tile,
    load_checkpoints,
    print_json,
    refuse_json_and_stream,
    refuse_two_streams,
    run_records,
    start_engine,
    tile_side,
)
from blurkit.errors import UsageError


@with_blind_options
def deblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Images, folders, datasets, shards or - (a stream).")
    ],
    checkpoint: CheckpointFile = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="An image, a folder/, a shard (.h5) or -; else NAME.deblurred beside each image.",
            show_default=False,
        ),
    ] = None,
    strength: Annotated[
        float, typer.Option(help="How much is restored: 0 is the photo as it is, 1 all.")
    ] = 1.0,
    encoder: EncoderFiles = [],  # noqa: B006
    tile: Tile = "auto",
    overlap: Overlap = None,
    protocol: Annotated[
        Literal["tiles", "slices", "whole", "local"],
        typer.Option(
            help="How papers measured, in float32: slices (MSDI-Net), whole images, or those with "
            "local statistics (MSFS-Net-Local)."
        ),
    ] = "tiles",
    blur: Annotated[str, typer.Option(help="Blur folder of a dataset: blur, blur_gamma.")] = "blur",
    part: Part = "1/1",
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
    *,
    search: Options,
) -> None:
    """Remove blur from photos, folders, datasets, streams.

    Any size and depth comes back as it went in, with its transparency and metadata.

    Examples: blurkit deblur photo.jpg; blurkit deblur photos/ -o sharp/;
    blurkit deblur --blind photo.jpg
    """
    from blurkit.data.sources import parse_part, read_records
    from blurkit.io.sinks import open_sink

    refuse_json_and_stream(json, output)
    refuse_two_streams(inputs, [checkpoint, *encoder])
    share = parse_part(part)
    side = tile_side(tile)
    if search.pop("blind"):
        if encoder or protocol != "tiles":
            raise UsageError(
                f"{'--encoder' if encoder else '--protocol'} and --blind exclude each other"
            )
        names = {f.name for f in fields(Run)}
        running = {name: search.pop(name) for name in names & search.keys()}
        run = Run(
            checkpoint,
            output,
            strength,
            side,
            overlap,
            device,
            precision,
            json,
            force,
            quiet,
            **running,
        )
        deblur_blindly(
            lambda problems: read_records(inputs, blur=blur, part=share, on_error=problems.add),
            run,
            search,
        )
        return
    refuse_search(search)
    sink = open_sink(output, ("restored",), "deblurred", force)

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.restoration import deblur as room

    room.check_strength(strength)
    loaded = load_checkpoints(checkpoint, encoder, quiet)
    network = room.deblurring_network(*loaded)
    engine = start_engine(network, loaded[0], side, overlap, device, precision, protocol)
    problems = Problems()
    records = read_records(inputs, blur=blur, part=share, on_error=problems.add)
    work = partial(room.deblur, engine=engine, checkpoint=loaded[0].name, strength=strength)
    done = 0
    for record in run_records(records, work, sink, problems, "deblur", quiet):
        done += 1
        if json:
            height, width = record.images["restored"].shape[:2]
            seconds = record.attrs["restored_seconds"]
            print_json(
                {"name": record.name, "width": width, "height": height, "seconds": seconds}
                | {"strength": strength}
                | engine.describe()
            )
    problems.finish(done, "deblurred")
