"""Records at any time, as those read in order; folders, files and runs are paired by name."""

import tempfile
from pathlib import Path

import h5py
import numpy as np
import pytest

from blurkit.data.collection import (
    RecordList,
    RestorationRuns,
    are_two_sides,
    collect,
    collect_pairs,
    find_two_sides,
    read_two_sides,
)
from blurkit.data.places import WorkPart
from blurkit.data.sources import load_scene, read_records
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.io.streams import shard_bytes
from tests.cli.pictures import blurred, photo, plant_tree, write
from tests.data.trees import Give, Plant, Reports, assert_pair
from tests.io.scenes import assert_all_same, assert_same, pair, varied, write_shard
from tests.metrics.oracle import noisy


def assert_holds(collection: RecordList, records: list[Record]) -> None:
    """All `records` in their order, read backwards, and some of them again."""
    assert len(collection) == len(collection.places) == len(records)
    order = [*reversed(range(len(records))), 0, len(records) // 2, 0]
    for number in order:
        assert_same(collection[number], records[number])
    assert_all_same(collection, records)


def test_files_folders_trees_and_shards(tmp_path: Path, plant: Plant, plant_pairs: Plant) -> None:
    for number in (10, 2, 1):
        plant(f"photos/{number}.png", number)
    plant_pairs("tree/test/s/blur/0.png", "tree/test/s/sharp/0.png", 4)
    plant("1.png", 5)
    write_shard(tmp_path / "shards/a.h5", varied())
    write_shard(tmp_path / "shards/b.h5", [pair("b", 3)])
    inputs = [str(tmp_path / name) for name in ("photos", "tree", "1.png", "shards")]
    for image in ("blur", "sharp"):
        expected = list(read_records(inputs, image=image))
        assert len(expected) == 3 + 1 + 1 + len(varied()) + 1 and image in expected[0].images
        collection = collect(inputs, image=image)
        assert_holds(collection, expected)
    assert collection.places[1:4] == ["2", "10", expected[3].name]
    assert collection.places[-1] == f"{tmp_path / 'shards/b.h5'}, record 00000000"


def test_streams_are_read_once_and_then_held(tmp_path: Path, give: Give) -> None:
    records = varied()
    stream = b"".join(map(shard_bytes, records))
    (tmp_path / "saved.h5").write_bytes(stream)
    whole = str(write_shard(tmp_path / "whole.h5", records))
    give(stream)
    held = collect(["-"])
    assert_holds(held, records)
    assert held.places[1] == "-, record 00000001"
    assert_holds(collect([str(tmp_path / "saved.h5")]), records)
    give(stream)
    assert_holds(collect([whole, "-"]), [*records, *records])
    with pytest.raises(UsageError, match="name '-' once"):
        collect(["-", "-"])


def test_what_holds_a_stream_goes_with_it(
    tmp_path: Path, give: Give, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    give(shard_bytes(pair("a")))
    held = collect(["-"])
    assert len(list(tmp_path.rglob("*.h5"))) == 1
    assert_same(held[0], pair("a"))
    del held
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_shard_is_salvaged_and_told(tmp_path: Path, reports: Reports) -> None:
    records = [pair(str(n), n) for n in range(5)]
    data = write_shard(tmp_path / "whole.h5", records).read_bytes()
    (tmp_path / "cut.h5").write_bytes(data[: -2 * pair("a").bytes])
    left = collect([str(tmp_path / name) for name in ("cut.h5", "whole.h5")], on_error=reports)
    ((where, told),) = reports
    assert where == str(tmp_path / "cut.h5") and "records are whole" in told
    salvaged = len(left) - 5
    assert 2 <= salvaged <= 3
    assert_holds(left, [*records[:salvaged], *records])
    with pytest.raises(BlurkitError, match="truncated"):
        collect([str(tmp_path / "cut.h5")])


def test_what_is_left_out_is_told_at_once(
    tmp_path: Path, plant: Plant, give: Give, reports: Reports
) -> None:
    plant("a.png", 1)
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.h5").write_text("no shard" * 20)
    (tmp_path / "empty.h5").write_bytes(b"")
    give(b"")
    names = ("missing.png", "a.png", "empty", "text.h5", "empty.h5")
    collection = collect([*(str(tmp_path / name) for name in names), "-"], on_error=reports)
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
    path = write_shard(tmp_path / "a.h5", [pair(str(n), n) for n in range(3)])
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


def test_pairs_of_two_folders_or_files(
    tmp_path: Path, plant_pairs: Plant, plant: Plant, reports: Reports
) -> None:
    for number in range(3):
        plant_pairs(f"b/x/{number}.png", f"s/x/{number}.png", number)
    plant("b/lonely.png", 7, blurred=True)
    sides = [str(tmp_path / "b"), str(tmp_path / "s")]
    pairs = collect_pairs(sides, ("blur", "sharp"), reports)
    assert [where for where, _ in reports] == ["lonely"]
    assert pairs.places == [f"x/{number}" for number in range(3)]
    for number in (2, 0):
        images = pairs[number].images
        np.testing.assert_array_equal(images["blur"], images["sharp"] // 2)
    files = [str(tmp_path / "s/x/1.png"), str(tmp_path / "b/x/2.png")]
    (only,) = collect_pairs(files, ("sharp", "blur"))
    assert only.name == "1" and list(only.images) == ["sharp", "blur"]
    np.testing.assert_array_equal(only.images["blur"], pairs[2].images["blur"])
    write_shard(tmp_path / "a.h5", [pair("a"), pair("b", 1)])
    assert_holds(collect_pairs([str(tmp_path / "a.h5")]), [pair("a"), pair("b", 1)])


# ---- two sides -----------------------------------------------------------------------------------


def test_what_two_sides_are(tmp_path: Path, plant: Plant) -> None:
    plant("one/a.png", 1)
    plant("two/a.jpg", 1)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards/a.h5").write_bytes(b"")
    one, two, shards = (str(tmp_path / name) for name in ("one", "two", "shards"))
    photo = f"{one}/a.png"
    assert are_two_sides([one, two]) and are_two_sides([photo, f"{two}/a.jpg"])
    assert are_two_sides([photo, f"{two}/missing.png"]), "a file that lacks is told when read"
    for inputs in ([one], [one, two, one], [one, shards], [shards, one], [photo, two], [one, "-"]):
        assert not are_two_sides(inputs)
    assert not are_two_sides([photo, f"{shards}/a.h5"])


def test_folders_are_paired_by_name(
    tmp_path: Path, plant_pairs: Plant, plant: Plant, reports: Reports
) -> None:
    for number in (1, 2, 10):
        plant_pairs(f"b/x/{number}.png", f"s/x/{number}.bmp", number)
    plant("b/0.png", 20, blurred=True)
    plant("s/x/3.png", 21)
    sides = str(tmp_path / "b"), str(tmp_path / "s")
    records = list(read_two_sides(*sides, on_error=reports, roles=("blur", "sharp")))
    assert [r.name for r in records] == ["x/1", "x/2", "x/10"]
    for record in records:
        assert list(record.images) == ["blur", "sharp"]
        assert_pair(record.images)
        assert record.attrs["source"].endswith(f"{record.name}.png")
    assert dict(reports) == {
        "0": f"{tmp_path}/b/0.png: no partner of that name in {sides[1]}",
        "x/3": f"{tmp_path}/s/x/3.png: no partner of that name in {sides[0]}",
    }
    scenes = find_two_sides(*sides, ("blur", "sharp"), reports)
    assert [scene.name for scene in scenes] == ["x/1", "x/2", "x/10"]
    halves = WorkPart(1, 2), WorkPart(2, 2)
    parts = [[r.name for r in read_two_sides(*sides, half, on_error=reports)] for half in halves]
    assert sorted([*parts[0], *parts[1]]) == ["x/1", "x/10", "x/2"]
    with pytest.raises(BlurkitError, match="no partner"):
        find_two_sides(*sides, ("blur", "sharp"))


# ---- runs ----------------------------------------------------------------------------------------


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
    parts = [[next(iter(s.values())).name for s in runs.part(WorkPart(part, 2))] for part in (1, 2)]
    assert sorted([*parts[0], *parts[1]]) == runs.names


def test_shards_and_a_dataset_as_reference(tmp_path: Path) -> None:
    tree = plant_tree(tmp_path / "tree", 3)
    made = [
        Record(name, {"blur": photo(n), "restored": 255 - photo(n)}, {"restored_with": "tile=64"})
        for n, name in enumerate(("scene0/0", "scene0/1", "scene1/0"))
    ]
    run = str(write_shard(tmp_path / "run.h5", made))
    (record,) = RestorationRuns([run], str(tree)).load("scene0/1").values()
    np.testing.assert_array_equal(record.images["restored"], 255 - photo(1))
    np.testing.assert_array_equal(record.images["sharp"], photo(1))
    np.testing.assert_array_equal(record.images["blur"], blurred(photo(1)))
    assert record.attrs["restored_with"] == "tile=64"
    assert record.attrs["sequence"] == "scene0"
    assert Path(record.attrs["source"]).parent.name == "blur"


def test_the_picture_that_was_restored_is_no_reference(tmp_path: Path) -> None:
    """Known by a dataset's folders, by the record, or because a command wrote beside it."""
    hide, sequence = tmp_path / "HIDE_dataset", tmp_path / "GoPro/test/GOPR0384_11_00"
    for number in range(2):
        sharp, name = photo(number), f"{number}.png"
        for folder in (hide / "test/test-close-ups", sequence / "blur", tmp_path / "photos"):
            write(folder / name, blurred(sharp))
        for folder in (hide / "GT", sequence / "sharp"):
            write(folder / name, sharp)
        for path in (f"h/test-close-ups/{name}", f"g/GOPR0384_11_00/{name}"):
            write(tmp_path / path, noisy(sharp))
        write(tmp_path / f"photos/{number}.deblurred.png", noisy(sharp))
    images = [{"blur": blurred(photo(n)), "restored": photo(n)} for n in range(2)]
    write_shard(tmp_path / "run.h5", [Record(str(n), images[n]) for n in range(2)])
    h, g = str(tmp_path / "h"), str(tmp_path / "g")
    photos = [str(tmp_path / f"photos/0{end}") for end in (".deblurred.png", ".png")]
    for run, reference in (
        (h, hide / "test"),
        (f"{h}/test-close-ups", hide / "test/test-close-ups"),
        (f"{g}/GOPR0384_11_00", sequence / "blur"),
        (f"{g}/GOPR0384_11_00/0.png", sequence / "blur/0.png"),
    ):
        for find in (read_two_sides, lambda a, b: RestorationRuns([a], b)):
            with pytest.raises(BlurkitError, match=f"holds blurred pictures.*{tmp_path}"):
                find(run, str(reference))
    for same in (photos, [photos[1], photos[1]]):
        with pytest.raises(BlurkitError, match="the very picture that was restored"):
            read_two_sides(*same, roles=("blur", "sharp"))
    with pytest.raises(BlurkitError, match="the very picture that was restored"):
        RestorationRuns([str(tmp_path / "run.h5")], str(tmp_path / "photos")).load("0")
    whole = f"{tmp_path}/GoPro"
    for sides in ((h, str(hide)), (str(hide), h), (g, str(sequence.parent)), (g, whole)):
        scenes = find_two_sides(*sides, ("restored", "sharp"))
        assert [scene.files["sharp"].parent.name for scene in scenes] in (["GT"] * 2, ["sharp"] * 2)
        assert {scene.files["restored"].parents[1] for scene in scenes} <= {Path(h), Path(g)}
    assert len(RestorationRuns([h], str(hide)).names) == 2


def test_a_sequence_that_one_run_knows_is_that_of_all(folders: Path) -> None:
    write_shard(folders / "run.h5", [Record("7", {"restored": photo(0)}, {"sequence": "night"})])
    for side in ("flat", "reference"):
        write(folders / side / "7.png", photo(0))
    for record in RestorationRuns(["flat", "run.h5"], "reference").load("7").values():
        assert record.attrs["sequence"] == "night"


SEQUENCE = "GOPR0384_11_00"
PUBLISHED = {
    "MPRNet": ([f"{SEQUENCE}-{n:06}" for n in (1, 2)], [f"{SEQUENCE}/{n:06}" for n in (1, 2)]),
    "MIMO-UNet": ([f"{SEQUENCE}_{n:06}" for n in (1, 2)], [f"{SEQUENCE}-{n:06}" for n in (1, 2)]),
    "BasicSR": (["0001_NAFNet-test", "0011_NAFNet-test"], ["0001", "0011"]),
    "both end": (["s/1_ours", "s/2_ours"], ["s_1_gt_x", "s_2_gt_x"]),
    "a single image": (["0002_out"], ["0001", "0002"]),
    "RealBlur": (["scene230_7", "scene230_10"], ["scene230/blur_7", "scene230/blur_10"]),
    "two that could be one": (["1-1", "1_1", "2"], ["1/1", "2"]),
    "equal names come first": (["a_b", "a-b"], ["a_b", "a/b"]),
    "HIDE": (["test-close-ups/1from", "test-long-shot/2from", "3"], ["1from", "2from", "a/3"]),
    "the same name elsewhere": (["a/1", "b/1", "c/2"], ["1", "d/2"]),
    "others": (["x1", "x2"], ["1", "2"]),
}
"""By whose results, the names of the restored and of the sharp images."""

PAIRED = {"a single image": {1: 0}, "two that could be one": {1: 2}, "others": {}}
PAIRED["the same name elsewhere"] = {}
"""The number of the restored image by that of the sharp one, unless they are in one order."""


@pytest.mark.parametrize("whose", PUBLISHED)
def test_names_of_published_results(whose: str, tmp_path: Path, reports: Reports) -> None:
    restored, sharp = PUBLISHED[whose]
    for number, name in enumerate(restored):
        write(tmp_path / f"results/{name}.png", photo(number))
    for number, name in enumerate(sharp):
        write(tmp_path / f"truth/{name}.png", photo(20 + number))
    expected = PAIRED.get(whose, {n: n for n in range(len(sharp))})
    sides, lines = (str(tmp_path / "results"), str(tmp_path / "truth")), list[str]()
    pairs = find_two_sides(*sides, ("restored", "sharp"), reports, lines.append)
    assert {sharp.index(s.name): s.files["restored"] for s in pairs} == {
        n: tmp_path / f"results/{restored[m]}.png" for n, m in expected.items()
    }
    assert all(s.files["sharp"] == tmp_path / f"truth/{s.name}.png" for s in pairs)
    differ = [m for n, m in expected.items() if restored[m] != sharp[n]]
    assert len(lines) == bool(differ)
    assert all(line.startswith(f"{sides[0]}: {len(differ)} paired by") for line in lines)
    assert len(reports) == len(restored) + len(sharp) - 2 * len(pairs)
    if expected:
        runs = RestorationRuns([sides[0]], sides[1], on_error=reports, say=lines.append)
        assert {*runs.names} == {s.name for s in pairs}
        for n, m in expected.items():
            (record,) = runs.load(sharp[n]).values()
            np.testing.assert_array_equal(record.images["restored"], photo(m))
            np.testing.assert_array_equal(record.images["sharp"], photo(20 + n))


def test_the_sharp_side_of_a_dataset(tmp_path: Path) -> None:
    tree = plant_tree(tmp_path / "GOPRO_Large", 3)
    for number, name in enumerate(("scene0-0", "scene0-1", "scene1-0")):
        write(tmp_path / f"results/{name}.png", 255 - photo(number))
    pairs = find_two_sides(str(tmp_path / "results"), str(tree), ("restored", "sharp"))
    assert len(pairs) == 3
    for number, scene in enumerate(pairs):
        np.testing.assert_array_equal(load_scene(scene).images["sharp"], photo(number))


def test_splits_without_a_partner_are_left_out_in_a_line(tmp_path: Path, reports: Reports) -> None:
    for number, name in enumerate(("test/test-a/1", "test/test-a/2", "train/3", "train/4")):
        write(tmp_path / f"HIDE/{name}.png", blurred(photo(number)))
        write(tmp_path / f"HIDE/GT/{name[-1]}.png", photo(number))
    write(tmp_path / "h/test-a/1.png", photo(0))
    lines = list[str]()
    sides = str(tmp_path / "h"), str(tmp_path / "HIDE")
    (pair,) = find_two_sides(*sides, ("restored", "sharp"), reports, lines.append)
    assert pair.files["sharp"] == tmp_path / "HIDE/GT/1.png"
    assert [where for where, _ in reports] == ["test-a/2"]
    assert lines == ["2 of the split train are left out: no image of it has a partner"]
