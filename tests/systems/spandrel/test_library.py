"""spandrel is imported with and without torchvision, and is not required."""

import ast
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from blurkit.errors import BlurkitError
from blurkit.systems import from_state_dict
from blurkit.systems.spandrel.inference import TORCHVISION, known_architectures
from tests.cli.command import assert_done, run

UNKNOWN = {"some.weight": torch.zeros(3)}


@pytest.fixture
def source() -> Path:
    spec = find_spec("spandrel")
    if spec is None or spec.origin is None:
        pytest.skip("spandrel is missing: pip install 'blurkit[spandrel]'")
    return Path(spec.origin).parent


def test_the_stand_in_has_all_that_spandrel_imports(source: Path) -> None:
    found: dict[str, set[str]] = {}
    for path in source.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchvision"):
                found.setdefault(node.module or "", set()).update(a.name for a in node.names)
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("torchvision") for alias in node.names)
    assert found == {name: set(members) for name, members in TORCHVISION.items() if members}


def imported(folder: Path, code: str) -> str:
    """The output of code that first imports spandrel, with `folder` among the places to import."""
    start = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "assert not {'spandrel', 'torchvision'} & {*sys.modules}\n"
        "from blurkit.systems.spandrel.inference import known_architectures as known\n"
    )
    ran = run("-c", start + code)
    assert_done(ran)
    return ran.out.decode()


def test_a_missing_torchvision_stays_missing(source: Path, tmp_path: Path) -> None:
    code = (
        "import importlib.util, importlib.machinery\n"
        "find = importlib.machinery.PathFinder.find_spec\n"
        "hide = lambda name, *rest: None if name == 'torchvision' else find(name, *rest)\n"
        "importlib.machinery.PathFinder.find_spec = hide\n"
        "assert known()\n"
        "print([name for name in sys.modules if name.startswith('torchvision')],\n"
        "      importlib.util.find_spec('torchvision'))"
    )
    assert imported(tmp_path, code) == "[] None\n"


def test_only_a_torchvision_that_works_is_used(source: Path, tmp_path: Path) -> None:
    """The first import fails, as always where it is made for another torch; the second does not."""
    once = "if 'failed' not in vars(sys): sys.failed = 1; raise RuntimeError('no torchvision::nms')"
    package = tmp_path / "torchvision/transforms"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text(f"import sys\n{once}")
    (package / "__init__.py").touch()
    (package / "functional.py").write_text("InterpolationMode = rotate = normalize = 'real'")
    code = (
        "assert known() and 'torchvision' not in sys.modules and sys.failed\n"
        "for name in [name for name in sys.modules if name.startswith('spandrel')]:\n"
        "    del sys.modules[name]\n"
        "known.cache_clear()\n"
        "assert known()\n"
        "from spandrel.architectures.RestoreFormer import tv_normalize\n"
        "print(tv_normalize, sys.modules['torchvision'].__file__)"
    )
    used = f"real {tmp_path / 'torchvision/__init__.py'}\n"
    assert imported(tmp_path, code) == used


@pytest.mark.parametrize(
    ("package", "hint"),
    [
        ("spandrel", r"pip install 'blurkit\[spandrel\]' lets blurkit run many more"),
        ("spandrel_extra_arches", "pip install spandrel_extra_arches adds Restormer, MPRNet and"),
    ],
)
def test_an_unknown_file_names_what_is_not_installed(
    source: Path, package: str, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    known_architectures.cache_clear()
    try:
        with pytest.raises(BlurkitError, match=rf"no known network .* keys: some.weight; {hint}"):
            from_state_dict(UNKNOWN)
    finally:
        known_architectures.cache_clear()


def test_with_both_an_unknown_file_names_its_keys(source: Path) -> None:
    pytest.importorskip("spandrel_extra_arches")
    with pytest.raises(BlurkitError, match=r"this state dict of 1 keys: some.weight$"):
        from_state_dict(UNKNOWN)
