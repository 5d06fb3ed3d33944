"""Help: quick, complete, and the same in the reference."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import blurkit
from blurkit.cli.app import COMMANDS, app
from tests.cli.command import ENVIRONMENT, assert_done, run
from tests.shared import ROOT


def parameters(name: str) -> Iterator[typer.core.TyperArgument | typer.core.TyperOption]:
    group = typer.main.get_command(app)
    assert isinstance(group, typer.core.TyperGroup)
    yield from group.commands[name].params  # type: ignore[misc]


def loaded_by(*arguments: str) -> set[str]:
    """The modules that `blurkit ARGUMENTS` imports."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "blurkit", *arguments],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        check=True,
    )
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["deblur", "--help"]])
def test_help_needs_no_heavy_import(arguments: list[str]) -> None:
    loaded = loaded_by(*arguments)
    assert "blurkit.cli.app" in loaded
    assert not loaded & {"torch", "numpy", "scipy", "h5py", "PIL", "imageio", "av", "rich"}


def test_help_names_every_command() -> None:
    ran = run("--help")
    assert_done(ran)
    for name in COMMANDS:
        assert re.search(rf"^  {name}  +\w.+$", ran.out.decode(), re.MULTILINE)
    assert run("-h").out == ran.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help(name: str) -> None:
    ran = run(name, "--help")
    assert_done(ran)
    assert "Example" in ran.out.decode()
    for parameter in parameters(name):
        if parameter.name != "help":
            assert parameter.help, f"{name}: {parameter.name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_its_page_names_every_option(name: str) -> None:
    page = (ROOT / f"docs/commands/{name}.md").read_text()
    section = page.partition("<!-- options -->")[2].partition("<!-- end -->")[0]
    options = [flag for p in parameters(name) for flag in p.opts if flag.startswith("-")]
    assert "--help" in section
    for option in options:
        assert re.search(rf"(^|\s){option}\b", section), f"{name}: {option}"


def test_the_pages_are_up_to_date() -> None:
    command = [sys.executable, "-m", "blurkit.cli.reference", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_page_keeps_what_is_written_by_hand(tmp_path: Path) -> None:
    """Blocks are filled in, all else stays, and a stale page is told by the check."""
    (tmp_path / "docs").mkdir()
    for folder in ("commands", "pictures"):
        shutil.copytree(ROOT / "docs" / folder, tmp_path / "docs" / folder)
    tree = tmp_path / "docs/architecture.md"
    shutil.copy(ROOT / "docs/architecture.md", tree)
    architecture = tree.read_text()
    tree.write_text(architecture.replace("  api.py", "  apes.py"))
    page = tmp_path / "docs/commands/info.md"
    before = page.read_text()
    page.write_text(f"First.\n\n<!-- options -->\nstale\n<!-- end -->\n\n--size last.\n\n{before}")
    command = [sys.executable, "-m", "blurkit.cli.reference"]
    checked = subprocess.run([*command, "--check"], cwd=tmp_path, env=ENVIRONMENT)
    assert checked.returncode == 1 and "stale" in page.read_text()
    subprocess.run(command, cwd=tmp_path, env=ENVIRONMENT, check=True)
    block = before[before.index("<!-- options -->") :].partition("<!-- end -->")[0]
    assert page.read_text() == f"First.\n\n{block}<!-- end -->\n\n--size last.\n\n{before}"
    assert tree.read_text() == architecture


def test_version() -> None:
    command = [sys.executable, "-m", "blurkit", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
    assert done.stdout == f"blurkit {blurkit.__version__}\n" == run("--version").out.decode()
