"""Where tests find reference material that is too large for the repository."""

import importlib.util
import os
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


def shared_folder(name: str, env: str) -> Path:
    """The folder that the environment variable `env` names, else ../shared/`name`.

    Where it is missing, the tests that ask for it are skipped, or fail under CI.
    """
    folder = Path(os.environ.get(env) or ROOT.parent / "shared" / name)
    if not folder.is_dir():
        reason = f"{folder} is missing; set {env} to run these tests"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason, allow_module_level=True)
    return folder


def vgg11() -> Path:
    """The backbone that tests and benchmarks take for perceptual losses and distances."""
    return shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"


def load_fill(folder: Path) -> ModuleType:
    """`fill.py` of a folder of parity fixtures, or where it has none, of the default folder."""
    path = folder / "fill.py"
    if not path.is_file():
        path = ROOT.parent / "shared" / "parity" / "fill.py"
    spec = importlib.util.spec_from_file_location("parity_fill", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
