"""The training package serves every system: it imports nothing above it and names none of them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from blurkit.systems.system import augmentations, systems
from tests.shared import ROOT

FILES = sorted((ROOT / "blurkit/training").glob("*.py"))
BELOW = {"engine", "reports", "metrics", "synthesis", "data", "nn", "io"}
GROUND = {"errors", "options", "interrupts", "version"}


def imported(path: Path) -> set[str]:
    """The packages of blurkit that a file imports from, wherever in it."""
    modules: list[str] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            modules.append(node.module or "")
        elif isinstance(node, ast.Import):
            modules += [alias.name for alias in node.names]
    return {module.split(".")[1] for module in modules if module.startswith("blurkit.")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_imports_only_what_is_below(path: Path) -> None:
    assert imported(path) <= BELOW | GROUND | {"training"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_names_no_system(path: Path) -> None:
    names = set(augmentations())
    for folder, system in systems().items():
        names |= {folder, system.name, system.title, *(t.name for t in system.trainings)}
    # Undoing a known blur is a notion of its own beside the system of that name.
    words = "|".join(re.escape(name) for name in names - {"deconvolution"})
    assert re.findall(rf"\b(?:{words})\b", path.read_text(), re.IGNORECASE) == []
