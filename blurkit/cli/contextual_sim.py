"""`blurkit contextual-sim`: contextual similarity, and the decoupling experiment made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from blurkit.cli.common import (
    Device,
    EncoderFiles,
    Force,
    Json,
    Part,
    Precision,
    Problems,
    Quiet,
    Seed,
    load_checkpoints,
    print_json,
    refuse_two_streams,
    start_engine,
)

if TYPE_CHECKING:
    from blurkit.data.collection import Collection
    from blurkit.io.records import Record
    from blurkit.metrics.contextual import ContextualSimilarity
    from blurkit.tasks.decoupling import Decoupled

TABLE_ROWS = 50
"""Longer sets are shown by their largest distances; a terminal is no place for a thousand rows."""

X, Y = ("restored", "reblurred", "blur"), "sharp"
"""The images of a record that are compared unless others are named; of X the first it has."""


def contextual_sim(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Two images X Y; two folders X/ Y/; or datasets, shards, -."),
    ],
    images: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="X Y",
            help="Which images of a record are X and Y; else restored, reblurred or blur, and "
            "sharp.",
            show_default=False,
        ),
    ] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            help="Layer of the feature network; repeated ones are summed; else relu3_4 of VGG-19, "
            "its like of others.",
            show_default=False,
        ),
    ] = None,
    bandwidth: Annotated[float, typer.Option(help="h in the weights exp((1 - d) / h).")] = 1.0,
    distance: Annotated[
        Literal["cosine", "l1", "l2"], typer.Option(help="Distance of two features; l2 is squared.")
    ] = "cosine",
    features: Annotated[
        Path | None,
        typer.Option(
            help="Feature network; else BLURKIT_FEATURES or VGG-19 in torch's cache.",
            show_default=False,
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch VGG-19 (548 MB) when none is at hand.")
    ] = False,
    crop: Annotated[
        int | None,
        typer.Option(
            min=0,
            help="Side of a crop from the middle, 0: whole images; default 0, for --decoupling "
            "256.",
            show_default=False,
        ),
    ] = None,
    decoupling: Annotated[
        bool, typer.Option("--decoupling", help="The experiment of the MSDI-Net paper, see above.")
    ] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            "-c",
            help="Networks that reblur, for --decoupling; else those that come with blurkit.",
            show_default=False,
        ),
    ] = None,
    encoder: EncoderFiles = [],  # noqa: B006
    pairing: Annotated[
        Literal["halves", "neighbours", "shuffled"],
        typer.Option(help="How --decoupling divides the records into pairs A, B."),
    ] = "halves",
    seed: Seed = 0,
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder for A, blur A, blur B and reblurred A side by side (Fig. 6)."),
    ] = None,
    part: Part = "1/1",
    device: Device = "auto",
    precision: Precision = "auto",
    json: Json = False,
    force: Force = False,
    quiet: Quiet = False,
) -> None:
    """Measure the contextual similarity of images that need not be aligned.

    What is shown is the distance -log CX(X, Y): 0 is the same, smaller is more similar. Values
    compare only where network, layers, bandwidth and image size agree.

    --decoupling reblurs sharp images A with the degradation of other blurry images B, and holds
    the result, and the blurry A, to A and to B. The paper does not say how it pairs the images:
    here the first half of the records goes with the second, in order, so that A and B are of
    different scenes.

    Examples: blurkit contextual-sim blurry.png sharp.png;
    blurkit contextual-sim shards/test-*.h5 --decoupling
    """
    from blurkit.errors import UsageError

    if not decoupling and (checkpoint is not None or encoder or pictures is not None):
        raise UsageError("-c, --encoder and --pictures go with --decoupling")
    if decoupling and images is not None:
        raise UsageError("--decoupling takes blur and sharp; leave --images out")
    refuse_two_streams(inputs, [checkpoint, *encoder])
    from blurkit.data.sources import parse_part
    from blurkit.engine.device import choose_device
    from blurkit.metrics.contextual import ContextualSimilarity, contextual_network
    from blurkit.nn.features import find_features

    share = parse_part(part)
    network = find_features(features, download, ", or fetch VGG-19 (548 MB) with --download")
    backbone = contextual_network(network, layer or (), choose_device(device))
    contextual = ContextualSimilarity(backbone, bandwidth, distance)
    if not decoupling:
        _compare(inputs, images, contextual, crop or 0, share, json, quiet)
        return
    from functools import partial

    from blurkit.data.collection import collect
    from blurkit.tasks.decoupling import CROP, decouple, pair_up
    from blurkit.tasks.reblur import reblurring_network

    loaded = load_checkpoints(checkpoint, encoder, quiet)
    engine = start_engine(reblurring_network(*loaded), loaded[0], None, None, device, precision)
    size = CROP if crop is None else crop
    problems = Problems()
    records = collect(inputs, on_error=problems.add)
    pairs = pair_up(len(records), pairing, seed)[share[0] - 1 :: share[1]]
    work = partial(decouple, engine=engine, contextual=contextual, crop=size)
    protocol = contextual.protocol(size, "blur, reblurred", "sharp") | {
        "pairs": f"{pairing}, seed {seed}" if pairing == "shuffled" else pairing,
        "reblurred by": f"{loaded[0].name}, {engine.describe()['precision']}",
    }
    _decouple(records, pairs, work, protocol, problems, pictures, force, json, quiet)


# ---- two images of each record -------------------------------------------------------------------


def _compare(
    inputs: list[str],
    images: tuple[str, str] | None,
    contextual: ContextualSimilarity,
    crop: int,
    part: tuple[int, int],
    json: bool,
    quiet: bool,
) -> None:
    """Measure X against Y in every record."""
    from dataclasses import asdict

    from blurkit.data.crops import central_crop
    from blurkit.reports.progress import track
    from blurkit.reports.tables import print_table

    first, second = ((images[0],), images[1]) if images else (X, Y)
    problems = Problems()
    rows = []
    records = _read(inputs, (first[-1], second), part, problems)
    for record in track(records, "contextual-sim", None, "record", quiet):
        with problems.guard(record.name):
            x, y = record.image(*first), record.image(second)
            if crop:
                x, y = central_crop(x, crop, crop), central_crop(y, crop, crop)
            found = contextual(x, y)
            rows.append((record.name, found))
            if json:
                print_json({"name": record.name, **asdict(found)})
    if rows:
        distance, similarity = (
            sum(getattr(found, key) for _, found in rows) / len(rows)
            for key in ("distance", "similarity")
        )
        protocol = contextual.protocol(crop, " or ".join(first), second)
        total = {"images": len(rows), "distance": distance, "similarity": similarity}
        if json:
            print_json({"total": total, "protocol": protocol})
        if not quiet:
            shown = sorted(rows, key=lambda row: -row[1].distance)[:TABLE_ROWS]
            few = len(rows) <= TABLE_ROWS
            print_table(
                "contextual similarity"
                + ("" if few else f": the {TABLE_ROWS} least alike (--json gives all)"),
                ["image", "distance", "CX", "positions of X, Y"],
                [
                    *(
                        (name, found.distance, found.similarity, "{}, {}".format(*found.positions))
                        for name, found in (rows if few else shown)
                    ),
                    (f"mean of {len(rows)}", distance, similarity, ""),
                ],
                note=_told(protocol),
            )
    problems.finish(len(rows), "compared")


def _read(
    inputs: list[str], roles: tuple[str, str], part: tuple[int, int], problems: Problems
) -> Iterator[Record]:
    """The records of the inputs; images that lie apart, of any two sizes, get the `roles`."""
    from blurkit.data.pairs import are_two_sides, find_two_sides
    from blurkit.data.sources import read_records
    from blurkit.io.images import image_record, read_image

    if not are_two_sides(inputs):
        yield from read_records(inputs, image=roles[0], part=part, on_error=problems.add)
        return
    scenes = find_two_sides(inputs[0], inputs[1], roles, problems.add)
    for scene in scenes[part[0] - 1 :: part[1]]:
        with problems.guard(scene.name):
            yield image_record(scene.name, {k: read_image(p) for k, p in scene.files.items()})


# ---- the decoupling experiment -------------------------------------------------------------------


def _decouple(
    records: Collection,
    pairs: list[tuple[int, int]],
    work: Callable[[Record, Record], Decoupled],
    protocol: dict[str, str],
    problems: Problems,
    pictures: Path | None,
    force: bool,
    json: bool,
    quiet: bool,
) -> None:
    """Measure every pair, and put the averages beside the paper's."""
    from blurkit.reports.pictures import write_comparison
    from blurkit.reports.progress import track
    from blurkit.reports.tables import print_table
    from blurkit.tasks.decoupling import PAPER, SHOWN, indicators, summary

    rows = []
    for first, second in track(pairs, "decoupling", len(pairs), "pair", quiet):
        with problems.guard(records.places[first]):
            a, b = records[first], records[second]
            with problems.guard(a.name):
                found = work(a, b)
                if pictures is not None:
                    write_comparison(pictures, found.pictures, force, SHOWN)
                rows.append((f"{a.name}, {b.name}", found.distances))
                if json:
                    told = {"a": a.name, "b": b.name, **found.distances}
                    print_json(told | {"positions": found.positions})
    if rows:
        total = summary([distances for _, distances in rows])
        if json:
            paper = PAPER | indicators(PAPER)
            print_json({"total": total, "paper": paper, "protocol": protocol})
        if not quiet:
            paper_line, line = _in_words(indicators(PAPER)), _in_words(total)
            print_table(
                "contextual distances of A, blurred and reblurred",
                ["A, B", "blur A, A", "reblurred A, A", "blur A, B", "reblurred A, B"],
                [
                    *((name, *found.values()) for name, found in rows if len(rows) <= TABLE_ROWS),
                    (f"mean of {len(rows)}", *(total[key] for key in PAPER)),
                    ("standard deviation", *(total[f"{key}_std"] for key in PAPER)),
                    ("paper, 555 pairs of GoPro", *PAPER.values()),
                ],
                note=f"here: {line}\npaper: {paper_line}\n{_told(protocol)}",
            )
    problems.finish(len(rows), "compared")


def _in_words(found: dict[str, float]) -> str:
    return (
        "the other content is {ratio_blurred:.2f} times as far as the same, reblurred "
        "{ratio_reblurred:.2f} times; reblurred is off from blurred by {deviation_same:+.1%} and "
        "{deviation_other:+.1%}"
    ).format(**found)


def _told(protocol: dict[str, str]) -> str:
    return "; ".join(f"{key}: {text}" for key, text in protocol.items())
