"""`blurkit interpolate`: generate frames between sharp and blurry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import Networks, Resumable, Tiling, at_hand, output_option
from blurkit.options import ANY, option


@dataclass(frozen=True)
class InterpolateOptions(Networks, Tiling, Resumable):
    """The options of `blurkit interpolate`."""

    output: str | None = output_option(
        "Folder/ for frames, animation (.gif .png .webp), shard (.h5) or -; default: "
        "BLURRY.interpolated-N next to the image."
    )
    steps: int = option(7, "Number of frames.", 1)
    first: float = option(
        0.0, "Amount of blur in the first frame; 0: the sharp image's.", ANY, flags=("--from",)
    )
    last: float = option(
        1.0, "Amount of blur in the last frame; 1: the blurry image's.", ANY, flags=("--to",)
    )
    deblur: bool = option(False, "Restore the blurry image instead of blurring the sharp one.")
    spherical: bool = option(False, "Interpolate spherically instead of linearly.")
    sheet: str | None = option(
        None, "Contact sheet of the frames: an image, or a folder/ for many pairs."
    )
    fps: float = option(4.0, "Frames per second of an animation.", 0.1, maximum=100)


def interpolate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="BLURRY SHARP",
            help="Two images or folders; or datasets, shards or - with both images.",
        ),
    ],
    options: InterpolateOptions,
) -> None:
    """Generate frames between a sharp photo and its blurry version.

    The degradations of both are mixed, and the sharp image is blurred with each mixture. Amounts
    below 0 and above 1 extrapolate. The gradient energy of every frame is measured.

    Examples: blurkit interpolate blurry.png sharp.png --steps 7 -o blur.gif;
    blurkit interpolate shards/test-*.h5 --sheet sheets/ -o frames/
    """
    options.check(options.output)
    refuse_two_streams(inputs, options.files)

    run_later("interpolate_run", "interpolate_records", inputs, at_hand(options))
