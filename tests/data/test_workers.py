"""Work shared among processes comes back in order, and no process is left or waited for."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from blurkit.data.workers import Background, in_order
from blurkit.errors import BlurkitError
from blurkit.io.films import read_film
from tests.io.films import make_video


def slow_square(number: int) -> int:
    time.sleep(0.02 * (number % 3))
    return number * number


def ends_at_three(number: int) -> bytes:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return bytes(1_000_000)


LARGE = 20_000_000


def large(number: int) -> np.ndarray:
    return np.full(LARGE, number, np.uint8)


def arrays(number: int) -> dict[str, np.ndarray]:
    values = np.arange(60, dtype=np.float32).reshape(3, 4, 5) + number
    kinds = {"c": values, "f": np.asfortranarray(values), "some": values[:, ::2]}
    fixed = values.astype(np.uint16)
    fixed.flags.writeable = False
    return kinds | {"fixed": fixed, "none": values[:0]}


def ends_within_an_array(number: int) -> np.ndarray:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()
    return np.zeros(LARGE, np.uint8)  # more than the pipe takes


@pytest.mark.parametrize("jobs", [1, 2, 3, 20])
def test_results_come_in_order(jobs: int) -> None:
    assert list(in_order(slow_square, range(10), jobs)) == [n * n for n in range(10)]
    assert list(in_order(slow_square, [], jobs)) == []
    assert multiprocessing.active_children() == []


def collects(number: int) -> int:
    gc.collect()
    return number


def test_processes_do_not_wait_for_the_threads_of_videos(tmp_path: Path) -> None:
    frames = list(read_film(make_video(tmp_path / "a.mp4")))
    with ThreadPoolExecutor(1) as thread:
        results = in_order(collects, range(2), 2)
        assert thread.submit(next, results).result(timeout=20) == 0
        assert len(frames) == 10 and [*results] == [1]


def test_arrays_of_all_kinds_come_back() -> None:
    for number, result in enumerate(in_order(arrays, range(3), 2)):
        for name, expected in arrays(number).items():
            np.testing.assert_array_equal(result[name], expected)
            assert result[name].dtype == expected.dtype
            assert result[name].flags.writeable == expected.flags.writeable


def test_large_arrays_are_received_without_copies() -> None:
    tracemalloc.start()
    results = list(in_order(large, range(3), 1))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [result[-1] for result in results] == [0, 1, 2]
    assert peak < 3.2 * LARGE


def test_leaving_early_ends_the_processes() -> None:
    with closing(in_order(slow_square, range(1000), 2)) as results:
        assert next(results) == 0
        assert len(multiprocessing.active_children()) == 2
    assert multiprocessing.active_children() == []


def test_a_killed_process_is_told() -> None:
    with pytest.raises(BlurkitError, match="killed, perhaps for lack of memory"):
        list(in_order(ends_at_three, range(8), 2))
    with pytest.raises(BlurkitError, match="killed, perhaps for lack of memory"):
        for _ in in_order(ends_within_an_array, range(2), 2):
            time.sleep(0.5)
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


PROFILED = """
import cProfile, time
from blurkit.data.workers import Background
with cProfile.Profile(), Background() as background:
    print(background.submit(lambda: 2).result())
    time.sleep(0.1)  # its thread waits
"""


def test_nothing_hangs_under_a_profiler() -> None:
    told = subprocess.check_output([sys.executable, "-c", PROFILED], text=True, timeout=60)
    assert told == "2\n"
