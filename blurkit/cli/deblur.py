"""`blurkit deblur`: remove blur."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import (
    Device,
    Force,
    Json,
    Part,
    Precision,
    Problems,
    Quiet,
    print_json,
    run_records,
)


def deblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Images, folders, datasets, shards or - (a stream).")
    ],
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", "-c", help="Trained networks; - reads them from a pipe.")
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="An image, a folder/, a shard (.h5) or -; else NAME.deblurred beside each image.",
            show_default=False,
        ),
    ] = None,
    tile: Annotated[
        str, typer.Option(help="Tile side in pixels; auto is the size it was trained on.")
    ] = "auto",
    overlap: Annotated[
        int | None,
        typer.Option(help="Pixels that tiles share and blend over; default 32 or half the tile."),
    ] = None,
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
    from blurkit.errors import UsageError
    from blurkit.io.sinks import open_sink
    from blurkit.reports.progress import say

    if json and output == "-":
        raise UsageError("--json and '-o -' both want standard output; choose one")
    if checkpoint == "-" and "-" in inputs:
        raise UsageError("standard input can be one thing: '-' as input, or '-c -'")
    share = parse_part(part)
    side = None if tile == "auto" else _pixels(tile)
    sink = open_sink(output, ("restored",), "deblurred", force)

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.restoration import deblur as room
    from blurkit.restoration.engine import Engine

    loaded = load_checkpoint(checkpoint)
    engine = Engine(
        room.deblurring_network(loaded),
        tile=room.trained_tile(loaded) if side is None else side,
        overlap=overlap,
        device=device,
        precision=precision,
        protocol=protocol,
        warn=lambda text: say(f"warning: {text}"),
    )
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


def _pixels(tile: str) -> int:
    from blurkit.errors import UsageError

    if not tile.isdecimal():
        raise UsageError(f"--tile {tile}: give a number of pixels, or auto")
    return int(tile)
