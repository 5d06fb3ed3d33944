"""A batch reads the next record and writes the last one while it works on one."""

import select
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from blurkit.cli.batch import RecordBatch, RecordTask
from blurkit.cli.deblur import DeblurOptions
from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.io.sinks import Sink
from blurkit.io.streams import shard_bytes
from tests.cli.command import files, fresh, start
from tests.cli.pictures import photo, write
from tests.cli.test_interrupts import end, wait_for

PATIENCE = 20.0
"""Seconds after which something that was to happen meanwhile has not happened."""


def run(jobs: Iterator[RecordTask], sink: Sink) -> Iterator[Record]:
    batch = RecordBatch((), DeblurOptions(quiet=True), "test", "tested")
    batch.sink = sink
    return batch.run(jobs)


class Written(Sink):
    """Keeps the names of its records, and says when each is written."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.names: list[str] = []
        self.events = [threading.Event() for _ in range(count)]

    def write(self, record: Record) -> None:
        self.names.append(record.name)
        self.events[int(record.name)].set()


def test_work_overlaps_with_reading_and_writing() -> None:
    """By events: the work on each record waits for the next to be read, and the last written."""
    count, threads = 5, threading.active_count()
    read, sink = [threading.Event() for _ in range(count)], Written(count)
    met: list[bool] = []

    def work(number: int) -> Record:
        if number + 1 < count:
            met.append(read[number + 1].wait(PATIENCE))
        if number:
            met.append(sink.events[number - 1].wait(PATIENCE))
        return Record(str(number))

    def jobs() -> Iterator[RecordTask]:
        for number in range(count):
            assert number - len(sink.names) <= 2, "more than one record is read ahead"
            read[number].set()
            yield Record(str(number)), lambda number=number: work(number)

    assert [record.name for record in run(jobs(), sink)] == sink.names == [*"01234"]
    assert all(met)
    assert threading.active_count() == threads


def test_what_was_begun_is_written_before_an_error_of_the_source() -> None:
    def jobs() -> Iterator[RecordTask]:
        yield Record("0"), lambda: Record("0")
        raise BlurkitError("the source has ended early")

    sink, threads = Written(1), threading.active_count()
    with pytest.raises(BlurkitError, match="ended early"):
        list(run(jobs(), sink))
    assert sink.names == ["0"]
    assert threading.active_count() == threads


def test_a_result_does_not_wait_for_the_next_record_of_a_stream(checkpoint: Path) -> None:
    process = start("deblur", "-", "-c", checkpoint, "-q", "-o", "-", stdin=-1)
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(shard_bytes(Record("first", {"blur": photo(0)})))
        process.stdin.flush()
        assert select.select([process.stdout], [], [], PATIENCE)[0], "it waits for a second record"
        process.stdin.close()
        assert process.stdout.read(8) == b"\x89HDF\r\n\x1a\n"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("number", "status", "last", "output"),
    [(signal.SIGINT, 130, "interrupted", ""), (signal.SIGTERM, 143, "terminated", "o.h5")],
)
def test_a_signal_keeps_what_is_finished(
    number: signal.Signals, status: int, last: str, output: str, checkpoint: Path
) -> None:
    """Whole images are kept, a part of a shard is not."""
    for index in range(20):
        write(f"in/{index:02}.png", photo(index, 200, 200))
    process = start("deblur", "in", "-c", checkpoint, "-o", f"out/{output}")
    found = "out/*" if output else "out/[!.]*"
    wait_for(lambda: any(path.stat().st_size > 10_000 for path in Path().glob(found)), 60)
    ended, err = end(process, number)
    assert (ended, err.splitlines()[-1]) == (status, last)
    names = [*files("out")]
    assert names == [f"{index:02}.png" for index in range(len(names))]
    assert len(names) < 20 and bool(names) != bool(output)


LOADS_OPENMP = """
import ctypes
from importlib.util import find_spec
from pathlib import Path
from blurkit.cli.app import main

try:
    main()
except SystemExit:
    (library,) = Path(find_spec("torch").origin).parent.glob("lib/libgomp*")
    ctypes.CDLL(str(library))
"""


@pytest.mark.parametrize(
    ("given", "spins"), [({}, "10000"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "30000000000")]
)
def test_threads_of_torch_spin_briefly_unless_told(given: dict[str, str], spins: str) -> None:
    """The OpenMP library of torch reports its settings when it is loaded."""
    ran = fresh("-c", LOADS_OPENMP, "--version", OMP_DISPLAY_ENV="VERBOSE", **given)
    assert f"GOMP_SPINCOUNT = '{spins}'" in ran.err
