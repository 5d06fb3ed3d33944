"""Systems and file systems that lack what Linux has: Windows, NFS, FUSE and mounted buckets."""

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import blurkit.tasks
from blurkit.errors import BlurkitError
from blurkit.io.writing import replacing
from tests.cli.command import assert_refused, fresh, records
from tests.cli.invoke import done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.shared import ROOT
from tests.systems.kernel_space.searches import QUICK_CONFIG

WINDOWS = """
import multiprocessing, os, signal, sys

for module in ("fcntl", "resource", "pwd", "grp", "termios", "posix_ipc"):
    sys.modules[module] = None
for number in ("SIGHUP", "SIGPIPE", "SIGALRM", "SIGUSR1", "SIGUSR2", "SIGCHLD"):
    delattr(signal, number)
for name in dir(os):
    if name.startswith(("sched_", "readv", "writev", "getuid", "geteuid", "fchmod", "getpgid")):
        delattr(os, name)
opened, synchronised = os.open, os.fsync

def open_file(path, flags, *more, **named):
    if os.path.isdir(path):
        raise PermissionError(13, "Permission denied", path)
    return opened(path, flags, *more, **named)

def synchronise(descriptor):
    os.write(descriptor, b"")  # fails for one that is open for reading only
    synchronised(descriptor)

os.open, os.fsync = open_file, synchronise
from tests.cli.invoke import invoke

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    for command in [line.split() for line in sys.stdin]:
        ran = invoke(*command)
        assert ran.status == 0, (command, ran)
        print(command[0])
"""
"""A process in which modules, signals and functions are absent that Windows lacks; folders cannot
be opened, only files open for writing are synchronised, and processes are started, not forked."""


QUICK = """
    --help
    info {photos}
    prepare {photos} --synthesize shake --as sharp --jobs 1 -o pairs.h5
    deblur {photos} -c {checkpoint} -o out/ --resume
    deblur {one} -c {checkpoint} --compare
"""
ALL = f"""
    {QUICK}
    prepare {{photos}} --synthesize shake --as sharp --jobs 2 -o more.h5
    info {{checkpoint}} --size 64x64
    reblur {{one}} --like {{two}} -o reblurred.png
    transfer {{one}} {{shard}} -c {{joint}} -o moved/
    eval pairs.h5 --html report/
    blind-deblur {{one}} --operator convolution --iterations 1 --config {QUICK_CONFIG} -o blind.png
    contextual-sim --help
    interpolate {{shard}} -c {{joint}} --steps 2 -o frames/
    train-deblur {{shard}} --system msfs --preset small --crop 32 --batch 1 --iterations 1 -o n.pt
    export {{checkpoint}} -o net.onnx
"""


@pytest.mark.parametrize("commands", [QUICK, pytest.param(ALL, marks=pytest.mark.slow)])
def test_commands_work_without_what_windows_lacks(
    commands: str, shard: Path, checkpoint: Path, joint: Path
) -> None:
    one, two = (write(f"photos/{number}.png", blurred(photo(number))) for number in range(2))
    files = {"one": one, "two": two, "photos": "photos", "shard": shard}
    filled = commands.format(**files, checkpoint=checkpoint, joint=joint)
    lines = [line.strip() for line in filled.splitlines() if line.strip()]
    Path("windows.py").write_text(WINDOWS)
    ran = fresh("windows.py", input="\n".join(lines), PYTHONPATH=str(ROOT))
    assert ran.status == 0, ran.err
    assert ran.out.decode().split() == [line.split()[0] for line in lines]
    assert not [*Path().rglob(".*.lock")]


def failing(number: int) -> Callable[..., Any]:
    """What a system call does that a file system does not have."""

    def fail(*_: object, **named: object) -> None:
        raise OSError(number, os.strerror(number))

    return fail


CALLS = {"locks": (fcntl, "flock"), "links": (os, "link"), "renaming": (os, "replace")}
LACKING = {
    "NFS without its lock service": {"locks": errno.ENOLCK},
    "FUSE": {"locks": errno.ENOSYS, "links": errno.EPERM},
    "shares": {"locks": errno.EOPNOTSUPP, "links": errno.EOPNOTSUPP},
    "buckets": {"locks": errno.ENOSYS, "links": errno.ENOSYS, "renaming": errno.ENOSYS},
}


@pytest.mark.parametrize("name", LACKING)
def test_files_are_written_where_a_file_system_lacks(
    name: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    write("photo.png", photo(0))
    lacks = LACKING[name]
    for what, number in lacks.items():
        monkeypatch.setattr(*CALLS[what], failing(number))
    if "renaming" in lacks:
        monkeypatch.setattr(os, "fsync", failing(errno.ENOSYS))
    synthesize = ("prepare", "photo.png", "--synthesize", "shake", "--as", "sharp", "-q")
    done(*synthesize, "-o", "pairs.h5")
    for more in ((), ("--force",)):
        done(*synthesize, "-o", "shards/", *more)
    assert len(records("pairs.h5", *Path("shards").glob("*.h5"))) == 2
    assert_refused(invoke(*synthesize, "-o", "pairs.h5"), "pairs.h5: exists already")
    hidden = [path.name for path in Path().rglob(".*") if path.name != ".options.json"]
    assert not hidden and not recwarn.list


def test_a_copy_that_fails_is_not_left_half_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be renamed, they are copied."""
    for call in CALLS.values():
        monkeypatch.setattr(*call, failing(errno.ENOSYS))

    def copied(source: Path, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "copyfile", copied)
    failed = pytest.raises(BlurkitError, match="cannot be written")
    with failed, replacing(Path("a.txt")) as partial:
        partial.write_text("whole")
    assert not [*Path().iterdir()]


def test_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch, checkpoint: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for name in ("blurkit.engine.onnx_runner", "blurkit.tasks.export"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(blurkit.tasks, "export", raising=False)
    write("photo.png", photo(0))
    Path("net.onnx").write_bytes(b"onnx")
    words = "pip install 'blurkit[cpu]', or 'blurkit[gpu]'"
    assert_refused(invoke("deblur", "photo.png", "-c", "net.onnx"), words)
    for command in (("info", "net.onnx"), ("export", checkpoint, "-o", "new.onnx")):
        assert words in invoke(*command).err
    done("deblur", "photo.png", "--method", "network", "-o", "a.png", "-q")  # by torch
