"""Which split `prepare` puts an image into: no test image of any layout may enter training."""

from __future__ import annotations

from pathlib import Path

import pytest

from blurkit.data.films import averaged_records
from blurkit.data.layouts import find_scenes
from blurkit.synthesis.averaging import Averaging
from tests.cli.command import (
    assert_done,
    blurred,
    photo,
    records,
    run,
    shard_records,
    write,
)
from tests.data.trees import TREES, J, R

# ---- every layout -------------------------------------------------------------------------------

Tree = tuple[list[tuple[str, ...]], list[str | None], dict[str, str]]
"""The files of each scene (blurred and sharp, or one photo), its split, and list files."""

LAYOUTS: dict[str, Tree] = {
    name: (list(pairs), list(expected.values()), {})
    for name, (pairs, expected) in TREES.items()
    if {"train"} < set(expected.values())
} | {
    "RealBlur": (
        [
            (f"{folder}/scene{scene}/blur/blur_{i}.png", f"{folder}/scene{scene}/gt/gt_{i}.png")
            for folder in (J, R)
            for scene, i in (("001", 2), ("230", 2), ("230", 10))
        ],
        ["train", "test", "test"] * 2,
        {
            f"RealBlur_{folder[9]}_{split}_list.txt": "".join(
                f"{folder}/scene{scene}/gt/gt_{i}.png {folder}/scene{scene}/blur/blur_{i}.png \n"
                for i in indices
            )
            for folder in (J, R)
            for split, scene, indices in (("train", "001", (2,)), ("test", "230", (2, 10)))
        },
    ),
    "RealBlur flattened": (
        [
            (f"RealBlur_J/{split}/input/{name}.png", f"RealBlur_J/{split}/target/{name}.png")
            for split, name in (("train", "scene001_blur_2"), ("test", "scene230_blur_2"))
        ],
        ["train", "test"],
        {},
    ),
    "NAFNet": (
        [
            ("train/blur_crops/A-1_s001.png", "train/sharp_crops/A-1_s001.png"),
            ("test/input/B-1.png", "test/target/B-1.png"),
        ],
        ["train", "test"],
        {},
    ),
    "clip tree": (
        [(f"blur_imgs/{c}/00000000.png", f"sharp_imgs/{c}/00000000.png") for c in ("000", "001")],
        ["train", "test"],
        {"test.txt": "001\n"},
    ),
    "HIDE in a folder": (
        [
            ("HIDE_dataset/train/1.png", "HIDE_dataset/GT/1.png"),
            ("HIDE_dataset/test/test-close-ups/2.png", "HIDE_dataset/GT/2.png"),
        ],
        ["train", "test"],
        {},
    ),
    "pairs": (
        [(f"blurry/{name}.png", f"sharp/{name}.png") for name in "abc"],
        ["train", "test", "test"],
        {"TestList.txt": "B.png\r\n\r\nsharp\\C.png\r\n"},
    ),
    "pairs in named folders": (
        [(f"{top}/input/1.png", f"{top}/target/1.png") for top in ("Our_train", "Our_Test")],
        ["train", "test"],
        {},
    ),
    "photos": ([("train/1.png",), ("testing/2.png",)], ["train", "test"], {}),
}


def plant_layout(root: Path, layout: str) -> dict[bytes, str | None]:
    """The split of every planted picture, by its pixels."""
    scenes, splits, lists = LAYOUTS[layout]
    pictures: dict[bytes, str | None] = {}
    for number, (files, split) in enumerate(zip(scenes, splits, strict=True)):
        sharp = photo(number)
        for file, image in zip(files, (blurred(sharp), sharp), strict=False):
            write(root / file, image)
            pictures[image.tobytes()] = split
    for name, text in lists.items():
        (root / name).write_bytes(text.encode())
    return pictures


def assert_split(shards: Path, pictures: dict[bytes, str | None]) -> None:
    """Every picture is in the shards of its split, and in no others."""
    found = {
        image.tobytes(): path.name.partition("-")[0]
        for path in sorted(shards.iterdir())
        for record in records(path)
        for image in record.images.values()
    }
    assert sum(len(r.images) for r in shard_records(shards)) == len(pictures)
    assert found == pictures


@pytest.mark.parametrize("layout", LAYOUTS)
def test_no_test_image_enters_training(layout: str, tmp_path: Path) -> None:
    pictures = plant_layout(tmp_path / "data", layout)
    assert_done(run("prepare", tmp_path / "data", "-o", f"{tmp_path}/shards/"))
    assert_split(tmp_path / "shards", pictures)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_dataset_unpacked_into_a_folder_of_its_own_name(layout: str, tmp_path: Path) -> None:
    plant_layout(tmp_path / "data", layout)
    expected = {scene.files["blur"]: scene.split for scene in find_scenes(tmp_path / "data").items}
    (tmp_path / "outer").mkdir()
    (tmp_path / "data").rename(tmp_path / "outer/data")
    found = find_scenes(tmp_path / "outer")
    assert found.left_out == []
    moved = {tmp_path / "outer" / path.relative_to(tmp_path): s for path, s in expected.items()}
    assert {scene.files["blur"]: scene.split for scene in found.items} == moved


@pytest.mark.parametrize("split", ["test", "testing", "GoPro_test", "TestSet"])
def test_frames_of_a_test_folder_are_not_trained_on(split: str, tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / split / "walk" / f"{number}.png", photo(number))
    for root in (tmp_path, tmp_path / split):
        (record,) = averaged_records([root], Averaging(3))
        assert record.attrs["split"] == "test"


# ---- links --------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> dict[bytes, str | None]:
    """A dataset of links: a split folder, and sequences in another."""
    pictures = plant_layout(tmp_path / "disk", "GoPro")
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/test").symlink_to(tmp_path / "disk/test")
    for sequence in (tmp_path / "disk/train").iterdir():
        (tmp_path / "data/train" / sequence.name).symlink_to(sequence)
    return pictures


def test_linked_folders_are_read(tmp_path: Path, linked: dict[bytes, str | None]) -> None:
    assert_done(run("prepare", tmp_path / "data", "-o", f"{tmp_path}/shards/"))
    assert_split(tmp_path / "shards", linked)
    (tmp_path / "link").symlink_to(tmp_path / "disk/test")
    assert_done(run("prepare", tmp_path / "link", "-o", f"{tmp_path}/of link/"))
    assert [p.name for p in (tmp_path / "of link").iterdir()] == ["test-00000.h5"]


def test_links_in_a_circle_end(tmp_path: Path, linked: dict[bytes, str | None]) -> None:
    data, disk = tmp_path / "data", tmp_path / "disk"
    (data / "up").symlink_to(data)
    (data / "self").symlink_to("self")
    (data / "train/out").symlink_to(tmp_path)
    (disk / "train/GOPR0372_07_00/back").symlink_to(data / "train")
    for name, other in (("a", "b"), ("b", "a")):
        (disk / name).mkdir()
        (disk / name / "there").symlink_to(disk / other)
        (data / "train" / name).symlink_to(disk / name)
    write(disk / "a/blur/1.png", photo(90))
    write(disk / "a/sharp/1.png", photo(91))
    linked |= {photo(number).tobytes(): "train" for number in (90, 91)}
    ran = run("prepare", data, "-o", f"{tmp_path}/shards/")
    assert_done(ran)
    assert f"{data}/up: a link to a folder above it; not followed" in ran.err
    assert_split(tmp_path / "shards", linked)


def test_images_linked_into_a_split_are_not_trained_on(tmp_path: Path) -> None:
    """All pairs are in one folder, and the splits are folders of links to some of them."""
    pictures = plant_layout(tmp_path, "pairs")
    (tmp_path / "TestList.txt").unlink()
    for role in ("blurry", "sharp"):
        (tmp_path / "data/all" / role).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / role).rename(tmp_path / "data/all" / role)
        for split, stems in (("train", "a"), ("test", "bc")):
            for stem in stems:
                link = tmp_path / "data" / split / role / f"{stem}.png"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(tmp_path / "data/all" / role / f"{stem}.png")
    ran = run("prepare", tmp_path / "data", "-o", f"{tmp_path}/shards/")
    assert_done(ran)
    assert "3 scenes share images with others" in ran.err
    assert_split(tmp_path / "shards", pictures)
