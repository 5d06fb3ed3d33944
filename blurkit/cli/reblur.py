"""`blurkit reblur`: put the blur of another picture, of a kernel, or a new one onto photos."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blurkit.cli.common import (
    CheckpointFile,
    Device,
    EncoderFiles,
    Force,
    Json,
    Overlap,
    Precision,
    PrecisionName,
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

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from blurkit.data.collection import Collection
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink
    from blurkit.restoration.engine import Engine


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
    copies: Annotated[
        int, typer.Option(min=1, help="With --random: blurred versions of each photo.")
    ] = 1,
    random_scale: Annotated[
        float | None,
        typer.Option(
            min=0, help="With --random: how strong; default 1.2, that of the released code."
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
    train on (a folder gets shards).

    Examples: blurkit reblur sharp.png --like blurry.png;
    blurkit reblur shards/train-*.h5 --shuffle -o swapped/; blurkit reblur photos/ --random;
    blurkit reblur pairs.h5 --search
    """
    refuse_json_and_stream(json, output)
    refuse_two_streams(inputs, like or [], [kernel, checkpoint, *encoder])
    side = tile_side(tile)
    if bool(like) + (kernel is not None) + random + search > 1:
        raise UsageError("one of --like, --kernel, --random and --search says which blur")
    if kernel is not None or random or search:
        if shuffle or encoder or system == "msdi":
            raise UsageError("--shuffle, --encoder and MSDI-Net go with --like")
        system = "kernel-space"
    if not random and (copies > 1 or random_scale is not None):
        raise UsageError("--copies and --random-scale go with --random")
    if search and (side, overlap) != (None, None):
        raise UsageError("--search takes photos whole, without --tile and --overlap")
    if not search and (iterations, kernel_rate) != (None, None):
        raise UsageError("--iterations and --kernel-rate go with --search")
    if kernel is None and gamma is not None:
        raise UsageError("--gamma goes with --kernel")
    swap = shuffle and not like
    sink = _open(output, swap, force)
    problems = Problems()

    # Only now what imports torch, so that wrong usage is told at once.
    from blurkit.data.kernels import read_blurs
    from blurkit.data.sources import read_records
    from blurkit.metrics.statistics import Scored, summary
    from blurkit.reports.tables import print_table
    from blurkit.restoration import reblur as room
    from blurkit.restoration.kernel_space import coded_network

    def start(build: Callable[..., nn.Module]) -> tuple[Engine, str]:
        loaded = load_checkpoints(checkpoint, encoder, quiet, system or "msdi")
        network = build(*loaded)
        engine = start_engine(network, loaded[0], side, overlap, device, precision)
        return engine, loaded[0].name

    engine: Engine | None = None
    if kernel is not None:
        blurs, name = read_blurs(kernel), ""
        if any(blur.ndim != 2 for _, blur in blurs):
            engine, name = start(coded_network)
        elif checkpoint is not None:
            raise UsageError(f"--kernel {kernel}: a convolution, which takes no checkpoint")
        light = 1.0 if gamma is None else gamma
        blur = partial(room.apply_kernel, engine=engine, checkpoint=name, gamma=light)
        jobs = _kernel_jobs(inputs, blurs, blur, problems)
    elif random:
        engine, name = start(partial(coded_network, variational=True))
        scale = room.RANDOM_SCALE if random_scale is None else random_scale
        draw = partial(room.random_blur, engine=engine, checkpoint=name, seed=seed, scale=scale)
        jobs = _random_jobs(inputs, copies, draw, problems)
    elif search:
        retrieve = _retrieval(checkpoint, iterations, kernel_rate, seed, device, precision, quiet)
        pairs = read_records(inputs, on_error=problems.add)
        jobs = ((pair, partial(retrieve, pair)) for pair in pairs)
    else:
        engine, name = start(partial(room.reblurring_network, system=system))
        jobs = _jobs(inputs, like or [], shuffle, seed, engine, name, problems)
    if swap:
        jobs = ((record, partial(_swapped, work)) for record, work in jobs)
    done = 0
    scores = []
    for record in run_jobs(jobs, sink, problems, "reblur", quiet):
        done += 1
        score = {key: record.attrs[key] for key in room.SCORES if key in record.attrs}
        scores.append(Scored.of(record, score))
        if json:
            image = record.image("reblurred", "blur")
            print_json(
                {
                    "name": record.name,
                    "like": record.attrs["blur_from" if swap else "reblurred_like"],
                }
                | {"width": image.shape[1], "height": image.shape[0]}
                | {"seconds": record.attrs["reblurred_seconds"], **score}
                | (engine.describe() if engine is not None else {})
            )
    total = summary(scores)
    if json:
        print_json({"total": {key: total[key] for key in ("images", *room.SCORES) if key in total}})
    if "reblurred_psnr" in total and not quiet:
        print_table(
            "how near the reblurred images come to the blurry ones",
            ["mean of", "reblurred, dB", "sharp, dB"],
            [(total["images"], *(total[key] for key in room.SCORES))],
            note="PSNR against the real blurry image, 8 bits",
        )
    problems.finish(done, "reblurred")


def _open(output: str | None, swap: bool, force: bool) -> Sink:
    """The sink for `-o`; a folder takes shards when the output is a data set."""
    from blurkit.io.sinks import ShardFolder, is_folder, open_sink

    if swap and output is not None and is_folder(output):
        return ShardFolder(Path(output), force=force, resume=None)
    return open_sink(output, ("reblurred", "blur"), "reblurred", force)


def _retrieval(
    checkpoint: str | None,
    iterations: int | None,
    rate: float | None,
    seed: int,
    device: str,
    precision: PrecisionName,
    quiet: bool,
) -> Callable[[Record], Record]:
    """What searches for the code of a pair."""
    from blurkit.restoration.blind_options import BlindOptions
    from blurkit.restoration.blind_setting import make_setting
    from blurkit.restoration.reblur import reblurring_network
    from blurkit.restoration.retrieval import ITERATIONS, RATE, retrieve

    options = BlindOptions.resolve(
        "default",
        iterations=ITERATIONS if iterations is None else iterations,
        kernel_rate=RATE if rate is None else rate,
        start_blur=0.0,
        seed=seed,
    )
    (loaded,) = load_checkpoints(checkpoint, quiet=quiet, system="kernel-space")
    reblurring_network(loaded, system="kernel-space")  # which tells of another system best
    setting = make_setting(options, loaded, device=device, precision=precision)
    return partial(retrieve, setting=setting, checkpoint=loaded.name)


def _jobs(
    inputs: list[str],
    like: list[str],
    shuffle: bool,
    seed: int,
    engine: Engine,
    checkpoint: str,
    problems: Problems,
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Every photo with the work of reblurring it like the one that it falls to."""
    from blurkit.data.collection import collect
    from blurkit.data.sources import read_records
    from blurkit.errors import BlurkitError, raise_error
    from blurkit.restoration import reblur as room

    references = collect(like)
    if like and not len(references):
        raise BlurkitError(f"--like {' '.join(like)}: holds no record")
    if len(references) == 1 or not (like or shuffle):
        one = references[0] if like else None
        for record in read_records(inputs, image="sharp", on_error=problems.add):
            yield record, partial(room.reblur, record, one or record, engine, checkpoint)
        return
    # Here who gets whose blur must not depend on which photos can be read: in order, one that is
    # left out would shift all behind it.
    in_order = like and not shuffle
    photos = collect(inputs, image="sharp", on_error=raise_error if in_order else problems.add)
    donors: Collection = references
    chosen: Iterator[int] = count()
    if not like:
        donors, chosen = photos, iter(room.exchange(len(photos), seed))
    elif shuffle:
        chosen = room.draw(len(references), seed)
    for number, donor in zip(range(len(photos)), chosen, strict=False):
        with problems.guard(photos.places[number]):
            if donor >= len(donors):
                place = photos.places[number]
                raise BlurkitError(f"{place}: no blur is left, --like holds {len(donors)} images")
            record = photos[number]
            yield record, partial(room.reblur, record, donors[donor], engine, checkpoint)


def _kernel_jobs(
    inputs: list[str],
    blurs: list[tuple[str, np.ndarray]],
    blur: Callable[[Record, np.ndarray, str], Record],
    problems: Problems,
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Every photo with the kernel there is, or with its own, in order."""
    from blurkit.data.collection import collect
    from blurkit.errors import BlurkitError, raise_error

    single = len(blurs) == 1
    # As with references, a photo that is left out must not shift the others.
    photos = collect(inputs, image="sharp", on_error=problems.add if single else raise_error)
    for number, place in enumerate(photos.places):
        with problems.guard(place):
            if not single and number >= len(blurs):
                raise BlurkitError(f"{place}: no blur is left, --kernel holds {len(blurs)}")
            record = photos[number]
            name, kernel = blurs[0 if single else number]
            yield record, partial(blur, record, kernel, name)


def _random_jobs(
    inputs: list[str], copies: int, draw: Callable[[Record], Record], problems: Problems
) -> Iterator[tuple[Record, Callable[[], Record]]]:
    """Every photo as often as asked for."""
    from blurkit.data.sources import read_records
    from blurkit.restoration.reblur import versions

    for record in read_records(inputs, image="sharp", on_error=problems.add):
        for version in versions(record, copies):
            yield version, partial(draw, version)


def _swapped(work: Callable[[], Record]) -> Record:
    from blurkit.restoration.reblur import swapped

    return swapped(work())
