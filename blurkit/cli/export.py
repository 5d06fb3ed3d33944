"""`blurkit export`: write a network as an ONNX file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_missing, run_later
from blurkit.cli.shared import Printing
from blurkit.errors import UsageError
from blurkit.options import option


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


def export(
    checkpoint: Annotated[str, typer.Argument(help="Trained networks, - for a pipe.")],
    options: ExportOptions,
) -> None:
    """Write a network as an ONNX file, which runs without torch.

    Its results for a photo are compared with torch's before anything is written. It requires
    pip install 'blurkit[onnx]'; running the file does not.

    Examples: blurkit export msdi.pt -o net.onnx; blurkit deblur photo.jpg -c net.onnx
    """
    if options.output.suffix != ".onnx":
        raise UsageError("-o: name an ONNX file to write, such as net.onnx")
    refuse_missing([checkpoint])
    run_later("export_run", "export_network", checkpoint, options)
