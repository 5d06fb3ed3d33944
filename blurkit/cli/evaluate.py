"""`blurkit eval`: measure results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from blurkit.cli.common import Json, Part, Problems, Quiet, print_json

TABLE_ROWS = 50
"""Longer sets are shown by their lowest scores; a terminal is no place for a thousand rows."""


def evaluate(
    inputs: Annotated[
        list[str],
        typer.Argument(help="Shards or - with restored and sharp images; or RESTORED/ SHARP/."),
    ],
    pictures: Annotated[
        Path | None,
        typer.Option(help="Folder for pictures of blur, restored and sharp side by side."),
    ] = None,
    part: Part = "1/1",
    json: Json = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing pictures.")] = False,
    quiet: Quiet = False,
) -> None:
    """Measure PSNR and SSIM against sharp images.

    SSIM comes in two kinds: per channel (scikit-image, BasicSR) and MATLAB's 3-D one, which the
    papers' GoPro tables show. Values are rounded to 8 bits first, whatever the depth.

    Examples: blurkit eval restored.h5; blurkit eval restored/ sharp/; ... | blurkit eval - --json
    """
    from blurkit.data.sources import parse_part, read_records
    from blurkit.metrics.scores import PROTOCOL, SCORES, score, summary
    from blurkit.reports.pictures import write_comparison
    from blurkit.reports.progress import track
    from blurkit.reports.tables import print_table

    problems = Problems()
    share = parse_part(part)
    if _are_two_sides(inputs):
        from blurkit.data.pairs import read_two_sides

        records = read_two_sides(inputs[0], inputs[1], part=share, on_error=problems.add)
    else:
        records = read_records(inputs, part=share, on_error=problems.add)
    rows = []
    for record in track(records, "eval", None, "record", quiet):
        with problems.guard(record.name):
            rows.append((record.name, score(record)))
            if json:
                print_json({"name": record.name, **rows[-1][1]})
            if pictures is not None:
                write_comparison(pictures, record, force)
    total = summary([scores for _, scores in rows])
    if json:
        print_json({"total": total, "protocol": PROTOCOL})
    if not quiet and rows:
        columns = [name for name in ("psnr_blur", *SCORES) if total.get(name) is not None]
        shown = rows
        if len(rows) > TABLE_ROWS:
            shown = sorted(rows, key=lambda row: row[1]["psnr"] or 0)[:TABLE_ROWS]
        print_table(
            "eval" if shown is rows else f"eval: the {TABLE_ROWS} lowest (--json gives all)",
            ["image", *columns],
            [
                *((name, *(scores.get(column) for column in columns)) for name, scores in shown),
                (f"mean of {total['images']}", *(total[column] for column in columns)),
            ],
            note="; ".join(f"{key}: {text}" for key, text in PROTOCOL.items()),
        )
    problems.finish(len(rows), "evaluated")


def _are_two_sides(inputs: list[str]) -> bool:
    """Whether the inputs are restored and sharp images apart: two folders, or two image files."""
    if len(inputs) != 2 or "-" in inputs:
        return False
    from blurkit.io.images import is_image
    from blurkit.io.shards import is_shard

    first, second = map(Path, inputs)
    if first.is_dir() and second.is_dir():
        return not any(is_shard(path) for path in [*first.iterdir(), *second.iterdir()])
    return is_image(first) and is_image(second)
