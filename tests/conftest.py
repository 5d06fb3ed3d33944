"""What tests share: a disk that is soon full; shards of photos and one small run of each stage."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.training.runs import DEBLUR, JOINT, make_shards, train


def pytest_configure(config: pytest.Config) -> None:
    """Side by side, tests take one thread each: more would wait for each other."""
    if hasattr(config, "workerinput"):
        import torch

        torch.set_num_threads(1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own with room for 1 MiB; needs the right to mount one."""
    folder = tmp_path / "small disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("no mount command: cannot make a small disk")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("not permitted to mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture(scope="session")
def training_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a training and a validation shard of three blurred photos each."""
    return make_shards(tmp_path_factory.mktemp("training"))


@pytest.fixture(scope="session")
def joint_run(training_shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of stage 1, trained without a stop, beside its log and its pictures."""
    output = tmp_path_factory.mktemp("joint") / "enc.pt"
    train("train-reblur", training_shards, *JOINT, "-o", output)
    return output


@pytest.fixture(scope="session")
def deblur_run(
    training_shards: Path, joint_run: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same for stage 2, with the encoder of `joint_run`."""
    output = tmp_path_factory.mktemp("deblur") / "deblur.pt"
    train("train-deblur", training_shards, "--encoder", joint_run, *DEBLUR, "-o", output)
    return output


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread in the test's own process, as in the processes that tests start."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
