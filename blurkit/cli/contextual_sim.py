"""`blurkit contextual-sim`: contextual similarity, and the decoupling experiment based on it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blurkit.cli import options as shared
from blurkit.cli.common import print_json, refuse_two_streams, with_part
from blurkit.data.places import WorkPart, parse_part
from blurkit.errors import UsageError
from blurkit.io.paths import refuse_missing
from blurkit.options import ANY, option
from blurkit.reports.progress import track

if TYPE_CHECKING:
    from blurkit.cli.batch import Problems
    from blurkit.io.records import Record
    from blurkit.metrics.contextual import ContextualSimilarity


@dataclass(frozen=True)
class SimilarityOptions(shared.Networks, shared.Hardware, shared.Divided, shared.Writing):
    """The options of `blurkit contextual-sim`."""

    images: tuple[str, str] | None = option(
        None,
        "Images of a record to use as X and Y; default: restored, reblurred or blur, and sharp.",
        metavar="X Y",
    )
    layer: tuple[str, ...] = option(
        (),
        "Layer of the feature network; repeatable, distances are summed; default: relu3_4 of "
        "VGG-19 or its equivalent.",
    )
    bandwidth: float = option(1.0, "Bandwidth h in the weights exp((1 - d) / h).", ANY)
    distance: Literal["cosine", "l1", "l2"] = option(
        "cosine", "Distance between two features; l2 is squared."
    )
    features: Path | None = option(
        None, "Feature network file; default: BLURKIT_FEATURES or VGG-19 in torch's cache."
    )
    download: bool = option(False, "Download VGG-19 (548 MB) if no feature network is found.")
    crop: int | None = option(
        None, "Side of the central crop, pixels; 0: whole images.  [0; with --decoupling 256]"
    )
    decoupling: bool = option(False, "Run the experiment of the MSDI-Net paper described above.")
    pairing: Literal["halves", "neighbours", "shuffled"] = option(
        "halves", "How --decoupling divides the records into pairs A, B."
    )
    seed: int = shared.SEED
    pictures: Path | None = option(
        None, "Folder for pictures of A, blur A, blur B and reblurred A side by side (Fig. 6)."
    )


def contextual_sim(
    inputs: Annotated[
        list[str], typer.Argument(help="Two images X Y; two folders X/ Y/; or datasets, shards, -.")
    ],
    options: SimilarityOptions,
) -> None:
    """Measure the contextual similarity of images that need not be aligned.

    The result is the distance -log CX(X, Y): 0 for equal images, smaller is more similar. Values
    are comparable only if network, layers, bandwidth and image size are the same.

    --decoupling reblurs sharp images A with the degradation of other blurry images B, and compares
    the result, and the blurry A, with A and with B. The paper does not say how it pairs the images:
    here the first half of the records is paired with the second, in order, so that A and B show
    different scenes.

    Examples: blurkit contextual-sim blurry.png sharp.png;
    blurkit contextual-sim shards/test-*.h5 --decoupling
    """
    networks = options.checkpoint is not None or options.encoder or options.pictures is not None
    if not options.decoupling and networks:
        raise UsageError("-c, --encoder and --pictures require --decoupling")
    if options.decoupling and options.images is not None:
        raise UsageError("--decoupling compares blur and sharp; leave out --images")
    refuse_two_streams(inputs, options.files)
    refuse_missing([options.features], "file (from --features)")
    if len(inputs) < 3:  # of more, the others are still compared
        refuse_missing(inputs, "file or folder")
    options = shared.at_hand(with_part(options))

    from blurkit.engine.torch_runner import choose_device
    from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
    from blurkit.nn.features import find_features

    hint = ", or download VGG-19 (548 MB) with --download"
    file = find_features(options.features, options.download, hint)
    network = contextual_network(file, options.layer, choose_device(options.device))
    contextual = ContextualSimilarity(network, options.bandwidth, options.distance)
    run = decouple_records if options.decoupling else _compare
    run(inputs, contextual, parse_part(options.part), options)


TABLE_ROWS = 50
"""Most rows in a table; of longer sets, it shows the images with the largest distances."""


def _compare(
    inputs: list[str], contextual: ContextualSimilarity, part: WorkPart, options: SimilarityOptions
) -> None:
    """Measure and print the similarity of X to Y in every record."""
    from blurkit.cli.batch import Problems
    from blurkit.io.records import central_crop
    from blurkit.reports.tables import print_table

    crop, json = options.crop or 0, options.json
    default = ("restored", "reblurred", "blur"), "sharp"  # X is the first that is present
    first, second = ((options.images[0],), options.images[1]) if options.images else default
    problems = Problems(inputs, part=part)
    rows = []
    records = _read(inputs, (first[-1], second), problems)
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
        means = {
            key: sum(getattr(result, key) for _, result in rows) / len(rows)
            for key in ("distance", "similarity")
        }
        protocol = contextual.protocol(crop, " or ".join(first), second)
        if json:
            print_json({"total": {"images": len(rows), **means}, "protocol": protocol})
        if not options.quiet:
            title, shown = "contextual similarity", rows
            if len(rows) > TABLE_ROWS:
                title += f": the {TABLE_ROWS} least similar (--json prints all)"
                shown = sorted(rows, key=lambda row: -row[1].distance)[:TABLE_ROWS]
            lines = [(n, r.distance, r.similarity, "{}, {}".format(*r.positions)) for n, r in shown]
            lines.append((f"mean of {len(rows)}", *means.values(), ""))
            columns = ["image", "distance", "CX", "positions of X, Y"]
            print_table(title, columns, lines, note=in_words(protocol))
    problems.finish(len(rows), "compared")


def _read(inputs: list[str], roles: tuple[str, str], problems: Problems) -> Iterator[Record]:
    """Yield the records of inputs; two files or folders give the images `roles`, of any sizes."""
    from blurkit.data.collection import are_two_sides, find_two_sides
    from blurkit.data.sources import read_records
    from blurkit.io.images import image_record, read_image

    if not are_two_sides(inputs):
        yield from read_records(inputs, image=roles[0], part=problems.part, on_error=problems.add)
        return
    scenes = find_two_sides(inputs[0], inputs[1], roles, problems.add, problems.say)
    part = problems.part.among(scene.name for scene in scenes)
    for scene in scenes:
        if scene.name not in part:
            continue
        with problems.guard(scene.name):
            yield image_record(scene.name, {k: read_image(p) for k, p in scene.files.items()})


def in_words(protocol: dict[str, str]) -> str:
    """Return the protocol of a measurement as one line."""
    return "; ".join(f"{key}: {text}" for key, text in protocol.items())


# ---- The experiment of MSDI-Net, Fig. 6 ----------------------------------------------------------


def decouple_records(
    inputs: list[str], contextual: ContextualSimilarity, part: WorkPart, options: SimilarityOptions
) -> None:
    """Measure every pair of records, and print the averages next to the paper's."""
    from blurkit.cli.batch import Problems
    from blurkit.data.collection import collect
    from blurkit.reports.pictures import write_comparison
    from blurkit.reports.tables import print_table
    from blurkit.tasks.decoupling import CROP, PAPER, SHOWN, decouple, indicators, pair_up, summary

    pairing, seed = options.pairing, options.seed
    engine = shared.model_of(options, options).engine("reblurring")
    size = CROP if options.crop is None else options.crop
    problems = Problems(inputs)
    records = collect(inputs, on_error=problems.add)
    pairs = pair_up(len(records), pairing, seed)[part.number - 1 :: part.count]
    protocol = contextual.protocol(size, "blur, reblurred", "sharp") | {
        "pairs": f"{pairing}, seed {seed}" if pairing == "shuffled" else pairing,
        "reblurred by": f"{engine.name}, {engine.describe()['precision']}",
    }
    rows = []
    for first, second in track(pairs, "decoupling", len(pairs), "pair", options.quiet):
        with problems.guard(records.places[first]):
            a, b = records[first], records[second]
            with problems.guard(a.name):
                result = decouple(a, b, engine, contextual, size)
                if options.pictures is not None:
                    write_comparison(options.pictures, result.pictures, options.force, SHOWN)
                rows.append((f"{a.name}, {b.name}", result.distances))
                if options.json:
                    found = result.distances | {"positions": result.positions}
                    print_json({"a": a.name, "b": b.name, **found})
    if rows:
        total = summary([distances for _, distances in rows])
        if options.json:
            print_json({"total": total, "paper": PAPER | indicators(PAPER), "protocol": protocol})
        if not options.quiet:
            paper, own = _in_sentence(indicators(PAPER)), _in_sentence(total)
            print_table(
                "contextual distances of A, blurred and reblurred",
                ["A, B", "blur A, A", "reblurred A, A", "blur A, B", "reblurred A, B"],
                [
                    *((name, *values.values()) for name, values in rows if len(rows) <= TABLE_ROWS),
                    (f"mean of {len(rows)}", *(total[key] for key in PAPER)),
                    ("standard deviation", *(total[f"{key}_std"] for key in PAPER)),
                    ("paper, 555 pairs of GoPro", *PAPER.values()),
                ],
                note=f"here: {own}\npaper: {paper}\n{in_words(protocol)}",
            )
    problems.finish(len(rows), "compared")


def _in_sentence(values: dict[str, float]) -> str:
    return (
        "B is {ratio_blurred:.2f} times as far from blur A as A is, {ratio_reblurred:.2f} times as "
        "far from reblurred A; reblurring changes the distance to A by {deviation_same:+.1%}, to B "
        "by {deviation_other:+.1%}"
    ).format(**values)
