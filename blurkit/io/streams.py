"""Streams: consecutive shards, separated by the end address that each of them states.

A single image file is a stream, too.
"""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.formats import recognise
from blurkit.io.images import HEAD, decode_image, image_record
from blurkit.io.probe import CHECKSUMMED, SIGNATURE, probe_shard
from blurkit.io.records import Record
from blurkit.io.shard_writing import shard_bytes
from blurkit.io.shards import read_open_shard, stated_end

STDIN = "stdin"
"""The name of the record of an image on standard input."""

IN_MEMORY = 256 << 20
"""Shards of a stream up to this size in bytes stay in memory; larger ones use a temporary file."""

CHUNK = 1 << 20


def read_stream(
    stream: BinaryIO, on_error: OnError = raise_error, image: str = "blur"
) -> Iterator[Record]:
    """Yield the records of every shard in a stream as they arrive.

    At most one shard is held at a time. Data that does not start like a shard, or a truncated
    shard, is reported to `on_error` after the records before it; nothing after it can be located.
    An image file instead of shards is one record, `stdin`, with the image `image`.
    """
    number = 0
    while head := _read_exactly(stream, HEAD):
        number += 1
        if number == 1 and recognise(head):
            yield from _image(head + stream.read(), on_error, image)
            return
        if number == 1 and not head.startswith(SIGNATURE):
            reason = "is neither a stream of records nor an image that can be read"
            on_error(STDIN, BlurkitError(f"{STDIN}: {reason}"))
            return
        where = f"stream, shard {number}"
        try:
            size = stated_end(head, where)
        except BlurkitError as error:
            on_error(where, error)
            return
        with tempfile.SpooledTemporaryFile(max_size=IN_MEMORY) as spool:
            spool.write(head[:size])
            while spool.tell() < size and (data := stream.read(min(CHUNK, size - spool.tell()))):
                spool.write(data)
            received = spool.tell()
            try:
                _probe(spool, where)
            except BlurkitError as error:
                on_error(where, error)
                continue
            yield from read_open_shard(spool, received, where, on_error)  # type: ignore[arg-type]
        if received < size:
            return
    if number == 0:
        on_error("stream", BlurkitError("stream: empty; the command before this one sent nothing"))


def _image(data: bytes, on_error: OnError, role: str) -> Iterator[Record]:
    try:
        yield image_record(STDIN, {role: decode_image(io.BytesIO(data), Path(STDIN))})
    except BlurkitError as error:
        on_error(STDIN, error)


def _probe(spool: Any, where: str) -> None:
    """Probe a shard in a stream; only one without checksums is copied to a file for it."""
    spool.seek(0)
    if spool.read(9)[8] >= CHECKSUMMED:
        return
    with tempfile.NamedTemporaryFile(suffix=".h5") as file:
        spool.seek(0)
        shutil.copyfileobj(spool, file)
        file.flush()
        probe_shard(Path(file.name), where)


def write_stream(stream: BinaryIO, record: Record) -> None:
    """Send one record as a separate shard and flush, so that the next command can start on it."""
    stream.write(shard_bytes(record))
    stream.flush()


def end_whole(file: BinaryIO) -> None:
    """Cut off what a writer that was killed has left after the last whole shard of a stream.

    The file is open for reading and writing; it is at its start afterwards. Raises BlurkitError if
    it is not a stream.
    """
    size, end = file.seek(0, io.SEEK_END), 0
    while end < size:
        file.seek(end)
        head = _read_exactly(file, 64)
        if len(head) < 64 or (end_of_shard := end + stated_end(head, file.name)) > size:
            file.truncate(end)
            break
        end = end_of_shard
    file.seek(0)


def standard_input() -> BinaryIO:
    """Return standard input for binary data. Raises UsageError if it is a terminal."""
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError("'-' reads a stream from a pipe or a file; standard input is a terminal")
    return sys.stdin.buffer


def standard_output() -> BinaryIO:
    """Return standard output for binary data. Raises UsageError if it is a terminal."""
    if sys.stdout.isatty():
        raise UsageError("'-o -' sends binary data; pipe it into a command or a file")
    return sys.stdout.buffer


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    parts = io.BytesIO()
    while parts.tell() < size and (data := stream.read(size - parts.tell())):
        parts.write(data)
    return parts.getvalue()
