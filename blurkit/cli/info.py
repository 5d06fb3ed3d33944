"""`blurkit info`: describe what files hold."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from blurkit.cli.common import print_json, width_and_height
from blurkit.cli.options import BLUR, SHA256, Printing
from blurkit.errors import UsageError, printable
from blurkit.options import option
from blurkit.reports.progress import track
from blurkit.reports.values import outline
from blurkit.systems.system import shipped_file
from blurkit.tasks.addresses import local_file, refuse_unused


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

    from blurkit import api  # imports numpy
    from blurkit.cli.batch import Problems

    watch = partial(track, label="info", total=None, unit="record", quiet=options.quiet)
    problems = Problems(files)
    done = 0
    for text in files or [str(shipped_file())]:
        with problems.guard(text):
            description = api.info(
                str(local_file(text, options.sha256, options.quiet)),
                size=(height, width),
                verify=options.verify,
                blur=options.blur,
                on_error=problems.add,
                watch=watch,
            )
            if description["problems"] and not description["records"]:
                continue  # nothing in it could be read, which is said already
            done += 1
            if options.json:
                print_json({"file": text, **description})
            else:
                del description["problems"]  # these are already on standard error
                typer.echo("\n".join([printable(text), *outline(description, indent=2)]))
    problems.finish(done, "inspected")
