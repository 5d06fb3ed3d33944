"""`blurkit prepare`: turn datasets, photos, frames and videos into shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blurkit.cli import options as shared
from blurkit.cli.common import print_json
from blurkit.data.places import WHOLE, WorkPart, parse_part
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.paths import is_folder
from blurkit.options import ANY, option, rare
from blurkit.reports.progress import Progress, say, say_warning
from blurkit.synthesis import BlurKind

if TYPE_CHECKING:
    from blurkit.cli.batch import Problems
    from blurkit.data.prepare import Preparation, WorkItem
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink
    from blurkit.reports.pictures import PairSheet
    from blurkit.reports.tables import PrepareSummary


@dataclass(frozen=True)
class Selection(shared.Tracked):
    """Which scenes are prepared, and how they are cut."""

    blur: str = rare(
        "blur", "Name of the dataset's blur folder: blur, blur_gamma, train_blur_jpeg..."
    )
    lists: tuple[Path, ...] = option(
        (), "File that lists the pairs to use; two files for aligned lists.", flags=("--list",)
    )
    unpaired_as: Literal["blur", "sharp"] = option(
        "blur", "Role of photos without partners.", flags=("--as",)
    )
    split: str = option("", "Prepare only this split: train, val or test.")
    validation: float = option(
        0.0, "Fraction of the training frames to move to val, in whole sequences.", below=1
    )
    limit: int = option(0, "Maximum number of scenes; 0: all.")
    crop: int = option(0, "Cut tiles with this side, pixels.")
    crop_stride: int = rare(0, "Pixels from tile to tile; default: --stride, or else --crop.")


@dataclass(frozen=True)
class Blurring:
    """How frames are averaged, and how blur is drawn."""

    average: int = option(0, "Make pairs by averaging this many consecutive frames.", ANY)
    stride: int = option(
        0, "Step between averages, frames; without --average, between tiles, pixels.", ANY
    )
    interpolate: int = option(
        0, "With --average: steps from frame to frame, interpolated by optical flow (OpenCV)."
    )
    agreement: float = rare(
        0.5,
        "With --interpolate: smallest fraction of pixels where the flow is consistent.",
        maximum=1,
    )
    synthesize: BlurKind | None = option(
        None,
        "Blur sharp photos: uniformly by a shaking hand; by a camera that moves and rotates; by "
        "moving objects, too; by the lens; or by a realistic mixture.",
    )
    copies: int = option(1, "Number of blurred versions of each photo.", 1)
    kernels: tuple[Path, ...] = option(
        (), "Kernel file or folder (.mat .npz .png) to use instead of drawn kernels."
    )
    kernel_size: tuple[int, int] | None = option(
        None,
        "Smallest and largest extent of the blur, pixels.  [default: 9, 41; realistic: 1, 60]",
        ANY,
    )
    scale: tuple[float, float] = rare(
        (1.0, 1.0), "First resize each photo by a random factor in this range.", ANY
    )
    highlights: float | None = rare(
        None, "Factor by which saturated pixels are brighter than their values.", 1
    )
    noise: float | None = rare(None, "Standard deviation of the noise in linear light.", maximum=1)
    shot: float | None = rare(
        None, "Variance of the shot noise per unit of linear light.", maximum=1
    )
    jpeg: tuple[int, int] | None = rare(
        None, "Lowest and highest JPEG quality of the blurred images.", ANY
    )


@dataclass(frozen=True)
class PrepareOptions(Selection, Blurring, shared.Hardware, shared.Writing):
    """The options of `blurkit prepare`."""

    output: str = option(
        "shards/", "Folder of shards, one shard (.h5) or -.", flags=("--output", "-o")
    )
    gamma: float = rare(2.2, "Gamma between pixels and linear light.")
    response: Path | None = rare(None, "Camera response file to use instead of the gamma.")
    transfer_from: tuple[str, ...] = option(
        (), "Blur sharp photos like pairs drawn from this dataset or shard; repeatable."
    )
    checkpoint: str | None = option(
        None, f"With --transfer-from: {shared.CHECKPOINT}", flags=("--checkpoint", "-c")
    )
    sha256: tuple[str, ...] = shared.SHA256
    sheet: Path | None = option(None, "Image file for a contact sheet of the first pairs.")
    shard_size: int = rare(512, "Megabytes of images after which a shard is closed.", 1)
    compress: bool = rare(False, "Compress the shards, which makes training on them slower.")
    jobs: int = option(0, "Number of processes; 0: one per processor.")
    seed: int = shared.SEED
    resume: bool = option(False, "Keep complete shards and prepare what is missing.")

    @property
    def role(self) -> Literal["blur", "sharp"]:
        """The role of photos without partners; photos to be blurred are sharp."""
        return "sharp" if self.synthesize or self.transfer_from else self.unpaired_as


def prepare(
    inputs: Annotated[
        list[str], typer.Argument(help="Datasets, folders, images, videos, shards or - (a stream).")
    ],
    options: PrepareOptions,
) -> None:
    """Turn datasets, photos and videos into training shards.

    GoPro, REDS, RealBlur, HIDE, RWBI, pair folders and photos are recognised automatically.

    Examples: blurkit prepare gopro/; blurkit prepare photos/ --synthesize shake;
    blurkit prepare frames/ --average 8 --stride 8;
    blurkit prepare video.mp4 --average 3 --interpolate 8;
    blurkit prepare faces/ --transfer-from shards/ -c kernel.pt -o faces.h5
    """
    options = shared.settled(options, inputs, options.transfer_from, [options.checkpoint])
    _check(options)
    options = shared.at_hand(options, "checkpoint")

    from blurkit.cli.batch import Problems
    from blurkit.data.films import VIDEO_SUFFIXES
    from blurkit.data.prepare import find, last_changes
    from blurkit.data.sources import summary_of_results
    from blurkit.io.sinks import ShardFolder
    from blurkit.reports.pictures import PairSheet

    o, part = options, parse_part(options.part)
    preparation = preparation_of(options, part)
    if options.status:
        _show_status(inputs, options, replace(preparation, part=WHOLE), part)
    pictures = PairSheet(options.sheet, options.force) if options.sheet else None
    films = VIDEO_SUFFIXES if options.average else ()
    problems = Problems([*inputs, *options.transfer_from], films, part)
    work_list, preparation = find(inputs, preparation, o.role, o.blur, o.lists, o.limit)
    for layout in work_list.layouts:
        say(layout, options.quiet)
    if work_list.results:
        say(summary_of_results(work_list.results), options.quiet)
    work_list.report(problems.add)
    resumed = options.resume and is_folder(options.output)
    changed = last_changes(work_list.items, preparation) if resumed else None
    with _open(options, part, changed) as sink:
        table = _fill(sink, work_list.items, preparation, options, problems, pictures)
    if pictures:
        with problems.guard(str(options.sheet)):
            pictures.finish()
    if isinstance(sink, ShardFolder):
        table.shards = [str(path) for path in sink.paths]
    if options.json:
        print_json(table.as_dict() | {"left_out": problems.failed})
    written = table.records + table.already
    if written and not options.quiet:
        table.print(options.output, problems.failed)
    problems.finish(written, "prepared")


def _fill(
    sink: Sink,
    items: Sequence[WorkItem],
    preparation: Preparation,
    options: PrepareOptions,
    problems: Problems,
    pictures: PairSheet | None,
) -> PrepareSummary:
    """Write what is prepared of the unfinished items to a sink, and count it."""
    from blurkit.data.prepare import known_count, prepare_items, unfinished
    from blurkit.data.workers import processors
    from blurkit.io.sinks import ShardFolder
    from blurkit.reports.tables import PrepareSummary

    sink.refuse_several(len(items))
    finished = sink.finished if isinstance(sink, ShardFolder) else {}
    left = unfinished(items, preparation, finished.values())
    if options.transfer_from:
        preparation = replace(preparation, transfer=_transfer(options, problems))
    already = len(items) - len(left)
    progress = Progress("prepare", known_count(items), "scene", already, options.quiet)
    table = PrepareSummary(sum(map(len, finished.values())), options.split)
    jobs = options.jobs or processors()
    ready = prepare_items(left, preparation, jobs, problems.add, progress.advance)
    with closing(ready):
        for record in ready:
            if sink.is_done(record):
                continue
            with problems.guard(record.name):
                sink.claim(record)
                sink.write(record)
                table.add(record)
                if pictures:
                    pictures.add(record)
    progress.close()
    return table


def _show_status(
    inputs: list[str], options: PrepareOptions, preparation: Preparation, part: WorkPart
) -> None:
    """Print how much each part has prepared, and end. Raises UsageError for shards and films."""
    from blurkit.cli.batch import show_status
    from blurkit.data.prepare import find, item_outlines

    o = options
    items = find(inputs, preparation, o.role, o.blur, o.lists, o.limit)[0].items
    results = item_outlines(items)
    part = part.among(record.name for record in results)
    show_status(results, part, options, "prepared", True, preparation.origin)


def _check(options: PrepareOptions) -> None:
    """Raise UsageError for several sources of blur, and for options that require others."""
    transfers = bool(options.transfer_from)
    if transfers and (options.synthesize or options.average):
        raise UsageError("--transfer-from excludes --synthesize and --average")
    networks = options.checkpoint, options.device, options.precision
    if not transfers and networks != (None, "auto", "auto"):
        raise UsageError("-c, --device and --precision require --transfer-from")
    if options.response is not None and not (options.average or options.synthesize):
        raise UsageError("--response requires --average or --synthesize")
    drawn = ("kernels", "kernel_size", "scale", "highlights", "noise", "shot", "jpeg")
    given = any(getattr(options, name) != getattr(Blurring, name) for name in drawn)
    if not options.synthesize and given:
        raise UsageError(
            "--kernels, --kernel-size, --scale, --highlights, --noise, --shot and --jpeg require "
            "--synthesize"
        )
    if options.copies > 1 and not (options.synthesize or transfers):
        raise UsageError("--copies requires --synthesize or --transfer-from")
    if not options.average and options.interpolate:
        raise UsageError("--interpolate requires --average")
    if not options.interpolate > 1 and options.agreement != Blurring.agreement:
        raise UsageError("--agreement requires --interpolate")
    if options.stride and not (options.average or options.crop):
        raise UsageError("--stride requires --average or --crop")


def preparation_of(options: PrepareOptions, part: WorkPart) -> Preparation:
    """Return the preparation of every record. Raises UsageError if a value is out of range."""
    from blurkit.data.prepare import Preparation
    from blurkit.metrics.psnr import psnr
    from blurkit.synthesis.averaging import Averaging, read_response
    from blurkit.synthesis.drawing import Synthesis
    from blurkit.synthesis.kernels import read_kernels

    o = options
    # A bad file is reported once, not for every record.
    response = None if o.response is None else read_response(o.response)
    average = synthesis = None
    if o.average:
        average = Averaging(o.average, o.stride, o.gamma, o.response, o.interpolate, o.agreement)
    if o.synthesize:
        synthesis = Synthesis(
            o.synthesize,
            tuple(kernel for path in o.kernels for kernel in read_kernels(path)),
            extent=o.kernel_size,
            gamma=o.gamma,
            response=response,
            highlights=o.highlights,
            noise=o.noise,
            shot=o.shot,
            jpeg=o.jpeg,
            scale=o.scale,
        )
    return Preparation(
        average=average,  # frames may be both averaged and blurred
        synthesis=synthesis,
        copies=o.copies,
        crop=o.crop,
        stride=o.crop_stride or (0 if o.average else o.stride),
        split=o.split,
        validation=o.validation,
        seed=o.seed,
        part=part,
        measure=psnr,
    )


def _transfer(options: PrepareOptions, problems: Problems) -> Callable[[Record, int], Record]:
    """Return the function that gives a photo the blur of a pair, drawn by a copy's number."""
    from blurkit.data.collection import collect

    donors = collect(options.transfer_from, on_error=problems.add)
    if not len(donors):
        raise BlurkitError(f"--transfer-from {' '.join(options.transfer_from)}: holds no record")

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.tasks.reblur import transferred

    model = shared.model_of(shared.Networks(options.checkpoint), options)
    engine = model.engine("reblurring", shipped="coding")  # changed codes make more kinds of blur
    return partial(transferred, pairs=donors, engine=engine, seed=options.seed)


def _open(options: PrepareOptions, part: WorkPart, changed: Callable[[str], int] | None) -> Sink:
    """Return the sink for `-o`; a folder receives shards, with `changed` as for `ShardFolder`."""
    from blurkit.io.image_sinks import FileOptions, open_sink
    from blurkit.io.shards import is_shard
    from blurkit.io.sinks import ShardFolder, ShardSink
    from blurkit.io.streams import ShardWriter

    output, path = options.output, Path(options.output)
    compression = "gzip" if options.compress else None
    if is_folder(output):
        how = options.force, options.resume, compression, part.prefix, changed
        return ShardFolder(path, options.shard_size << 20, *how)
    if options.resume:
        raise UsageError("--resume requires a folder of shards as output")
    if is_shard(path):
        return ShardSink(ShardWriter(path, options.force, compression))
    files = FileOptions(options.force, warn=say_warning)
    return open_sink(output, ("blur", "sharp"), "prepared", files)
