"""`blurkit prepare` on real datasets, frames and videos, and on small trees."""

from __future__ import annotations

from pathlib import Path

import h5py
import imageio.v3 as imageio
import numpy as np
import pytest

from tests.cli.command import (
    assert_done,
    assert_refused,
    assert_same_records,
    files,
    plant_pair,
    plant_tree,
    records,
    run,
    shard_records,
)

# The PSNR of blur against sharp that the data's README states.
GOPRO = {
    "building/dh03": 22.87,
    "parked_cars/dh01": 22.31,
    "square/000001": 24.05,
    "square/dh00": 23.58,
}
GOPRO_AVERAGED = {
    "GOPR0384_11_00/st0203_n08": 22.60,
    "GOPR0374_11_00/st0614_n08": 22.52,
    "GOPR0374_11_00/st0802_n10": 24.41,
    "GOPR0374_11_00/st1195_n08": 22.88,
    "GOPR0477_11_00/st0165_n08": 31.27,
    "GOPR0477_11_00/st0198_n08": 28.94,
    "GOPR0477_11_00/st0792_n08": 29.59,
}
REDS_TRAIN = {
    "000": [31.25, 27.68, 25.43, 23.93, 21.67, 25.31, 21.35, 23.99, 22.31, 22.39],
    "001": [27.29, 25.28, 22.41, 25.37, 21.18, 28.89, 28.45, 33.14, 31.66, 32.42],
}
REDS_VAL = [24.53, 28.10, 29.16, 25.73, 27.62, 28.73, 25.17, 23.51, 25.16, 27.14]


def psnrs(folder: Path, split: str = "*") -> dict[str, float]:
    """`psnr_blur` by name, read as a user would, with h5py alone."""
    found = {}
    for path in sorted(folder.glob(f"{split}-*.h5")):
        with h5py.File(path) as file:
            attrs = {"format": b"blurkit", "version": 2, "records": len(file)}
            assert dict(file.attrs) == attrs
            for group in file.values():
                found[group.attrs["name"].decode()] = float(group.attrs["attr:psnr_blur"])
    return found


def assert_near(found: dict[str, float], expected: dict[str, float]) -> None:
    assert found == pytest.approx(expected, abs=0.0051)


def test_gopro_trees(shared_data: Path, tmp_path: Path) -> None:
    pairs = shared_data / "pairs"
    ran = run("prepare", pairs / "gopro", "-o", f"{tmp_path}/gopro/", "--json")
    assert_done(ran)
    assert ran.lines[0] == f"{pairs}/gopro: pairs (blur, sharp), 4 scenes"
    assert [path.name for path in sorted((tmp_path / "gopro").iterdir())] == ["test-00000.h5"]
    assert_near(psnrs(tmp_path / "gopro"), GOPRO)
    (told,) = ran.json
    test = told["splits"]["test"]
    assert (test["records"], test["sizes"], test["bytes"]) == (4, {"1280x720": 4}, 4 * 5529600)
    assert test["psnr_blur"] == pytest.approx(np.mean(list(GOPRO.values())), abs=0.01)
    assert told["shards"] == [str(tmp_path / "gopro/test-00000.h5")]
    assert told["left_out"] == []

    assert_done(run("prepare", pairs / "gopro_avg", "-o", f"{tmp_path}/avg/", "--quiet"))
    assert_near(psnrs(tmp_path / "avg"), GOPRO_AVERAGED)
    assert list(psnrs(tmp_path / "avg", "test")) == ["GOPR0384_11_00/st0203_n08"]


def test_reds_tree(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    ran = run("prepare", shared_data / "pairs/reds_180p", "-o", f"{folder}/", "--jobs", 2)
    assert_done(ran)
    assert "REDS" in ran.lines[0]
    train = {
        f"train/{clip}/{number:08d}": value
        for clip, values in REDS_TRAIN.items()
        for number, value in enumerate(values)
    }
    val = {f"val/000/{number:08d}": value for number, value in enumerate(REDS_VAL, 13)}
    assert_near(psnrs(folder, "train"), train)
    assert_near(psnrs(folder, "val"), val)
    table = "".join(ran.err.split())
    assert "train│20│320x180" in table
    assert "val│10│320x180" in table
    first = records(folder / "train-00000.h5")[0]
    source = shared_data / "pairs/reds_180p/train/train_blur/000/00000000.png"
    np.testing.assert_array_equal(first.images["blur"], imageio.imread(source))
    assert first.attrs["sequence"] == "000"
    assert first.attrs["split"] == "train"


def test_split_limit_and_validation(shared_data: Path, tmp_path: Path) -> None:
    reds = shared_data / "pairs/reds_180p"
    assert_done(run("prepare", reds, "-o", tmp_path / "val.h5", "--split", "val", "-q"))
    assert [r.attrs["split"] for r in records(tmp_path / "val.h5")] == ["val"] * 10
    assert_done(run("prepare", reds, "-o", tmp_path / "few.h5", "--limit", 3, "-q"))
    names = [r.name for r in records(tmp_path / "few.h5")]
    assert names == [f"train/000/0000000{i}" for i in range(3)]

    tree = plant_tree(tmp_path / "tree", 12)
    (tree / "test").rename(tree / "train")
    assert_done(run("prepare", tree, "-o", f"{tmp_path}/split/", "--validation", 0.5, "-q"))
    sequences = {
        split: {r.attrs["sequence"] for r in records(tmp_path / f"split/{split}-00000.h5")}
        for split in ("train", "val")
    }
    assert sequences["train"].isdisjoint(sequences["val"])
    assert len(sequences["train"] | sequences["val"]) == 6
    options = ["--validation", 0.5, "--split", "val", "-q"]
    assert_done(run("prepare", tree, "-o", tmp_path / "kept.h5", *options))
    assert_same_records(records(tmp_path / "kept.h5"), records(tmp_path / "split/val-00000.h5"))


def test_tiles(shared_data: Path, tmp_path: Path) -> None:
    gopro = shared_data / "pairs/gopro"
    options = ["--crop", 512, "--stride", 256, "--limit", 1, "-q"]
    assert_done(run("prepare", gopro, "-o", tmp_path / "tiles.h5", *options))
    assert_done(run("prepare", gopro, "-o", tmp_path / "whole.h5", "--limit", 1, "-q"))
    (whole,) = records(tmp_path / "whole.h5")
    tiles = records(tmp_path / "tiles.h5")
    assert len(tiles) == 8
    assert len({tile.name for tile in tiles}) == 8
    corners = [(top, left) for top in (0, 208) for left in (0, 256, 512, 768)]
    for tile, (top, left) in zip(tiles, corners, strict=True):
        for role in ("blur", "sharp"):
            cut = whole.images[role][top : top + 512, left : left + 512]
            np.testing.assert_array_equal(tile.images[role], cut)


def test_averaged_frames_are_the_published_pairs(shared_data: Path, tmp_path: Path) -> None:
    frames = shared_data / "video/gopr0477_240fps"
    made = []
    for part, name in (("40/43", f"{frames.name}/000170"), ("43/43", f"{frames.name}/000203")):
        options = ["--average", 8, "--stride", 1, "--part", part, "--quiet"]
        assert_done(run("prepare", frames, "-o", tmp_path / "pairs.h5", "--force", *options))
        made += [record for record in records(tmp_path / "pairs.h5") if record.name == name]
    assert len(made) == 2
    published = shared_data / "pairs/gopro_avg/train/GOPR0477_11_00"
    for record, name in zip(made, ("st0165_n08", "st0198_n08"), strict=True):
        for role in ("blur", "sharp"):
            expected = imageio.imread(published / role / f"{name}.png")
            np.testing.assert_array_equal(record.images[role], expected)


def test_video(shared_data: Path, tmp_path: Path) -> None:
    video = shared_data / "video/bigbuckbunny.mp4"
    options = ["--average", 3, "--stride", 65, "--quiet"]
    assert_done(run("prepare", video, "-o", tmp_path / "pairs.h5", *options))
    made = records(tmp_path / "pairs.h5")
    assert [r.name for r in made] == [f"bigbuckbunny/{n:06d}" for n in (1, 66)]
    for record in made:
        assert record.images["blur"].shape == record.images["sharp"].shape == (720, 1280, 3)
        assert record.attrs["psnr_blur"] > 15


def test_chosen_blur_and_list(tree: Path, tmp_path: Path) -> None:
    for number in range(2):
        plant_pair(tmp_path / "gopro/test", f"scene/{number}", number)
    scene = tmp_path / "gopro/test/scene"
    (scene / "blur_gamma").mkdir()
    for path in (scene / "sharp").iterdir():
        (scene / "blur_gamma" / path.name).write_bytes(path.read_bytes())
    for blur, same in (("blur", False), ("blur_gamma", True)):
        output = tmp_path / f"{blur}.h5"
        assert_done(run("prepare", tmp_path / "gopro", "-o", output, "--blur", blur, "-q"))
        found = records(output)
        assert [r.name for r in found] == ["scene/0", "scene/1"]
        for r in found:
            assert np.array_equal(r.images["blur"], r.images["sharp"]) == same

    listed = tmp_path / "test_list.txt"
    listed.write_text("test/scene1/sharp/0.png test/scene1/blur/0.png\n")
    assert_done(run("prepare", tree, "-o", tmp_path / "l.h5", "--list", listed, "-q"))
    (record,) = records(tmp_path / "l.h5")
    assert record.attrs["source"] == str(tree / "test/scene1/blur/0.png")


def test_inputs_whose_names_collide(tmp_path: Path) -> None:
    for number, root in enumerate(("first", "second")):
        plant_pair(tmp_path / root / "test", "scene/1", number)
    inputs = [tmp_path / "first", tmp_path / "second"]
    assert_done(run("prepare", *inputs, "-o", tmp_path / "both.h5", "-q"))
    first, second = records(tmp_path / "both.h5")
    assert (first.name, second.name) == ("first/scene/1", "second/scene/1")
    assert not np.array_equal(first.images["sharp"], second.images["sharp"])


def test_jobs_make_the_same_shards(tree: Path, tmp_path: Path) -> None:
    for jobs in (1, 2):
        output = tmp_path / f"jobs{jobs}/"
        assert_done(run("prepare", tree, "-o", f"{output}/", "--jobs", jobs, "-q"))
    assert files(tmp_path / "jobs1") == files(tmp_path / "jobs2")


def test_parts_together_are_the_whole(tree: Path, tmp_path: Path) -> None:
    for part in ("1/3", "2/3", "3/3"):
        assert_done(run("prepare", tree, "-o", f"{tmp_path}/parts/", "--part", part, "-q"))
    assert sorted(path.name for path in (tmp_path / "parts").iterdir()) == [
        f"test-p{i}of3-00000.h5" for i in (1, 2, 3)
    ]
    assert_done(run("prepare", tree, "-o", tmp_path / "whole.h5", "-q"))
    together = sorted(shard_records(tmp_path / "parts"), key=lambda record: record.name)
    assert_same_records(together, records(tmp_path / "whole.h5"))


def test_existing_output(tree: Path, tmp_path: Path) -> None:
    for output in (f"{tmp_path}/shards/", f"{tmp_path}/one.h5"):
        assert_done(run("prepare", tree, "-o", output, "-q"))
    before = files(tmp_path)
    for output in (f"{tmp_path}/shards/", f"{tmp_path}/one.h5"):
        assert_refused(run("prepare", tree, "-o", output, "-q"), output.rstrip("/"), "--force")
    assert files(tmp_path) == before
    for output in (f"{tmp_path}/shards/", f"{tmp_path}/one.h5"):
        assert_done(run("prepare", tree, "-o", output, "--force", "--limit", 1, "-q"))
    assert len(shard_records(tmp_path)) == 1
    assert len(shard_records(tmp_path / "shards")) == 1
