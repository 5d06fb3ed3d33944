"""`blurkit eval`: measure results."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blurkit.cli.common import (
    Device,
    EncoderFiles,
    Json,
    Part,
    Problems,
    Quiet,
    Seed,
    load_checkpoints,
    print_json,
    refuse_two_streams,
    width_and_height,
)
from blurkit.errors import UsageError

if TYPE_CHECKING:
    from blurkit.data.runs import Runs
    from blurkit.io.records import Record
    from blurkit.metrics.evaluation import NetworkCost
    from blurkit.metrics.lpips import Lpips


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(
            help="Shards or - with restored and sharp images; RESTORED/ SHARP/; or runs to compare."
        ),
    ],
    reference: Annotated[
        str | None,
        typer.Option(help="Folder or shard of sharp images; every input is then a run."),
    ] = None,
    blurry: Annotated[
        str | None, typer.Option(help="Folder of the blurry images, for subsets by their PSNR.")
    ] = None,
    image: Annotated[
        Literal["restored", "reblurred", "blur", "sharp"] | None,
        typer.Option(
            help="Image of each record that is measured; else restored, or what there is.",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        Literal["sharp", "blur"], typer.Option(help="Image of each record that it is held to.")
    ] = "sharp",
    ssim: Annotated[
        list[str],
        typer.Option(
            metavar="KIND", help="basicsr, matlab, scikit-image or basicsr-y; repeatable."
        ),
    ] = ["basicsr", "matlab"],  # noqa: B006 typer copies it
    y_psnr: Annotated[bool, typer.Option("--y-psnr", help="PSNR of the luma, too.")] = False,
    align: Annotated[
        bool, typer.Option("--align", help="RealBlur's scores after alignment, too (OpenCV).")
    ] = False,
    lpips: Annotated[
        Path | None,
        typer.Option(
            help="LPIPS, too: torchvision's AlexNet, VGG-16 or SqueezeNet 1.1 file; else "
            "BLURKIT_LPIPS."
        ),
    ] = None,
    lpips_heads: Annotated[
        Path | None, typer.Option(help="LPIPS's linear layers; else BLURKIT_LPIPS_HEADS.")
    ] = None,
    frequency: Annotated[
        bool,
        typer.Option(
            "--frequency",
            help="Divergence of the entropies of high and low frequencies at three scales, too.",
        ),
    ] = False,
    patch: Annotated[
        int | None,
        typer.Option(help="Take squares of so many pixels for --frequency; else whole images."),
    ] = None,
    figure: Annotated[
        Path | None,
        typer.Option(help="Plot of what --frequency found: a .png, .pdf or .svg (matplotlib)."),
    ] = None,
    by_sequence: Annotated[
        bool, typer.Option("--by-sequence", help="Means of each sequence, too.")
    ] = False,
    confidence: Annotated[
        float | None, typer.Option(help="Intervals of the means at this level, such as 0.95.")
    ] = None,
    seed: Seed = 0,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", "-c", help="Networks whose parameters and MACs to tell."),
    ] = None,
    encoder: EncoderFiles = [],  # noqa: B006 typer copies it
    input_size: Annotated[
        str, typer.Option(metavar="WxH", help="Image size in pixels for the MACs.")
    ] = "256x256",
    output: Annotated[
        list[Path],
        typer.Option("--output", "-o", help="A .csv, .json or .md file; repeatable."),
    ] = [],  # noqa: B006 typer copies it
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures side by side; of runs, the worst and best images."),
    ] = None,
    part: Part = "1/1",
    device: Device = "auto",
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure PSNR and SSIM against sharp images, and compare runs.

    SSIM comes in several kinds. The default is two: per channel (BasicSR, scikit-image) and
    MATLAB's 3-D one, which the papers' GoPro tables show. Values are rounded to 8 bits first,
    whatever the depth. How every number is made is printed with it.

    Examples: blurkit eval restored.h5; blurkit eval restored/ sharp/; ... | blurkit eval - --json;
    blurkit eval reblurred.h5 --image reblurred --target blur;
    blurkit eval ours/ theirs/ --reference sharp/ --confidence 0.95 -o scores.md
    """
    from blurkit.data.sources import parse_part
    from blurkit.metrics.evaluation import ImageScores, make_report
    from blurkit.metrics.frequency import Frequency
    from blurkit.metrics.scores import Measures
    from blurkit.metrics.statistics import Scored, check_level
    from blurkit.reports.frequency_plot import draw_frequency
    from blurkit.reports.pictures import write_comparison
    from blurkit.reports.plots import check_plot
    from blurkit.reports.progress import track
    from blurkit.reports.score_tables import check_report, print_report, write_report

    if checkpoint is not None:
        refuse_two_streams(inputs, [checkpoint, *encoder])
    share = parse_part(part)
    for file in output:
        check_report(file, force)
    if confidence is not None:
        check_level(confidence)
    if not frequency and (patch is not None or figure is not None):
        raise UsageError("--patch and --figure go with --frequency")
    if figure is not None:
        check_plot(figure, force)
    problems = Problems()
    if image is not None or target != "sharp":
        _refuse_sides(inputs, reference, blurry)
    measures = Measures(ssim, y_psnr, align, _lpips(lpips, lpips_heads, device), image, target)
    spectrum = Frequency(measures, patch) if frequency else None
    network = _network(checkpoint, encoder, input_size)
    runs = _runs(inputs, reference, blurry, problems)

    rows: dict[str, list[Scored]] = {run: [] for run in (runs.runs if runs else [""])}
    scenes = runs.part(share) if runs else _records(inputs, share, problems)
    for scene in track(scenes, "eval", None, "record", quiet):
        first = next(iter(scene.values()))
        with problems.guard(first.name):
            scores = {run: measures.score(record) for run, record in scene.items()}
            if spectrum is not None:
                spectrum.add(scene)
            for run, record in scene.items():
                rows[run].append(Scored.of(record, scores[run]))
            if json:
                print_json(ImageScores.of(first.name, scores, measures.ranking).as_dict())
            if pictures is not None and len(scene) == 1:
                write_comparison(pictures, first, force)

    result = make_report(rows, measures, blurry, by_sequence, confidence, seed, network, spectrum)
    if json:
        print_json(result.as_dict(images=False))
    if result.images:
        if not quiet:
            print_report(result)
        for file in output:
            write_report(file, result, force)
        if spectrum is not None and figure is not None:
            draw_frequency(figure, spectrum.curves(), result.frequency or [])
        if pictures is not None and runs and (found := result.comparison):
            for name in dict.fromkeys(case.name for case in [*found.worst, *found.best]):
                with problems.guard(name):
                    record = runs.side_by_side(name)
                    write_comparison(pictures, record, force, tuple(record.images))
    problems.finish(len(result.images), "evaluated")


def _refuse_sides(inputs: list[str], reference: str | None, blurry: str | None) -> None:
    """Raises UsageError where restored and sharp images are named apart."""
    from blurkit.data.pairs import are_two_sides

    if reference is not None or blurry is not None or are_two_sides(inputs):
        raise UsageError(
            "--image and --target choose among the images of records; here restored and sharp ones "
            "are named apart"
        )


def _runs(
    inputs: list[str], reference: str | None, blurry: str | None, problems: Problems
) -> Runs | None:
    """The inputs paired by name with the images of `--reference` and `--blurry`, if these are."""
    if reference is None and blurry is None:
        return None
    from blurkit.data.pairs import are_two_sides
    from blurkit.data.runs import Runs

    if reference is None:
        if not (are_two_sides(inputs) and Path(inputs[0]).is_dir()):
            raise UsageError("--blurry goes with two folders RESTORED/ SHARP/, or --reference")
        inputs, reference = inputs[:1], inputs[1]
    return Runs(inputs, reference, blurry, problems.add)


def _records(
    inputs: list[str], share: tuple[int, int], problems: Problems
) -> Iterator[dict[str, Record]]:
    """The records of the inputs, each as the one run there is."""
    from blurkit.data.pairs import are_two_sides, read_two_sides
    from blurkit.data.sources import read_records

    if are_two_sides(inputs):
        records = read_two_sides(inputs[0], inputs[1], part=share, on_error=problems.add)
    else:
        records = read_records(inputs, part=share, on_error=problems.add)
    return ({"": record} for record in records)


def _lpips(features: Path | None, heads: Path | None, device: str) -> Lpips | None:
    """LPIPS where an option or the environment asks for it."""
    if not (features or heads or os.environ.get("BLURKIT_LPIPS")):
        return None
    from blurkit.engine.device import choose_device
    from blurkit.metrics.lpips import load_lpips

    return load_lpips(features, heads, choose_device(device))


def _network(checkpoint: str | None, encoder: list[str], size: str) -> NetworkCost | None:
    """Name, parameters and GMACs of the deblurring network in a checkpoint."""
    if checkpoint is None:
        if encoder:
            raise UsageError("--encoder goes with --checkpoint")
        return None
    width, height = width_and_height("--input-size", size)
    from blurkit.metrics.complexity import macs, parameters
    from blurkit.metrics.evaluation import NetworkCost
    from blurkit.nn.size import SizeRequirement
    from blurkit.tasks.deblur import deblurring_network

    network = deblurring_network(*load_checkpoints(checkpoint, encoder))
    name, shape = type(network).__name__, (height, width)
    needs: SizeRequirement = getattr(network, "size", SizeRequirement())
    if needs.padded(*shape) != shape:
        raise UsageError(
            f"--input-size {size}: {name} takes sides that are multiples of {needs.multiple}, "
            f"{needs.minimum} pixels or more"
        )
    gmacs = macs(network, (1, 3, *shape)) / 1e9
    return NetworkCost(name, parameters(network), gmacs, size)
