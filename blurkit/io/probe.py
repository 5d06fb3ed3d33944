"""Reads HDF5 of unknown origin in a child process first: what crashes or hangs there is one line.

Shards since version 2 need no child: their metadata has checksums, which HDF5 verifies.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from pathlib import Path

import h5py

from blurkit.errors import BlurkitError
from blurkit.io.hdf5 import checked_item
from blurkit.io.truncated import ZeroPadded, stored_end

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file, unless it begins with a block of its user's own."""

CHECKSUMMED = 2
"""The first version of the HDF5 superblock, the byte after the signature, with which a shard has
checksums in all its metadata."""

SECONDS = 10
BYTES_PER_SECOND = 20e6
"""The child has this many seconds, and one more for so many bytes."""

DEEPEST_GROUP = 8
"""Groups inside groups that are still looked into."""

_child: subprocess.Popen[bytes] | None = None
_passed: set[tuple[str, int, int]] = set()


def probe_shard(path: Path, where: str) -> None:
    """Probe an HDF5 file unless it has the format of those with checksums; see `probe`."""
    with path.open("rb") as file:
        head = file.read(len(SIGNATURE) + 1)
    if not head.startswith(SIGNATURE) or head[-1] < CHECKSUMMED:
        probe(path, where)


def probe(path: Path, where: str) -> None:
    """Raise BlurkitError if reading all of an HDF5 file crashes or hangs.

    Errors that the reader itself would report are left to it. A file is read once only, as long as
    it does not change. `where` names it in messages.
    """
    state = path.stat()
    known = str(path.absolute()), state.st_size, state.st_mtime_ns
    if known in _passed:
        return
    answer = _asked(path, SECONDS + state.st_size / BYTES_PER_SECOND)
    if answer:
        raise BlurkitError(f"{where}: damaged; {answer}")
    _passed.add(known)


def _asked(path: Path, seconds: float) -> str:
    """Let the child read a file; return what happened to it, if something did."""
    global _child
    if _child is None or _child.poll() is not None:
        command = [sys.executable, "-m", "blurkit.io.probe"]
        pipe = subprocess.PIPE
        _child = subprocess.Popen(
            command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, start_new_session=True
        )
    assert _child.stdin is not None and _child.stdout is not None
    with contextlib.suppress(BrokenPipeError):
        _child.stdin.write(json.dumps(str(path.absolute())).encode() + b"\n")
        _child.stdin.flush()
    answered, _, _ = select.select([_child.stdout], [], [], seconds)
    if answered and _child.stdout.readline():
        return ""
    _child.kill()
    _child.communicate()
    _child = None
    return "HDF5 crashes on it" if answered else f"reading it takes more than {seconds:.0f} s"


def _serve() -> None:
    """Read each file whose name comes on standard input, and answer with a line."""
    for line in sys.stdin.buffer:
        with contextlib.suppress(Exception):
            _read(Path(json.loads(line)))
        os.write(1, b"read\n")


def _read(path: Path) -> None:
    """Read all of a file, or what is left of one that is truncated, as a reader of shards does."""
    size = path.stat().st_size
    with path.open("rb") as file:
        try:
            opened = h5py.File(path, "r")
        except OSError:
            opened = h5py.File(ZeroPadded(file, size), "r")
        with opened:
            _read_all(opened, size)


def _read_all(group: h5py.Group, size: int, depth: int = 0) -> None:
    dict(group.attrs)
    for name in group:
        with contextlib.suppress(Exception):  # the others are read even so
            item = checked_item(group, name)
            if isinstance(item, h5py.Group):
                if depth < DEEPEST_GROUP:
                    _read_all(item, size, depth + 1)
            elif stored_end(item) <= size:
                item[()]
                dict(item.attrs)


if __name__ == "__main__":
    _serve()
