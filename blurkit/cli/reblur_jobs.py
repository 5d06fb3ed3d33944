"""The work of `blurkit reblur`: every photo with what gives it back blurred."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import count

import numpy as np

from blurkit.cli.common import PrecisionName, Problems, load_checkpoints
from blurkit.data.collection import Collection, collect
from blurkit.data.sources import read_records
from blurkit.engine.engine import Engine
from blurkit.errors import BlurkitError, raise_error
from blurkit.io.records import Record
from blurkit.systems.kernel_space.retrieval import RATE, RETRIEVAL_ITERATIONS, retrieve
from blurkit.systems.kernel_space.search_context import make_context
from blurkit.systems.kernel_space.search_options import BlindOptions
from blurkit.tasks.reblur import draw, exchange, reblur, reblurring_network, swapped, versions

Job = tuple[Record, Callable[[], Record]]


def like_jobs(
    inputs: list[str],
    like: list[str],
    shuffle: bool,
    seed: int,
    engine: Engine,
    checkpoint: str,
    problems: Problems,
) -> Iterator[Job]:
    """Every photo with the work of reblurring it like the one that it falls to."""
    references = collect(like)
    if like and not len(references):
        raise BlurkitError(f"--like {' '.join(like)}: holds no record")
    if len(references) == 1 or not (like or shuffle):
        one = references[0] if like else None
        for record in read_records(inputs, image="sharp", on_error=problems.add):
            yield record, partial(reblur, record, one or record, engine, checkpoint)
        return
    # Here who gets whose blur must not depend on which photos can be read: in order, one that is
    # left out would shift all behind it.
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
                raise BlurkitError(f"{place}: no blur is left, --like holds {len(donors)} images")
            record = photos[number]
            yield record, partial(reblur, record, donors[donor], engine, checkpoint)


def kernel_jobs(
    inputs: list[str],
    blurs: list[tuple[str, np.ndarray]],
    blur: Callable[[Record, np.ndarray, str], Record],
    problems: Problems,
) -> Iterator[Job]:
    """Every photo with the kernel there is, or with its own, in order."""
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


def drawn_jobs(
    inputs: list[str], copies: int, draw: Callable[[Record], Record], problems: Problems
) -> Iterator[Job]:
    """Every photo as often as asked for."""
    for record in read_records(inputs, image="sharp", on_error=problems.add):
        for version in versions(record, copies):
            yield version, partial(draw, version)


def search_jobs(
    inputs: list[str], retrieve: Callable[[Record], Record], problems: Problems
) -> Iterator[Job]:
    """Every pair with the search for its code."""
    for pair in read_records(inputs, on_error=problems.add):
        yield pair, partial(retrieve, pair)


def retrieval(
    checkpoint: str | None,
    iterations: int | None,
    rate: float | None,
    seed: int,
    device: str,
    precision: PrecisionName,
    quiet: bool,
) -> Callable[[Record], Record]:
    """What searches for the code of a pair."""
    options = BlindOptions.resolve(
        "default",
        iterations=RETRIEVAL_ITERATIONS if iterations is None else iterations,
        kernel_rate=RATE if rate is None else rate,
        start_blur=0.0,
        seed=seed,
    )
    (loaded,) = load_checkpoints(checkpoint, quiet=quiet, system="kernel-space")
    reblurring_network(loaded, system="kernel-space")  # which tells of another system best
    context = make_context(options, loaded, device=device, precision=precision)
    return partial(retrieve, context=context, checkpoint=loaded.name)


def as_pairs(jobs: Iterator[Job]) -> Iterator[Job]:
    """Jobs that give pairs to train on in place of reblurred records."""
    for record, work in jobs:
        yield record, partial(_swapped, work)


def _swapped(work: Callable[[], Record]) -> Record:
    return swapped(work())
