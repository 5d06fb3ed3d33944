"""Resumed batches: runs that continue each other have the same options."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from blurkit.cli.shared import Comparable, Filming, Resumable, Writing, WritingImages
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.films import FilmOptions
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.paths import is_folder
from blurkit.io.sinks import Sink
from blurkit.io.writing import keep_first, writing_errors
from blurkit.reports.pictures import Comparing, Panels
from blurkit.reports.progress import say

WITHOUT_EFFECT = (
    "output",
    "quiet",
    "json",
    "force",
    "resume",
    "max_pixels",
    "device",
    "compare",
    "html",
    "sha256",
)
"""Options that do not change results."""


def remember_options(options: Writing, output: str | None, resume: bool) -> None:
    """Keep the options of a resumed run in a hidden file next to its output.

    Nothing is kept for images next to their sources, for streams, and unless `resume`; an output
    that is started over with `--force` forgets its options. Raises UsageError if an earlier run
    had others.
    """
    if output is None or output == "-":
        return
    folder = is_folder(output)
    path = Path(output) / ".options.json" if folder else options_file(Path(output))
    if resume:
        compare_options(path, options, ("part",) if folder else ())
    elif options.force:
        path.unlink(missing_ok=True)


def open_resumable(
    options: Resumable,
    output: str | None,
    show: Sequence[str],
    label: str,
    panels: Panels | None = None,
) -> Sink:
    """Return `open_sink`'s sink for a batch, with what the run to resume has finished.

    With `--compare`, `panels` are shown beside each result.
    """
    files = FileOptions(options.force, options.resume)
    if isinstance(options, WritingImages):
        files = replace(files, format=options.format, quality=options.quality)
    if isinstance(options, Filming):
        films = FilmOptions(options.frames, options.crf, lambda text: say(f"warning: {text}"))
        files = replace(files, films=films)
    sink = open_sink(output, show, label, files)
    if panels is not None and isinstance(options, Comparable) and options.compare:
        sink = Comparing(sink, panels, options.force or options.resume)
    try:
        remember_options(options, output, options.resume)
    except BlurkitError:
        sink.abandon()
        raise
    return sink


def options_file(output: Path) -> Path:
    """Return the file for the options of the runs that made the file `output`."""
    return output.with_name(f".{output.name}.options.json")


def compare_options(path: Path, options: Any, ignored: tuple[str, ...] = (), **more: Any) -> None:
    """Write the options, and `more` values, to `path`, or compare them with those that are there.

    Raises UsageError, naming the first option that differs.
    """
    left_out = {*WITHOUT_EFFECT, *ignored}
    values = {k: v for k, v in (asdict(options) | more).items() if k not in left_out}
    given = json.loads(json.dumps(values, default=str))
    with writing_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        keep_first(path, json.dumps(given))
    try:
        before = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise BlurkitError(f"{path}: damaged; remove it to go on") from error
    for key in given:
        if before.get(key) != given[key]:
            name = key.replace("_", "-")
            raise UsageError(
                f"--resume: {name} was {before.get(key)!r} and is {given[key]!r} now; give the "
                f"options of the run to resume, or remove {path}"
            )
