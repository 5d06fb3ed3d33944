"""Blurs stored in records: kernels, and codes of a blur kernel space."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blurkit.data.sources import STREAM, Packed, unpack
from blurkit.errors import BlurkitError
from blurkit.io.shards import is_shard
from blurkit.synthesis.kernels import read_kernels


def read_blurs(source: str) -> list[tuple[str, np.ndarray]]:
    """Return the (name, blur) of each blur in `source`: kernels, or codes of a blur kernel space.

    In a shard, or in a stream (`-`), the blur is each record's attribute `kernel`, (height, width)
    for a kernel and (code, rows, columns) for a code; `blind-deblur --keep-kernel` writes it. Any
    other source is read by `read_kernels`. Raises BlurkitError as `read_kernels` does, if a record
    has no blur, and if there is no record.
    """
    if source != STREAM and not is_shard(Path(source)):
        return list(read_kernels(Path(source)))
    blurs = []
    for record in unpack(Packed(source), pixels=False):
        blur = record.attrs.get("kernel")
        if not isinstance(blur, np.ndarray):
            raise BlurkitError(
                f"{source}: record {record.name!r} holds no kernel; "
                "blind-deblur --keep-kernel writes one"
            )
        blurs.append((record.name, blur))
    if not blurs:
        raise BlurkitError(f"{source}: holds no records")
    return blurs
