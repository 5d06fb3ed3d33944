"""`blurkit eval` beyond PSNR and SSIM: what each option adds, and how it is written down."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from blurkit.nn.features import BACKBONES, FeatureNetwork
from tests.cli.command import (
    ENVIRONMENT,
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    files,
    photo,
    run,
    shell,
    write,
)
from tests.cli.invoke import invoke
from tests.metrics.oracle import noisy


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


def measured(*options: object) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The images and the last line of the two folders with `options`."""
    ran = invoke("eval", "restored", "sharp", *options, "--json", "-q")
    assert_done(ran)
    *rows, last = ran.json
    assert len(rows) == 20
    return rows, last


def psnr(image: np.ndarray, sharp: np.ndarray) -> float:
    return float(peak_signal_noise_ratio(sharp, image))


def number(name: str) -> int:
    return int(Path(name).name)


def test_subsets() -> None:
    assert "subsets" not in measured()[1]
    rows, last = measured("--blurry", "blur")
    before = {n: psnr(blurred(photo(n)), photo(n)) for n in range(20)}
    after = {n: psnr(noisy(photo(n)), photo(n)) for n in range(20)}
    for row in rows:
        assert row["psnr_blur"] == pytest.approx(before[number(row["name"])])
        assert row["psnr"] == pytest.approx(after[number(row["name"])])
    order = sorted(before, key=lambda n: before[n])
    for part, members in {"blurriest": order[:2], "sharpest": order[-2:]}.items():
        found = last["subsets"][part]
        assert found["images"] == 2
        assert found["psnr"] == pytest.approx(np.mean([after[n] for n in members]))
        assert found["psnr_blur"] == pytest.approx(np.mean([before[n] for n in members]))
    assert last["total"]["images"] == 20
    assert last["total"]["psnr_blur"] == pytest.approx(np.mean([*before.values()]))
    assert "2 of 20" in last["protocol"]["subsets"]
    assert "blur" in last["protocol"]["psnr_blur"]


def test_subsets_of_a_dataset(tmp_path: Path) -> None:
    """The blurry images of records are known; under ten images there is no tenth."""
    for count, there in ((9, False), (10, True)):
        for n in range(count):
            write(tmp_path / f"{count}/blur/{n}.png", blurred(photo(n)))
            write(tmp_path / f"{count}/sharp/{n}.png", photo(n))
        ran = invoke("eval", tmp_path / f"{count}", "--json")
        assert_done(ran)
        assert ("subsets" in ran.json[-1]) == there
        assert ("blurriest 10 % (1)" in ran.err) == there


def test_sequences() -> None:
    _, last = measured("--by-sequence")
    assert [*last["sequences"]] == [f"seq{n}" for n in range(4)]
    for place, found in enumerate(last["sequences"].values()):
        expected = [psnr(noisy(photo(n)), photo(n)) for n in range(5 * place, 5 * place + 5)]
        assert found["images"] == 5
        assert found["psnr"] == pytest.approx(np.mean(expected))


def test_metrics_by_name() -> None:
    assert measured("--metric", "psnr-y") == measured("--y-psnr")
    assert_refused(invoke("eval", "a.png", "b.png", "--metric", "best"), "choose from", status=2)


def test_kinds_of_ssim() -> None:
    rows, last = measured("--ssim", "scikit-image", "--ssim", "basicsr-y", "--y-psnr")
    for row in rows:
        sharp = photo(number(row["name"]))
        restored = noisy(sharp)
        assert [*row] == ["name", "psnr", "ssim_skimage", "ssim_y", "psnr_y", "sequence"]
        expected = structural_similarity(restored, sharp, channel_axis=2)
        assert row["ssim_skimage"] == pytest.approx(expected, abs=1e-6)
        y, known = rgb2ycbcr(restored)[:, :, 0], rgb2ycbcr(sharp)[:, :, 0]
        expected = peak_signal_noise_ratio(known, y, data_range=255)
        assert row["psnr_y"] == pytest.approx(expected, abs=1e-4)
        gaussian = structural_similarity(
            y, known, gaussian_weights=True, use_sample_covariance=False, data_range=255
        )
        assert row["ssim_y"] == pytest.approx(gaussian, abs=1e-6)
    assert {"psnr_y", "ssim_y", "ssim_skimage"} < set(last["protocol"])
    assert "ssim_matlab" not in last["protocol"]
    assert_refused(
        invoke("eval", "restored", "sharp", "--ssim", "best"), "--ssim best: choose from", status=2
    )


def test_alignment(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    sharp = photo(3, 96, 96)
    write(tmp_path / "a/moved.png", np.roll(sharp, (1, 2), (0, 1)) // 2)
    write(tmp_path / "a/flat.png", np.full_like(sharp, 99))
    for name in ("moved", "flat"):
        write(tmp_path / f"b/{name}.png", sharp)
    ran = invoke("eval", tmp_path / "a", tmp_path / "b", "--align", "--json", "-q")
    assert_failed(ran, "flat", "flat: cannot be aligned: ECC does not converge")
    row, last = ran.json
    assert row["psnr"] == pytest.approx(psnr(np.roll(sharp, (1, 2), (0, 1)) // 2, sharp))
    assert row["psnr_aligned"] > row["psnr"] + 5
    assert row["ssim_aligned"] > row["ssim"] + 0.1
    assert "RealBlur" in last["protocol"]["psnr_aligned"]


def test_alignment_without_opencv() -> None:
    script = "import sys; sys.modules['cv2'] = None; from blurkit.cli.app import main; main()"
    command = [sys.executable, "-c", script, "eval", "restored", "sharp", "--align"]
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: alignment needs OpenCV")
    assert line.endswith("pip install 'blurkit[align]'")
    done = subprocess.run(command[:-1], env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_lpips(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    alex = next(backbone for backbone in BACKBONES if backbone.name == "AlexNet")
    layers = [*alex.layers]
    state = FeatureNetwork(alex, layers).state_dict()
    torch.save(state, tmp_path / "alex.pth")
    channels = (64, 192, 384, 256, 256)
    heads = {f"lin{i}.model.1.weight": torch.ones(1, n, 1, 1) for i, n in enumerate(channels)}
    save_file(heads, tmp_path / "heads.safetensors")
    options = ["--lpips", tmp_path / "alex.pth", "--lpips-heads", tmp_path / "heads.safetensors"]
    rows, last = measured(*options, "--device", "cpu")
    assert last["total"]["lpips"] == pytest.approx(np.mean([row["lpips"] for row in rows]))
    assert "AlexNet (alex.pth)" in last["protocol"]["lpips"]

    # With heads of ones it is the squared distance of unit vectors: 2 - 2 cos.
    backbone = FeatureNetwork(alex, layers)
    backbone.load_state_dict(state)
    backbone.normalise = True
    pair = np.stack([noisy(photo(0)), photo(0)]).astype(np.float32) / 255
    maps = backbone(torch.from_numpy(pair).permute(0, 3, 1, 2))
    expected = sum(2 - 2 * torch.cosine_similarity(m[0], m[1], dim=0).mean() for m in maps)
    assert rows[0]["lpips"] == pytest.approx(float(expected), rel=1e-3)

    refused = invoke("eval", "restored", "sharp", *options[:2])
    assert_refused(refused, "give --lpips-heads FILE or set BLURKIT_LPIPS_HEADS")
    monkeypatch.setenv("BLURKIT_LPIPS", str(tmp_path / "alex.pth"))
    monkeypatch.setenv("BLURKIT_LPIPS_HEADS", str(tmp_path / "heads.safetensors"))
    assert measured("--device", "cpu")[0] == rows


def test_confidence() -> None:
    rows, last = measured("--confidence", 0.9)
    assert last["confidence"]["level"] == 0.9
    values = np.array([row["psnr"] for row in rows])
    drawn = np.random.default_rng(7).choice(values, (20000, 20)).mean(axis=1)
    expected = np.percentile(drawn, [5, 95])
    assert last["confidence"]["psnr"] == pytest.approx(expected, abs=0.1)
    assert measured("--confidence", 0.9)[1] == last
    assert measured("--confidence", 0.9, "--seed", 1)[1]["confidence"] != last["confidence"]
    for level in (0, 1, 95):
        ran = invoke("eval", "restored", "sharp", "--confidence", level)
        assert_refused(ran, f"--confidence {level}", "between 0 and 1", status=2)
    low, high = last["confidence"]["psnr"]
    assert (
        f"[{low:.2f}, {high:.2f}]" in invoke("eval", "restored", "sharp", "--confidence", 0.9).err
    )


def test_the_cost_of_a_network(checkpoint: Path, sides: Path) -> None:
    state = torch.load(checkpoint, weights_only=True)["networks"]["deblur"]
    _, last = measured("-c", checkpoint)
    small = last["network"]
    assert small["name"] == "MSDINet"
    assert small["parameters"] <= sum(tensor.numel() for tensor in state.values())
    assert small["input_size"] == "256x256"
    large = measured("-c", checkpoint, "--input-size", "512x256")[1]["network"]
    assert large["gmacs"] == pytest.approx(2 * small["gmacs"], rel=0.1)  # the latents' size stays
    ran = invoke("eval", "restored", "sharp", "-c", checkpoint)
    assert f"{small['parameters']:,} parameters" in " ".join(ran.err.split())
    piped = shell(f"cat {checkpoint} | blurkit eval restored sharp -c - --json -q", sides)
    assert piped.json[-1] == last

    for options, words in {
        ("--input-size", "300"): "--input-size 300: write WIDTHxHEIGHT",
        ("--input-size", "0x16"): "--input-size 0x16: write WIDTHxHEIGHT",
        ("--input-size", "260x256"): "MSDINet takes sides that are multiples of",
    }.items():
        ran = invoke("eval", "restored", "sharp", "-c", checkpoint, *options)
        assert_refused(ran, words, status=2)
    assert_refused(invoke("eval", "restored", "sharp", "-c", "no.pt"), "no.pt: no such checkpoint")
    ran = invoke("eval", "restored", "sharp", "--encoder", checkpoint)
    assert_refused(ran, "--encoder requires --checkpoint", status=2)
    ran = run("eval", "-", "-c", "-")
    assert_refused(ran, "standard input can be read only once", status=2)


def test_output_files(tmp_path: Path) -> None:
    write(tmp_path / "names|odd/sharp/a,b.png", photo(0))
    outputs = [
        option for kind in ("csv", "json", "md") for option in ("-o", tmp_path / f"s.{kind}")
    ]
    options = ["--blurry", "blur", "--by-sequence", "--confidence", 0.95, *outputs]
    rows, last = measured(*options)

    content = json.loads((tmp_path / "s.json").read_text())
    assert content.pop("images") == rows
    assert content == last

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
    assert f"| {rows[0]['name']} |" in page
    assert len(tables) == (2 + 1 + 1 + 2 + 4) + (2 + 20)
    assert f"| {last['total']['psnr']:.2f} |" in page
    for key, text in last["protocol"].items():
        assert f"- {key}: {text}\n" in page

    before = files(tmp_path)
    again = invoke("eval", "restored", "sharp", *options)
    assert_refused(again, "s.csv: exists already; give --force to overwrite it")
    assert files(tmp_path) == before
    assert_done(invoke("eval", "restored", "sharp", *outputs, "--force", "-q"))
    assert files(tmp_path) != before


def test_output_files_that_cannot_be(tmp_path: Path) -> None:
    ran = invoke("eval", "restored", "sharp", "-o", tmp_path / "scores.txt")
    assert_refused(ran, "scores.txt: name a file that ends in .csv, .json, .md", status=2)
    ran = invoke("eval", "restored", "sharp", "-q", "-o", "/proc/scores.csv")
    assert_refused(ran, "/proc/scores.csv: cannot be written")
    (tmp_path / "empty").mkdir()
    ran = invoke("eval", tmp_path / "empty", "-o", tmp_path / "scores.csv")
    assert ran.status == 1
    assert files(tmp_path) == {}


def test_identical_images_in_files(tmp_path: Path) -> None:
    for side in "ab":
        write(tmp_path / f"{side}/0.png", photo(0))
        write(tmp_path / f"{side}/1.png", photo(1) if side == "a" else blurred(photo(1)))
    outputs = ["-o", tmp_path / "s.csv", "-o", tmp_path / "s.json"]
    ran = invoke("eval", tmp_path / "a", tmp_path / "b", *outputs, "--json", "-q")
    assert_done(ran)
    assert json.loads((tmp_path / "s.json").read_text())["images"][0]["psnr"] is None
    assert ran.json[-1]["protocol"]["infinite"].endswith("left out of the mean PSNR: 1")
    with (tmp_path / "s.csv").open(newline="") as file:
        assert next(line["psnr"] for line in csv.DictReader(file)) == "inf"


def test_blurry_images_that_cannot_be_paired(sides: Path, tmp_path: Path) -> None:
    for inputs in (["restored"], ["restored/seq0/0.png", "sharp/seq0/0.png"], ["-"]):
        ran = invoke("eval", *inputs, "--blurry", "blur")
        assert_refused(ran, "--blurry requires two folders RESTORED/ SHARP/", status=2)
    ran = invoke("eval", "restored", "sharp", "--blurry", "none")
    assert_refused(ran, "none: no such file or folder")
    write(tmp_path / "some/seq0/0.png", photo(0))
    ran = invoke("eval", "restored", "sharp", "--blurry", tmp_path / "some", "--json", "-q")
    assert_failed(ran, "seq0/1", f"seq0/1: no image of that name in {tmp_path}/some")
    assert len(ran.json) == 2
