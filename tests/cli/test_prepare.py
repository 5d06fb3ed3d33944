"""`blurkit prepare` on datasets and frames, with blur that it makes; shards rotated and resumed."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import h5py
import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data

from tests.cli.command import assert_failed, assert_refused, files, records, run, shard_records
from tests.cli.invoke import assert_each_refused, done, invoke, results
from tests.cli.pictures import photo, plant_pair, plant_photos, plant_tree, write
from tests.io.scenes import assert_all_same

# ---- datasets ------------------------------------------------------------------------------------

# The PSNR of blur against sharp that the data's README states.
GOPRO = {"building/dh03": 22.87, "parked_cars/dh01": 22.31}
GOPRO |= {"square/000001": 24.05, "square/dh00": 23.58}
REDS_VAL = [24.53, 28.10, 29.16, 25.73, 27.62, 28.73, 25.17, 23.51, 25.16, 27.14]


def assert_psnrs(folder: Path, expected: dict[str, float], split: str = "*") -> None:
    """`psnr_blur` by name, read as a user would, with h5py alone."""
    found = {}
    for path in sorted(folder.glob(f"{split}-*.h5")):
        with h5py.File(path) as file:
            assert dict(file.attrs) == {"format": b"blurkit", "version": 2, "records": len(file)}
            for group in file.values():
                found[group.attrs["name"].decode()] = float(group.attrs["attr:psnr_blur"])
    assert found == pytest.approx(expected, abs=0.0051)


def test_gopro_tree(shared_data: Path) -> None:
    pairs = shared_data / "pairs"
    ran = done("prepare", pairs / "gopro", "-o", "gopro/", "--json", "--jobs", 1)
    assert ran.lines[0] == f"{pairs}/gopro: pairs (blur, sharp), 4 scenes"
    assert [path.name for path in sorted(Path("gopro").iterdir())] == ["test-00000.h5"]
    assert_psnrs(Path("gopro"), GOPRO)
    (told,) = ran.json
    test = told["splits"]["test"]
    assert (test["records"], test["sizes"], test["bytes"]) == (4, {"1280x720": 4}, 4 * 5529600)
    assert test["psnr_blur"] == pytest.approx(np.mean(list(GOPRO.values())), abs=0.01)
    assert told["shards"] == ["gopro/test-00000.h5"] and told["left_out"] == []


def test_reds_tree(shared_data: Path) -> None:
    reds = shared_data / "pairs/reds_180p"
    ran = done("prepare", reds, "-o", "./", "--jobs", 1)
    assert "REDS" in ran.lines[0]
    val = {f"val/000/{number:08d}": value for number, value in enumerate(REDS_VAL, 13)}
    assert_psnrs(Path(), val, "val")
    table = "".join(ran.err.split())
    assert "train│20│320x180" in table and "val│10│320x180" in table
    first = records("train-00000.h5")[0]
    source = reds / "train/train_blur/000/00000000.png"
    np.testing.assert_array_equal(first.images["blur"], imageio.imread(source))
    assert (first.attrs["sequence"], first.attrs["split"]) == ("000", "train")
    few = results("few.h5", "prepare", reds, "--limit", 3)
    assert [r.name for r in few] == [f"train/000/0000000{i}" for i in range(3)]
    only = results("only.h5", "prepare", reds, "--split", "val", "--limit", 3)
    assert [r.attrs["split"] for r in only] == ["val"] * 3


def test_validation_is_a_fraction_of_the_frames() -> None:
    """Of eight sequences of one to eight frames, with two seeds."""
    for sequence in range(8):
        for side in ("blur", "sharp"):
            plant_photos(f"data/train/{side}/{sequence}", sequence + 1, 24, 24)
    drawn = []
    for seed in range(2):
        options = ("--validation", 0.3, "--seed", seed, "--jobs", 1)
        results(f"split{seed}", "prepare", "data", *options)
        train, val = (records(f"split{seed}/{split}-00000.h5") for split in ("train", "val"))
        sequences = [{record.attrs["sequence"] for record in part} for part in (train, val)]
        assert sequences[0].isdisjoint(sequences[1]) and len(set.union(*sequences)) == 8
        assert 0.3 * 36 <= len(val) < 0.3 * 36 + 8
        assert_all_same(results(f"{seed}.h5", "prepare", "data", *options, "--split", "val"), val)
        drawn.append(sequences[1])
    assert drawn[0] != drawn[1]
    results("again", "prepare", "split0/train-00000.h5", *options)  # by the records' sequences
    found = {path.name: len(records(path)) for path in Path("again").iterdir()}
    assert sum(found.values()) == len(records("split0/train-00000.h5")) and len(found) == 2


def test_validation_needs_something_to_train_on() -> None:
    for side in ("blur", "sharp"):
        plant_photos(f"data/{side}/walk", 3, 24, 24)
    command = ("prepare", "data", "-o", "shards/", "--validation")
    refused = invoke(*command, 0.5)
    assert_refused(refused, "error: --validation: walk is all there is to train on")
    assert_refused(invoke(*command, 1), "--validation 1", status=2)
    stream = done("prepare", "data", "-o", "-").out
    ran = invoke("prepare", "-", "--validation", 0.5, "-o", "s/", input=stream)
    assert_refused(ran, "--validation: a stream is known only at its end", status=2)


def test_tiles(tree: Path) -> None:
    tiles = results("tiles.h5", "prepare", tree, "--crop", 40, "--stride", 16, "--limit", 1)
    (whole,) = results("whole.h5", "prepare", tree, "--limit", 1)
    corners = [(top, left) for top in (0, 8) for left in (0, 16, 24)]
    assert len({tile.name for tile in tiles}) == 6
    for tile, (top, left) in zip(tiles, corners, strict=True):
        for role in ("blur", "sharp"):
            cut = whole.images[role][top : top + 40, left : left + 40]
            np.testing.assert_array_equal(tile.images[role], cut)


def test_chosen_blur() -> None:
    plant_pair("gopro/test", "scene/0")
    shutil.copytree("gopro/test/scene/sharp", "gopro/test/scene/blur_gamma")
    for blur, same in (("blur", False), ("blur_gamma", True)):
        (record,) = results(f"{blur}.h5", "prepare", "gopro", "--blur", blur)
        assert record.name == "scene/0"
        assert np.array_equal(record.images["blur"], record.images["sharp"]) == same


def test_photos_as_they_lie_in_a_package() -> None:
    """scikit-image's own folder: photos of every kind, among other files."""
    folder = Path(skimage.data.__file__).parent
    photos = results("p.h5", "prepare", folder, "--as", "sharp", "--jobs", 1)
    names = {record.name for record in photos}
    assert names >= {"astronaut", "camera", "rocket", "horse"}
    assert any(re.fullmatch("multipage.*/000000", name) for name in names)  # or multipage_rgb
    assert all(record.images.keys() - {"alpha"} == {"sharp"} for record in photos)


# ---- the same however it is made -----------------------------------------------------------------


def test_jobs_and_parts_make_the_same_shards(tree: Path) -> None:
    for jobs in (1, 2):
        ran = run("prepare", tree, "-o", f"jobs{jobs}/", "--jobs", jobs, "-q")
        assert ran.status == 0, ran.err
    assert files("jobs1") == files("jobs2")
    for part in ("1/3", "2/3", "3/3"):
        together = results("parts", "prepare", tree, "--part", part)
    assert sorted(files("parts")) == [f"test-p{i}of3-00000.h5" for i in (1, 2, 3)]
    together.sort(key=lambda record: record.name)
    assert_all_same(together, shard_records("jobs1"))


def test_existing_output(tree: Path) -> None:
    for output in ("shards", "one.h5"):
        results(output, "prepare", tree)
    before = files()
    for output in ("shards/", "one.h5"):
        assert_refused(invoke("prepare", tree, "-o", output, "-q"), output.rstrip("/"), "--force")
    assert files() == before
    for output in ("shards", "one.h5"):
        assert len(results(output, "prepare", tree, "--force", "--limit", 1)) == 1


@pytest.mark.parametrize("changed", ["blur/1.png", "sharp/1.png"])
def test_what_has_changed_is_prepared_again(changed: str) -> None:
    for number in range(3):
        plant_pair("in", str(number), number)
        Path(f"in/blur/{number}.png").touch()
    write("others/a.png", photo(7))
    write("others/1/x.png", photo(8))
    for inputs in ("in", "others"):
        done("prepare", inputs, "-o", "out/", "--resume", "--jobs", 1, "-q")
    newer = max(path.stat().st_mtime_ns for path in Path("out").iterdir()) + 1
    write(f"in/{changed}", photo(9))
    os.utime(f"in/{changed}", ns=(newer, newer))
    (told,) = done("prepare", "in", "-o", "out/", "--resume", "--jobs", 1, "--json").json
    assert told["already"] == 4 and told["splits"]["train"]["records"] == 1
    made = {record.name: record for record in shard_records("out")}
    assert {*made} == {"0", "1", "2", "a", "1/x"}
    role = changed.partition("/")[0]
    np.testing.assert_array_equal(made["1"].images[role], photo(9))
    (told,) = done("prepare", "in", "-o", "out/", "--resume", "--jobs", 1, "--json").json
    assert told["already"] == 5 and not told["splits"]


def test_compressed_and_resumed_shards_hold_the_same() -> None:
    """Shards that end in the middle of a photo's tiles are continued with the next tile."""
    tree = plant_tree("tree", 3, height=480, width=480)
    command = ("prepare", tree, "--crop", 320, "--stride", 160, "--shard-size", 1, "--jobs", 1)
    whole = results("whole", *command)
    shards = sorted(Path("whole").iterdir())
    assert [path.name for path in shards] == [f"test-{i:05d}.h5" for i in range(12)]
    assert_all_same(results("small.h5", *command, "--compress"), whole)
    size = Path("small.h5").stat().st_size
    assert size < 0.85 * sum(path.stat().st_size for path in shards)
    Path("cut").mkdir()
    for path in shards[:6]:
        shutil.copy(path, "cut")
    (told,) = done(*command, "-o", "cut/", "--resume", "--json", "-q").json
    assert_all_same(shard_records("cut"), whole)
    assert (told["already"], told["splits"]["test"]["records"]) == (6, 6)
    before = files("whole")
    results("whole", *command, "--resume")  # of what is finished
    assert files("whole") == before


@pytest.mark.parametrize(("missing", "whole"), [(15_000, 3), (40_000, 2)])
def test_a_truncated_shard_is_rebuilt(shard: Path, missing: int, whole: int) -> None:
    broken, rebuilt = Path("broken.h5"), Path("rebuilt.h5")
    broken.write_bytes(shard.read_bytes()[:-missing])
    ran = invoke("prepare", broken, "-o", rebuilt, "-q")
    told = f"{missing} bytes are missing; {whole} records are whole; rebuild with: blurkit prepare"
    assert_failed(ran, "broken.h5", "broken.h5: truncated", told)
    assert_all_same(records(rebuilt), records(shard)[:whole])


# ---- blur that is made ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plant_photos(tmp_path_factory.mktemp("photos"), 4)


def test_synthesized_blur_is_the_same_however_it_is_made(photos: Path) -> None:
    options = ["--synthesize", "realistic", "--copies", 4, "--noise", 0.01, "-q"]
    backwards = sorted(photos.iterdir(), reverse=True)
    made = {}
    for name, start, inputs, more in (
        ("one", invoke, [photos], ["--jobs", 1]),
        ("two", run, [photos], ["--jobs", 2]),
        ("backwards", invoke, backwards, ["--jobs", 1]),
        ("other", invoke, [photos], ["--jobs", 1, "--seed", 7]),
    ):
        ran = start("prepare", *inputs, "-o", f"{name}.h5", *options, *more)
        assert ran.status == 0, ran.err
        made[name] = sorted(records(f"{name}.h5"), key=lambda record: record.name)
    one = made["one"]
    copies = ("", *(f"-copy{copy}" for copy in range(1, 4)))
    assert [record.name for record in one] == [f"{n}{copy}" for n in range(4) for copy in copies]
    assert_all_same(one, made["two"])
    assert_all_same(one, made["backwards"])
    for record, changed in zip(one, made["other"], strict=True):
        assert not np.array_equal(record.images["blur"], changed.images["blur"])
    assert len({record.attrs["blur_kind"] for record in one}) >= 3
    assert len({record.images["blur"].tobytes() for record in one}) == 16


def test_blur_light_noise_and_compression_as_asked_for(photos: Path) -> None:
    command = ("prepare", photos, "--jobs", 1, "--force")
    for kind in ("shake", "camera", "linear", "objects", "defocus"):
        options = ("--synthesize", kind, "--kernel-size", 5, 9)
        for record in results("k.h5", *command, *options):
            assert record.attrs["blur_kind"] == kind
            assert 4 <= record.attrs["blur_extent"] <= 10
            assert 10 < record.attrs["psnr_blur"] < 50
            assert not {"blur_jpeg", "noise", "blur_shot", "blur_highlights"} & record.attrs.keys()
    options = ("--highlights", 4, "--noise", 0.01, "--shot", 0.001, "--jpeg", 50, 60)
    options = (*options, "--synthesize", "camera", "--gamma", 2.0, "--scale", 0.5, 0.5)
    told = {"blur_highlights": 4, "noise": 0.01, "blur_shot": 0.001, "gamma": 2.0, "scale": 0.5}
    for record in results("k.h5", *command, *options):
        assert {key: record.attrs[key] for key in told} == told
        assert 50 <= record.attrs["blur_jpeg"] <= 60
        assert record.images["blur"].shape == record.images["sharp"].shape == (24, 32, 3)


def test_kernel_files(shared_data: Path, photos: Path) -> None:
    options = ("--synthesize", "shake", "--copies", 3, "--jobs", 1, "--kernels")
    made = results("k.h5", "prepare", photos, *options, shared_data / "kernels/Levin09.mat")
    names = {record.attrs["kernel_name"] for record in made}
    assert len(made) == 12 and len(names) > 4
    assert names <= {f"Levin09-{number}" for number in range(1, 9)}


def test_a_response_curve_is_kept(photos: Path) -> None:
    curve = np.linspace(0, 1, 256) ** 2
    np.savetxt("curve.txt", curve)
    command = ("prepare", photos, "--synthesize", "camera", "--jobs", 1)
    response = results("r.h5", *command, "--response", "curve.txt")
    for by_curve, by_gamma in zip(response, results("g.h5", *command, "--gamma", 2), strict=True):
        np.testing.assert_allclose(by_curve.attrs["blur_response"], curve)
        difference = by_curve.images["blur"].astype(int) - by_gamma.images["blur"]
        assert np.abs(difference).max() <= 1  # the curve is a table of that gamma
    Path("none.txt").write_text("1 2 3")
    ran = invoke(*command, "--response", "none.txt", "-o", "x.h5")
    assert_refused(ran, "none.txt: a response curve has 256 increasing values")


def test_contact_sheet(photos: Path) -> None:
    command = ("prepare", photos, "--synthesize", "realistic", "--copies", 2, "--jobs", 1, "-q")
    made = results("a.h5", *command, "--sheet", "sheet.png")
    picture = imageio.imread("sheet.png")
    assert picture.shape[2] == 3
    for number, record in enumerate(made[:2]):  # the first pairs, side by side, as they are
        left = number * (2 * 64 + 8 + 8)
        np.testing.assert_array_equal(picture[:48, left : left + 64], record.images["sharp"])
        np.testing.assert_array_equal(picture[:48, left + 72 : left + 136], record.images["blur"])
        assert picture[48:64, left : left + 136].min() < 128  # a caption below
    other = (*command, "-o", "b.h5", "--sheet")
    assert_each_refused({("sheet.png",): "sheet.png: exists already"}, *other, status=1)
    assert_each_refused({("s.txt",): "--sheet s.txt: name an image file"}, *other)
    done(*other, "sheet.png", "--force")


# ---- frames --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames of one photo that moves by 5 pixels each, then, after a cut, three of another."""
    folder = tmp_path_factory.mktemp("frames") / "clip"
    photo, other = skimage.data.astronaut(), skimage.data.coffee()
    for number in range(9):
        scene = photo if number < 6 else other
        write(folder / f"{number}.png", scene[100:196, 100 + 5 * number : 228 + 5 * number])
    return folder


def test_interpolated_frames_of_a_clip_with_a_cut(clip: Path) -> None:
    options: list[Any] = ["--average", 3, "--stride", 2, "--interpolate"]
    for jobs, start in ((1, invoke), (2, run)):
        ran = start("prepare", clip, *options, 8, "-o", f"{jobs}.h5", "--json", "--jobs", jobs)
        assert_failed(ran, "1 failed, 3 prepared: clip/5", "clip/5: left out", "from frame 2 to 3")
        assert "left out: 1 (named above)" in ran.err
        assert ran.json[0]["left_out"] == ["clip/5"]
    made = records("1.h5")
    assert_all_same(made, records("2.h5"))
    assert [record.name for record in made] == ["clip/1", "clip/3", "clip/7"]
    for record in made:
        told = {"average": 3, "stride": 2, "interpolate": 8, "samples": 17, "gamma": 2.2}
        assert told.items() <= record.attrs.items()
        assert 0.8 < record.attrs["flow_agreement"] < 1
    photo = skimage.data.astronaut() / 255.0
    real = [photo[100:196, 100 + step : 228 + step] ** 2.2 for step in range(11)]
    blur = 255 * np.mean(real, axis=0) ** (1 / 2.2)
    inner = np.s_[:, 16:-16]
    assert np.abs(made[0].images["blur"][inner] - blur[inner]).mean() < 2
    np.testing.assert_array_equal(made[0].images["sharp"], imageio.imread(clip / "1.png"))
    for record in results("a.h5", "prepare", clip, *options, 2, "--agreement", 0):
        assert record.name != "clip/5" or record.attrs["flow_agreement"] < 0.3
    assert len(records("a.h5")) == 4
    plain = results("plain.h5", "prepare", clip, "--average", 3)
    for steps in (0, 1):  # nothing in between
        again = ("prepare", clip, "--average", 3, "--interpolate", steps, "--force")
        assert_all_same(plain, results("again.h5", *again))
    assert "interpolate" not in plain[0].attrs


def test_without_opencv(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    ran = invoke("prepare", clip, "--average", 3, "--interpolate", 8, "-o", "x.h5")
    assert_refused(ran, "error: --interpolate needs OpenCV", "pip install 'blurkit[align]'")
    assert files() == {}


# ---- options -------------------------------------------------------------------------------------


def test_wrong_usage(photos: Path) -> None:
    shake = ("--synthesize", "shake")
    cases = {
        ("--interpolate", 8): "--interpolate requires --average",
        ("--average", 1, "--interpolate", 8): "--interpolate requires --average of 2 or more",
        ("--average", 3, "--agreement", 0.9): "--agreement requires --interpolate",
        ("--highlights", 2): "require --synthesize",
        ("--jpeg", 60, 90): "require --synthesize",
        ("--kernel-size", 3, 9): "require --synthesize",
        ("--scale", 0.5, 2): "require --synthesize",
        (*shake, "--jpeg", 90, 60): "the lower first",
        (*shake, "--scale", 2, 1): "the smaller first",
        (*shake, "--kernel-size", 9, 3): "the smaller first",
        (*shake, "--highlights", 0.5): "highlights",
        ("--part", "nonsense"): "--part nonsense: write I/N",
        ("--part", "0/3"): "--part 0/3: write I/N",
        ("--stride", 4): "--stride requires --average or --crop",
        ("--copies", 2): "--copies requires --synthesize or --transfer-from",
        ("--average", -3): "averaging takes at least 1 frame",
        ("-o", "-", "--json"): "both write to standard output",
        ("-o", "out.xyz"): "-o out.xyz: name ",
        ("-o", ""): "-o : name ",
        ("--response", "curve.txt"): "--response requires --average",
        ("-o", "pairs.h5", "--resume"): "--resume requires a folder",
        ("--synthesize", "spin"): "spin",
    }
    assert_each_refused(cases, "prepare", photos, "-o", "out/", "-q")
    assert invoke("prepare").status == 2
