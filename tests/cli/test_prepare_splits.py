"""Which split `prepare` gives an image: no test image of any layout or list may enter training."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from blurkit.data.layouts import find_scenes
from blurkit.data.places import Found, Scene
from blurkit.data.sources import read_records
from blurkit.synthesis.averaging import Averaging
from tests.cli.command import Ran, assert_done, assert_refused, files, records, shard_records
from tests.cli.invoke import invoke
from tests.cli.pictures import blurred, photo, plant_photos, write
from tests.data.trees import TREES, J, R
from tests.synthesis.exposures import averaged_records


def prepare(data: Path, tmp_path: Path, *options: object) -> Ran:
    return invoke("prepare", data, "-o", f"{tmp_path}/shards/", "--jobs", 1, *options)


# ---- every layout -------------------------------------------------------------------------------

LAYOUTS: dict[str, list[str]] = {
    name: [f"{split} {' '.join(pair)}" for pair, split in zip(pairs, splits.values(), strict=True)]
    for name, (pairs, splits) in TREES.items()
    if {"train"} < set(splits.values())
} | {
    "RealBlur": [
        f"{split} {top}/scene{n}/blur/blur_{i}.png {top}/scene{n}/gt/gt_{i}.png"
        for top in (J, R)
        for split, n, i in (("train", "001", 2), ("test", "230", 2), ("test", "230", 10))
    ],
    "RealBlur flattened": [
        f"{split} RealBlur_J/{split}/input/{name}.png RealBlur_J/{split}/target/{name}.png"
        for split, name in (("train", "scene001_blur_2"), ("test", "scene230_blur_2"))
    ],
    "RSBlur": [
        f"{split} RSBlur/{n}/{i}/real_blur/real_blur.png RSBlur/{n}/{i}/gt/gt_sharp.png"
        for split, n, i in (("train", "0001", "000002"), ("test", "0014", "000422"))
    ],
    "NAFNet": [
        "train train/blur_crops/A-1_s001.png train/sharp_crops/A-1_s001.png",
        "test test/input/B-1.png test/target/B-1.png",
    ],
    "clip tree": [
        "train blur_imgs/000/00000000.png sharp_imgs/000/00000000.png",
        "test blur_imgs/001/00000000.png sharp_imgs/001/00000000.png",
    ],
    "HIDE in a folder": [
        "train HIDE_dataset/train/1.png HIDE_dataset/GT/1.png",
        "test HIDE_dataset/test/test-close-ups/2.png HIDE_dataset/GT/2.png",
    ],
    "pairs": [
        f"{split} blurry/{name}.png sharp/{name}.png"
        for split, name in (("train", "a"), ("test", "b"), ("test", "c"))
    ],
    "pairs in named folders": [
        "train Our_train/input/1.png Our_train/target/1.png",
        "test Our_Test/input/1.png Our_Test/target/1.png",
    ],
    "photos": ["train train/1.png", "test testing/2.png"],
}
"""The split and the files of each scene: blurred and sharp, or one photo."""

LISTS = {
    "RealBlur": {
        f"RealBlur_{top[9]}_{split}_list.txt": "".join(
            f"{top}/scene{n}/gt/gt_{i}.png {top}/scene{n}/blur/blur_{i}.png \n" for i in indices
        )
        for top in (J, R)
        for split, n, indices in (("train", "001", (2,)), ("test", "230", (2, 10)))
    },
    "RSBlur": {
        f"RSBlur_real_{split}.txt": f"{place}/gt/gt_sharp.png {place}/real_blur/real_blur.png\n"
        for split, place in (("train", "RSBlur/0001/000002"), ("test", "RSBlur/0014/000422"))
    },
    "clip tree": {"test.txt": "001\n"},
    "pairs": {"TestList.txt": "B.png\r\n\r\nsharp\\C.png\r\n"},
}


def plant_layout(root: Path, layout: str) -> dict[bytes, str]:
    """The split of every planted picture, by its pixels."""
    pictures = {}
    for number, scene in enumerate(LAYOUTS[layout]):
        split, *paths = scene.split(" ")
        sharp = photo(number, 24, 32)
        for path, image in zip(paths, (blurred(sharp), sharp), strict=False):
            write(root / path, image)
            pictures[image.tobytes()] = split
    for name, text in LISTS.get(layout, {}).items():
        (root / name).write_bytes(text.encode())
    return pictures


def assert_split(shards: Path, pictures: dict[bytes, str]) -> None:
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
    data = tmp_path / "outer/data"
    pictures = plant_layout(data, layout)
    found = find_scenes(data)
    assert_done(prepare(data, tmp_path))
    assert_split(tmp_path / "shards", pictures)
    outside = find_scenes(data.parent)  # unpacked into a folder of its own name
    assert outside.left_out == []
    inner, outer = ({s.files["blur"]: s.split for s in f.items} for f in (found, outside))
    assert inner == outer


@pytest.mark.parametrize("split", ["test", "testing", "GoPro_test", "TestSet"])
def test_frames_of_a_test_folder_are_not_trained_on(split: str, tmp_path: Path) -> None:
    plant_photos(tmp_path / split / "walk", 3)
    for root in (tmp_path, tmp_path / split):
        (record,) = averaged_records([root], Averaging(3))
        assert record.attrs["split"] == "test"


# ---- links --------------------------------------------------------------------------------------


@pytest.fixture
def linked(tmp_path: Path) -> dict[bytes, str]:
    """A dataset of links: a split folder, and sequences in another."""
    pictures = plant_layout(tmp_path / "disk", "GoPro")
    (tmp_path / "data/train").mkdir(parents=True)
    (tmp_path / "data/test").symlink_to(tmp_path / "disk/test")
    for sequence in (tmp_path / "disk/train").iterdir():
        (tmp_path / "data/train" / sequence.name).symlink_to(sequence)
    return pictures


def test_linked_folders_are_read(tmp_path: Path, linked: dict[bytes, str]) -> None:
    assert_done(prepare(tmp_path / "data", tmp_path))
    assert_split(tmp_path / "shards", linked)
    (tmp_path / "link").symlink_to(tmp_path / "disk/test")
    assert_done(prepare(tmp_path / "link", tmp_path / "of link"))
    assert [*files(tmp_path / "of link")] == ["shards/test-00000.h5"]


def test_links_in_a_circle_end(tmp_path: Path, linked: dict[bytes, str]) -> None:
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
    ran = prepare(data, tmp_path)
    assert_done(ran)
    assert f"{data}/up: a link to a folder above it; not followed" in ran.err
    assert_split(tmp_path / "shards", linked)


def test_images_linked_into_a_split_are_not_trained_on(tmp_path: Path) -> None:
    """All pairs are in one folder, and the splits are folders of links to some of them."""
    pictures = plant_layout(tmp_path / "data/all", "pairs")
    (tmp_path / "data/all/TestList.txt").unlink()
    for role in ("blurry", "sharp"):
        for split, stems in (("train", "a"), ("test", "bc")):
            for stem in stems:
                link = tmp_path / "data" / split / role / f"{stem}.png"
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(tmp_path / "data/all" / role / f"{stem}.png")
    ran = prepare(tmp_path / "data", tmp_path)
    assert_done(ran)
    assert "3 scenes share images with others" in ran.err
    assert_split(tmp_path / "shards", pictures)


# ---- list files ---------------------------------------------------------------------------------

LISTED = {"train": (1, 2), "test": (230,)}
"""The scenes of RealBlur's splits; each has the pairs 1, 2 and 10."""
SPLITS = ["train"] * 6 + ["test"] * 3


def plant_realblur(folder: Path) -> Path:
    """Three scenes of three pairs each; each pair is another part of the photo."""
    for number, scene in enumerate((*LISTED["train"], *LISTED["test"])):
        for index in (1, 2, 10):
            sharp = photo(10 * number + index % 10, 24, 32)
            write(folder / f"scene{scene:03d}/gt/gt_{index}.png", sharp)
            write(folder / f"scene{scene:03d}/blur/blur_{index}.png", blurred(sharp))
    return folder


def write_lists(folder: Path, start: str = f"{J}/", letter: str = "J") -> list[Path]:
    """RealBlur's train and test list in `folder`, with lines that begin with `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, scenes in LISTED.items():
        places = [(f"{start}scene{s:03d}", i) for s in scenes for i in (1, 2, 10)]
        rows = (f"{place}/gt/gt_{i}.png {place}/blur/blur_{i}.png " for place, i in places)
        paths.append(folder / f"RealBlur_{letter}_{split}_list.txt")
        paths[-1].write_text("\n".join(rows))
    return paths


def names(folder: Path, split: str) -> set[str]:
    return {r.name for path in folder.glob(f"{split}-*.h5") for r in records(path)}


def assert_found(found: Found[Scene], splits: list[str] = SPLITS) -> None:
    """All is in a list, and every line of the lists names something."""
    assert found.left_out == found.unmatched == []
    assert [scene.split for scene in found.items] == splits


@pytest.mark.parametrize("start", [f"{J}/", "", "./", f"data/{J}/"])
@pytest.mark.parametrize("place", ["inside", "beside", "elsewhere"])
def test_lines_may_start_in_any_of_the_folders(place: str, start: str, tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "data" / J)
    folder = {"inside": data / "lists", "beside": data.parent, "elsewhere": tmp_path / "x/y"}[place]
    lists = write_lists(folder, start)
    found = find_scenes(data, lists=lists if place == "elsewhere" else ())
    assert_found(found)
    for scene in found.items:
        assert Path(scene.split_source) == lists[scene.split == "test"]
        assert (scene.split == "test") == scene.name.startswith("scene230/blur_")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "\ufeff" + text.replace("/", "\\").replace(" \n", "\r\n\r\n"),
        lambda text: text.upper(),
        lambda text: "\n\n" + text.replace(" ", "\t"),
        lambda text: text.replace(" ", ","),
    ],
    ids=["Windows", "upper case", "tabs", "commas"],
)
def test_lists_as_other_programs_write_them(damage: Callable[[str], str], tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    lists = write_lists(tmp_path)
    for path in lists:
        path.write_bytes(damage(path.read_text()).encode())
    found = find_scenes(data)
    assert [scene.split for scene in found.items] == SPLITS
    for path in lists:
        path.write_bytes(path.read_bytes().decode("utf-8-sig").encode("utf-16"))
    assert find_scenes(data).items == found.items
    assert sorted(map(str, find_scenes(data, lists=lists).items)) == sorted(map(str, found.items))


def test_absolute_paths_paths_that_go_up_and_names_with_blanks(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "disk" / J)
    (tmp_path / "link").symlink_to(data)
    for folder, start in ((tmp_path / "x", f"{data}/"), (data / "lists", "../")):
        lists = write_lists(folder, start)
        for root in (data, tmp_path / "link"):
            assert_found(find_scenes(root, lists=lists))
    blank = plant_realblur(tmp_path / "Real Blur J")
    lists = write_lists(tmp_path / "my lists", "Real Blur J/")
    assert_found(find_scenes(blank, lists=lists))


def test_names_of_sequences(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    (data / "train.txt").write_text("scene001\nscene002\n")
    (data / "test.txt").write_text("scene230\n")
    assert_found(find_scenes(data))
    (data / "test.txt").write_text("230\n")
    assert_refused(prepare(data, tmp_path), f"{data}/test.txt, line 1: 230", "none of the list's 1")


def test_lists_about_other_folders_are_no_errors(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    write_lists(tmp_path)
    write_lists(tmp_path, f"{R}/", "R")
    (tmp_path / "test.txt").write_text("GoPro/test/blur/1.png\n")
    (tmp_path / "train_notes.txt").write_text("Trained on Monday, for three days\n")
    (data / "test_notes.txt").write_text("Tested on Tuesday\n")
    assert_found(find_scenes(data))
    assert_found(find_scenes(data / "scene230"), ["test"] * 3)
    plant_realblur(tmp_path / R)
    both = find_scenes(tmp_path)
    assert both.left_out == both.unmatched == []
    assert Counter(scene.split for scene in both.items) == {"train": 12, "test": 6}


# ---- lists that are wrong -----------------------------------------------------------------------


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return plant_realblur(tmp_path / "data" / J)


@pytest.mark.parametrize("place", ["inside", "beside", "elsewhere"])
def test_a_list_that_matches_nothing_is_an_error(place: str, data: Path, tmp_path: Path) -> None:
    folder = {"inside": data, "beside": data.parent, "elsewhere": tmp_path / "lists"}[place]
    train, test = write_lists(folder)
    whole = test.read_text()
    test.write_text(whole.replace("scene230", "scene999"))
    options = [o for path in (train, test) if place == "elsewhere" for o in ("--list", path)]
    words = (f"{test}, line 1", "scene999/gt/gt_1.png", "none of the list's 3 lines")
    assert_refused(prepare(data, tmp_path, *options), *words)
    if place == "inside":  # other commands do not need the lists
        assert len(list(read_records([data]))) == 9
        ran = invoke("info", data, "--json")
        assert ran.status == 1 and f"{test}, line 1" in ran.err
        assert ran.json[0]["records"] == 6 and ran.json[0]["splits"] == {"train": 6}
    train.write_text(f"{train.read_text()}\n{whole}")  # a list of all does not excuse it
    assert_refused(prepare(data, tmp_path, *options), *words)
    assert not (tmp_path / "shards").exists()


def test_lines_that_match_nothing_are_counted(data: Path, tmp_path: Path) -> None:
    _, test = write_lists(data.parent)
    test.write_text(test.read_text().replace("blur_2.png", "blur_3.png").replace("gt_2", "gt_3"))
    ran = prepare(data, tmp_path)
    assert ran.status == 1
    assert f"{test}, line 2: {J}/scene230/gt/gt_3.png" in ran.err
    assert "1 of the list's 3 lines match nothing" in ran.err
    # Its own line is missing, so nobody knows what this scene is for.
    assert "1 scenes are in no list" in ran.err and "scene230/blur_2" in ran.err
    assert len(names(tmp_path / "shards", "train")) == 6
    assert names(tmp_path / "shards", "test") == {"scene230/blur_1", "scene230/blur_10"}


@pytest.mark.parametrize("given", [False, True])
def test_the_test_list_wins(given: bool, data: Path, tmp_path: Path) -> None:
    train, test = write_lists(data.parent)
    train.write_text(train.read_text() + "\n" + test.read_text())
    ran = prepare(data, tmp_path, *(["--list", train] if given else []))
    assert ran.status == 1
    assert f"{train}: lists 3 scenes for training that are kept for testing" in ran.err
    assert f"scene230/blur_1, test by {test}" in ran.err
    assert [len(names(tmp_path / "shards", split)) for split in ("train", "test")] == [6, 3]


def test_the_summary_names_the_source_of_each_split(data: Path, tmp_path: Path) -> None:
    ran = prepare(data, tmp_path / "without")
    assert "without its list files: test images are used for training" in ran.lines[0]
    lists = write_lists(data.parent)
    ran = prepare(data, tmp_path, "--json", "--validation", 0.3, "--seed", 2)
    assert_done(ran)
    splits = ran.json[0]["splits"]
    assert {split: (s["records"], s["split_from"]) for split, s in splits.items()} == {
        "train": (3, {str(lists[0]): 3}),
        "val": (3, {"--validation": 3}),
        "test": (3, {str(lists[1]): 3}),
    }
    assert {"split val: 3 by --validation", f"split test: 3 by {lists[1]}"} <= {*ran.lines}
    (again,) = prepare(tmp_path / "shards/test-00000.h5", tmp_path / "again", "--json").json
    assert again["splits"]["test"]["split_from"] == {str(lists[1]): 3}

    plain = plant_photos(tmp_path / "plain", 2)
    write(plain / "Test/2.png", photo(2))
    (told,) = prepare(plain, plain, "--json").json
    assert told["splits"]["train"]["split_from"] == {"none": 2}
    assert told["splits"]["test"]["split_from"] == {"folder name": 1}
