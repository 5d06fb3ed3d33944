"""`blurkit deblur`: remove blur."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from blurkit.cli.common import print_json, refuse_two_streams
from blurkit.cli.options import (
    BLUR,
    NETWORK,
    ImageTask,
    InputPaths,
    Networks,
    Tracked,
    at_hand,
    model_of,
    output_option,
    settled,
)
from blurkit.errors import UsageError, without_secrets
from blurkit.options import ANY, Method, Placement, Protocol, check_strength, choose_method, option
from blurkit.reports.progress import say

if TYPE_CHECKING:
    import numpy as np

    from blurkit.engine.engine import Engine
    from blurkit.io.records import Record
    from blurkit.model import Work
    from blurkit.reports.page import RestorationReport


FOUND = (
    *("sharpness_before", "sharpness_after", "restored_change"),
    *("restored_windows", "restored_believed", "restored_left"),
    *("blur_length", "blur_angle", "blur_trust", "blur_gamma"),
)
"""Attributes of a restoration that --json prints if a record has them."""


@dataclass(frozen=True)
class DeblurOptions(Networks, ImageTask, Tracked):
    """The options of `blurkit deblur`."""

    output: str | None = output_option(
        "Image, film, folder/, shard (.h5) or -; default: NAME.deblurred next to each file."
    )
    method: Method | None = option(
        None,
        "shake: estimate and invert the blur of each part; network: restore any blur; auto: use "
        "whichever should be better for each part.  [auto; network with -c, --encoder, "
        "--protocol, --tile or --overlap]",
    )
    strength: float = option(1.0, "How much to restore, from 0 (unchanged) to 1 (fully).", ANY)
    kernel: Path | None = option(
        None,
        "Invert this uniform blur instead of an estimate (.mat .npz .npy .png).",
        metavar="FILE",
    )
    gamma: float | None = option(
        None, "With --kernel: gamma between pixels and linear light.  [2.2]"
    )
    keep_kernel: bool = option(False, "Store the inverted blur as attribute `kernel`.")
    preview: str = option(
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
    value_range: Literal["auto", "0..1", "0..255", "-1..1"] = option(
        "auto",
        "Pixel values that another program's ONNX file takes; auto: found by trying a photo.",
        rare=True,
    )
    network: str = NETWORK
    blur: str = BLUR

    @property
    def way(self) -> Method:
        """The method: the named one, or else the one that the other options imply."""
        named, known = self.checkpoint is not None, self.kernel is not None
        tiled = self.placement.tiled or self.protocol != "tiles"
        return choose_method(self.method, named, known, tiled or bool(self.encoder))

    @property
    def placement(self) -> Placement:
        """Where and how networks run."""
        return replace(super().placement, protocol=self.protocol)


def deblur(inputs: InputPaths, options: DeblurOptions) -> None:
    """Remove blur from photos, films, folders, datasets and streams.

    Size, depth, transparency and metadata are kept; of films also timing, sound and subtitles. With
    --method shake or auto, -c names a deconvolution network. For a search that takes minutes and
    requires no network trained to deblur, use blurkit blind-deblur.

    Examples: blurkit deblur photo.jpg; blurkit deblur photos/ -o sharp/;
    blurkit deblur film.mp4 -o sharp.mp4;
    blurkit deblur photo.jpg --method shake
    """
    options = settled(options, inputs)
    refuse_two_streams(inputs, options.files)
    _check(options)
    if options.status:
        from blurkit.cli.batch import status_of

        status_of(inputs, options, "deblurred", blur=options.blur)
    only = previewed_frames(options, inputs)
    options = at_hand(options)

    from blurkit.cli.batch import RecordBatch, refuse_hopeless, warn
    from blurkit.data.films import check_film_output
    from blurkit.data.sources import read_records
    from blurkit.io.films import is_film
    from blurkit.reports.page import RestorationReport
    from blurkit.reports.pictures import RESTORED
    from blurkit.tasks.deblur import (
        film_summary,
        is_left,
        kernel_summary,
        restoration_warnings,
        with_sharpness,
    )

    verb = "deblurred" if only is None else "previewed"
    batch = RecordBatch(inputs, options, "deblur", verb)
    kernel = read_one_kernel(options.kernel) if options.kernel is not None else None
    check_film_output(inputs, options.output)
    batch.open(("restored",), RESTORED, only)
    replaced = options.force or options.resume
    page = RestorationReport(options.html, replaced, only) if options.html else None
    refuse_hopeless(inputs, batch.sink, batch, verb, blur=options.blur, reported=bool(page))

    otherwise = options.way == "auto"
    work, engine = deblurring(options, kernel)
    records = read_records(inputs, blur=options.blur, part=batch.part, on_error=batch.add)
    finished = records.drop(batch.sink.is_done)
    batch.already, photos, sharp = len(finished), 0, 0
    shown = page is not None or options.json or options.compare

    def restored(record: Record) -> Record:
        finished = work(record)
        if shown or "film" not in record.attrs:  # of a frame, nothing is shown otherwise
            finished = with_sharpness(finished)
        return finished

    total, lengths = records.total, defaultdict[str, list[float]](list)
    chosen: Iterator[Record] = records
    if only is not None:
        total = len(only) if total is None else len(only[: max(0, total - only.start)])
        chosen = islice(records, only.start, only.stop)
    jobs = ((record, partial(restored, record)) for record in chosen)
    unit = "frame" if all(is_film(Path(text)) for text in inputs) else "image"
    for record in batch.run(batch.remaining(jobs), total, unit):
        if page is not None:
            with batch.guard(str(options.html)):
                page.add(record)
        if "film" in record.attrs and "restored_windows" in record.attrs:
            lengths[record.attrs["film"]].append(record.attrs.get("blur_length", 0.0))
        if "film" not in record.attrs:
            left = otherwise and is_left(record)
            photos, sharp = photos + 1, sharp + left
            found = "" if engine else f"{kernel_summary(record, otherwise)}; "
            before, after = (record.attrs[f"sharpness_{when}"] for when in ("before", "after"))
            line = f"{record.name}: {found}sharpness {before:.2f} -> {after:.2f}"
            say(line, options.quiet or (options.json and not found))
            if not left:
                warn(record.name, restoration_warnings(record), options)
        if options.json:
            _print_record(record, options.strength, engine)
    for name, own in lengths.items():
        say(f"{name}: {film_summary(own)}", options.quiet)
    if sharp:
        what = "were sharp and left as they are" if sharp > 1 else "was sharp and left as it is"
        say(f"{sharp} of {photos} {what}", options.quiet or options.json)
    if page is not None:
        with batch.guard(str(options.html)):
            _write_page(page, batch.finished_before(finished, records, "restored"), options.quiet)
    batch.end()


def _write_page(page: RestorationReport, before: Iterable[Record], quiet: bool) -> None:
    """Write a report that also has the records that were finished before."""
    from blurkit.tasks.deblur import with_sharpness

    for record in before:
        page.add(with_sharpness(record))
    if written := page.write():
        say(f"wrote {written}", quiet)


def _print_record(record: Record, strength: float, engine: Engine | None) -> None:
    """Print what is known of a restored record as a line of JSON."""
    from blurkit.tasks.deblur import restoration_warnings

    attrs = record.attrs
    height, width = record.images["restored"].shape[:2]
    kept = "blur_length" in attrs and "kernel" in attrs
    print_json(
        {"name": record.name, "width": width, "height": height}
        | {"seconds": attrs["restored_seconds"], "strength": strength}
        | {key: attrs[key] for key in FOUND if key in attrs}
        | ({"kernel": attrs["kernel"].tolist()} if kept else {})
        | {"warnings": restoration_warnings(record)}
        | (engine.describe() if engine else {})
    )


def previewed_frames(options: DeblurOptions, inputs: InputPaths) -> range | None:
    """Return the frames that `--preview` names, None without it.

    Raises UsageError if they are no frames, or the input is not one film that has them.
    """
    if not options.preview:
        return None
    from blurkit.io.films import is_film, stated_length

    known = re.fullmatch(r"(\d{1,9}):(\d{1,9})", options.preview, re.ASCII)
    if known is None or int(known[1]) > int(known[2]):
        raise UsageError(f"--preview {options.preview}: give the first and last frame, as 100:124")
    if options.resume or options.status:
        raise UsageError("--preview makes no whole film; leave out --resume and --status")
    if len(inputs) > 1 or not is_film(Path(inputs[0])):
        raise UsageError(f"--preview takes one film, and {inputs[-1]} is not a film alone")
    only, length = range(int(known[1]), int(known[2]) + 1), stated_length(Path(inputs[0]))
    if length is not None and only.start >= length:
        raise UsageError(f"--preview {options.preview}: {inputs[0]} has {length} frames, from 0 on")
    return only


def _check(options: DeblurOptions) -> None:
    """Raise UsageError for options that exclude each other or require others."""
    if options.value_range != "auto" and not without_secrets(options.checkpoint or "").endswith(
        ".onnx"
    ):
        raise UsageError("--value-range requires -c with an ONNX file")
    check_strength(options.strength)
    if options.way == "network" and options.keep_kernel:
        raise UsageError("--keep-kernel requires --method shake or auto, or --kernel")
    if options.gamma is not None and (options.kernel is None or not 0 < options.gamma < 10):
        raise UsageError("--gamma requires --kernel and a value between 0 and 10")


def deblurring(
    options: DeblurOptions, kernel: np.ndarray | None = None
) -> tuple[Work, Engine | None]:
    """Return the function that deblurs records, and the engine if it is a network for any blur.

    Raises BlurkitError for a bad file, and UsageError for options that do not fit it.
    """
    values = None if options.value_range == "auto" else options.value_range
    model = model_of(options, options, None, values, options.network)
    gamma = options.gamma or 2.2
    return model.deblurring(options.way, kernel, gamma, options.strength, options.keep_kernel)


def read_one_kernel(path: Path) -> np.ndarray:
    """Return the kernel (h, w) in a file.

    Raises UsageError if the file holds several kernels, or values below 0.
    """
    from blurkit.synthesis.kernels import read_kernels

    kernels = read_kernels(path)
    if len(kernels) > 1:
        names = ", ".join(name for name, _ in kernels[:3])
        raise UsageError(
            f"--kernel {path}: holds {len(kernels)} kernels ({names}, ...); name a file with one"
        )
    kernel = kernels[0][1]
    if (kernel < 0).any():
        raise UsageError(f"--kernel {path}: holds values below 0, which is not a blur kernel")
    return kernel
