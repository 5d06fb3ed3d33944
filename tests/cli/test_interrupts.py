"""A command that is stopped leaves whole files only, and goes on from them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blurkit.io.records import Record
from tests.cli.command import ENVIRONMENT, shard_records
from tests.cli.command import start as start_warm
from tests.cli.invoke import done
from tests.cli.pictures import plant_tree
from tests.io.scenes import assert_all_same

INTERRUPTED = (130, "interrupted\n")
TERMINATED = (143, "terminated\n")


def start(*arguments: object, **options: Any) -> subprocess.Popen[bytes]:
    """`blurkit ARGUMENTS` in a process group of its own, without the tests' server."""
    return start_warm(*arguments, env=ENVIRONMENT, **options)


@pytest.fixture(scope="module")
def large_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pairs of 480x480: shards of 1 MB hold one each."""
    return plant_tree(tmp_path_factory.mktemp("large"), 12, height=480, width=480)


@pytest.fixture(scope="module")
def whole(large_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Record]:
    """The records of `large_tree`, prepared without an interruption."""
    folder = tmp_path_factory.mktemp("whole")
    done(*slowly(large_tree, folder, 1))
    return shard_records(folder)


def slowly(tree: Path, folder: Path, jobs: int) -> list[object]:
    """A preparation that takes seconds: compressed shards of one record each."""
    options = ["--shard-size", 1, "--compress", "--jobs", jobs, "--quiet"]
    return ["prepare", tree, "-o", f"{folder}/", *options]


def wait_for(happened: Callable[[], bool], seconds: float = 30) -> None:
    latest = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < latest, "it did not happen in time"
        time.sleep(0.005)


def begun(
    tree: Path, folder: Path, jobs: int, start: Callable[..., Any] = start
) -> subprocess.Popen[bytes]:
    """Such a preparation that has written one shard."""
    process = start(*slowly(tree, folder, jobs))
    wait_for(lambda: (folder / "test-00000.h5").exists())
    return process


def end(process: subprocess.Popen[bytes], number: int = 0) -> tuple[int, str]:
    """Exit status and standard error of a command, when no process of it is left to write there.

    It first gets the signal of that `number`, if one is given.
    """
    if number:
        process.send_signal(number)
    _, err = process.communicate(timeout=60)
    return process.returncode, err.decode()


@pytest.mark.parametrize(
    ("number", "jobs", "ended"), [(signal.SIGTERM, 1, TERMINATED), (signal.SIGINT, 2, INTERRUPTED)]
)
def test_a_stopped_preparation_is_continued(
    large_tree: Path, whole: list[Record], number: int, jobs: int, ended: Any
) -> None:
    process = begun(large_tree, Path(), jobs)
    assert end(process, number) == ended
    left = sorted(path.name for path in Path().iterdir())
    assert left == [f"test-{i:05d}.h5" for i in range(len(left))]
    assert 1 <= len(left) < len(whole)
    assert_all_same(shard_records(Path()), whole[: len(left)])
    done(*slowly(large_tree, Path(), jobs), "--resume")
    assert_all_same(shard_records(Path()), whole)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_every_process_at_once(large_tree: Path, number: int, status: int) -> None:
    """So does a terminal send its interrupt, and a system that shuts down its end."""
    process = begun(large_tree, Path(), 2)
    os.killpg(process.pid, number)
    ended, err = end(process)
    assert (ended, err.count("\n")) == (status, 1)
    assert not list(Path().glob(".*"))


def test_an_interrupt_is_never_lost(large_tree: Path) -> None:
    """Wherever Python happens to be: raised in a destructor, an error would be dropped."""
    for tries in range(5):
        process = begun(large_tree, Path(str(tries)), 1, start_warm)
        time.sleep(0.016 * tries)
        assert end(process, signal.SIGINT) == INTERRUPTED


def test_workers_end_with_their_parent(large_tree: Path) -> None:
    process = begun(large_tree, Path(), 2)
    assert end(process, signal.SIGKILL) == (-signal.SIGKILL, "")


def test_a_killed_worker_is_told(large_tree: Path) -> None:
    process = begun(large_tree, Path(), 2)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True).stdout.split()
    os.kill(int(workers[0]), signal.SIGKILL)
    status, err = end(process)
    assert status == 1
    assert err.startswith("error: a process was killed, perhaps for lack of memory")
    assert not list(Path().glob(".*"))


def test_one_shard_that_is_stopped_leaves_what_was_there(large_tree: Path) -> None:
    Path("one.h5").write_bytes(b"what was there")
    options = ["--compress", "--quiet", "--jobs", 1, "--force"]
    process = start("prepare", large_tree, "-o", "one.h5", *options)
    wait_for(lambda: any(Path().glob(".one.h5.*.partial")))
    time.sleep(0.2)
    assert end(process, signal.SIGTERM) == TERMINATED
    assert [path.name for path in Path().iterdir()] == ["one.h5"]
    assert Path("one.h5").read_bytes() == b"what was there"


def test_a_reader_that_is_interrupted_ends_its_writer(large_tree: Path) -> None:
    inputs = [large_tree / "test" / f"scene{i % 6}/sharp/{i % 2}.png" for i in range(2)]
    writer = start("prepare", *inputs, "-o", "-", "--crop", 32, "-q", "--jobs", 1)
    reader = start("prepare", "-", "-o", "one.h5", "-q", stdin=writer.stdout)
    assert writer.stdout is not None and writer.stderr is not None
    writer.stdout.close()
    wait_for(lambda: any(Path().glob(".one.h5.*.partial")))
    assert end(reader, signal.SIGINT) == INTERRUPTED
    assert writer.stderr.read() == b""
    assert writer.wait(timeout=30) == 141
    assert not list(Path().iterdir())
