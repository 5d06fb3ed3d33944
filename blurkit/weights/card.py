"""Says inside a checkpoint what it was trained on, and under which terms.

python -m blurkit.weights.card examples/cards/msdi.tsv blurkit/weights/msdi.pt
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_checkpoint, save_checkpoint
from blurkit.reports.progress import program

COLUMNS = ("data", "number", "use", "terms")


def card(path: Path) -> list[str]:
    """Return a line for each kind of training data in a table of `COLUMNS` between tabs.

    Raises BlurkitError if there is no such table in the file.
    """
    try:
        with path.open(newline="") as file:
            head, *rows = csv.reader(file, csv.excel_tab)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise BlurkitError(f"{path}: no table of training data can be read") from error
    if tuple(head) != COLUMNS or any(len(row) != len(COLUMNS) for row in rows):
        raise BlurkitError(f"{path}: needs the columns {', '.join(COLUMNS)}, separated by tabs")
    return [f"{data} ({number}): {use}; terms: {terms}" for data, number, use, terms in rows]


@program
def main(arguments: Sequence[str]) -> None:
    """Put the card of the first file into the checkpoint in the second."""
    parser = argparse.ArgumentParser("python -m blurkit.weights.card", description=__doc__)
    parser.add_argument("table", type=Path, help=f"a .tsv with the columns {', '.join(COLUMNS)}")
    parser.add_argument("checkpoint", type=Path, help="the checkpoint to change")
    o = parser.parse_args(arguments)
    checkpoint = load_checkpoint(o.checkpoint)
    checkpoint.provenance["trained_on"] = card(o.table)
    save_checkpoint(checkpoint, o.checkpoint)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
