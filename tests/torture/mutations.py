"""Damage to the bytes of a file: what disks, copies and memory do to them, and worse."""

import random
from collections.abc import Callable

HEAD = 1 << 16
"""So many bytes from the start hold most of a format's structures."""

EXTREMES = [b"\xff" * 8, bytes(8), *((1 << n).to_bytes(8, "little") for n in (7, 31, 40, 62))]


def bit(data: bytearray, r: random.Random) -> None:
    """One bit, anywhere."""
    data[r.randrange(len(data))] ^= 1 << r.randrange(8)


def bit_in_head(data: bytearray, r: random.Random) -> None:
    """One bit of the structures."""
    data[r.choice(used(data))] ^= 1 << r.randrange(8)


def values(data: bytearray, r: random.Random) -> None:
    """Some bytes of the structures."""
    for _ in range(r.randrange(1, 20)):
        data[r.choice(used(data))] = r.randrange(256)


def extreme(data: bytearray, r: random.Random) -> None:
    """An aligned number of the structures, which becomes a length or address that is none."""
    start = r.choice(used(data)) & ~7
    data[start : start + 8] = r.choice(EXTREMES)[: len(data) - start]


def end(data: bytearray, r: random.Random) -> None:
    """A byte near the end, where archives have their index."""
    data[-1 - r.randrange(min(len(data), 3000))] = r.randrange(256)


def zeros(data: bytearray, r: random.Random) -> None:
    """A block that was never written."""
    start = r.randrange(len(data))
    size = min(r.randrange(1, 4096), len(data) - start)
    data[start : start + size] = bytes(size)


def noise(data: bytearray, r: random.Random) -> None:
    """A block of something else."""
    start = r.randrange(len(data))
    size = min(r.randrange(1, 512), len(data) - start)
    data[start : start + size] = r.randbytes(size)


def repeated(data: bytearray, r: random.Random) -> None:
    """A block in the place of another."""
    size = r.randrange(1, min(4096, len(data)))
    here, there = (r.randrange(len(data) - size + 1) for _ in range(2))
    data[here : here + size] = data[there : there + size]


def lost(data: bytearray, r: random.Random) -> None:
    """A block that is missing."""
    start = r.randrange(len(data))
    del data[start : start + r.randrange(1, 4096)]


def added(data: bytearray, r: random.Random) -> None:
    """A block too many."""
    start = r.randrange(len(data))
    data[start:start] = r.randbytes(r.randrange(1, 4096))


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    *(bit, bit_in_head, values, extreme, end, zeros, noise, repeated, lost, added),
)


def used(data: bytearray) -> list[int]:
    """The places of the structures that are not zero."""
    return [place for place, byte in enumerate(data[:HEAD]) if byte] or [0]


def corrupted(data: bytes, r: random.Random) -> bytes:
    """Return bytes that differ from those given in one of the ways above."""
    while True:
        changed = bytearray(data)
        r.choice(MUTATIONS)(changed, r)
        if changed != data:
            return bytes(changed)


def truncated(data: bytes, r: random.Random) -> bytes:
    """Return the first bytes of those given, as often as not fewer than 4096."""
    return data[: r.randrange(min(4096, len(data)) if r.random() < 0.5 else len(data))]
