"""The pages of the documentation: their fenced blocks, and how their commands are run.

The word after the language of a block says why it is only parsed: `data` needs files that the
samples do not have, `long` takes minutes or a GPU, `install` changes the machine.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.shared import ROOT

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"^ *```([^\n]*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
RUN = {"sh", "console", "python"}
SHOWN = {"text", "json"}
MARKS = {"", "data", "install", "long"}
SAMPLES = "bash examples/samples.sh samples && cd samples"


@dataclass(frozen=True)
class Block:
    """A fenced block: the language and the mark of its first line, and its text."""

    language: str
    mark: str
    text: str

    @property
    def code(self) -> str:
        """What a reader types: in a `console` block, the lines behind a prompt."""
        if self.language != "console":
            return self.text
        return "".join(f"{line[2:]}\n" for line in self.text.splitlines() if line[:2] == "$ ")


def blocks(page: Path) -> Iterator[Block]:
    for info, text in FENCE.findall(page.read_text()):
        language, _, mark = info.partition(" ")
        yield Block(language, mark, text)


def script(page: Path) -> str:
    """The commands of a page in their order as one bash script, with its Python as one program."""
    found = [block for block in blocks(page) if block.language in RUN and not block.mark]
    lines = [block.code for block in found if block.language != "python"]
    if program := "".join(block.code for block in found if block.language == "python"):
        lines.append(f"python - <<'PYTHON'\n{program}PYTHON\n")
    return "".join(lines)


def run(
    commands: str, folder: Path, programs: Path = Path(sys.executable).parent, library: Path = ROOT
) -> subprocess.CompletedProcess[str]:
    """Run a script in a folder, up to the first command that fails, with this blurkit on the path.

    What the pages install is there already, so `pip` does nothing. Other `programs` and another
    `library` are those of an installed blurkit.
    """
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(library)}
    given = f"set -euo pipefail\npip() {{ :; }}\nset -x\n{commands}"
    return subprocess.run(
        ["bash", "-c", given], cwd=folder, env=environment, capture_output=True, text=True
    )
