"""Generate parts of the docs: options, printed examples, presets, the tree of modules.

python -m tests.tools.docs            writes them into the pages
python -m tests.tools.docs --check    fails if a page is out of date

Pages are written by hand except for blocks that end with `<!-- end -->` and begin with one of:

- `<!-- commands -->`: every command with its summary;
- `<!-- options -->`: the options of the page's command; options that three commands or more
  describe in the same words are only named, and so are those of `train-reblur` that `train-deblur`
  has, and those of the default system of a training;
- `<!-- shared options -->`: these options;
- `<!-- NAME.txt -->`: the output of an example in docs/pictures.sh (`<!-- NAME.txt MARK -->` for
  one that tests do not run, see tests/pages.py);
- `<!-- presets COMMAND SYSTEM -->`: a system's options and their values in all presets, with the
  sources in the last column, which are written by hand; a page's second table leaves out the rows
  of its first;
- `<!-- tree -->`: every package with the first line of its docstring and the names of its modules,
  except those that all systems have.
"""

import ast
import re
import sys
import textwrap
from collections import Counter
from dataclasses import Field, fields
from functools import cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from blurkit.cli.app import COMMANDS, app
from blurkit.options import flag
from blurkit.systems.system import named, trainings

PACKAGE = Path(__file__).parents[2] / "blurkit"
COMMAND_PAGES = Path("docs/commands")
EXAMPLES = Path("docs/pictures")
WIDTH = 120
"""The width of help and, in docs/pictures.sh, of examples; prose is wrapped at 100."""
SHARED = 3
"""The number of commands that must describe an option alike to make it a shared option."""
TWINS = {"train-reblur": "train-deblur"}
"""Commands whose options are only named if another's page describes them in the same words."""
OWN = ("sharp_pairs", "synthesize", "synthetic_share", "mix")
"""Options of every training that are blurkit's own; tables omit them where no preset differs."""
OF_SYSTEMS = ("config.py", "inference.py", "networks.py", "recipe.py")
"""Modules of a system's folder, which the tree leaves out."""
BLOCK = re.compile(
    r"^<!-- (commands|options|shared options|tree|presets \S+ \S+|\S+\.txt)( \w+)? -->$"
    r".*?^<!-- end -->$",
    re.MULTILINE | re.DOTALL,
)


def filled(text: str, name: str) -> str:
    """Return the text of the page `name` with all of its blocks generated."""
    above: dict[str, str] = {}  # what the page's tables of presets have: options, values, sources

    def block(old: re.Match[str]) -> str:
        kind, mark = old[1], old[2] or ""
        if kind == "commands":
            new = command_table()
        elif kind == "options":
            new = options(name)
        elif kind == "shared options":
            new = fenced("text", "\n".join(shared_options().values()))
        elif kind == "tree":
            new = fenced("text", tree(PACKAGE))
        elif kind.startswith("presets "):
            _, command, system = kind.split()
            new = presets(command, system, old[0], above)
        else:
            new = fenced(f"console{mark}", (EXAMPLES / kind).read_text())
        return f"<!-- {kind}{mark} -->\n{new}\n<!-- end -->"

    return BLOCK.sub(block, text)


def fenced(language: str, text: str) -> str:
    """Return a fenced block."""
    return "\n".join([f"```{language}", text.strip("\n"), "```"])


def command_table() -> str:
    """Return a table of the commands, with links to their pages and their summaries."""
    rows = [f"| [{name}]({name}.md) | {summary} |" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(["| command | what it does |", "|---|---|", *rows])


def options(command: str) -> str:
    """Return the arguments and options of a command, and the names of its shared options."""
    sections = help_sections(command)
    shared, twin = shared_options(), TWINS.get(command)
    known = {words(e) for e in entries(twin)} if twin else set()
    names: list[str] = []
    twins: list[str] = []
    own: list[str] = []
    blocks: list[str] = []
    for heading, *lines in (section.splitlines() for section in sections):
        kept = [heading]
        for entry in split_entries(lines):
            if heading.startswith("Options of --system"):
                own.append(option_names(entry))
            elif words(entry) in shared:
                names.append(option_names(entry))
            elif words(entry) in known:
                twins.append(option_names(entry))
            else:
                kept.append(entry)
        if len(kept) > 1:
            blocks.append("\n".join(kept))
    text = f"[Options that commands share](README.md#shared-options): {', '.join(names)}."
    if twins:
        text += f" [Options of {twin}]({twin}.md#options), too: {', '.join(twins)}."
    if own:
        text += f" Options of the [default system](../systems/README.md): {', '.join(own)}."
    wrapped = textwrap.fill(text, 100, break_on_hyphens=False)
    return "\n\n".join([fenced("text", "\n\n".join(blocks)), wrapped])


@cache
def help_sections(command: str) -> list[str]:
    """Return the lists of arguments and options of a command."""
    arguments = (command, "--help-all")
    output = CliRunner().invoke(app, arguments, prog_name="blurkit", terminal_width=WIDTH).output
    sections = output.strip().split("\n\n")
    return [s for s in sections if re.match(r"(Arguments|Options)\b.*:\n", s)]


def entries(command: str) -> list[str]:
    """Return the entries of all options of a command."""
    sections = [s for s in help_sections(command) if s.startswith("Options")]
    return [entry for s in sections for entry in split_entries(s.splitlines()[1:])]


def split_entries(lines: list[str]) -> list[str]:
    """Return the entries of a list of options, each with the lines of its help."""
    return re.split(r"\n(?=  \S)", "\n".join(lines))


def option_names(entry: str) -> str:
    """Return the names of an option, without its values and help."""
    left = re.split(r"\s{2,}", entry.strip())[0]
    return ", ".join(f"`{name}`" for name in re.findall(r"(?<!\S)--?[a-z][\w-]*", left))


@cache
def shared_options() -> dict[str, str]:
    """Return the options that several commands describe in the same words: the words, the entry."""
    found: dict[str, Counter[str]] = {}
    for command in COMMANDS:
        for entry in entries(command):
            found.setdefault(words(entry), Counter())[entry] += 1
    return {
        text: forms.most_common(1)[0][0] for text, forms in found.items() if forms.total() >= SHARED
    }


def words(entry: str) -> str:
    """Return the text of an entry, however its columns are aligned."""
    return " ".join(entry.split())


def tree(folder: Path) -> str:
    """Return a package's summary and modules, then those of the packages in it, indented by depth.

    The modules of the whole package have a line each, with their summaries.
    """
    lines = [_line(folder / "__init__.py", f"{folder.name}/")]
    left_out = ("__init__.py", *(OF_SYSTEMS if folder.parent.name == "systems" else ()))
    modules = [path for path in sorted(folder.glob("*.py")) if path.name not in left_out]
    if folder == PACKAGE:
        lines += [_line(path, path.name) for path in modules]
    elif modules:
        lines += textwrap.wrap(", ".join(path.stem for path in modules), 90)
    lines += [tree(path.parent) for path in sorted(folder.glob("*/__init__.py"))]
    return "\n  ".join("\n".join(lines).split("\n"))


def _line(path: Path, name: str) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    return f"{name}  {' '.join(docstring.partition(chr(10) * 2)[0].split())}"


def presets(command: str, system: str, before: str, above: dict[str, str]) -> str:
    """Return a table of a system's options in all presets, with the sources of the one `before`.

    Rows that are in a table `above`, by values with their source, are left out; others are added.
    """
    folder, training = trainings(command)[system]
    kind = named(folder, "config", training.configuration)
    old = (line.strip("| ").split(" | ") for line in before.splitlines() if line[:3] == "| `")
    sources = {first: last for first, *_, last in old}
    values = {preset: kind.resolve(preset) for preset in kind.presets}
    rows = [["option", *(f"`{preset}`" for preset in values), "source"]]
    rows.append(["---"] * len(rows[0]))
    for f in preset_fields(kind):
        cells = [preset_value(getattr(options, f.name)) for options in values.values()]
        row, source = [f"`{flag(f)}`", *cells], sources.get(f"`{flag(f)}`", "")
        if source not in ("", above.get(str(row))) or str(row) not in above:
            rows.append([*row, source])
            above[str(row)] = source
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def preset_fields(kind: Any) -> list[Field[Any]]:
    """Return the options in the table of a configuration: all but `OWN` that no preset changes."""
    values = [kind.resolve(preset) for preset in kind.presets]
    return [
        f
        for f in fields(kind)
        if f.name not in OWN or len({getattr(options, f.name) for options in values}) > 1
    ]


def preset_value(value: Any) -> str:
    """Return the value of an option as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def main(arguments: list[str]) -> int:
    """Write or check all pages; return the exit status."""
    pages = {path: path.read_text() for path in sorted(Path("docs").rglob("*.md"))}
    for command in COMMANDS:
        new = f"# blurkit {command}\n\n## Options\n\n<!-- options -->\n<!-- end -->\n"
        pages.setdefault(COMMAND_PAGES / f"{command}.md", new)
    stale = []
    for path, text in pages.items():
        new = filled(text, path.stem)
        if path.exists() and new == text:
            continue
        stale.append(str(path))
        if "--check" not in arguments:
            path.write_text(new)
    if stale and "--check" in arguments:
        sys.stderr.write(f"out of date: {', '.join(stale)}; run: just docs\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
