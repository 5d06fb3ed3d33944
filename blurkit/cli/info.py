"""`blurkit info`: describe what files hold."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from blurkit.cli.common import print_json, width_and_height
from blurkit.cli.options import BLUR, SHA256, Printing
from blurkit.data import inventory
from blurkit.errors import BlurkitError, OnError, UsageError, printable
from blurkit.options import option
from blurkit.reports.progress import track
from blurkit.reports.values import outline
from blurkit.tasks.addresses import local_file, refuse_unused

if TYPE_CHECKING:
    from blurkit.cli.batch import Problems
    from blurkit.io.records import Record


@dataclass(frozen=True)
class InfoOptions(Printing):
    """The options of `blurkit info`."""

    size: str = option("256x256", "Image size in pixels for the GMACs of networks.", metavar="WxH")
    verify: bool = option(False, "Also read the pixels of shards and verify their checksums.")
    sha256: tuple[str, ...] = SHA256
    blur: str = BLUR


def info(
    options: InfoOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Checkpoints (files or addresses), shards, streams, images, folders, datasets, or "
            "-; default: the weights that come with blurkit.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Describe checkpoints, shards, streams, images, folders and datasets.

    Of checkpoints it prints each network, its options, parameters and multiply-accumulates, and
    the configuration and provenance; of records, their number, sizes, depths and attributes.

    Without an input, it describes the weights that come with blurkit.

    Examples: blurkit info; blurkit info deblur.pt; blurkit info shards/ photo.jpg; ... -o - |
    blurkit info -
    """
    width, height = width_and_height("--size", options.size)
    files = inputs or []
    if files.count("-") > 1:
        raise UsageError("standard input can be read only once; name '-' once")
    refuse_unused(options.sha256, files)

    describe_inputs(files, (height, width), options)


# ---- The run -------------------------------------------------------------------------------------


def describe_inputs(inputs: list[str], size: tuple[int, int], options: InfoOptions) -> None:
    """Print the description of every input, or of the weights that come with blurkit.

    `size` (height, width) in pixels is the image size for which the costs of networks are counted.
    """
    from blurkit.cli.batch import Problems

    problems = Problems(inputs)
    done = 0
    for text in inputs or [_shipped_file()]:
        with problems.guard(text):
            file = str(local_file(text, options.sha256, options.quiet))
            description = _inspect(file, size, options, problems)
            if description is None:
                continue
            done += 1
            if options.json:
                print_json({"file": text, **description})
            else:
                del description["problems"]  # these are already on standard error
                typer.echo("\n".join([printable(text), *outline(description, indent=2)]))
    problems.finish(done, "inspected")


def _inspect(
    text: str, size: tuple[int, int], options: InfoOptions, problems: Problems
) -> inventory.Description | None:
    """Return what an input holds, None where nothing in it could be read, which is said then."""
    failures: list[str] = []

    def note(where: str, error: BlurkitError) -> None:
        failures.append(str(error))
        problems.add(where, error)

    def watch(records: Iterator[Record]) -> Iterator[Record]:
        return track(records, "info", None, "record", options.quiet)

    try:
        contents = _records(text, options, note, watch) or _networks(text, size)
    except OSError as error:
        raise BlurkitError(f"{text}: cannot be read ({error.strerror})") from error
    return None if failures and not contents["records"] else {**contents, "problems": failures}


def _records(
    text: str, options: InfoOptions, on_error: OnError, watch: inventory.RecordWatch
) -> inventory.Description | None:
    """Return what an input of images or records holds, None for any other.

    Raises BlurkitError if the kind of the input cannot be determined.
    """
    from blurkit.io.films import is_film
    from blurkit.io.formats import is_image, recognise
    from blurkit.io.images import HEAD
    from blurkit.io.shards import SIGNATURE
    from blurkit.io.streams import STDIN, standard_input

    path = Path(text)
    if not text:  # Path would take it for the current folder
        raise BlurkitError("an input has an empty name; give a file, a folder or -")
    if text == "-":
        # A pipe may hold a checkpoint, too. An empty pipe is reported as a bad stream.
        head = cast(BufferedReader, standard_input()).peek(HEAD)
        if recognise(head[:HEAD]):
            return inventory.describe_image_data(standard_input().read(), STDIN)
        if head[:1] in (SIGNATURE[:1], b""):
            return inventory.describe_packed(text, on_error, watch, options.verify)
    elif path.is_dir():
        return inventory.describe_folder(path, on_error, watch, options.blur)
    elif not path.exists():
        raise BlurkitError(f"{text}: no such file or folder")
    elif is_film(path):
        return inventory.describe_film(path)
    elif inventory.holds_records(path):
        return inventory.describe_packed(text, on_error, watch, options.verify)
    elif is_image(path):
        return inventory.describe_image(path)
    return None


def _networks(text: str, size: tuple[int, int]) -> inventory.Description:
    """Return what an ONNX file, a checkpoint or the saved state of a training holds.

    Only the last two need torch.
    """
    if text.endswith(".onnx"):
        from blurkit.engine.onnx_runner import describe_onnx

        return describe_onnx(Path(text))
    from blurkit.io.checkpoints import load_checkpoint
    from blurkit.tasks.inspect import describe_checkpoint, describe_state
    from blurkit.training.state import find_state

    if state := find_state(text):
        return describe_state(state, text, *size)
    return describe_checkpoint(load_checkpoint(text), *size)


def _shipped_file() -> str:
    from blurkit.systems.system import shipped_file

    return str(shipped_file())
