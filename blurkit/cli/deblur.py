"""`blurkit deblur`: remove blur."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from blurkit.cli.common import refuse_two_streams, run_later
from blurkit.cli.shared import (
    BLUR,
    Comparable,
    Filming,
    InputPaths,
    Networks,
    Resumable,
    Tiling,
    at_hand,
    output_option,
)
from blurkit.errors import UsageError
from blurkit.options import ANY, Method, check_strength, choose_method, option


@dataclass(frozen=True)
class DeblurOptions(Networks, Tiling, Comparable, Resumable, Filming):
    """The options of `blurkit deblur`."""

    output: str | None = output_option(
        "Image, film, folder/, shard (.h5) or -; default: NAME.deblurred next to each file."
    )
    method: Method | None = option(
        None,
        "shake: estimate and invert the blur of each part; network: restore any blur; auto: use "
        "whichever should be better for each part.  [auto; network with -c, --encoder, "
        "--protocol, --tile or --overlap]",
    )
    strength: float = option(1.0, "How much to restore, from 0 (unchanged) to 1 (fully).", ANY)
    kernel: Path | None = option(
        None,
        "Invert this uniform blur instead of an estimate (.mat .npz .npy .png).",
        metavar="FILE",
    )
    gamma: float | None = option(
        None, "With --kernel: gamma between pixels and linear light.  [2.2]"
    )
    keep_kernel: bool = option(False, "Store the inverted blur as attribute `kernel`.")
    html: Path | None = option(
        None, "Folder for a report with pictures, to open in a browser.", metavar="FOLDER"
    )
    protocol: Literal["tiles", "slices", "whole", "local"] = option(
        "tiles",
        "Tiles, or a paper's protocol in float32: slices (MSDI-Net), whole images, or whole images "
        "with local statistics (MSFS-Net-Local).",
    )
    value_range: Literal["auto", "0..1", "0..255", "-1..1"] = option(
        "auto",
        "Pixel values that another program's ONNX file takes; auto: found by trying a photo.",
        rare=True,
    )
    blur: str = BLUR

    @property
    def way(self) -> Method:
        """The method: the named one, or else the one that the other options imply."""
        tiled = self.protocol != "tiles" or self.tile != "auto" or self.overlap is not None
        named, known = self.checkpoint is not None, self.kernel is not None
        return choose_method(self.method, named, known, tiled or bool(self.encoder))


def deblur(inputs: InputPaths, options: DeblurOptions) -> None:
    """Remove blur from photos, films, folders, datasets and streams.

    Size, depth, transparency and metadata are kept; of films also timing, sound and subtitles. With
    --method shake or auto, -c names a deconvolution network. For a search that takes minutes and
    requires no network trained to deblur, use blurkit blind-deblur.

    Examples: blurkit deblur photo.jpg; blurkit deblur photos/ -o sharp/;
    blurkit deblur film.mp4 -o sharp.mp4;
    blurkit deblur photo.jpg --method shake
    """
    options.check(options.output)
    options.check_films(options.output)
    refuse_two_streams(inputs, options.files)
    _check(options)

    run_later("deblur_run", "deblur_records", inputs, at_hand(options))


def _check(options: DeblurOptions) -> None:
    """Raise UsageError if options exclude each other, or lack one that they require."""
    file = urlsplit(options.checkpoint or "").path  # without the query of an address
    if options.value_range != "auto" and not file.endswith(".onnx"):
        raise UsageError("--value-range requires -c with an ONNX file")
    check_strength(options.strength)
    if options.way == "network" and options.keep_kernel:
        raise UsageError("--keep-kernel requires --method shake or auto, or --kernel")
    if options.gamma is not None and (options.kernel is None or not 0 < options.gamma < 10):
        raise UsageError("--gamma requires --kernel and a value between 0 and 10")
