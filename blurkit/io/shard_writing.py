"""Writing shards, whole or not at all, whatever the disk does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from blurkit.errors import BlurkitError, one_line
from blurkit.interrupts import deferred
from blurkit.io.checksums import array_checksum, record_checksum
from blurkit.io.records import Record
from blurkit.io.shards import SHARD_FORMAT, SHARD_VERSION, member_name
from blurkit.io.writing import Uncomplaining, replacing, writing_error

LIBRARY = "v110"
"""The version of HDF5 since which metadata has checksums, so that a flipped bit is no crash.

Texts of variable length have none, so texts are of fixed length here.
"""

ROOM = 8 << 20
"""HDF5 is called only if so many bytes can be allocated: it does not survive a lack of memory."""


def start_shard(file: h5py.File) -> None:
    """Mark an empty HDF5 file as a shard."""
    _set_text(file, "format", SHARD_FORMAT)
    file.attrs["version"] = SHARD_VERSION
    file.attrs["records"] = 0  # here already, so that the front of the file has room for it


def finish_shard(file: h5py.File) -> None:
    """Store the number of the records, by which a reader notices missing ones."""
    file.attrs.modify("records", len(file))


def add_record(file: h5py.File, record: Record, compression: str | None = None) -> None:
    """Append `record` to an open shard; images are contiguous, or chunked if compressed.

    Raises BlurkitError, leaving the shard unchanged, if an attribute is not a plain value or a
    numeric array, or if HDF5 cannot store a text or a number.
    """
    group = file.create_group(f"{len(file):08d}")
    try:
        _fill(group, record, compression)
    except (TypeError, ValueError) as error:
        del file[group.name]
        raise BlurkitError(
            f"record {record.name!r}: cannot be stored ({one_line(error)})"
        ) from error
    except BlurkitError:
        del file[group.name]
        raise


def _fill(group: h5py.Group, record: Record, compression: str | None) -> None:
    _set_text(group, "name", record.name)
    group.attrs["number"] = number = int(member_name(group))
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
    checksum = record_checksum(number, record.name, record.attrs, checksums)
    _set_text(group, "checksum", checksum)


def _set_text(item: Any, key: str, text: str) -> None:
    """Set a string attribute; a file name's bytes that are not UTF-8 are preserved.

    Raises ValueError if the text has a NUL, where HDF5 ends it.
    """
    data = text.encode(errors="surrogateescape")
    if b"\0" in data:
        raise ValueError("its text has a NUL character")
    item.attrs.create(key, data, dtype=h5py.string_dtype(length=max(1, len(data))))


@contextmanager
def _called() -> Iterator[None]:
    """Call HDF5 with no signal raised in it and `ROOM` to spare, since either would crash it.

    Raises MemoryError.
    """
    np.empty(ROOM, np.uint8)
    with deferred():
        yield


class ShardWriter:
    """Writes one shard under a temporary name and renames it if closed without an error.

    If no record was written, no shard is created and a file at `path` stays.
    """

    def __init__(self, path: Path, force: bool = False, compression: str | None = None) -> None:
        self.path = path
        self.compression = compression
        self.records = 0
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
            finish_shard(self._file)
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

    def __enter__(self) -> ShardWriter:
        return self

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
        finish_shard(file)
        file.flush()
        return bytes(file.id.get_file_image())
