"""Truncated shards: open what is left of one and find its whole records."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any, BinaryIO

import h5py

HEADER = re.compile(rb"OHDR\x02")
"""The beginning of every object of an HDF5 file, since version 1.8 of the library."""


class ZeroPadded(io.RawIOBase):
    """A truncated file that reads as zeros past its end, so that HDF5 opens what is left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file, self._size, self._place = file, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as in any file; the end is so far away that HDF5 never reaches it."""
        base = {0: 0, 1: self._place, 2: 1 << 60}[whence]
        self._place = base + offset
        return self._place

    def tell(self) -> int:
        """Return the current offset in bytes."""
        return self._place

    def readinto(self, buffer: Any) -> int:
        """Fill all of `buffer`, with zeros where the file has no bytes."""
        self._file.seek(min(self._place, self._size))
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        buffer[len(data) :] = bytes(len(buffer) - len(data))
        self._place += len(buffer)
        return len(buffer)


def whole_groups(shard: h5py.File, file: BinaryIO, size: int) -> list[h5py.Group]:
    """Return the groups of records that are in the first `size` bytes, in order.

    Since version 2, each record says its own number, and every object is found by the signature of
    its header; what else has that signature is refused by HDF5's checksums.
    """
    file.seek(0)
    data = file.read(size)
    found: dict[int, h5py.Group] = {}
    for match in re.finditer(HEADER, data):
        try:
            group = _at(shard, match.start())
            if _ends_by(group, size):
                found.setdefault(int(group.attrs["number"]), group)
        except Exception:  # pixels, another object, or one that is cut
            continue
    return [found[number] for number in sorted(found)]


def _at(shard: h5py.File, address: int) -> h5py.Group:
    """Return the group at an address, through a reference that is made of it."""
    with h5py.File("memory", "w", driver="core", backing_store=False) as file:
        made = file.create_dataset("at", (1,), h5py.ref_dtype, chunks=(1,))
        made.id.write_direct_chunk((0,), address.to_bytes(8, "little"))
        group = shard[made[0]]
    if not isinstance(group, h5py.Group):
        raise KeyError(address)
    return group


def whole_keys(shard: h5py.File, size: int) -> list[str]:
    """Return the keys of a truncated shard of version 1 whose groups end by byte `size`."""
    whole = []
    try:
        keys = sorted(shard)
    except Exception:  # the table of records itself is cut off
        return []
    for key in keys:
        try:
            if "name" in shard[key].attrs and _ends_by(shard[key], size):
                whole.append(key)
        except Exception:  # this record's metadata is cut off
            continue
    return whole


def _ends_by(group: h5py.Group, size: int) -> bool:
    """Return whether all images of a group, of which there are some, end by byte `size`."""
    ends: list[int] = []
    group.visititems(_collect_ends(ends))
    return bool(ends) and max(ends) <= size


def _collect_ends(ends: list[int]) -> Callable[[str, Any], None]:
    def visit(_: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            ends.append(stored_end(item))

    return visit


def stored_end(dataset: h5py.Dataset) -> int:
    """Return the byte of the file by which all values of a dataset end."""
    if dataset.chunks is None:
        return int((dataset.id.get_offset() or 0) + dataset.id.get_storage_size())
    chunks = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
    return max((chunk.byte_offset + chunk.size for chunk in chunks), default=0)


def what_is_left(where: str, missing: int, whole: int) -> str:
    """Return the message about a truncated shard: what is missing and how to save the rest."""
    message = f"{where}: truncated, {missing} bytes are missing; {whole} records are whole"
    if whole:
        message += f"; rebuild with: blurkit prepare {where} -o rebuilt.h5"
    return message
