"""`blurkit eval`: numbers that scikit-image confirms, what the options add, reports and parts."""

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar, cast

import cv2
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from blurkit.nn.features import BACKBONES, FeatureNetwork
from tests.cli.command import assert_failed, assert_refused, files, records
from tests.cli.guides import psnr
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.pictures import blurred, photo, plant_pair, write
from tests.metrics.oracle import noisy

GAUSSIAN: dict[str, Any] = {"gaussian_weights": True, "use_sample_covariance": False}


@pytest.fixture(scope="module")
def sides(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """blur/, restored/ and sharp/ with 20 images, five to a sequence."""
    folder = tmp_path_factory.mktemp("sides")
    for number in range(20):
        sharp, name = photo(number), f"seq{number // 5}/{number}.png"
        write(folder / "sharp" / name, sharp)
        write(folder / "blur" / name, blurred(sharp))
        write(folder / "restored" / name, noisy(sharp))
    return folder


@pytest.fixture(autouse=True)
def inside(sides: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(sides)
    for variable in ("BLURKIT_LPIPS", "BLURKIT_LPIPS_HEADS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture
def three(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: restored/ and sharp/ with three pairs of one name, one of two formats."""
    for number, suffix in enumerate((".png", ".bmp", ".png")):
        write(tmp_path / f"sharp/nested/{number}.png", photo(number))
        write(tmp_path / f"restored/nested/{number}{suffix}", blurred(photo(number)))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scores(*arguments: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The images and the last line of an evaluation."""
    *rows, last = done("eval", *arguments, "--json", "-q").json
    return rows, last


def measured(*options: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Those of the two folders of 20 images."""
    return scores("restored", "sharp", *options)


def expected(image: np.ndarray, sharp: np.ndarray) -> Any:
    """PSNR and SSIM by scikit-image."""
    ssim = structural_similarity(image, sharp, channel_axis=2, sigma=1.5, **GAUSSIAN)
    return pytest.approx((psnr(image, sharp), ssim), abs=1e-6)


def number(row: dict[str, Any]) -> int:
    return int(Path(row["name"]).name)


# ---- inputs --------------------------------------------------------------------------------------


def test_a_shard_a_stream_and_a_tree(tree: Path, shard: Path) -> None:
    ran = done("eval", shard, "--json", "-q")
    assert ran.err == ""
    *rows, last = ran.json
    for row, record in zip(rows, records(shard), strict=True):
        assert row["name"] == record.name and row["psnr"] == row["psnr_blur"]
        assert (row["psnr"], row["ssim"]) == expected(record.images["blur"], record.images["sharp"])
    total = last["total"]
    assert total["images"] == 4 and "8 bits" in last["protocol"]["values"]
    for key in ("psnr", "ssim"):
        assert total[key] == pytest.approx(np.mean([row[key] for row in rows]), abs=1e-6)
    assert done("eval", "-", "--json", "-q", input=shard.read_bytes()).out == ran.out
    assert done("eval", tree, "--json", "-q").out == ran.out
    table = done("eval", shard)
    assert table.out == b"" and "mean of 4" in table.err and f"{total['psnr']:.2f}" in table.err


def test_real_pairs(shared_data: Path) -> None:
    folder = shared_data / "pairs/reds_180p/val"
    rows, last = scores(folder / "val_blur/000", folder / "val_sharp/000")
    told = [24.53, 28.10, 29.16, 25.73, 27.62, 28.73, 25.17, 23.51, 25.16, 27.14]
    assert [row["psnr"] for row in rows] == pytest.approx(told, abs=0.0051)
    assert last["total"]["psnr"] == pytest.approx(np.mean(told), abs=0.0051)


def test_files_and_folders_are_paired_by_name(three: Path) -> None:
    rows, _ = scores("restored", "sharp")
    assert [row["name"] for row in rows] == ["nested/0", "nested/1", "nested/2"]
    for n, row in enumerate(rows):
        assert (row["psnr"], row["ssim"]) == expected(blurred(photo(n)), photo(n))
    ((row,), _) = scores("restored/nested/0.png", "sharp/nested/2.png")
    assert (row["psnr"], row["ssim"]) == expected(blurred(photo(0)), photo(2))

    (three / "sharp/nested/1.png").unlink()
    write(three / "sharp/alone.png", photo(7))
    ran = invoke("eval", "restored", "sharp", "--json", "-q")
    assert_failed(ran, "nested/1", "nested/1.bmp: no partner", "sharp")
    assert_failed(ran, "alone", "alone.png: no partner", "restored")
    *rows, last = ran.json
    assert [row["name"] for row in rows] == ["nested/0", "nested/2"]
    assert last["total"]["images"] == 2


def test_pairs_that_cannot_be_scored(three: Path) -> None:
    write(three / "restored/nested/0.png", photo(0, 40, 64))
    write(three / "restored/nested/1.bmp", photo(1)[:, :, 0])
    ran = invoke("eval", "restored", "sharp", "--json", "-q")
    assert_failed(ran, "nested/0", "restored is 64x40, sharp is 64x48")
    assert_failed(ran, "nested/1", "sizes differ: 64x48x1 and 64x48x3")
    assert [row.get("name") for row in ran.json] == ["nested/2", None]


def test_blurry_images_that_cannot_be_paired(tmp_path: Path) -> None:
    inputs = ("restored",), ("restored/seq0/0.png", "sharp/seq0/0.png"), ("-",)
    cases = dict.fromkeys(inputs, "--blurry requires two folders RESTORED/ SHARP/")
    assert_each_refused(cases, "eval", "--blurry", "blur")
    (tmp_path / "empty").mkdir()
    cases = {
        ("none",): "none: no such file or folder",
        (tmp_path / "empty",): "empty: holds no image and no shard",
    }
    assert_each_refused(cases, "eval", "restored", "sharp", "--blurry", status=1)
    write(tmp_path / "some/seq0/0.png", photo(0))
    ran = invoke("eval", "restored", "sharp", "--blurry", tmp_path / "some", "--json", "-q")
    assert_failed(ran, "seq0/1", f"seq0/1: no image of that name in {tmp_path}/some")
    assert len(ran.json) == 2


# ---- options -------------------------------------------------------------------------------------


def test_subsets_by_the_blurry_images() -> None:
    assert "subsets" not in measured()[1]
    rows, last = measured("--blurry", "blur")
    for row in rows:
        n = number(row)
        told = psnr(blurred(photo(n)), photo(n)), psnr(noisy(photo(n)), photo(n))
        assert (row["psnr_blur"], row["psnr"]) == pytest.approx(told)
    order = sorted(rows, key=lambda row: row["psnr_blur"])
    for part, members in {"blurriest": order[:2], "sharpest": order[-2:]}.items():
        found = last["subsets"][part]
        assert found["images"] == 2
        assert found["psnr"] == pytest.approx(np.mean([row["psnr"] for row in members]))
    assert last["total"]["psnr_blur"] == pytest.approx(np.mean([row["psnr_blur"] for row in rows]))
    assert "2 of 20" in last["protocol"]["subsets"]
    assert "blur" in last["protocol"]["psnr_blur"]


def test_subsets_of_a_dataset(tmp_path: Path) -> None:
    """The blurry images of records are known; under ten images there is no tenth."""
    for n in range(10):
        plant_pair(tmp_path, str(n), n)
        if n >= 8:
            ran = done("eval", tmp_path, "--json")
            assert ("subsets" in ran.json[-1]) == ("blurriest 10 % (1)" in ran.err) == (n == 9)


def test_metrics_by_name_and_kinds_of_ssim() -> None:
    assert measured("--metric", "psnr-y") == measured("--y-psnr")
    rows, last = measured("--ssim", "scikit-image", "--ssim", "basicsr-y", "--y-psnr")
    for row in rows:
        sharp = photo(number(row))
        restored = noisy(sharp)
        assert [*row] == ["name", "psnr", "ssim_skimage", "ssim_y", "psnr_y", "sequence"]
        told = structural_similarity(restored, sharp, channel_axis=2)
        assert row["ssim_skimage"] == pytest.approx(told, abs=1e-6)
        y, known = rgb2ycbcr(restored)[:, :, 0], rgb2ycbcr(sharp)[:, :, 0]
        told = peak_signal_noise_ratio(known, y, data_range=255)
        assert row["psnr_y"] == pytest.approx(told, abs=1e-4)
        told = structural_similarity(y, known, data_range=255, **GAUSSIAN)
        assert row["ssim_y"] == pytest.approx(told, abs=1e-6)
    assert {"psnr_y", "ssim_y", "ssim_skimage"} < set(last["protocol"])
    assert "ssim_matlab" not in last["protocol"]


def test_alignment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    sharp = photo(3, 96, 96)
    moved = write(tmp_path / "a/moved.png", np.roll(sharp, (1, 2), (0, 1)) // 2)
    write(tmp_path / "a/flat.png", np.full_like(sharp, 99))
    for name in ("moved", "flat"):
        write(tmp_path / f"b/{name}.png", sharp)
    command = ["eval", tmp_path / "a", tmp_path / "b", "-q"]
    ran = invoke(*command, "--align", "--json")
    assert_failed(ran, "flat", "flat: cannot be aligned: ECC does not converge")
    row, last = ran.json
    assert row["psnr"] == pytest.approx(psnr(imageio.imread(moved), sharp))
    assert row["psnr_aligned"] > row["psnr"] + 5
    assert row["ssim_aligned"] > row["ssim"] + 0.1
    assert "RealBlur" in last["protocol"]["psnr_aligned"]
    monkeypatch.setitem(sys.modules, "cv2", None)
    refused = invoke(*command, "--align")
    assert_refused(refused, "error: alignment needs OpenCV", "pip install 'blurkit[align]'\n")
    done(*command)


def test_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    alex = next(backbone for backbone in BACKBONES if backbone.name == "AlexNet")
    backbone, file = tmp_path / "alex.pth", tmp_path / "heads.safetensors"
    torch.save(FeatureNetwork(alex, [*alex.layers]).state_dict(), backbone)
    channels = (64, 192, 384, 256, 256)
    heads = {f"lin{i}.model.1.weight": torch.ones(1, n, 1, 1) for i, n in enumerate(channels)}
    save_file(heads, file)
    rows, last = measured("--lpips", backbone, "--lpips-heads", file, "--device", "cpu")
    assert last["total"]["lpips"] == pytest.approx(np.mean([row["lpips"] for row in rows]))
    assert "AlexNet (alex.pth)" in last["protocol"]["lpips"]
    monkeypatch.setenv("BLURKIT_LPIPS", str(backbone))
    monkeypatch.setenv("BLURKIT_LPIPS_HEADS", str(file))
    assert measured("--device", "cpu")[0] == rows


def test_borders_do_not_count() -> None:
    rows, last = measured("--crop-border", 5)
    for row in rows:
        sharp = photo(number(row))
        inner = [image[5:-5, 5:-5] for image in (noisy(sharp), sharp)]
        assert (row["psnr"], row["ssim"]) == expected(*inner)
    assert "without 5 pixels at each side" in last["protocol"]["values"]
    ran = invoke("eval", "restored", "sharp", "--crop-border", 24, "-q")
    assert_failed(ran, "seq0/0", "--crop-border 24: leaves nothing of 64x48")


def test_confidence() -> None:
    rows, last = measured("--confidence", 0.9)
    assert last["confidence"]["level"] == 0.9
    low, high = last["confidence"]["psnr"]
    assert low < np.mean([row["psnr"] for row in rows]) < high
    assert measured("--confidence", 0.9, "--seed", 1)[1]["confidence"] != last["confidence"]
    again = done("eval", "restored", "sharp", "--confidence", 0.9, "--json")
    assert again.json[-1] == last and f"[{low:.2f}, {high:.2f}]" in again.err


def test_the_cost_of_a_network(checkpoint: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)["networks"]["deblur"]
    _, last = measured("-c", checkpoint)
    small = last["network"]
    assert (small["name"], small["input_size"]) == ("MSDINet", "256x256")
    assert small["parameters"] <= sum(tensor.numel() for tensor in state.values())
    large = measured("-c", checkpoint, "--input-size", "512x256")[1]["network"]
    assert large["gmacs"] == pytest.approx(2 * small["gmacs"], rel=0.1)  # the latents' size stays
    command = ["eval", "restored", "sharp", "-c"]
    piped = done(*command, "-", "--json", input=checkpoint.read_bytes())
    assert f"{small['parameters']:,} parameters" in " ".join(piped.err.split())
    assert piped.json[-1] == last
    sizes = {(size,): f"--input-size {size}: write WIDTHxHEIGHT" for size in ("300", "0x16")}
    sizes |= {("260x256",): "MSDINet takes sides that are multiples of"}
    assert_each_refused(sizes, *command, checkpoint, "--input-size")
    assert_refused(invoke(*command, "no.pt"), "no.pt: no such checkpoint")
    assert_refused(invoke("eval", "-", "-c", "-"), "standard input can be read only once", status=2)


def test_wrong_options_are_refused() -> None:
    wrong = {
        ("--metric", "best"): "choose from",
        ("--ssim", "best"): "--ssim best: choose from",
        ("--confidence", 95): "--confidence 95.0: give a number between 0 and 1",
        ("--encoder", "x.pt"): "--encoder and --network require --checkpoint or --networks",
        ("--resume",): "--resume requires -o",
        ("-o", "scores.txt"): "scores.txt: name a file that ends in .csv, .json, .md, .tex",
    }
    assert_each_refused(wrong, "eval", "restored", "sharp")


# ---- without a reference -------------------------------------------------------------------------


class Pyiqa:
    """What of pyiqa is used: a list of names, and measures of a batch (1, 3, H, W) in [0, 1]."""

    __version__ = "0.1"
    measures: ClassVar[dict[str, Callable[[torch.Tensor], torch.Tensor]]] = {
        "niqe": lambda x: x.std(),
        "musiq": lambda x: 100 * x.mean(),
    }

    @classmethod
    def list_models(cls, metric_mode: str) -> list[str]:
        assert metric_mode == "NR"
        return [*cls.measures]

    @classmethod
    def create_metric(cls, name: str, device: str) -> Any:
        def measure(batch: torch.Tensor) -> torch.Tensor:
            assert batch.shape[:2] == (1, 3) and batch.dtype == torch.float32
            return cls.measures[name](batch)

        measure.lower_better = name == "niqe"  # type: ignore[attr-defined]
        return measure


def value(name: str, path: Path) -> float:
    pixels = imageio.imread(path).astype(np.float32) / 255
    return float(Pyiqa.measures[name](torch.from_numpy(pixels).permute(2, 0, 1)[None]))


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Photos, and what two methods made of them, without sharp ones."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "pyiqa", cast(ModuleType, Pyiqa))
    for n in range(3):
        write(tmp_path / f"photos/{n}.png", blurred(photo(n)))
        write(tmp_path / f"ours/{n}.png", photo(n))
        write(tmp_path / f"theirs/{n}.png", noisy(photo(n)) // 2)
    return tmp_path


def test_methods_side_by_side_on_photos_without_ground_truth(photos: Path) -> None:
    given = ("eval", "ours", "theirs", "photos", "--no-reference", "niqe,musiq", "-q")
    outputs = ("-o", "s.md", "-o", "s.csv", "--html", "page", "--pictures", "rows")
    *rows, last = done(*given, "--json", *outputs, "-o", "s.json").json
    for row in rows:
        for run, scores in row["runs"].items():
            path = photos / run / f"{row['name']}.png"
            values = {name: value(name, path) for name in Pyiqa.measures}
            assert scores == pytest.approx(values, rel=1e-6)
        lowest = min(row["runs"], key=lambda run: row["runs"][run]["niqe"])
        assert row["best"] == [lowest] == ["theirs"]
    assert last["ranking"] == "niqe" and last["runs"]["theirs"]["wins"] == 3
    assert last["protocol"]["wins"].startswith("images with the lowest niqe")
    assert last["protocol"]["niqe"] == "pyiqa 0.1, of the image alone, lower is better"
    assert "psnr" not in last["protocol"] and "ssim" not in last["protocol"]
    table = Path("s.md").read_text()
    assert "| run | niqe | musiq | wins |" in table and "psnr" not in table
    page = Path("page/index.html").read_text()
    assert "Highest niqe" in page and " dB<" not in page
    assert imageio.imread("rows/0.png").shape == (48, 3 * 64 + 2 * 8, 3)
    for part in (1, 2):
        done(*given, "--part", f"{part}/2", "-o", f"{part}.json")
    done("eval", "--merge", "1.json", "2.json", "-o", "merged.json", "-q")
    assert report("merged.json") == report("s.json")


def test_measures_without_a_reference_beside_psnr(photos: Path) -> None:
    for n in range(3):
        write(photos / f"sharp/{n}.png", photo(n))
    niqe = ("--no-reference", "niqe", "--json", "-q")
    row, *_, last = done("eval", "theirs", "--reference", "sharp", *niqe).json
    assert row["psnr"] == pytest.approx(psnr(noisy(photo(0)) // 2, photo(0)))
    assert row["niqe"] == pytest.approx(value("niqe", photos / "theirs/0.png"), rel=1e-6)
    assert {"psnr", "niqe"} < last["protocol"].keys()
    row, *_ = done("eval", "photos", *niqe, "--html", "p").json
    assert row["niqe"] == pytest.approx(value("niqe", photos / "photos/0.png"), rel=1e-6)
    row, _ = done("eval", "--networks", "network", "photos/0.png", *niqe).json
    assert row["niqe"] > 0 and row["seconds"] > 0 and "psnr" not in row


def test_pyiqa_is_missing(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = invoke("eval", "ours", "--no-reference", "best")
    assert_refused(ran, "--no-reference best: choose from niqe, musiq", status=2)
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    ran = invoke("eval", "ours", "--no-reference", "niqe")
    assert_refused(ran, "--no-reference needs pyiqa", "pip install 'blurkit[no-reference]'")


def test_values_are_those_of_the_installed_pyiqa(tmp_path: Path) -> None:
    pyiqa = pytest.importorskip("pyiqa")
    write(tmp_path / "photo.png", photo(0))
    row, *_ = done("eval", tmp_path / "photo.png", "--no-reference", "piqe", "--json", "-q").json
    pixels = imageio.imread(tmp_path / "photo.png").astype(np.float32) / 255
    measure = pyiqa.create_metric("piqe", device="cpu")  # of those that need no weights
    expected = float(measure(torch.from_numpy(pixels).permute(2, 0, 1)[None]))
    assert row["piqe"] == pytest.approx(expected, rel=1e-6)


# ---- reports and pictures ------------------------------------------------------------------------


def test_reports(tmp_path: Path) -> None:
    outputs = [word for kind in ("csv", "json", "md") for word in ("-o", tmp_path / f"s.{kind}")]
    options = ["--blurry", "blur", "--by-sequence", "--confidence", 0.95, *outputs]
    rows, last = measured(*options)
    content = json.loads((tmp_path / "s.json").read_text())
    assert content.pop("images") == rows and content == last
    assert [*last["sequences"]] == [f"seq{n}" for n in range(4)]
    expected = np.mean([psnr(noisy(photo(n)), photo(n)) for n in range(10, 15)])
    assert last["sequences"]["seq2"]["psnr"] == pytest.approx(expected)

    with (tmp_path / "s.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    images = [line for line in lines if line["row"] == "image"]
    assert [line["name"] for line in images] == [row["name"] for row in rows]
    for key in ("psnr", "ssim", "ssim_matlab", "psnr_blur"):
        assert [float(line[key]) for line in images] == [row[key] for row in rows]
    told = {(line["row"], line["name"]): line for line in lines}
    assert float(told["mean", "all"]["psnr"]) == last["total"]["psnr"]
    assert float(told["subset", "blurriest"]["ssim"]) == last["subsets"]["blurriest"]["ssim"]
    assert float(told["sequence", "seq2"]["psnr"]) == last["sequences"]["seq2"]["psnr"]
    assert [float(told[r, "all"]["psnr"]) for r in ("low", "high")] == last["confidence"]["psnr"]
    protocol = [line["name"] for line in lines if line["row"] == "protocol"]
    assert protocol == [f"{key}: {text}" for key, text in last["protocol"].items()]

    page = (tmp_path / "s.md").read_text()
    tables = [line for line in page.splitlines() if line.startswith("|")]
    assert f"| {rows[0]['name']} |" in page and f"| {last['total']['psnr']:.2f} |" in page
    assert len(tables) == (2 + 1 + 1 + 2 + 4) + (2 + 20)
    assert all(f"- {key}: {text}\n" in page for key, text in last["protocol"].items())

    before = files(tmp_path)
    again = invoke("eval", "restored", "sharp", *options)
    assert_refused(again, "s.csv: exists already; give --force to overwrite it")
    assert files(tmp_path) == before
    done("eval", "restored", "sharp", *outputs, "--force", "-q")
    assert files(tmp_path) != before


def test_reports_that_cannot_be_written(tmp_path: Path) -> None:
    ran = invoke("eval", "restored", "sharp", "-q", "-o", "/proc/scores.csv")
    assert_refused(ran, "/proc: cannot be written")
    (tmp_path / "empty").mkdir()
    assert invoke("eval", tmp_path / "empty", "-o", tmp_path / "scores.csv").status == 1
    assert files(tmp_path) == {}


def test_an_identical_pair_leaves_the_mean_finite(three: Path) -> None:
    write(three / "restored/nested/1.bmp", photo(1))
    ran = done("eval", "restored", "sharp", "--json", "-o", "s.csv", "-o", "s.json")
    assert ran.lines[-1] == "wrote 2 files to ./"
    *rows, last = ran.json
    assert rows[1]["psnr"] is None and rows[1]["ssim"] == pytest.approx(1)
    finite = [psnr(blurred(photo(n)), photo(n)) for n in (0, 2)]
    assert last["total"]["psnr"] == pytest.approx(np.mean(finite))
    assert (last["total"]["images"], last["total"]["infinite"]) == (3, 1)
    assert last["protocol"]["infinite"].endswith("left out of the mean PSNR: 1")
    assert report("s.json")["images"] == rows
    with (three / "s.csv").open(newline="") as file:
        assert [line["psnr"] for line in csv.DictReader(file)][1] == "inf"


def test_pictures(three: Path) -> None:
    command = ["eval", "restored", "sharp", "--pictures", "shown"]
    done(*command)
    shown = files(three / "shown")
    assert list(shown) == [f"nested/{n}.png" for n in range(3)]
    picture = imageio.imread("shown/nested/0.png")
    assert picture.shape == (48, 64 + 8 + 64, 3)
    np.testing.assert_array_equal(picture[:, :64], blurred(photo(0)))
    np.testing.assert_array_equal(picture[:, -64:], photo(0))
    assert_failed(invoke(*command), "nested/0", "exists already", "--force")
    assert files(three / "shown") == shown
    done(*command, "--force")


# ---- parts, and going on -------------------------------------------------------------------------

IMAGES = 14
OPTIONS = ["--by-sequence", "--confidence", 0.9, "--seed", 3]


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two runs of 14 images in two sequences; one image of a run is perfect."""
    monkeypatch.chdir(tmp_path)
    for n in range(IMAGES):
        sharp, name = photo(n, 24, 32), f"s{n % 2}/{n}.png"
        write(tmp_path / "sharp" / name, sharp)
        write(tmp_path / "blur" / name, blurred(sharp))
        write(tmp_path / "a" / name, sharp if n == 3 else blurred(sharp))
        write(tmp_path / "b" / name, noisy(sharp))
    return tmp_path


def report(name: str) -> Any:
    return json.loads(Path(name).read_text())


@pytest.mark.parametrize("runs", [["a"], ["a", "b"]])
def test_parts_are_merged_to_the_report_of_one_run(folders: Path, runs: list[str]) -> None:
    inputs = ["eval", *runs, "--reference", "sharp", "--blurry", "blur", "-q"]
    done(*inputs, *OPTIONS, "-o", "whole.json", "-o", "whole.md")
    for part in (1, 2):
        done(*inputs, "--part", f"{part}/3", "-o", "{part}.json")
        Path(f"{part}of3.json").rename(f"{part}.json")
    Path("3.jsonl").write_bytes(done(*inputs, "--part", "3/3", "--json").out)
    parts = ["1.json", "2.json", "3.jsonl"]
    merge = ["eval", "--merge", *parts[::-1], *OPTIONS]
    done(*merge, "-q", "-o", "merged.json", "-o", "merged.md")
    assert len(report("whole.json")["images"]) == IMAGES
    assert report("merged.json") == report("whole.json")
    assert Path("merged.md").read_bytes() == Path("whole.md").read_bytes()
    for refused, words, status in (
        (parts[:1], "parts 2-3 of 3 are missing", 2),
        ([parts[0], *parts], "is in another report, too", 2),
        ([*parts, "sharp"], "sharp: cannot be read", 1),
        ([*parts, "whole.md"], "whole.md: is not a whole report", 1),
        ([*parts, "--ssim", "matlab"], "--merge excludes --ssim", 2),
    ):
        assert_refused(invoke("eval", "--merge", *refused, "-q"), words, status=status)
    done(*inputs, "--part", "2/3", "-o", "2.json", "--force", "--ssim", "matlab")
    assert_refused(invoke(*merge), "2.json: ssim differs", status=2)


@pytest.mark.parametrize("runs", [["a"], ["a", "b"]])
def test_parts_without_an_image_are_merged(folders: Path, runs: list[str]) -> None:
    inputs = ["eval", *runs, "--reference", "sharp", "-q", "--confidence", 0.9]
    done(*inputs, "-o", "whole.json")
    parts = range(1, IMAGES + 3)
    for part in parts:
        done(*inputs, "--part", f"{part}/{len(parts)}", "-o", f"{part}.json")
    done("eval", "--merge", *(f"{n}.json" for n in parts[::-1]), *inputs[-3:], "-o", "merged.json")
    assert report("merged.json") == report("whole.json")


@pytest.mark.parametrize("inputs", [["a", "photos"], ["a", "--reference", "photos"]])
def test_references_that_are_blurry_are_doubted(inputs: list[str], three: Path) -> None:
    for n in range(3):
        write(three / f"photos/{n}.png", cv2.blur(photo(n), (9, 1)) if n else photo(n))
        write(three / f"a/{n}.png", cv2.blur(photo(n), (3, 1)) if n else photo(n))
        write(three / f"b/{n}.png", photo(n))
    warning = "the pictures in photos are blurrier than those to measure"
    assert done("eval", *inputs).err.count(warning) == 1
    assert "blurrier" not in done("eval", "a", "b").err


@pytest.mark.parametrize("inputs", [["a", "sharp"], ["a", "b", "--reference", "sharp"]])
def test_a_resumed_evaluation_is_that_of_one_run(folders: Path, inputs: list[str]) -> None:
    done("eval", *inputs, *OPTIONS, "-o", "whole.json", "-q")
    resumed = ["eval", *inputs, *OPTIONS, "-o", "again.json", "--resume", "-q"]
    done(*resumed)
    assert report("again.json") == report("whole.json")
    log = Path(".again.json.scores.jsonl")
    lines = log.read_text().splitlines(keepends=True)
    assert len(lines) == IMAGES
    # As if it had been killed while it wrote the sixth line; what it has measured is not read.
    log.write_text("".join(lines[:5]) + lines[5][:20])
    Path("again.json").unlink()
    finished = [json.loads(line)["name"] for line in lines[:5]]
    for name in finished:
        Path("a", f"{name}.png").write_bytes(b"")
    ran = done(*resumed, "--json")
    assert report("again.json") == report("whole.json")
    assert [line["name"] for line in ran.json[:5]] == finished
    assert log.read_text() == "".join(lines)
    ran = invoke(*resumed[:-1], "--confidence", 0.8)
    assert_refused(ran, "confidence was 0.9 and is 0.8", ".again.json.options.json", status=2)


def test_reports_that_no_log_belongs_to_are_kept(folders: Path) -> None:
    done("eval", "a", "sharp", "-o", "s.json", "-q")
    before = files(folders)
    ran = invoke("eval", "a", "sharp", "-o", "s.json", "-q", "--resume")
    assert_refused(ran, "s.json: exists already")
    assert files(folders) == before
