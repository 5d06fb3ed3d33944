"""The shard: an HDF5 file of records, laid out so that training can map it into memory.

Its root attributes are `format="blurkit"`, `version=2` and `records`, their number. Each record is
a group, named by its number, with the attributes `name`, `number` and `checksum`, its plain
attributes, one dataset per image, which has a `checksum` of its own, and, for array attributes, the
datasets of a subgroup `attrs`. HDF5's own structures have checksums, too.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py
import numpy as np

from blurkit.errors import BlurkitError, OnError, one_line, raise_error
from blurkit.io.formats import ending
from blurkit.io.hdf5 import SIGNATURE, ZeroPadded, attribute, items, whole_groups
from blurkit.io.paths import check_pixels, reading_error, reading_errors
from blurkit.io.records import (
    IMAGE_TYPES,
    Record,
    array_checksum,
    check_record,
    hollow,
    record_checksum,
)
from blurkit.version import SHARD_VERSION

SHARD_FORMAT = "blurkit"
SHARD_SUFFIXES = frozenset({".h5", ".hdf5"})
END_OFFSET = {0: 40, 1: 44, 2: 28, 3: 28}
"""Offset at which each version of the HDF5 superblock stores the file's end address (8 bytes)."""


def is_shard(path: Path) -> bool:
    """Return whether `path` has the suffix of a shard, or none and its content."""
    return ending(path) in SHARD_SUFFIXES


def get_record(shard: h5py.File, key: str, pixels: bool = True) -> Record:
    """Return the record in the group `key` of an open shard.

    Without `pixels`, its images have shapes and types but are not read and take no memory. Raises
    BlurkitError if the group is not a record, if its data cannot be read or is outside the file, or
    if a checksum shows that it has changed.
    """
    try:
        link = shard.get(key, getlink=True)
        group = shard[key] if isinstance(link, h5py.HardLink) else None
        if not isinstance(group, h5py.Group):
            raise BlurkitError("damaged, or it is not a group of this file")
        record = record_in(group, pixels)
        if attribute(group, "number") not in (None, int(key)):
            raise BlurkitError("damaged, it is another record")
    except BlurkitError as error:
        raise BlurkitError(f"record {key}: {error}") from error
    except Exception as error:  # HDF5 raises many kinds of errors for damaged data
        raise reading_error(f"record {key}", f"damaged ({one_line(error)})", error) from error
    return record


def record_in(group: h5py.Group, pixels: bool = True) -> Record:
    """Return the record in a group as `get_record` does, with any kind of error."""
    name = attribute(group, "name")
    if not isinstance(name, str):
        raise BlurkitError("has no name")
    stated = [key for key in group.attrs if key.startswith("attr:")]
    record = Record(name, {}, {key[5:]: attribute(group, key) for key in stated})
    checksums = {}
    for name, item in items(group):
        if isinstance(item, h5py.Group):
            record.attrs |= _arrays(item, name)
            continue
        if item.dtype not in IMAGE_TYPES or item.ndim != 3:
            raise BlurkitError(f"image {name!r} is {item.dtype} {item.shape}")
        check_pixels(item.shape[0], item.shape[1], f"image {name!r}")
        checksums[name] = attribute(item, "checksum")
        record.images[name] = item[()] if pixels else hollow(item.shape, item.dtype)
        if pixels and array_checksum(record.images[name]) != checksums[name]:
            raise BlurkitError(f"image {name!r} has changed since it was written")
    expected, number = attribute(group, "checksum"), attribute(group, "number")
    if expected != record_checksum(number, record.name, record.attrs, checksums):
        raise BlurkitError("has changed since it was written")
    check_record(record)
    return record


def _arrays(group: h5py.Group, name: str) -> dict[str, np.ndarray]:
    """Return the attributes of a record that are arrays, which are in its group `attrs`."""
    arrays = dict(items(group)) if name == "attrs" else {"": group}
    if not all(isinstance(array, h5py.Dataset) for array in arrays.values()):
        raise BlurkitError(f"holds a group {name!r}, which is no record's")
    return {key: array[()] for key, array in arrays.items()}


def read_shard(
    path: Path, on_error: OnError = raise_error, pixels: bool = True
) -> Iterator[Record]:
    """Yield the records of a shard file in order, one in memory at a time.

    `pixels` is as for `get_record`. A truncated file yields the records that are whole, then
    reports their number and how to rebuild the file. Every problem is reported to `on_error` as a
    BlurkitError that names the file.
    """
    try:
        if path.exists() and not path.is_file():
            raise BlurkitError(f"{path}: is not a regular file; name one, or - for a pipe")
        with reading_errors(path), path.open("rb") as file:
            yield from read_open_shard(file, path.stat().st_size, str(path), on_error, pixels)
    except BlurkitError as error:
        on_error(str(path), error)


def record_keys(path: Path) -> list[str]:
    """Return the keys of the records of a shard file, in order.

    Raises BlurkitError unless the file is exactly one whole shard; a stream of several shards saved
    to a file is refused too.
    """
    with _whole(path) as shard:
        with _recovering(str(path)):
            keys = sorted(shard)
        if lost := _lost(shard, len(keys)):
            raise BlurkitError(f"{path}: damaged, {lost}")
        return keys


def read_record(path: Path, key: str) -> Record:
    """Read the record under one of a shard's `record_keys`. Raises BlurkitError naming the file."""
    with _whole(path) as shard:
        try:
            return get_record(shard, key)
        except BlurkitError as error:
            raise BlurkitError(f"{path}: {error}") from error


@contextmanager
def _whole(path: Path) -> Iterator[h5py.File]:
    with reading_errors(path), path.open("rb") as file:
        head = file.read(64)
        if stated_end(head, str(path)) != path.stat().st_size:
            raise BlurkitError(f"{path}: is not one whole shard")
        _check_checksummed(head, str(path))
        with _open(file, str(path)) as shard:
            yield shard


def check_whole(path: Path) -> None:
    """Raise BlurkitError unless `path` is a whole shard; if truncated, it says what is left."""
    with reading_errors(path), path.open("rb") as file:
        cut = stated_end(file.read(64), str(path)) > path.stat().st_size
    for _ in read_shard(path):
        if not cut:
            break


def verify_shard(path: Path) -> None:
    """Read a whole shard. Raises BlurkitError at the first record whose checksum is wrong."""
    for _ in read_shard(path):
        pass


def read_open_shard(
    file: BinaryIO, size: int, where: str, on_error: OnError, pixels: bool = True
) -> Iterator[Record]:
    """Yield the records of a shard in a seekable file of `size` bytes; messages name it `where`."""
    with ExitStack() as stack:
        try:
            file.seek(0)
            head = file.read(64)
            missing = stated_end(head, where) - size
            _check_checksummed(head, where)
            if missing > 0:
                yield from _salvaged(file, size, missing, where, pixels)
                return
            shard = stack.enter_context(_open(file, where))
            with _recovering(where):
                keys = sorted(shard)
        except BlurkitError as error:
            on_error(where, error)
            return
        for key in keys:
            try:
                yield get_record(shard, key, pixels)
            except BlurkitError as error:
                on_error(where, BlurkitError(f"{where}: {error}"))
        if lost := _lost(shard, len(keys)):
            on_error(where, BlurkitError(f"{where}: damaged, {lost}"))


def _salvaged(
    file: BinaryIO, size: int, missing: int, where: str, pixels: bool
) -> Iterator[Record]:
    """Yield the whole records of a shard that lacks `missing` bytes; then raise what is left."""
    whole = 0
    with _recovering(where):
        shard = h5py.File(ZeroPadded(file, size), "r")
    with shard:
        for group in whole_groups(shard, file, size):
            try:
                record = record_in(group, pixels)
            except Exception:  # of any kind, where the truncation has cut it
                continue
            whole += 1
            yield record
    rest = f"; rebuild with: blurkit prepare {where} -o rebuilt.h5" if whole else ""
    raise BlurkitError(
        f"{where}: truncated, {missing} bytes are missing; {whole} records are whole{rest}"
    )


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


def _check_checksummed(head: bytes, where: str) -> None:
    """Raise BlurkitError if the metadata of an HDF5 file has no checksums: HDF5 may crash on it."""
    if head[len(SIGNATURE)] < 2:  # the version of the superblock
        reason = "an HDF5 file, but not a blurkit shard, or one of an older version; make it again"
        raise BlurkitError(f"{where}: {reason}")


@contextmanager
def _recovering(where: str) -> Iterator[None]:
    """Turn any error of HDF5, which raises many kinds for damaged files, into a BlurkitError."""
    try:
        yield
    except Exception as error:
        raise reading_error(where, "damaged; no record can be recovered", error) from error


@contextmanager
def _open(source: BinaryIO, where: str) -> Iterator[h5py.File]:
    """Open an HDF5 file. Raises BlurkitError unless it is a shard of a known version."""
    with _recovering(where):
        shard = h5py.File(source, "r")
    with shard:
        with _recovering(where):
            stated, version = attribute(shard, "format"), attribute(shard, "version")
        if stated != SHARD_FORMAT:
            raise BlurkitError(f"{where}: an HDF5 file, but not a blurkit shard")
        if version != SHARD_VERSION:
            reads = f"this blurkit reads {SHARD_VERSION}; make it again"
            raise BlurkitError(f"{where}: shard version {version}, but {reads}")
        yield shard


def _lost(shard: h5py.File, found: int) -> str:
    """Return what a whole shard says about the number of its records, if that is not so."""
    try:
        stated = attribute(shard, "records")
    except Exception:  # HDF5 raises many kinds of errors for damage
        stated = None
    if stated is None:
        return "it does not say how many records it should hold"
    return "" if stated == found else f"it holds {found} records of {stated}"
