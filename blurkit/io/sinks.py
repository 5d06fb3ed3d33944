"""Sinks: the destinations of a command's records, and those for whole records."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import BinaryIO

from blurkit.io.records import Record
from blurkit.io.resumed_shard import ResumedShard
from blurkit.io.shard_writing import ShardWriter
from blurkit.io.streams import write_stream


class Sink(ABC):
    """A destination for records: call `claim` before the work on a record, and `write` after it.

    A sink is a context manager; leaving it without an error completes its output.
    """

    def is_done(self, record: Record) -> bool:
        """Return whether an earlier run that is resumed has finished `record`."""
        return False

    def claim(self, record: Record) -> None:
        """Raise BlurkitError if `record` could not be written, before any work is spent on it."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write `record`. Raises BlurkitError if that fails."""

    def path(self, record: Record) -> Path | None:
        """Return the file that `record` is written to, or None if there is no file."""
        return None

    def __enter__(self) -> Sink:
        return self

    def finish(self) -> None:
        """Complete the output."""

    def abandon(self) -> None:
        """Remove unfinished output after an error."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.finish()
        else:
            self.abandon()


class StreamSink(Sink):
    """Writes every record as a separate shard to a binary stream and flushes it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        """Send the record."""
        write_stream(self._stream, record)


class ShardSink(Sink):
    """Writes all records to one shard; with `resume`, after those that it or an earlier run has."""

    def __init__(
        self,
        path: Path,
        force: bool = False,
        compression: str | None = None,
        resume: bool = False,
    ) -> None:
        self._writer: ShardWriter | ResumedShard
        if resume:
            self._writer = ResumedShard(path, compression)
            self._finished = self._writer.finished
        else:
            self._writer = ShardWriter(path, force, compression)
            self._finished = frozenset()

    def is_done(self, record: Record) -> bool:
        """Return whether the shard to resume has a record of this name."""
        return record.name in self._finished

    def write(self, record: Record) -> None:
        """Append the record."""
        self._writer.write(record)

    def path(self, record: Record) -> Path:
        """Return the shard."""
        return self._writer.path

    def finish(self) -> None:
        """Finish the shard and rename it to its path."""
        self._writer.close()

    def abandon(self) -> None:
        """Remove the unfinished shard."""
        self._writer.abandon()
