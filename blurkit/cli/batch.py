"""Processing of records in a command: a bad record never stops the others."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from blurkit.cli.common import leave
from blurkit.cli.shared import Filming
from blurkit.data.unread import summary_of_unread, unread_files
from blurkit.errors import BlurkitError, DiskFull, UsageError, is_out_of_memory
from blurkit.io.film_writing import FilmOptions
from blurkit.reports.progress import say, track

if TYPE_CHECKING:
    from blurkit.cli.shared import Printing
    from blurkit.io.records import Record
    from blurkit.io.sinks import Sink

RecordJob = tuple["Record", Callable[[], "Record"]]
"""A record, and the function that returns it finished."""


def film_options(options: Filming) -> FilmOptions:
    """Return how films are written; what a new film lacks is printed as a warning."""
    return FilmOptions(options.frames, options.crf, lambda text: say(f"warning: {text}"))


class Problems:
    """The bad items of a batch: each is reported at once, and all are listed again at the end.

    Pictures and films in folders among `inputs` that no command reads, except those with a suffix
    in `also_read`, are counted at the end.
    """

    def __init__(self, inputs: Iterable[str] = (), also_read: Iterable[str] = ()) -> None:
        self.failed: list[str] = []
        self._inputs, self._also_read = tuple(inputs), tuple(also_read)

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
        """End with a summary and exit status 1 if an item failed or nothing was processed.

        Files that were not read have the same exit status, and a line that counts them.
        """
        unread = unread_files(self._inputs, self._also_read)
        if unread:
            say(summary_of_unread(unread))
        if self.failed:
            names = ", ".join(self.failed[:5]) + (", ..." if len(self.failed) > 5 else "")
            leave(f"{len(self.failed)} failed, {done} {verb}: {names}", 1)
        if not done:
            leave(f"error: nothing was {verb}: the input holds no suitable record", 1)
        if unread:
            leave("", 1)


def warn(name: str, warnings: Iterable[str], options: Printing) -> None:
    """Print the warnings about a record on standard error, unless `--json` prints them."""
    for warning in warnings:
        say(f"warning: {name}: {warning}", options.quiet or options.json)


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
    """Run every job, write its record to `sink`, then yield it; see `run_records`.

    Of a film that `sink` does not accept, the other frames are left out.
    """
    refused = None
    with sink:
        for record, work in track(jobs, label, None, "record", quiet):
            film = record.attrs.get("film", record.name)
            if film == refused:
                continue
            refused = film
            with problems.guard(film):
                sink.claim(record)
                refused = None
            if refused is not None:
                continue
            with problems.guard(record.name):
                finished = work()
                sink.write(finished)
                yield finished
