"""`blurkit deblur`: remove blur."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

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
from blurkit.cli.shake import print_summary, read_one_kernel, shake_deblurring
from blurkit.errors import UsageError
from blurkit.options import check_strength

if TYPE_CHECKING:
    from blurkit.io.records import Record

FOUND = (
    "restored_windows",
    "restored_believed",
    "restored_left",
    "blur_length",
    "blur_angle",
    "blur_trust",
    "blur_gamma",
)
"""Attributes that --json prints of a photo whose blur was estimated."""


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
    method: Annotated[
        Literal["auto", "shake", "network"] | None,
        typer.Option(
            help="shake: estimate the blur of each part and undo it; network: one that restores "
            "any blur; auto: of both, part by part, what should be better.  [auto; network with "
            "-c, --encoder, --protocol, --tile or --overlap]",
            show_default=False,
        ),
    ] = None,
    kernel: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Undo this blur, the same all over: a kernel (.mat .npz .npy .png).",
            show_default=False,
        ),
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(help="With --kernel: gamma from pixels to the light it blurred.  [2.2]"),
    ] = None,
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

    Any size and depth comes back as it went in, with its transparency and metadata. With --method
    shake or auto -c names a deconvolution network, and --keep-kernel keeps the blur that was found.

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
    tiled = protocol != "tiles" or tile != "auto" or overlap is not None
    if method is None:
        named = checkpoint is not None and kernel is None
        method = "network" if named or encoder or tiled else "auto"
    by_kernel = kernel is not None or method != "network"
    keep_kernel = by_kernel and search.pop("keep_kernel")
    refuse_search(search)
    if by_kernel and (encoder or tiled):
        raise UsageError("--encoder, --protocol, --tile and --overlap are for --method network")
    if gamma is not None and (kernel is None or not 0 < gamma < 10):
        raise UsageError("--gamma goes with --kernel, from 0 to 10")
    blurs = read_one_kernel(kernel) if kernel is not None else None
    sink = open_sink(output, ("restored",), "deblurred", force)

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.tasks.deblur import deblur

    check_strength(strength)
    work: Callable[[Record], Record]
    network = method == "auto" and kernel is None
    if by_kernel:
        work = shake_deblurring(
            checkpoint,
            network,
            blurs,
            gamma or 2.2,
            strength,
            keep_kernel,
            device,
            precision,
            quiet,
        )
    else:
        loaded = load_checkpoints(checkpoint, encoder, quiet)
        engine = start_engine(
            "deblurring", loaded, side, overlap, device, precision, protocol=protocol
        )
        work = partial(deblur, engine=engine, checkpoint=loaded[0].name, strength=strength)
    problems = Problems()
    records = read_records(inputs, blur=blur, part=share, on_error=problems.add)
    done = 0
    for record in run_records(records, work, sink, problems, "deblur", quiet):
        done += 1
        if by_kernel:
            print_summary(record, network, quiet)
        if json:
            print_json(_line(record, strength) | ({} if by_kernel else engine.describe()))
    problems.finish(done, "deblurred")


def _line(record: Record, strength: float) -> dict[str, Any]:
    """What --json prints of a record."""
    height, width = record.images["restored"].shape[:2]
    seconds = record.attrs["restored_seconds"]
    found = {key: record.attrs[key] for key in FOUND if key in record.attrs}
    about = {"name": record.name, "width": width, "height": height, "seconds": seconds}
    kernel = (
        {"kernel": record.attrs["kernel"].tolist()} if found and "kernel" in record.attrs else {}
    )
    return about | {"strength": strength} | found | kernel
