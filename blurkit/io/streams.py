"""Streams: consecutive shards, separated by the end address that each of them states.

A single image file is a stream, too. Shards are written whole or not at all.
"""

import io
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from blurkit.errors import BlurkitError, OnError, UsageError, one_line, raise_error
from blurkit.interrupts import deferred
from blurkit.io.formats import recognise
from blurkit.io.hdf5 import SIGNATURE
from blurkit.io.images import HEAD, decode_image, image_record
from blurkit.io.records import Record, array_checksum, record_checksum
from blurkit.io.shards import SHARD_FORMAT, read_open_shard, stated_end
from blurkit.io.writing import Uncomplaining, replacing, writing_error
from blurkit.version import SHARD_VERSION

STDIN = "stdin"
"""The name of the record of an image on standard input."""

IN_MEMORY = 256 << 20
"""Shards of a stream up to this size in bytes stay in memory; larger ones use a temporary file."""


def read_stream(
    stream: BinaryIO, on_error: OnError = raise_error, image: str = "blur", name: str = STDIN
) -> Iterator[Record]:
    """Yield the records of every shard in a stream as they arrive.

    At most one shard is held at a time. Data that does not start like a shard, or a truncated
    shard, is reported to `on_error` after the records before it; nothing after it can be located.
    An image file instead of shards is one record, called `name`, with the image `image`.
    """
    number = 0
    while head := _read_exactly(stream, HEAD):
        number += 1
        if number == 1 and not head.startswith(SIGNATURE):
            try:
                if recognise(head) is None:
                    reason = "is neither a stream of records nor an image that can be read"
                    raise BlurkitError(f"{name}: {reason}")
                content = io.BytesIO(head + stream.read())
                yield image_record(name, {image: decode_image(content, Path(name))})
            except BlurkitError as error:
                on_error(name, error)
            return
        where = f"stream, shard {number}"
        try:
            size = stated_end(head, where)
        except BlurkitError as error:
            on_error(where, error)
            return
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as spool:
            spool.write(head[:size])
            while spool.tell() < size and (data := stream.read(min(1 << 20, size - spool.tell()))):
                spool.write(data)
            received = spool.tell()
            yield from read_open_shard(spool, received, where, on_error)  # type: ignore[arg-type]
        if received < size:
            return
    if number == 0:
        on_error("stream", BlurkitError("stream: empty; the command before this one sent nothing"))


def write_stream(stream: BinaryIO, record: Record) -> None:
    """Send one record as a separate shard and flush, so that the next command can start on it."""
    stream.write(shard_bytes(record))
    stream.flush()


def end_whole(file: BinaryIO) -> None:
    """Cut off what a writer that was killed has left after the last whole shard of a stream.

    The file is at its start afterwards. Raises BlurkitError if it is not a stream.
    """
    size, end = file.seek(0, io.SEEK_END), 0
    while end < size:
        file.seek(end)
        head = _read_exactly(file, 64)
        if len(head) < 64 or (end_of_shard := end + stated_end(head, file.name)) > size:
            file.truncate(end)
            break
        end = end_of_shard
    file.seek(0)


def standard_input() -> BinaryIO:
    """Return standard input for binary data. Raises UsageError if it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("'-' reads a stream from a pipe or a file; standard input is a terminal")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Return standard output for binary data. Raises UsageError if it is a terminal."""
    if sys.stdout.isatty():
        raise UsageError("'-o -' sends binary data; pipe it into a command or a file")
    return sys.stdout.buffer


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    parts = io.BytesIO()
    while parts.tell() < size and (data := stream.read(size - parts.tell())):
        parts.write(data)
    return parts.getvalue()


# ---- Writing shards ------------------------------------------------------------------------------

LIBRARY = "v110"
"""The version of HDF5 since which metadata has checksums, so that a flipped bit is no crash."""


def start_shard(file: h5py.File) -> None:
    """Mark an empty HDF5 file as a shard."""
    _set_text(file, "format", SHARD_FORMAT)
    file.attrs["version"] = SHARD_VERSION
    # By it a reader notices missing ones; here already, so that the front has room for it.
    file.attrs["records"] = 0


def add_record(file: h5py.File, record: Record, compression: str | None = None) -> None:
    """Append `record` to an open shard; images are contiguous, or chunked if compressed.

    Raises BlurkitError, leaving the shard unchanged, if an attribute is not a plain value or a
    numeric array, or if HDF5 cannot store a text or a number.
    """
    group = file.create_group(f"{len(file):08d}")
    try:
        _fill(group, record, compression)
    except (TypeError, ValueError, BlurkitError) as error:
        del file[group.name]
        if isinstance(error, BlurkitError):
            raise
        reason = f"cannot be stored ({one_line(error)})"
        raise BlurkitError(f"record {record.name!r}: {reason}") from error


def _fill(group: h5py.Group, record: Record, compression: str | None) -> None:
    _set_text(group, "name", record.name)
    group.attrs["number"] = number = int(str(group.name).rpartition("/")[2])
    checksums = {key: array_checksum(image) for key, image in record.images.items()}
    for key, image in record.images.items():
        dataset = group.create_dataset(key, data=image, compression=compression)
        _set_text(dataset, "checksum", checksums[key])
    for key, value in record.attrs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            group.require_group("attrs").create_dataset(key, data=value)
        elif isinstance(value, str):
            _set_text(group, f"attr:{key}", value)
        elif isinstance(value, (bool, int, float, np.generic)):
            group.attrs[f"attr:{key}"] = value
        else:
            raise BlurkitError(
                f"record {record.name!r}: attribute {key!r} is a {type(value).__name__}; "
                "attributes are numbers, strings and numeric arrays"
            )
    _set_text(group, "checksum", record_checksum(number, record.name, record.attrs, checksums))


def _set_text(item: Any, key: str, text: str) -> None:
    """Set a text, of fixed length since others have no checksum; bytes that are not UTF-8 stay."""
    data = text.encode(errors="surrogateescape")
    if b"\0" in data:  # where HDF5 ends a text
        raise ValueError("its text has a NUL character")
    item.attrs.create(key, data, dtype=h5py.string_dtype(length=max(1, len(data))))


@contextmanager
def _called() -> Iterator[None]:
    """Call HDF5 without signals and with 8 MiB to spare, or raise MemoryError: it would crash."""
    np.empty(8 << 20, np.uint8)
    with deferred():
        yield


class ShardWriter(AbstractContextManager["ShardWriter"]):
    """Writes one shard under a temporary name and renames it if closed without an error.

    If no record was written, no shard is created and a file at `path` stays.
    """

    def __init__(self, path: Path, force: bool = False, compression: str | None = None) -> None:
        self.path, self.compression, self.records = path, compression, 0
        self._failure: BlurkitError | None = None
        self._stack = ExitStack()
        partial = self._stack.enter_context(replacing(path, force))
        self._output = self._stack.enter_context(Uncomplaining(partial))
        with _called():
            self._file = h5py.File(self._output, "w", libver=LIBRARY)
            start_shard(self._file)

    def write(self, record: Record) -> None:
        """Append one record. Raises BlurkitError if this or an earlier write fails."""
        if self._failure is not None:
            raise self._failure
        with _called():
            add_record(self._file, record, self.compression)
            self._file.flush()
        self._check()
        self.records += 1

    def close(self) -> None:
        """Finish the file and rename it to `path`. Raises BlurkitError if a write has failed."""
        if self._failure is not None:
            raise self._failure
        if not self.records:
            self.abandon()
            return
        with _called():
            self._file.attrs.modify("records", len(self._file))
            self._file.close()
        self._check()
        with deferred():
            self._stack.close()

    def _check(self) -> None:
        """Give up after an error of the disk."""
        if (error := self._output.error) is not None:
            self._failure = writing_error(self.path, error)
            self.abandon(error)
            raise self._failure from error

    def abandon(self, error: BaseException | None = None) -> None:
        """Remove the unfinished file; a file at `path` stays."""
        if self._file:
            self._output.error = self._output.error or OSError("abandoned")
            with deferred(), suppress(OSError, RuntimeError):  # it misses what was not written
                self._file.close()
        error = error or BlurkitError("abandoned")
        self._stack.__exit__(type(error), error, None)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.close()
        else:
            self.abandon(error)


def shard_bytes(record: Record) -> bytes:
    """Return a whole shard that holds only `record`, as bytes."""
    file = h5py.File("memory", "w", driver="core", backing_store=False, libver=LIBRARY)
    with file:
        start_shard(file)
        add_record(file, record)
        file.attrs.modify("records", len(file))
        file.flush()
        return bytes(file.id.get_file_image())
