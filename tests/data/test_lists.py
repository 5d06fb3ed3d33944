"""List files: the real ones of public loaders by their counts, and every form in miniature."""

from pathlib import Path

import pytest

from blurkit.data.layouts import find_scenes
from blurkit.data.lists import read_lists
from blurkit.data.places import Found, Scene
from blurkit.errors import BlurkitError
from tests.data.trees import Plant, assert_pairs


@pytest.mark.parametrize(
    ("names", "count", "split"),
    [
        (["datalist_gopro.txt"], 2103, None),
        (["gopro_test_blur_file.txt", "gopro_test_sharp_file.txt"], 1111, "test"),
        (["RealBlur_J_train_list.txt"], 3758, "train"),
        (["RealBlur_R_train_list.txt"], 3758, "train"),
        (["RealBlur_J_test_list.txt"], 980, "test"),
        (["RealBlur_R_test_list.txt"], 980, "test"),
    ],
)
def test_public_lists_of_pairs(
    names: list[str], count: int, split: str | None, shared_data: Path
) -> None:
    listed = read_lists([shared_data / "lists" / name for name in names])
    assert len(listed) == count
    assert {line.split for line in listed} == {split}
    for line in listed:
        blur, sharp = line.files["blur"], line.files["sharp"]
        assert "/blur/" in blur
        renamed = blur.replace("/blur/blur_", "/gt/gt_").replace("/blur/", "/sharp/")
        assert sharp == renamed


def test_public_lists_of_clips(shared_data: Path) -> None:
    lists = shared_data / "lists"
    assert len(read_lists([lists / "meta_info_REDS_GT.txt"])) == 270
    clips = [line.names for line in read_lists([lists / "meta_info_REDS4_test_GT.txt"])]
    assert clips == [("000",), ("011",), ("015",), ("020",)]


def names(found: Found[Scene]) -> list[str]:
    return [scene.name for scene in found.items]


@pytest.fixture
def gopro(plant: Plant, plant_pairs: Plant) -> None:
    for scene in range(3):
        place = f"train/GOPR0372_07_00/{{}}/{scene:06d}.png"
        plant_pairs(place.format("blur"), place.format("sharp"), scene)
        plant(place.format("blur_gamma"), scene, blurred=True)


@pytest.mark.parametrize("root", ["", "train"])
def test_pairs_in_either_order(root: str, tmp_path: Path, gopro: None) -> None:
    path = tmp_path / "list.txt"
    path.write_text(
        "GOPR0372_07_00/sharp/000002.png GOPR0372_07_00/blur/000002.png \r\n\n"
        "GOPR0372_07_00/blur/000000.png GOPR0372_07_00/sharp/000000.png\n"
        "GOPR0372_07_00/sharp/000009.png GOPR0372_07_00/blur/000009.png"
    )
    found = find_scenes(tmp_path / root, lists=[path])
    assert names(found) == ["GOPR0372_07_00/000002", "GOPR0372_07_00/000000"]
    assert found.left_out[0][0] == f"{path}, line 4"
    assert "000009.png: names no image below" in found.left_out[0][1]
    assert {scene.split for scene in found.items} == {"train"}
    assert_pairs(found.items)
    gamma = find_scenes(tmp_path / root, blur="blur_gamma", lists=[path])
    assert names(gamma) == names(found)
    assert {scene.files["blur"].parent.name for scene in gamma.items} == {"blur_gamma"}


def test_two_aligned_lists(tmp_path: Path, gopro: None) -> None:
    rows = [f"train/GOPR0372_07_00/{{}}/{n:06d}.png" for n in (2, 0)]
    blur, sharp = tmp_path / "train_blur_file.txt", tmp_path / "train_sharp_file.txt"
    blur.write_text("\n".join(row.format("blur") for row in rows))
    sharp.write_text("\n".join(row.format("sharp") for row in rows))
    for order in ([blur, sharp], [sharp, blur]):
        found = find_scenes(tmp_path, lists=order)
        assert names(found) == ["GOPR0372_07_00/000002", "GOPR0372_07_00/000000"]
        assert_pairs(found.items)
    sharp.write_text(rows[0].format("sharp"))
    with pytest.raises(BlurkitError, match="has 2 lines and"):
        read_lists([blur, sharp])


def test_clips_and_file_names_select(tmp_path: Path, plant_pairs: Plant) -> None:
    for scene, clip in enumerate(("000", "001", "011")):
        place = f"{clip}/00000000.png"
        plant_pairs(f"train/train_blur/{place}", f"train/train_sharp/{place}", scene)
    meta = tmp_path / "meta_info.txt"
    meta.write_text("011 100 (720,1280,3)\n000 100 (720, 1280, 3)\n015 100 (720,1280,3)\n")
    found = find_scenes(tmp_path, lists=[meta])
    assert names(found) == ["011/00000000", "000/00000000"]
    reason = f"015: names no image below {tmp_path}; 1 of the list's 3 lines match nothing"
    assert found.left_out == [(f"{meta}, line 3", reason)]


def test_bare_file_names_of_hide(tmp_path: Path, plant_pairs: Plant) -> None:
    plant_pairs("train/1fromGOPR0950.png", "GT/1fromGOPR0950.png", 1)
    plant_pairs("test/test-close-ups/2.MP4.png", "GT/2.MP4.png", 2)
    path = tmp_path / "test.txt"
    path.write_text("2.MP4.png\n")
    found = find_scenes(tmp_path, lists=[path])
    assert [(s.name, s.split) for s in found.items] == [("test-close-ups/2.MP4", "test")]


def test_the_same_path_twice_is_blurred_only(tmp_path: Path, plant: Plant) -> None:
    plant("blurryImage/Blurry1_1.png", 1)
    path = tmp_path / "kohler_test.txt"
    path.write_text("blurryImage/Blurry1_1.png blurryImage/Blurry1_1.png\n")
    found = find_scenes(tmp_path, lists=[path])
    assert [(s.name, list(s.files)) for s in found.items] == [("blurryImage/Blurry1_1", ["blur"])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a/1.png b/1.png", "line 1: cannot tell which of 'a/1.png' and 'b/1.png' is blurred"),
        ("x/blur/1.png x/blur_gamma/1.png", "cannot tell which"),
        ("one two three", "line 1: 3 fields"),
        ("\n \n", "the list is empty"),
    ],
)
def test_lists_that_cannot_be_understood(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(text)
    with pytest.raises(BlurkitError, match=message):
        read_lists([path])
    with pytest.raises(BlurkitError, match="no such list file"):
        read_lists([tmp_path / "none.txt"])
