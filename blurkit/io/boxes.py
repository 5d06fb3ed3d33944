"""Boxes: the containers of JPEG 2000, JPEG XL, AVIF and HEIC."""

from __future__ import annotations

import struct
from collections.abc import Iterator


def boxes(data: bytes, start: int = 0, end: int | None = None) -> Iterator[tuple[bytes, int, int]]:
    """Yield the kind (4 bytes) of every box in `data[start:end]`, and where its content begins and
    ends. Boxes that a truncated file lacks are left out.
    """
    end = len(data) if end is None else end
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and start + 16 <= end:
            (size,), header = struct.unpack_from(">Q", data, start + 8), 16
        stop = end if size == 0 else start + size
        if stop > end or stop < start + header:
            return
        yield kind, start + header, stop
        start = stop


def content(data: bytes, kind: bytes) -> bytes:
    """Return the content of the first box of a kind, b"" if there is none."""
    return next((data[start:end] for found, start, end in boxes(data) if found == kind), b"")


def box(kind: bytes, body: bytes) -> bytes:
    """Return a box of one kind."""
    return struct.pack(">I4s", 8 + len(body), kind) + body


def brands(head: bytes) -> set[bytes]:
    """Return the brands that the first bytes of an AVIF, HEIC or CR3 file name."""
    if head[4:8] != b"ftyp":
        return set()
    names = head[8 : max(int.from_bytes(head[:4], "big"), 12)]
    return {names[place : place + 4] for place in range(0, len(names), 4) if place != 4}
