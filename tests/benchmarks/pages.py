"""What benchmarks share: their options, and how figures and tables get into docs/."""

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.io.writing import replacing
from blurkit.reports.tables import markdown_table
from blurkit.reports.values import to_json
from tests.shared import ROOT

DOCS = ROOT / "docs"
PAGE = DOCS / "benchmarks.md"


def options(doc: str | None, write: bool = True, **numbers: float) -> argparse.ArgumentParser:
    """Return a parser with the numbers that a benchmark has as options, and `--write`.

    `doc` is the docstring of its module, whose first line describes it.
    """
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    for name, value in numbers.items():
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default: {value}")
    if write:
        parser.add_argument("--write", action="store_true", help="write the results into docs/")
    return parser


def tell(text: str) -> None:
    """Print a line or a table on standard output at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table without the line break at its end."""
    return markdown_table(head, rows).strip()


def gained(gains: Sequence[float]) -> tuple[str, str, int]:
    """Return the mean and the least gain in dB, and how many are a loss of more than 0.1."""
    return f"{np.mean(gains):+.2f}", f"{min(gains):+.2f}", sum(gain < -0.1 for gain in gains)


def publish(write: bool, name: str, figures: Any, text: str, page: Path = PAGE) -> None:
    """Print the tables of a benchmark; to `write` them, put them and its figures into docs/."""
    tell(text)
    if write:
        keep(name, figures)
        fill(name, text, page)


def filled(page: str, mark: str, text: str) -> str:
    """Return a page with `text` between its marks. Raises ValueError if it has none."""
    block = re.compile(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- end {mark} -->)", re.DOTALL)
    if not block.search(page):
        raise ValueError(f"the page has no <!-- {mark} --> and <!-- end {mark} -->")
    return block.sub(lambda _: f"\n{text}\n\n", page)


def fill(mark: str, text: str, page: Path = PAGE) -> None:
    """Put `text` between the marks of a page of docs/."""
    page.write_text(filled(page.read_text(), mark, text))


def figures_file(name: str) -> Path:
    """Return the file in docs/ that holds the figures of a benchmark."""
    return DOCS / "benchmarks" / f"{name}.json"


def known(name: str) -> dict[str, Any]:
    """Return the figures of a benchmark that are in docs/, which may be none."""
    file = figures_file(name)
    return json.loads(file.read_text()) if file.exists() else {}


def keep(name: str, figures: Any, indent: int | None = None) -> None:
    """Write the figures of a benchmark into docs/."""
    with replacing(figures_file(name)) as partial:
        partial.write_text(to_json(figures, indent=indent) + "\n")
