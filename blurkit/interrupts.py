"""How SIGINT and SIGTERM reach the parts of a program: raised, noted, deferred or ignored."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Terminated(BaseException):
    """SIGTERM, raised where an interrupt would be, so that what is unfinished is cleaned up."""


def raise_signals() -> None:
    """Let SIGTERM raise `Terminated` as SIGINT raises KeyboardInterrupt, wherever it arrives.

    Python drops what is raised in a destructor or a weak reference's callback, and a signal may
    happen to be handled there: that signal is then sent once more. Anything else dropped there,
    such as by a decoder that was stopped half made, is nothing to a user.
    """
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _send_again


@contextmanager
def noted() -> Iterator[Callable[[], int]]:
    """Keep SIGINT and SIGTERM from ending the block.

    Yields a function that returns the number of the first signal that has arrived, 0 for none.
    """
    arrived: list[int] = []
    handlers = {n: signal.signal(n, lambda number, frame: arrived.append(number)) for n in SIGNALS}
    try:
        yield lambda: arrived[0] if arrived else 0
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Act as `noted` does, and raise the signal that has arrived when the block is left."""
    try:
        with noted() as arrived:
            yield arrived
    finally:
        if number := arrived():
            signal.raise_signal(number)


def ignore_signals() -> None:
    """Leave SIGINT and SIGTERM, which may be sent to all processes, to the parent process."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    stops = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
    if number := stops.get(unraisable.exc_type):
        _thread.start_new_thread(_kill_later, (number,))  # a Thread would wait here


def _kill_later(number: int) -> None:
    time.sleep(0.1)
    os.kill(os.getpid(), number)
