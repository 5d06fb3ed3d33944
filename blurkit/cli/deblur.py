"""`blurkit deblur`: remove blur."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blurkit.cli import options as shared
from blurkit.cli.common import print_json, result_values
from blurkit.errors import UsageError, without_secrets
from blurkit.io.paths import is_folder
from blurkit.options import Method, Placement, Protocol, check_strength, choose_method, option, rare
from blurkit.reports.progress import say

if TYPE_CHECKING:
    import numpy as np

    from blurkit.cli.batch import RecordBatch
    from blurkit.engine.engine import Engine
    from blurkit.io.records import Record
    from blurkit.model import Work
    from blurkit.synthesis.kernels import KernelSheet


FOUND = (
    *("sharpness_before", "sharpness_after", "restored_change"),
    *("restored_windows", "restored_believed", "restored_left"),
    *("restored_unexplained", "restored_guided"),
    *("blur_length", "blur_angle", "blur_trust", "blur_gamma"),
)
"""Attributes of a restoration that --json prints if a record has them."""


@dataclass(frozen=True)
class DeblurOptions(shared.Networks, shared.ImageTask, shared.Tracked):
    """The options of `blurkit deblur`."""

    output: str | None = shared.output_option("NAME.deblurred next to each file")
    method: Method | None = option(
        None,
        "shake: estimate and invert the blur of each part; network: restore any blur; auto: use "
        "whichever should be better for each part.  [auto; network with -c, --encoder, "
        "--protocol, --tile or --overlap]",
    )
    strength: float = shared.RESTORED_AMOUNT
    kernel: Path | None = option(
        None,
        "Invert this blur instead of an estimate: a kernel (.mat .npz .npy .png), or what "
        "--keep-kernel wrote.",
        metavar="FILE",
    )
    gamma: float | None = option(
        None, "With --kernel: gamma between pixels and linear light.  [2.2]"
    )
    keep_kernel: Path | None = option(
        None,
        "Write the kernels that were found as a picture, to mend and give to --kernel: .png, or a "
        "folder/ for several photos.",
        metavar="FILE",
    )
    mask: Path | None = option(
        None,
        "Restore only where this picture is white; of a folder, the one with the photo's name.",
        metavar="FILE",
    )
    preview: bool = option(
        False,
        "Restore only the middle of each photo, and write before and after: NAME.previewed.jpg.",
    )
    clip: str = option(
        "",
        "Restore only these frames of a film, to try it: the first is 0, and both ends count.",
        metavar="FIRST:LAST",
    )
    html: Path | None = option(
        None, "Folder for a report with pictures, to open in a browser.", metavar="FOLDER"
    )
    protocol: Protocol = option(
        "tiles",
        "Tiles, or a paper's protocol in float32: slices (MSDI-Net), whole images, or whole images "
        "with local statistics (NAFNet, MSFS-Net-Local); own: the network's paper's.",
    )
    value_range: Literal["auto", "0..1", "0..255", "-1..1"] = rare(
        "auto",
        "Pixel values that another program's ONNX file takes; auto: found by trying a photo.",
    )
    network: str = shared.NETWORK
    blur: str = shared.BLUR

    def way(self, sheet: bool = False) -> Method:
        """Return the named method, or the one that the other options imply.

        `sheet` means that `--kernel` names the sheet of the windows of a photo.
        """
        named, known = self.checkpoint is not None, self.kernel is not None
        tiled = self.placement.tiled or self.protocol != "tiles"
        return choose_method(self.method, named, known, tiled or bool(self.encoder), sheet)

    @property
    def placement(self) -> Placement:
        """Where and how networks run."""
        return replace(super().placement, protocol=self.protocol)


def deblur(inputs: shared.InputPaths, options: DeblurOptions) -> None:
    """Remove blur from photos, films, folders, datasets and streams.

    Size, depth, transparency and metadata are kept; of films also timing, sound and subtitles. With
    --method shake or auto, -c names a deconvolution network. For a search that takes minutes and
    requires no network trained to deblur, use blurkit blind-deblur.

    Examples: blurkit deblur photo.jpg; blurkit deblur photos/ -o sharp/;
    blurkit deblur film.mp4 -o sharp.mp4;
    blurkit deblur photo.jpg --method shake
    """
    options = shared.settled(options, inputs, options.files)
    _check(options)
    options = _previewing(options)
    if options.status:
        from blurkit.cli.batch import status_of

        verb = "previewed" if options.preview else "deblurred"
        status_of(inputs, options, verb, blur=options.blur)
    only = clipped_frames(options, inputs)
    options = shared.at_hand(options)

    from blurkit.cli.batch import RecordBatch

    verb = "previewed" if options.preview or only is not None else "deblurred"
    with RecordBatch(inputs, options, "deblur", verb) as batch:
        _restore(inputs, options, batch, only)
    batch.end()


def _restore(
    inputs: list[str], options: DeblurOptions, batch: RecordBatch, only: range | None
) -> None:
    """Restore the records of the inputs; of a film, the frames `only` if they are given."""
    from blurkit.data.films import check_film_output
    from blurkit.data.sources import read_records
    from blurkit.io.films import is_film
    from blurkit.reports.page import RestorationReport
    from blurkit.reports.pictures import RESTORED
    from blurkit.synthesis.kernels import KernelSheet
    from blurkit.tasks import deblur as tasks

    kernel = tasks.read_known_blur(options.kernel) if options.kernel is not None else None
    mask_of = tasks.read_masks(options.mask)
    check_film_output(inputs, options.output)
    batch.open(("preview",) if options.preview else ("restored",), RESTORED, only)
    replaced = options.force or options.resume
    page = RestorationReport(options.html, replaced, only) if options.html else None
    batch.refuse_hopeless(inputs, blur=options.blur, reported=bool(page))

    records = read_records(inputs, blur=options.blur, part=batch.part, on_error=batch.add)
    kept = options.keep_kernel
    pictures = tasks.KernelPictures(kept, replaced, records.total) if kept is not None else None
    work, engine = deblurring(options, kernel)
    results = Results(options, engine, options.way(isinstance(kernel, KernelSheet)) == "auto")
    already = records.drop(batch.sink.is_done)
    batch.already = len(already)
    begin = getattr(work, "begun", work)  # so that a film's frame is finished after the next one

    def restored(record: Record) -> Record | Callable[[], Record]:
        if pictures:
            pictures.claim(record)
        for of_an_earlier_result in ("blur_kernels", "restored_masked"):
            record.attrs.pop(of_an_earlier_result, None)
        made = begin(tasks.preview_part(record) if options.preview else record)
        return (lambda: finished(made())) if callable(made) else finished(made)

    def finished(made: Record) -> Record:
        if (mask := mask_of(made)) is not None:
            made = tasks.masked(made, mask)
        # Of a frame, nothing is shown otherwise.
        if page or options.json or options.compare or "film" not in made.attrs:
            made = tasks.with_sharpness(made)
        return tasks.with_preview(made) if options.preview else made

    chosen, total = clipped(records, records.total, only)
    jobs = ((record, partial(restored, record)) for record in chosen)
    unit = "frame" if all(is_film(Path(text)) for text in inputs) else "image"
    for record in batch.run(batch.remaining(jobs), total, records.items, unit):
        if pictures:
            with batch.guard(record.name):
                pictures.write(record, options.quiet)
        if page:
            with batch.guard(str(options.html)):
                page.add(record)
        results.describe(record)
    results.sum_up()
    if page:
        with batch.guard(str(options.html)):
            for record in batch.finished_before(already, records, "restored"):
                page.add(tasks.with_sharpness(record))
            if written := page.write():
                say(f"wrote {written}", options.quiet)


class Results:
    """Says what was found in records and done to them.

    `engine` restores any blur; without one, blur is estimated, and where it is not believed, a
    network restores `otherwise`.
    """

    def __init__(self, options: DeblurOptions, engine: Engine | None, otherwise: bool) -> None:
        self._options, self._engine, self._otherwise = options, engine, otherwise
        self._lengths = defaultdict[str, list[float]](list)
        self._photos = self._left = 0

    def describe(self, record: Record) -> None:
        """Print a line on a photo, or a JSON line on any record."""
        from blurkit.tasks.deblur import restoration_warnings

        options, attrs = self._options, record.attrs
        if "film" not in attrs:
            self._say_line(record)
        elif "restored_windows" in attrs:
            self._lengths[attrs["film"]].append(attrs.get("blur_length", 0.0))
        if options.json:
            kept = options.keep_kernel is not None
            arrays = ("restored_offset", "kernel") if kept else ("restored_offset",)
            print_json(
                result_values(record, record.images["restored"], "restored")
                | {"strength": options.strength}
                | {key: attrs[key] for key in FOUND if key in attrs}
                | {key: attrs[key].tolist() for key in arrays if key in attrs}
                | {"warnings": restoration_warnings(record)}
                | (self._engine.describe() if self._engine else {})
            )

    def _say_line(self, record: Record) -> None:
        from blurkit.cli.batch import warn
        from blurkit.tasks import deblur as tasks

        options, otherwise = self._options, self._otherwise
        left = otherwise and tasks.is_left(record)
        self._photos, self._left = self._photos + 1, self._left + left
        found = "" if self._engine else f"{tasks.inversion().windows_summary(record, otherwise)}; "
        whole = record.attrs["part_of"] if options.preview else None
        say(tasks.result_line(record, found, whole), options.quiet or (options.json and not found))
        if not left:
            warn(record.name, tasks.restoration_warnings(record), options)

    def sum_up(self) -> None:
        """Print a line on each film, and how many photos were left as they are."""
        from blurkit.tasks.deblur import film_summary

        quiet, left = self._options.quiet, self._left
        for name, lengths in self._lengths.items():
            say(f"{name}: {film_summary(lengths)}", quiet)
        if left:
            what = "were left as they are" if left > 1 else "was left as it is"
            line = f"{left} of {self._photos} {what}: no blur was found that could be undone"
            say(line, quiet or self._options.json)


def clipped_frames(options: DeblurOptions, inputs: shared.InputPaths) -> range | None:
    """Return the frames that `--clip` names, if any. Raises UsageError unless one film has them."""
    if not options.clip:
        return None
    from blurkit.io.films import is_film, stated_length

    known = re.fullmatch(r"(\d{1,9}):(\d{1,9})", options.clip, re.ASCII)
    if known is None or int(known[1]) > int(known[2]):
        raise UsageError(f"--clip {options.clip}: give the first and last frame, as 100:124")
    if options.resume or options.status:
        raise UsageError("--clip makes no whole film; leave out --resume and --status")
    if len(inputs) > 1 or not is_film(Path(inputs[0])):
        raise UsageError(f"--clip takes one film, and {inputs[-1]} is not a film alone")
    only, length = range(int(known[1]), int(known[2]) + 1), stated_length(Path(inputs[0]))
    if length is not None and only.start >= length:
        raise UsageError(f"--clip {options.clip}: {inputs[0]} has {length} frames, from 0 on")
    return only


def clipped(
    records: Iterator[Record], total: int | None, only: range | None
) -> tuple[Iterator[Record], int | None]:
    """Return the frames `only` of a film's records, and their number; all of them without it."""
    if only is None:
        return records, total
    left = len(only) if total is None else len(only[: max(0, total - only.start)])
    return islice(records, only.start, only.stop), left


def _check(options: DeblurOptions) -> None:
    """Raise UsageError for options that exclude each other or require others."""
    onnx = without_secrets(options.checkpoint or "").endswith(".onnx")
    if options.value_range != "auto" and not onnx:
        raise UsageError("--value-range requires -c with an ONNX file")
    check_strength(options.strength)
    kept, estimated = options.keep_kernel, options.way() != "network" and options.kernel is None
    if kept is not None and not estimated:
        raise UsageError("--keep-kernel requires --method shake or auto, and no --kernel")
    if kept is not None and kept.suffix.lower() not in ("", ".png") and not kept.is_dir():
        raise UsageError(
            f"--keep-kernel {kept}: name a .png or a folder/; records (-o found.h5) hold it anyway"
        )
    excluded = {"--mask": options.mask, "--html": options.html, "--keep-kernel": kept}
    if options.preview and (given := [name for name, value in excluded.items() if value]):
        raise UsageError(f"--preview restores a part of each photo, and excludes {given[0]}")
    if options.mask is not None and not options.mask.exists():
        raise UsageError(f"--mask {options.mask}: no such file or folder")
    if options.gamma is not None and (options.kernel is None or not 0 < options.gamma < 10):
        raise UsageError("--gamma requires --kernel and a value between 0 and 10")


def deblurring(
    options: DeblurOptions, kernel: np.ndarray | KernelSheet | None = None
) -> tuple[Work, Engine | None]:
    """Return the function that deblurs records, and the engine if it is a network for any blur.

    Raises BlurkitError for a bad file, and UsageError for options that do not fit it.
    """
    from blurkit.synthesis.kernels import KernelSheet

    values = None if options.value_range == "auto" else options.value_range
    model = shared.model_of(options, options, None, values, options.network)
    way = options.way(isinstance(kernel, KernelSheet))
    keep = way != "network"  # for records, and for the inset of comparisons
    return model.deblurring(way, kernel, options.gamma or 2.2, options.strength, keep)


def _previewing(options: DeblurOptions) -> DeblurOptions:
    """Return options by which `--preview` writes before and after, a JPEG unless -o is a file."""
    if not options.preview:
        return options
    from blurkit.io.formats import is_written

    output = options.output
    named = output is not None and not is_folder(output) and is_written(Path(output))
    if output not in (None, "-") and not named and not is_folder(output):
        raise UsageError(f"-o {output}: --preview writes pictures; name an image or a folder/")
    return replace(options, compare=False, format=options.format or (None if named else "jpg"))
