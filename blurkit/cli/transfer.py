"""`blurkit transfer`: transfer the blur of a pair to other photos."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from blurkit.cli import options as shared
from blurkit.cli.common import print_json, refuse_two_streams, result_values
from blurkit.data.places import WHOLE
from blurkit.errors import BlurkitError, UsageError

if TYPE_CHECKING:
    from blurkit.cli.batch import Problems, RecordBatch, RecordTask
    from blurkit.data.collection import RecordList
    from blurkit.io.records import Record


@dataclass(frozen=True)
class TransferOptions(shared.Reblurring, shared.ImageTask):
    """The options of `blurkit transfer`."""

    output: str | None = shared.output_option("A.transferred next to each file")


def transfer(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="A B_SHARP B_BLUR",
            help="Photos to blur, then the pair whose blur they get: images or folders; or A and "
            "PAIRS: a dataset, shard or - with both images.",
        ),
    ],
    options: TransferOptions,
) -> None:
    """Transfer the blur of a pair to other photos.

    Every photo of A gets the blur of every pair B. To show how good a transfer is, B's own sharp
    image is reblurred too, and its PSNR against the real blurry image is printed. Sizes may differ.
    With more than one B, the results are named A/B. Without -c and --system, the blur kernel space
    that comes with blurkit is used, as it compares both images of B.

    Examples: blurkit transfer a.png b_sharp.png b_blur.png;
    blurkit transfer photos/ pairs.h5 -o blurred/
    """
    others = [text for text in inputs if not Path(text).is_file()]
    options = shared.settled(options, others or inputs[:1])
    refuse_two_streams(inputs, options.files)
    if len(inputs) not in (2, 3):
        raise UsageError("transfer takes A B_SHARP B_BLUR, or A PAIRS")
    options = shared.at_hand(options)

    from blurkit.cli.batch import RecordBatch
    from blurkit.data.films import check_film_output
    from blurkit.reports.pictures import REBLURRED

    with RecordBatch(inputs, options, "transfer", "transferred") as batch:
        check_film_output(inputs[:1], options.output)
        batch.open(("reblurred",), REBLURRED)
        _transfer(inputs, options, batch)
    batch.end()


def _transfer(inputs: list[str], options: TransferOptions, batch: RecordBatch) -> None:
    """Blur every photo like every pair, and print how well the pairs' own blur is reproduced."""
    from blurkit.cli.batch import warn
    from blurkit.data.collection import collect_pairs, refuse_unpaired
    from blurkit.data.sources import read_records
    from blurkit.reports.tables import print_table

    if len(inputs) == 2:
        refuse_unpaired(inputs[1:], "sharp", "blur", "")
    pairs = collect_pairs(inputs[1:], ("sharp", "blur"), batch.add)
    if not len(pairs):
        raise BlurkitError(f"{' '.join(inputs[1:])}: holds no pair of a sharp and a blurry image")
    if len(pairs) > 1 and options.output is None:
        raise UsageError(
            f"{len(pairs)} pairs give several results: name a folder/, a shard (.h5) or - with -o"
        )
    batch.refuse_hopeless(inputs[:1], "sharp", same_names=len(pairs) == 1, times=len(pairs))

    # Import torch only now, so that wrong usage is refused at once.
    from blurkit.tasks.deblur import SCORES, reblurring_warnings
    from blurkit.tasks.reblur import reproduce

    reblur, engine = shared.model_of(options, options, options.system).transferring()
    reproduced: dict[str, tuple[str, dict[str, float]]] = {}

    def work(record: Record, pair: Record, place: str) -> Record:
        if place not in reproduced:
            reproduced[place] = pair.name, reproduce(pair, engine)
        finished = reblur(record, pair)
        finished.attrs |= reproduced[place][1]
        return finished

    photos = read_records(inputs[:1], image="sharp", on_error=batch.add)
    total = None if photos.total is None or batch.part != WHOLE else photos.total * len(pairs)
    jobs = batch.remaining(_jobs(photos, pairs, work, batch), batch.part)
    for record in batch.run(jobs, total):
        if options.json:
            image, like = record.images["reblurred"], record.attrs["reblurred_like"]
            print_json(
                result_values(record, image, "reblurred", like=like)
                | {key: record.attrs[key] for key in SCORES}
                | {"warnings": reblurring_warnings(record.attrs)}
                | engine.describe()
            )
    for name, scores in reproduced.values():
        warn(name, reblurring_warnings(scores), options)
    if reproduced and not options.quiet:
        print_table(
            "how well the blur is reproduced on its own sharp image",
            ["pair", "reblurred, dB", "sharp, dB"],
            [(name, *scores.values()) for name, scores in reproduced.values()],
            note="PSNR against the real blurry image, 8 bits",
        )


def _jobs(
    photos: Iterable[Record],
    pairs: RecordList,
    work: Callable[[Record, Record, str], Record],
    problems: Problems,
) -> Iterator[RecordTask]:
    """Yield every photo with every pair; a single pair is read once."""
    from blurkit.io.films import unfilmed
    from blurkit.io.records import Record

    only = pairs[0] if len(pairs) == 1 else None
    for photo in photos:
        for number in range(len(pairs)):
            with problems.guard(pairs.places[number]):
                pair = only or pairs[number]
                name = photo.name if only else f"{photo.name}/{pair.name}"
                record = Record(name, photo.images, photo.attrs if only else unfilmed(photo.attrs))
                yield record, partial(work, record, pair, pairs.places[number])
