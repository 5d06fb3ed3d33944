"""`blurkit interpolate`: the pictures between a sharp photo and its blurry one, and beyond."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import torch

from blurkit.systems.msdi.networks import MSDINet
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    files,
    photo,
    records,
    run,
    shell,
    write,
)
from tests.cli.guides import FP32, assert_made, expected, official, tensor
from tests.cli.invoke import invoke
from tests.engine.networks import steered

SHARP = photo(0)
BLURRY = blurred(SHARP)


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "blurry.png", BLURRY), write(tmp_path / "sharp.png", SHARP)


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


# ---- frames --------------------------------------------------------------------------------------


def test_seven_frames_beside_the_photo(joint: Path, pair: tuple[Path, Path]) -> None:
    folder = pair[0].parent
    ran = run("interpolate", "blurry.png", "sharp.png", "--steps", 7, "-c", joint, "--json",
              *FP32, cwd=folder)  # fmt: skip
    assert_done(ran)
    *rows, last = ran.json
    names = [f"blurry.interpolated-{n}.png" for n in range(7)]
    assert sorted(files(folder)) == sorted([*names, "blurry.png", "sharp.png"])
    energies = []
    for n, (name, row) in enumerate(zip(names, rows, strict=True)):
        made = imageio.imread(folder / name)
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


def test_beyond_both_ends(joint: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    ran = invoke("interpolate", *pair, "--from", -0.25, "--to", 1.5, "--steps", 8, "-c", joint,
                 "-o", f"{tmp_path}/frames/", "-q", *FP32)  # fmt: skip
    assert (ran.status, ran.out, ran.err) == (0, b"", "")
    for n in range(8):
        amount = -0.25 + n * 0.25
        assert_made(imageio.imread(tmp_path / f"frames/blurry/{n}.png"), between(amount))
    assert len(files(tmp_path / "frames")) == 8
    assert_done(invoke("interpolate", *pair, "--steps", 11, "-c", joint, "-o",
                       f"{tmp_path}/more/", "-q"))  # fmt: skip
    assert sorted(files(tmp_path / "more"))[::10] == ["blurry/00.png", "blurry/10.png"]


def test_the_ends_are_those_of_reblur_and_deblur(
    joint: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    common = ("-c", joint, "-q", *FP32)
    blurry, sharp = pair
    for amount, guide in enumerate((sharp, blurry)):
        output, frames = tmp_path / f"{amount}.png", tmp_path / f"{amount}.h5"
        assert_done(invoke("reblur", sharp, "--like", guide, "-o", output, *common))
        assert_done(invoke("interpolate", *pair, "--steps", 1, "--to", amount, "-o", frames,
                           *common))  # fmt: skip
        (frame,) = records(frames)
        np.testing.assert_array_equal(frame.images["reblurred"], imageio.imread(output))
        assert frame.attrs["amount"] == amount
    assert_done(invoke("deblur", blurry, "-o", tmp_path / "restored.png", *common))
    assert_done(invoke("interpolate", *pair, "--steps", 1, "--deblur", "-o", tmp_path / "d.h5",
                       *common))  # fmt: skip
    (frame,) = records(tmp_path / "d.h5")
    restored = imageio.imread(tmp_path / "restored.png")
    np.testing.assert_array_equal(frame.images["restored"], restored)
    assert frame.attrs["restored_by"] == "enc.pt" and "reblurred" not in frame.images


def test_deblurring_and_circles(joint: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    made = {}
    for name, options in {
        "line": [], "circle": ["--spherical"], "deblur": ["--deblur"],
        "both": ["--deblur", "--spherical"],
    }.items():  # fmt: skip
        output = tmp_path / f"{name}.h5"
        assert_done(invoke("interpolate", *pair, "--steps", 3, "-c", joint, "-q", "-o", output,
                           *FP32, *options))  # fmt: skip
        key = "restored" if "--deblur" in options else "reblurred"
        made[name] = [record.images[key].astype(int) for record in records(output)]
    for n in range(3):
        assert_made(made["deblur"][n].astype(np.uint8), between(n / 2, "deblur"))
    for straight, round_ in (("line", "circle"), ("deblur", "both")):
        for end in (0, 2):
            assert np.abs(made[straight][end] - made[round_][end]).max() <= 1
        assert np.abs(made[straight][1] - made[round_][1]).max() > 1


def test_many_pairs_from_folders_shards_and_streams(
    joint: Path, shard: Path, tree: Path, tmp_path: Path
) -> None:
    command = ("interpolate", "--steps", 3, "-c", joint, *FP32)
    ran = run(*command, shard, "-o", tmp_path / "frames.h5", "--sheet", f"{tmp_path}/sheets/",
              "--json")  # fmt: skip
    assert_done(ran)
    names = [f"{r.name}/{n}" for r in records(shard) for n in range(3)]
    assert [row["name"] for row in ran.json[:-1]] == names
    assert ran.json[-1]["total"]["pairs"] == 4
    frames = records(tmp_path / "frames.h5")
    assert [frame.name for frame in frames] == names
    assert sorted(files(tmp_path / "sheets")) == [f"{r.name}.png" for r in records(shard)]
    for number, record in enumerate(records(shard)):
        sheet = imageio.imread(tmp_path / f"sheets/{record.name}.png")
        for n in range(3):
            frame = frames[3 * number + n].images["reblurred"]
            np.testing.assert_array_equal(sheet[:48, 72 * n : 72 * n + 64], frame)
    for record in records(shard):
        for role in ("blur", "sharp"):
            write(tmp_path / f"{role}/{record.name}.png", record.images[role])
    sides = (tmp_path / "blur", tmp_path / "sharp")
    assert_done(run(*command, *sides, "-q", "-o", f"{tmp_path}/frames/"))
    for frame in frames:
        image = imageio.imread(tmp_path / f"frames/{frame.name}.png")
        np.testing.assert_array_equal(image, frame.images["reblurred"])
    piped = shell(f"blurkit {' '.join(map(str, command))} - -q -o - < {shard} > s.h5", tmp_path)
    assert_done(piped)
    for first, second in zip(records(tmp_path / "s.h5"), frames, strict=True):
        assert first.name == second.name
        np.testing.assert_array_equal(first.images["reblurred"], second.images["reblurred"])


# ---- sheets and animations -----------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_an_animation(joint: Path, pair: tuple[Path, Path], tmp_path: Path, suffix: str) -> None:
    output = tmp_path / f"out/blur{suffix}"
    ran = invoke("interpolate", *pair, "--steps", 4, "--fps", 5, "-c", joint, "-o", output,
                 "--sheet", tmp_path / "out/sheet.png", *FP32)  # fmt: skip
    assert_done(ran)
    assert f"wrote {output}" in ran.err
    assert sorted(files(tmp_path / "out")) == [f"blur{suffix}", "sheet.png"]
    sheet = imageio.imread(tmp_path / "out/sheet.png")
    with PIL.Image.open(output) as animation:
        assert animation.n_frames == 4 and animation.size == (64, 48)  # type: ignore[attr-defined]
        for n in range(4):
            animation.seek(n)
            animation.load()
            assert animation.info["duration"] == (200 if n in (1, 2) else 800)
            shown = np.asarray(animation.convert("RGB"))
            frame = sheet[:48, 72 * n : 72 * n + 64]
            error = np.abs(shown.astype(int) - frame)
            assert error.mean() < 12 if suffix == ".gif" else not error.any()
    again = invoke("interpolate", *pair, "-c", joint, "-o", output, "-q")
    assert_refused(again, f"blur{suffix}: exists already; give --force")


def test_pictures_of_16_bits_and_gray(joint: Path, tmp_path: Path) -> None:
    for name, image in (("sharp", SHARP), ("blurry", BLURRY)):
        deep = image[:, :, 1].astype(np.uint16) * 257
        (tmp_path / f"{name}.png").write_bytes(imagecodecs.png_encode(deep))
    pair = (tmp_path / "blurry.png", tmp_path / "sharp.png")
    assert_done(invoke("interpolate", *pair, "--steps", 3, "-c", joint, "-q", *FP32))
    made = imageio.imread(tmp_path / "blurry.interpolated-2.png")
    assert made.dtype == np.uint16 and made.shape == (48, 64)
    assert_done(invoke("interpolate", *pair, "--steps", 3, "-c", joint, "-q", *FP32, "-o",
                       tmp_path / "blur.webp", "--sheet", tmp_path / "sheet.jpg"))  # fmt: skip
    with PIL.Image.open(tmp_path / "blur.webp") as animation:
        animation.seek(2)
        shown = np.asarray(animation.convert("RGB"))
    np.testing.assert_allclose(shown[:, :, 0], made / 257, atol=0.51)


# ---- checkpoints ---------------------------------------------------------------------------------


def test_official_files(pair: tuple[Path, Path], tmp_path: Path) -> None:
    first, second = steered(0), steered(1)
    torch.manual_seed(5)
    whole = MSDINet(first.net_prior, first.prior_upsampling, width=8, hidden=8).eval()
    given = {
        name: official(tmp_path / f"{name}.pth", network)
        for name, network in (("joint", first), ("net_E", second.net_prior), ("msdi_net", whole))
    }
    command = ("interpolate", *pair, "--steps", 2, "--tile", 64, "-q", *FP32)

    def made(*options: object) -> list[np.ndarray]:
        output = tmp_path / "frames.h5"
        assert_done(invoke(*command, *options, "-o", output, "--force"))
        key = "restored" if "--deblur" in options else "reblurred"
        return [record.images[key] for record in records(output)]

    for frame, amount in zip(made("-c", given["joint"]), (0, 1), strict=True):
        assert_made(frame, between(amount))
    mixed = steered(0)
    mixed.net_prior = second.net_prior
    for frame, guide in zip(
        made("-c", given["joint"], "--encoder", given["net_E"]), (SHARP, BLURRY), strict=True
    ):
        assert_made(frame, expected("reblur", SHARP, (1, guide), networks=mixed))
    own = made("-c", given["msdi_net"], "--deblur")
    other = made("-c", given["msdi_net"], "--encoder", given["net_E"], "--deblur")
    assert_made(own[1], restored_by(whole))
    for frames, encoder in ((own, ()), (other, ("--encoder", given["net_E"]))):
        output = tmp_path / "restored.png"
        assert_done(invoke("deblur", pair[0], "-c", given["msdi_net"], *encoder, "--tile", 64,
                           "-q", "-o", output, "--force", *FP32))  # fmt: skip
        np.testing.assert_array_equal(frames[1], imageio.imread(output))
    assert any((a != b).any() for a, b in zip(own, other, strict=True))
    ran = invoke(*command, "-c", given["msdi_net"], "-o", tmp_path / "x.gif")
    assert_refused(ran, "msdi_net.pth: holds deblur (MSDINet); interpolation needs")
    ran = invoke(*command, "-c", given["net_E"], "--deblur", "-o", tmp_path / "x.gif")
    assert_refused(ran, "net_E.pth: holds encoder (DegradationEncoder); interpolation needs")
    assert not (tmp_path / "x.gif").exists()


# ---- what is wrong -------------------------------------------------------------------------------


def test_two_pairs_in_one_file(joint: Path, shard: Path, tmp_path: Path) -> None:
    command = ("interpolate", shard, "--steps", 2, "-c", joint, "-q")
    for suffix in (".gif", ".png"):
        ran = invoke(*command, "-o", tmp_path / f"blur{suffix}")
        assert_refused(
            ran, "is one animation, but there are several pictures; name a folder/", status=2
        )
        assert files(tmp_path) == {}
    ran = invoke(*command, "-o", tmp_path / "f.h5", "--sheet", tmp_path / "s.png")
    assert_refused(
        ran, "--sheet ", "is one file, but there are several pictures; name a folder/", status=2
    )
    assert files(tmp_path) == {}


def test_wrong_usage(joint: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    before = files(tmp_path)
    for options, words in {
        ("-o", f"{tmp_path}/blur.jpg"): "an animation is one of .gif .png .apng .webp",
        ("-o", f"{tmp_path}/blur.mp4"): "is a film, but",
        ("--sheet", f"{tmp_path}/sheet.gif"): "name an image, or a folder (end it with /)",
        ("--from", "nan"): "--from and --to are finite numbers",
        ("--to", "inf"): "--from and --to are finite numbers",
        ("--json", "-o", "-"): "both write to standard output",
        ("--tile", "9"): "multiple of 16, at least 32",
    }.items():
        assert_refused(invoke("interpolate", *pair, "-c", joint, "-q", *options), words, status=2)
    ran = invoke("interpolate", "-", "-c", "-")
    assert_refused(ran, "standard input can be read only once", status=2)
    for options in (("--steps", 0), ("--fps", 0), ("--steps", "many")):
        assert invoke("interpolate", *pair, "-c", joint, *options).status == 2
    assert files(tmp_path) == before


def test_existing_sheets_are_kept(
    joint: Path, pair: tuple[Path, Path], shard: Path, tmp_path: Path
) -> None:
    sheet = write(tmp_path / "sheet.png", photo(9))
    before = files(tmp_path)
    ran = invoke("interpolate", *pair, "-c", joint, "-q", "--sheet", sheet)
    assert_refused(ran, "sheet.png: exists already; give --force")
    assert files(tmp_path) == before
    first = write(tmp_path / "sheets/scene0/0.png", photo(9))
    ran = invoke("interpolate", shard, "--steps", 2, "-c", joint, "-q", "-o", tmp_path / "f.h5",
                 "--sheet", f"{tmp_path}/sheets/")  # fmt: skip
    assert_failed(ran, "sheets/", "scene0/0.png: exists already")
    assert len(files(tmp_path / "sheets")) == 4 and len(records(tmp_path / "f.h5")) == 8
    np.testing.assert_array_equal(imageio.imread(first), photo(9))


def test_bad_pairs(joint: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    blurry = pair[0]
    before = files(tmp_path)
    ran = invoke("interpolate", blurry, "-c", joint, "-q")
    assert_refused(ran, "blurry.png: holds no pair of a sharp and a blurry image")
    ran = invoke("interpolate", blurry, tmp_path / "missing.png", "-c", joint, "-q")
    assert_refused(ran, "missing.png: no such file or folder")
    ran = invoke("interpolate", blurry, tmp_path / "missing.h5", "-c", joint, "-q")
    assert_failed(ran, "missing.h5", "missing.h5: no such file or folder")
    assert files(tmp_path) == before
    for number in range(3):
        write(tmp_path / f"b/{number}.png", blurred(photo(number)))
        write(tmp_path / f"s/{number}.png", photo(number, 48, 60 if number == 1 else 64))
    (tmp_path / "b/2.png").write_text("no image")
    write(tmp_path / "s/3.png", photo(3))
    ran = invoke("interpolate", tmp_path / "b", tmp_path / "s", "--steps", 2, "-c", joint, "-q",
                 "-o", f"{tmp_path}/out/")  # fmt: skip
    assert_failed(ran, "1", "blur is 64x48, sharp is 60x48")
    assert_failed(ran, "2", "2.png: is not an image")
    assert_failed(ran, "3", "no partner of that name")
    assert ran.lines[-1].startswith("3 failed, 1 interpolated")
    assert sorted(files(tmp_path / "out")) == ["0/0.png", "0/1.png"]


def test_a_full_disk(joint: Path, small_disk: Path, tmp_path: Path) -> None:
    sharp = photo(0, 500, 500)
    pair = write(tmp_path / "b.png", blurred(sharp)), write(tmp_path / "s.png", sharp)
    command = ("interpolate", *pair, "--steps", 3, "--tile", 512, "-c", joint, "-q")
    for name in ("blur.webp", "frames.h5"):
        ran = invoke(*command, "-o", small_disk / name)
        assert_refused(ran, str(small_disk / name), "the disk is full; free some space")
        assert files(small_disk) == {}
    ran = invoke(*command, "-o", tmp_path / "x.gif", "--sheet", small_disk / "sheet.png")
    assert_refused(ran, "sheet.png: the disk is full; free some space")
    assert files(small_disk) == {}
