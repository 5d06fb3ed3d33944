"""`blurkit transfer`: the blur of pairs put onto other photos."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from blurkit.systems.system import shipped_file
from tests.cli.command import assert_failed, files, piped, records
from tests.cli.guides import FP32, assert_made, like, psnr
from tests.cli.invoke import assert_each_refused, done, invoke, results
from tests.cli.pictures import blurred, photo, plant_pair, write

Pair = tuple[Path, Path]


@pytest.fixture
def pair() -> Pair:
    """The sharp and the blurry image of a scene, 56x40."""
    sharp = photo(30, 40, 56)
    return write("b_sharp.png", sharp), write("b_blur.png", blurred(sharp))


def test_a_photo_and_a_pair_of_another_size(joint: Path, pair: Pair) -> None:
    write("a.png", photo(0))
    ran = done("transfer", "a.png", "b_sharp.png", "b_blur.png", "-c", joint, "--json", *FP32)
    sharp, blur = map(imageio.imread, pair)
    assert_made(imageio.imread("a.transferred.png"), like(photo(0), blur))
    (row,) = ran.json
    assert (row["name"], row["like"], row["width"], row["height"]) == ("a", "b_sharp", 64, 48)
    reproduced = np.rint(like(sharp, blur)).astype(np.uint8)
    for end, image, tolerance in (("", reproduced, 0.02), ("_sharp", sharp, 1e-9)):
        found = row[f"reblurred_psnr{end}"]
        assert found == pytest.approx(psnr(image, blur), abs=tolerance)
        assert f"{found:.2f}" in ran.err
    assert "how well the blur is reproduced" in ran.err and "b_sharp" in ran.err


def test_all_of_a_get_the_blur_of_all_of_b(joint: Path, photos: Path, shard: Path) -> None:
    names = ("scene0/0", "scene1/1")
    held = {r.name: r.images["blur"] for r in records(shard)}
    for record in records(shard):
        for role in ("blur", "sharp") if record.name in names else ():
            write(f"b/{role}/{record.name}.png", record.images[role])
    command = ("transfer", photos, "-c", joint, *FP32)
    rows = done(*command, "b/sharp", "b/blur", "-o", "out/", "-q", "--json").json
    made = [(n, name) for n in range(3) for name in names]
    told = [(row["name"], row["like"]) for row in rows]
    assert told == [(f"{n}/{name}", name) for n, name in made]
    assert sorted(files("out")) == [f"{n}/{name}.png" for n, name in made]
    for n, name in made:
        assert_made(imageio.imread(f"out/{n}/{name}.png"), like(photo(n), held[name]))
    for record in results("b.h5", *command, "b"):
        image = imageio.imread(f"out/{record.name}.png")
        np.testing.assert_array_equal(record.images["reblurred"], image)
        assert record.attrs["reblurred_psnr"] > 0 and "reblurred_seconds" in record.attrs
    piped(
        f"blurkit transfer photos/2.png - -c {joint} -o - -q < {shard} | "
        f"blurkit transfer - photos/0.png photos/1.png -c {joint} -o again.h5 -q"
    )
    again = records("again.h5")
    assert [record.name for record in again] == [f"2/{name}" for name in held]
    assert {record.attrs["reblurred_like"] for record in again} == {"0"}


def test_pairs_of_one_name_keep_their_own_numbers(joint: Path, photos: Path) -> None:
    for number in (3, 7):
        plant_pair(f"{number}/test", "s/0", number)
        results(f"in/{number}.h5", "prepare", f"{number}", "--jobs", 1)
    given = (photos / "0.png", "in", "-c", joint, "-o", "out.h5")
    rows = done("transfer", *given, "-q", "--json").json
    assert [row["like"] for row in rows] == ["s/0", "s/0"]
    known = [psnr(photo(number), blurred(photo(number))) for number in (3, 7)]
    assert [row["reblurred_psnr_sharp"] for row in rows] == pytest.approx(known)


def test_the_kernel_space_transfers_by_default(photos: Path, pair: Pair) -> None:
    """It compares both images of the pair, which are always given; MSDI-Net reads one."""
    said = []
    command = ("transfer", photos / "0.png", *pair, "-o", "o.png", "--force", *FP32)

    def image(*options: object) -> np.ndarray:
        said.append(done(*command, *options).lines[0])
        return imageio.imread("o.png")

    chosen = image()
    np.testing.assert_array_equal(chosen, image("--system", "kernel-space"))
    assert np.abs(chosen.astype(float) - image("--system", "msdi")).mean() > 1
    image("--encoder", shipped_file("msdi"))  # only MSDI-Net accepts one
    names = [name for name in ("encoded blur kernel space", "MSDI-Net") for _ in range(2)]
    for line, name in zip(said, names, strict=True):
        assert line.startswith(f"using the weights that come with blurkit ({name}, ")


def test_bad_photos_and_pairs_go_on(joint: Path, photos: Path, pair: Pair, shard: Path) -> None:
    common = ("-c", joint, "-q", "--force", "-o")
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:900])
    ran = invoke("transfer", photos, *pair, *common, "out/")
    assert_failed(ran, "1", "1.png", "damaged or truncated")
    assert ran.lines[-1] == "1 failed, 2 transferred: 1"
    Path("cut.h5").write_bytes(shard.read_bytes()[:-40_000])
    ran = invoke("transfer", photos / "0.png", "cut.h5", *common, "o.h5")
    assert_failed(ran, "cut.h5", "truncated, 40000 bytes are missing")
    assert len(records("o.h5")) == 2
    for name in ("s/a", "b/a", "s/c", "s/lonely"):
        write(f"{name}.png", photo(3))
    write("b/c.png", photo(3, 40, 40))
    ran = invoke("transfer", photos / "0.png", "s", "b", *common, "o.h5")
    assert_failed(ran, "c", "sharp is 64x48, blur is 40x40")
    assert_failed(ran, "lonely", "no partner of that name")
    assert [r.name for r in records("o.h5")] == ["0/a"]


@pytest.mark.usefixtures("photos")
def test_what_is_refused(joint: Path, pair: Pair, shard: Path, checkpoint: Path) -> None:
    Path("empty").mkdir()
    Path("text.png").write_text("no image")
    (sharp, blur), one = pair, "photos/0.png"
    command = ("transfer", one, "-c", joint, "-q")
    cases: dict[tuple[object, ...], str] = {
        (sharp, "missing.png"): "missing.png: no such file or folder",
        ("missing.png", blur): "missing.png: no such file or folder",
        (sharp,): "b_sharp.png: holds no pair of a sharp and a blurry image",
        (sharp, "text.png"): "text.png: is not an image",
        (sharp, write("small.png", photo(1, 20, 20))): "must have the same size",
        (*pair, "-c", checkpoint): "holds deblur (MSDINet); reblurring needs an encoder, latents",
    }
    assert_each_refused(cases, *command, "-o", "out/", status=1)
    takes = "transfer takes A B_SHARP B_BLUR, or A PAIRS"
    cases = {
        (): takes,
        (*pair, one): takes,
        (shard,): "4 pairs give several results: name a folder/, a shard (.h5) or -",
        (*pair, "-o", "-", "--json"): "both write to standard output",
    }
    assert_each_refused(cases, *command)
    twice = {("-", "-"): "standard input can be read only once"}
    assert_each_refused(twice, "transfer", "-c", joint, "-q")
    write("photos/0.transferred.png", photo(0))
    before = files()
    ran = invoke(*command, "empty")
    assert ran.status == 1 and "empty: holds no image and no shard" in ran.err
    assert ran.lines[-1].endswith("empty: holds no pair of a sharp and a blurry image")
    ran = invoke("transfer", "missing.png", *pair, "-c", joint, "-q")
    assert_failed(ran, "missing.png", "no such file or folder")
    assert_failed(invoke(*command, *pair), "0", "0.transferred.png: exists already; give --force")
    assert files() == before
