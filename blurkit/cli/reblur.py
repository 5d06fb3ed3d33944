"""`blurkit reblur`: blur photos like another picture, with a kernel, or at random."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import typer

from blurkit.cli import options as shared
from blurkit.cli.common import print_json, result_values
from blurkit.errors import BlurkitError, UsageError, raise_error
from blurkit.io.paths import is_folder, refuse_missing
from blurkit.options import ANY, Method, choose_reblurring, option, rare
from blurkit.reports.progress import say
from blurkit.systems.system import Use, providers

if TYPE_CHECKING:
    import numpy as np

    from blurkit.cli.batch import Problems, RecordBatch, RecordTask
    from blurkit.data.collection import RecordList
    from blurkit.engine.engine import Engine
    from blurkit.io.records import Record


Way = Literal["like", "kernel", "random", "noise", "search"]
"""Sources of blur. `like`, the default, is what `--like` names, or else the record itself."""


@dataclass(frozen=True)
class ReblurOptions(shared.Reblurring, shared.ImageTask, shared.Tracked):
    """The options of `blurkit reblur`."""

    output: str | None = shared.output_option("NAME.reblurred next to each file")
    like: tuple[str, ...] = option(
        (), "Blurry image to take the blur from; a folder, a shard or several: one per input."
    )
    method: Method | None = option(
        None,
        "With --like: shake: estimate the blur and apply it, direction included; network: blur by "
        "G_r or F; auto: shake if an estimate is believed, else network.  [auto; network with -c, "
        "--encoder, --system, --tile, --overlap or without --like]",
    )
    kernel: str | None = option(
        None,
        "Kernel (.mat .npz .npy .png), or a shard or - with kernels or codes from blind-deblur "
        "--keep-kernel; one for all inputs, or one per input.",
        metavar="FILE",
    )
    random: bool = option(False, "Draw new blurs from a kernel space: motion of any direction.")
    noise: bool = option(False, "Draw new blurs from the BGAN that -c names.")
    search: bool = option(
        False, "Search for the code of each record's own blur instead of using G's."
    )
    shuffle: bool = option(
        False, "Assign blurs to photos at random; without --like, make a blur-swapped dataset."
    )
    pairs: bool = option(
        False, "Write training pairs with the result as blur, as --shuffle without --like does."
    )
    copies: int = option(1, "With --random or --noise: blurred versions of each photo.", 1)
    random_scale: float | None = rare(
        None,
        "Standard deviation of normal random input; default 1 with --noise and, with --random, "
        "1.2 for networks that come without codes.",
    )
    gamma: float | None = option(
        None, "With --kernel: gamma between pixels and linear light; default 1.", ANY
    )
    iterations: int | None = option(None, "With --search: number of steps; default 200.", ANY)
    kernel_rate: float | None = rare(None, "With --search: learning rate; default 0.0005.", ANY)
    seed: int = shared.SEED

    @property
    def ways(self) -> list[Way]:
        """The given options that name a source of blur."""
        return [way for way in get_args(Way) if getattr(self, way) not in (None, False, ())]

    @property
    def way(self) -> Way:
        """The source of blur."""
        return self.ways[0] if self.ways else "like"

    @property
    def by(self) -> Method:
        """What blurs photos like others: the named method, or the one that other options imply."""
        return choose_reblurring(self.method, self.names_networks, not self.like)

    @property
    def names_networks(self) -> bool:
        """Whether options for networks that reblur are given."""
        return any((*self.files, self.system)) or self.placement.tiled

    @property
    def swaps(self) -> bool:
        """Whether the output is a dataset of pairs."""
        return self.pairs or (self.shuffle and not self.like)


def reblur(
    inputs: Annotated[
        list[str], typer.Argument(help="Sharp images, folders, datasets, shards or - (a stream).")
    ],
    options: ReblurOptions,
) -> None:
    """Blur sharp photos like other photos, with a kernel, or at random.

    The blur of --like is estimated as a kernel or, where that fails, given by a network; for the
    blur kernel space (--system), --like names pairs of a sharp and a blurry image, or shards of
    them. Without --like, records with both images reblur themselves, and the result is compared
    with their own blur; with --shuffle they exchange blurs, and the output is a dataset of training
    pairs (a folder receives shards). With --copies, the differences between copies are measured.

    Examples: blurkit reblur sharp.png --like blurry.png;
    blurkit reblur shards/train-*.h5 --shuffle -o swapped/; blurkit reblur photos/ --random;
    blurkit reblur photos/ --noise -c bgan.pt --copies 4 --pairs -o pairs/;
    blurkit reblur pairs.h5 --search
    """
    options = shared.settled(options, inputs, options.like, [options.kernel, *options.files])
    refuse_missing([*options.like, options.kernel], "file or folder")
    if len(options.ways) > 1:
        raise UsageError("use only one of --like, --kernel, --random, --noise and --search")
    _check_networks(options)
    _check_goes_with(options)
    if options.status:
        from blurkit.cli.batch import status_of

        if options.copies > 1:
            raise UsageError("--status counts results that are named after photos, not --copies")
        status_of(inputs, options, "reblurred", "sharp", dataset=options.swaps)
    options = shared.at_hand(options)

    from blurkit.cli.batch import RecordBatch
    from blurkit.data.films import check_film_output

    with RecordBatch([*inputs, *options.like], options, "reblur", "reblurred") as batch:
        check_film_output(inputs, options.output)
        _open(inputs, batch, options)
        _blur(inputs, options, batch)
    batch.end()


def _blur(inputs: list[str], options: ReblurOptions, batch: RecordBatch) -> None:
    """Blur the records of the inputs and print what their blur is worth."""
    from blurkit.data.collection import refuse_unpaired
    from blurkit.data.sources import is_stream, read_records

    alone = options.copies == 1 and not options.swaps
    batch.refuse_hopeless(inputs, "sharp", same_names=alone, times=options.copies)
    if options.way in ("like", "search") and not options.like:
        remedy = "" if options.way == "search" else "; name what to take the blur from with --like"
        refuse_unpaired(inputs, "sharp", "blur", remedy)

    ways = {"kernel": _kernel, "random": _drawn, "noise": _drawn, "search": _search}
    jobs, engine = ways.get(options.way, _like)(inputs, options, batch)
    if options.swaps:
        from blurkit.tasks.reblur import swapped

        def as_pair(work: Callable[[], Record]) -> Record:
            return swapped(work())

        jobs = ((record, partial(as_pair, work)) for record, work in jobs)
    total = None
    if not any(map(is_stream, inputs)) and not options.resume and options.part == "1/1":
        photos = read_records(inputs, on_error=lambda *_: None).total
        total = photos and photos * options.copies
    with closing(batch.run(batch.remaining(jobs, batch.part), total)) as finished:
        _measure(finished, options, engine)


def _check_networks(options: ReblurOptions) -> None:
    """Raise UsageError for networks, or uses of them, that the source of blur does not have."""
    if options.way == "like":
        return
    if options.shuffle or options.encoder:
        raise UsageError("--shuffle and --encoder exclude --kernel, --random, --noise and --search")
    system = options.system
    if system not in (None, *(provider.name for provider in providers("coding").values())):
        raise UsageError(f"--system {system} excludes --kernel, --random, --noise, --search")
    if options.way == "noise" and (options.checkpoint is None or system is not None):
        raise UsageError(
            "--noise requires -c with a BGAN, without --system; none comes with blurkit"
        )


def _check_goes_with(options: ReblurOptions) -> None:
    """Raise UsageError for options that require another source of blur."""
    if options.method in ("shake", "auto") and not options.like:
        raise UsageError(f"--method {options.method} requires --like")
    if options.method in ("shake", "auto") and options.names_networks:
        raise UsageError("-c, --encoder, --system, --tile and --overlap are for --method network")
    way, random = options.way, (options.copies, options.random_scale)
    if way not in ("random", "noise") and random != (1, None):
        raise UsageError("--copies and --random-scale require --random or --noise")
    if way == "search" and options.placement.tiled:
        raise UsageError("--search takes photos whole; leave out --tile and --overlap")
    if way != "search" and (options.iterations, options.kernel_rate) != (None, None):
        raise UsageError("--iterations and --kernel-rate require --search")
    if way != "kernel" and options.gamma is not None:
        raise UsageError("--gamma requires --kernel")


def _measure(records: Iterable[Record], options: ReblurOptions, engine: Engine | None) -> None:
    """Print the scores of the finished records, and warnings."""
    from blurkit.cli.batch import warn
    from blurkit.metrics.diversity import Diversity
    from blurkit.metrics.statistics import Scored, mean_scores
    from blurkit.tasks.deblur import ESTIMATED, SCORES, WORTH, reblurring_warnings

    scores, diversity = [], Diversity()
    for record in records:
        score = {key: record.attrs[key] for key in SCORES if key in record.attrs}
        scores.append(Scored.of(record, score))
        warnings = reblurring_warnings(record.attrs)
        warn(record.name, warnings, options)
        like = record.attrs["blur_from" if options.swaps else "reblurred_like"]
        estimated = (f"reblurred_{key}" for key in ESTIMATED)
        found = {key: record.attrs[key] for key in estimated if key in record.attrs}
        if options.by != "network":
            say(f"{record.name}: {_source(like, found)}", options.quiet or options.json)
        image = record.image("reblurred", "blur")
        if options.copies > 1 and (options.json or not options.quiet):
            diversity.add(image, record.image("sharp", "restored"))
        if options.json:
            print_json(
                result_values(record, image, "reblurred", like=like)
                | score
                | {key: record.attrs[key] for key in WORTH if key in record.attrs}
                | {"warnings": warnings}
                | (found or (engine.describe() if engine is not None else {}))
            )
    measured = [row for row in scores if row.scores]  # photos of the scene of their reference
    total, versions = mean_scores(measured or scores), diversity.summary()
    if options.json:
        means = {key: total[key] for key in ("images", *SCORES) if key in total}
        print_json({"total": means | versions})
    if not options.quiet:
        _print_tables(total, versions)


def _source(like: str, found: Mapping[str, float]) -> str:
    """Return what says where the blur of a record comes from; `found` is what was estimated."""
    if not found:
        return f"no uniform blur found in {like}, so blurred by the network"
    length, angle = found["reblurred_length"], found["reblurred_angle"]
    return f"blur of {length:.0f} pixels at {angle:.0f} degrees, from {like}"


def _print_tables(total: dict[str, Any], versions: dict[str, Any]) -> None:
    """Print the means over records and over versions of photos, if these were measured."""
    from blurkit.reports.tables import print_table
    from blurkit.tasks.deblur import SCORES

    if "reblurred_psnr" in total:
        print_table(
            "how close the reblurred images are to the blurry ones",
            ["mean of", "reblurred, dB", "sharp, dB"],
            [(total["images"], *(total[key] for key in SCORES))],
            note="PSNR against the real blurry image, 8 bits",
        )
    if versions:
        print_table(
            "how much the versions of a photo differ",
            ["mean of", "identical", "from each other, dB", "from the photo, dB"],
            [tuple(versions.values())],
            note="PSNR, 8 bits; identical images, whose PSNR is infinite, are left out",
        )


def _open(inputs: list[str], batch: RecordBatch, options: ReblurOptions) -> None:
    """Open the sink for `-o`; a folder receives shards if the output is a dataset."""
    from blurkit.cli.batch import remember_options
    from blurkit.data.prepare import Preparation, last_changes
    from blurkit.data.sources import find_items
    from blurkit.io.formats import is_image
    from blurkit.io.sinks import ShardFolder
    from blurkit.reports.pictures import REBLURRED

    output = options.output
    if options.pairs and (output is None or is_image(Path(output))):
        raise UsageError("--pairs writes a dataset: name a folder/, a shard (.h5) or - with -o")
    if options.swaps and (options.format or options.quality):
        raise UsageError("--format and --quality are for images, but the output is a dataset")
    if options.compare and options.swaps:
        raise UsageError("--compare excludes --pairs and --shuffle without --like")
    if options.swaps and output is not None and is_folder(output):
        remember_options(options)
        changed = None
        if options.resume:
            items = find_items(inputs, image="sharp").items
            changed = last_changes(items, Preparation(copies=options.copies))
        path, force, resume = Path(output), options.force, options.resume
        part = batch.part.prefix
        batch.use(ShardFolder(path, force=force, resume=resume, part=part, changed=changed))
    else:
        batch.open(("reblurred", "blur"), REBLURRED)


# ---- Jobs by source of blur ----------------------------------------------------------------------

Jobs = tuple[Iterator["RecordTask"], "Engine | None"]
"""The jobs of a command, and the engine of their network, None without one."""


def _like(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur photos like others, or like themselves."""
    from blurkit.data.collection import collect
    from blurkit.data.sources import read_records
    from blurkit.tasks.reblur import draw, exchange

    model = shared.model_of(options, options, options.system)
    # A dataset needs no appraisal.
    blurred, engine = model.reblurring(options.by, appraise=not options.swaps)
    like, shuffle, seed = options.like, options.shuffle, options.seed
    references = collect(like)
    if like and not len(references):
        raise BlurkitError(f"--like {' '.join(like)}: holds no record")
    if len(references) == 1 or not (like or shuffle):
        single = references[0] if like else None
        records = read_records(inputs, image="sharp", on_error=problems.add)
        return ((record, partial(blurred, record, single or record)) for record in records), engine
    # Which photo gets which blur must not depend on which photos can be read: in order, a photo
    # that is left out would shift all later ones.
    in_order = like and not shuffle
    photos = collect(inputs, image="sharp", on_error=raise_error if in_order else problems.add)
    chosen: Iterator[int] = count()
    if not like:
        references, chosen = photos, iter(exchange(len(photos), seed))
    elif shuffle:
        chosen = draw(len(references), seed)
    few = f"--like holds {len(references)} images"
    return _assigned(photos, chosen, references, blurred, few, problems), engine


def _assigned(
    photos: RecordList,
    chosen: Iterator[int],
    blurs: Sequence[Any],
    blurred: Callable[[Record, Any], Record],
    few: str,
    problems: Problems,
) -> Iterator[RecordTask]:
    """Yield every photo with the function that blurs it by the chosen one of the `blurs`.

    A photo for which there is none is reported; `few` says how many there are.
    """
    for number, blur in zip(range(len(photos)), chosen, strict=False):
        place = photos.places[number]
        with problems.guard(place):
            if blur >= len(blurs):
                raise BlurkitError(f"{place}: no blur is left; {few}")
            record = photos[number]
            yield record, partial(blurred, record, blurs[blur])


def _kernel(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur photos with the only kernel or code, or each with its own."""
    from blurkit.data.collection import collect
    from blurkit.data.sources import read_records
    from blurkit.tasks.reblur import apply_kernel, read_blurs

    assert options.kernel is not None
    blurs = read_blurs(options.kernel)
    coded = any(blur.ndim != 2 for _, blur in blurs)
    if not coded and options.checkpoint is not None:
        raise UsageError(f"--kernel {options.kernel}: a convolution, which takes no checkpoint")
    gamma = 1.0 if options.gamma is None else options.gamma
    engine = shared.model_of(options, options).engine("coding") if coded else None

    def blurred(record: Record, blur: tuple[str, np.ndarray]) -> Record:
        return apply_kernel(record, blur[1], blur[0], engine, gamma)

    if len(blurs) == 1:
        records = read_records(inputs, image="sharp", on_error=problems.add)
        return ((record, partial(blurred, record, blurs[0])) for record in records), engine
    # As with references, a photo that is left out must not shift the others.
    photos = collect(inputs, image="sharp")
    few = f"--kernel holds {len(blurs)}"
    return _assigned(photos, count(), blurs, blurred, few, problems), engine


def _drawn(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur versions of photos at random, with a kernel space or a BGAN."""
    from blurkit.data.sources import read_records
    from blurkit.tasks.reblur import random_blur, versions

    use: Use = "noise" if options.way == "noise" else "random"
    engine = shared.model_of(options, options).engine(use)
    more = engine, options.seed, options.random_scale
    records = read_records(inputs, image="sharp", on_error=problems.add)
    copies = (copy for record in records for copy in versions(record, options.copies))
    return ((copy, partial(random_blur, copy, *more)) for copy in copies), engine


def _search(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur photos with the codes that a search finds for their own blur."""
    from blurkit.data.sources import read_records
    from blurkit.model import CODE_RATE, CODE_STEPS

    steps = CODE_STEPS if options.iterations is None else options.iterations
    rate = CODE_RATE if options.kernel_rate is None else options.kernel_rate
    retrieve = shared.model_of(options, options).retrieving(steps, rate, options.seed)
    pairs = read_records(inputs, on_error=problems.add)
    return ((pair, partial(retrieve, pair)) for pair in pairs), None
