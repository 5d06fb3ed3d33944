"""The parts of docs/commands/ that cannot drift: options from the commands' own help, and examples.

python -m blurkit.cli.reference            writes them into the pages
python -m blurkit.cli.reference --check    fails when a page is out of date

A page is written by hand around blocks that begin with `<!-- options -->` or `<!-- NAME.txt -->`,
an example that docs/pictures.sh has run, and end with `<!-- end -->`.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from typer.testing import CliRunner

from blurkit.cli.app import COMMANDS, app

PAGES = Path("docs/commands")
EXAMPLES = Path("docs/pictures")
BLOCK = re.compile(r"^<!-- (options|\S+\.txt) -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


def page(command: str) -> str:
    """The page of a command with its blocks filled in; a new command's is its options alone."""

    def filled(block: re.Match[str]) -> str:
        what = block[1]
        kind = "text" if what == "options" else "console"
        text = _help(command) if what == "options" else (EXAMPLES / what).read_text()
        return f"<!-- {what} -->\n```{kind}\n{text.strip()}\n```\n<!-- end -->"

    path = PAGES / f"{command}.md"
    new = f"# blurkit {command}\n\n## Options\n\n<!-- options -->\n<!-- end -->\n"
    return BLOCK.sub(filled, path.read_text() if path.exists() else new)


def _help(command: str) -> str:
    environment = {"COLUMNS": "90"}
    return CliRunner().invoke(app, [command, "--help"], prog_name="blurkit", env=environment).output


def main(arguments: list[str]) -> int:
    """Write or check all pages; the exit status."""
    stale = []
    for command in COMMANDS:
        path, text = PAGES / f"{command}.md", page(command)
        if path.exists() and path.read_text() == text:
            continue
        stale.append(str(path))
        if "--check" not in arguments:
            path.write_text(text)
    if stale and "--check" in arguments:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run: just docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
