"""Every published layout, in miniature: the names, the splits, and the right partners."""

from pathlib import Path

import numpy as np
import pytest

from blurkit.data.layouts import find_scenes
from blurkit.data.sources import load_scene
from blurkit.errors import BlurkitError
from blurkit.io.paths import natural_key
from tests.data.trees import TREES, J, Plant, R, assert_pairs


@pytest.mark.parametrize("layout", TREES)
def test_layout(layout: str, tmp_path: Path, plant_pairs: Plant) -> None:
    pairs, expected = TREES[layout]
    for scene, (blur, sharp) in enumerate(pairs):
        plant_pairs(blur, sharp, scene)
    found = find_scenes(tmp_path)
    assert {scene.name: scene.split for scene in found.items} == expected
    files = [scene.files["blur"] for scene in found.items]
    assert files == sorted(files, key=natural_key)
    assert found.left_out == []
    assert found.layouts[0].startswith(layout.split()[0].replace("clip", "pairs"))
    assert_pairs(found.items)


@pytest.fixture
def gopro(plant: Plant, plant_pairs: Plant) -> None:
    folder = "GOPRO_Large/test/GOPR0384_11_00"
    for scene, name in enumerate(("000001.png", "000002.png")):
        plant_pairs(f"{folder}/blur/{name}", f"{folder}/sharp/{name}", scene)
        plant(f"{folder}/blur_gamma/{name}", scene + 20, blurred=True)


@pytest.mark.parametrize("root", ["", "test", "test/GOPR0384_11_00"])
def test_gopro_names_are_the_same_from_any_folder(root: str, tmp_path: Path, gopro: None) -> None:
    found = find_scenes(tmp_path / "GOPRO_Large" / root)
    names = [scene.name for scene in found.items]
    assert names == ["GOPR0384_11_00/000001", "GOPR0384_11_00/000002"]
    assert {scene.split for scene in found.items} == {"test"}
    assert found.layouts[0] == "GoPro (blur, sharp)"


def test_a_folder_that_is_not_there_is_not_replaced_by_another(tmp_path: Path, gopro: None) -> None:
    with pytest.raises(BlurkitError, match="no folder 'blur_jpeg'; choose --blur blur or --blur b"):
        find_scenes(tmp_path, blur="blur_jpeg")


@pytest.fixture
def reds(plant: Plant, plant_pairs: Plant) -> None:
    for split, scene in (("train", 0), ("val", 3)):
        place = f"{split}/{split}_{{}}/000/00000000."
        plant_pairs(place.format("blur") + "png", place.format("sharp") + "png", scene)
        plant(place.format("blur_comp") + "png", 7, blurred=True)
        plant(place.format("blur_jpeg") + "jpg", scene, blurred=True)
        plant(place.format("blur_bicubic") + "png", scene + 1, blurred=True)
        plant(place.format("sharp_bicubic") + "png", scene + 1)
    plant("test/test_blur/000/00000000.png", 6, blurred=True)


@pytest.mark.parametrize(
    ("blur", "suffix", "tolerance"),
    [
        ("blur", ".png", 0),
        ("blur_jpeg", ".jpg", 8),
        ("train_blur_jpeg", ".jpg", 8),
        ("blur_bicubic", ".png", 0),
    ],
)
def test_reds_variants(blur: str, suffix: str, tolerance: int, tmp_path: Path, reds: None) -> None:
    pairs = [s for s in find_scenes(tmp_path, blur=blur).items if "sharp" in s.files]
    assert [scene.name for scene in pairs] == ["train/000/00000000", "val/000/00000000"]
    assert {scene.files["blur"].suffix for scene in pairs} == {suffix}
    assert_pairs(pairs, tolerance)


def test_reds_test_has_no_sharp_images_and_that_is_no_mistake(tmp_path: Path, reds: None) -> None:
    found = find_scenes(tmp_path)
    assert found.left_out == []
    test = [(s.name, list(s.files)) for s in found.items if s.split == "test"]
    assert test == [("test/000/00000000", ["blur"])]


def test_realblur_lists_beside_the_data_give_the_splits(tmp_path: Path, plant_pairs: Plant) -> None:
    for letter, folder in (("J", J), ("R", R)):
        for number, split in ((183, "train"), (230, "test")):
            rows = []
            for index in (2, 10):
                blur = f"{folder}/scene{number}/blur/blur_{index}.png"
                sharp = f"{folder}/scene{number}/gt/gt_{index}.png"
                plant_pairs(blur, sharp, index)
                rows.append(f"{sharp} {blur} ")
            path = tmp_path / f"RealBlur_{letter}_{split}_list.txt"
            path.write_text("\n".join(rows).rstrip())
    scenes = (("scene183", "train"), ("scene230", "test"))
    expected = {f"{scene}/blur_{n}": split for scene, split in scenes for n in (2, 10)}
    splits = {scene.name: scene.split for scene in find_scenes(tmp_path).items}
    assert splits == {f"{top}/{name}": of for top in (J, R) for name, of in expected.items()}
    assert {scene.name: scene.split for scene in find_scenes(tmp_path / J).items} == expected
    listed = find_scenes(tmp_path, lists=[tmp_path / "RealBlur_R_test_list.txt"])
    assert [scene.name for scene in listed.items] == [f"{R}/{name}" for name in list(expected)[2:]]
    assert_pairs(listed.items)


@pytest.mark.parametrize(
    ("blur", "folder"), [("blur", "real_blur"), ("avg65_img", "avg65_img"), ("avg_blur",) * 2]
)
def test_rsblur(blur: str, folder: str, tmp_path: Path, plant: Plant, plant_pairs: Plant) -> None:
    """A mask is neither side, and lists with two paths a line state the splits."""
    for number, split in enumerate(("train", "val", "test")):
        place = f"RSBlur/000{number}/00000{number}"
        plant_pairs(f"{place}/real_blur/real_blur.png", f"{place}/gt/gt_sharp.png", number)
        plant(f"{place}/avg65_img/avg_blur.png", number, blurred=True)
        plant(f"{place}/avg_blur/avg_blur.png", number, blurred=True)
        for mask in ("avg65_mask", "avg65_mask_100"):
            plant(f"{place}/{mask}/avg_blur.png", 9)
        row = f"{place}/gt/gt_sharp.png {place}/real_blur/real_blur.png\n"
        (tmp_path / f"RSBlur_real_{split}.txt").write_text(row)
    for root in (tmp_path, tmp_path / "RSBlur"):
        found = find_scenes(root, blur)
        assert found.layouts == [f"RSBlur ({folder}, gt)"] and not found.left_out
        assert [s.split for s in found.items] == ["train", "val", "test"]
        assert {scene.files["blur"].parent.name for scene in found.items} == {folder}
        assert_pairs(found.items)
    assert [(s.name, s.sequence) for s in found.items][2] == ("0002/000002", "0002")
    (one,) = find_scenes(tmp_path / "RSBlur/0002/000002", blur).items
    assert one.name == "000002"


def test_pairs_that_only_a_list_knows(tmp_path: Path, plant: Plant, plant_pairs: Plant) -> None:
    """GoPro_U's names share no ending; without a list they are no pairs."""
    rows = []
    for number in range(2):
        blur = f"GoPro_U/centroid_blurred_img/{number}_kernel_9_blurred.png"
        sharp = f"GoPro_U/target_img/{number}_kernel_9_gt.png"
        plant_pairs(blur, sharp, number)
        plant(blur.replace("img", "mask_100"), 9)
        rows.append(f"{sharp} {blur}\n")
    assert not find_scenes(tmp_path).items
    (tmp_path / "GoPro_U_train.txt").write_text("".join(rows[::-1]))
    found = find_scenes(tmp_path / "GoPro_U")
    assert found.layouts == ["pairs of its list files"] and not found.left_out
    assert [(s.name, s.split) for s in found.items][1] == ("0_kernel_9_blurred", "train")
    assert_pairs(found.items)


def test_photos_keep_their_relative_paths(tmp_path: Path, plant: Plant) -> None:
    for scene, path in enumerate(("b.png", "walk/2.jpg", "walk/10.jpg", "night/input/1.png")):
        plant(path, scene)
    (tmp_path / ".hidden.png").write_bytes(b"")
    found = find_scenes(tmp_path, unpaired_as="sharp")
    assert found.layouts[0] == "photos"
    assert all(list(scene.files) == ["sharp"] for scene in found.items)
    names = [scene.name for scene in found.items]
    assert {*names} == {"b", "walk/2", "walk/10", "night/input/1"}
    assert names.index("walk/2") < names.index("walk/10")


def test_lone_images_and_strays_are_named(tmp_path: Path, plant: Plant, plant_pairs: Plant) -> None:
    plant_pairs("blur/1.png", "sharp/1.png", 1)
    for scene, name in enumerate(("blur/2.png", "sharp/3.png", "thumbnails/4.png"), 2):
        plant(name, scene)
    found = find_scenes(tmp_path)
    assert [scene.name for scene in found.items] == ["1"]
    assert found.left_out == [
        (str(tmp_path / "blur/2.png"), "has no sharp partner"),
        (str(tmp_path / "sharp/3.png"), "has no blur partner"),
        (str(tmp_path / "thumbnails"), "1 images, neither blurred nor sharp"),
    ]


def test_two_files_of_one_name_are_not_guessed_between(
    tmp_path: Path, plant: Plant, plant_pairs: Plant
) -> None:
    plant_pairs("blur/1.png", "sharp/1.png", 1)
    plant_pairs("blur/2.png", "sharp/2.jpg", 2)
    plant("blur/1.jpg", 5)
    found = find_scenes(tmp_path)
    assert [scene.name for scene in found.items] == ["2"]
    assert "1.jpg" in found.left_out[0][1] and "1.png" in found.left_out[0][1]


def test_two_photos_of_one_name(tmp_path: Path, plant: Plant) -> None:
    for name in ("1.png", "1.jpg", "1.jpg.png", "2.png"):
        plant(name, int(name[0]))
    found = find_scenes(tmp_path)
    names = {scene.name: scene.files["blur"].name for scene in found.items}
    # A name is a file's name where its stem, or what is left of another file's, is taken.
    assert names == {**{name: name for name in ("1.jpg", "1.png", "1.jpg.png")}, "2": "2.png"}
    assert found.left_out == []


def test_one_split_of_hide_is_whole_without_the_other(tmp_path: Path, plant_pairs: Plant) -> None:
    plant_pairs("test/test-close-ups/2.MP4.png", "GT/2.MP4.png", 2)
    plant_pairs("unused/1.png", "GT/1.png", 1)
    (tmp_path / "unused/1.png").unlink()
    found = find_scenes(tmp_path)
    assert [scene.name for scene in found.items] == ["test-close-ups/2.MP4"]
    assert found.left_out == []


def test_hide_names_what_has_no_partner(tmp_path: Path, plant: Plant, plant_pairs: Plant) -> None:
    plant_pairs("train/1.png", "GT/1.png", 1)
    plant_pairs("test/test-close-ups/2.png", "GT/2.png", 2)
    plant("GT/3.png", 3)
    plant("train/4.png", 4)
    left_out = {Path(where).name: why for where, why in find_scenes(tmp_path).left_out}
    assert left_out == {"3.png": "has no blur partner", "4.png": "has no sharp partner"}


def test_shared_pairs(shared_data: Path) -> None:
    counts = {"gopro": 4, "gopro_avg": 7, "reds_180p": 30, "large": 1, "realblur_crop": 1}
    for folder, count in counts.items():
        found = find_scenes(shared_data / "pairs" / folder)
        assert (len(found.items), found.left_out) == (count, []), folder
        assert all(list(scene.files) == ["blur", "sharp"] for scene in found.items)
    reds = find_scenes(shared_data / "pairs/reds_180p").items
    assert reds[0].name == "train/000/00000000" and reds[-1].name == "val/000/00000022"
    record = load_scene(reds[0])
    error = np.mean((record.images["blur"] / 255.0 - record.images["sharp"] / 255.0) ** 2)
    assert -10 * np.log10(error) == pytest.approx(31.25, abs=0.005)
