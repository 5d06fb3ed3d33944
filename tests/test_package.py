"""What strangers get: the package, built and installed elsewhere, and files for platforms."""

import email
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

import blurkit
from tests.cli.pictures import blurred, photo
from tests.pages import run, script
from tests.shared import ROOT

MEANT = re.compile(
    r"blurkit/(.*\.py|py\.typed|reports/page\.(css|html|js)|systems/\w+/published\.tsv"
    r"|systems/search_presets/.*\.json"
    r"|weights/((deconvolution|free|kernel_space|msdi)\.pt|msdi\.onnx|photo\.jpg))"
    r"|blurkit-[\d.]+\.dist-info/(METADATA|WHEEL|RECORD|entry_points\.txt|licenses/LICENSE)"
)
"""The files that a wheel may contain."""


# ---- the package ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh virtual environment, which finds the dependencies of this one."""
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(str(Path(torch.__file__).parents[1]))
    return folder


def pip(environment: Path, *arguments: object) -> None:
    command = [environment / "bin/python", "-m", "pip", "-q", *map(str, arguments)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def built(fresh: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The wheel and the source distribution, by kind."""
    folder = tmp_path_factory.mktemp("dist")
    pip(fresh, "wheel", "--no-deps", "-w", folder, ROOT)
    pip(fresh, "install", "hatchling")
    build = [fresh / "bin/python", "-m", "hatchling", "build", "-t", "sdist", "-d", folder]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,), (source,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return {"wheel": wheel, "source": source}


@pytest.mark.slow
def test_each_file_of_the_wheel_is_meant_to_be_there(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith("/METADATA"))
        about = email.message_from_bytes(wheel.read(metadata))
    assert not {name for name in names if not MEANT.fullmatch(name)}
    tracked = subprocess.check_output(["git", "ls-files", "blurkit"], cwd=ROOT, text=True)
    assert names >= set(tracked.split())
    assert built["wheel"].stat().st_size < 60_000_000
    assert about["Version"] == blurkit.__version__
    assert "Typing :: Typed" in about.get_all("Classifier", [])
    assert {"cpu", "gpu", "raw", "lpips", "no-reference"} <= {*about.get_all("Provides-Extra", [])}


@pytest.mark.slow
def test_the_source_gives_the_wheel(built: dict[str, Path], fresh: Path, tmp_path: Path) -> None:
    with tarfile.open(built["source"]) as source:
        names = {name.partition("/")[2] for name in source.getnames()}
    assert {"README.md", "LICENSE", "pyproject.toml", "tests/test_package.py"} <= names
    pip(fresh, "wheel", "--no-deps", "-w", tmp_path, built["source"])
    (again,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(again) as one, zipfile.ZipFile(built["wheel"]) as other:
        sums = [{i.filename: i.CRC for i in wheel.infolist()} for wheel in (one, other)]
    assert sums[0] == sums[1]


@pytest.mark.slow
def test_the_wheel_runs_the_readme(built: dict[str, Path], fresh: Path, tmp_path: Path) -> None:
    """In a folder with the examples alone; what runs is the package in the fresh environment."""
    pip(fresh, "install", "--no-deps", "--force-reinstall", built["wheel"])
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    where = "python -c 'import blurkit; print(blurkit.__file__)'\n"
    done = run(where + script(ROOT / "README.md"), tmp_path, fresh / "bin", tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.startswith(str(fresh))


# ---- files for platforms -------------------------------------------------------------------------

GITHUB = ROOT / ".github"


def parsed(path: Path) -> Any:
    return yaml.load(path.read_text(), yaml.BaseLoader)  # as GitHub does: `on` is no boolean


def jobs() -> dict[str, dict[str, Any]]:
    """The jobs of all workflows by WORKFLOW/JOB."""
    return {
        f"{path.stem}/{name}": job
        for path in GITHUB.glob("workflows/*.yml")
        for name, job in parsed(path)["jobs"].items()
    }


def test_workflows_may_do_no_more_than_they_need() -> None:
    """A job that may write says so itself, and only publishing gets an identity."""
    for path in GITHUB.glob("workflows/*.yml"):
        assert parsed(path)["permissions"] == {"contents": "read"}, path.name
    allowed = {name: set(job.get("permissions", {})) for name, job in jobs().items()}
    writing = {name for name, kinds in allowed.items() if "id-token" in kinds}
    assert writing == {"release/publish", "release/site"}
    used = [step["uses"] for job in jobs().values() for step in job["steps"] if "uses" in step]
    assert [u for u in used if not re.fullmatch(r"[\w.-]+/[\w.-]+@(v\d+|release/v1)", u)] == []


def test_the_tests_run_on_three_systems_with_old_and_new_versions() -> None:
    matrix = jobs()["tests/tests"]["strategy"]["matrix"]["include"]
    assert {row["os"].partition("-")[0] for row in matrix} == {"ubuntu", "macos", "windows"}
    oldest = (ROOT / "pyproject.toml").read_text().split('requires-python = ">=')[1].split('"')[0]
    assert {row["python"] for row in matrix} >= {oldest, "3.13"}
    assert {row["resolution"] for row in matrix} == {"lowest-direct", "highest"}


def test_issue_forms_ask_for_the_system() -> None:
    form = parsed(GITHUB / "ISSUE_TEMPLATE/bug.yml")
    asked = [part["attributes"].get("description", "") for part in form["body"]]
    assert any("blurkit info --system" in text for text in asked)
    assert "docs/reliability.md" in (GITHUB / "SECURITY.md").read_text()


# ---- a node of ComfyUI ---------------------------------------------------------------------------


def test_the_node_of_comfyui() -> None:
    """Loaded as ComfyUI loads custom nodes; a batch comes back as `deblur` restores each image."""
    spec = importlib.util.spec_from_file_location("node", ROOT / "examples/comfyui_node.py")
    assert spec and spec.loader
    node = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(node)
    (kind,) = node.NODE_CLASS_MAPPINGS.values()
    assert node.NODE_CLASS_MAPPINGS.keys() == node.NODE_DISPLAY_NAME_MAPPINGS.keys()
    assert kind.INPUT_TYPES()["required"]["image"] == ("IMAGE",) and kind.RETURN_TYPES == ("IMAGE",)
    pictures = np.stack([blurred(photo(number)) for number in (0, 1)]).astype(np.float32) / 255
    deblur = getattr(kind(), kind.FUNCTION)
    (made,) = deblur(image=torch.from_numpy(pictures), method="network")
    assert made.dtype == torch.float32 and made.shape == pictures.shape
    assert made.min() >= 0 and made.max() <= 1
    model = blurkit.load()
    expected = [np.clip(model.deblur(picture, method="network"), 0, 1) for picture in pictures]
    np.testing.assert_allclose(made.numpy(), np.stack(expected), atol=1e-5)
    assert np.abs(made.numpy() - pictures).max() > 0.01
