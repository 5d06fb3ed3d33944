"""`blurkit info`: describe what files hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from blurkit.cli.common import run_later, width_and_height
from blurkit.cli.shared import BLUR, SHA256, Printing
from blurkit.errors import UsageError
from blurkit.options import option
from blurkit.tasks.addresses import refuse_unused


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

    run_later("info_run", "describe_inputs", files, (height, width), options)
