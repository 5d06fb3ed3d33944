"""`blurkit blind-deblur`: search for a photo and its blur."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.fields import Given
from blurkit.cli.shared import BLUR, CHECKPOINT, PART, InputPaths, Tiling, Writing, output_option
from blurkit.errors import UsageError
from blurkit.options import ANY, check_strength, option
from blurkit.systems.system import search_options

SearchOptions: Any = search_options()


@dataclass(frozen=True)
class BlindRunOptions(Tiling, Writing):
    """How searches run over records: the options of `blurkit blind-deblur` beside the search's."""

    checkpoint: str | None = option(None, CHECKPOINT, flags=("--checkpoint", "-c"))
    output: str | None = output_option(
        "An image, a folder/, a shard (.h5) or -; else NAME.deblurred beside each image."
    )
    strength: float = option(1.0, "How much is restored: 0 is the photo as it is, 1 all.", ANY)
    generator: tuple[str, ...] = option(
        (), "StyleGAN for --prior stylegan; of version 1 both its files."
    )
    features: Path | None = option(None, "Feature network for --objective official.")
    keep_kernel: bool = option(False, "Keep the blur as attribute `kernel`.")
    save_every: int | None = option(None, "Save a picture every so many iterations.")
    save_to: Path | None = option(
        None, "Folder for these; else NAME.blind/ beside the output.", rare=True
    )
    log: Path | None = option(None, "File for the objective's terms as JSON lines.")
    resume: bool = option(False, "Keep what is finished and go on with the rest.")
    state: Path | None = option(
        None, "File for a stopped search; else beside the output.", rare=True
    )
    save_minutes: float = option(10.0, "Minutes between saves of it.", rare=True)
    blur: str = BLUR
    part: str = PART

    def check_with(self, search: Any) -> None:
        """Raises UsageError for options that need each other, or exclude each other."""
        if not search.encoded and self.checkpoint is not None:
            raise UsageError(f"--operator {search.operator} takes no checkpoint; leave out -c")
        if search.operator == "downsampling" and self.keep_kernel:
            raise UsageError("--operator downsampling has no kernel to keep")
        if (search.prior == "stylegan") != bool(self.generator):
            raise UsageError("--prior stylegan and --generator FILE go together")
        self._check_saving()

    def _check_saving(self) -> None:
        if self.save_to is not None and self.save_every is None:
            raise UsageError("--save-to goes with --save-every")
        if self.save_every is not None and self.save_every < 1:
            raise UsageError(f"--save-every {self.save_every}: must be at least 1")
        if self.resume and self.output == "-" and self.state is None:
            raise UsageError("--resume with '-o -' needs the --state FILE of the stopped run")


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
    ] = "default",
) -> None:
    """Search for a photo and its blur together.

    Needs no network that was trained to deblur: the picture and its blur are searched for until
    one with the other gives the photo (Algorithm 1 of the encoded blur kernel space). It takes
    minutes, and any size comes back as it went in.

    Examples: blurkit blind-deblur photo.jpg; blurkit blind-deblur photo.jpg --operator convolution;
    blurkit blind-deblur photos/ -o sharp/ --resume
    """
    run.check(run.output)
    refuse_two_streams(inputs, [run.checkpoint])
    options = SearchOptions.resolve(preset, **search)
    run.check_with(options)
    check_strength(run.strength)

    run_later("blind_deblur_run", "search_records", inputs, run, options)
