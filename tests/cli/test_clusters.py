"""Several processes with the help of torchrun and of Ray make the files of one process."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.command import ENVIRONMENT, files
from tests.cli.invoke import done
from tests.cli.pictures import plant_photos
from tests.shared import ROOT
from tests.training.runs import together

pytestmark = pytest.mark.slow


@pytest.fixture
def photos() -> Path:
    """Five photos, of which two are in a folder of their own."""
    plant_photos("photos/more", 2, 72, 72)
    return plant_photos("photos", 3, 64, 64)


def test_two_processes_of_torchrun(photos: Path) -> None:
    done("deblur", photos, "--method", "network", "-q", "-o", "whole/")
    command = ["blurkit", "deblur", photos, "--method", "network", "-o", "out/", "--part", "auto"]
    ran = together(*command)
    assert ran.returncode == 0, ran.stderr
    assert "part 2/2 (RANK=1, WORLD_SIZE=2)" in ran.stderr
    assert files("out") == files("whole")
    measured = ["eval", "out", photos, "-q"]
    done(*measured, "-o", "whole.json")
    ran = together("blurkit", *measured, "--part", "auto", "-o", "{part}.json")
    assert ran.returncode == 0, ran.stderr
    done("eval", "--merge", "1of2.json", "2of2.json", "-q", "-o", "merged.json")
    whole, merged = (json.loads(Path(f"{name}.json").read_text()) for name in ("whole", "merged"))
    assert merged == whole


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs Ray")
def test_actors_of_ray(photos: Path) -> None:
    done("deblur", photos, "--method", "network", "-q", "-o", "whole/")
    (photos / "bad.png").write_text("not a picture")
    script = [sys.executable, str(ROOT / "examples/ray_deblur.py"), "photos", "out"]
    environment = ENVIRONMENT | {"PYTHONPATH": str(ROOT), "RAY_worker_niceness": "0"}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0"}

    def states() -> dict[str, str]:
        ran = subprocess.run(
            [*script, "--actors", "2"], env=environment, capture_output=True, text=True, timeout=500
        )
        assert ran.returncode == 1, ran.stderr  # one photo is bad
        lines = (line.partition(": ") for line in ran.stdout.splitlines())
        return {name: state for name, _, state in lines if name.endswith(".png")}

    first = states()
    assert first.pop("bad.png").startswith("failed: ")
    assert len(first) == 5 and {*first.values()} == {"deblurred"}
    assert files("out") == files("whole")
    Path("out/1.png").unlink()
    again = states()
    assert again.pop("bad.png").startswith("failed: ")
    assert {name for name, state in again.items() if state == "deblurred"} == {"1.png"}
    assert files("out") == files("whole")
