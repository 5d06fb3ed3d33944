"""Streams are shards end to end, cut apart again without holding more than one."""

import io
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from blurkit.errors import BlurkitError
from blurkit.io.records import Record
from blurkit.io.streams import read_stream, shard_bytes
from tests.io.scenes import PEAK_MEGABYTES, assert_all_same, pair, plain_shard, write_shard
from tests.shared import ROOT


def read(data: bytes) -> tuple[list[Record], list[str]]:
    """The records of a stream and what was reported."""
    told: list[str] = []
    return list(read_stream(io.BytesIO(data), lambda _, error: told.append(str(error)))), told


@pytest.mark.parametrize("libver", ["v108", "v110", "latest"])
def test_every_superblock_states_its_end(tmp_path: Path, libver: str) -> None:
    records = [pair(str(n), n) for n in range(6)]
    for number in (0, 3):
        with h5py.File(tmp_path / f"{number}.h5", "w", libver=libver) as file:
            plain_shard(file, records[number : number + 3])
    data = b"".join((tmp_path / f"{number}.h5").read_bytes() for number in (0, 3))
    assert data[8] == {"v108": 2, "v110": 3, "latest": 3}[libver]
    again, told = read(data)
    assert_all_same(records, again)
    assert told == []


def test_a_record_is_there_before_the_next_is_sent() -> None:
    class OneShard(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert self.tell() < len(self.getvalue()), "reads on before giving the record"
            return super().read(size)

    assert next(read_stream(OneShard(shard_bytes(pair("a"))))).name == "a"


def test_a_stream_in_small_pieces() -> None:
    class Dripping(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(min(size or 0, 11))

    data = b"".join(shard_bytes(pair(str(n), n, side=8)) for n in range(2))
    assert [record.name for record in read_stream(Dripping(data))] == ["0", "1"]


def test_cut_in_the_middle(tmp_path: Path) -> None:
    shards = [shard_bytes(pair(str(n), n)) for n in range(3)]
    whole = shards[0] + shards[1]
    for rest in (1, 30, 100, len(shards[2]) // 2, len(shards[2]) - 1):
        again, (message,) = read(whole + shards[2][:rest])
        assert [record.name for record in again] == ["0", "1"]
        assert message.startswith("stream, shard 3: ")
    several = write_shard(tmp_path / "several.h5", [pair(str(n), n) for n in range(5)])
    again, (message,) = read(several.read_bytes()[:-10_000])
    assert [record.name for record in again] == ["0", "1", "2", "3"][: len(again)]
    assert f"10000 bytes are missing; {len(again)} records are whole" in message and again


def test_garbage_ends_a_stream() -> None:
    first, second = (shard_bytes(pair(str(n), n)) for n in range(2))
    again, (message,) = read(first + b"some text, by mistake" * 20 + second)
    assert [record.name for record in again] == ["0"]
    assert message == "stream, shard 2: is not a shard (no HDF5 signature)"
    neither = "stdin: is neither a stream of records nor an image that can be read"
    assert read(b"hello")[1] == [neither]
    with pytest.raises(BlurkitError, match="stdin: is neither"):
        list(read_stream(io.BytesIO(b"hello")))


def test_an_empty_stream_is_told() -> None:
    assert read(b"") == ([], ["stream: empty; the command before this one sent nothing"])


def test_another_hdf5_file_in_a_stream_is_passed_by(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.arange(5)
    first, second = (shard_bytes(pair(str(n), n)) for n in range(2))
    again, (message,) = read(first + (tmp_path / "other.h5").read_bytes() + second)
    assert [record.name for record in again] == ["0", "1"]
    assert message.startswith("stream, shard 2: an HDF5 file, but not a blurkit shard, ")


SENDER = """
import sys, numpy as np
from blurkit.io.records import Record
from blurkit.io.streams import write_stream
for number in range(300):
    image = np.full((1000, 350, 3), number % 256, np.uint8)
    write_stream(sys.stdout.buffer, Record(str(number), {"blur": image}))
"""

RECEIVER = f"""
import sys
from blurkit.io import streams
streams.IN_MEMORY = int(sys.argv[1])
records = megabytes = 0
for record in streams.read_stream(sys.stdin.buffer):
    assert (record.images["blur"] == records % 256).all()
    records += 1
print(records, {PEAK_MEGABYTES})
"""


@pytest.mark.parametrize("in_memory", [256 << 20, 1000], ids=["in memory", "spooled to disk"])
def test_memory_stays_bounded(in_memory: int) -> None:
    command = [sys.executable, "-c", SENDER]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as sender:
        command = [sys.executable, "-c", RECEIVER, str(in_memory)]
        how = {"capture_output": True, "text": True, "timeout": 60, "check": True, "cwd": ROOT}
        run = subprocess.run(command, stdin=sender.stdout, **how)
    records, megabytes = map(int, run.stdout.split())
    assert records == 300
    assert megabytes < 150  # of which Python with its libraries is about 60
