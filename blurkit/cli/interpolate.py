"""`blurkit interpolate`: pictures between sharp and blurry."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
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
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink

    Job = tuple[Record, Callable[[], Record]]


def interpolate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="BLURRY SHARP",
            help="Two images or folders; or datasets, shards or - with both images.",
        ),
    ],
    checkpoint: CheckpointFile = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="A folder/ for frames, an animation (.gif .png .webp), a shard (.h5) or -; "
            "else BLURRY.interpolated-N beside the image.",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int, typer.Option(min=1, help="Number of frames.")] = 7,
    first: Annotated[
        float, typer.Option("--from", help="Blur of the first frame; 0: the sharp image's.")
    ] = 0.0,
    last: Annotated[
        float, typer.Option("--to", help="Blur of the last frame; 1: the blurry image's.")
    ] = 1.0,
    deblur: Annotated[
        bool,
        typer.Option("--deblur", help="Restore the blurry image along the path instead."),
    ] = False,
    spherical: Annotated[
        bool, typer.Option("--spherical", help="Mix along a circle instead of a line.")
    ] = False,
    sheet: Annotated[
        str | None,
        typer.Option(help="Contact sheet of the frames: an image, or a folder/ for many pairs."),
    ] = None,
    fps: Annotated[
        float, typer.Option(min=0.1, max=100, help="Frames per second of an animation.")
    ] = 4.0,
    encoder: EncoderFiles = [],  # noqa: B006
    tile: Tile = "auto",
    overlap: Overlap = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Make the pictures between a sharp photo and its blurry one.

    The degradations of both are mixed, and the sharp image is blurred with each mixture. Amounts
    below 0 and above 1 go beyond the two. It is measured how the gradient energy falls.

    Examples: blurkit interpolate blurry.png sharp.png --steps 7 -o blur.gif;
    blurkit interpolate shards/test-*.h5 --sheet sheets/ -o frames/
    """
    refuse_json_and_stream(json, output)
    refuse_two_streams(inputs, [checkpoint, *encoder])
    side = tile_side(tile)
    shown = ("restored" if deblur else "reblurred",)
    sink = _open(output, shown, fps, force)

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.reports.frames import ContactSheets
    from blurkit.reports.progress import say
    from blurkit.tasks.interpolate import amounts, frames

    path = amounts(steps, first, last)
    sheets = ContactSheets(sheet, shown, force) if sheet else None
    loaded = load_checkpoints(checkpoint, encoder, quiet, use="interpolation")
    engine = start_engine("interpolation", loaded, side, overlap, device, precision, deblur=deblur)
    name = loaded[0].name
    problems = Problems()
    energies: dict[str, list[float]] = {}
    jobs = (
        job
        for record in _pairs(inputs, problems)
        for job in _guarded(
            record, partial(frames, record, engine, path, name, deblur, spherical), problems
        )
    )
    for frame in run_jobs(jobs, sink, problems, "interpolate", quiet):
        energy = frame.attrs["gradient_energy"]
        energies.setdefault(frame.name.rpartition("/")[0], []).append(energy)
        if sheets:
            with problems.guard(str(sheet)):
                sheets.add(frame)
        if json:
            print_json(
                {"name": frame.name, "amount": frame.attrs["amount"], "gradient_energy": energy}
                | engine.describe()
            )
    if sheets:
        with problems.guard(str(sheet)):
            sheets.finish()
    falling = sum(all(a > b for a, b in pairwise(each)) for each in energies.values())
    if json:
        print_json({"total": {"pairs": len(energies), "falling": falling}})
    if steps > 1:
        say(f"gradient energy falls at every step for {falling} of {len(energies)} pairs", quiet)
    problems.finish(len(energies), "interpolated")


def _open(output: str | None, shown: tuple[str, ...], fps: float, force: bool) -> Sink:
    """The sink for `-o`: an image file takes all frames, as an animation."""
    from blurkit.io.images import is_image
    from blurkit.io.sinks import is_folder, open_sink
    from blurkit.reports.frames import ANIMATIONS, Animation

    if output is not None and not is_folder(output):
        file = Path(output)
        if is_image(file) or file.suffix.lower() in ANIMATIONS:
            return Animation(file, shown, fps, force)
    return open_sink(output, shown, "interpolated", force)


def _pairs(inputs: list[str], problems: Problems) -> Iterator[Record]:
    from blurkit.data.pairs import are_two_sides, read_two_sides
    from blurkit.data.sources import read_records

    if are_two_sides(inputs):
        blurry, sharp = inputs
        return read_two_sides(blurry, sharp, on_error=problems.add, roles=("blur", "sharp"))
    return read_records(inputs, on_error=problems.add)


def _guarded(
    record: Record, jobs: Callable[[], Iterator[Job]], problems: Problems
) -> Iterator[Job]:
    """The frames of a record, or none and a problem told when it lacks an image."""
    with problems.guard(record.name):
        yield from jobs()
