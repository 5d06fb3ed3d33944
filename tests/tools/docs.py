"""Generate parts of the docs: the options of commands, the output of examples, the tree of files.

python -m tests.tools.docs            writes them into the pages
python -m tests.tools.docs --check    fails if a page is out of date

Pages are written by hand except for blocks that end with `<!-- end -->`. In docs/commands/, blocks
begin with `<!-- options -->` or `<!-- NAME.txt -->`, the output of an example in docs/pictures.sh
(`<!-- NAME.txt MARK -->` for one that tests do not run, see tests/pages.py);
in docs/architecture.md, with `<!-- tree -->`, every module and the first line of its docstring; in
docs/models.md, with `<!-- presets COMMAND SYSTEM -->`, every option and its values in the presets,
whose source in the last column is written by hand.
"""

from __future__ import annotations

import ast
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from blurkit.cli.app import COMMANDS, app, command_target
from blurkit.cli.train import TrainingCommand
from blurkit.options import flag
from blurkit.systems.system import named, trainings

PACKAGE = Path(__file__).parents[2] / "blurkit"
ARCHITECTURE = Path("docs/architecture.md")
PAGES = Path("docs/commands")
EXAMPLES = Path("docs/pictures")
MODELS = Path("docs/models.md")
BLOCK = re.compile(
    r"^<!-- (options|tree|presets \S+ \S+|\S+\.txt)( \w+)? -->$.*?^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)


def page(command: str) -> str:
    """Return the page of a command with its blocks filled in; a new page only has the options."""

    def filled(block: re.Match[str]) -> str:
        name, mark = block[1], block[2] or ""
        kind = "text" if name == "options" else f"console{mark}"
        text = _help(command) if name == "options" else (EXAMPLES / name).read_text()
        return f"<!-- {name}{mark} -->\n```{kind}\n{text.strip()}\n```\n<!-- end -->"

    path = PAGES / f"{command}.md"
    new = f"# blurkit {command}\n\n## Options\n\n<!-- options -->\n<!-- end -->\n"
    return BLOCK.sub(filled, path.read_text() if path.exists() else new)


def _help(command: str) -> str:
    """Return the help of a command with all options, for training commands those of all systems."""
    target = command_target(command)
    if not isinstance(target, TrainingCommand):
        return _output(command, "--help-all")
    first, *others = (_output(command, "--system", s, "--help-all") for s in target.choices())
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
    """Return one line for every module below a package's folder, indented by depth."""
    lines = [_line(folder / "__init__.py", f"{folder.name}/")]
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if (path / "__init__.py").exists():
            lines.append(tree(path))
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines.append(_line(path, path.name))
    return "\n  ".join("\n".join(lines).split("\n"))


def _line(path: Path, name: str) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return f"{name}  {' '.join(docstring.partition(chr(10) * 2)[0].split())}"


def models() -> str:
    """Return docs/models.md with the values of the presets in its tables."""

    def filled(block: re.Match[str]) -> str:
        _, command, system = block[1].split()
        return f"<!-- {block[1]} -->\n{presets(command, system, block[0])}\n<!-- end -->"

    return BLOCK.sub(filled, MODELS.read_text())


def presets(command: str, system: str, before: str) -> str:
    """Return a table of a system's options in all presets, with the sources of the one `before`."""
    folder, training = trainings(command)[system]
    kind = named(folder, "config", training.configuration)
    cells = (line.strip("| ").split(" | ") for line in before.splitlines() if line[:3] == "| `")
    sources = {first: last for first, *_, last in cells}
    values = {preset: kind.resolve(preset) for preset in kind.presets}
    rows = [["option", *(f"`{preset}`" for preset in values), "source"]]
    rows.append(["---"] * len(rows[0]))
    for f in fields(kind):
        told = (preset_value(getattr(options, f.name)) for options in values.values())
        rows.append([f"`{flag(f)}`", *told, sources.get(f"`{flag(f)}`", "")])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def preset_value(value: Any) -> str:
    """Return the value of an option as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(arguments: list[str]) -> int:
    """Write or check all pages; return the exit status."""
    stale = []
    pages = {PAGES / f"{command}.md": page(command) for command in COMMANDS}
    for path, text in {ARCHITECTURE: architecture(), MODELS: models(), **pages}.items():
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
