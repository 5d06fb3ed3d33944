"""`blurkit deblur`: remove blur."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import BLUR, PART, InputPaths, Networks, Tiling, Writing, output_option
from blurkit.errors import UsageError
from blurkit.options import ANY, check_strength, option
from blurkit.tasks.methods import Method, choose_method


@dataclass(frozen=True)
class DeblurOptions(Networks, Tiling, Writing):
    """The options of `blurkit deblur`."""

    output: str | None = output_option(
        "An image, a folder/, a shard (.h5) or -; else NAME.deblurred beside each image."
    )
    method: Method | None = option(
        None,
        "shake: estimate the blur of each part and undo it; network: one that restores any blur; "
        "auto: of both, part by part, what should be better.  [auto; network with -c, --encoder, "
        "--protocol, --tile or --overlap]",
    )
    strength: float = option(1.0, "How much is restored: 0 is the photo as it is, 1 all.", ANY)
    kernel: Path | None = option(
        None,
        "Undo this blur, the same all over: a kernel (.mat .npz .npy .png).",
        metavar="FILE",
    )
    gamma: float | None = option(
        None, "With --kernel: gamma from pixels to the light it blurred.  [2.2]"
    )
    keep_kernel: bool = option(False, "Keep the blur that was undone as attribute `kernel`.")
    protocol: Literal["tiles", "slices", "whole", "local"] = option(
        "tiles",
        "How papers measured, in float32: slices (MSDI-Net), whole images, or those with local "
        "statistics (MSFS-Net-Local).",
    )
    blur: str = BLUR
    part: str = PART

    @property
    def way(self) -> Method:
        """The method, chosen by the other options where it is not named."""
        tiled = self.protocol != "tiles" or self.tile != "auto" or self.overlap is not None
        named, known = self.checkpoint is not None, self.kernel is not None
        return choose_method(self.method, named, known, tiled or bool(self.encoder))


def deblur(inputs: InputPaths, options: DeblurOptions) -> None:
    """Remove blur from photos, folders, datasets, streams.

    Any size and depth comes back as it went in, with its transparency and metadata. With --method
    shake or auto -c names a deconvolution network. To search for the blur of a photo in minutes,
    with networks that were never trained to deblur, use blurkit blind-deblur.

    Examples: blurkit deblur photo.jpg; blurkit deblur photos/ -o sharp/;
    blurkit deblur photo.jpg --method shake
    """
    options.check(options.output)
    refuse_two_streams(inputs, options.files)
    _check(options)

    run_later("deblur_run", "deblur_records", inputs, options)


def _check(options: DeblurOptions) -> None:
    """Raises UsageError for options that exclude each other."""
    check_strength(options.strength)
    if options.way == "network" and options.keep_kernel:
        raise UsageError("--keep-kernel goes with --method shake or auto, and with --kernel")
    if options.gamma is not None and (options.kernel is None or not 0 < options.gamma < 10):
        raise UsageError("--gamma goes with --kernel, from 0 to 10")
