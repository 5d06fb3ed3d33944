"""One writer at a time, nothing foreseen, followed or left behind, and nothing lost."""

import errno
import fcntl
import gc
import os
import signal
import subprocess
import sys
import threading
from itertools import chain, count, repeat
from pathlib import Path
from types import FrameType
from typing import Any
from unittest.mock import DEFAULT, Mock

import pytest

from blurkit.errors import BlurkitError
from blurkit.io.writing import locked, replacing
from tests.cli.command import run
from tests.io.scenes import refusal

HOLD = """
import sys, time
from pathlib import Path
from blurkit.io.writing import replacing
with replacing(Path(sys.argv[1]), force=True) as partial:
    partial.write_text("half")
    print("writing", flush=True)
    time.sleep(100)
"""


def put(path: Path, text: str, force: bool = False) -> None:
    with replacing(path, force) as partial:
        partial.write_text(text)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def holding(path: Path) -> subprocess.Popen[str]:
    """Another process in the middle of writing."""
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "writing\n"
    return process


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.txt"
    with holding(path) as first:
        for force in (False, True):
            why = refusal(put, path, "second", force)
            assert why.startswith("is being written by another process; wait")
        put(path.with_name("y.txt"), "another file")
        first.kill()
    put(path, "second")
    assert path.read_text() == "second"
    assert not any(name.endswith(".lock") for name in names(path.parent))


def test_a_waiting_writer_can_be_stopped_and_comes_next(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    with holding(path) as first:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        with pytest.raises(KeyboardInterrupt), locked(path, wait=True):
            pytest.fail("two writers at a time")
        threading.Timer(0.5, first.kill).start()
        with locked(path, wait=True):
            assert first.wait() == -signal.SIGKILL


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = OSError(errno.ENOLCK, "No locks available")
    monkeypatch.setattr(fcntl, "flock", Mock(side_effect=refused))
    put(tmp_path / "x.txt", "x")
    assert (tmp_path / "x.txt").read_text() == "x" and names(tmp_path) == ["x.txt"]


def test_a_lock_that_fails_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    once = chain([OSError(errno.EIO, "Input/output error")], repeat(DEFAULT))
    fstat = Mock(wraps=os.fstat, side_effect=once)
    monkeypatch.setattr(os, "fstat", fstat)
    assert "cannot be written" in refusal(put, tmp_path / "x.txt", "x")
    assert fstat.called and names(tmp_path) == []


def test_what_a_killed_writer_left_is_removed_by_the_next_run(tmp_path: Path) -> None:
    with holding(tmp_path / "x.txt") as killed, holding(tmp_path / "y.txt") as alive:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert len(names(tmp_path)) == 4
        put(tmp_path / "z.txt", "z")
        left = names(tmp_path)
        assert left.pop() == "z.txt" and len(left) == 2 and all(".y.txt." in name for name in left)
        alive.kill()


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    words = "has appeared while this was written; give --force"
    with pytest.raises(BlurkitError, match=words), replacing(path, force=False) as partial:
        partial.write_text("ours")
        path.write_text("theirs")
    assert path.read_text() == "theirs" and names(tmp_path) == ["x.txt"]
    put(path, "ours", force=True)
    assert path.read_text() == "ours" and names(tmp_path) == ["x.txt"]


def test_planted_links_are_not_followed(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".x.txt.lock").symlink_to(victim)
    (tmp_path / f".x.txt.{os.getpid()}.partial").symlink_to(victim)
    assert "cannot be written" in refusal(put, tmp_path / "x.txt", "ours", True)
    (tmp_path / ".x.txt.lock").unlink()
    (tmp_path / "x.txt").symlink_to(victim)
    assert refusal(put, tmp_path / "x.txt", "ours")
    put(tmp_path / "x.txt", "ours", force=True)  # replaces the link
    assert victim.read_text() == "precious"
    assert (tmp_path / "x.txt").read_text() == "ours" and not (tmp_path / "x.txt").is_symlink()


def test_names_as_long_as_they_may_be(tmp_path: Path) -> None:
    for name in ("n" * 251 + ".txt", "ü" * 125 + ".txt"):
        put(tmp_path / name, name)
        assert (tmp_path / name).read_text() == name
        (tmp_path / name).unlink()
    assert names(tmp_path) == []
    assert "cannot be written" in refusal(put, tmp_path / ("n" * 256), "too long")


def test_an_error_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), replacing(tmp_path / "x.txt", force=True) as partial:
        partial.write_text("half")
        raise KeyError
    assert names(tmp_path) == []


def test_files_and_folders_reach_the_disk_before_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synchronised: list[str] = []
    real = os.fsync

    def note(descriptor: int) -> None:
        synchronised.append(str(Path(f"/proc/self/fd/{descriptor}").readlink()))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    put(tmp_path / "x.txt", "x")
    assert [Path(name).suffix for name in synchronised] == [".partial", ""]
    assert synchronised[1] == str(tmp_path)
    monkeypatch.setenv("BLURKIT_SYNC", "0")
    put(tmp_path / "y.txt", "y")
    assert len(synchronised) == 2


STORM = """
import os, random, signal, sys, threading
from pathlib import Path
import numpy as np
from blurkit.interrupts import raise_signals

path = Path(sys.argv[1])
if path.suffix == ".h5":
    from blurkit.io.records import Record
    from blurkit.io.streams import ShardWriter

    image = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)

    def write():
        with ShardWriter(path, force=True, compression="gzip") as writer:
            writer.write(Record("a", {"blur": image}))
else:
    import torch
    from blurkit.io.checkpoints import Checkpoint, save_checkpoint

    checkpoint = Checkpoint({"deblur": {f"{n}": torch.randn(64, 64, 3, 3) for n in range(9)}})

    def write():
        save_checkpoint(checkpoint, path)

raise_signals()  # those that a destructor drops are sent again
for _ in range(25):
    try:
        later = threading.Timer(random.uniform(0.02, 0.1), os.kill, (os.getpid(), signal.SIGINT))
        later.start()
        while True:
            write()
    except KeyboardInterrupt:
        later.join()
"""


@pytest.mark.parametrize("name", ["x.h5", "x.pt"])
def test_an_interrupt_while_a_library_writes(name: str, tmp_path: Path) -> None:
    """HDF5 and torch crash if a signal is raised in the functions that they call."""
    ran = run("-c", STORM, tmp_path / name)
    assert (ran.status, ran.err) == (0, "")


def test_a_signal_before_any_line_leaves_nothing_half_written(tmp_path: Path) -> None:
    """Python raises it between two lines, also of the context managers that clean up."""
    for number in count(1):
        folder = tmp_path / str(number)
        folder.mkdir()
        interrupted = write_interrupted(folder / "x", number)
        left = [path.name for path in folder.iterdir()]
        assert left in ([], ["x"]), f"before line {number}"
        if not interrupted:
            break
    assert number > 100 and left == ["x"]


def write_interrupted(path: Path, number: int) -> bool:
    """Write a file with an interrupt before a line of the code for that; whether it was raised."""
    lines = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal lines
        if not frame.f_code.co_filename.endswith(("writing.py", "interrupts.py", "contextlib.py")):
            return None
        lines += event == "line"
        if event == "line" and lines == number:
            signal.raise_signal(signal.SIGINT)
        return trace

    gc.disable()  # what is raised while an older lock is collected would be lost
    sys.settrace(trace)
    try:
        with replacing(path) as partial:
            partial.write_text("whole")
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(None)
        gc.enable()
    return False
