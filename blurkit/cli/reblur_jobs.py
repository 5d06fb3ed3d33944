"""The jobs of `blurkit reblur`: every photo with the function that blurs it, by source of blur."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np

from blurkit.cli.batch import Problems, RecordJob
from blurkit.cli.reblur import ReblurOptions
from blurkit.cli.shared import Hardware, Networks, load_checkpoints, start
from blurkit.data.collection import Collection, collect
from blurkit.data.sources import read_records
from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, UsageError, raise_error
from blurkit.io.records import Record
from blurkit.reports.progress import Stages
from blurkit.systems.system import Use, providers, search_options
from blurkit.tasks.blind_deblur import start_search
from blurkit.tasks.deblur import blur_estimator
from blurkit.tasks.reblur import (
    EstimatedBlur,
    apply_kernel,
    draw,
    exchange,
    random_blur,
    read_blurs,
    reblur,
    reblurred_like,
    retrieve,
    swapped,
    versions,
)

ITERATIONS = 200
"""Default number of steps of a code search; twice as many gain a tenth of a dB."""

RATE = 5e-4
"""Default learning rate of a code search, from the released code."""

Jobs = tuple[Iterator[RecordJob], Engine | None]
"""The jobs, and the engine that runs their network, if they use one."""


def jobs_of(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return the jobs for the source of blur in `options`. Raises BlurkitError for bad files."""
    ways = {"kernel": _kernel, "random": _drawn, "noise": _drawn, "search": _search}
    return ways.get(options.way, _like)(inputs, options, problems)


def _like(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur photos like others, or like themselves."""
    engine: Engine | None = None
    blurred: Callable[[Record, Record], Record] | None = None
    if options.by != "shake":
        quiet = options.quiet or options.by == "auto"
        engine, name = start("reblurring", options, options, quiet, options.system)
        work = reblur if options.swaps else reblurred_like  # a dataset needs no appraisal
        blurred = partial(work, engine=engine, checkpoint=name)
    if options.by != "network":
        blurred = reblurring_by_estimate(options, options.quiet, blurred)
    assert blurred is not None
    return like_jobs(inputs, options, blurred, problems), engine


def _kernel(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur photos with kernels or codes."""
    assert options.kernel is not None
    blurs, engine, name = read_blurs(options.kernel), None, ""
    if any(blur.ndim != 2 for _, blur in blurs):
        engine, name = start("coding", options, options, options.quiet)
    elif options.checkpoint is not None:
        raise UsageError(f"--kernel {options.kernel}: a convolution, which takes no checkpoint")
    gamma = 1.0 if options.gamma is None else options.gamma
    blur = partial(apply_kernel, engine=engine, checkpoint=name, gamma=gamma)
    return kernel_jobs(inputs, blurs, blur, problems), engine


def _drawn(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur photos at random, with a kernel space or a BGAN."""
    use: Use = "noise" if options.way == "noise" else "random"
    engine, name = start(use, options, options, options.quiet)
    draw = partial(
        random_blur,
        engine=engine,
        checkpoint=name,
        seed=options.seed,
        scale=options.random_scale,
    )
    return drawn_jobs(inputs, options.copies, draw, problems), engine


def _search(inputs: list[str], options: ReblurOptions, problems: Problems) -> Jobs:
    """Return jobs that blur photos with the codes that a search finds for their own blur."""
    return search_jobs(inputs, retrieval(options), problems), None


def like_jobs(
    inputs: list[str],
    options: ReblurOptions,
    blurred: Callable[[Record, Record], Record],
    problems: Problems,
) -> Iterator[RecordJob]:
    """Yield every photo with the function that reblurs it like the reference chosen for it."""
    like, shuffle, seed = options.like, options.shuffle, options.seed
    references = collect(like)
    if like and not len(references):
        raise BlurkitError(f"--like {' '.join(like)}: holds no record")
    if len(references) == 1 or not (like or shuffle):
        single = references[0] if like else None
        for record in read_records(inputs, image="sharp", on_error=problems.add):
            yield record, partial(blurred, record, single or record)
        return
    # Which photo gets which blur must not depend on which photos can be read: in order, a photo
    # that is left out would shift all later ones.
    in_order = like and not shuffle
    photos = collect(inputs, image="sharp", on_error=raise_error if in_order else problems.add)
    donors: Collection = references
    chosen: Iterator[int] = count()
    if not like:
        donors, chosen = photos, iter(exchange(len(photos), seed))
    elif shuffle:
        chosen = draw(len(references), seed)
    for number, donor in zip(range(len(photos)), chosen, strict=False):
        with problems.guard(photos.places[number]):
            if donor >= len(donors):
                place = photos.places[number]
                raise BlurkitError(f"{place}: no blur is left; --like holds {len(donors)} images")
            record = photos[number]
            yield record, partial(blurred, record, donors[donor])


def kernel_jobs(
    inputs: list[str],
    blurs: list[tuple[str, np.ndarray]],
    blur: Callable[[Record, np.ndarray, str], Record],
    problems: Problems,
) -> Iterator[RecordJob]:
    """Yield every photo with the function that blurs it with the only kernel or the next one."""
    if len(blurs) == 1:
        for record in read_records(inputs, image="sharp", on_error=problems.add):
            name, kernel = blurs[0]
            yield record, partial(blur, record, kernel, name)
        return
    # As with references, a photo that is left out must not shift the others.
    photos = collect(inputs, image="sharp")
    for number, place in enumerate(photos.places):
        with problems.guard(place):
            if number >= len(blurs):
                raise BlurkitError(f"{place}: no blur is left; --kernel holds {len(blurs)}")
            record = photos[number]
            name, kernel = blurs[number]
            yield record, partial(blur, record, kernel, name)


def drawn_jobs(
    inputs: list[str], copies: int, draw: Callable[[Record], Record], problems: Problems
) -> Iterator[RecordJob]:
    """Yield `copies` versions of every photo, each with the function that blurs it."""
    for record in read_records(inputs, image="sharp", on_error=problems.add):
        for version in versions(record, copies):
            yield version, partial(draw, version)


def search_jobs(
    inputs: list[str], retrieve: Callable[[Record], Record], problems: Problems
) -> Iterator[RecordJob]:
    """Yield every pair with the function that searches for its code."""
    for pair in read_records(inputs, on_error=problems.add):
        yield pair, partial(retrieve, pair)


def retrieval(options: ReblurOptions) -> Callable[[Record], Record]:
    """Return the function that searches for the code of a pair."""
    chosen = search_options().resolve(
        "small",
        iterations=ITERATIONS if options.iterations is None else options.iterations,
        kernel_rate=RATE if options.kernel_rate is None else options.kernel_rate,
        start_blur=0.0,
        seed=options.seed,
    )
    (loaded,) = load_checkpoints("search", Networks(options.checkpoint), options.quiet)
    (system,) = providers("search").values()
    search = start_search(
        chosen,
        loaded,
        device=options.device,
        precision=options.precision,
        system=system.name,
    )
    return partial(retrieve, search=search, checkpoint=loaded.name)


def as_pairs(jobs: Iterator[RecordJob]) -> Iterator[RecordJob]:
    """Yield the jobs with functions that return training pairs instead of reblurred records."""
    for record, work in jobs:
        yield record, partial(_swapped, work)


def _swapped(work: Callable[[], Record]) -> Record:
    return swapped(work())


def reblurring_by_estimate(
    hardware: Hardware, quiet: bool, otherwise: Callable[[Record, Record], Record] | None
) -> EstimatedBlur:
    """Return the function that blurs records by the blur estimated in others.

    `otherwise` blurs where no estimate is believed. Raises BlurkitError for a bad file.
    """
    (loaded,) = load_checkpoints("deconvolving", Networks(), quiet)
    watch = Stages("window", quiet)
    estimate = blur_estimator(loaded, hardware.device, hardware.precision, watch=watch)
    return EstimatedBlur(estimate, otherwise)
