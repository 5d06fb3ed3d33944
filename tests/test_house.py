"""The house: which packages may import which, and who may name a system."""

import ast
import importlib
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from blurkit.systems.system import NAMES, systems
from tests.shared import ROOT

PACKAGE = ROOT / "blurkit"
LAYERS = (
    *({"__main__"}, {"cli"}, {"api"}, {"model"}, {"tasks"}, {"systems"}, {"training"}, {"engine"}),
    *({"reports"}, {"metrics"}, {"data"}, {"synthesis"}, {"nn"}, {"io"}),
    {"interrupts", "options", "errors", "version"},
)
"""From the top: a module imports from its own package and from those below it."""

FILES = sorted(PACKAGE.rglob("*.py"))
NAMED = re.compile("|".join({*NAMES, *(s.name for s in systems().values()), "bgan"}), re.I)
CLASSES = "MSDINet|JointModel|GuidedGenerator|EncodedBlur|MSFSNet|Deconvolver"


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("blurkit"):
            for alias in node.names:
                inner = PACKAGE.parent / node.module.replace(".", "/") / alias.name
                whole = inner.is_dir() or inner.with_suffix(".py").is_file()
                found.add(f"{node.module}.{alias.name}" if whole else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("blurkit")}
    return found - {"blurkit"}


IMPORTS = {module_of(path): imports(path) for path in FILES}


def level(module: str) -> int:
    return next(n for n, layer in enumerate(LAYERS) if module.split(".")[1] in layer)


@pytest.mark.parametrize("module", sorted(set(IMPORTS) - {"blurkit"}))
def test_nothing_imports_upward(module: str) -> None:
    assert not {other for other in IMPORTS[module] if level(other) < level(module)}


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_programs_for_development_are_not_needed(path: Path) -> None:
    """The wheel does not contain them."""
    assert not re.search(r"^ *(from|import) tests\b", path.read_text(), re.MULTILINE)


def test_programs_for_development_can_be_imported() -> None:
    """Most of them run for minutes or hours, so that no test does."""
    folders = ("benchmarks", "tools", "torture")
    files = [p for folder in folders for p in (ROOT / "tests" / folder).glob("[!_]*.py")]
    programs = [path for path in sorted(files) if not path.name.startswith("test_")]
    assert len(programs) > 20
    for path in programs:
        importlib.import_module(module_of(path))


def test_no_module_imports_itself_in_a_circle() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path, module])
        if module not in done:
            for other in IMPORTS.get(module, set()):
                visit(other, (*path, module))
            done.add(module)

    for module in IMPORTS:
        visit(module, ())


INTERFACE = {"SYSTEM", "plan", "deblurring", "reblurring"}
"""Names that every system may have, with one meaning."""

CALLS = {"deblur", "evaluate", "export", "info", "prepare", "read_records", "reblur", "sharpness"}
"""Tasks that a command or a call of the API is named after."""


def defined(path: Path) -> Iterator[str]:
    """The names that a module gives at its top level."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (target.id for target in targets if isinstance(target, ast.Name))


def test_no_two_public_things_have_one_name() -> None:
    names = Counter(name for path in FILES for name in defined(path) if not name.startswith("_"))
    assert {name for name, count in names.items() if count > 1} == INTERFACE | CALLS


def code(path: Path) -> str:
    """A file's identifiers, and its strings without a space: others are for people alone."""
    words = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            words += [] if " " in node.value.strip() else [node.value]
        elif isinstance(node, ast.Name):
            words.append(node.id)
        elif isinstance(node, ast.Attribute):
            words.append(node.attr)
        elif isinstance(node, ast.ImportFrom):
            words.append(f"{node.module} {' '.join(alias.name for alias in node.names)}")
    return "\n".join(words)


@pytest.mark.parametrize("path", [p for p in FILES if "systems" not in p.parts], ids=module_of)
def test_only_systems_are_named_by_systems(path: Path) -> None:
    found = [line for line in code(path).splitlines() if NAMED.search(line)]
    found += re.findall(rf"\b(?:{CLASSES})\b", code(path))
    assert not found


SMALL = {"blurkit.__main__", "blurkit.version", "blurkit.io.opencv", "blurkit.tasks.addresses"}
"""Small modules that stay apart: they keep OpenCV or ssl out."""


def test_folders_and_modules_are_of_a_readable_size() -> None:
    modules = [path for path in FILES if path.name != "__init__.py"]
    folders = Counter(path.parent for path in modules)
    assert {folder for folder, count in folders.items() if count > 16} == set()
    lines = {module_of(path): len(path.read_text().splitlines()) for path in modules}
    assert {module for module, count in lines.items() if count > 600} == set()
    assert {module for module, count in lines.items() if count < 60} == SMALL


def test_the_weights_are_without_code() -> None:
    assert not list((PACKAGE / "weights").rglob("*.py"))
