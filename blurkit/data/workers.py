"""Work in other processes, with results in order, and in a thread beside this one."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import pickle
import sys
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any, TypeVar

import numpy as np

from blurkit.errors import BlurkitError, UsageError
from blurkit.interrupts import ignore_signals
from blurkit.io import paths

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

STREAMS = hasattr(os, "readv")
"""Whether pipes are streams of bytes, which Windows' are not."""


def processors() -> int:
    """Return the number of processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_order(
    work: Callable[[_Item], _Result], items: Sequence[_Item], jobs: int
) -> Generator[_Result, None, None]:
    """Yield `work` of every item in order, computed by `jobs` processes that take turns.

    Each process has a pipe, which closes when it ends. So a killed process raises BlurkitError even
    in the middle of a result, for which the standard library's pools would wait forever. Processes
    end when the generator is closed or their parent ends.
    """
    readers: list[Connection] = []
    processes: list[multiprocessing.Process] = []
    try:
        for worker in range(min(jobs, len(items))):
            reader, writer = multiprocessing.Pipe(duplex=False)
            _widen(writer)
            given = work, items[worker::jobs], writer, paths.most_pixels
            process = multiprocessing.Process(target=_work, args=given, daemon=True)
            processes.append(process)
            gc.freeze()  # a fork would wait for FFmpeg's threads, which it lacks, to free videos
            process.start()
            gc.unfreeze()
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


class Background:
    """A context with a thread that makes calls in turn; leaving it stops one like an interrupt."""

    def __init__(self) -> None:
        self._calls: SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def submit(self, call: Callable[[], _Result]) -> Future[_Result]:
        """Return the future result of `call`, which is made after those submitted before it."""
        future: Future[_Result] = Future()
        self._calls.put((future, call))
        return future

    def __enter__(self) -> Background:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.submit(sys.exit)
        self._thread.join(timeout=0.05)  # seconds in which one that has nothing to do ends
        if self._thread.is_alive():
            # Signals reach the main thread only, so a call is stopped by an exception of its own.
            # A thread that waits must not get one: Python 3.11 would then hang under a profiler.
            thread = ctypes.c_ulong(self._thread.ident or 0)
            ctypes.pythonapi.PyThreadState_SetAsyncExc(thread, ctypes.py_object(SystemExit))
        self._thread.join()

    def _run(self) -> None:
        with suppress(SystemExit):
            while True:
                future, call = self._calls.get()
                try:
                    future.set_result(call())
                except Exception as error:
                    future.set_exception(error)
                del future, call  # results are large


def _widen(pipe: Connection) -> None:
    """Enlarge a pipe so that images pass in few pieces; Linux's default is 64 KiB."""
    if sys.platform == "linux":
        with suppress(ImportError, OSError):  # a system may allow less
            import fcntl

            fcntl.fcntl(pipe.fileno(), fcntl.F_SETPIPE_SZ, 1 << 20)


def _send(writer: Connection, result: Any) -> None:
    """Send a result; the values of its arrays follow, without a copy of them."""
    buffers: list[pickle.PickleBuffer] = []
    pickled = pickle.dumps(result, protocol=5, buffer_callback=buffers.append)
    arrays = [buffer.raw() for buffer in buffers]
    writer.send((pickled, [array.nbytes for array in arrays]))
    for left in arrays:
        while left and STREAMS:
            left = left[os.write(writer.fileno(), left) :]
        if left:
            writer.send_bytes(left)


def _read(reader: Connection, size: int) -> np.ndarray:
    """Return so many bytes of a pipe. Raises EOFError if it ends before."""
    values = np.empty(size, np.uint8)
    left = values.data
    while left:
        if not STREAMS:
            count = reader.recv_bytes_into(left)
        elif not (count := os.readv(reader.fileno(), [left])):
            raise EOFError
        left = left[count:]
    return values


def _receive(reader: Connection, jobs: int) -> Any:
    try:
        pickled, sizes = reader.recv()
        return pickle.loads(pickled, buffers=[_read(reader, size) for size in sizes])
    except OSError as error:
        raise BlurkitError(f"a process cannot be heard ({error.strerror})") from error
    except EOFError as error:
        why = f"a process was killed, perhaps for lack of memory; try fewer than --jobs {jobs}"
        raise BlurkitError(why) from error


def _work(
    work: Callable[[_Item], _Result], items: Sequence[_Item], writer: Connection, most_pixels: int
) -> None:
    """Run one process. Signals, which may reach all processes, are left to the parent."""
    paths.most_pixels = most_pixels  # the parent's, which a process that was not forked lacks
    ignore_signals()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sent: deque[Future[None]] = deque()
    with ThreadPoolExecutor(1) as sender:
        for item in items:
            sent.append(sender.submit(_send, writer, work(item)))
            if len(sent) > 2:  # are computed before the first of them is fetched
                sent.popleft().result()
        while sent:
            sent.popleft().result()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
