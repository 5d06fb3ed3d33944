"""Work shared among processes comes back in order, and no process is left or waited for."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from contextlib import closing

import pytest

from blurkit.data.workers import Background, in_order
from blurkit.errors import BlurkitError


def slow_square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def ends_at_three(number: int) -> bytes:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes(1_000_000)


@pytest.mark.parametrize("jobs", [1, 2, 3, 20])
def test_results_come_in_order(jobs: int) -> None:
    assert list(in_order(slow_square, range(10), jobs)) == [n * n for n in range(10)]
    assert list(in_order(slow_square, [], jobs)) == []
    assert multiprocessing.active_children() == []


def test_leaving_early_ends_the_processes() -> None:
    with closing(in_order(slow_square, range(1000), 2)) as results:
        assert next(results) == 0
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_a_killed_process_is_told() -> None:
    with pytest.raises(BlurkitError, match="killed, perhaps for lack of memory"):
        list(in_order(ends_at_three, range(8), 2))
    assert multiprocessing.active_children() == []


def test_calls_are_made_in_order_in_another_thread() -> None:
    threads = threading.active_count()
    released = threading.Event()
    with Background() as background:
        first = background.submit(lambda: (released.wait(30), threading.get_ident()))
        second = background.submit(lambda: 1 // 0)
        third = background.submit(lambda: "after an error")
        assert not first.done()
        released.set()
        assert first.result() != (True, threading.get_ident()) and first.result()[0]
        with pytest.raises(ZeroDivisionError):
            second.result()
        assert third.result() == "after an error"
    assert threading.active_count() == threads


def test_leaving_stops_a_call_and_drops_those_that_wait() -> None:
    threads = threading.active_count()
    begun, ends = threading.Event(), []

    def endless() -> None:
        begun.set()
        try:
            while True:
                time.sleep(0.001)
        finally:
            ends.append("released")

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt), Background() as background:
        background.submit(endless)
        background.submit(lambda: ends.append("not dropped"))
        assert begun.wait(30)
        raise KeyboardInterrupt
    assert time.monotonic() - started < 10
    assert ends == ["released"]
    assert threading.active_count() == threads
