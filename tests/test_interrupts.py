"""Signals that are noted, deferred and ignored."""

import signal
import subprocess
import sys

import pytest

from blurkit.interrupts import SIGNALS, deferred, noted


@pytest.mark.parametrize("number", SIGNALS)
def test_a_noted_signal_ends_nothing(number: signal.Signals) -> None:
    before = [signal.getsignal(n) for n in SIGNALS]
    with noted() as arrived:
        assert arrived() == 0
        signal.raise_signal(number)
        signal.raise_signal(signal.SIGINT)
        assert arrived() == number
    assert [signal.getsignal(n) for n in SIGNALS] == before


def test_a_deferred_signal_is_raised_after_the_block() -> None:
    done = False
    with pytest.raises(KeyboardInterrupt), deferred() as arrived:
        signal.raise_signal(signal.SIGINT)
        done = arrived() == signal.SIGINT
    assert done


def test_nothing_is_raised_where_nothing_arrived() -> None:
    with deferred() as arrived:
        pass
    assert arrived() == 0


def test_an_error_in_the_block_gives_way_to_the_signal() -> None:
    with pytest.raises(KeyboardInterrupt) as caught, deferred():
        signal.raise_signal(signal.SIGINT)
        raise ValueError
    assert isinstance(caught.value.__context__, ValueError)


def test_what_is_dropped_in_a_destructor_is_sent_again() -> None:
    code = """
import signal, time
from blurkit.interrupts import Terminated, raise_signals
class Unlucky:
    def __del__(self):
        signal.raise_signal(signal.SIGTERM)
raise_signals()
try:
    Unlucky()
    time.sleep(20)
except Terminated:
    print("terminated")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=15)
    assert (done.stdout, done.stderr, done.returncode) == ("terminated\n", "", 0)
