"""`blurkit prepare`: datasets, photos, frames and videos into shards."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blurkit.cli.common import (
    CheckpointFile,
    Device,
    Force,
    Jobs,
    Json,
    Part,
    Precision,
    PrecisionName,
    Problems,
    Quiet,
    Seed,
    load_checkpoints,
    print_json,
    processes,
    refuse_json_and_stream,
    refuse_two_streams,
    start_engine,
)
from blurkit.errors import BlurkitError, UsageError
from blurkit.synthesis.kinds import BlurKind

if TYPE_CHECKING:
    from blurkit.data.prepare import Preparation
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink


def prepare(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Datasets, folders, images, videos, shards or - (a stream)."),
    ],
    output: Annotated[
        str, typer.Option("--output", "-o", help="A folder of shards, one shard (.h5) or -.")
    ] = "shards/",
    blur: Annotated[
        str, typer.Option(help="Blur folder of the dataset: blur, blur_gamma, train_blur_jpeg...")
    ] = "blur",
    lists: Annotated[
        list[Path] | None,
        typer.Option("--list", help="List file of pairs to take; two for aligned lists."),
    ] = None,
    unpaired_as: Annotated[
        Literal["blur", "sharp"],
        typer.Option("--as", help="What photos without partners are."),
    ] = "blur",
    average: Annotated[
        int, typer.Option(help="Make pairs: average so many consecutive frames.")
    ] = 0,
    stride: Annotated[
        int,
        typer.Option(help="With --average frames, else with --crop pixels, from one to the next."),
    ] = 0,
    interpolate: Annotated[
        int,
        typer.Option(
            min=0,
            help="With --average: steps from frame to frame, in between by optical flow (OpenCV).",
        ),
    ] = 0,
    agreement: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            help="With --interpolate: smallest fraction of pixels where the flow is consistent.",
        ),
    ] = 0.5,
    gamma: Annotated[float, typer.Option(help="Gamma between pixels and linear light.")] = 2.2,
    response: Annotated[
        Path | None, typer.Option(help="Camera response file used instead of the gamma.")
    ] = None,
    synthesize: Annotated[
        BlurKind | None,
        typer.Option(
            help="Blur sharp photos: the same all over by a shaking hand; by a camera that moves "
            "and turns; by things that move besides; by the lens; or a mixture as in real photos."
        ),
    ] = None,
    transfer_from: Annotated[
        list[str] | None,
        typer.Option(
            help="Blur sharp photos like pairs drawn from this dataset or shard; repeatable.",
            show_default=False,
        ),
    ] = None,
    checkpoint: CheckpointFile = None,
    device: Device = "auto",
    precision: Precision = "auto",
    kernels: Annotated[
        list[Path] | None,
        typer.Option(help="Kernel file or folder (.mat .npz .png) to shake with instead."),
    ] = None,
    kernel_size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            help="Smallest and largest blur, pixels.  [default: 9, 41; realistic: 1, 60]",
            show_default=False,
        ),
    ] = None,
    scale: Annotated[
        tuple[float, float],
        typer.Option(help="Resize each photo by a random factor from this range before."),
    ] = (1.0, 1.0),
    copies: Annotated[int, typer.Option(min=1, help="Blurred versions of each photo.")] = 1,
    highlights: Annotated[
        float | None,
        typer.Option(min=1, help="How much brighter than they look saturated pixels are."),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Standard deviation of the noise, in linear light."),
    ] = None,
    shot: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Variance of the noise that comes with light, per light."),
    ] = None,
    jpeg: Annotated[
        tuple[int, int] | None,
        typer.Option(help="Lowest and highest JPEG quality of the blur."),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet of the first pairs, an image file.")
    ] = None,
    crop: Annotated[int, typer.Option(min=0, help="Cut tiles of this side, pixels.")] = 0,
    crop_stride: Annotated[
        int, typer.Option(min=0, help="Pixels from tile to tile; default --stride, else --crop.")
    ] = 0,
    split: Annotated[str, typer.Option(help="Keep one split: train, val or test.")] = "",
    validation: Annotated[
        float, typer.Option(min=0, max=1, help="Share of training scenes moved to val.")
    ] = 0.0,
    limit: Annotated[int, typer.Option(min=0, help="Stop after so many scenes; 0: all.")] = 0,
    part: Part = "1/1",
    shard_size: Annotated[
        int, typer.Option(min=1, help="Megabytes of images after which a shard is closed.")
    ] = 512,
    compress: Annotated[
        bool, typer.Option("--compress", help="Compress shards: for archives, slower to train on.")
    ] = False,
    jobs: Jobs = 0,
    seed: Seed = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep whole shards and do what is missing.")
    ] = False,
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Turn datasets, photos and videos into training shards.

    GoPro, REDS, RealBlur, HIDE, RWBI, pair folders and photos are recognised by themselves.

    Examples: blurkit prepare gopro/; blurkit prepare photos/ --synthesize shake;
    blurkit prepare frames/ --average 8 --stride 8;
    blurkit prepare video.mp4 --average 3 --interpolate 8;
    blurkit prepare faces/ --transfer-from shards/ -c kernel.pt -o faces.h5
    """
    from blurkit.data.prepare import Preparation, find, prepared, read_kernel_files, unfinished
    from blurkit.data.sources import parse_part
    from blurkit.io.sinks import ShardFolder
    from blurkit.metrics.psnr import psnr
    from blurkit.reports.progress import Progress, say
    from blurkit.reports.sheets import PairSheet
    from blurkit.reports.summary import Prepared
    from blurkit.synthesis.averaging import Averaging, read_response
    from blurkit.synthesis.drawing import Synthesis

    refuse_two_streams(inputs, transfer_from or [], [checkpoint])
    if transfer_from and (synthesize or average):
        raise UsageError("one of --transfer-from, --synthesize and --average makes the blur")
    if not transfer_from and (checkpoint is not None or (device, precision) != ("auto", "auto")):
        raise UsageError("-c, --device and --precision go with --transfer-from")
    share = parse_part(part)
    if response is not None and not (average or synthesize):
        raise UsageError("--response goes with --average or --synthesize")
    curve = read_response(response) if response else None  # told of once if it is none
    synthesis = Synthesis(
        synthesize or "shake",
        read_kernel_files(kernels or ()),
        extent=kernel_size,
        gamma=gamma,
        response=curve,
        highlights=highlights,
        noise=noise,
        shot=shot,
        jpeg=jpeg,
        scale=scale,
    )
    if not synthesize and synthesis != Synthesis(gamma=gamma, response=curve):
        raise UsageError(
            "--kernels and --kernel-size go with --synthesize; so do --scale, --highlights, "
            "--noise, --shot and --jpeg"
        )
    if copies > 1 and not (synthesize or transfer_from):
        raise UsageError("--copies goes with --synthesize or --transfer-from")
    if not average and interpolate:
        raise UsageError("--interpolate goes with --average")
    if not interpolate > 1 and agreement != Averaging.agreement:
        raise UsageError("--agreement goes with --interpolate")
    preparation = Preparation(
        average=Averaging(average, stride, gamma, response, interpolate, agreement)
        if average
        else None,
        synthesis=synthesis if synthesize else None,
        copies=copies,
        crop=crop,
        stride=crop_stride or (0 if average else stride),
        split=split,
        validation=validation,
        seed=seed,
        measure=psnr,
    )
    _check(preparation, stride, json, output)
    pictures = PairSheet(sheet, force) if sheet else None
    problems = Problems()
    role = "sharp" if synthesize or transfer_from else unpaired_as
    found = find(inputs, preparation, role, blur, lists or (), limit, share)
    for layout in found.layouts:
        say(layout, quiet)
    for where, reason in found.left_out:
        problems.add(where, BlurkitError(reason))
    sink = _open(output, shard_size, force, resume, compress, share)
    finished = sink.finished if isinstance(sink, ShardFolder) else {}
    items = unfinished(found.items, preparation, finished.values())
    if transfer_from:
        blur_of_pairs = _transfer(
            transfer_from, checkpoint, device, precision, seed, problems, quiet
        )
        preparation = replace(preparation, transfer=blur_of_pairs)
    done = {name for names in finished.values() for name in names}
    progress = Progress("prepare", found.count, "scene", len(found.items) - len(items), quiet)
    table = Prepared(already=len(done))
    ready = prepared(items, preparation, processes(jobs), problems.add, lambda: progress.advance())
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
        with problems.guard(str(sheet)):
            pictures.finish()
    if isinstance(sink, ShardFolder):
        table.shards = [str(path) for path in sink.paths]
    if json:
        print_json(table.as_dict() | {"left_out": problems.failed})
    written = table.records + table.already
    if written and not quiet:
        table.print(output, problems.failed)
    problems.finish(written, "prepared")


def _open(
    output: str,
    shard_size: int,
    force: bool,
    resume: bool,
    compress: bool,
    share: tuple[int, int],
) -> Sink:
    """The sink for `-o`: a folder takes shards here, not images."""
    from blurkit.io.shards import is_shard
    from blurkit.io.sinks import ShardFolder, ShardSink, is_folder, open_sink

    path = Path(output)
    compression = "gzip" if compress else None
    if is_folder(output):
        part = f"p{share[0]}of{share[1]}-" if share[1] > 1 else ""
        return ShardFolder(path, shard_size << 20, force, resume, compression, part)
    if resume:
        raise UsageError("--resume goes with a folder of shards as output")
    if is_shard(path):
        return ShardSink(path, force, compression)
    return open_sink(output, ("blur", "sharp"), "prepared", force)


def _transfer(
    pairs: list[str],
    checkpoint: str | None,
    device: str,
    precision: PrecisionName,
    seed: int,
    problems: Problems,
    quiet: bool,
) -> Callable[[Record, int], Record]:
    """What gives a photo, and a copy of it, the blur of one of the pairs."""
    from blurkit.data.collection import collect
    from blurkit.tasks.reblur import transferred

    donors = collect(pairs, on_error=problems.add)
    if not len(donors):
        raise BlurkitError(f"--transfer-from {' '.join(pairs)}: holds no record")
    # Without -c the network that has codes: what it draws around them makes more kinds of blur.
    loaded = load_checkpoints(checkpoint, quiet=quiet, use="coding")
    engine = start_engine("reblurring", loaded, None, None, device, precision)
    return partial(transferred, pairs=donors, engine=engine, checkpoint=loaded[0].name, seed=seed)


def _check(preparation: Preparation, stride: int, json: bool, output: str) -> None:
    """Raises UsageError for options that need each other or exclude each other."""
    if stride and not (preparation.average or preparation.crop):
        raise UsageError("--stride goes with --average or --crop")
    refuse_json_and_stream(json, output)
