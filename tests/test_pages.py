"""Every command in the documentation runs as written: page by page, each in its own folder."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from tests.pages import FENCE, MARKS, PAGES, RUN, SAMPLES, SHOWN, blocks, run, script
from tests.shared import ROOT

WITH_COMMANDS = [page for page in PAGES if script(page)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `examples/samples.sh` makes, once for all pages."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "examples", folder / "examples")
    done = run(SAMPLES, folder)
    assert done.returncode == 0, done.stderr
    return folder / "samples"


@pytest.mark.parametrize("page", PAGES, ids=name)
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
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name)
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
