"""The shard: an HDF5 file of records, laid out so that training can map it into memory.

Root attributes `format="blurkit"` and `version=1`; one group per record, named by its number, with
the attribute `name`, the record's plain attributes, one dataset per image and, for array
attributes, the datasets of a subgroup `attrs`.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import h5py
import numpy as np

from blurkit.errors import BlurkitError, OnError, one_line, raise_error
from blurkit.io.paths import refuse_existing, replacing, writing_error
from blurkit.io.records import IMAGE_TYPES, Record

FORMAT = "blurkit"
VERSION = 1
SHARD_SUFFIXES = frozenset({".h5", ".hdf5"})
SIGNATURE = b"\x89HDF\r\n\x1a\n"
END_OFFSET = {0: 40, 1: 44, 2: 28, 3: 28}
"""Where each version of the HDF5 superblock holds the file's own end address (8 bytes)."""

# Metadata gathers in blocks of this size at the front of a file, so that a shard cut short still
# tells what it held; a stream's one-record shards stay small with HDF5's own default.
METADATA_BLOCK = 1 << 20


def is_shard(path: Path) -> bool:
    """Whether the name of `path` ends like a shard's."""
    return path.suffix.lower() in SHARD_SUFFIXES


def start_shard(file: h5py.File) -> None:
    """Mark an empty HDF5 file as a shard."""
    file.attrs["format"] = FORMAT
    file.attrs["version"] = VERSION


def add_record(file: h5py.File, record: Record, compression: str | None = None) -> None:
    """Append `record` to an open shard; images contiguous, or chunked when compressed.

    Raises BlurkitError for attributes that are not plain values or numeric arrays, and for text
    and numbers that HDF5 has no place for; the shard is then as it was.
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
    group.attrs["name"] = record.name
    for key, image in record.images.items():
        group.create_dataset(key, data=image, compression=compression).flush()
    for key, value in record.attrs.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            group.require_group("attrs").create_dataset(key, data=value).flush()
        elif isinstance(value, (str, bool, int, float, np.generic)):
            group.attrs[f"attr:{key}"] = value
        else:
            raise BlurkitError(
                f"record {record.name!r}: attribute {key!r} is a {type(value).__name__}; "
                "attributes are numbers, strings and numeric arrays"
            )


def get_record(group: h5py.Group) -> Record:
    """The record in one group of an open shard.

    Raises BlurkitError when the group is no record or its data cannot be read.
    """
    try:
        record = Record(str(group.attrs["name"]))
        for key, value in group.attrs.items():
            if key.startswith("attr:"):
                record.attrs[key[5:]] = value.item() if isinstance(value, np.generic) else value
        for key, item in group.items():
            if isinstance(item, h5py.Dataset):
                if item.dtype not in IMAGE_TYPES or item.ndim != 3:
                    raise BlurkitError(f"image {key!r} is {item.dtype} {item.shape}")
                record.images[key] = item[()]
            else:
                record.attrs.update({k: array[()] for k, array in item.items()})
    except BlurkitError as error:
        raise BlurkitError(f"record {group.name}: {error}") from error
    except Exception as error:  # HDF5 raises many kinds for damaged data
        raise BlurkitError(f"record {group.name}: damaged ({one_line(error)})") from error
    return record


class ShardWriter:
    """Writes one shard under a temporary name and renames it when closed without an error.

    Without any record no shard is made, and what stood at `path` stays.
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
        """Append one record. Raises BlurkitError when the disk is full, from then on always."""
        if self._failure is not None:
            raise self._failure
        try:
            add_record(self._file, record, self.compression)
            self._file.flush()
        except (OSError, RuntimeError) as error:
            self._failure = writing_error(self.path, OSError(*error.args))
            self._discard(error)
            raise self._failure from error
        self.records += 1

    def _discard(self, error: BaseException) -> None:
        """Remove the unfinished file.

        It is emptied first, because HDF5 insists on writing what it holds and would never close
        the file, and crash later, if a full disk did not take that.
        """
        if self._file:
            with suppress(OSError):
                os.ftruncate(self._file.id.get_vfd_handle(), 0)
        self._stack.__exit__(type(error), error, None)

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is not None or not self.records:
            self._discard(error or BlurkitError("no record"))
        if error is None and self._failure is not None:
            raise self._failure
        self._stack.__exit__(kind, error, trace)

    def close(self) -> None:
        """Finish the file and give it its name."""
        self.__exit__(None, None, None)


def shard_bytes(record: Record) -> bytes:
    """A whole shard holding only `record`, as bytes."""
    file = h5py.File("memory", "w", driver="core", backing_store=False)
    with file:
        start_shard(file)
        add_record(file, record)
        file.flush()
        return bytes(file.id.get_file_image())


def read_shard(path: Path, on_error: OnError = raise_error) -> Iterator[Record]:
    """The records of a shard file, in order, one in memory at a time.

    A truncated file yields the records that are whole, then reports how many there were and how to
    rebuild it. Everything wrong goes to `on_error` as a BlurkitError naming the file.
    """
    try:
        with path.open("rb") as file:
            yield from read_open_shard(file, path.stat().st_size, str(path), on_error)
    except OSError as error:
        on_error(str(path), BlurkitError(f"{path}: cannot be read ({error.strerror})"))


def check_whole(path: Path) -> None:
    """Raises BlurkitError unless `path` is a whole shard; one that is cut says what is left."""
    try:
        with path.open("rb") as file:
            cut = stated_end(file.read(64), str(path)) > path.stat().st_size
    except OSError as error:
        raise BlurkitError(f"{path}: cannot be read ({error.strerror})") from error
    records = read_shard(path)
    for _ in records:
        if not cut:
            break


def read_open_shard(file: BinaryIO, size: int, where: str, on_error: OnError) -> Iterator[Record]:
    """The records of a shard in a seekable file of `size` bytes; `where` names it in messages."""
    whole = 0
    with ExitStack() as stack:
        try:
            file.seek(0)
            missing = stated_end(file.read(64), where) - size
            source = file if missing <= 0 else ZeroPadded(file, size)
            shard = stack.enter_context(_open(source, where))
            groups = [shard[key] for key in sorted(shard)] if missing <= 0 else _groups(shard, size)
        except BlurkitError as error:
            on_error(where, error)
            return
        for group in groups:
            try:
                record = get_record(group)
            except BlurkitError as error:
                if missing <= 0:  # else one of those that the cut went through
                    on_error(where, BlurkitError(f"{where}: {error}"))
                continue
            whole += 1
            yield record
    if missing > 0:
        on_error(where, BlurkitError(_truncated(where, missing, whole)))


def stated_end(head: bytes, where: str) -> int:
    """The size in bytes that an HDF5 file states of itself in `head`, its first bytes (64 do).

    Raises BlurkitError when `head` is empty, cut off or no HDF5 header.
    """
    if not head:
        raise BlurkitError(f"{where}: is empty (0 bytes)")
    if not head.startswith(SIGNATURE):
        raise BlurkitError(f"{where}: is not a shard (no HDF5 signature)")
    offset = END_OFFSET.get(head[8]) if len(head) > 8 else None
    if offset is None or len(head) < offset + 8:
        raise BlurkitError(f"{where}: is not a shard that can be read (HDF5 header cut or unknown)")
    return int.from_bytes(head[offset : offset + 8], "little")


class ZeroPadded(io.RawIOBase):
    """A truncated file that reads as zeros past its end, so that HDF5 opens what is left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file, self._size, self._place = file, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move as any file; the end is far away, so that HDF5 never meets it."""
        base = {0: 0, 1: self._place, 2: 1 << 60}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """The current offset in bytes."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill all of `buffer`, with zeros where the file has no bytes."""
        self._file.seek(min(self._place, self._size))
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        buffer[len(data) :] = bytes(len(buffer) - len(data))
        self._place += len(buffer)
        return len(buffer)


def _open(source: Any, where: str) -> h5py.File:
    try:
        shard = h5py.File(source, "r")
        stated, version = shard.attrs.get("format"), shard.attrs.get("version")
    except Exception as error:  # HDF5 raises many kinds for damaged files
        raise BlurkitError(f"{where}: damaged; no record can be recovered") from error
    if stated != FORMAT:
        shard.close()
        raise BlurkitError(f"{where}: an HDF5 file, but not a blurkit shard")
    if version != VERSION:
        shard.close()
        raise BlurkitError(f"{where}: shard version {version}; this blurkit reads {VERSION}")
    return shard


def _groups(shard: h5py.File, size: int) -> list[h5py.Group]:
    """The groups of a truncated shard whose metadata and images all lie before byte `size`."""
    found = []
    try:
        keys = sorted(shard)
    except Exception:  # the table of records itself is cut off
        return []
    for key in keys:
        try:
            ends: list[int] = []
            shard[key].visititems(_collect_ends(ends))
            if "name" in shard[key].attrs and ends and max(ends) <= size:
                found.append(shard[key])
        except Exception:  # this record's metadata is cut off
            continue
    return found


def _collect_ends(ends: list[int]) -> Callable[[str, Any], None]:
    def visit(_: str, item: Any) -> None:
        if not isinstance(item, h5py.Dataset):
            return
        if item.chunks is None:
            ends.append((item.id.get_offset() or 0) + item.id.get_storage_size())
        else:
            chunks = [item.id.get_chunk_info(i) for i in range(item.id.get_num_chunks())]
            ends.extend(chunk.byte_offset + chunk.size for chunk in chunks)

    return visit


def _truncated(where: str, missing: int, whole: int) -> str:
    message = f"{where}: truncated, {missing} bytes are missing; {whole} records are whole"
    if whole:
        message += f"; rebuild with: blurkit prepare {where} -o rebuilt.h5"
    return message
