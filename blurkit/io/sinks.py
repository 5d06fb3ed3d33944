"""Sinks: the destinations of a command's records, and those for whole records."""

import re
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import BinaryIO

from blurkit.errors import BlurkitError, UsageError
from blurkit.io import writing
from blurkit.io.paths import walk
from blurkit.io.records import Record, safe_name
from blurkit.io.shards import read_shard
from blurkit.io.streams import ShardWriter, end_whole, read_stream, write_stream


class Sink(AbstractContextManager["Sink"]):
    """A destination for records: call `claim` before the work on a record, and `write` after it.

    A sink is a context manager; leaving it without an error completes its output. It alone knows
    when a result is finished: an image or a film is one, and so is each record in a shard or a
    stream. `done` counts them, `films` those of several frames; `files` hold them, and
    `comparisons` are pictures beside them. `only` says so if the sink takes a single result.
    """

    only = ""

    def __init__(self) -> None:
        self.done = self.films = 0
        self.files: list[Path] = []
        self.comparisons: list[Path] = []

    def is_done(self, record: Record) -> bool:
        """Return whether an earlier run that is resumed has finished `record`."""
        return False

    def claim(self, record: Record) -> None:
        """Raise BlurkitError if `record` could not be written, before any work is spent on it."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write `record`. Raises BlurkitError if that fails."""

    def film(self, record: Record) -> str | None:
        """Return the name of the film that `record` is a frame of, None if it is a result alone."""
        return None

    def drop(self, record: Record) -> None:
        """Give up the film that `record` is a frame of, if it is one: it would lack this frame."""

    def is_dropped(self, record: Record) -> bool:
        """Return whether the film that `record` is a frame of was given up."""
        return False

    def refuse_several(self, results: int) -> None:
        """Raise UsageError for several results if the sink takes only one."""
        if self.only and results > 1:
            raise UsageError(f"{self.only}, but there are more; name a folder/")

    def path(self, record: Record) -> Path | None:
        """Return the file that `record` is written to, or None if there is no file."""
        return None

    def finish(self) -> None:
        """Complete the output."""

    def abandon(self) -> None:
        """Remove unfinished output after an error."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.finish()
        else:
            self.abandon()


def source_change(record: Record) -> int:
    """Return when a record's file was last changed, in nanoseconds, 0 if it has none."""
    return writing.last_change(record.source) if record.attrs.get("source") else 0


class StreamSink(Sink):
    """Writes every record as a separate shard to a binary stream and flushes it."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream

    def write(self, record: Record) -> None:
        write_stream(self._stream, record)
        self.done += 1


class ShardSink(Sink):
    """Writes all records to one shard."""

    def __init__(self, writer: "ShardWriter | ResumedShard") -> None:
        super().__init__()
        self._writer = writer

    def is_done(self, record: Record) -> bool:
        """Return whether the shard to resume has a record of this name, newer than its source."""
        return isinstance(self._writer, ResumedShard) and self._writer.is_done(record)

    def write(self, record: Record) -> None:
        self._writer.write(record)
        self.done += 1

    def path(self, record: Record) -> Path:
        return self._writer.path

    def finish(self) -> None:
        self._writer.close()
        self.files += [self._writer.path] if self.done else []

    def abandon(self) -> None:
        self._writer.abandon()


# ---- Folders of shards ---------------------------------------------------------------------------


class ShardFolder(Sink):
    """Writes numbered shards to a folder, one series per split (`train-00000.h5`, ...).

    A shard is closed when its images exceed `max_bytes`. `resume` keeps existing whole shards and
    continues after them; `finished` then lists the names of their records by split. Records whose
    sources were `changed` (a time in nanoseconds by the record's name) after their shard was
    written are left out, so that shard is replaced. None means that the command cannot resume.

    Shards that are replaced, with `force` all of them, stay until all new ones, which are collected
    in a hidden folder, are whole; then all are exchanged, if need be by the next run.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = 1 << 30,
        force: bool = False,
        resume: bool | None = False,
        compression: str | None = None,
        part: str = "",
        changed: Callable[[str], int] | None = None,
    ) -> None:
        super().__init__()
        self.folder, self.max_bytes = folder, max_bytes
        self.compression, self._part = compression, part
        self.finished: dict[str, list[str]] = {}
        self._names: set[str] = set()
        self.paths: list[Path] = []
        self._writers: dict[str, ShardWriter] = {}
        self._unopened: dict[str, BlurkitError] = {}
        self._numbers: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._plan = folder / f".{part}{writing.REPLACING}"
        writing.refuse_unwritable(folder)
        writing.tidy(folder)
        writing.finish_replacement(self._plan)
        self._unfinished = folder / f".{part}unfinished"
        shutil.rmtree(self._unfinished, ignore_errors=True)  # left by a run that was killed
        present = part_shards(folder, part)
        self._outdated = [] if resume else [*present]
        self._adopted = 0
        if present and resume:
            changed = changed or (lambda name: 0)
            for path, (split, number) in present.items():
                self._adopt(path, split, number, changed)
            self._adopted = len(self.paths)
            for path in self._outdated:
                for record in read_shard(path):
                    if changed(record.name) <= writing.last_change(path):
                        self._finished(self._append(record), [record.name])
        elif present and not force:
            ways = "" if resume is None else "--resume to continue them or "
            raise BlurkitError(
                f"{folder}/ holds {len(present)} shards already; give {ways}--force to start over"
            )

    def is_done(self, record: Record) -> bool:
        return record.name in self._names

    def path(self, record: Record) -> Path:
        return self.folder

    def _adopt(self, path: Path, split: str, number: int, changed: Callable[[str], int]) -> None:
        """Take over the records of a whole shard, unless a source was changed after it."""
        self._numbers[split] = max(self._numbers.get(split, 0), number + 1)
        names = [record.name for record in read_shard(path)]
        if any(changed(name) > writing.last_change(path) for name in names):
            self._outdated.append(path)
        else:
            self._finished(split, names)
            self.paths.append(path)

    def _finished(self, split: str, names: list[str]) -> None:
        self.finished.setdefault(split, []).extend(names)
        self._names.update(names)

    def write(self, record: Record) -> None:
        """Append the record to its split's current shard; records without a split are `train`.

        Raises BlurkitError if the split, which becomes part of a file name, is not a plain word.
        """
        self._append(record)
        self.done += 1

    def _append(self, record: Record) -> str:
        split = str(record.attrs.get("split") or "train")
        if len(safe_name(split).parts) > 1:
            raise BlurkitError(f"record {record.name!r}: split {split!r} is not a plain name")
        if split in self._writers and self._bytes[split] + record.bytes > self.max_bytes:
            self._close(split)
        if split in self._unopened:  # its last item misses a part, and none comes after that
            raise self._unopened[split]
        if split not in self._writers:
            number = self._numbers.get(split, 0)
            folder = self._unfinished if self._outdated else self.folder
            path = folder / f"{split}-{self._part}{number:05d}.h5"
            try:
                self._writers[split] = ShardWriter(path, True, self.compression)
            except BlurkitError as error:
                self._unopened[split] = error
                raise
            self._numbers[split] = number + 1
            self._bytes[split] = 0
        self._writers[split].write(record)
        self._bytes[split] += record.bytes
        return split

    def _close(self, split: str) -> None:
        self._writers[split].close()  # a writer that fails stays, and fails again at the end
        self.paths.append(self._writers.pop(split).path)

    def finish(self) -> None:
        """Close every shard; new ones that replace old ones are then put in their place."""
        try:
            for split in list(self._writers):
                self._close(split)
            if self._outdated and self.paths:
                self.paths = writing.replace_set(self._plan, self.paths, self._outdated)
            self.files += self.paths[self._adopted :]
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove the unfinished shards; the whole ones stay."""
        for writer in self._writers.values():
            writer.abandon()
        shutil.rmtree(self._unfinished, ignore_errors=True)


def part_shards(folder: Path, part: str = "") -> dict[Path, tuple[str, int]]:
    """Return a folder's shards with the prefix `part`, and the split and number of each."""
    present = {}
    for path in walk(folder, (".h5",)) if folder.is_dir() else ():
        match = re.fullmatch(r"(.+?)-(p\d+of\d+-)?(\d{5,})", path.stem)
        if path.parent == folder and match and (match[2] or "") == part:
            present[path] = match[1], int(match[3])
    return present


# ---- Resumed shards ------------------------------------------------------------------------------


def unfinished_stream(shard: Path) -> Path:
    """Return the stream that holds the records of a shard until all are finished."""
    return shard.with_name(f".{shard.name}.unfinished")


class ResumedShard:
    """Writes one shard, after the records that it and an interrupted run have finished.

    A record that comes again, since its source was changed, replaces the old one. Until the end,
    records are in a hidden stream next to the shard, to which each is appended as soon as it is
    written; so a run that is killed loses only the record that it was at. Raises BlurkitError if
    the stream is damaged or cannot be written, or if another process writes it.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._unfinished = path, unfinished_stream(path)
        self._stack = ExitStack()
        with writing.writing_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._stack.enter_context(writing.locked(self._unfinished))
            stopped = writing.last_change(self._unfinished)
            self._stream = self._stack.enter_context(self._unfinished.open("ab+"))
            end_whole(self._stream)
        self._again: set[str] = set()
        self._stopped = [record.name for record in self._appended()]
        written = (record.name for record in self._old(pixels=False))
        self._finished = dict.fromkeys(written, writing.last_change(path))
        self._finished |= dict.fromkeys(self._stopped, stopped)

    def is_done(self, record: Record) -> bool:
        """Return whether a record of this name is finished, and its source is as it was."""
        return source_change(record) <= self._finished.get(record.name, -1)

    def write(self, record: Record) -> None:
        """Append one record. Raises BlurkitError if that fails."""
        with writing.writing_errors(self.path):
            write_stream(self._stream, record)
        self._again.add(record.name)

    def close(self) -> None:
        """Write the old and the new records to the shard. Raises BlurkitError if that fails."""
        with self._stack:
            if self._stream.seek(0, 2):
                with ShardWriter(self.path, force=True) as writer:
                    for record in self._old():
                        if record.name not in self._again.union(self._stopped):
                            writer.write(record)
                    for number, record in enumerate(self._appended()):
                        if number >= len(self._stopped) or record.name not in self._again:
                            writer.write(record)
            self._unfinished.unlink()

    def abandon(self) -> None:
        """Leave the stream, if it has records, to a run that resumes this one."""
        if self._unfinished.stat().st_size == 0:
            self._unfinished.unlink()
        self._stack.close()

    def _old(self, pixels: bool = True) -> Iterator[Record]:
        return read_shard(self.path, pixels=pixels) if self.path.is_file() else iter(())

    def _appended(self) -> Iterator[Record]:
        size = self._stream.seek(0, 2)
        self._stream.seek(0)
        return read_stream(self._stream) if size else iter(())
