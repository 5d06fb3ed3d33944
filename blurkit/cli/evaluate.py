"""`blurkit eval`: measure results."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from blurkit.cli.common import refuse_two_streams, run_later, width_and_height
from blurkit.cli.shared import PART, SEED, Device, Networks, Writing
from blurkit.errors import UsageError
from blurkit.options import ANY, option


@dataclass(frozen=True)
class EvaluationOptions(Networks, Device, Writing):
    """The options of `blurkit eval`."""

    reference: str | None = option(
        None, "Folder or shard of sharp images; every input is then a run."
    )
    blurry: str | None = option(None, "Folder of the blurry images, for subsets by their PSNR.")
    image: Literal["restored", "reblurred", "blur", "sharp"] | None = option(
        None, "Image of each record that is measured; else restored, or what there is."
    )
    target: Literal["sharp", "blur"] = option(
        "sharp", "Image of each record that it is compared with."
    )
    ssim: tuple[str, ...] = option(
        ("basicsr", "matlab"),
        "basicsr, matlab, scikit-image or basicsr-y; repeatable.",
        metavar="KIND",
    )
    metric: tuple[str, ...] = option(
        (), "Another score by its name, such as psnr-y or aligned; repeatable.", metavar="NAME"
    )
    y_psnr: bool = option(False, "PSNR of the luma, too: --metric psnr-y.")
    align: bool = option(False, "RealBlur's scores after alignment, too: --metric aligned.")
    lpips: Path | None = option(
        None,
        "LPIPS, too: torchvision's AlexNet, VGG-16 or SqueezeNet 1.1 file; else BLURKIT_LPIPS.",
    )
    lpips_heads: Path | None = option(
        None, "LPIPS's linear layers; else BLURKIT_LPIPS_HEADS.", rare=True
    )
    frequency: bool = option(
        False, "Divergence of the entropies of high and low frequencies at three scales, too."
    )
    patch: int | None = option(
        None,
        "Take squares of so many pixels for --frequency; else whole images.",
        ANY,
        rare=True,
    )
    figure: Path | None = option(
        None,
        "Plot of what --frequency found: a .png, .pdf or .svg (matplotlib).",
        rare=True,
    )
    by_sequence: bool = option(False, "Means of each sequence, too.")
    confidence: float | None = option(
        None, "Intervals of the means at this level, such as 0.95.", ANY
    )
    seed: int = SEED
    checkpoint: str | None = option(
        None, "Networks whose parameters and MACs to print.", flags=("--checkpoint", "-c")
    )
    input_size: str = option(
        "256x256", "Image size in pixels for the MACs.", metavar="WxH", rare=True
    )
    output: tuple[Path, ...] = option(
        (), "A .csv, .json or .md file; repeatable.", flags=("--output", "-o")
    )
    pictures: Path | None = option(
        None, "Folder for pictures side by side; of runs, the worst and best images."
    )
    part: str = PART

    @property
    def metrics(self) -> list[str]:
        """The names of all scores that are asked for beside PSNR and SSIM."""
        named = {"psnr-y": self.y_psnr, "aligned": self.align}
        return [*self.metric, *(name for name, wanted in named.items() if wanted)]


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Shards or - with restored and sharp images; RESTORED/ SHARP/; or runs to compare."
        ),
    ],
    options: EvaluationOptions,
) -> None:
    """Measure PSNR and SSIM against sharp images, and compare runs.

    SSIM comes in several kinds. The default is two: per channel (BasicSR, scikit-image) and
    MATLAB's 3-D one, which the papers' GoPro tables show. Values are rounded to 8 bits first,
    whatever the depth. How every number is made is printed with it.

    Examples: blurkit eval restored.h5; blurkit eval restored/ sharp/; ... | blurkit eval - --json;
    blurkit eval reblurred.h5 --image reblurred --target blur;
    blurkit eval ours/ theirs/ --reference sharp/ --confidence 0.95 -o scores.md
    """
    if options.checkpoint is not None:
        refuse_two_streams(inputs, options.files)
        width_and_height("--input-size", options.input_size)
    elif options.encoder:
        raise UsageError("--encoder goes with --checkpoint")
    if not options.frequency and (options.patch is not None or options.figure is not None):
        raise UsageError("--patch and --figure go with --frequency")

    run_later("evaluate_run", "evaluate_records", inputs, options)
