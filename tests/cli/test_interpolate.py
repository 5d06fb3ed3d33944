"""`blurkit interpolate`: the pictures between a sharp photo and its blurry one, and beyond."""

from itertools import pairwise
from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import torch

from blurkit.systems.msdi.networks import MSDINet
from tests.cli.command import assert_failed, assert_refused, files, piped, records
from tests.cli.guides import FP32, assert_made, expected, official, tensor
from tests.cli.invoke import assert_each_refused, done, invoke, results
from tests.cli.pictures import blurred, photo, write
from tests.engine.networks import steered

SHARP = photo(0)
BLURRY = blurred(SHARP)


@pytest.fixture
def pair() -> tuple[Path, Path]:
    return write("blurry.png", BLURRY), write("sharp.png", SHARP)


def between(amount: float, role: str = "reblur") -> np.ndarray:
    image = SHARP if role == "reblur" else BLURRY
    return expected(role, image, (1 - amount, SHARP), (amount, BLURRY))


@torch.inference_mode()
def restored_by(whole: MSDINet) -> np.ndarray:
    made: np.ndarray = whole(tensor(BLURRY))[-1][0].clamp(0, 1).numpy().transpose(1, 2, 0) * 255
    return made[:48, :64]


def energy(image: np.ndarray) -> float:
    values = image / 255
    below, right = values[1:] - values[:-1], values[:, 1:] - values[:, :-1]
    return float((below**2).mean() + (right**2).mean())


def test_seven_frames_beside_the_photo(joint: Path, pair: tuple[Path, Path]) -> None:
    ran = done("interpolate", *pair, "--steps", 7, "-c", joint, "--json", *FP32)
    *rows, last = ran.json
    names = [f"blurry.interpolated-{n}.png" for n in range(7)]
    assert sorted(files()) == sorted([*names, "blurry.png", "sharp.png"])
    energies = []
    for n, (name, row) in enumerate(zip(names, rows, strict=True)):
        made = imageio.imread(name)
        assert_made(made, between(n / 6))
        energies.append(energy(made))
        assert row["name"] == f"blurry/{n}" and row["amount"] == pytest.approx(n / 6)
        assert row["gradient_energy"] == pytest.approx(energies[-1])
        assert row["precision"] == "float32"
    assert np.abs(between(0) - between(1)).mean() > 1, "the amount matters"
    falling = int(all(a > b for a, b in pairwise(energies)))
    assert last["total"] == {"pairs": 1, "falling": falling}
    assert f"gradient energy falls at every step for {falling} of 1 pairs" in ran.err
    again = invoke("interpolate", *pair, "-c", joint, "-q")
    assert_failed(again, "blurry/0", "blurry.interpolated-0.png: exists already; give --force")


def test_beyond_both_ends(joint: Path, pair: tuple[Path, Path]) -> None:
    beyond = ("--from", -0.25, "--to", 2.25, "--steps", 11, "-o", "frames/")
    ran = done("interpolate", *pair, "-c", joint, "-q", *beyond, *FP32)
    assert (ran.out, ran.err) == (b"", "")
    for n in range(11):
        assert_made(imageio.imread(f"frames/blurry/{n:02}.png"), between(-0.25 + n * 0.25))
    assert len(files("frames")) == 11


def test_the_ends_are_those_of_reblur_and_deblur(joint: Path, pair: tuple[Path, Path]) -> None:
    common = ("-c", joint, "-q", *FP32)
    blurry, sharp = pair
    command = ("interpolate", *pair, *common, "--steps", 1, "--force")
    output = Path("end.png")
    for amount, guide in enumerate((sharp, blurry)):
        done("reblur", sharp, "--like", guide, "-o", output, *common, "--force")
        (frame,) = results("frame.h5", *command, "--to", amount)
        np.testing.assert_array_equal(frame.images["reblurred"], imageio.imread(output))
        assert frame.attrs["amount"] == amount
    done("deblur", blurry, "-o", output, *common, "--force")
    (frame,) = results("frame.h5", *command, "--deblur")
    np.testing.assert_array_equal(frame.images["restored"], imageio.imread(output))
    assert frame.attrs["restored_by"] == "enc.pt" and "reblurred" not in frame.images


def test_deblurring_and_circles(joint: Path, pair: tuple[Path, Path]) -> None:
    command = ("interpolate", *pair, "--steps", 3, "-c", joint, *FP32, "--force")
    for key, role, options in (("reblurred", "reblur", ()), ("restored", "deblur", ("--deblur",))):
        straight, round_ = (
            [r.images[key] for r in results("o.h5", *command, *options, *way)]
            for way in ((), ("--spherical",))
        )
        for n, frame in enumerate(straight):
            assert_made(frame, between(n / 2, role))
        first, middle, last = np.abs(np.subtract(straight, round_, dtype=int)).max(axis=(1, 2, 3))
        assert first <= 1 < middle and last <= 1


def test_many_pairs_from_folders_shards_and_streams(joint: Path, shard: Path) -> None:
    command = ("interpolate", "--steps", 3, "-c", joint, *FP32)
    ran = done(*command, shard, "-o", "frames.h5", "--sheet", "sheets/", "--json")
    names = [f"{r.name}/{n}" for r in records(shard) for n in range(3)]
    assert [row["name"] for row in ran.json[:-1]] == names
    assert ran.json[-1]["total"]["pairs"] == 4
    frames = records("frames.h5")
    assert [frame.name for frame in frames] == names
    assert sorted(files("sheets")) == [f"{r.name}.png" for r in records(shard)]
    for number, record in enumerate(records(shard)):
        sheet = imageio.imread(f"sheets/{record.name}.png")
        for n in range(3):
            frame = frames[3 * number + n].images["reblurred"]
            np.testing.assert_array_equal(sheet[:48, 72 * n : 72 * n + 64], frame)
        for role in ("blur", "sharp"):
            write(f"{role}/{record.name}.png", record.images[role])
    done(*command, "blur", "sharp", "-q", "-o", "frames/")
    piped(f"blurkit {' '.join(map(str, command))} - -q -o - < {shard} > s.h5")
    for streamed, frame in zip(records("s.h5"), frames, strict=True):
        assert streamed.name == frame.name
        image = imageio.imread(f"frames/{frame.name}.png")
        np.testing.assert_array_equal(image, frame.images["reblurred"])
        np.testing.assert_array_equal(image, streamed.images["reblurred"])


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_an_animation(joint: Path, pair: tuple[Path, Path], suffix: str) -> None:
    output = Path(f"out/blur{suffix}")
    command = ("interpolate", *pair, "-c", joint, "-o", output, *FP32)
    ran = done(*command, "--steps", 4, "--fps", 5, "--sheet", "out/sheet.png")
    assert f"wrote {output}" in ran.err
    assert sorted(files("out")) == [f"blur{suffix}", "sheet.png"]
    sheet = imageio.imread("out/sheet.png")
    with PIL.Image.open(output) as animation:
        assert animation.n_frames == 4 and animation.size == (64, 48)  # type: ignore[attr-defined]
        for n in range(4):
            animation.seek(n)
            animation.load()
            assert animation.info["duration"] == (200 if n in (1, 2) else 800)
            shown = np.asarray(animation.convert("RGB"))
            error = np.abs(shown.astype(int) - sheet[:48, 72 * n : 72 * n + 64])
            assert error.mean() < 12 if suffix == ".gif" else not error.any()
    assert_refused(invoke(*command, "-q"), f"blur{suffix}: exists already; give --force")


def test_pictures_of_16_bits_and_gray(joint: Path) -> None:
    for name, image in (("sharp", SHARP), ("blurry", BLURRY)):
        deep = image[:, :, 1].astype(np.uint16) * 257
        Path(f"{name}.png").write_bytes(imagecodecs.png_encode(deep))
    pair = (Path("blurry.png"), Path("sharp.png"))
    command = ("interpolate", *pair, "--steps", 3, "-c", joint, "-q", *FP32)
    done(*command)
    made = imageio.imread("blurry.interpolated-2.png")
    assert made.dtype == np.uint16 and made.shape == (48, 64)
    done(*command, "-o", "blur.webp", "--sheet", "sheet.jpg")
    with PIL.Image.open("blur.webp") as animation:
        animation.seek(2)
        shown = np.asarray(animation.convert("RGB"))
    np.testing.assert_allclose(shown[:, :, 0], made / 257, atol=0.51)


@pytest.mark.slow
def test_official_files(pair: tuple[Path, Path]) -> None:
    first, second = steered(0), steered(1)
    torch.manual_seed(5)
    whole = MSDINet(first.net_prior, first.prior_upsampling, width=8, hidden=8).eval()
    joint, network = official(Path("joint.pth"), first), official(Path("msdi_net.pth"), whole)
    encoder = official(Path("net_E.pth"), second.net_prior)
    command = ("interpolate", *pair, "--steps", 2, "--tile", 64, "-q", *FP32)

    def made(*options: object) -> list[np.ndarray]:
        key = "restored" if "--deblur" in options else "reblurred"
        frames = results("frames.h5", *command, *options, "--force")
        return [record.images[key] for record in frames]

    for frame, amount in zip(made("-c", joint), (0, 1), strict=True):
        assert_made(frame, between(amount))
    mixed = steered(0)
    mixed.net_prior = second.net_prior
    for frame, guide in zip(made("-c", joint, "--encoder", encoder), (SHARP, BLURRY), strict=True):
        assert_made(frame, expected("reblur", SHARP, (1, guide), networks=mixed))
    own = made("-c", network, "--deblur")
    other = made("-c", network, "--encoder", encoder, "--deblur")
    assert_made(own[1], restored_by(whole))
    deblur = ("deblur", pair[0], "-c", network, "--tile", 64, *FP32)
    for frames, options in ((own, ()), (other, ("--encoder", encoder))):
        (record,) = results("restored.h5", *deblur, *options, "--force")
        np.testing.assert_array_equal(frames[1], record.images["restored"])
    assert any((a != b).any() for a, b in zip(own, other, strict=True))
    cases: dict[tuple[object, ...], str] = {
        ("-c", network): "msdi_net.pth: holds deblur (MSDINet); interpolation needs",
        ("-c", encoder, "--deblur"): "net_E.pth: holds encoder (DegradationEncoder); interpol",
    }
    assert_each_refused(cases, *command, "-o", "x.gif", status=1)


def test_wrong_usage(joint: Path, pair: tuple[Path, Path], shard: Path) -> None:
    several = "is one animation, but there are more; name a folder/"
    cases: dict[tuple[object, ...], str] = {
        (shard, "-o", "blur.gif"): several,
        (shard, "-o", "blur.png"): several,
        (shard, "-o", "f.h5", "--sheet", "s.png"): "s.png is one file, but "
        "there are several pictures; name a folder/",
        (*pair, "-o", "blur.jpg"): "an animation is one of .gif .png .apng .webp",
        (*pair, "-o", "blur.mp4"): "is a film, but",
        (*pair, "--sheet", "s.gif"): "name an image, or a folder (end it with /)",
        (*pair, "--from", "nan"): "--from and --to are finite numbers",
        (*pair, "--to", "inf"): "--from and --to are finite numbers",
        (*pair, "--json", "-o", "-"): "both write to standard output",
        (*pair, "--tile", "9"): "multiple of 16, at least 32",
        ("-", "-c", "-"): "standard input can be read only once",
    }
    assert_each_refused(cases, "interpolate", "--steps", 2, "-c", joint, "-q")
    wrong = {("--steps", 0): "", ("--fps", 0): "", ("--steps", "many"): ""}
    assert_each_refused(wrong, "interpolate", *pair, "-c", joint)


def test_existing_sheets_are_kept(joint: Path, pair: tuple[Path, Path], shard: Path) -> None:
    taken = {("--sheet", write("sheet.png", photo(9))): "sheet.png: exists already; give --force"}
    assert_each_refused(taken, "interpolate", *pair, "-c", joint, "-q", status=1)
    first = write("sheets/scene0/0.png", photo(9))
    given = (shard, "--steps", 2, "-o", "f.h5", "--sheet", "sheets/")
    ran = invoke("interpolate", *given, "-c", joint, "-q")
    assert_failed(ran, "sheets/", "scene0/0.png: exists already")
    assert len(files("sheets")) == 4 and len(records("f.h5")) == 8
    np.testing.assert_array_equal(imageio.imread(first), photo(9))


def test_bad_pairs(joint: Path, pair: tuple[Path, Path]) -> None:
    command = ("interpolate", "-c", joint, "-q")
    cases: dict[tuple[object, ...], str] = {
        (): "blurry.png: holds no pair of a sharp and a blurry image",
        ("missing.png",): "missing.png: no such file or folder",
    }
    assert_each_refused(cases, *command, pair[0], status=1)
    ran = invoke(*command, pair[0], "missing.h5")
    assert_failed(ran, "missing.h5", "missing.h5: no such file or folder")
    assert [*files()] == ["blurry.png", "sharp.png"]
    for number in range(3):
        write(f"b/{number}.png", blurred(photo(number)))
        write(f"s/{number}.png", photo(number, 48, 60 if number == 1 else 64))
    Path("b/2.png").write_text("no image")
    write("s/3.png", photo(3))
    ran = invoke(*command, "b", "s", "--steps", 2, "-o", "out/")
    assert_failed(ran, "1", "blur is 64x48, sharp is 60x48")
    assert_failed(ran, "2", "2.png: is not an image")
    assert_failed(ran, "3", "no partner of that name")
    assert ran.lines[-1].startswith("3 failed, 1 interpolated")
    assert sorted(files("out")) == ["0/0.png", "0/1.png"]


def test_a_full_disk(joint: Path, small_disk: Path) -> None:
    sharp = np.random.default_rng(0).integers(0, 256, (320, 400, 3), np.uint8)
    pair = write("b.png", blurred(sharp)), write("s.png", sharp)
    command = ("interpolate", *pair, "--steps", 3, "--tile", 400, "-c", joint, "-q", "-o")
    for name in ("blur.webp", "frames.h5"):
        ran = invoke(*command, small_disk / name)
        assert_refused(ran, str(small_disk / name), "the disk is full; free some space")
        assert files(small_disk) == {}
    ran = invoke(*command, "x.gif", "--sheet", small_disk / "sheet.png")
    assert_refused(ran, "sheet.png: the disk is full; free some space")
    assert files(small_disk) == {}
