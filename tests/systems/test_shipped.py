"""The weights that come with blurkit: commands use them unasked, and they do what is claimed."""

import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import skimage.data
import torch

import blurkit
from blurkit.io.checkpoints import load_checkpoint, save_checkpoint
from blurkit.io.records import Record, to_float
from blurkit.metrics.psnr import psnr
from blurkit.systems.system import load_shipped, shipped_file
from tests.benchmarks.pages import known
from tests.benchmarks.quality_pages import NETWORK as ALONE
from tests.benchmarks.random_blur import BINS, along, fringes, histogram, weave
from tests.benchmarks.real_pairs import held_out
from tests.cli.command import ENVIRONMENT, assert_done, records, run
from tests.cli.invoke import done, invoke
from tests.cli.pictures import blurred, photo, write
from tests.shared import ROOT

SHIPPED = shipped_file("msdi")
USING = "using the weights that come with blurkit (MSDI-Net, "
NETWORK = ["--method", "network"]


def assert_introduced(lines: list[str]) -> None:
    """One line, the first, tells whose weights are used, of which date, and how to name others."""
    date = load_shipped().provenance["date"]
    assert lines[0] == f"{USING}{date}); -c names others"
    assert not any(USING in line for line in lines[1:])


def test_deblur_in_a_process_of_its_own(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    exif[274], exif[271] = 8, "A camera"
    PIL.Image.fromarray(blurred(photo(3))).save(tmp_path / "photo.jpg", exif=exif, quality=80)
    ran = run("deblur", "photo.jpg", *NETWORK, cwd=tmp_path)
    assert_done(ran)
    assert ran.out == b"" and ran.lines[-1] == "wrote photo.deblurred.jpg"
    assert_introduced(ran.lines)
    with PIL.Image.open(tmp_path / "photo.deblurred.jpg") as made:
        assert made.size == (64, 48)
        assert (made.getexif()[274], made.getexif()[271]) == (8, "A camera")
        tables = made.quantization  # type: ignore[attr-defined]
    with PIL.Image.open(tmp_path / "photo.jpg") as like:
        assert tables == like.quantization  # type: ignore[attr-defined]


def test_the_message_comes_once_and_not_to_the_quiet(tmp_path: Path) -> None:
    for number in range(3):
        write(tmp_path / f"photos/{number}.png", photo(number))
    photos = tmp_path / "photos"
    assert_introduced(done("deblur", photos, *NETWORK, "-o", tmp_path / "some.h5").lines)
    assert done("deblur", photos, *NETWORK, "-o", tmp_path / "quiet.h5", "-q").err == ""
    ran = done("deblur", photos, "-c", SHIPPED, "-o", tmp_path / "named.h5")
    assert "weights that come with blurkit" not in ran.err
    made = [records(tmp_path / f"{name}.h5") for name in ("some", "quiet", "named")]
    for one, *others in zip(*made, strict=True):
        assert one.attrs["restored_by"] in (SHIPPED.name, SHIPPED.with_suffix(".onnx").name)
        assert one.images["restored"].shape == one.images["blur"].shape
        for other in others:
            difference = other.images["restored"].astype(int) - one.images["restored"]
            assert np.abs(difference).max() <= 1 and (difference != 0).mean() < 1e-3


def test_the_commands_that_blur(tmp_path: Path) -> None:
    a, sharp = write(tmp_path / "a.png", photo(1)), write(tmp_path / "sharp.png", photo(2))
    blur = write(tmp_path / "blur.png", blurred(photo(2)))
    for command in (
        ["reblur", a, "--like", blur, *NETWORK],
        ["transfer", a, sharp, blur, "--system", "msdi"],
        ["interpolate", blur, sharp, "--steps", 2],
        ["interpolate", blur, sharp, "--steps", 2, "--deblur", "--force"],
    ):
        assert_introduced(done(*command).lines)
    for name in ("a.reblurred", "a.transferred", "blur.interpolated-0", "blur.interpolated-1"):
        assert imageio.imread(tmp_path / f"{name}.png").shape == (48, 64, 3)


def test_an_encoder_of_another_file_takes_its_place(tmp_path: Path) -> None:
    source = write(tmp_path / "photo.png", blurred(photo(4, 96, 96)))
    other = load_checkpoint(SHIPPED)
    other.networks = {"encoder": other.networks["encoder"]}
    with torch.no_grad():
        for tensor in other.networks["encoder"].values():
            if tensor.ndim > 1:
                tensor.mul_(-1)
    save_checkpoint(other, tmp_path / "encoder.pt")
    results = []
    by_torch = ["-c", SHIPPED]  # without it, ONNX Runtime rounds otherwise
    for options in (by_torch, ["--encoder", SHIPPED], ["--encoder", tmp_path / "encoder.pt"]):
        output = tmp_path / f"{len(results)}.png"
        ran = done("deblur", source, *options, "-o", output, "--precision", "fp32")
        if options is not by_torch:
            assert_introduced(ran.lines)
        results.append(imageio.imread(output))
    np.testing.assert_array_equal(results[1], results[0])
    assert not np.array_equal(results[2], results[0])


def test_a_package_without_the_file(tmp_path: Path) -> None:
    package = tmp_path / "lib/blurkit"
    shutil.copytree(ROOT / "blurkit", package, ignore=shutil.ignore_patterns("*.pt", "__pycache__"))
    write(tmp_path / "photo.png", photo(1))
    environment = ENVIRONMENT | {"PYTHONPATH": str(tmp_path / "lib")}
    for command in (["deblur", "photo.png", *NETWORK], ["info"]):
        python = [sys.executable, "-m", "blurkit", *command]
        ran = subprocess.run(python, cwd=tmp_path, env=environment, capture_output=True, text=True)
        missing = "weights/msdi.pt: the weights that come with blurkit are missing"
        (line,) = ran.stderr.splitlines()
        assert ran.returncode == 1, ran.stderr
        assert line.startswith(f"error: {package}/{missing}")
        assert "install it again, or name others with -c" in line
    assert not (tmp_path / "photo.deblurred.png").exists()


def test_info_tells_where_they_come_from() -> None:
    (told,) = done("info", "--json").json
    assert told["file"] == str(SHIPPED)
    assert list(told["networks"]) == ["encoder", "latents", "reblur", "deblur"]
    about = told["provenance"]
    assert about["precision"] == "float16"
    assert all("; terms: " in line for line in about["trained_on"])
    for stage in ("reblur", "deblur"):
        assert about[stage]["command"].startswith(f"blurkit train-{stage} ")
        assert {"data", "records", "seed", "iterations", "date"} <= about[stage].keys()
    assert f"    date: {about['date']}\n" in invoke("info").out.decode()


def test_they_are_small_and_halved() -> None:
    files = (SHIPPED, SHIPPED.with_suffix(".onnx"), shipped_file("deconvolution"))
    assert sum(file.stat().st_size for file in files) <= 45e6  # all that deblur uses
    held = torch.load(SHIPPED, weights_only=True)["networks"]
    tensors = [tensor for state in held.values() for tensor in state.values()]
    assert {t.dtype for t in tensors if t.ndim > 1} == {torch.float16}
    assert all(torch.isfinite(tensor).all() for tensor in tensors)


@pytest.mark.parametrize("name", [pytest.param("gopro", marks=pytest.mark.slow), "reds_180p"])
def test_they_deblur_a_real_pair_by_the_documented_gain(name: str, tmp_path: Path) -> None:
    """A pair that training never saw; bfloat16 and float32 may differ by hundredths of a dB."""
    documented = known("quality")
    digest = hashlib.sha256(SHIPPED.read_bytes()).hexdigest()
    told = "the documented weights are others: run just quality"
    assert documented["weights"]["sha256"] == digest, told
    pair = min(held_out(name), key=lambda record: (record.images["blur"].size, record.name))
    blurkit.write_records([pair], tmp_path / "pair.h5")
    done("deblur", tmp_path / "pair.h5", *NETWORK, "-o", tmp_path / "restored.h5", "-q")
    measured = invoke("eval", tmp_path / "restored.h5", "--json", "-q").json[0]
    (row,) = (row for row in documented["held_out"][name]["pairs"] if row["name"] == pair.name)
    scores = row["scores"]
    assert measured["psnr_blur"] == pytest.approx(scores["blurry"]["psnr"], abs=1e-3)
    assert measured["psnr"] == pytest.approx(scores[ALONE]["psnr"], abs=0.05)


@pytest.mark.slow
def test_the_wheel_carries_them(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", ROOT, "--no-deps", "-q", "-w", tmp_path]
    subprocess.run(command, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("blurkit/weights/msdi.pt") == SHIPPED.read_bytes()


KERNEL_SPACE = "using the weights that come with blurkit (encoded blur kernel space, "


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The middles of real pairs that were not trained on."""
    path = tmp_path_factory.mktemp("real") / "pairs.h5"
    middles = (
        Record(record.name, {r: i[232:488, 512:768] for r, i in record.images.items()})
        for record in held_out("gopro")
    )
    blurkit.write_records(middles, path)
    return path


def test_it_reblurs_real_pairs_as_they_are(pairs: Path, tmp_path: Path) -> None:
    """A pair's own blur suits it better than another's."""
    reblur = ["reblur", pairs, "--system", "kernel-space"]
    for name, more in (("own", ()), ("others", ("--shuffle",))):
        assert done(*reblur, *more, "-o", tmp_path / f"{name}.h5").lines[0].startswith(KERNEL_SPACE)
    others = {record.name: record.images["blur"] for record in records(tmp_path / "others.h5")}
    for record in records(tmp_path / "own.h5"):
        reblurred, sharp = record.attrs["reblurred_psnr"], record.attrs["reblurred_psnr_sharp"]
        assert reblurred > 30 and reblurred > sharp + 6
        own = psnr(record.images["reblurred"], record.images["blur"])
        assert own > psnr(others[record.name], record.images["blur"]) + 1


def test_info_tells_of_the_kernel_space() -> None:
    (told,) = invoke("info", shipped_file("kernel-space"), "--json", "-q").json
    assert list(told["networks"]) == ["kernel_space", "codes"] and told["system"] == "kernel-space"
    about = told["provenance"]
    assert about["agreement"]["kernel_space"] >= 60 and len(about["trained_on"]) == 5
    assert about["kernel_space"]["iterations"] == 16_000
    assert shipped_file("kernel-space").stat().st_size < 4_000_000


def test_random_blur_of_the_shipped_weights_is_motion_without_fringes() -> None:
    """Normal codes blurred all alike, without direction: within 3.2 dB, colours from 7 on."""
    weights = blurkit.load(system="kernel-space", precision="fp32")
    photo = skimage.data.coffee()[:256, 150:406]
    gray = np.repeat(photo.mean(axis=2, keepdims=True).round().astype(np.uint8), 3, axis=2)
    made = [weights.random_blur(gray, seed=seed) for seed in range(12)]
    strengths = [psnr(image, gray) for image in made]
    assert np.ptp(strengths) > 6 and min(strengths) > 18 and max(strengths) < 45
    shapes = [along(to_float(image), to_float(gray)) for image in made]
    assert max(anisotropy for anisotropy, _ in shapes) > 0.4
    directions = histogram([direction for _, direction in shapes], BINS["direction"])
    assert sum(percent > 0 for percent in directions) >= 3
    assert max(fringes(image) for image in made) <= 5
    assert max(weave(to_float(image)) for image in made) < 0.03
