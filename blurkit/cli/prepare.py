"""`blurkit prepare`: turn datasets, photos, frames and videos into shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import CHECKPOINT, PART, SEED, SHA256, Hardware, Writing, at_hand
from blurkit.errors import UsageError
from blurkit.options import ANY, option
from blurkit.synthesis import BlurKind


@dataclass(frozen=True)
class Selection:
    """Which scenes are prepared, and how they are cut."""

    blur: str = option(
        "blur", "Name of the dataset's blur folder: blur, blur_gamma, train_blur_jpeg...", rare=True
    )
    lists: tuple[Path, ...] = option(
        (), "File that lists the pairs to use; two files for aligned lists.", flags=("--list",)
    )
    unpaired_as: Literal["blur", "sharp"] = option(
        "blur", "Role of photos without partners.", flags=("--as",)
    )
    split: str = option("", "Prepare only this split: train, val or test.")
    validation: float = option(0.0, "Fraction of the training scenes to move to val.", maximum=1)
    limit: int = option(0, "Maximum number of scenes; 0: all.")
    part: str = PART
    crop: int = option(0, "Cut tiles with this side, pixels.")
    crop_stride: int = option(
        0, "Pixels from tile to tile; default: --stride, or else --crop.", rare=True
    )


@dataclass(frozen=True)
class Frames:
    """How frames are averaged."""

    average: int = option(0, "Make pairs by averaging this many consecutive frames.", ANY)
    stride: int = option(
        0, "Step between averages, frames; without --average, between tiles, pixels.", ANY
    )
    interpolate: int = option(
        0, "With --average: steps from frame to frame, interpolated by optical flow (OpenCV)."
    )
    agreement: float = option(
        0.5,
        "With --interpolate: smallest fraction of pixels where the flow is consistent.",
        maximum=1,
        rare=True,
    )


@dataclass(frozen=True)
class Drawing:
    """How blur is drawn."""

    synthesize: BlurKind | None = option(
        None,
        "Blur sharp photos: uniformly by a shaking hand; by a camera that moves and rotates; by "
        "moving objects, too; by the lens; or by a realistic mixture.",
    )
    copies: int = option(1, "Number of blurred versions of each photo.", 1)
    kernels: tuple[Path, ...] = option(
        (), "Kernel file or folder (.mat .npz .png) to use instead of drawn kernels."
    )
    kernel_size: tuple[int, int] | None = option(
        None,
        "Smallest and largest extent of the blur, pixels.  [default: 9, 41; realistic: 1, 60]",
        ANY,
    )
    scale: tuple[float, float] = option(
        (1.0, 1.0),
        "First resize each photo by a random factor in this range.",
        ANY,
        rare=True,
    )
    highlights: float | None = option(
        None, "Factor by which saturated pixels are brighter than their values.", 1, rare=True
    )
    noise: float | None = option(
        None, "Standard deviation of the noise in linear light.", maximum=1, rare=True
    )
    shot: float | None = option(
        None, "Variance of the shot noise per unit of linear light.", maximum=1, rare=True
    )
    jpeg: tuple[int, int] | None = option(
        None, "Lowest and highest JPEG quality of the blurred images.", ANY, rare=True
    )


@dataclass(frozen=True)
class PrepareOptions(Selection, Frames, Drawing, Hardware, Writing):
    """The options of `blurkit prepare`."""

    output: str = option(
        "shards/", "Folder of shards, one shard (.h5) or -.", flags=("--output", "-o")
    )
    gamma: float = option(2.2, "Gamma between pixels and linear light.", rare=True)
    response: Path | None = option(
        None, "Camera response file to use instead of the gamma.", rare=True
    )
    transfer_from: tuple[str, ...] = option(
        (), "Blur sharp photos like pairs drawn from this dataset or shard; repeatable."
    )
    checkpoint: str | None = option(
        None, f"With --transfer-from: {CHECKPOINT}", flags=("--checkpoint", "-c")
    )
    sha256: tuple[str, ...] = SHA256
    sheet: Path | None = option(None, "Image file for a contact sheet of the first pairs.")
    shard_size: int = option(
        512, "Megabytes of images after which a shard is closed.", 1, rare=True
    )
    compress: bool = option(
        False, "Compress the shards, which makes training on them slower.", rare=True
    )
    jobs: int = option(0, "Number of processes; 0: one per processor.")
    seed: int = SEED
    resume: bool = option(False, "Keep complete shards and prepare what is missing.")

    @property
    def role(self) -> Literal["blur", "sharp"]:
        """The role of photos without partners; photos to be blurred are sharp."""
        return "sharp" if self.synthesize or self.transfer_from else self.unpaired_as


def prepare(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Datasets, folders, images, videos, shards or - (a stream)."),
    ],
    options: PrepareOptions,
) -> None:
    """Turn datasets, photos and videos into training shards.

    GoPro, REDS, RealBlur, HIDE, RWBI, pair folders and photos are recognised automatically.

    Examples: blurkit prepare gopro/; blurkit prepare photos/ --synthesize shake;
    blurkit prepare frames/ --average 8 --stride 8;
    blurkit prepare video.mp4 --average 3 --interpolate 8;
    blurkit prepare faces/ --transfer-from shards/ -c kernel.pt -o faces.h5
    """
    options.check(options.output)
    refuse_two_streams(inputs, options.transfer_from, [options.checkpoint])
    _check_blur(options)
    _check_frames(options)

    run_later("prepare_run", "prepare_records", inputs, at_hand(options, "checkpoint"))


def _check_blur(options: PrepareOptions) -> None:
    """Raise UsageError for several sources of blur, or for options that require another one."""
    transfers = bool(options.transfer_from)
    if transfers and (options.synthesize or options.average):
        raise UsageError("--transfer-from excludes --synthesize and --average")
    networks = options.checkpoint, options.device, options.precision
    if not transfers and networks != (None, "auto", "auto"):
        raise UsageError("-c, --device and --precision require --transfer-from")
    if options.response is not None and not (options.average or options.synthesize):
        raise UsageError("--response requires --average or --synthesize")
    if not options.synthesize and _drawn(options):
        raise UsageError(
            "--kernels, --kernel-size, --scale, --highlights, --noise, --shot and --jpeg require "
            "--synthesize"
        )
    if options.copies > 1 and not (options.synthesize or transfers):
        raise UsageError("--copies requires --synthesize or --transfer-from")


def _drawn(options: Drawing) -> bool:
    """Return whether any option about drawing blur was given."""
    names = ("kernels", "kernel_size", "scale", "highlights", "noise", "shot", "jpeg")
    return any(getattr(options, name) != getattr(Drawing, name) for name in names)


def _check_frames(options: PrepareOptions) -> None:
    """Raise UsageError for options that require averaged frames or tiles."""
    if not options.average and options.interpolate:
        raise UsageError("--interpolate requires --average")
    if not options.interpolate > 1 and options.agreement != Frames.agreement:
        raise UsageError("--agreement requires --interpolate")
    if options.stride and not (options.average or options.crop):
        raise UsageError("--stride requires --average or --crop")
