"""Failing the n-th operation on files: writes, synchronisations, renames, links, creations."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock


class Faults:
    """Counts operations and lets the one with the number `at` fail once; 0 fails none."""

    def __init__(self, at: int, number: int = errno.EIO) -> None:
        self.at, self.number, self.count = at, number, 0

    def step(self, what: str) -> None:
        """Count an operation. Raises OSError if it is the one to fail."""
        self.count += 1
        if self.count == self.at:
            raise OSError(self.number, f"{os.strerror(self.number)} ({what})")

    @property
    def reached(self) -> bool:
        """Whether the operation that was to fail has failed."""
        return bool(self.at) and self.count >= self.at


class Faulty(io.FileIO):
    """A file whose writes are counted and may fail."""

    def __init__(self, faults: Faults, path: Any, mode: str) -> None:
        super().__init__(path, mode)
        self._faults = faults

    def write(self, data: Any) -> int:
        self._faults.step("write")
        return super().write(data)

    def truncate(self, size: int | None = None) -> int:
        self._faults.step("truncate")
        return super().truncate(size)


@contextmanager
def failing(at: int, number: int = errno.EIO) -> Iterator[Faults]:
    """Let the `at`-th operation on files of this process fail with an error number."""
    faults = Faults(at, number)
    real = io.open

    def opened(file: Any, mode: str = "r", buffering: int = -1, *args: Any, **kwargs: Any) -> Any:
        if isinstance(file, int) or not set(mode) & set("wax+"):
            return real(file, mode, buffering, *args, **kwargs)
        faults.step("open")
        raw = Faulty(faults, os.fspath(file), mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        buffered = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, *args[:3], **kwargs)

    def counted(name: str) -> Callable[..., Any]:
        function = getattr(os, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            faults.step(name)
            return function(*args, **kwargs)

        return call

    patches = [mock.patch.object(os, name, counted(name)) for name in ("fsync", "replace", "link")]
    patches += [mock.patch.object(io, "open", opened), mock.patch.object(builtins, "open", opened)]
    for patch in patches:
        patch.start()
    try:
        yield faults
    finally:
        for patch in reversed(patches):
            patch.stop()
