"""Blurs kept in records: kernels, and codes of a blur kernel space."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blurkit.data.sources import STREAM, Packed, unpack
from blurkit.errors import BlurkitError
from blurkit.io.shards import is_shard
from blurkit.synthesis.kernels import read_kernels


def read_blurs(source: str) -> list[tuple[str, np.ndarray]]:
    """The blurs that `source` holds, by name: kernels, and codes of a blur kernel space.

    A shard, or `-`, a stream: each record's attribute `kernel`, (height, width) for a kernel and
    (code, rows, columns) for a code; `blind-deblur --keep-kernel` writes it. Anything else is
    for `read_kernels`. Raises BlurkitError as that does, and for a record without.
    """
    if source != STREAM and not is_shard(Path(source)):
        return list(read_kernels(Path(source)))
    found = []
    for record in unpack(Packed(source), pixels=False):
        blur = record.attrs.get("kernel")
        if not isinstance(blur, np.ndarray):
            raise BlurkitError(
                f"{source}: record {record.name!r} holds no kernel; "
                "blind-deblur --keep-kernel writes one"
            )
        found.append((record.name, blur))
    if not found:
        raise BlurkitError(f"{source}: holds no record")
    return found
