"""How SIGINT and SIGTERM are handled: raised, noted, deferred or ignored."""

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
    """Raised on SIGTERM, like KeyboardInterrupt on SIGINT, so that cleanup runs."""


def raise_signals() -> None:
    """Make SIGTERM raise `Terminated` wherever it arrives, as SIGINT raises KeyboardInterrupt.

    Python discards exceptions raised in a destructor or in the callback of a weak reference. If a
    signal is handled there, it is sent again. All other exceptions discarded there, such as those
    of a partly constructed decoder, are not reported, because they do not concern the user.
    """
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _send_again


@contextmanager
def noted() -> Iterator[Callable[[], int]]:
    """Keep SIGINT and SIGTERM from ending the block, and note them instead.

    Yields a function that returns the number of the first signal that has arrived, or 0.
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
    """Act like `noted`, and raise the signal that has arrived, if any, on leaving the block."""
    try:
        with noted() as arrived:
            yield arrived
    finally:
        if number := arrived():
            signal.raise_signal(number)


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM, which may reach all processes; the parent handles them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    stops = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
    if number := stops.get(unraisable.exc_type):
        _thread.start_new_thread(_kill_later, (number,))  # starting a Thread would block here


def _kill_later(number: int) -> None:
    time.sleep(0.1)
    os.kill(os.getpid(), number)
