"""`blurkit interpolate`: generate frames between sharp and blurry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blurkit.cli import options as shared
from blurkit.cli.common import print_json
from blurkit.errors import UsageError
from blurkit.io.paths import is_folder
from blurkit.options import ANY, option
from blurkit.reports.progress import say

if TYPE_CHECKING:
    from blurkit.cli.batch import RecordBatch, RecordTask
    from blurkit.data.sources import RecordStream
    from blurkit.io.records import Record


@dataclass(frozen=True)
class InterpolateOptions(shared.Networks, shared.Tiling, shared.Resumable):
    """The options of `blurkit interpolate`."""

    output: str | None = shared.output_option(
        "BLURRY.interpolated-N next to the image", "Folder/ for frames, animation (.gif .png .webp)"
    )
    steps: int = option(7, "Number of frames.", 1)
    first: float = option(
        0.0, "Amount of blur in the first frame; 0: the sharp image's.", ANY, flags=("--from",)
    )
    last: float = option(
        1.0, "Amount of blur in the last frame; 1: the blurry image's.", ANY, flags=("--to",)
    )
    deblur: bool = option(False, "Restore the blurry image instead of blurring the sharp one.")
    spherical: bool = option(False, "Interpolate spherically instead of linearly.")
    sheet: str | None = option(
        None, "Contact sheet of the frames: an image, or a folder/ for many pairs."
    )
    fps: float = option(4.0, "Frames per second of an animation.", 0.1, maximum=100)


def interpolate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="BLURRY SHARP",
            help="Two images or folders; or datasets, shards or - with both images.",
        ),
    ],
    options: InterpolateOptions,
) -> None:
    """Generate frames between a sharp photo and its blurry version.

    The degradations of both are mixed, and the sharp image is blurred with each mixture. Amounts
    below 0 and above 1 extrapolate. The gradient energy of every frame is measured.

    Examples: blurkit interpolate blurry.png sharp.png --steps 7 -o blur.gif;
    blurkit interpolate shards/test-*.h5 --sheet sheets/ -o frames/
    """
    options = shared.settled(options, inputs, options.files)
    options = shared.at_hand(options)

    from blurkit.cli.batch import RecordBatch

    with RecordBatch(inputs, options, "interpolate", "interpolated") as batch:
        pairs = _interpolate(inputs, options, batch)
    batch.end(pairs)


def _interpolate(inputs: list[str], options: InterpolateOptions, batch: RecordBatch) -> int:
    """Make the frames of the inputs' pairs, and return the number of the pairs."""
    from blurkit.cli.batch import warn
    from blurkit.reports.pictures import ContactSheets

    shown = ("restored" if options.deblur else "reblurred",)
    records = _open(inputs, options, batch, shown)

    from blurkit.tasks.deblur import SCORES, reblurring_warnings

    o = options
    sheets = ContactSheets(o.sheet, shown, o.force) if o.sheet else None
    path = o.steps, o.first, o.last
    mixed, engine = shared.model_of(o, o).interpolating(*path, o.deblur, o.spherical)
    energies = defaultdict[str, list[float]](list)
    blurrier: set[str] = set()
    jobs = (job for record in records for job in _frames(record, mixed, batch))
    for frame in batch.run(jobs):
        energy, pair = frame.attrs["gradient_energy"], frame.name.rpartition("/")[0]
        energies[pair].append(energy)
        if too_blurry := _blurrier(frame):
            blurrier.add(pair)
        warnings = [*too_blurry, *reblurring_warnings(frame.attrs)]
        warn(frame.name, warnings, o)
        if sheets:
            with batch.guard(str(o.sheet)):
                sheets.add(frame)
        if o.json:
            print_json(
                {"name": frame.name, "amount": frame.attrs["amount"], "gradient_energy": energy}
                | {key: frame.attrs[key] for key in SCORES if key in frame.attrs}
                | {"warnings": warnings}
                | engine.describe()
            )
    if sheets:
        with batch.guard(str(o.sheet)):
            sheets.finish()
    pairs = len(energies)
    sharp = (frames for pair, frames in energies.items() if pair not in blurrier)
    falling = sum(all(a > b for a, b in pairwise(frames)) for frames in sharp)
    if o.json:
        print_json({"total": {"pairs": pairs, "falling": falling}})
    if o.steps > 1:
        say(f"gradient energy falls at every step for {falling} of {pairs} pairs", o.quiet)
    return pairs


def _open(
    inputs: list[str], options: InterpolateOptions, batch: RecordBatch, shown: Sequence[str]
) -> RecordStream:
    """Open the sink for `-o`, an animation if it names one, and return the pairs of the inputs."""
    from blurkit.data.collection import are_two_sides, refuse_unpaired
    from blurkit.io.formats import is_image
    from blurkit.reports.pictures import ANIMATIONS, Animation

    file = Path(options.output) if options.output and not is_folder(options.output) else None
    if file and (is_image(file) or file.suffix.lower() in ANIMATIONS):
        if options.resume:
            raise UsageError("--resume requires a folder/ or a shard (.h5) as output")
        batch.use(Animation(file, shown, options.fps, options.force))
    else:
        batch.open(shown)
    if not are_two_sides(inputs):
        batch.refuse_hopeless(inputs, same_names=False)
        refuse_unpaired(inputs, "blur", "sharp", "")
    records = batch.pairs(inputs, "blur")
    if batch.sink.only:
        batch.sink.refuse_several(records.results)
    return records


def _blurrier(frame: Record) -> list[str]:
    """Return a warning if a frame that is to be as sharp as the sharp image is not."""
    from blurkit.metrics.sharpness import gradient_energy

    if frame.attrs["amount"] != 0 or "reblurred" not in frame.images:
        return []
    energy, blurry = frame.attrs["gradient_energy"], gradient_energy(frame.images["blur"])
    if energy > blurry:
        return []
    return [
        "is blurrier than the blurry image, though it is to be sharp: gradient energy "
        f"{energy:.3g}, and the blurry image has {blurry:.3g}"
    ]


def _frames(
    record: Record, mixed: Callable[[Record], Iterator[RecordTask]], batch: RecordBatch
) -> Iterator[RecordTask]:
    """Yield the frames of a record, unless all were finished before or it lacks an image."""
    frames: list[RecordTask] = []
    with batch.guard(record.name):
        frames += mixed(record)
    if frames and all(batch.sink.is_done(frame) for frame, _ in frames):
        batch.already += 1
    else:
        yield from frames
