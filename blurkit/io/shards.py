"""The shard: an HDF5 file of records, laid out so that training can map it into memory.

Its root attributes are `format="blurkit"` and `version=1`. Each record is a group, named by its
number, with the attribute `name`, the record's plain attributes, one dataset per image and, for
array attributes, the datasets of a subgroup `attrs`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from blurkit.errors import BlurkitError, OnError, one_line, raise_error
from blurkit.io.paths import refuse_existing, replacing, writing_error
from blurkit.io.records import IMAGE_TYPES, Record
from blurkit.io.truncated import ZeroPadded, what_is_left, whole_keys

SHARD_FORMAT = "blurkit"
SHARD_VERSION = 1
SHARD_SUFFIXES = frozenset({".h5", ".hdf5"})
SIGNATURE = b"\x89HDF\r\n\x1a\n"
END_OFFSET = {0: 40, 1: 44, 2: 28, 3: 28}
"""Offset at which each version of the HDF5 superblock stores the file's end address (8 bytes)."""

# Metadata is collected in blocks of this size at the front of a file, so that a truncated shard
# still describes its content; a stream's one-record shards stay small with HDF5's own default.
METADATA_BLOCK = 1 << 20


def is_shard(path: Path) -> bool:
    """Return whether `path` has the suffix of a shard."""
    return path.suffix.lower() in SHARD_SUFFIXES


def start_shard(file: h5py.File) -> None:
    """Mark an empty HDF5 file as a shard."""
    file.attrs["format"] = SHARD_FORMAT
    file.attrs["version"] = SHARD_VERSION


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
    for key, image in record.images.items():
        group.create_dataset(key, data=image, compression=compression).flush()
    for key, value in record.attrs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            group.require_group("attrs").create_dataset(key, data=value).flush()
        elif isinstance(value, str):
            _set_text(group, f"attr:{key}", value)
        elif isinstance(value, (bool, int, float, np.generic)):
            group.attrs[f"attr:{key}"] = value
        else:
            raise BlurkitError(
                f"record {record.name!r}: attribute {key!r} is a {type(value).__name__}; "
                "attributes are numbers, strings and numeric arrays"
            )


def _set_text(group: h5py.Group, key: str, text: str) -> None:
    """Set a string attribute; a file name's bytes that are not UTF-8 are preserved."""
    group.attrs.create(key, text.encode(errors="surrogateescape"), dtype=h5py.string_dtype())


def get_record(shard: h5py.File, key: str, pixels: bool = True) -> Record:
    """Return the record in the group `key` of an open shard.

    Without `pixels`, its images have shapes and types but are not read and take no memory. Raises
    BlurkitError if the group is not a record or its data cannot be read.
    """
    try:
        group = shard[key]
        record = Record(str(group.attrs["name"]))
        for name, value in group.attrs.items():
            if name.startswith("attr:"):
                record.attrs[name[5:]] = value.item() if isinstance(value, np.generic) else value
        for name, item in group.items():
            if isinstance(item, h5py.Dataset):
                if item.dtype not in IMAGE_TYPES or item.ndim != 3:
                    raise BlurkitError(f"image {name!r} is {item.dtype} {item.shape}")
                empty = np.broadcast_to(np.zeros((), item.dtype), item.shape)
                record.images[name] = item[()] if pixels else empty
            else:
                record.attrs.update({k: array[()] for k, array in item.items()})
    except BlurkitError as error:
        raise BlurkitError(f"record {key}: {error}") from error
    except Exception as error:  # HDF5 raises many kinds of errors for damaged data
        raise BlurkitError(f"record {key}: damaged ({one_line(error)})") from error
    return record


class ShardWriter:
    """Writes one shard under a temporary name and renames it if closed without an error.

    If no record was written, no shard is created and a file at `path` stays.
    """

    def __init__(self, path: Path, force: bool = False, compression: str | None = None) -> None:
        refuse_existing(path, force)
        self.path = path
        self.compression = compression
        self.records = 0
        self._failure: BlurkitError | None = None
        self._stack = ExitStack()
        partial = self._stack.enter_context(replacing(path))
        try:
            self._file = self._stack.enter_context(
                h5py.File(partial, "w", meta_block_size=METADATA_BLOCK)
            )
            start_shard(self._file)
        except (OSError, RuntimeError) as error:
            self._stack.__exit__(type(error), error, None)
            raise writing_error(path, OSError(*error.args)) from error

    def write(self, record: Record) -> None:
        """Append one record. Raises BlurkitError if this or an earlier write fails."""
        if self._failure is not None:
            raise self._failure
        try:
            add_record(self._file, record, self.compression)
            self._file.flush()
        except (OSError, RuntimeError) as error:
            self._failure = writing_error(self.path, OSError(*error.args))
            self.abandon(error)
            raise self._failure from error
        self.records += 1

    def close(self) -> None:
        """Finish the file and rename it to `path`. Raises BlurkitError if a write has failed."""
        if self._failure is not None:
            raise self._failure
        if self.records:
            self._stack.close()
        else:
            self.abandon()

    def abandon(self, error: BaseException | None = None) -> None:
        """Remove the unfinished file; a file at `path` stays.

        The unfinished file is truncated first, because HDF5 insists on writing its buffers: if a
        full disk refused them, it would never close the file and would crash later.
        """
        if self._file:
            with suppress(OSError):
                os.ftruncate(self._file.id.get_vfd_handle(), 0)
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
    file = h5py.File("memory", "w", driver="core", backing_store=False)
    with file:
        start_shard(file)
        add_record(file, record)
        file.flush()
        return bytes(file.id.get_file_image())


def read_shard(
    path: Path, on_error: OnError = raise_error, pixels: bool = True
) -> Iterator[Record]:
    """Yield the records of a shard file in order, one in memory at a time.

    `pixels` is as for `get_record`. A truncated file yields the records that are whole, then
    reports their number and how to rebuild the file. Every problem is reported to `on_error` as a
    BlurkitError that names the file.
    """
    try:
        with path.open("rb") as file:
            yield from read_open_shard(file, path.stat().st_size, str(path), on_error, pixels)
    except OSError as error:
        on_error(str(path), BlurkitError(f"{path}: cannot be read ({error.strerror})"))


def record_keys(path: Path) -> list[str]:
    """Return the keys of the records of a shard file, in order.

    Raises BlurkitError unless the file is exactly one whole shard; a stream of several shards saved
    to a file is refused too.
    """
    with _whole(path) as shard:
        return _keys(shard, str(path))


def read_record(path: Path, key: str) -> Record:
    """Read the record under one of a shard's `record_keys`. Raises BlurkitError naming the file."""
    with _whole(path) as shard:
        try:
            return get_record(shard, key)
        except BlurkitError as error:
            raise BlurkitError(f"{path}: {error}") from error


@contextmanager
def _whole(path: Path) -> Iterator[h5py.File]:
    try:
        with path.open("rb") as file:
            if stated_end(file.read(64), str(path)) != path.stat().st_size:
                raise BlurkitError(f"{path}: is not one whole shard")
            with _open(file, str(path)) as shard:
                yield shard
    except OSError as error:
        raise BlurkitError(f"{path}: cannot be read ({error.strerror})") from error


def check_whole(path: Path) -> None:
    """Raise BlurkitError unless `path` is a whole shard; if truncated, it says what is left."""
    try:
        with path.open("rb") as file:
            cut = stated_end(file.read(64), str(path)) > path.stat().st_size
    except OSError as error:
        raise BlurkitError(f"{path}: cannot be read ({error.strerror})") from error
    records = read_shard(path)
    for _ in records:
        if not cut:
            break


def read_open_shard(
    file: BinaryIO, size: int, where: str, on_error: OnError, pixels: bool = True
) -> Iterator[Record]:
    """Yield the records of a shard in a seekable file of `size` bytes; messages name it `where`."""
    whole = 0
    with ExitStack() as stack:
        try:
            file.seek(0)
            missing = stated_end(file.read(64), where) - size
            source = file if missing <= 0 else ZeroPadded(file, size)
            shard = stack.enter_context(_open(source, where))
            keys = _keys(shard, where) if missing <= 0 else whole_keys(shard, size)
        except BlurkitError as error:
            on_error(where, error)
            return
        for key in keys:
            try:
                record = get_record(shard, key, pixels)
            except BlurkitError as error:
                if missing <= 0:  # otherwise the truncation has cut it
                    on_error(where, BlurkitError(f"{where}: {error}"))
                continue
            whole += 1
            yield record
    if missing > 0:
        on_error(where, BlurkitError(what_is_left(where, missing, whole)))


def stated_end(head: bytes, where: str) -> int:
    """Return the size in bytes that an HDF5 file states in `head`, its first bytes (64 suffice).

    Raises BlurkitError if `head` is empty, truncated or not an HDF5 header.
    """
    if not head:
        raise BlurkitError(f"{where}: is empty (0 bytes)")
    if not head.startswith(SIGNATURE):
        raise BlurkitError(f"{where}: is not a shard (no HDF5 signature)")
    offset = END_OFFSET.get(head[8]) if len(head) > 8 else None
    if offset is None or len(head) < offset + 8:
        raise BlurkitError(f"{where}: is not a readable shard (HDF5 header truncated or unknown)")
    return int.from_bytes(head[offset : offset + 8], "little")


def _open(source: Any, where: str) -> h5py.File:
    try:
        shard = h5py.File(source, "r")
        stated, version = shard.attrs.get("format"), shard.attrs.get("version")
    except Exception as error:  # HDF5 raises many kinds of errors for damaged files
        raise BlurkitError(f"{where}: damaged; no record can be recovered") from error
    if stated != SHARD_FORMAT:
        shard.close()
        raise BlurkitError(f"{where}: an HDF5 file, but not a blurkit shard")
    if version != SHARD_VERSION:
        shard.close()
        raise BlurkitError(f"{where}: shard version {version}; this blurkit reads {SHARD_VERSION}")
    return shard


def _keys(shard: h5py.File, where: str) -> list[str]:
    try:
        return sorted(shard)
    except Exception as error:
        raise BlurkitError(f"{where}: damaged; no record can be recovered") from error
