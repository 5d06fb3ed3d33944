"""`blurkit prepare`: datasets, photos, frames and videos into shards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import CHECKPOINT, PART, SEED, Hardware, Writing
from blurkit.errors import UsageError
from blurkit.options import ANY, option
from blurkit.synthesis.kinds import BlurKind


@dataclass(frozen=True)
class Selection:
    """Which scenes are prepared, and how they are cut."""

    blur: str = option(
        "blur", "Blur folder of the dataset: blur, blur_gamma, train_blur_jpeg...", rare=True
    )
    lists: tuple[Path, ...] = option(
        (), "List file of pairs to take; two for aligned lists.", flags=("--list",)
    )
    unpaired_as: Literal["blur", "sharp"] = option(
        "blur", "What photos without partners are.", flags=("--as",)
    )
    split: str = option("", "Keep one split: train, val or test.")
    validation: float = option(0.0, "Share of training scenes moved to val.", maximum=1)
    limit: int = option(0, "Stop after so many scenes; 0: all.")
    part: str = PART
    crop: int = option(0, "Cut tiles of this side, pixels.")
    crop_stride: int = option(
        0, "Pixels from tile to tile; default --stride, else --crop.", rare=True
    )


@dataclass(frozen=True)
class Frames:
    """How frames are averaged."""

    average: int = option(0, "Make pairs: average so many consecutive frames.", ANY)
    stride: int = option(
        0, "With --average frames, else with --crop pixels, from one to the next.", ANY
    )
    interpolate: int = option(
        0, "With --average: steps from frame to frame, in between by optical flow (OpenCV)."
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
        "Blur sharp photos: the same all over by a shaking hand; by a camera that moves and turns; "
        "by things that move besides; by the lens; or a mixture as in real photos.",
    )
    copies: int = option(1, "Blurred versions of each photo.", 1)
    kernels: tuple[Path, ...] = option(
        (), "Kernel file or folder (.mat .npz .png) to shake with instead."
    )
    kernel_size: tuple[int, int] | None = option(
        None,
        "Smallest and largest blur, pixels.  [default: 9, 41; realistic: 1, 60]",
        ANY,
    )
    scale: tuple[float, float] = option(
        (1.0, 1.0),
        "Resize each photo by a random factor from this range before.",
        ANY,
        rare=True,
    )
    highlights: float | None = option(
        None, "How much brighter than they look saturated pixels are.", 1, rare=True
    )
    noise: float | None = option(
        None, "Standard deviation of the noise, in linear light.", maximum=1, rare=True
    )
    shot: float | None = option(
        None, "Variance of the noise that comes with light, per light.", maximum=1, rare=True
    )
    jpeg: tuple[int, int] | None = option(
        None, "Lowest and highest JPEG quality of the blur.", ANY, rare=True
    )


@dataclass(frozen=True)
class PrepareOptions(Selection, Frames, Drawing, Hardware, Writing):
    """The options of `blurkit prepare`."""

    output: str = option(
        "shards/", "A folder of shards, one shard (.h5) or -.", flags=("--output", "-o")
    )
    gamma: float = option(2.2, "Gamma between pixels and linear light.", rare=True)
    response: Path | None = option(
        None, "Camera response file used instead of the gamma.", rare=True
    )
    transfer_from: tuple[str, ...] = option(
        (), "Blur sharp photos like pairs drawn from this dataset or shard; repeatable."
    )
    checkpoint: str | None = option(
        None, f"With --transfer-from: {CHECKPOINT}", flags=("--checkpoint", "-c")
    )
    sheet: Path | None = option(None, "Contact sheet of the first pairs, an image file.")
    shard_size: int = option(
        512, "Megabytes of images after which a shard is closed.", 1, rare=True
    )
    compress: bool = option(False, "Compress shards: for archives, slower to train on.", rare=True)
    jobs: int = option(0, "Processes; 0: one per processor.")
    seed: int = SEED
    resume: bool = option(False, "Keep whole shards and do what is missing.")

    @property
    def role(self) -> Literal["blur", "sharp"]:
        """What photos without partners are; blur is made of sharp ones."""
        return "sharp" if self.synthesize or self.transfer_from else self.unpaired_as


def prepare(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Datasets, folders, images, videos, shards or - (a stream)."),
    ],
    options: PrepareOptions,
) -> None:
    """Turn datasets, photos and videos into training shards.

    GoPro, REDS, RealBlur, HIDE, RWBI, pair folders and photos are recognised by themselves.

    Examples: blurkit prepare gopro/; blurkit prepare photos/ --synthesize shake;
    blurkit prepare frames/ --average 8 --stride 8;
    blurkit prepare video.mp4 --average 3 --interpolate 8;
    blurkit prepare faces/ --transfer-from shards/ -c kernel.pt -o faces.h5
    """
    options.check(options.output)
    refuse_two_streams(inputs, options.transfer_from, [options.checkpoint])
    _check_blur(options)
    _check_frames(options)

    run_later("prepare_run", "prepare_records", inputs, options)


def _check_blur(options: PrepareOptions) -> None:
    """Raises UsageError for several sources of blur, and for what goes with another one."""
    transfers = bool(options.transfer_from)
    if transfers and (options.synthesize or options.average):
        raise UsageError("one of --transfer-from, --synthesize and --average makes the blur")
    network = options.checkpoint, options.device, options.precision
    if not transfers and network != (None, "auto", "auto"):
        raise UsageError("-c, --device and --precision go with --transfer-from")
    if options.response is not None and not (options.average or options.synthesize):
        raise UsageError("--response goes with --average or --synthesize")
    if not options.synthesize and _drawn(options):
        raise UsageError(
            "--kernels and --kernel-size go with --synthesize; so do --scale, --highlights, "
            "--noise, --shot and --jpeg"
        )
    if options.copies > 1 and not (options.synthesize or transfers):
        raise UsageError("--copies goes with --synthesize or --transfer-from")


def _drawn(options: Drawing) -> bool:
    """Return whether anything is said of how blur is drawn."""
    names = ("kernels", "kernel_size", "scale", "highlights", "noise", "shot", "jpeg")
    return any(getattr(options, name) != getattr(Drawing, name) for name in names)


def _check_frames(options: PrepareOptions) -> None:
    """Raises UsageError for what goes with averaged frames, or tiles."""
    if not options.average and options.interpolate:
        raise UsageError("--interpolate goes with --average")
    if not options.interpolate > 1 and options.agreement != Frames.agreement:
        raise UsageError("--agreement goes with --interpolate")
    if options.stride and not (options.average or options.crop):
        raise UsageError("--stride goes with --average or --crop")
