"""Shards give back what was put in, can be mapped, and tell what is left of damaged ones."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from blurkit.cli.batch import Problems
from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError
from blurkit.io.image_sinks import open_sink
from blurkit.io.records import Record
from blurkit.io.shards import check_whole, read_record, read_shard, record_keys
from blurkit.io.sinks import ShardFolder, Sink
from blurkit.io.streams import ShardWriter, shard_bytes
from tests.io.scenes import (
    assert_all_same,
    assert_same,
    pair,
    plain_shard,
    put_attributes,
    refusal,
    seal,
    varied,
    write_shard,
)


def read(path: Path) -> tuple[list[Record], list[str]]:
    """The records of a shard and what was reported."""
    told: list[str] = []
    return list(read_shard(path, lambda _, error: told.append(str(error)))), told


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_everything_comes_back(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "new" / "a.h5"
    write_shard(path, varied(), compression)
    again, told = read(path)
    assert_all_same(varied(), again)
    assert told == []
    check_whole(path)
    assert [p.name for p in path.parent.iterdir()] == ["a.h5"]


def test_images_can_be_mapped(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_shard(path, varied())
    mapped = np.memmap(path, np.uint8, mode="r")
    with h5py.File(path) as shard:
        for record, key in zip(varied(), sorted(shard), strict=True):
            for name, image in record.images.items():
                dataset = shard[key][name]
                start = dataset.id.get_offset()
                stored = mapped[start : start + image.nbytes].view(image.dtype)
                np.testing.assert_array_equal(stored.reshape(image.shape), image)


def test_shards_written_by_others_are_read(tmp_path: Path) -> None:
    for libver in ("v110", "latest"):
        with h5py.File(tmp_path / "a.h5", "w", libver=libver) as file:
            plain_shard(file, varied())
        again, told = read(tmp_path / "a.h5")
        assert_all_same(varied(), again)
        assert told == []


def test_a_written_shard_follows_the_documented_format(tmp_path: Path) -> None:
    write_shard(tmp_path / "ours.h5", varied())
    with h5py.File(tmp_path / "plain.h5", "w", libver="v110") as file:
        plain_shard(file, varied())
    with h5py.File(tmp_path / "ours.h5") as file:
        assert dict(file.attrs) == {"format": b"blurkit", "version": 2, "records": len(varied())}

    def tree(path: Path) -> list[tuple[str, list[str]]]:
        found: list[tuple[str, list[str]]] = []
        with h5py.File(path) as file:
            file.visititems(lambda name, item: found.append((name, sorted(item.attrs))))
        return found

    assert tree(tmp_path / "ours.h5") == tree(tmp_path / "plain.h5")


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_records_can_be_read_one_by_one(tmp_path: Path, compression: str | None) -> None:
    path = tmp_path / "a.h5"
    records = [*varied(), *(pair(str(n), n) for n in range(7))]
    write_shard(path, records, compression)
    keys = record_keys(path)
    assert keys == [f"{n:08d}" for n in range(len(records))]
    assert [record.name for record in read_shard(path)] == [record.name for record in records]
    for number in (3, 0, len(records) - 1, 3):
        assert_same(read_record(path, keys[number]), records[number])
    assert refusal(read_record, path, "00000099").startswith("record 00000099: damaged")


def test_only_whole_shards_have_keys(tmp_path: Path) -> None:
    """Not a stream of several either, whose first shard alone HDF5 would open."""
    data = shard_bytes(pair("a"))
    path = tmp_path / "a.h5"
    for content, words in {
        data[:-100]: "is not one whole shard",
        data + data: "is not one whole shard",
        data + b"more": "is not one whole shard",
        b"": "is empty (0 bytes)",
        b"no shard" * 20: "is not a shard",
    }.items():
        path.write_bytes(content)
        assert refusal(record_keys, path).startswith(words)
        assert refusal(read_record, path, "00000000").startswith(words)
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(5)
    assert "not a blurkit shard" in refusal(record_keys, path)
    path.unlink()
    assert refusal(record_keys, path).startswith("cannot be read (No such file")


# -- writing whole or not at all -------------------------------------------------------------------


def test_an_error_leaves_the_old_shard_or_none(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for before in (None, b"an older file"):
        if before is not None:
            path.write_bytes(before)
        with pytest.raises(KeyError), ShardWriter(path, force=True) as shard:
            shard.write(pair("a"))
            raise KeyError
        assert [p.read_bytes() for p in tmp_path.iterdir()] == ([before] if before else [])


def test_without_records_no_shard_is_made(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", [])
    assert list(tmp_path.iterdir()) == []
    write_shard(tmp_path / "a.h5", [pair("a")])
    write_shard(tmp_path / "a.h5", [])
    assert [record.name for record in read_shard(tmp_path / "a.h5")] == ["a"]


def test_existing_shards_are_kept_unless_forced(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.h5", [pair("a")])
    assert "exists already; give --force" in refusal(ShardWriter, tmp_path / "a.h5")
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "a.h5", tmp_path / f"{'long' * 70}.h5"):
        assert "cannot be written" in refusal(write_shard, path, [pair("a")])


@pytest.mark.parametrize("value", [None, {"a": 1}, "zero\0", 2**70, np.array(["a"])])
def test_a_record_that_fails_leaves_the_others(tmp_path: Path, value: object) -> None:
    broken = pair("broken", 1)
    broken.attrs["bad"] = value
    with ShardWriter(tmp_path / "a.h5") as shard:
        shard.write(pair("a", 0))
        with pytest.raises(BlurkitError, match="record 'broken'"):
            shard.write(broken)
        shard.write(pair("b", 2))
    assert_all_same(read_shard(tmp_path / "a.h5"), [pair("a", 0), pair("b", 2)])


def test_file_names_that_are_no_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_shard(tmp_path / "a.h5", [pair(name)])
    assert [record.name for record in read_shard(tmp_path / "a.h5")] == [name]


@pytest.mark.parametrize("side", [700, 100, 10])
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_full_disk(
    small_disk: Path, side: int, compression: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    path = small_disk / "a.h5"
    with (
        pytest.raises(BlurkitError, match=r"^[^\n]*a\.h5: the disk is full[^\n]*$"),
        ShardWriter(path, force=True, compression=compression) as shard,
    ):
        for number in range(3000):
            shard.write(Record(str(number), {"blur": noise}))
    assert list(small_disk.iterdir()) == []
    assert capfd.readouterr().err == ""


def test_a_full_disk_is_not_forgotten(small_disk: Path) -> None:
    large = Record("large", {"blur": np.zeros((700, 700, 3), np.uint8)})
    writer = ShardWriter(small_disk / "a.h5")
    writer.write(pair("a"))
    for _ in range(2):
        with pytest.raises(BlurkitError, match="the disk is full"):
            writer.write(large)
    with pytest.raises(BlurkitError, match="the disk is full"):
        writer.close()
    assert list(small_disk.iterdir()) == []


# -- damage ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_truncated_shard_gives_its_whole_records(tmp_path: Path, compression: str | None) -> None:
    records = [pair(str(n), n) for n in range(8)]
    whole, cut = tmp_path / "whole.h5", tmp_path / "cut.h5"
    write_shard(whole, records, compression)
    data = whole.read_bytes()
    ends, begins = [], []
    with h5py.File(whole) as shard:  # the last byte of each record's pixels
        for key in sorted(shard):
            begins.append(h5py.h5o.get_info(shard[key].id).addr)
            for image in shard[key].values():
                spans = [(image.id.get_offset(), image.id.get_storage_size())]
                if compression:
                    count = image.id.get_num_chunks()
                    chunks = (image.id.get_chunk_info(number) for number in range(count))
                    spans = [(chunk.byte_offset, chunk.size) for chunk in chunks]
                end = max(start + size for start, size in spans)
            ends.append(end)
    rng = np.random.default_rng(2)
    points = {*rng.integers(64, len(data), 25), *ends, *(e - 1 for e in ends), len(data) - 1}
    for size in sorted(points - {len(data)}):
        cut.write_bytes(data[:size])
        again, told = read(cut)
        for first, second in zip(records, again, strict=False):
            assert_same(first, second)
        (message,) = told
        assert message.startswith(f"{cut}: ")
        if "no record can be recovered" in message:
            assert size < ends[0] and again == []
            continue
        # A record ends behind its pixels, and before the next one begins.
        most = sum(end <= size for end in ends)
        assert max(0, sum(begin <= size for begin in begins) - 1) <= len(again) <= most
        assert f"truncated, {len(data) - size} bytes are missing" in message
        assert f"{len(again)} records are whole" in message
        assert (f"blurkit prepare {cut} -o" in message) == bool(again)
        assert f"{cut}: {refusal(check_whole, cut)}" == message


def test_files_that_are_no_shards(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["data"] = np.arange(5)
    for version in (1, 3):
        with h5py.File(tmp_path / f"{version}.h5", "w", libver="v110") as file:
            plain_shard(file, [pair("a")])
            file.attrs["version"] = version
    garbage = np.random.default_rng(3).integers(0, 256, 5000, np.uint8).tobytes()
    contents = {
        "is empty (0 bytes)": b"",
        "is not a shard (no HDF5 signature)": b"\x89PNG or any other text " * 9,
        "HDF5 header truncated": shard_bytes(pair("a"))[:12],
        "an HDF5 file, but not a blurkit shard": (tmp_path / "other.h5").read_bytes(),
        "or one of an older version; make it again": (tmp_path / "other.h5").read_bytes(),
        "shard version 1, but this blurkit reads 2": (tmp_path / "1.h5").read_bytes(),
        "shard version 3, but this blurkit reads 2": (tmp_path / "3.h5").read_bytes(),
    }
    for expected, data in contents.items():
        path.write_bytes(data)
        again, (message,) = read(path)
        assert again == [] and message.startswith(f"{path}: ") and expected in message
    for version in (b"\0", b"\1", b"\2", b"\3", b"\7"):
        path.write_bytes(b"\x89HDF\r\n\x1a\n" + version + garbage)
        assert len(read(path)[1]) == 1
    assert "no such file" in read(tmp_path / "missing.h5")[1][0].lower()
    os.mkfifo(tmp_path / "pipe.h5")  # opening it would wait for a writer
    for path in (tmp_path, tmp_path / "pipe.h5"):
        assert "is not a regular file" in read(path)[1][0]


def test_damage_inside_a_shard_is_told(tmp_path: Path) -> None:
    data = shard_bytes(pair("a"))
    for signature in (b"OHDR", b"OCHK"):
        assert signature in data
        (tmp_path / "a.h5").write_bytes(data.replace(signature, b"oops"))
        again, (message,) = read(tmp_path / "a.h5")
        assert again == [] and message.startswith(f"{tmp_path / 'a.h5'}: ") and "damaged" in message


# ---- made to harm --------------------------------------------------------------------------------

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
SECRET = b"TOP-SECRET-" * 100
GOOD = ("good/first", "good/last")

Fill = Callable[[h5py.File, Path], object]


def add(file: h5py.File, name: Any = "odd", key: str = "00000001", **attrs: Any) -> h5py.Group:
    """A record of two images, as any program may write it."""
    group = file.create_group(key)
    group.attrs["name"] = name
    group["blur"], group["sharp"] = PIXELS, PIXELS
    put_attributes(group, attrs)
    return group


def bare(file: h5py.File) -> h5py.Group:
    """A record without images."""
    group = file.create_group("00000001")
    group.attrs["name"] = "odd"
    return group


def external_storage(file: h5py.File, folder: Path) -> None:
    secret = [(str(folder / "secret"), 0, h5py.h5f.UNLIMITED)]
    bare(file).create_dataset("blur", (10, 36, 3), "u1", external=secret)


def external_link(file: h5py.File, folder: Path) -> None:
    file["00000001"] = h5py.ExternalLink(str(folder / "other.h5"), "/00000001")


def linked_image(file: h5py.File, folder: Path) -> None:
    bare(file)["blur"] = h5py.ExternalLink(str(folder / "other.h5"), "/00000001/blur")


def virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout(PIXELS.shape, "u1")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "00000001/blur", PIXELS.shape)
    bare(file).create_virtual_dataset("blur", layout)


def soft_links(file: h5py.File, folder: Path) -> None:
    file["00000001"] = h5py.SoftLink("/00000000")
    file["00000002"] = h5py.SoftLink("/nowhere")


def loop(file: h5py.File, folder: Path) -> None:
    group = add(file)
    group["hard"] = group


def claim(**options: Any) -> Fill:
    return lambda file, _: bare(file).create_dataset("blur", (10**6, 10**6, 3), "u1", **options)


def image(pixels: np.ndarray) -> Fill:
    return lambda file, _: bare(file).create_dataset("blur", data=pixels)


def beside(name: str, value: Any) -> Fill:
    return lambda file, _: add(file).create_dataset(name, data=value)


def holding(name: Any = "odd", **attrs: Any) -> Fill:
    return lambda file, _: add(file, name, **attrs)


CASES: dict[str, Fill] = {
    "external storage": external_storage,
    "external link": external_link,
    "image behind a link": linked_image,
    "virtual dataset": virtual,
    "soft links": soft_links,
    "a group inside itself": loop,
    "500 groups inside each other": lambda file, _: bare(file).create_group("/".join("d" * 500)),
    "3 TB contiguous": claim(),
    "3 TB in chunks": claim(chunks=(64, 64, 3), compression="gzip"),
    "2 channels": image(PIXELS[..., :2]),
    "4 channels": image(PIXELS[..., [0, 1, 2, 0]]),
    "no channels": image(PIXELS[..., :0]),
    "no height": image(PIXELS[:0]),
    "four dimensions": image(PIXELS[None]),
    "float64": image(np.zeros((32, 48, 3))),
    "not a number": image(np.full((32, 48, 3), np.nan, "f4")),
    "infinite": image(np.full((32, 48, 3), np.inf, "f4")),
    "1e30": image(np.full((32, 48, 3), 1e30, "f4")),
    "-5": image(np.full((32, 48, 3), -5, "f4")),
    "big-endian": image(np.full((32, 48, 3), 300, ">u2")),
    "alpha of another size": beside("alpha", PIXELS[:5, :5, :1]),
    "alpha of 3 channels": beside("alpha", PIXELS),
    "a text among images": beside("text", "abc"),
    "a dataset as a record": lambda file, _: file.create_dataset("00000001", data=PIXELS),
    "no name": lambda file, _: file.create_group("00000001").create_dataset("blur", data=PIXELS),
    "a number as a name": holding(7),
    "an array as a name": holding(np.arange(3)),
    "empty name": holding(""),
    "name above the folder": holding("../../escape"),
    "absolute name": holding("/tmp/escape"),
    "name of two lines": holding("a\nb"),
    "name with terminal escapes": holding("\x1b]0;PWNED\x07\x1b[31mred"),
    "name with C1 escapes": holding("x\u009b31mred"),
    "name that turns around": holding("x\u202egnp.exe"),
    "name of 300 characters": holding("n" * 300),
    "name of 3000 folders": holding("/".join("d" * 3000)),
    "array as suffix": holding(suffix=np.arange(3)),
    "suffix above the folder": holding(suffix="/../../../x.png"),
    "text as orientation": holding(orientation="abc"),
    "array as orientation": holding(orientation=np.arange(4)),
    "orientation 99": holding(orientation=99),
    "text as EXIF": holding(exif="abc"),
    "garbage as EXIF": holding(exif=np.arange(200, dtype=np.uint8), suffix=".jpg"),
    "numbers as EXIF": holding(exif=np.arange(-5, 5)),
    "garbage as a profile": holding(icc_profile=np.arange(200, dtype=np.uint8)),
    "array as split": holding(split=np.arange(3)),
    "split above the folder": holding(split="../x"),
    "number as split": holding(split=3.5),
    "split with escapes": holding(split="\x1b[31m"),
    "array as sequence": holding(sequence=np.arange(3)),
    "array as source": holding(source=np.arange(3)),
    "text as PSNR": holding(psnr_blur="x"),
    "frame above the folder": holding(frame="../../x"),
}


def write_hostile(folder: Path, case: str, libver: str) -> Path:
    """Write a shard of a hostile record between two good ones, beside what it may reach for."""
    (folder / "secret").write_bytes(SECRET)
    with h5py.File(folder / "other.h5", "w") as file:
        add(file)
    with h5py.File(folder / "bad.h5", "w", libver=libver) as file:
        add(file, GOOD[0], "00000000")
        CASES[case](file, folder)
        add(file, GOOD[1], "00000099")
        seal(file)
    return folder / "bad.h5"


def written(sink: Sink, shard: Path) -> tuple[list[str], list[str]]:
    """What a command that only copies records writes, and what it says failed."""
    problems, done = Problems(), []
    with sink:
        for record in read_records([str(shard)], on_error=problems.add):
            with problems.guard(record.name):
                sink.claim(record)
                sink.write(record)
                done.append(record.name)
    return done, problems.failed


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("libver", ["v110", "latest"])
def test_a_hostile_record_stops_nothing(
    case: str, libver: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shard, out = write_hostile(tmp_path, case, libver), tmp_path / "out" / "folder"
    for sink in (open_sink(f"{out}/", ("blur",), "x"), ShardFolder(tmp_path / "out" / "shards")):
        done, failed = written(sink, shard)
        assert {*done} >= {*GOOD}
        said = capsys.readouterr().err
        assert said.isascii() and len(said.splitlines()) == len(failed)
        assert all(line.isprintable() for line in said.splitlines())
    found = [path for path in tmp_path.rglob("*") if path.is_file()]
    for path in found:
        inside = path.is_relative_to(tmp_path / "out")
        assert inside or path in (tmp_path / "secret", tmp_path / "other.h5", shard)
        assert not inside or SECRET[:22] not in path.read_bytes()
