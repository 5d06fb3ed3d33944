"""Every operation on files fails once, one after another, as in SQLite's tests."""

from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data

from blurkit.io.checkpoints import load_checkpoint
from blurkit.io.shards import read_shard, verify_shard
from blurkit.io.tensor_checksums import leaf_checksums
from tests.cli.command import Ran
from tests.cli.invoke import invoke
from tests.io.faults import failing
from tests.training.runs import SHORT, TINY, beside, read_log
from tests.training.test_growing import command

ERRORS = (errno.EIO, errno.ENOSPC, errno.EFBIG, errno.EMFILE)
MOST = 400
"""The operations after which a run must have ended."""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faults") / "photos"
    folder.mkdir()
    for number in range(3):
        part = skimage.data.astronaut()[90 * number :][:64, :96]
        imageio.imwrite(folder / f"{number}.png", part)
    return folder


def contents(path: Path) -> str:
    """What a file holds, apart from dates and seconds; shards and checkpoints must be whole."""
    if path.suffix == ".pt":
        networks = load_checkpoint(path).networks
        return str(sorted(leaf_checksums(networks)))
    if path.suffix == ".jsonl":
        return str(read_log(path.with_name("x.pt")))
    if path.suffix != ".h5":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    verify_shard(path)
    digest = hashlib.sha256()
    for record in read_shard(path):
        digest.update(record.name.encode())
        for key, image in sorted(record.images.items()):
            digest.update(key.encode() + np.ascontiguousarray(image).tobytes())
    return digest.hexdigest()


def found(folder: Path) -> dict[str, str]:
    """The contents of all files in a folder, by name, hidden ones too."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): contents(path) for path in files}


def every_fault(run: Callable[[Path, bool], Ran], folder: Path) -> int:
    """Fail each operation of a run once, and go on after it; the number of operations.

    `run` runs a command whose output is in a folder; its second argument says that it goes on.
    """
    folder.mkdir(exist_ok=True)
    reference = folder / "reference"
    reference.mkdir()
    assert run(reference, False).status == 0
    wanted = found(reference)
    for at in range(1, MOST):
        output = folder / str(at)
        output.mkdir()
        with failing(at, ERRORS[at % len(ERRORS)]) as faults:
            ran = run(output, False)
        if not faults.reached:
            assert ran.status == 0 and found(output) == wanted
            return at - 1
        assert ran.status == 1, (at, ran.err)
        assert any(line.startswith("error: ") for line in ran.lines), (at, ran.err)
        left = found(output)
        for name in left.keys() - wanted.keys():
            assert name == "x.state.pt", (at, ran.err)  # to be resumed from
        for name in left.keys() & wanted.keys() - {"x.log.jsonl"}:
            assert left[name] == wanted[name], (at, ran.err)
        again = run(output, True)
        assert again.status == 0, (at, again.err)
        assert found(output) == wanted, at
    raise AssertionError(f"more than {MOST} operations")


def test_prepare_a_shard(photos: Path, tmp_path: Path) -> None:
    def run(output: Path, again: bool) -> Ran:
        force = ["--force"] if again else []
        return invoke("prepare", photos, "-o", output / "x.h5", "--jobs", 1, "-q", *force)

    assert every_fault(run, tmp_path / "runs") > 20


def test_prepare_a_folder(photos: Path, tmp_path: Path) -> None:
    def run(output: Path, again: bool) -> Ran:
        split = ["--synthesize", "shake", "--kernel-size", 9, 9, "--validation", 0.34]
        more = ["--resume"] if again else []
        return invoke("prepare", photos, "-o", f"{output}/", *split, "--jobs", 1, "-q", *more)

    assert every_fault(run, tmp_path / "runs") > 20


@pytest.mark.parametrize("name", ["x.h5", ""])
def test_deblur(name: str, photos: Path, tmp_path: Path) -> None:
    def run(output: Path, again: bool) -> Ran:
        force = ["--force"] if again else []
        options = ["--method", "network", "--device", "cpu", "-q", *force]
        return invoke("deblur", photos, "-o", f"{output}/{name}", *options)

    assert every_fault(run, tmp_path / "runs") > 10


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train-deblur", "train-reblur"])
def test_train(stage: str, training_shards: Path, tmp_path: Path) -> None:
    def run(output: Path, again: bool) -> Ran:
        file = output / "x.pt"
        _, *options = command(training_shards, file, 2, "--no-samples", "--log-every", 2)
        if stage == "train-reblur":
            plain = ["--generator", "single", "--perceptual", "none", "--width", 4, "--hidden", 4]
            options = [training_shards, *TINY, *plain, *SHORT]
            options += ["--reblur-loss", "l1", "--iterations", 2, "--no-samples", "-o", file]
        if again:
            options.append("--resume" if beside(file, "state.pt").exists() else "--force")
        return invoke(stage, *options, "--save-minutes", 0, "--jobs", 0)

    assert every_fault(run, tmp_path / "runs") > 10
