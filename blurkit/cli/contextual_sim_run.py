"""The run of `blurkit contextual-sim`: compares two images of each record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from blurkit.cli.batch import Problems, choose_part
from blurkit.cli.common import print_json, run_later
from blurkit.cli.contextual_sim import SimilarityOptions
from blurkit.data.collection import are_two_sides, find_two_sides
from blurkit.data.places import WorkPart, in_part
from blurkit.data.sources import read_records
from blurkit.engine.device import choose_device
from blurkit.io.images import image_record, read_image
from blurkit.io.records import Record, central_crop
from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
from blurkit.nn.features import find_features
from blurkit.reports.progress import track
from blurkit.reports.tables import print_table

if TYPE_CHECKING:
    from blurkit.metrics.contextual import ContextualSimilarity

TABLE_ROWS = 50
"""Most rows in a table; of longer sets, it shows the images with the largest distances."""

X, Y = ("restored", "reblurred", "blur"), "sharp"
"""The images of a record that are compared by default; X is the first of its names present."""


def compare_records(inputs: list[str], options: SimilarityOptions) -> None:
    """Compare two images of each record, or run the decoupling experiment."""
    part = choose_part(options.part, options.quiet)

    # Import torch only now, so that wrong usage is refused at once.

    contextual = similarity(options)
    if options.decoupling:
        run_later("decoupling", "decouple_records", inputs, contextual, part, options)
    else:
        _compare(inputs, contextual, part, options)


def _compare(
    inputs: list[str],
    contextual: ContextualSimilarity,
    part: WorkPart,
    options: SimilarityOptions,
) -> None:
    """Measure and print the similarity of X to Y in every record."""
    images, crop, json = options.images, options.crop or 0, options.json
    first, second = ((images[0],), images[1]) if images else (X, Y)
    problems = Problems(inputs, part=part)
    rows = []
    records = _read(inputs, (first[-1], second), part, problems)
    for record in track(records, "contextual-sim", None, "record", options.quiet):
        with problems.guard(record.name):
            x, y = record.image(*first), record.image(second)
            if crop:
                x, y = central_crop(x, crop, crop), central_crop(y, crop, crop)
            result = contextual(x, y)
            rows.append((record.name, result))
            if json:
                print_json({"name": record.name, **asdict(result)})
    if rows:
        distance, similarity = (
            sum(getattr(result, key) for _, result in rows) / len(rows)
            for key in ("distance", "similarity")
        )
        protocol = contextual.protocol(crop, " or ".join(first), second)
        total = {"images": len(rows), "distance": distance, "similarity": similarity}
        if json:
            print_json({"total": total, "protocol": protocol})
        if not options.quiet:
            shown = sorted(rows, key=lambda row: -row[1].distance)[:TABLE_ROWS]
            few = len(rows) <= TABLE_ROWS
            print_table(
                "contextual similarity"
                + ("" if few else f": the {TABLE_ROWS} least similar (--json prints all)"),
                ["image", "distance", "CX", "positions of X, Y"],
                [
                    *(
                        (name, row.distance, row.similarity, "{}, {}".format(*row.positions))
                        for name, row in (rows if few else shown)
                    ),
                    (f"mean of {len(rows)}", distance, similarity, ""),
                ],
                note=in_words(protocol),
            )
    problems.finish(len(rows), "compared")


def _read(
    inputs: list[str], roles: tuple[str, str], part: WorkPart, problems: Problems
) -> Iterator[Record]:
    """Yield the records of the inputs; two files or folders give images X and Y of any sizes.

    `roles` are the names of these images in the records.
    """
    if not are_two_sides(inputs):
        yield from read_records(inputs, image=roles[0], part=part, on_error=problems.add)
        return
    for scene in find_two_sides(inputs[0], inputs[1], roles, problems.add):
        if not in_part(scene.name, part):
            continue
        with problems.guard(scene.name):
            yield image_record(scene.name, {k: read_image(p) for k, p in scene.files.items()})


def in_words(protocol: dict[str, str]) -> str:
    """Return the protocol of a measurement as one line."""
    return "; ".join(f"{key}: {text}" for key, text in protocol.items())


def similarity(options: SimilarityOptions) -> ContextualSimilarity:
    """Return the contextual similarity with its feature network."""
    hint = ", or download VGG-19 (548 MB) with --download"
    network = find_features(options.features, options.download, hint)
    backbone = contextual_network(network, options.layer, choose_device(options.device))
    return ContextualSimilarity(backbone, options.bandwidth, options.distance)
