"""The way of records through a command: one bad record never stops the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blurkit.cli.common import leave
from blurkit.errors import BlurkitError, DiskFull, UsageError
from blurkit.reports.progress import say, track

if TYPE_CHECKING:
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink

RecordJob = tuple["Record", Callable[[], "Record"]]
"""A record and the work that gives it back finished."""


class Problems:
    """The bad items of a batch: each is printed at once, and all of them again at the end."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def add(self, where: str, error: BlurkitError) -> None:
        """Print one bad item and go on. Wrong usage and a full disk end the command instead."""
        if isinstance(error, (UsageError, DiskFull)):
            raise error
        say(f"error: {error}" if where in str(error) else f"error: {where}: {error}")
        self.failed.append(where)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """A block in which a BlurkitError is one bad item."""
        try:
            yield
        except BlurkitError as error:
            self.add(where, error)

    def finish(self, done: int, what: str) -> None:
        """The last line, and exit status 1, when something failed or nothing was there to do."""
        if self.failed:
            names = ", ".join(self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
            leave(f"{len(self.failed)} failed, {done} {what}: {names}", 1)
        if not done:
            leave(f"error: nothing was {what}: the input held no record for it", 1)


def run_records(
    records: Iterable[Record],
    work: Callable[[Record], Record],
    sink: Sink,
    problems: Problems,
    label: str,
    quiet: bool = False,
) -> Iterator[Record]:
    """Send every record through `work` into `sink`; yields each when it is written.

    A record that fails is one of the `problems`, and the rest goes on.
    """
    jobs = ((record, functools.partial(work, record)) for record in records)
    yield from run_jobs(jobs, sink, problems, label, quiet)


def run_jobs(
    jobs: Iterable[RecordJob],
    sink: Sink,
    problems: Problems,
    label: str,
    quiet: bool = False,
) -> Iterator[Record]:
    """As `run_records`; a job is a record and the work that gives it back finished."""
    with sink:
        for record, work in track(jobs, label, None, "record", quiet):
            with problems.guard(record.name):
                sink.claim(record)
                finished = work()
                sink.write(finished)
                yield finished
