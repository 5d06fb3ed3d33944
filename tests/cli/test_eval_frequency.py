"""`blurkit eval --frequency`: the same from pipes, shards, folders and runs, and what it writes."""

import csv
import json
import sys
from pathlib import Path
from typing import Any

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.reports.pictures import GAP
from tests.cli.command import Ran, assert_failed, piped
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.metrics.oracle import noisy
from tests.metrics.test_frequency import PANELS

IMAGES = 12
FOLDERS = ("eval", "restored", "pairs/sharp", "--blurry", "pairs/blur")
MADE = {"blur": blurred, "restored": noisy, "sharp": lambda image: image}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pairs/blur/ and pairs/sharp/ of some photos, and restored/."""
    folder = tmp_path_factory.mktemp("sides")
    for number in range(IMAGES):
        for name, change in MADE.items():
            where = folder / ("" if name == "restored" else "pairs") / name
            write(where / f"{number}.png", change(photo(number)))
    return folder


@pytest.fixture(autouse=True)
def inside(sides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sides)


def rows(ran: Ran) -> dict[str, dict[str, Any]]:
    """What a run with --json found, by run or image."""
    return {row["run"] or row["image"]: row for row in ran.json[-1]["frequency"]}


def studied(*arguments: object) -> dict[str, dict[str, Any]]:
    """What an evaluation by frequency finds, by run or image."""
    return rows(done(*arguments, "--frequency", "--json", "-q"))


def test_the_bands_as_pictures(tmp_path: Path) -> None:
    """A row for each image: itself, high and low at three scales, of which a mean stays gray."""
    done(*FOLDERS, "--frequency", "--pictures", tmp_path / "look", "-q")
    made = sorted(path.name for path in (tmp_path / "look").iterdir())
    assert len(made) == 2 * IMAGES and made[:2] == ["0.frequencies.png", "0.png"]
    sheet = imageio.imread(tmp_path / "look/0.frequencies.png").astype(float)
    rows, width = sheet.shape[0] // 3, 64 + GAP
    assert sheet.shape[1] == 7 * width - GAP
    for row, change in enumerate(MADE.values()):
        tiles = [sheet[row * (rows + 3) :, n * width :][:48, :64] for n in range(7)]
        assert (tiles[0] == change(photo(0))).all()
        high, low, *smaller = tiles[1:]
        assert abs(high.mean() - 128) < 2 and np.ptp(low) < np.ptp(tiles[0])
        for number, tile in enumerate(smaller):
            block = 2 ** (1 + number // 2)
            assert (tile[:block, :block] == tile[0, 0]).all()
        gray = tiles[0] @ [0.299, 0.587, 0.114]
        assert np.abs(high + low - 128 - gray[:, :, None]).mean() < 2


def test_folders() -> None:
    ran = done(*FOLDERS, "--frequency", "--json")
    found = rows(ran)
    assert [*found] == ["blur", "restored"]
    for row in found.values():
        assert [*row["divergence"]] == [*row["chance"]] == PANELS
        assert (row["images"], row["samples"]) == (IMAGES, IMAGES)
        assert all(0 <= value <= 1 for value in row["chance"].values())
    protocol = ran.json[-1]["protocol"]
    assert protocol["samples"].startswith("12 whole images, few for 64 bins: compare with chance")
    assert "sigma 3" in protocol["entropy"] and "64 bins" in protocol["divergence"]
    table = " ".join(ran.err.split())
    assert "eval: divergence by frequency and scale" in table
    for words in ("restored, by chance", f"{found['blur']['divergence']['high 1']:.4f}", "seed 0"):
        assert words in table
    # The scores are what they are without it.
    *images, last = invoke(*FOLDERS, "--json", "-q").json
    assert ran.json[:-1] == images
    assert ran.json[-1]["total"] == last["total"]
    assert "frequency" not in last
    # Without the blurry images the restored ones are compared alone.
    assert studied(*FOLDERS[:3]) == {"restored": found["restored"]}


def test_a_pipe(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    prepare = "blurkit prepare pairs/sharp --synthesize shake --kernel-size 9 15 -q -o -"
    options = f"--frequency --patch 32 --figure {tmp_path}/entropies.png --json"
    ran = piped(f"{prepare} | blurkit eval - {options}")
    (row,) = rows(ran).values()
    assert (row["run"], row["image"], row["images"], row["samples"]) == ("", "blur", IMAGES, 24)
    told = row["divergence"]
    assert told["high 1"] > max(row["chance"]["high 1"], 2 * told["low 1"])
    assert imageio.imread(tmp_path / "entropies.png").shape == (1350, 1500, 4)
    assert "24 squares of 32 pixels from 12 images" in " ".join(ran.err.split())


def test_records_runs_and_targets_tell_the_same(tmp_path: Path) -> None:
    folders, shard = studied(*FOLDERS), tmp_path / "pairs.h5"
    done("prepare", "pairs", "-o", shard, "-q", "--jobs", 1)
    assert studied("eval", shard) == {"blur": folders["blur"]}
    several = ("restored", "pairs/sharp", "pairs/blur", "--reference", shard)
    ran = done("eval", *several, "--frequency", "--json")
    told = ran.json[-1]["frequency"]
    of = [("", "blur"), *((run, "restored") for run in several[:3])]
    assert [(row["run"], row["image"]) for row in told] == of
    assert told[1]["divergence"] == folders["restored"]["divergence"]
    assert told[0]["divergence"] == told[3]["divergence"] == folders["blur"]["divergence"]
    assert {*told[2]["divergence"].values()} == {*told[2]["chance"].values()} == {0}
    assert "pairs/sharp, by chance" in ran.err
    backward = studied("eval", shard, "--target", "blur")
    assert backward["sharp"]["divergence"] == pytest.approx(folders["blur"]["divergence"])
    assert studied("eval", shard, "--image", "sharp")["sharp"]["divergence"]["high 1"] == 0


def test_files(tmp_path: Path) -> None:
    outputs = [part for kind in ("csv", "json", "md") for part in ("-o", tmp_path / f"s.{kind}")]
    found = studied(*FOLDERS, *outputs)
    assert json.loads((tmp_path / "s.json").read_text())["frequency"] == [*found.values()]
    with (tmp_path / "s.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    for kind in ("divergence", "chance"):
        told = {line["name"]: line for line in lines if line["row"] == kind}
        assert [*told] == ["blur", "restored"]
        for name, line in told.items():
            assert {panel: float(line[panel]) for panel in PANELS} == found[name][kind]
            assert (line["images"], line["psnr"]) == ("12", "")
    assert all(line["high 1"] == "" for line in lines if line["row"] in ("image", "mean"))
    page = (tmp_path / "s.md").read_text()
    assert f"## divergence by frequency and scale\n\n| image | {' | '.join(PANELS)} |" in page
    for name, row in found.items():
        assert f"| {name} | {row['divergence']['high 1']:.4f} |" in page
        assert f"| {name}, by chance | {row['chance']['high 1']:.4f} |" in page


def test_parts_and_seeds() -> None:
    found = studied(*FOLDERS, "--part", "2/3").values()
    assert {row["images"] for row in found} == {len(range(1, IMAGES, 3))}
    first, again, other = (studied(*FOLDERS, "--seed", seed)["blur"] for seed in (1, 1, 2))
    assert first == again and first["divergence"] == other["divergence"]
    assert first["chance"] != other["chance"]


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    output = tmp_path / "a.png"
    output.write_bytes(b"mine")
    wrong = {
        ("--figure", output): "--patch and --figure require --frequency",
        ("--patch", 64): "--patch and --figure require --frequency",
        ("--frequency", "--patch", 30): "--patch 30: give a multiple of 4, 32 or more",
        ("--frequency", "--figure", tmp_path / "a.txt"): "a.txt: name a file that ends in",
    }
    assert_each_refused(wrong, *FOLDERS, "--json")
    drawn = (*FOLDERS, "--frequency", "--figure")
    assert_each_refused({(output,): "a.png: exists already; give --force"}, *drawn, status=1)
    for module in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    assert_each_refused({(tmp_path / "b.png",): "plots need matplotlib"}, *drawn, status=1)
    done(*drawn[:-1])
    assert [*tmp_path.iterdir()] == [output] and output.read_bytes() == b"mine"


def test_an_image_that_is_too_small_is_left_out(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, height in (("large", 48), ("small", 31)):
        for side, change in (("a", noisy), ("b", lambda image: image)):
            write(tmp_path / side / f"{name}.png", change(photo(0, height)))
    options = ["--frequency", "--patch", 32, "--figure", tmp_path / "f.svg", "--json", "-q"]
    ran = invoke("eval", tmp_path / "a", tmp_path / "b", *options)
    assert_failed(ran, "small", "small: the image is 64x31; its frequencies need 32 pixels a side")
    assert ran.json[-1]["total"]["images"] == 1
    (row,) = ran.json[-1]["frequency"]
    assert (row["images"], row["samples"]) == (1, 2)
    assert (tmp_path / "f.svg").is_file()
    (tmp_path / "a/large.png").unlink()
    ran = invoke("eval", tmp_path / "a", tmp_path / "b", *options, "--force")
    assert ran.status == 1 and ran.json[-1]["frequency"] == []


@pytest.mark.slow
def test_real_pairs_show_what_the_paper_says(shared_data: Path) -> None:
    """High frequencies diverge more than low ones, and more at large scales (Section 3.1)."""
    options = ["--patch", 64, "--ssim", "basicsr"]
    told = studied("eval", shared_data / "pairs/gopro", *options)["blur"]["divergence"]
    for scale in ("1", "1/2", "1/4"):
        assert told[f"high {scale}"] > 3 * told[f"low {scale}"]
    assert told["high 1"] > told["high 1/2"] > told["high 1/4"]
    clips = studied("eval", shared_data / "pairs/reds_180p", "--part", "1/2", *options)["blur"]
    told, chance = clips["divergence"], clips["chance"]["high 1"]
    assert told["high 1"] > max(chance, told["high 1/2"], 3 * told["low 1"])
