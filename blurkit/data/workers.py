"""Work distributed over processes, with results in order."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from blurkit.errors import BlurkitError, UsageError
from blurkit.interrupts import ignore_signals

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

AHEAD = 2
"""How many results a process computes before the first of them is fetched."""


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    work: Callable[[_Item], _Result], items: Sequence[_Item], jobs: int
) -> Generator[_Result, None, None]:
    """Yield `work` of every item in order, computed by `jobs` processes that take turns.

    Each process has a separate pipe, which closes when the process ends. So a killed process raises
    BlurkitError, even if killed in the middle of a result; the standard library's pools would wait
    forever. Processes end when the generator is closed or their parent ends.
    """
    readers: list[Connection] = []
    processes: list[multiprocessing.Process] = []
    try:
        for worker in range(min(jobs, len(items))):
            reader, writer = multiprocessing.Pipe(duplex=False)
            _widen(writer)
            process = multiprocessing.Process(
                target=_work, args=(work, items[worker::jobs], writer), daemon=True
            )
            processes.append(process)
            process.start()
            writer.close()  # the process holds the only other copy
            readers.append(reader)
        for number in range(len(items)):
            yield _receive(readers[number % jobs], jobs)
    finally:
        started = [process for process in processes if process.pid]
        for process in started:
            process.kill()
        for process in started:
            process.join()


def ahead(
    work: Callable[[_Item], _Result], items: Sequence[_Item], jobs: int
) -> Generator[_Result, None, None]:
    """Yield `work` of every item in order, computed ahead by `jobs` processes, or a thread for 0.

    Raises UsageError for processes on systems other than Linux, where each would need a copy of
    what `work` holds, and BlurkitError if a process was killed.
    """
    if jobs and sys.platform != "linux":
        raise UsageError("--jobs: training uses processes only on Linux; omit it")
    results = in_order(work, items, jobs) if jobs else (work(item) for item in items)
    with closing(results), ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, results, None)
        while (result := coming.result()) is not None:
            coming = thread.submit(next, results, None)
            yield result


def _widen(pipe: Connection) -> None:
    """Enlarge a pipe so that images pass in few pieces; Linux's default is 64 KiB."""
    if sys.platform == "linux":
        import fcntl

        with suppress(OSError):  # a system may allow less
            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def _receive(reader: Connection, jobs: int) -> Any:
    try:
        return reader.recv()
    except (EOFError, OSError) as error:
        raise BlurkitError(
            f"a process was killed, perhaps for lack of memory; try fewer than --jobs {jobs}"
        ) from error


def _work(work: Callable[[_Item], _Result], items: Sequence[_Item], writer: Connection) -> None:
    """Run one process. Signals, which may reach all processes, are left to the parent."""
    ignore_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sent: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as sender:
        for item in items:
            sent.append(sender.submit(writer.send, work(item)))
            if len(sent) > AHEAD:
                sent.popleft().result()
        while sent:
            sent.popleft().result()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
