"""HDF5 files of unknown origin: what is refused before any value in them is read.

HDF5 can point to other files, and claim sizes that no file has. Nothing in a shard or in a file of
kernels may do so.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.limits import MOST_DEFLATED

Member = Any


def items(group: h5py.Group) -> Iterator[tuple[str, Member]]:
    """Yield the members of a group by name; values of datasets are all in its own file.

    Raises BlurkitError for links that are not hard ones, and for the datasets that `check_stored`
    refuses.
    """
    for name in group:
        yield name, checked_item(group, name)


def checked_item(group: h5py.Group, name: str) -> Member:
    """Return a member of a group. Raises BlurkitError as `items` does."""
    link = group.get(name, getlink=True)
    if not isinstance(link, h5py.HardLink):
        kind = "another file" if isinstance(link, h5py.ExternalLink) else "another place"
        raise BlurkitError(f"{name!r} is a link to {kind}; copy the data instead")
    item = group[name]
    if isinstance(item, h5py.Dataset):
        check_stored(item, name)
    return item


def check_stored(dataset: h5py.Dataset, name: str) -> None:
    """Raise BlurkitError unless all values of a dataset are in its own file.

    That is also so for claims of more values than a file of its size can hold.
    """
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
