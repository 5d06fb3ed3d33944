"""HDF5 files of unknown origin or cut short: what is refused before any value in them is read.

HDF5 can point to other files, and claim sizes that no file has. Nothing in a shard or in a file of
kernels may do so. Files of kernels, whose metadata may have no checksums, are first read in a child
process, so that a crash or hang there becomes an error in one line.
"""

import contextlib
import io
import math
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.paths import BYTES_PER_SECOND, IMPORTED_FROM, MOST_DEFLATED


def items(group: h5py.Group) -> Iterator[tuple[str, Any]]:
    """Yield the members of a group by name. Raises BlurkitError as `checked_item` does."""
    for name in group:
        yield name, checked_item(group, name)


def checked_item(group: h5py.Group, name: str) -> Any:
    """Return a member of a group; the values of a dataset are all in its own file.

    Raises BlurkitError for links that are not hard ones, and as `check_stored` does.
    """
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
        raise BlurkitError(f"{name!r} is a link to {kind}; copy the data instead")
    item = group[name]
    if isinstance(item, h5py.Dataset):
        check_stored(item, name)
    return item


def check_stored(dataset: h5py.Dataset, name: str) -> None:
    """Raise BlurkitError unless all values that a dataset claims to have are in its own file."""
    described = dataset.id.get_create_plist()
    if described.get_external_count():
        raise BlurkitError(f"{name!r} takes its values from another file")
    layout = described.get_layout()
    if layout == h5py.h5d.VIRTUAL:
        raise BlurkitError(f"{name!r} takes its values from other datasets")
    claimed = math.prod(dataset.shape or ()) * dataset.dtype.itemsize
    stored, size = dataset.id.get_storage_size(), dataset.file.id.get_filesize()
    if layout == h5py.h5d.CHUNKED:
        count = math.prod(-(-n // c) for n, c in zip(dataset.shape, dataset.chunks, strict=True))
        whole = dataset.id.get_num_chunks() == count and claimed <= MOST_DEFLATED * stored
    else:
        whole = stored >= claimed and (dataset.id.get_offset() or 0) + stored <= size
    if not whole or stored > size:
        raise BlurkitError(f"{name!r} claims {claimed} bytes, which the file does not hold")


def attribute(item: Any, name: str) -> Any:
    """Return an attribute of a group or dataset as a plain value, or None if there is none.

    Numbers are Python's, texts `str`, in which bytes that are not UTF-8 are escaped.
    """
    value = item.attrs.get(name)
    if isinstance(value, bytes):
        return value.decode(errors="surrogateescape")
    return value.item() if isinstance(value, np.generic) else value


# ---- Probing in a child process ------------------------------------------------------------------

SIGNATURE = b"\x89HDF\r\n\x1a\n"
"""The first bytes of an HDF5 file, unless it begins with a block of its user's own."""


def probe(path: Path) -> None:
    """Raise BlurkitError if reading all of an HDF5 file crashes or hangs.

    Errors that the reader itself would report are left to it. A file that stays is read once only.
    """
    state = path.stat()
    _read_apart(path, state.st_size, state.st_mtime_ns)


@cache
def _read_apart(path: Path, size: int, changed: int) -> None:
    command = [sys.executable, "-m", "blurkit.io.hdf5", str(path.absolute())]
    seconds = 10 + size / BYTES_PER_SECOND
    try:
        subprocess.run(
            command, input=b"", capture_output=True, timeout=seconds, check=True, cwd=IMPORTED_FROM
        )
    except subprocess.CalledProcessError as error:
        raise BlurkitError(f"{path}: damaged; HDF5 crashes on it") from error
    except subprocess.TimeoutExpired as error:
        reason = f"reading it takes more than {seconds:.0f} s"
        raise BlurkitError(f"{path}: damaged; {reason}") from error


def _read_all(group: h5py.Group, depth: int = 0) -> None:
    dict(group.attrs)
    for name in group:
        with contextlib.suppress(Exception):  # the others are read even so
            item = checked_item(group, name)
            if isinstance(item, h5py.Dataset):
                item[()]
                dict(item.attrs)
            elif isinstance(item, h5py.Group) and depth < 8:  # no reader looks deeper
                _read_all(item, depth + 1)


if __name__ == "__main__":
    with contextlib.suppress(Exception), h5py.File(sys.argv[1], "r", locking=False) as opened:
        _read_all(opened)
    os._exit(0)  # at once, since closing what is damaged may crash, too


# ---- Truncated shards ----------------------------------------------------------------------------


class ZeroPadded(io.RawIOBase):
    """A truncated file that reads as zeros past its end, so that HDF5 opens what is left."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        super().__init__()
        self._file, self._size, self._place = file, size, 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as in any file; the end is so far away that HDF5 never reaches it."""
        self._place = {0: 0, 1: self._place, 2: 1 << 60}[whence] + offset
        return self._place

    def tell(self) -> int:
        return self._place

    def readinto(self, buffer: Any) -> int:
        self._file.seek(min(self._place, self._size))
        buffer[:] = self._file.read(len(buffer)).ljust(len(buffer), b"\0")
        self._place += len(buffer)
        return len(buffer)


def whole_groups(shard: h5py.File, file: BinaryIO, size: int) -> list[h5py.Group]:
    """Return the groups of records that are in the first `size` bytes, in order.

    Each record says its own number, and every object is found by the signature of its header, since
    version 1.8 of the library; what else has that signature is refused by HDF5's checksums.
    """
    file.seek(0)
    found: dict[int, h5py.Group] = {}
    for match in re.finditer(rb"OHDR\x02", file.read(size)):
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


def _ends_by(group: h5py.Group, size: int) -> bool:
    """Return whether all images of a group, of which there are some, end by byte `size`."""
    found: list[Any] = []
    group.visititems(lambda _, item: found.append(item))
    ends = [_stored_end(item) for item in found if isinstance(item, h5py.Dataset)]
    return bool(ends) and max(ends) <= size


def _stored_end(dataset: h5py.Dataset) -> int:
    """Return the byte of the file by which all values of a dataset end."""
    if dataset.chunks is None:
        return int((dataset.id.get_offset() or 0) + dataset.id.get_storage_size())
    chunks = [dataset.id.get_chunk_info(i) for i in range(dataset.id.get_num_chunks())]
    return max((chunk.byte_offset + chunk.size for chunk in chunks), default=0)
