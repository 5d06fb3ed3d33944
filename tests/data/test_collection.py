"""Collections: any record at any time, the same as those read in order, wherever they lie."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from blurkit.data.collection import RecordList, collect, collect_pairs
from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.io.streams import ShardWriter, shard_bytes
from tests.data.trees import Plant
from tests.io.scenes import assert_same, pair, varied

Reports = list[tuple[str, str]]


@pytest.fixture
def reports() -> Reports:
    return []


def gather(inputs: list[Path | str], reports: Reports, **options: object) -> RecordList:
    def note(where: str, error: BlurkitError) -> None:
        reports.append((where, str(error)))

    return collect([*map(str, inputs)], on_error=note, **options)  # type: ignore[arg-type]


def shard(path: Path, records: list[Record]) -> Path:
    with ShardWriter(path) as writer:
        for record in records:
            writer.write(record)
    return path


def assert_holds(collection: RecordList, records: list[Record]) -> None:
    """All `records` in their order, read backwards, and some of them again."""
    assert len(collection) == len(collection.places) == len(records)
    order = [*reversed(range(len(records))), 0, len(records) // 2, 0]
    for number in order:
        assert_same(collection[number], records[number])
    for first, second in zip(collection, records, strict=True):
        assert_same(first, second)


def test_files_folders_trees_and_shards(tmp_path: Path, plant: Plant, plant_pairs: Plant) -> None:
    for number in (10, 2, 1):
        plant(f"photos/{number}.png", number)
    plant_pairs("tree/test/s/blur/0.png", "tree/test/s/sharp/0.png", 4)
    plant("1.png", 5)
    shard(tmp_path / "shards/a.h5", varied())
    shard(tmp_path / "shards/b.h5", [pair("b", 3)])
    inputs = [str(tmp_path / name) for name in ("photos", "tree", "1.png", "shards")]
    for image in ("blur", "sharp"):
        expected = list(read_records(inputs, image=image))
        assert len(expected) == 3 + 1 + 1 + len(varied()) + 1
        assert image in expected[0].images
        collection = collect(inputs, image=image)
        assert_holds(collection, expected)
    assert collection.places[1:4] == ["2", "10", expected[3].name]
    assert collection.places[-1] == f"{tmp_path / 'shards/b.h5'}, record 00000000"


def test_streams_are_read_once_and_then_held(tmp_path: Path) -> None:
    records = varied()
    stream = b"".join(map(shard_bytes, records))
    (tmp_path / "saved.h5").write_bytes(stream)
    shard(tmp_path / "whole.h5", records)
    held = collect(["-"], stdin=io.BytesIO(stream))
    assert_holds(held, records)
    assert held.places[1] == "-, record 00000001"
    assert_holds(collect([str(tmp_path / "saved.h5")]), records)
    both = collect([str(tmp_path / "whole.h5"), "-"], stdin=io.BytesIO(stream))
    assert_holds(both, [*records, *records])
    with pytest.raises(UsageError, match="name '-' once"):
        collect(["-", "-"])


def test_what_holds_a_stream_is_gone_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    held = collect(["-"], stdin=io.BytesIO(shard_bytes(pair("a"))))
    assert len(list(tmp_path.rglob("*.h5"))) == 1
    assert_same(held[0], pair("a"))
    del held
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_shard_is_salvaged_and_told(tmp_path: Path, reports: Reports) -> None:
    records = [pair(str(n), n) for n in range(5)]
    data = shard(tmp_path / "whole.h5", records).read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: -2 * pair("a").bytes])
    left = gather([tmp_path / "cut.h5", tmp_path / "whole.h5"], reports)
    ((where, told),) = reports
    assert where == str(tmp_path / "cut.h5") and "records are whole" in told
    salvaged = len(left) - 5
    assert 2 <= salvaged <= 3
    assert_holds(left, [*records[:salvaged], *records])
    with pytest.raises(BlurkitError, match="truncated"):
        collect([str(tmp_path / "cut.h5")])


def test_what_is_left_out_is_told_at_once(tmp_path: Path, plant: Plant, reports: Reports) -> None:
    plant("a.png", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no shard" * 20)
    (tmp_path / "empty.h5").write_bytes(b"")
    names = ("missing.png", "a.png", "empty", "text.h5", "empty.h5", "-")
    inputs: list[Path | str] = [name if name == "-" else tmp_path / name for name in names]
    collection = gather(inputs, reports, stdin=io.BytesIO(b""))
    assert [record.name for record in collection] == ["a"]
    for name in ("missing.png", "empty", "text.h5", "empty.h5"):
        assert sum(where == str(tmp_path / name) for where, _ in reports) == 1, name
    assert reports[-1][0] == "stream" and len(reports) == 5


def test_a_photo_that_cannot_be_read_keeps_its_place(tmp_path: Path, plant: Plant) -> None:
    for number in range(3):
        plant(f"photos/{number}.png", number)
    (tmp_path / "photos/1.png").write_bytes(b"\x89PNG")
    collection = collect([str(tmp_path / "photos")])
    assert collection.places == ["0", "1", "2"]
    for _ in range(2):
        with pytest.raises(BlurkitError, match=r"1\.png"):
            collection[1]
    assert collection[2].name == "2"


def test_a_bad_record_keeps_its_place(tmp_path: Path) -> None:
    path = shard(tmp_path / "a.h5", [pair(str(n), n) for n in range(3)])
    with h5py.File(path, "r+") as file:
        del file["00000001/blur"]
        file["00000001/blur"] = np.zeros((4, 4, 3))
    collection = collect([str(path)])
    for _ in range(2):
        with pytest.raises(BlurkitError, match=r"a\.h5: record 00000001: image 'blur' is float64"):
            collection[1]
    assert_same(collection[2], pair("2", 2))
    path.unlink()
    with pytest.raises(BlurkitError, match=r"a\.h5: cannot be read"):
        collection[0]


def test_pairs_of_two_folders_or_files(tmp_path: Path, plant_pairs: Plant, plant: Plant) -> None:
    for number in range(3):
        plant_pairs(f"b/x/{number}.png", f"s/x/{number}.png", number)
    plant("b/lonely.png", 7, blurred=True)
    told: list[str] = []
    sides = [str(tmp_path / "b"), str(tmp_path / "s")]
    pairs = collect_pairs(sides, ("blur", "sharp"), lambda where, _: told.append(where))
    assert told == ["lonely"]
    assert pairs.places == [f"x/{number}" for number in range(3)]
    for number in (2, 0):
        images = pairs[number].images
        np.testing.assert_array_equal(images["blur"], images["sharp"] // 2)
    files = [str(tmp_path / "s/x/1.png"), str(tmp_path / "b/x/2.png")]
    (only,) = collect_pairs(files, ("sharp", "blur"))
    assert only.name == "1" and list(only.images) == ["sharp", "blur"]
    np.testing.assert_array_equal(only.images["blur"], pairs[2].images["blur"])
    shard(tmp_path / "a.h5", [pair("a"), pair("b", 1)])
    assert_holds(collect_pairs([str(tmp_path / "a.h5")]), [pair("a"), pair("b", 1)])
