"""The parts of the docs that are generated: commands' options, printed examples, the tree of files.

python -m blurkit.cli.reference            writes them into the pages
python -m blurkit.cli.reference --check    fails when a page is out of date

A page is written by hand around blocks that end with `<!-- end -->`. In docs/commands/ they begin
with `<!-- options -->` or `<!-- NAME.txt -->`, an example that docs/pictures.sh has run; in
docs/architecture.md with `<!-- tree -->`: every module with the first line of its docstring.
"""

from __future__ import annotations

import ast
import re
import sys
from importlib import import_module
from pathlib import Path

from typer.testing import CliRunner

from blurkit.cli.app import COMMANDS, app
from blurkit.cli.training import TrainingCommand

PACKAGE = Path(__file__).parents[1]
ARCHITECTURE = Path("docs/architecture.md")
PAGES = Path("docs/commands")
EXAMPLES = Path("docs/pictures")
BLOCK = re.compile(r"^<!-- (options|tree|\S+\.txt) -->$.*?^<!-- end -->$", re.MULTILINE | re.DOTALL)


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
    """Return all options of a command; of a training command, with those of every system."""
    module = COMMANDS[command][0]
    found = getattr(import_module(f"blurkit.cli.{module}"), module)
    if not isinstance(found, TrainingCommand):
        return _output(command, "--help-all")
    first, *others = (_output(command, "--system", s, "--help-all") for s in found.choices())
    heading = "Options of --system"
    return "\n".join([first, *(heading + text.partition(heading)[2] for text in others)])


def _output(*arguments: str) -> str:
    environment = {"COLUMNS": "90"}
    return CliRunner().invoke(app, arguments, prog_name="blurkit", env=environment).output


def architecture() -> str:
    """Return docs/architecture.md with the tree of the package in it."""
    block = f"<!-- tree -->\n```text\n{tree(PACKAGE)}\n```\n<!-- end -->"
    return BLOCK.sub(lambda _: block, ARCHITECTURE.read_text())


def tree(folder: Path) -> str:
    """Return every module below a package's folder, a line each, indented by depth."""
    lines = [_line(folder / "__init__.py", f"{folder.name}/")]
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if (path / "__init__.py").exists():
            lines.append(tree(path))
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines.append(_line(path, path.name))
    return "\n  ".join("\n".join(lines).split("\n"))


def _line(path: Path, name: str) -> str:
    told = ast.get_docstring(ast.parse(path.read_text())) or ""
    return f"{name}  {' '.join(told.partition(chr(10) * 2)[0].split())}"


def main(arguments: list[str]) -> int:
    """Write or check all pages; return the exit status."""
    stale = []
    pages = {PAGES / f"{command}.md": page(command) for command in COMMANDS}
    for path, text in {ARCHITECTURE: architecture(), **pages}.items():
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
