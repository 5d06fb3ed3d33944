"""`blurkit info` and `blurkit export`: what files hold, and a network as an ONNX file."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from blurkit.cli.common import local_files, print_json, width_and_height
from blurkit.cli.options import BLUR, NETWORK, SHA256, Printing
from blurkit.errors import BlurkitError, UsageError, printable, without_secrets
from blurkit.io.writing import refuse_output
from blurkit.options import option, rare
from blurkit.reports.progress import say, track
from blurkit.reports.values import outline
from blurkit.systems.system import shipped_file
from blurkit.tasks.addresses import local_file, refuse_unused


@dataclass(frozen=True)
class InfoOptions(Printing):
    """The options of `blurkit info`."""

    size: str = option("256x256", "Image size in pixels for the GMACs of networks.", metavar="WxH")
    verify: bool = option(
        False, "Also read all pixels, which detects damage, and verify checksums."
    )
    sha256: tuple[str, ...] = SHA256
    blur: str = BLUR
    figure: Path | None = option(
        None, "Plot the training logs over their steps: a .png, .pdf or .svg file (matplotlib)."
    )
    force: bool = option(False, "Overwrite an existing figure.")
    card: bool = rare(False, "Print checkpoints as model cards of the Hugging Face Hub.")
    system: bool = option(False, "Print versions and devices, for reports of problems.")


def info(
    options: InfoOptions,
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            help="Checkpoints (files or addresses), shards, streams, images, folders, datasets, "
            "logs of trainings, or -; default: the weights that come with blurkit.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Describe checkpoints, shards, streams, images, folders, datasets and logs.

    Of checkpoints it prints each network, its options, parameters and multiply-accumulates, and
    the configuration and provenance; of records, their number, sizes, depths and attributes. Of a
    log, or each log in a folder, it prints losses, validation and learning rates; --figure plots
    those of several runs.

    Without an input, it describes the weights that come with blurkit; with --system, what it runs
    on.

    Examples: blurkit info; blurkit info deblur.pt; blurkit info shards/ photo.jpg; ... -o - |
    blurkit info -; blurkit info runs/ --figure curves.png
    """
    width, height = width_and_height("--size", options.size)
    files = [name for text in inputs or [] for name in _logs_in(text) or [text]]
    if files.count("-") > 1:
        raise UsageError("standard input can be read only once; name '-' once")
    refuse_unused(options.sha256, files)
    figure = options.figure
    if figure is not None and not any(text.endswith(".jsonl") for text in files):
        raise UsageError("--figure plots logs of trainings: name them, or their folder")
    if options.system:
        _print_system(options, inputs or [])
        return

    from blurkit import api  # imports numpy
    from blurkit.cli.batch import Problems
    from blurkit.reports.plots import check_plot, draw_logs

    if figure is not None:
        check_plot(figure, options.force)
    logs: list[Path] = []
    watch = partial(track, label="info", total=None, unit="record", quiet=options.quiet)
    problems, done = Problems(files), 0
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
            if options.card:
                _print_card(description, text, options.json)
            elif options.json:
                print_json({"file": told, **description})
            else:
                del description["problems"]  # these are already on standard error
                typer.echo("\n".join([printable(told), *outline(description, indent=2)]))
            done += 1
            logs += [Path(text)] if description["kind"] == "log" else []
    if figure is not None and logs:
        with problems.guard(str(figure)):
            draw_logs(figure, logs)
            say(f"wrote {figure}", options.quiet)
    problems.finish(done, "inspected")


def _print_system(options: InfoOptions, inputs: Sequence[str]) -> None:
    if inputs or options.card:
        raise UsageError("--system describes this machine: name no files, and no --card")
    from blurkit.tasks.inspect import system_report  # imports torch

    report = system_report()
    if options.json:
        print_json(report)
    else:
        typer.echo("\n".join(outline(report)))


def _print_card(description: Mapping[str, Any], text: str, as_json: bool) -> None:
    """Print the model card of a checkpoint. Raises BlurkitError for any other file."""
    file, shipped = Path(without_secrets(text)), shipped_file().parent
    if description["kind"] != "checkpoint":
        raise BlurkitError(
            f"{file}: --card is for checkpoints; this is of the kind {description['kind']!r}"
        )
    from blurkit.tasks.inspect import model_card  # imports torch, as reading the file did

    licence = "mit" if file.absolute().parent == shipped else "other"
    card = model_card(description, file.name, licence)
    if as_json:
        print_json({"file": str(file), "card": card})
    else:
        typer.echo(card)


def _logs_in(text: str) -> list[str]:
    with suppress(OSError):  # whoever reads the folder reports it
        return [str(log) for log in sorted(Path(text).glob("*.log.jsonl"))] if text else []
    return []


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
    program: Literal["", "darktable"] = rare(
        "",
        "Write a package for this program, net.dtmodel: darktable takes tiles of 768x768 pixels.",
        flags=("--for",),
        metavar="darktable",
    )
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
    if options.program and (options.role or options.use != "deblurring"):
        raise UsageError("--for darktable is for the network that deblurs: no --role, no --use")
    kind, suffix = ("a package", ".dtmodel") if options.program else ("an ONNX file", ".onnx")
    if options.output.suffix != suffix:
        raise UsageError(f"-o: name {kind} to write, such as net{suffix}")
    source = local_files({"checkpoint": checkpoint}, options.sha256, options.quiet)["checkpoint"]
    refuse_output(options.output, options.force)
    if find_spec("onnx") is None:
        raise BlurkitError("exporting requires pip install 'blurkit[onnx]'")

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.tasks import export as exporting

    o = options
    about = exporting.export(source, o.output, o.use, o.role, o.half, o.force, o.network, o.program)
    if options.json:
        sizes = {"tile": about.tile, "minimum": about.minimum, "multiple": about.multiple}
        print_json({"file": str(options.output), "use": about.use, **sizes})
    fixed = about.multiple == about.tile
    takes = f"{about.tile}x{about.tile} only" if fixed else f"multiples of {about.multiple}"
    say(f"wrote {options.output}: {about.use}, images of {takes} pixels", options.quiet)
