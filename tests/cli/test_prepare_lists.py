"""List files of `prepare`: found wherever they are, in any form, and never silently ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from blurkit.data.layouts import find_scenes
from blurkit.data.sources import read_records
from tests.cli.command import (
    Ran,
    assert_done,
    assert_refused,
    blurred,
    photo,
    records,
    run,
    shard_records,
    write,
)
from tests.cli.invoke import invoke
from tests.data.trees import J, R

TRAIN_SCENES, TEST_SCENES = (1, 2), (230,)


def plant_realblur(folder: Path) -> Path:
    """Three scenes of three pairs each; each pair is another part of the photo."""
    for number, scene in enumerate((*TRAIN_SCENES, *TEST_SCENES)):
        for index in (1, 2, 10):
            sharp = photo(10 * number + index % 10)
            write(folder / f"scene{scene:03d}/gt/gt_{index}.png", sharp)
            write(folder / f"scene{scene:03d}/blur/blur_{index}.png", blurred(sharp))
    return folder


def write_lists(folder: Path, start: str, letter: str = "J") -> list[Path]:
    """RealBlur's train and test list in `folder`, with lines that begin with `start`."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for split, scenes in (("train", TRAIN_SCENES), ("test", TEST_SCENES)):
        rows = [
            f"{start}scene{s:03d}/gt/gt_{i}.png {start}scene{s:03d}/blur/blur_{i}.png "
            for s in scenes
            for i in (1, 2, 10)
        ]
        paths.append(folder / f"RealBlur_{letter}_{split}_list.txt")
        paths[-1].write_text("\n".join(rows))
    return paths


def names(folder: Path, split: str) -> set[str]:
    return {r.name for path in folder.glob(f"{split}-*.h5") for r in records(path)}


@pytest.mark.parametrize("place", ["inside", "beside", "elsewhere"])
def test_lists_give_the_same_split_wherever_they_are(place: str, tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "data" / J)
    folder = {"inside": data, "beside": data.parent, "elsewhere": tmp_path / "lists"}[place]
    lists = write_lists(folder, f"{J}/")
    options = [o for path in lists for o in ("--list", path)] if place == "elsewhere" else []
    assert_done(run("prepare", data, "-o", f"{tmp_path}/shards/", *options))
    assert names(tmp_path / "shards", "test") == {f"scene230/blur_{i}" for i in (1, 2, 10)}
    assert len(names(tmp_path / "shards", "train")) == 6
    assert len(shard_records(tmp_path / "shards")) == 9


@pytest.mark.parametrize("start", [f"{J}/", "", "./", f"data/{J}/"])
@pytest.mark.parametrize("place", ["inside", "beside", "elsewhere"])
def test_lines_may_start_in_any_of_the_folders(place: str, start: str, tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "data" / J)
    folder = {"inside": data / "lists", "beside": data.parent, "elsewhere": tmp_path / "x/y"}[place]
    lists = write_lists(folder, start)
    found = find_scenes(data, lists=lists if place == "elsewhere" else ())
    assert found.left_out == found.unmatched == []
    splits = {scene.name: (scene.split, Path(scene.split_source)) for scene in found.items}
    assert splits == {
        f"scene{scene:03d}/blur_{i}": (split, path)
        for split, scenes, path in zip(
            ("train", "test"), (TRAIN_SCENES, TEST_SCENES), lists, strict=True
        )
        for scene in scenes
        for i in (1, 2, 10)
    }


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
    lists = write_lists(tmp_path, f"{J}/")
    for path in lists:
        path.write_bytes(damage(path.read_text()).encode())
    found = find_scenes(data)
    assert [scene.split for scene in found.items] == ["train"] * 6 + ["test"] * 3
    for path in lists:
        path.write_bytes(path.read_bytes().decode("utf-8-sig").encode("utf-16"))
    assert find_scenes(data).items == found.items
    given = find_scenes(data, lists=lists)
    assert sorted(map(str, given.items)) == sorted(map(str, found.items))


def test_absolute_paths_and_paths_that_go_up(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "disk" / J)
    (tmp_path / "link").symlink_to(data)
    for folder, start in ((tmp_path / "x", f"{data}/"), (data / "lists", "../")):
        lists = write_lists(folder, start)
        for root in (data, tmp_path / "link"):
            found = find_scenes(root, lists=lists)
            assert found.unmatched == found.left_out == []
            assert [scene.split for scene in found.items] == ["train"] * 6 + ["test"] * 3


def test_names_of_sequences(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    (data / "train.txt").write_text("scene001\nscene002\n")
    (data / "test.txt").write_text("scene230\n")
    assert [scene.split for scene in find_scenes(data).items] == ["train"] * 6 + ["test"] * 3
    (data / "test.txt").write_text("230\n")
    assert_refused(prepare(data, tmp_path), f"{data}/test.txt, line 1: 230", "none of the list's 1")


def test_names_with_blanks(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "Real Blur J")
    lists = write_lists(tmp_path / "my lists", "Real Blur J/")
    found = find_scenes(data, lists=lists)
    assert [scene.split for scene in found.items] == ["train"] * 6 + ["test"] * 3


# ---- lists that are wrong -----------------------------------------------------------------------


def prepare(data: Path, tmp_path: Path, *options: object) -> Ran:
    return invoke("prepare", data, "-o", f"{tmp_path}/shards/", "--jobs", 1, *options)


@pytest.mark.parametrize("place", ["inside", "beside", "elsewhere"])
def test_a_list_that_matches_nothing_is_an_error(place: str, tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / "data" / J)
    folder = {"inside": data, "beside": data.parent, "elsewhere": tmp_path / "lists"}[place]
    train, test = write_lists(folder, f"{J}/")
    test.write_text(test.read_text().replace("scene230", "scene999"))
    options = (
        [o for path in (train, test) for o in ("--list", path)] if place == "elsewhere" else []
    )
    ran = prepare(data, tmp_path, *options)
    assert_refused(ran, f"{test}, line 1", "scene999/gt/gt_1.png", "none of the list's 3 lines")
    assert not (tmp_path / "shards").exists()


def test_a_training_list_of_everything_does_not_excuse_a_broken_test_list(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    train, test = write_lists(tmp_path, f"{J}/")
    train.write_text(train.read_text() + "\n" + test.read_text())
    test.write_text(test.read_text().replace("scene230", "scene999"))
    assert_refused(prepare(data, tmp_path), f"{test}, line 1")


def test_other_commands_do_not_need_the_lists(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    _, test = write_lists(data, f"{J}/")
    test.write_text(test.read_text().replace("scene230", "scene999"))
    assert len(list(read_records([data]))) == 9
    ran = invoke("info", data, "--json")
    assert ran.status == 1
    assert ran.json[0]["records"] == 6 and ran.json[0]["splits"] == {"train": 6}
    assert f"{test}, line 1" in ran.err


def test_lines_that_match_nothing_are_counted(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    _, test = write_lists(tmp_path, f"{J}/")
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
def test_the_test_list_wins(given: bool, tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    train, test = write_lists(tmp_path, f"{J}/")
    train.write_text(train.read_text() + "\n" + test.read_text())
    ran = prepare(data, tmp_path, *(["--list", train] if given else []))
    assert ran.status == 1
    assert f"{train}: lists 3 scenes for training that are kept for testing" in ran.err
    assert f"scene230/blur_1, test by {test}" in ran.err
    assert len(names(tmp_path / "shards", "train")) == 6
    assert len(names(tmp_path / "shards", "test")) == 3


def test_lists_about_other_folders_are_no_errors(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    write_lists(tmp_path, f"{J}/")
    write_lists(tmp_path, f"{R}/", "R")
    (tmp_path / "test.txt").write_text("GoPro/test/blur/1.png\n")
    (tmp_path / "train_notes.txt").write_text("Trained on Monday, for three days\n")
    (data / "test_notes.txt").write_text("Tested on Tuesday\n")
    found = find_scenes(data)
    assert found.left_out == found.unmatched == []
    assert [scene.split for scene in found.items] == ["train"] * 6 + ["test"] * 3
    one = find_scenes(data / "scene230")
    assert one.left_out == one.unmatched == []
    assert [scene.split for scene in one.items] == ["test"] * 3
    plant_realblur(tmp_path / R)
    both = find_scenes(tmp_path)
    assert both.left_out == both.unmatched == []
    assert Counter(scene.split for scene in both.items) == {"train": 12, "test": 6}


def test_realblur_without_its_lists_says_so(tmp_path: Path) -> None:
    ran = prepare(plant_realblur(tmp_path / J), tmp_path)
    assert_done(ran)
    assert "without its list files: test images are used for training" in ran.lines[0]


# ---- the summary --------------------------------------------------------------------------------


def test_the_summary_names_the_source_of_each_split(tmp_path: Path) -> None:
    data = plant_realblur(tmp_path / J)
    lists = write_lists(tmp_path, f"{J}/")
    ran = prepare(data, tmp_path, "--json", "--validation", 0.3, "--seed", 2)
    assert_done(ran)
    splits = ran.json[0]["splits"]
    assert {split: (s["records"], s["split_from"]) for split, s in splits.items()} == {
        "train": (3, {str(lists[0]): 3}),
        "val": (3, {"--validation": 3}),
        "test": (3, {str(lists[1]): 3}),
    }
    assert "split val: 3 by --validation" in ran.lines
    assert f"split test: 3 by {lists[1]}" in ran.lines
    (again,) = prepare(tmp_path / "shards/test-00000.h5", tmp_path / "again", "--json").json
    assert again["splits"]["test"]["split_from"] == {str(lists[1]): 3}

    plain = tmp_path / "plain"
    for number in range(2):
        write(plain / f"{number}.png", photo(number))
    write(plain / "Test/2.png", photo(2))
    (told,) = prepare(plain, plain, "--json").json
    assert told["splits"]["train"]["split_from"] == {"none": 2}
    assert told["splits"]["test"]["split_from"] == {"folder name": 1}
