"""`blurkit deblur`: remove blur."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

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


def deblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Images, folders, datasets, shards or - (a stream).")
    ],
    checkpoint: CheckpointFile,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="An image, a folder/, a shard (.h5) or -; else NAME.deblurred beside each image.",
            show_default=False,
        ),
    ] = None,
    encoder: EncoderFiles = [],  # noqa: B006
    tile: Tile = "auto",
    overlap: Overlap = None,
    protocol: Annotated[
        Literal["tiles", "slices"],
        typer.Option(help="slices: the paper's test protocol, uniform averages, float32."),
    ] = "tiles",
    blur: Annotated[str, typer.Option(help="Blur folder of a dataset: blur, blur_gamma.")] = "blur",
    part: Part = "1/1",
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Remove blur from photos, folders, datasets, streams.

    Any size and depth comes back as it went in, with its transparency and metadata.

    Examples: blurkit deblur photo.jpg -c deblur.pt; blurkit deblur photos/ -c deblur.pt -o sharp/
    """
    from blurkit.data.sources import parse_part, read_records
    from blurkit.io.sinks import open_sink

    refuse_json_and_stream(json, output)
    refuse_two_streams(inputs, [checkpoint, *encoder])
    share = parse_part(part)
    side = tile_side(tile)
    sink = open_sink(output, ("restored",), "deblurred", force)

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.restoration import deblur as room

    loaded = load_checkpoints(checkpoint, encoder)
    network = room.deblurring_network(*loaded)
    engine = start_engine(network, loaded[0], side, overlap, device, precision, protocol)
    problems = Problems()
    records = read_records(inputs, blur=blur, part=share, on_error=problems.add)
    name = Path(checkpoint).name
    done = 0
    for record in run_records(
        records, lambda r: room.deblur(r, engine, name), sink, problems, "deblur", quiet
    ):
        done += 1
        if json:
            height, width = record.images["restored"].shape[:2]
            seconds = record.attrs["restored_seconds"]
            print_json(
                {"name": record.name, "width": width, "height": height, "seconds": seconds}
                | engine.describe()
            )
    problems.finish(done, "deblurred")
