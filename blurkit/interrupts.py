"""How SIGINT, SIGTERM and SIGHUP are handled: raised, noted, deferred or ignored.

Windows has no SIGHUP; its SIGBREAK is handled like SIGTERM.
"""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_KNOWN = (getattr(signal, name, None) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"))
SIGNALS = tuple(number for number in _KNOWN if number is not None)
"""Those of the signals that this system has."""


class Terminated(BaseException):
    """Raised on SIGTERM and SIGHUP, like KeyboardInterrupt on SIGINT, so that cleanup runs.

    `signal` is the number of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


def raise_signals() -> None:
    """Make SIGTERM and SIGHUP raise `Terminated`, as SIGINT raises KeyboardInterrupt.

    SIGHUP, which a closed terminal sends, is left alone where `nohup` has it ignored.

    Python discards exceptions raised in a destructor or in the callback of a weak reference. If a
    signal is handled there, it is sent again. All other exceptions discarded there, such as those
    of a partly constructed decoder, are not reported, because they do not concern the user.
    """
    for number in SIGNALS:
        ignored = number != signal.SIGTERM and signal.getsignal(number) == signal.SIG_IGN
        if number != signal.SIGINT and not ignored:
            signal.signal(number, _terminate)
    sys.unraisablehook = _send_again


@contextmanager
def noted() -> Iterator[Callable[[], int]]:
    """Keep SIGINT, SIGTERM and SIGHUP from ending the block, and note them instead.

    Yields a function that returns the number of the first signal that has arrived, or 0.
    """
    arrived: list[int] = []
    heard = [n for n in SIGNALS if signal.getsignal(n) != signal.SIG_IGN]
    handlers: dict[int, Any] = {}
    try:
        for number in heard:
            handlers[number] = signal.signal(number, lambda number, frame: arrived.append(number))
        yield lambda: arrived[0] if arrived else 0
    finally:
        for changed, handler in handlers.items():
            signal.signal(changed, handler)


@contextmanager
def deferred() -> Iterator[Callable[[], int]]:
    """Act like `noted`, and raise the signal that has arrived, if any, on leaving the block.

    Outside the main thread, where Python raises no signals, it does nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: 0
        return
    arrived: Callable[[], int] | None = None  # a signal may be raised before there is one
    try:
        with noted() as arrived:
            yield arrived
    finally:
        if arrived is not None and (number := arrived()):
            signal.raise_signal(number)


def ignore_signals() -> None:
    """Ignore SIGINT, SIGTERM and SIGHUP, which may reach all processes; the parent handles them."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def _send_again(unraisable: sys.UnraisableHookArgs) -> None:
    stop = unraisable.exc_value
    if isinstance(stop, (KeyboardInterrupt, Terminated)):
        number = stop.signal if isinstance(stop, Terminated) else signal.SIGINT
        _thread.start_new_thread(_kill_later, (number,))  # starting a Thread would block here


def _kill_later(number: int) -> None:
    time.sleep(0.1)
    if os.name == "posix":
        os.kill(os.getpid(), number)  # interrupts what the main thread waits for
    else:  # where it would end the process
        signal.raise_signal(number)
