"""`blurkit transfer`: the blur of pairs put onto other photos."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageDraw
import pytest
import skimage.metrics

from blurkit.io.images import read_image
from blurkit.systems.system import shipped_file
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
from tests.cli.guides import FP32, assert_made, expected, official
from tests.cli.invoke import invoke
from tests.engine.networks import steered


def like(image: np.ndarray, guide: np.ndarray) -> np.ndarray:
    return expected("reblur", image, (1, guide))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """The sharp and the blurry image of a scene, 56x40."""
    sharp = photo(30, 40, 56)
    return write(tmp_path / "b_sharp.png", sharp), write(tmp_path / "b_blur.png", blurred(sharp))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three photos of 64x48."""
    for number in range(3):
        write(tmp_path / f"photos/{number}.png", photo(number))
    return tmp_path / "photos"


def test_a_photo_and_a_pair_of_another_size(
    joint: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    write(tmp_path / "a.png", photo(0))
    command = ("transfer", "a.png", "b_sharp.png", "b_blur.png", "-c", joint, "--json", *FP32)
    ran = run(*command, cwd=tmp_path)
    assert_done(ran)
    sharp, blur = map(imageio.imread, pair)
    assert_made(imageio.imread(tmp_path / "a.transferred.png"), like(photo(0), blur))
    (row,) = ran.json
    assert (row["name"], row["like"], row["width"], row["height"]) == ("a", "b_sharp", 64, 48)
    reproduced = np.rint(like(sharp, blur)).astype(np.uint8)
    for key, image, tolerance in (
        ("reblurred_psnr", reproduced, 0.02),
        ("reblurred_psnr_sharp", sharp, 1e-9),
    ):
        psnr = skimage.metrics.peak_signal_noise_ratio(blur, image)
        assert row[key] == pytest.approx(psnr, abs=tolerance)
        assert f"{row[key]:.2f}" in ran.err
    assert "how well the blur is reproduced" in ran.err and "b_sharp" in ran.err


def test_folders_and_shards_give_all_of_a_with_the_blur_of_all_of_b(
    joint: Path, photos: Path, shard: Path, tree: Path, tmp_path: Path
) -> None:
    for role in ("blur", "sharp"):
        for name in ("scene0/0", "scene1/1"):
            scene, _, stem = name.partition("/")
            image = imageio.imread(tree / f"test/{scene}/{role}/{stem}.png")
            write(tmp_path / f"b/{role}/{name}.png", image)
    sides = (tmp_path / "b/sharp", tmp_path / "b/blur")
    ran = invoke("transfer", photos, *sides, "-c", joint, "-o", f"{tmp_path}/out/", "-q", "--json",
                 *FP32)  # fmt: skip
    assert_done(ran)
    held = {r.name: r.images["blur"] for r in records(shard)}
    names = [(n, name) for n in range(3) for name in ("scene0/0", "scene1/1")]
    assert [(row["name"], row["like"]) for row in ran.json] == [
        (f"{n}/{name}", name) for n, name in names
    ]
    assert sorted(files(tmp_path / "out")) == [f"{n}/{name}.png" for n, name in names]
    for n, name in names:
        assert_made(imageio.imread(tmp_path / f"out/{n}/{name}.png"), like(photo(n), held[name]))
    assert_done(invoke("transfer", photos, tmp_path / "b", "-c", joint, "-o", tmp_path / "b.h5",
                       "-q", *FP32))  # fmt: skip
    for record in records(tmp_path / "b.h5"):
        image = imageio.imread(tmp_path / f"out/{record.name}.png")
        np.testing.assert_array_equal(record.images["reblurred"], image)
        assert record.attrs["reblurred_psnr"] > 0 and "reblurred_seconds" in record.attrs


def test_streams(joint: Path, photos: Path, shard: Path, tmp_path: Path) -> None:
    ran = shell(
        f"blurkit transfer photos/2.png - -c {joint} -o - -q < {shard} | "
        f"blurkit transfer - photos/0.png photos/1.png -c {joint} -o again.h5 -q",
        tmp_path,
    )
    assert_done(ran)
    names = [f"2/{r.name}" for r in records(shard)]
    again = records(tmp_path / "again.h5")
    assert [record.name for record in again] == names
    assert {record.attrs["reblurred_like"] for record in again} == {"0"}


def test_pairs_of_one_name_keep_their_own_numbers(
    joint: Path, photos: Path, shard: Path, tmp_path: Path
) -> None:
    for number, shift in enumerate((2, 9)):
        for role, image in (("sharp", photo(3)), ("blur", np.roll(photo(3), shift, axis=1))):
            write(tmp_path / f"{number}/test/s/{role}/0.png", image)
        assert_done(invoke("prepare", tmp_path / str(number), "-o", tmp_path / f"in/{number}.h5"))
    ran = invoke("transfer", photos / "0.png", tmp_path / "in", "-c", joint, "-q", "--json",
                 "-o", tmp_path / "out.h5")  # fmt: skip
    assert_done(ran)
    assert [row["like"] for row in ran.json] == ["s/0", "s/0"]
    for row, shift in zip(ran.json, (2, 9), strict=True):
        blur = np.roll(photo(3), shift, axis=1)
        psnr = skimage.metrics.peak_signal_noise_ratio(blur, photo(3))
        assert row["reblurred_psnr_sharp"] == pytest.approx(psnr)


def test_every_kind_of_picture(joint: Path, pair: tuple[Path, Path], tmp_path: Path) -> None:
    drawing = PIL.Image.new("RGB", (60, 44), "white")
    PIL.ImageDraw.Draw(drawing).ellipse((8, 8, 50, 36), outline="black", fill="red", width=2)
    image = photo(5, 40, 56)
    deep = image.astype(np.uint16) * 257 - image[:, ::-1] // 2
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    folder = tmp_path / "in"
    write(folder / "drawing.png", np.asarray(drawing))
    write(folder / "line.png", np.asarray(drawing.convert("1")).astype(np.uint8) * 255)
    write(folder / "alpha.png", np.concatenate([image, alpha], axis=2))
    write(folder / "speck.png", image[:1, :1])
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    exif = PIL.Image.Exif()
    exif[274], exif[271] = 6, "A camera"
    PIL.Image.fromarray(image).save(folder / "turned.jpg", exif=exif, icc_profile=profile)
    ran = invoke("transfer", folder, *pair, "-c", joint, "-o", f"{tmp_path}/out/", "-q", *FP32)
    assert_done(ran)
    guide = imageio.imread(pair[1])
    made = {path.stem: read_image(path) for path in (tmp_path / "out").iterdir()}
    assert_made(made["drawing"].pixels, like(np.asarray(drawing), guide))
    assert made["line"].pixels.shape == (44, 60, 1) and made["speck"].pixels.shape == (1, 1, 3)
    assert_made(made["alpha"].pixels, like(image, guide))
    np.testing.assert_array_equal(made["alpha"].alpha, alpha)
    assert made["deep"].pixels.dtype == np.uint16
    np.testing.assert_allclose(made["deep"].pixels / 257, like(deep, guide), atol=0.02)
    with PIL.Image.open(tmp_path / "out/turned.jpg") as turned:
        assert turned.size == (56, 40) and turned.info["icc_profile"] == profile
        assert (turned.getexif()[274], turned.getexif()[271]) == (6, "A camera")


def test_a_pair_of_gray_images(joint: Path, photos: Path, tmp_path: Path) -> None:
    gray = photo(30)[:, :, 1]
    pair = write(tmp_path / "s.png", gray), write(tmp_path / "b.png", np.roll(gray, 3, axis=1))
    assert_done(invoke("transfer", photos / "0.png", *pair, "-c", joint, "-q", *FP32))
    made = imageio.imread(photos / "0.transferred.png")
    assert_made(made, like(photo(0), imageio.imread(pair[1])))


def test_official_files(pair: tuple[Path, Path], photos: Path, tmp_path: Path) -> None:
    network = official(tmp_path / "joint.pth", steered())
    encoder = official(tmp_path / "net_E.pth", steered(1).net_prior)
    command = ("transfer", photos / "0.png", *pair, "-c", network, "--tile", 64, "-q", *FP32)
    assert_done(invoke(*command))
    blur = imageio.imread(pair[1])
    assert_made(imageio.imread(photos / "0.transferred.png"), like(photo(0), blur))
    assert_done(invoke(*command, "--encoder", encoder, "-o", tmp_path / "other.png"))
    mixed = steered()
    mixed.net_prior = steered(1).net_prior
    wanted = expected("reblur", photo(0), (1, blur), networks=mixed)
    assert_made(imageio.imread(tmp_path / "other.png"), wanted)


def test_the_kernel_space_transfers_by_default_and_the_output_says_so(
    photos: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    """It compares both images of the pair, which are always given; MSDI-Net reads one."""

    def image(*options: object) -> np.ndarray:
        ran = invoke("transfer", photos / "0.png", *pair, "-o", tmp_path / "o.png", "--force",
                     *FP32, *options)  # fmt: skip
        assert_done(ran)
        said.append(ran.lines[0])
        return imageio.imread(tmp_path / "o.png")

    said: list[str] = []
    chosen = image()
    np.testing.assert_array_equal(chosen, image("--system", "kernel-space"))
    other = image("--system", "msdi")
    assert np.abs(chosen.astype(float) - other).mean() > 1
    image("--encoder", shipped_file("msdi"))  # only MSDI-Net accepts one
    names = ["encoded blur kernel space", "encoded blur kernel space", "MSDI-Net", "MSDI-Net"]
    for line, name in zip(said, names, strict=True):
        assert line.startswith(f"using the weights that come with blurkit ({name}, ")


# ---- what is wrong -------------------------------------------------------------------------------


def test_bad_photos_and_pairs_go_on(
    joint: Path, photos: Path, pair: tuple[Path, Path], shard: Path, tmp_path: Path
) -> None:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:900])
    ran = invoke("transfer", photos, *pair, "-c", joint, "-o", f"{tmp_path}/out/", "-q")
    assert_failed(ran, "1", "1.png", "damaged or truncated")
    assert ran.lines[-1] == "1 failed, 2 transferred: 1"
    (tmp_path / "cut.h5").write_bytes(shard.read_bytes()[:-40_000])
    ran = invoke("transfer", photos / "0.png", tmp_path / "cut.h5", "-c", joint, "-q", "-o",
                 tmp_path / "a.h5")  # fmt: skip
    assert_failed(ran, "cut.h5", "truncated, 40000 bytes are missing")
    assert len(records(tmp_path / "a.h5")) == 2
    for name in ("s/a", "b/a", "s/c"):
        write(tmp_path / f"{name}.png", photo(3))
    write(tmp_path / "b/c.png", photo(3, 40, 40))
    sides = (tmp_path / "s", tmp_path / "b")
    ran = invoke("transfer", photos / "0.png", *sides, "-c", joint, "-q", "-o", tmp_path / "c.h5")
    assert_failed(ran, "c", "sharp is 64x48, blur is 40x40")
    assert [r.name for r in records(tmp_path / "c.h5")] == ["0/a"]
    write(tmp_path / "s/lonely.png", photo(3))
    ran = invoke("transfer", photos / "0.png", *sides, "-c", joint, "-q", "-o", tmp_path / "d.h5")
    assert_failed(ran, "lonely", "no partner of that name")


def test_pairs_that_are_none(
    joint: Path, photos: Path, pair: tuple[Path, Path], tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no image")
    a, output = photos / "0.png", ("-o", f"{tmp_path}/out/")
    for pairs, words in {
        (pair[0], tmp_path / "missing.png"): "missing.png: no such file or folder",
        (tmp_path / "missing.png", pair[1]): "missing.png: no such file or folder",
        (pair[0], tmp_path / "text.png"): "text.png: is not an image",
        (pair[0], write(tmp_path / "small.png", photo(1, 20, 20))): "must have the same size",
    }.items():
        assert_refused(invoke("transfer", a, *pairs, "-c", joint, "-q", *output), words)
    ran = invoke("transfer", a, tmp_path / "empty", "-c", joint, "-q", *output)
    assert ran.status == 1 and "empty: holds no image and no shard" in ran.err
    assert ran.lines[-1].endswith("empty: holds no pair of a sharp and a blurry image")
    ran = invoke("transfer", a, pair[0], "-c", joint, "-q", *output)
    assert_refused(ran, "b_sharp.png: holds no pair of a sharp and a blurry image")
    assert not (tmp_path / "out").exists()


def test_wrong_usage(
    joint: Path, photos: Path, pair: tuple[Path, Path], shard: Path, checkpoint: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    a = photos / "0.png"
    before = files(tmp_path)
    for given in ((a,), (a, *pair, a)):
        ran = invoke("transfer", *given, "-c", joint, "-q")
        assert_refused(ran, "transfer takes A B_SHARP B_BLUR, or A PAIRS", status=2)
    ran = invoke("transfer", a, shard, "-c", joint, "-q")
    assert_refused(
        ran, "4 pairs give several results: name a folder/, a shard (.h5) or -", status=2
    )
    ran = invoke("transfer", "-", "-", "-c", joint, "-q")
    assert_refused(ran, "standard input can be read only once", status=2)
    ran = invoke("transfer", a, *pair, "-c", joint, "-o", "-", "--json")
    assert_refused(ran, "both write to standard output", status=2)
    ran = invoke("transfer", a, *pair, "-c", checkpoint, "-q")
    assert_refused(ran, "holds deblur (MSDINet); reblurring needs an encoder, latents")
    ran = invoke("transfer", tmp_path / "missing.png", *pair, "-c", joint, "-q")
    assert_failed(ran, "missing.png", "no such file or folder")
    assert files(tmp_path) == before
    existing = write(photos / "0.transferred.png", photo(0)).read_bytes()
    ran = invoke("transfer", a, *pair, "-c", joint, "-q")
    assert_failed(ran, "0", "0.transferred.png: exists already; give --force")
    assert (photos / "0.transferred.png").read_bytes() == existing
