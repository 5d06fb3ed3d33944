"""The documentation: commands, links and presets are real, and every page runs as written."""

import ast
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib import import_module
from itertools import chain
from pathlib import Path

import pytest

from blurkit.cli.app import COMMANDS, load_command
from blurkit.options import flag
from blurkit.systems.system import named, paper_tables, systems, trainings
from tests.pages import FENCE, MARKS, PAGES, RUN, SAMPLES, SHOWN, blocks, run, script
from tests.shared import ROOT
from tests.tools.docs import preset_fields

SCRIPTS = [*sorted((ROOT / "examples").glob("*.sh")), ROOT / "docs/pictures.sh"]
PICTURES = ROOT / "docs/pictures"
PYTHON = re.compile(r"python3 [^\n]*<<'PY'\n(.*?)^PY$|python3 -c '(.*?)'", re.MULTILINE | re.DOTALL)
HERE = re.compile(r"^cat > (\S+) <<'PY'\n(.*?)^PY$", re.MULTILINE | re.DOTALL)
TRAININGS = [(folder, t) for folder, system in systems().items() for t in system.trainings]
ALL = [(name, ()) for name in COMMANDS]
ALL += [(training.command, ("--system", training.name)) for _, training in TRAININGS]
"""Every command, those that train with each of their systems."""

PAPERS = {
    "MSDI-Net": (4, 6, "msdi"),
    "MSFS-Net": (4, 8, "msfs"),
    "BGAN and DBGAN": (1, 8, "dbgan"),
    "Encoded blur kernel space": (4, 7, "kernel_space"),
}
"""By section of docs/papers.md, the paper's numbers of tables and figures, and its system."""


@pytest.mark.parametrize("paper", PAPERS)
def test_papers_are_complete(paper: str) -> None:
    """Every table and figure has a row, and printed scores are those that `eval --paper` adds."""
    tables, figures, system = PAPERS[paper]
    text = (ROOT / "docs/papers.md").read_text().partition(f"\n## {paper}\n")[2]
    lines = [s for s in text.partition("\n## ")[0].splitlines() if s.startswith("| ")]
    rows = [line.strip("| ").split(" | ") for line in lines if "supplement" not in line]
    named: dict[str, set[int]] = {"Table": set(), "Fig.": set()}
    title = re.compile(r"(Table|Fig\.) (\d)(?: (to|and) (\d))?:")
    for kind, first, link, last in title.findall("\n".join(row[0] for row in rows)):
        named[kind] |= {int(first), *(range(int(first), int(last) + 1) if link else ())}
    assert named == {"Table": {*range(1, tables + 1)}, "Fig.": {*range(1, figures + 1)}}
    tables_of_it = [m for table, m in paper_tables().items() if table.startswith(system)]
    known = {n for methods in tables_of_it for scores in methods.values() for n in scores.values()}
    assert known
    assert {n for row in rows if "SSIM" in row[1] for n in re.findall(r"\d+\.\d+", row[1])} <= known


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


each_page = pytest.mark.parametrize("page", PAGES, ids=name)


def blurkit_commands(text: str) -> Iterator[list[str]]:
    """The arguments of every `blurkit COMMAND ...` in some lines of shell."""
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|;&<>")
        words.whitespace_split = True
        part: list[str] = []
        for word in [*words, ";"]:
            if not set(word) <= set("|;&<>"):
                part.append(word)
                continue
            if "blurkit" in part and part[0] != "pip":
                yield part[part.index("blurkit") + 1 :]
            # What follows `>` is a file.
            part = ["to"] if word.startswith((">", "<")) else []


def shell_of(page: Path) -> Iterator[str]:
    """The shell in a page, whether it is run or only shown."""
    return (block.code for block in blocks(page) if block.language in ("sh", "console"))


@each_page
def test_every_command_parses(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("enc.json").write_text('{"system": "msdi", "seed": 10}')  # for --config, which is read
    for text in shell_of(page):
        for name, source in HERE.findall(text):  # code that options name
            Path(name).write_text(source)
        text = HERE.sub("", text)
        for command, *arguments in blurkit_commands(text):
            if command != "--help":
                assert command in COMMANDS, command
                # Parses, converts and checks as the command does, and runs nothing.
                load_command(command, arguments).make_context(command, arguments)


def test_the_python_in_scripts_imports_what_is_there() -> None:
    count = 0
    for source in chain(*(both for path in SCRIPTS for both in PYTHON.findall(path.read_text()))):
        for node in ast.walk(ast.parse(source)):
            for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                assert hasattr(import_module(node.module), alias.name), ast.unparse(node)
                count += 1
    assert count > 20


@pytest.mark.parametrize("path", SCRIPTS, ids=name)
def test_scripts_are_sound_and_name_options_that_exist(path: Path) -> None:
    subprocess.run(["bash", "-n", str(path)], check=True)
    known = {
        option
        for command, chosen in ALL
        for parameter in load_command(command, chosen).params
        for option in [*parameter.opts, *parameter.secondary_opts]
    }
    text = re.sub(r"^ *#.*$", "", path.read_text(), flags=re.MULTILINE)
    # torchrun's, those of tests/tools and of the deconvolution's training
    elsewhere = {"--standalone", "--nproc-per-node", "--codes", "--pairs", "--frames"}
    elsewhere |= {"--count", "--side", "--photos", "--windows", "--sharp", "--refine"}
    elsewhere |= {"--constant", "--draft", "--keep"}
    used = set(re.findall(r"(?<=[\s(+-])--[a-z][a-z-]*", text)) - elsewhere
    assert used and used <= known, used - known
    for command in re.findall(r"\bblurkit ([a-z][a-z-]+)\b", text):
        assert command in COMMANDS, command


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if re.match(r"https?:", target):
            continue
        path, _, heading = target.partition("#")
        found = page.parent / path if path else page
        assert found.exists(), target
        if heading:
            headings = re.findall(r"^#+ (.+)$", found.read_text(), re.MULTILINE)
            assert heading in {anchor(text) for text in headings}, target


def anchor(heading: str) -> str:
    """The name that a heading gets on GitHub."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("path", [*PAGES, *SCRIPTS, *sorted(PICTURES.glob("*.txt"))], ids=name)
def test_nothing_names_a_place_of_one_machine(path: Path) -> None:
    assert not re.search(r"(?<![\w.~$}])/(home|root|tmp|work|Users|mnt)/", path.read_text())


def test_every_command_has_a_page_with_a_link_to_it() -> None:
    index = (ROOT / "docs/commands/README.md").read_text()
    for command, (_, summary) in COMMANDS.items():
        assert f"[{command}]({command}.md)" in index
        page = (ROOT / f"docs/commands/{command}.md").read_text()
        assert " ".join(page.split()).startswith(f"# blurkit {command} {summary[:-1]}")
        assert f"`{command}`" in (ROOT / "README.md").read_text()


def test_the_front_page_is_short() -> None:
    """It has room for what everybody looks for, and a door for each who knows what it is."""
    front, heading, _ = (ROOT / "README.md").read_text().partition("\n## Read on\n")
    assert heading and len(front.splitlines()) <= 90
    assert front.count("](docs/pictures/") == 3


def test_pictures_are_few_and_used() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    pictures = [path for path in PICTURES.iterdir() if path.suffix != ".md"]
    for path in pictures:
        assert f"pictures/{path.name}" in pages or f"<!-- {path.name}" in pages, path.name
    assert sum(path.stat().st_size for path in pictures) < 2_000_000


PRESETS = [
    f"{training.command} {training.name}"
    for folder, training in TRAININGS
    if len(named(folder, "config", training.configuration).presets) > 1
]
"""The trainings that have presets, as the docs name their tables."""


@pytest.mark.parametrize("block", PRESETS)
def test_every_preset_value_has_a_source(block: str) -> None:
    """The values are generated, and checked by `tests.tools.docs --check`."""
    command, system = block.split()
    folder, training = trainings(command)[system]
    page = (ROOT / f"docs/systems/{folder}.md").read_text()
    table = page.split(f"<!-- presets {block} -->\n")[1].split("<!-- end -->")[0]
    head, _, *rows = ([cell.strip() for cell in row[1:-1].split("|")] for row in table.splitlines())
    kind = named(folder, "config", training.configuration)
    assert head == ["option", *(f"`{preset}`" for preset in kind.presets), "source"]
    above = page.split(f"<!-- presets {block} -->\n")[0]
    known, flags = {row[0] for row in rows}, [f"`{flag(f)}`" for f in preset_fields(kind)]
    assert [row[0] for row in rows] == [name for name in flags if name in known]
    assert all(name in known or f"\n| {name} |" in above for name in flags)
    assert all(row[-1] for row in rows)


# ---- pages are run -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `examples/samples.sh` makes, once for all pages."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "examples", folder / "examples")
    done = run(SAMPLES, folder)
    assert done.returncode == 0, done.stderr
    return folder / "samples"


@each_page
def test_every_block_is_run_or_says_why_not(page: Path) -> None:
    rest = FENCE.sub("", page.read_text())
    assert "```" not in rest and "~~~" not in rest, "a fence that is not understood"
    assert not re.search(r"^[ \t]+(\$ )?blurkit ", rest, re.MULTILINE), "commands without a fence"
    for block in blocks(page):
        assert block.language in RUN | SHOWN, block
        assert block.mark in (MARKS if block.language in RUN else {""}), block


def test_few_blocks_are_not_run() -> None:
    found = [block for page in PAGES for block in blocks(page) if block.language in RUN]
    assert sum(bool(block.mark) for block in found) < len(found) / 4


def test_a_command_that_fails_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```sh\necho one\nfalse | cat\n```\n```sh\necho two\n```\n")
    done = run(script(tmp_path / "page.md"), tmp_path)
    assert (done.returncode, done.stdout) == (1, "one\n")


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if script(page)], ids=name)
def test_every_command_runs_as_written(page: Path, samples: Path, tmp_path: Path) -> None:
    """In a clone if the page makes the samples itself, otherwise in the samples."""
    if SAMPLES in script(page):
        shutil.copytree(ROOT / "examples", tmp_path / "examples")
    else:
        shutil.copytree(samples, tmp_path, dirs_exist_ok=True)
    done = run(script(page), tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]


def test_what_pages_install_exists() -> None:
    project = (ROOT / "pyproject.toml").read_text()
    for page in PAGES:
        for extra in re.findall(r"(?:'\.|blurkit)\[(\w+)\]'", page.read_text()):
            assert f"\n{extra} = [" in project, (page, extra)
