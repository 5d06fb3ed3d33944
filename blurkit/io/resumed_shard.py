"""Shards that a run continues: finished records are kept in a stream, even if the run is killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from blurkit.io.records import Record
from blurkit.io.shard_writing import ShardWriter
from blurkit.io.shards import read_shard
from blurkit.io.streams import end_whole, read_stream, write_stream
from blurkit.io.writing import locked, writing_errors


class ResumedShard:
    """Writes one shard, after the records that it and an interrupted run have `finished`.

    Until the end, records are in a hidden stream next to the shard, to which each is appended as
    soon as it is written; so a run that is killed loses only the record that it was at. Raises
    BlurkitError if the stream is damaged or cannot be written, or if another process writes it.
    """

    def __init__(self, path: Path, compression: str | None = None) -> None:
        self.path, self._compression = path, compression
        self._unfinished = path.with_name(f".{path.name}.unfinished")
        self._stack = ExitStack()
        with writing_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(locked(self._unfinished))
            self._stream = self._stack.enter_context(self._unfinished.open("ab+"))
            end_whole(self._stream)
        both = self._old(pixels=False), self._appended()
        self.finished = frozenset(record.name for records in both for record in records)

    def write(self, record: Record) -> None:
        """Append one record. Raises BlurkitError if that fails."""
        with writing_errors(self.path):
            write_stream(self._stream, record)

    def close(self) -> None:
        """Write the old and the new records to the shard. Raises BlurkitError if that fails."""
        with self._stack:
            if self._stream.seek(0, 2):
                with ShardWriter(self.path, True, self._compression) as writer:
                    for records in (self._old(), self._appended()):
                        for record in records:
                            writer.write(record)
            self._unfinished.unlink()

    def abandon(self) -> None:
        """Leave the stream, if it has records, to a run that resumes this one."""
        if self._unfinished.stat().st_size == 0:
            self._unfinished.unlink()
        self._stack.close()

    def _old(self, pixels: bool = True) -> Iterator[Record]:
        """Yield the records of the shard, if there is one."""
        return read_shard(self.path, pixels=pixels) if self.path.is_file() else iter(())

    def _appended(self) -> Iterator[Record]:
        """Yield the records of the stream, if it has any."""
        size = self._stream.seek(0, 2)
        self._stream.seek(0)
        return read_stream(self._stream) if size else iter(())
