"""Says inside a checkpoint what it was trained on, and under which terms.

python -m blurkit.weights.card examples/cards/msdi.tsv blurkit/weights/msdi.pt
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from pathlib import Path

from blurkit.errors import BlurkitError
from blurkit.io.checkpoints import load_checkpoint, save_checkpoint
from blurkit.reports.progress import say

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


def main(arguments: Sequence[str]) -> int:
    """Put the card of the first file into the checkpoint in the second; return the exit status."""
    if len(arguments) != 2:
        say("usage: python -m blurkit.weights.card DATA.tsv CHECKPOINT.pt")
        return 2
    table, output = map(Path, arguments)
    try:
        checkpoint = load_checkpoint(output)
        checkpoint.provenance["trained_on"] = card(table)
        save_checkpoint(checkpoint, output)
    except BlurkitError as error:
        say(f"error: {error}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
