"""Runs: folders and shards over the same scenes, paired by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from blurkit.data.collection import RestorationRuns, side_by_side_record
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.io.streams import ShardWriter
from tests.cli.command import blurred, photo, plant_tree, write


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs `plain` and `other`, `sharp` and `blur`, in them s/0 to s/2, in several formats."""
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write(tmp_path / f"plain/s/{number}.png", blurred(photo(number)))
        write(tmp_path / f"other/s/{number}.bmp", 255 - photo(number))
        write(tmp_path / f"sharp/s/{number}.png", photo(number))
        write(tmp_path / f"blur/s/{number}.png", photo(number)[::-1])
    return tmp_path


def test_folders(folders: Path) -> None:
    runs = RestorationRuns(["plain", "other"], "sharp")
    assert runs.runs == ("plain", "other")
    assert runs.names == ["s/0", "s/1", "s/2"]
    scene = runs.load("s/1")
    np.testing.assert_array_equal(scene["plain"].images["restored"], blurred(photo(1)))
    np.testing.assert_array_equal(scene["other"].images["restored"], 255 - photo(1))
    for record in scene.values():
        assert [*record.images] == ["restored", "sharp"]
        np.testing.assert_array_equal(record.images["sharp"], photo(1))
    parts = [[next(iter(s.values())).name for s in runs.part((part, 2))] for part in (1, 2)]
    assert sorted([*parts[0], *parts[1]]) == runs.names


def test_blurry_folder_and_side_by_side(folders: Path) -> None:
    runs = RestorationRuns(["plain", "other"], "sharp", "blur")
    together = side_by_side_record(runs.load("s/2")).images
    expected = [photo(2)[::-1], blurred(photo(2)), 255 - photo(2), photo(2)]
    for image, known in zip(together.values(), expected, strict=True):
        np.testing.assert_array_equal(image, known)


def test_shards_and_a_dataset_as_reference(tmp_path: Path) -> None:
    tree = plant_tree(tmp_path / "tree", 3)
    with ShardWriter(tmp_path / "run.h5") as writer:
        for number, name in enumerate(("scene0/0", "scene0/1", "scene1/0")):
            images = {"blur": photo(number), "restored": 255 - photo(number)}
            writer.write(Record(name, images, {"restored_with": "tile=64"}))
    run, reference = str(tmp_path / "run.h5"), str(tree)
    (record,) = RestorationRuns([run], reference).load("scene0/1").values()
    np.testing.assert_array_equal(record.images["restored"], 255 - photo(1))
    np.testing.assert_array_equal(record.images["sharp"], photo(1))
    np.testing.assert_array_equal(record.images["blur"], blurred(photo(1)))
    assert record.attrs["restored_with"] == "tile=64"
    assert record.attrs["sequence"] == "scene0"
    assert Path(record.attrs["source"]).parent.name == "blur"


def test_a_sequence_that_one_run_knows_is_that_of_all(folders: Path) -> None:
    with ShardWriter(folders / "run.h5") as writer:
        writer.write(Record("7", {"restored": photo(0)}, {"sequence": "night"}))
    for side in ("flat", "reference"):
        write(folders / side / "7.png", photo(0))
    for record in RestorationRuns(["flat", "run.h5"], "reference").load("7").values():
        assert record.attrs["sequence"] == "night"


def test_names_that_not_all_have(folders: Path) -> None:
    (folders / "other/s/1.bmp").unlink()
    write(folders / "plain/extra.png", photo(5))
    told: dict[str, str] = {}
    runs = RestorationRuns(
        ["plain", "other"], "sharp", on_error=lambda n, e: told.update({n: str(e)})
    )
    assert runs.names == ["s/0", "s/2"]
    assert told == {
        "s/1": "s/1: no image of that name in other",
        "extra": "extra: no image of that name in other",
    }


def test_one_that_cannot_be_read(folders: Path) -> None:
    (folders / "other/s/1.bmp").write_bytes(b"no image")
    told: dict[str, str] = {}
    runs = RestorationRuns(
        ["plain", "other"], "sharp", on_error=lambda n, e: told.update({n: str(e)})
    )
    assert len(list(runs.part((1, 1)))) == 2
    assert "1.bmp" in told["s/1"]


def test_runs_that_cannot_be(folders: Path) -> None:
    (folders / "empty").mkdir()
    write(folders / "elsewhere/x.png", photo(0))
    for arguments, error, words in (
        ((["plain", "-"], "sharp"), UsageError, "a stream cannot be paired by name"),
        ((["plain"], "-"), UsageError, "a stream cannot be paired by name"),
        ((["plain", "plain"], "sharp"), UsageError, "a run is named twice"),
        ((["plain", "none"], "sharp"), BlurkitError, "none: no such file or folder"),
        ((["plain"], "empty"), BlurkitError, "empty: holds no image and no shard"),
        ((["plain"], "sharp", "empty"), BlurkitError, "empty: holds no image and no shard"),
        ((["plain"], "elsewhere"), BlurkitError, "plain has s/0, elsewhere has x"),
    ):
        with pytest.raises(error, match=words):
            RestorationRuns(*arguments)
