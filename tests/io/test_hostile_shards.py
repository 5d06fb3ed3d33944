"""Shards made to harm: each bad record costs one line, and the good ones around it are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from blurkit.cli.batch import Problems
from blurkit.data.sources import read_records
from blurkit.io.image_sinks import open_sink
from blurkit.io.sinks import ShardFolder, Sink
from tests.io.scenes import seal

PIXELS = np.random.default_rng(0).integers(0, 256, (32, 48, 3), np.uint8)
SECRET = b"TOP-SECRET-" * 100
GOOD = ("good/first", "good/last")

Fill = Callable[[h5py.File, Path], None]


def add(file: h5py.File, name: Any = "odd", key: str = "00000001", **attrs: Any) -> h5py.Group:
    """A record of two images, as any program may write it."""
    group = file.create_group(key)
    group.attrs["name"] = name
    group["blur"], group["sharp"] = PIXELS, PIXELS
    for attribute, value in attrs.items():
        if isinstance(value, np.ndarray):
            group[f"attrs/{attribute}"] = value
        else:
            group.attrs[f"attr:{attribute}"] = value
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


def deep(file: h5py.File, folder: Path) -> None:
    group = bare(file)
    for _ in range(500):
        group = group.create_group("d")


def claim(**options: Any) -> Fill:
    def fill(file: h5py.File, folder: Path) -> None:
        bare(file).create_dataset("blur", (10**6, 10**6, 3), "u1", **options)

    return fill


def shape(size: tuple[int, ...], dtype: str = "u1", value: float = 0) -> Fill:
    def fill(file: h5py.File, folder: Path) -> None:
        bare(file)["blur"] = np.full(size, value, dtype)

    return fill


def image(name: str, size: tuple[int, ...]) -> Fill:
    def fill(file: h5py.File, folder: Path) -> None:
        add(file)[name] = np.zeros(size, np.uint8)

    return fill


def named(name: Any) -> Fill:
    def fill(file: h5py.File, folder: Path) -> None:
        add(file, name)

    return fill


def holding(**attrs: Any) -> Fill:
    def fill(file: h5py.File, folder: Path) -> None:
        add(file, **attrs)

    return fill


def text_dataset(file: h5py.File, folder: Path) -> None:
    add(file)["text"] = "abc"


def dataset_as_record(file: h5py.File, folder: Path) -> None:
    file["00000001"] = PIXELS


def nameless(file: h5py.File, folder: Path) -> None:
    file.create_group("00000001")["blur"] = PIXELS


CASES: dict[str, Fill] = {
    "external storage": external_storage,
    "external link": external_link,
    "image behind a link": linked_image,
    "virtual dataset": virtual,
    "soft links": soft_links,
    "a group inside itself": loop,
    "500 groups inside each other": deep,
    "3 TB contiguous": claim(),
    "3 TB in chunks": claim(chunks=(64, 64, 3), compression="gzip"),
    "2 channels": shape((32, 48, 2)),
    "4 channels": shape((32, 48, 4)),
    "no channels": shape((32, 48, 0)),
    "no height": shape((0, 48, 3)),
    "four dimensions": shape((1, 32, 48, 3)),
    "float64": shape((32, 48, 3), "f8"),
    "not a number": shape((32, 48, 3), "f4", np.nan),
    "infinite": shape((32, 48, 3), "f4", np.inf),
    "1e30": shape((32, 48, 3), "f4", 1e30),
    "-5": shape((32, 48, 3), "f4", -5),
    "big-endian": shape((32, 48, 3), ">u2", 300),
    "alpha of another size": image("alpha", (5, 5, 1)),
    "alpha of 3 channels": image("alpha", (32, 48, 3)),
    "a text among images": text_dataset,
    "a dataset as a record": dataset_as_record,
    "no name": nameless,
    "a number as a name": named(7),
    "an array as a name": named(np.arange(3)),
    "empty name": named(""),
    "name above the folder": named("../../escape"),
    "absolute name": named("/tmp/escape"),
    "name of two lines": named("a\nb"),
    "name with terminal escapes": named("\x1b]0;PWNED\x07\x1b[31mred"),
    "name with C1 escapes": named("x\u009b31mred"),
    "name that turns around": named("x\u202egnp.exe"),
    "name of 300 characters": named("n" * 300),
    "name of 3000 folders": named("/".join("d" * 3000)),
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
    (tmp_path / "secret").write_bytes(SECRET)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        add(file)
    shard, out = tmp_path / "bad.h5", tmp_path / "out" / "folder"
    with h5py.File(shard, "w", libver=libver) as file:
        add(file, GOOD[0], "00000000")
        CASES[case](file, tmp_path)
        add(file, GOOD[1], "00000099")
        seal(file)
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
