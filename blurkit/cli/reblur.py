"""`blurkit reblur`: put the blur of another picture, of a kernel, or a new one onto photos."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from blurkit.cli.common import (
    CheckpointFile,
    Device,
    EncoderFiles,
    Force,
    Json,
    Overlap,
    Precision,
    Problems,
    Quiet,
    Seed,
    System,
    Tile,
    load_checkpoints,
    print_json,
    refuse_json_and_stream,
    refuse_two_streams,
    run_jobs,
    start_engine,
    tile_side,
)
from blurkit.errors import UsageError
from blurkit.systems.system import providers

if TYPE_CHECKING:
    from blurkit.cli.reblur_jobs import Job
    from blurkit.engine.engine import Engine
    from blurkit.io.sinks import Sink
    from blurkit.systems.system import Use


def reblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Sharp images, folders, datasets, shards or - (a stream).")
    ],
    checkpoint: CheckpointFile = None,
    system: System = None,
    like: Annotated[
        list[str] | None,
        typer.Option(
            help="Blurry image to take the blur from; a folder, shard or several: one per input.",
            show_default=False,
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Kernel (.mat .npz .npy .png), or shard or - with the kernels or codes of deblur "
            "--blind --keep-kernel: one for all inputs, or one per input.",
            show_default=False,
        ),
    ] = None,
    random: Annotated[
        bool, typer.Option("--random", help="Draw new blurs from a variational kernel space.")
    ] = False,
    noise: Annotated[
        bool, typer.Option("--noise", help="Draw new blurs from a BGAN, which -c names.")
    ] = False,
    search: Annotated[
        bool,
        typer.Option(
            "--search",
            help="Search for the code of each record's own blur, in place of what G says of it.",
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            help="An image, a folder/, a shard (.h5) or -; else NAME.reblurred beside each image.",
            show_default=False,
        ),
    ] = None,
    shuffle: Annotated[
        bool,
        typer.Option(
            "--shuffle", help="Draw who gets whose blur; without --like, a blur-swapped data set."
        ),
    ] = False,
    pairs: Annotated[
        bool,
        typer.Option(
            "--pairs",
            help="Write pairs to train on, the result as blur; --shuffle alone does, too.",
        ),
    ] = False,
    copies: Annotated[
        int, typer.Option(min=1, help="With --random and --noise: blurred versions of each photo.")
    ] = 1,
    random_scale: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Standard deviation of what is drawn; default 1.2 with --random, as in the "
            "released code, and 1 with --noise.",
            show_default=False,
        ),
    ] = None,
    gamma: Annotated[
        float | None,
        typer.Option(
            help="With --kernel: gamma between pixels and the light that a kernel blurs; default 1."
        ),
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(help="With --search: steps; default 200.", show_default=False),
    ] = None,
    kernel_rate: Annotated[
        float | None,
        typer.Option(help="With --search: learning rate; default 0.0005.", show_default=False),
    ] = None,
    seed: Seed = 0,
    encoder: EncoderFiles = [],  # noqa: B006
    tile: Tile = "auto",
    overlap: Overlap = None,
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Blur sharp photos like other photos, by a kernel, or at random.

    For the blur kernel space --like names pairs of a sharp and a blurry image, or shards of them.
    Without --like, records that hold both reblur themselves, and it is measured how near that comes
    to their own blur; with --shuffle they exchange blurs, and the output is a data set of pairs to
    train on (a folder gets shards). Of --copies it is measured how much they differ.

    Examples: blurkit reblur sharp.png --like blurry.png;
    blurkit reblur shards/train-*.h5 --shuffle -o swapped/; blurkit reblur photos/ --random;
    blurkit reblur photos/ --noise -c bgan.pt --copies 4 --pairs -o pairs/;
    blurkit reblur pairs.h5 --search
    """
    refuse_json_and_stream(json, output)
    refuse_two_streams(inputs, like or [], [kernel, checkpoint, *encoder])
    side = tile_side(tile)
    if bool(like) + (kernel is not None) + random + noise + search > 1:
        raise UsageError("one of --like, --kernel, --random, --noise and --search says which blur")
    if kernel is not None or random or noise or search:
        if shuffle or encoder:
            raise UsageError("--shuffle and --encoder go with --like")
        codes = [one.name for one in providers("coding").values()]
        if system is not None and system not in codes:
            raise UsageError(f"--system {system} goes with --like")
        if noise and (checkpoint is None or system is not None):
            raise UsageError(
                "--noise takes a BGAN that -c names, without --system; none comes with blurkit"
            )
    if not (random or noise) and (copies > 1 or random_scale is not None):
        raise UsageError("--copies and --random-scale go with --random and --noise")
    if search and (side, overlap) != (None, None):
        raise UsageError("--search takes photos whole, without --tile and --overlap")
    if not search and (iterations, kernel_rate) != (None, None):
        raise UsageError("--iterations and --kernel-rate go with --search")
    if kernel is None and gamma is not None:
        raise UsageError("--gamma goes with --kernel")
    swap = pairs or (shuffle and not like)
    sink = _open(output, pairs, swap, force)
    problems = Problems()

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.cli import reblur_jobs as work
    from blurkit.data.blurs import read_blurs
    from blurkit.metrics.diversity import Diversity
    from blurkit.metrics.statistics import Scored, mean_scores
    from blurkit.tasks.reblur import SCORES, apply_kernel, random_blur

    def start(use: Use) -> tuple[Engine, str]:
        loaded = load_checkpoints(checkpoint, encoder, quiet, system, use)
        engine = start_engine(use, loaded, side, overlap, device, precision, system=system)
        return engine, loaded[0].name

    engine: Engine | None = None
    jobs: Iterator[Job]
    if kernel is not None:
        blurs, name = read_blurs(kernel), ""
        if any(blur.ndim != 2 for _, blur in blurs):
            engine, name = start("coding")
        elif checkpoint is not None:
            raise UsageError(f"--kernel {kernel}: a convolution, which takes no checkpoint")
        light = 1.0 if gamma is None else gamma
        blur = partial(apply_kernel, engine=engine, checkpoint=name, gamma=light)
        jobs = work.kernel_jobs(inputs, blurs, blur, problems)
    elif random or noise:
        engine, name = start("noise" if noise else "random")
        draw = partial(random_blur, engine=engine, checkpoint=name, seed=seed, scale=random_scale)
        jobs = work.drawn_jobs(inputs, copies, draw, problems)
    elif search:
        found = (checkpoint, iterations, kernel_rate, seed, device, precision, quiet)
        jobs = work.search_jobs(inputs, work.retrieval(*found), problems)
    else:
        engine, name = start("reblurring")
        jobs = work.like_jobs(inputs, like or [], shuffle, seed, engine, name, problems)
    if swap:
        jobs = work.as_pairs(jobs)
    done = 0
    scores = []
    diversity = Diversity()
    for record in run_jobs(jobs, sink, problems, "reblur", quiet):
        done += 1
        score = {key: record.attrs[key] for key in SCORES if key in record.attrs}
        scores.append(Scored.of(record, score))
        image = record.image("reblurred", "blur")
        if copies > 1 and (json or not quiet):
            diversity.add(record.name, image, record.image("sharp", "restored"))
        if json:
            print_json(
                {
                    "name": record.name,
                    "like": record.attrs["blur_from" if swap else "reblurred_like"],
                }
                | {"width": image.shape[1], "height": image.shape[0]}
                | {"seconds": record.attrs["reblurred_seconds"], **score}
                | (engine.describe() if engine is not None else {})
            )
    total, versions = mean_scores(scores), diversity.summary()
    if json:
        told = {key: total[key] for key in ("images", *SCORES) if key in total}
        print_json({"total": told | versions})
    if not quiet:
        _print_tables(total, versions)
    problems.finish(done, "reblurred")


def _print_tables(total: dict[str, Any], versions: dict[str, Any]) -> None:
    """What was measured, where anything was: of reblurred records, and of versions of photos."""
    from blurkit.reports.tables import print_table
    from blurkit.tasks.reblur import SCORES

    if "reblurred_psnr" in total:
        print_table(
            "how near the reblurred images come to the blurry ones",
            ["mean of", "reblurred, dB", "sharp, dB"],
            [(total["images"], *(total[key] for key in SCORES))],
            note="PSNR against the real blurry image, 8 bits",
        )
    if versions:
        print_table(
            "how much the versions of a photo differ",
            ["mean of", "identical", "from each other, dB", "from the photo, dB"],
            [tuple(versions.values())],
            note="PSNR, 8 bits; left out is what is identical, infinitely near",
        )


def _open(output: str | None, pairs: bool, swap: bool, force: bool) -> Sink:
    """The sink for `-o`; a folder takes shards when the output is a data set."""
    from blurkit.io.images import is_image
    from blurkit.io.sinks import ShardFolder, is_folder, open_sink

    if pairs and (output is None or is_image(Path(output))):
        raise UsageError("--pairs writes a data set: name a folder/, a shard (.h5) or - with -o")
    if swap and output is not None and is_folder(output):
        return ShardFolder(Path(output), force=force, resume=None)
    return open_sink(output, ("reblurred", "blur"), "reblurred", force)
