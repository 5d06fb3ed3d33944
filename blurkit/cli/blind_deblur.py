"""`blurkit blind-deblur`: deblur by a search for the sharp image and its blur."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.fields import Given
from blurkit.cli.shared import (
    BLUR,
    CHECKPOINT,
    PART,
    SHA256,
    InputPaths,
    Tiling,
    WritingImages,
    at_hand,
    output_option,
)
from blurkit.errors import UsageError
from blurkit.options import ANY, check_strength, option
from blurkit.systems.system import search_options

SearchOptions: Any = search_options()


@dataclass(frozen=True)
class BlindRunOptions(Tiling, WritingImages):
    """The options of `blurkit blind-deblur` that do not belong to the search itself."""

    checkpoint: str | None = option(None, CHECKPOINT, flags=("--checkpoint", "-c"))
    sha256: tuple[str, ...] = SHA256
    output: str | None = output_option(
        "Image, folder/, shard (.h5) or -; default: NAME.deblurred next to each image."
    )
    strength: float = option(1.0, "How much to restore, from 0 (unchanged) to 1 (fully).", ANY)
    generator: tuple[str, ...] = option(
        (), "StyleGAN file for --prior stylegan; two files for version 1."
    )
    features: Path | None = option(None, "Feature network for --objective official.")
    region: str | None = option(
        None,
        "Search this part of each photo; deblur the whole by its kernel.",
        metavar="X,Y,W,H",
    )
    keep_kernel: bool = option(
        False, "Store the blur as attribute `kernel`, and its picture in NAME.blind/."
    )
    save_every: int | None = option(None, "Iterations between saved pictures.")
    save_to: Path | None = option(
        None, "Folder for these pictures; default: NAME.blind/ next to the output.", rare=True
    )
    log: Path | None = option(None, "Log the terms of the objective to this file as JSON lines.")
    resume: bool = option(False, "Keep finished results and continue with the rest.")
    state: Path | None = option(
        None, "State file of a stopped search; default: next to the output.", rare=True
    )
    save_minutes: float = option(10.0, "Minutes between saves of the state.", rare=True)
    blur: str = BLUR
    part: str = PART

    @property
    def rectangle(self) -> tuple[int, int, int, int] | None:
        """Left, top, width and height of `--region`, or None. Raises UsageError for others."""
        if self.region is None:
            return None
        parts = self.region.split(",")
        if len(parts) != 4 or not all(part.strip().isdecimal() for part in parts):
            raise UsageError(f"--region {self.region}: give four numbers of pixels, X,Y,W,H")
        x, y, width, height = map(int, parts)
        if not width or not height:
            raise UsageError(f"--region {self.region}: width and height must be at least 1")
        return x, y, width, height

    def check_with(self, search: Any) -> None:
        """Raise UsageError if options exclude each other, or lack one that they require."""
        if not search.encoded and self.checkpoint is not None:
            raise UsageError(f"--operator {search.operator} takes no checkpoint; leave out -c")
        if search.operator == "downsampling" and self.keep_kernel:
            raise UsageError("--operator downsampling has no kernel to keep")
        if (search.prior == "stylegan") != bool(self.generator):
            raise UsageError("--prior stylegan and --generator FILE require each other")
        if self.rectangle and search.operator == "downsampling":
            raise UsageError("--operator downsampling has no kernel for --region")
        if self.rectangle and self.cut != (None, None):
            raise UsageError("--region is searched without tiles; leave out --tile and --overlap")
        self._check_saving()

    def _check_saving(self) -> None:
        if self.save_to is not None and self.save_every is None and not self.keep_kernel:
            raise UsageError("--save-to requires --save-every or --keep-kernel")
        if self.save_every is not None and self.save_every < 1:
            raise UsageError(f"--save-every {self.save_every}: must be at least 1")
        if self.resume and self.output == "-" and self.state is None:
            raise UsageError("--resume with '-o -' requires the --state FILE of the stopped run")


def blind_deblur(
    inputs: InputPaths,
    run: BlindRunOptions,
    search: Annotated[Given, SearchOptions],
    preset: Annotated[
        str,
        typer.Option(
            metavar=f"<{'|'.join(SearchOptions.presets)}>",
            help="Values of the search's options that are not given.",
        ),
    ] = "small",
) -> None:
    """Deblur by searching for the sharp image and its blur together.

    The search finds an image and a blur that together reproduce the photo (Algorithm 1 of the
    encoded blur kernel space). It takes minutes, requires no network trained to deblur, and keeps
    the size of the photo.

    Examples: blurkit blind-deblur photo.jpg; blurkit blind-deblur photo.jpg --operator convolution
    --region 800,600,256,256; blurkit blind-deblur photos/ -o sharp/ --resume
    """
    run.check(run.output)
    refuse_two_streams(inputs, [run.checkpoint])
    options = SearchOptions.resolve(preset, **search)
    run.check_with(options)
    check_strength(run.strength)

    run = at_hand(run, "checkpoint", "generator")
    run_later("blind_deblur_run", "search_records", inputs, run, options)
