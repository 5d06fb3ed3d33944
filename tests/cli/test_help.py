"""Help: quick, complete, and the same in the reference."""

import re
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

import blurkit
from blurkit.cli.app import COMMANDS, app, load_command
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import IMAGE_SUFFIXES
from blurkit.io.shards import SHARD_SUFFIXES
from blurkit.systems.system import Training, named, systems
from tests.cli.command import fresh
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.shared import ROOT
from tests.tools import docs

REFUSED = {
    "prepare": "x --copies 2",
    "train-reblur": "x -o x.txt",
    "train-deblur": "x --system msfs --hidden 8",
    "deblur": "x --method network --keep-kernel x.png",
    "blind-deblur": "x --region 1",
    "reblur": "x --random --noise",
    "transfer": "x",
    "interpolate": "x y -o - --json",
    "eval": "x --encoder y",
    "contextual-sim": "x y --encoder z",
    "export": "x -o x.pt",
    "info": "x --size 9",
}
"""Wrong usage of every command."""

HEAVY = {"torch", "numpy", "scipy", "h5py", "PIL", "imageio", "av", "rich", "tqdm", "ssl"}


def test_help_and_refusals_need_no_heavy_import() -> None:
    """All in one process, so that a module counts wherever it is imported first."""
    assert REFUSED.keys() == COMMANDS.keys()
    runs = [["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)]
    runs += [[name, *words.split()] for name, words in REFUSED.items()]
    script = (
        "import sys\n"
        "from blurkit.cli.app import app\n"
        f"for arguments in {runs}:\n"
        "    try: app(arguments)\n"
        "    except SystemExit as end: status = end.code\n"
        "    assert status == (0 if {'--help', '--version'} & {*arguments} else 2), arguments\n"
        f"    assert not {HEAVY} & set(sys.modules), arguments\n"
    )
    ran = fresh("-c", script)
    assert ran.status == 0, ran.err


def test_help_names_every_command_in_three_ways() -> None:
    ran = done("--help")
    for name in COMMANDS:
        assert re.search(rf"^  {name}  +\w.+$", ran.out.decode(), re.MULTILINE)
    assert done("-h").out == ran.out == done("help").out
    assert done("help", "eval").out == done("eval", "--help").out
    unknown = invoke("help", "nothing")
    assert unknown.status == 2 and "No such command 'nothing'" in unknown.lines[-1]


def test_wrong_words_are_answered_with_what_to_type() -> None:
    Path("my photo").write_text("")
    methods = "'x' is not one of 'auto', 'shake', 'network'; see blurkit"
    told = "{0}: is not a command; to deblur it, type blurkit deblur {1}"
    cases = {
        ("my photo", "-q"): told.format("my photo", "'my photo' -q"),
        ("photos/a.jpg",): told.format("photos/a.jpg", "photos/"),
        ("deblur", "a", "--method", "x"): methods,
        ("deblur", "a", "--metod", "x"): "No such option: --metod",
        ("deblur",): "Missing argument 'inputs'; see blurkit deblur --help",
    }
    assert_each_refused(cases)
    endings = {*invoke("deblur", "my photo").lines[0].partition("known endings are ")[2].split()}
    assert endings == IMAGE_SUFFIXES | FILM_SUFFIXES | SHARD_SUFFIXES


TRAININGS = [(folder, t) for folder, system in systems().items() for t in system.trainings]


@pytest.mark.parametrize(
    ("name", "system"),
    [(name, "") for name in COMMANDS if not name.startswith("train")]
    + [(training.command, training.name) for _, training in TRAININGS],
)
def test_help_fits_two_screens(name: str, system: str) -> None:
    """Rare options are behind --help-all, which the last line says."""
    chosen = ["--system", system] if system else []
    shown, everything = (
        CliRunner(env={"COLUMNS": "80"}).invoke(app, [name, *chosen, flag], prog_name="blurkit")
        for flag in ("--help", "--help-all")
    )
    assert len(shown.output.splitlines()) <= 100
    rare = [p.opts[0] for p in load_command(name, chosen).params if getattr(p, "hidden", False)]
    told = f"There are more options: blurkit {name} --help-all"
    assert (shown.output.splitlines()[-1] == told) == bool(rare)
    for option in rare:
        assert not re.search(rf"^  {option}\b", shown.output, re.MULTILINE)
        assert re.search(rf"^  {option}\b", everything.output, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_is_on_its_page(name: str) -> None:
    assert "Example" in done(name, "--help").out.decode()
    assert load_command(name).help.splitlines()[0] == COMMANDS[name][1]  # the list's line
    page = (ROOT / f"docs/commands/{name}.md").read_text()
    section = page.partition("<!-- options -->")[2].partition("<!-- end -->")[0]
    for parameter in load_command(name).params:
        assert parameter.help or parameter.name == "help", parameter.name
        for option in parameter.opts:
            flag = option.startswith("-")
            assert not flag or re.search(rf"(^|[\s`]){option}\b", section), option


def test_pages_are_up_to_date_and_keep_handwriting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks are filled in, all else stays, and a stale page is told by the check."""
    monkeypatch.chdir(ROOT)
    assert docs.main(["--check"]) == 0
    monkeypatch.chdir(tmp_path)
    for name in ("commands", "pictures", "architecture.md", "systems/msdi.md"):
        source, copy = ROOT / "docs" / name, tmp_path / "docs" / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, copy)
    tree, system = tmp_path / "docs/architecture.md", tmp_path / "docs/systems/msdi.md"
    page = tmp_path / "docs/commands/info.md"
    before, architecture, presets = (path.read_text() for path in (page, tree, system))
    tree.write_text(architecture.replace("  api.py", "  apes.py"))
    system.write_text(presets.replace("| 400,000 |", "| 4 |"))
    page.write_text(f"First.\n\n<!-- options -->\nstale\n<!-- end -->\n\n--size last.\n\n{before}")
    assert docs.main(["--check"]) == 1 and "stale" in page.read_text()
    assert docs.main([]) == 0
    block = before[before.index("<!-- options -->") :].partition("<!-- end -->")[0]
    assert page.read_text() == f"First.\n\n{block}<!-- end -->\n\n--size last.\n\n{before}"
    assert tree.read_text() == architecture
    assert system.read_text() == presets  # the sources of the values are kept


def test_version() -> None:
    told = fresh("-m", "blurkit", "--version").out
    assert told == f"blurkit {blurkit.__version__}\n".encode() == done("-V").out


@pytest.mark.parametrize(("folder", "training"), TRAININGS)
def test_help_names_the_presets_that_a_system_has(folder: str, training: Training) -> None:
    presets = named(folder, "config", training.configuration).presets
    text = load_command(training.command, ["--system", training.name]).help or ""
    about = text.partition("Examples:")[0]
    assert {*re.findall(r"--preset ([\w-]+)", about)} <= presets.keys()
