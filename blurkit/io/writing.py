"""Write files atomically: one writer at a time, and synced before success is reported.

A file is written under a temporary name in its own folder, synchronised, and then put in place.
`BLURKIT_SYNC=0` leaves out waiting for the disk, for runs whose output may be lost with the power.
"""

import errno
import io
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from blurkit.errors import BlurkitError, NoOutput, one_line
from blurkit.interrupts import deferred

TEMPORARY = re.compile(r"\.(.+)\.(?:[0-9a-f]{16}\.partial|lock)")
"""The names of temporary files and locks, with what they are named after."""

REPLACING = "replacing.json"
"""The end of the name of a file that says which files are to replace which."""

UNABLE = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL}
"""The errors of file systems without locks, hard links, renaming or waiting for the disk."""

_tidied: set[Path] = set()


def refuse_existing(path: Path, force: bool) -> None:
    """Raise BlurkitError if `path` exists and `force` is off."""
    if not force and os.path.lexists(path):
        raise BlurkitError(f"{path}: exists already; give --force to overwrite it")


def refuse_output(path: Path, force: bool) -> None:
    """Raise BlurkitError if `path` exists and `force` is off, or if it could not be written."""
    refuse_existing(path, force)
    refuse_unwritable(path.parent)


def refuse_unwritable(folder: Path) -> None:
    """Raise NoOutput if no file can be created in `folder`, or in the first above that exists."""
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise NoOutput(f"{folder}: cannot be written (is a file, not a folder)")
    try:
        _remove(_created(folder / "blurkit"))
    except OSError as error:
        raise NoOutput(f"{folder}: cannot be written ({error.strerror})") from error


def last_change(path: Path) -> int:
    """Return when a file was last changed, in nanoseconds, 0 if it does not exist."""
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


@contextmanager
def replacing(path: Path, force: bool = True) -> Iterator[Path]:
    """Yield a temporary file next to `path`, which takes its place if the block succeeds.

    Without `force`, a file that has appeared there meanwhile is kept. Folders are created as
    needed. After an error, the temporary file is removed and a file at `path` is unchanged. What
    writers that were killed have left in the folder is removed.

    Raises BlurkitError if the file exists and is not to be replaced, if the disk is full, if the
    folder cannot be written, if another process is writing `path`, or if it is a device or a pipe,
    which renaming would replace.
    """
    with writing_errors(path), ExitStack() as stack:
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise BlurkitError(f"{path}: is not a regular file; name one, or - for standard output")
        refuse_existing(path, force)
        path.parent.mkdir(parents=True, exist_ok=True)
        tidy(path.parent)
        with deferred():  # a signal between two steps would leave the lock or the file behind
            stack.enter_context(locked(path))
            partial = _created(path)
            stack.callback(_remove, partial)
        yield partial
        with deferred():
            _synchronise(partial)
            _put(partial, path, force)
            _synchronise(path.parent)
            stack.close()


def keep_first(path: Path, text: str) -> None:
    """Write a small text to `path` unless it exists; of several writers, the first one wins."""
    partial = _created(path)
    try:
        partial.write_text(text)
        with suppress(BlurkitError):
            _put(partial, path, force=False)
    finally:
        _remove(partial)


def replace_set(plan: Path, new: Sequence[Path], outdated: Iterable[Path]) -> list[Path]:
    """Move the files `new` to the folder of `plan` and remove `outdated` ones: all or nothing.

    Return where they are then. What is to be done is written to `plan` first; from then on,
    `finish_replacement` completes it, even after a crash.
    """
    names = [path.name for path in new]
    moves = [str(path.relative_to(plan.parent)) for path in new]
    removed = sorted({path.name for path in outdated} - {*names})
    with replacing(plan) as partial:
        partial.write_text(json.dumps({"move": moves, "remove": removed}))
    finish_replacement(plan)
    return [plan.parent / name for name in names]


def finish_replacement(plan: Path) -> None:
    """Complete a `replace_set` that was begun, if one was."""
    if not plan.exists():
        return
    with writing_errors(plan.parent):
        planned, folder = json.loads(plan.read_text()), plan.parent
        for move in planned["move"]:
            with suppress(FileNotFoundError):  # moved already
                _replace(folder / move, folder / Path(move).name)
        for name in planned["remove"]:
            (folder / name).unlink(missing_ok=True)
        _synchronise(folder)
        plan.unlink(missing_ok=True)


def check_replaced(folder: Path) -> None:
    """Raise BlurkitError if some files of a folder are old and some new."""
    if plans := list(folder.glob(f".*{REPLACING}")):
        raise BlurkitError(
            f"{folder}: {plans[0].name} says that its shards were not wholly replaced; complete it "
            "with the same blurkit prepare and --resume"
        )


@contextmanager
def writing_errors(where: Path) -> Iterator[None]:
    """Turn errors of the operating system in a block into `writing_error`."""
    try:
        yield
    except OSError as error:
        raise writing_error(where, error) from error


def writing_error(where: str | Path, error: OSError) -> BlurkitError:
    """Return an operating system's write error as one line that says what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
        return NoOutput(f"{where}: the disk is full; free some space and run again")
    match = re.search(r"error message = '(.+?)'", str(error))  # HDF5 wraps the system's own
    reason = match[1] if match else error.strerror or one_line(error)
    return BlurkitError(f"{where}: cannot be written ({reason})")


class Uncomplaining(io.RawIOBase):
    """A file that a library writes, which keeps an error to itself.

    HDF5 crashes after an error, and torch reports any as one of the archive. `error` is the first;
    nothing is written or cut off after it.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._file = path.open("wb+", buffering=0)
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        left = memoryview(data).cast("B")
        size = len(left)
        while left and self.error is None:
            try:
                left = left[self._file.write(left) :]
            except OSError as error:
                self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size) if self.error is None else 0
        except OSError as error:
            self.error = error
            return 0

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with what follows, and with zeros behind the end."""
        buffer[:] = (self._file.read(len(buffer)) or b"").ljust(len(buffer), b"\0")
        return len(buffer)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


# ---- the temporary file --------------------------------------------------------------------------


def _stem(path: Path) -> str:
    return os.fsdecode(os.fsencode(path.name)[:200])  # temporary files and locks have longer names


def _created(path: Path) -> Path:
    """Create an empty file whose name nobody can foresee, and follow no link to it."""
    partial = path.with_name(f".{_stem(path)}.{secrets.token_hex(8)}.partial")
    try:
        partial.touch(exist_ok=False)
    except OSError as error:  # also of closing it
        if not isinstance(error, FileExistsError):
            _remove(partial)
        raise
    return partial


def _put(partial: Path, path: Path, force: bool) -> None:
    if force:
        _replace(partial, path)
        return
    try:
        path.hardlink_to(partial)  # unlike renaming, this never replaces
    except FileExistsError as error:
        raise BlurkitError(
            f"{path}: has appeared while this was written; give --force to overwrite it"
        ) from error
    except OSError as error:
        if error.errno not in UNABLE | {errno.EPERM, errno.EMLINK}:
            raise
        refuse_existing(path, force)
        _replace(partial, path)


def _replace(partial: Path, path: Path) -> None:
    """Put a file in another's place; where files cannot be renamed, as in buckets, copy it."""
    try:
        partial.replace(path)
    except OSError as error:
        if error.errno not in UNABLE:
            raise
        try:
            shutil.copyfile(partial, path)
            _synchronise(path)
        except BaseException:
            _remove(path)
            raise
        _remove(partial)


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _synchronise(path: Path) -> None:
    """Wait until a file, or the list of a folder's files, is on the disk."""
    if os.environ.get("BLURKIT_SYNC") == "0":
        return
    try:
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:  # Windows opens no folder, and stores its list of files by itself
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in UNABLE:  # folders, and some file systems, cannot be synchronised
            raise
    finally:
        os.close(descriptor)


# ---- one writer at a time ------------------------------------------------------------------------


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a file that is being written; a file system without locks needs none.

    If another process holds it, `wait` until it has ended, or raise BlurkitError.
    """
    from filelock import FileLock, Timeout  # only to write: it takes a twentieth of a second

    name = path.with_name(f".{_stem(path)}.lock")
    # A lock that is a file's mere existence would outlive a process that is killed.
    lock, held = FileLock(name, thread_local=False, fallback_to_soft=False), False
    try:
        with deferred() as stopped:
            try:
                lock.acquire(-1 if wait else 0, 0.2, cancel_check=lambda: bool(stopped()))
            except Timeout as error:
                with suppress(FileExistsError):  # filelock waits for a folder that takes no file
                    os.close(os.open(lock.lock_file, os.O_CREAT | os.O_EXCL))
                    _remove(Path(lock.lock_file))
                reason = "is being written by another process; wait until it has ended"
                raise BlurkitError(f"{path}: {reason}") from error
            except OSError as error:
                if error.errno not in UNABLE | {errno.ENOLCK}:
                    with suppress(OSError, Timeout):  # it may have made its file before it failed
                        lock.acquire(0)
                        _remove(Path(lock.lock_file))
                        lock.release()
                    raise
            held = True
        yield
    finally:
        if held:
            with deferred():
                _remove(Path(lock.lock_file))  # before the release: then it may be another's
                lock.release()


def tidy(folder: Path) -> None:
    """Remove what dead writers have left in a folder, once in the life of this process."""
    folder = folder.absolute()  # the current folder can change
    if folder in _tidied or not folder.is_dir():
        return
    _tidied.add(folder)
    with os.scandir(folder) as entries:
        left = [match for entry in entries if (match := TEMPORARY.fullmatch(entry.name))]
    for stem in {match[1] for match in left}:
        with suppress(OSError, BlurkitError), locked(folder / stem):
            for match in left:
                if match[1] == stem and not match[0].endswith(".lock"):
                    _remove(folder / match[0])
