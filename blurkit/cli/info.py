"""`blurkit info`: say what a file holds."""

from __future__ import annotations

from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from blurkit.cli.common import Json, Problems, Quiet, print_json, width_and_height

if TYPE_CHECKING:
    from blurkit.data.inventory import RecordWatch
    from blurkit.errors import OnError
    from blurkit.io.records import Record


def info(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Checkpoints, shards, streams, images, folders, datasets, or -; else the weights "
            "that come with blurkit.",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Image size that networks' GMACs are told for.")
    ] = "256x256",
    blur: Annotated[str, typer.Option(help="Blur folder of a dataset: blur, blur_gamma.")] = "blur",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what checkpoints, shards, streams, images, folders and datasets hold.

    Checkpoints: each network, its options, parameters and multiply-accumulates, configuration and
    provenance. Records: how many, and the sizes, depths and attributes they have.

    Without an input it tells of the weights that come with blurkit, and what they were trained on.

    Examples: blurkit info; blurkit info deblur.pt; blurkit info shards/ photo.jpg; ... -o - |
    blurkit info -
    """
    from blurkit.errors import BlurkitError, UsageError
    from blurkit.reports.outline import outline, printable
    from blurkit.reports.progress import track

    width, height = width_and_height("--size", size)
    if not inputs:
        from blurkit.systems.shipped import shipped_file

        inputs = [str(shipped_file())]
    if inputs.count("-") > 1:
        raise UsageError("standard input can be read once; name '-' once")
    problems = Problems()

    def watch(records: Iterator[Record]) -> Iterator[Record]:
        return track(records, "info", None, "record", quiet)

    def inspect(text: str) -> dict[str, Any] | None:
        told: list[str] = []

        def note(where: str, error: BlurkitError) -> None:
            told.append(str(error))
            problems.add(where, error)

        try:
            found = _describe(text, (height, width), blur, note, watch)
        except OSError as error:
            raise BlurkitError(f"{text}: cannot be read ({error.strerror})") from error
        # When nothing in it could be read, that is said already.
        return None if told and not found["records"] else {**found, "problems": told}

    done = 0
    for text in inputs:
        with problems.guard(text):
            found = inspect(text)
            if found is None:
                continue
            done += 1
            if json:
                print_json({"file": text, **found})
            else:
                del found["problems"]  # they went to standard error
                typer.echo("\n".join([printable(text), *outline(found, indent=2)]))
    problems.finish(done, "inspected")


def _describe(
    text: str, size: tuple[int, int], blur: str, on_error: OnError, watch: RecordWatch
) -> dict[str, Any]:
    """What one input holds. Raises BlurkitError when it cannot be told at all."""
    from blurkit.data import inventory
    from blurkit.errors import BlurkitError
    from blurkit.io.images import is_image
    from blurkit.io.shards import SIGNATURE
    from blurkit.io.streams import standard_input

    path = Path(text)
    if not text:  # not the current folder, as Path takes it
        raise BlurkitError("an input is empty text; name a file, a folder or -")
    if text == "-":
        # A checkpoint may come through a pipe too; nothing, as from a broken pipe, is no stream.
        if cast(BufferedReader, standard_input()).peek(1)[:1] in (SIGNATURE[:1], b""):
            return inventory.describe_packed(text, on_error, watch)
    elif path.is_dir():
        return inventory.describe_folder(path, on_error, watch, blur)
    elif not path.exists():
        raise BlurkitError(f"{text}: no such file or folder")
    elif inventory.holds_records(path):
        return inventory.describe_packed(text, on_error, watch)
    elif is_image(path):
        return inventory.describe_image(path)
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.tasks.inspect import describe_checkpoint

    return describe_checkpoint(load_checkpoint(text), *size)
