"""`blurkit export`: write a network as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import local_files, print_json
from blurkit.cli.options import SHA256, Printing
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.writing import refuse_existing
from blurkit.options import option
from blurkit.reports.progress import say


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
    refuse_existing(options.output, options.force)
    if find_spec("onnx") is None:
        raise BlurkitError("exporting requires pip install 'blurkit[onnx]'")

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.tasks import export as exporting

    o = options
    about = exporting.export(source, o.output, o.use, o.role, o.half, o.force)
    if options.json:
        sizes = {"tile": about.tile, "minimum": about.minimum, "multiple": about.multiple}
        print_json({"file": str(options.output), "use": about.use, **sizes})
    fixed = about.multiple == about.tile
    takes = f"{about.tile}x{about.tile} only" if fixed else f"multiples of {about.multiple}"
    say(f"wrote {options.output}: {about.use}, images of {takes} pixels", options.quiet)
