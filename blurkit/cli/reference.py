"""The command reference, written from the commands' own help so that it cannot drift.

python -m blurkit.cli.reference docs/commands.md            writes it
python -m blurkit.cli.reference --check docs/commands.md    fails when it is out of date
"""

from __future__ import annotations

import sys
from pathlib import Path

from typer.testing import CliRunner

from blurkit.cli.app import COMMANDS, app

HEADER = """# Command reference

Written by `just docs` from the commands' own `--help`; edit the commands, not this page.

Every command takes images, folders, datasets, shards (`.h5`) or `-`, a stream on standard input.
Data goes to standard output, everything for people to standard error. Exit status: 0 done,
1 something failed (the last line says what), 2 wrong usage, 130 interrupted, 143 terminated.
"""


def reference() -> str:
    """The page as Markdown."""
    runner = CliRunner()
    parts = [HEADER]
    for name in COMMANDS:
        shown = runner.invoke(app, [name, "--help"], prog_name="blurkit", env={"COLUMNS": "90"})
        parts.append(f"## blurkit {name}\n\n```text\n{shown.output.strip()}\n```\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    """Write or check the page; the exit status."""
    check = "--check" in arguments
    path = Path(arguments[-1])
    if not check:
        path.write_text(reference())
    elif not path.exists() or path.read_text() != reference():
        sys.stderr.write(f"{path} is out of date; run: just docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
