"""`blurkit info` and `blurkit export`: what files hold, and a network as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import local_files, print_json, width_and_height
from blurkit.cli.options import BLUR, NETWORK, SHA256, Printing
from blurkit.errors import BlurkitError, UsageError, printable, without_secrets
from blurkit.io.writing import refuse_output
from blurkit.options import option
from blurkit.reports.progress import say, track
from blurkit.reports.values import outline
from blurkit.systems.system import shipped_file
from blurkit.tasks.addresses import local_file, refuse_unused


@dataclass(frozen=True)
class InfoOptions(Printing):
    """The options of `blurkit info`."""

    size: str = option("256x256", "Image size in pixels for the GMACs of networks.", metavar="WxH")
    verify: bool = option(False, "Also decode all pixels of shards and films, verify checksums.")
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
        told = without_secrets(text)
        with problems.guard(told):
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
                print_json({"file": told, **description})
            else:
                del description["problems"]  # these are already on standard error
                typer.echo("\n".join([printable(told), *outline(description, indent=2)]))
    problems.finish(done, "inspected")


# ---- A network as an ONNX file -------------------------------------------------------------------


@dataclass(frozen=True)
class ExportOptions(Printing):
    """The options of `blurkit export`."""

    output: Path = option(
        Path(), "ONNX file to write, such as net.onnx.", flags=("--output", "-o"), metavar="FILE"
    )
    use: Literal["deblurring", "reblurring"] = option(
        "deblurring", "Export the network that deblurs, or the one that reblurs like a guide."
    )
    role: str = option("", "Export this network as it is, with all its outputs; see info.")
    network: str = NETWORK
    half: bool = option(False, "Store weights in 16 bits; computing stays in float32.")
    force: bool = option(False, "Overwrite existing output.")
    sha256: tuple[str, ...] = SHA256


def export(
    checkpoint: Annotated[str, typer.Argument(help="Trained networks: a file, an address or -.")],
    options: ExportOptions,
) -> None:
    """Write a network as an ONNX file, which runs without torch.

    Its results for a photo are compared with torch's before anything is written. It requires
    pip install 'blurkit[onnx]'; running the file does not.

    Examples: blurkit export msdi.pt -o net.onnx; blurkit deblur photo.jpg -c net.onnx
    """
    if options.output.suffix != ".onnx":
        raise UsageError("-o: name an ONNX file to write, such as net.onnx")
    source = local_files({"checkpoint": checkpoint}, options.sha256, options.quiet)["checkpoint"]
    refuse_output(options.output, options.force)
    if find_spec("onnx") is None:
        raise BlurkitError("exporting requires pip install 'blurkit[onnx]'")

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.tasks import export as exporting

    o = options
    about = exporting.export(source, o.output, o.use, o.role, o.half, o.force, o.network)
    if options.json:
        sizes = {"tile": about.tile, "minimum": about.minimum, "multiple": about.multiple}
        print_json({"file": str(options.output), "use": about.use, **sizes})
    fixed = about.multiple == about.tile
    takes = f"{about.tile}x{about.tile} only" if fixed else f"multiples of {about.multiple}"
    say(f"wrote {options.output}: {about.use}, images of {takes} pixels", options.quiet)
