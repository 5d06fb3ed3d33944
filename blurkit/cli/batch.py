"""Processing of records in a command: a bad record never stops the others."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blurkit.cli.common import leave
from blurkit.data.parts import WorkPart, parse_part, part_of_job
from blurkit.errors import BlurkitError, DiskFull, UsageError, is_out_of_memory
from blurkit.reports.progress import say, track

if TYPE_CHECKING:
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink

RecordJob = tuple["Record", Callable[[], "Record"]]
"""A record, and the function that returns it finished."""


def choose_part(text: str, quiet: bool = False) -> WorkPart:
    """Return the part that `--part` names; where it comes from is said unless `quiet`.

    Raises UsageError for a part that does not exist.
    """
    if text != "auto":
        return parse_part(text)
    part, stated = part_of_job(os.environ)
    say(f"part {part[0]}/{part[1]} ({stated})", quiet)
    return part


class Problems:
    """The bad items of a batch: each is reported at once, and all are listed again at the end."""

    def __init__(self) -> None:
        self.failed: list[str] = []

    def add(self, where: str, error: BlurkitError) -> None:
        """Report a bad item. UsageError and DiskFull are raised instead and end the command."""
        if isinstance(error, (UsageError, DiskFull)):
            raise error
        say(f"error: {error}" if where in str(error) else f"error: {where}: {error}")
        self.failed.append(where)

    @contextmanager
    def guard(self, where: str) -> Iterator[None]:
        """Run a block in which a BlurkitError, or too little memory, counts as one bad item."""
        try:
            yield
        except BlurkitError as error:
            self.add(where, error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self.add(where, BlurkitError("out of memory; try a smaller --tile"))

    def finish(self, done: int, verb: str) -> None:
        """End with a summary and exit status 1 if an item failed or nothing was processed."""
        if self.failed:
            names = ", ".join(self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
            leave(f"{len(self.failed)} failed, {done} {verb}: {names}", 1)
        if not done:
            leave(f"error: nothing was {verb}: the input holds no suitable record", 1)


def run_records(
    records: Iterable[Record],
    work: Callable[[Record], Record],
    sink: Sink,
    problems: Problems,
    label: str,
    quiet: bool = False,
) -> Iterator[Record]:
    """Process every record with `work`, write it to `sink`, then yield it.

    A record that fails is added to `problems`, and the others are still processed.
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
    """Run every job, write its record to `sink`, then yield it; see `run_records`."""
    with sink:
        for record, work in track(jobs, label, None, "record", quiet):
            with problems.guard(record.name):
                sink.claim(record)
                finished = work()
                sink.write(finished)
                yield finished
