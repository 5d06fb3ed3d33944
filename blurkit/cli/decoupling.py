"""The run of `blurkit contextual-sim --decoupling`: the experiment of the MSDI-Net paper."""

from __future__ import annotations

from blurkit.cli.batch import Problems
from blurkit.cli.common import print_json
from blurkit.cli.contextual_sim import SimilarityOptions
from blurkit.cli.contextual_sim_run import TABLE_ROWS, in_words
from blurkit.cli.shared import start
from blurkit.data.collection import collect
from blurkit.data.places import WorkPart
from blurkit.metrics.contextual import ContextualSimilarity
from blurkit.reports.pictures import write_comparison
from blurkit.reports.progress import track
from blurkit.reports.tables import print_table
from blurkit.tasks.decoupling import (
    CROP,
    PAPER,
    SHOWN,
    decouple,
    indicators,
    pair_up,
    summary,
)


def decouple_records(
    inputs: list[str],
    contextual: ContextualSimilarity,
    part: WorkPart,
    options: SimilarityOptions,
) -> None:
    """Measure every pair of records, and print the averages next to the paper's."""
    pairing, seed = options.pairing, options.seed
    engine, name = start("reblurring", options, options, options.quiet)
    size = CROP if options.crop is None else options.crop
    problems = Problems(inputs)
    records = collect(inputs, on_error=problems.add)
    pairs = pair_up(len(records), pairing, seed)[part[0] - 1 :: part[1]]
    protocol = contextual.protocol(size, "blur, reblurred", "sharp") | {
        "pairs": f"{pairing}, seed {seed}" if pairing == "shuffled" else pairing,
        "reblurred by": f"{name}, {engine.describe()['precision']}",
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
                    line = {"a": a.name, "b": b.name, **result.distances}
                    print_json(line | {"positions": result.positions})
    if rows:
        total = summary([distances for _, distances in rows])
        if options.json:
            published = PAPER | indicators(PAPER)
            print_json({"total": total, "paper": published, "protocol": protocol})
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
