"""The blur kernel space in `transfer`, `reblur` and `prepare --transfer-from`."""

import zlib
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import scipy.io
import scipy.ndimage
import torch

from blurkit import write_records
from blurkit.io.records import Record
from blurkit.systems import kernel_space as folder
from tests.cli.command import assert_done, assert_failed, assert_refused, piped, records, run
from tests.cli.guides import FP32, assert_made, psnr
from tests.cli.invoke import assert_each_refused, done, invoke, results, timeless
from tests.cli.kernel_spaces import CODE, blurred_by, code_of, kernel_space, saved, tensor
from tests.cli.pictures import blurred, photo, write
from tests.io.scenes import assert_all_same


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("space") / "kernel.pt")


@pytest.fixture(scope="module")
def variational(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("space") / "variational.pt", variational=True)


def shard_of(path: str | Path, *held: Record) -> Path:
    write_records(held, path)
    return Path(path)


# ---- the blur of a pair --------------------------------------------------------------------------


def test_transfer(space: Path) -> None:
    sharp = photo(30, 200, 150)
    blur = blurred(sharp)
    for name, image in (("a", photo(0)), ("s", sharp), ("b", blur)):
        write(f"{name}.png", image)
    ran = done("transfer", "a.png", "s.png", "b.png", "-c", space, "--json", *FP32)
    made = imageio.imread("a.transferred.png")
    code = code_of(sharp, blur)
    assert_made(made, blurred_by(photo(0), code))
    other = blurred_by(photo(0), code_of(sharp, np.roll(sharp, 9, axis=0)))
    assert np.abs(made - other).mean() > 1, "the pair matters"
    reproduced = np.rint(blurred_by(sharp, code)).astype(np.uint8)
    (row,) = ran.json
    assert row["reblurred_psnr"] == pytest.approx(psnr(reproduced, blur), abs=0.02)
    assert row["tile"] == 256 and f"{row['reblurred_psnr']:.2f}" in ran.err


def test_own_blur_like_pairs_and_exchanged(photos: Path, shard: Path) -> None:
    space = Path("GOPRO_woVAE.pth")
    torch.save(kernel_space().state_dict(), space)  # an official file
    command = ("reblur", shard, "-c", space, *FP32)
    held = {r.name: (r.images["sharp"], r.images["blur"]) for r in records(shard)}
    for record in results("own.h5", *command):
        wanted = blurred_by(held[record.name][0], code_of(*held[record.name]))
        assert_made(record.images["reblurred"], wanted)
        assert record.attrs["reblurred_psnr"] > 0
    like = results("like.h5", "reblur", photos, "--like", shard, "-c", space, *FP32)
    for number, (record, name) in enumerate(zip(like, held, strict=False)):
        assert_made(record.images["reblurred"], blurred_by(photo(number), code_of(*held[name])))
        assert record.attrs["reblurred_like"] == name
    for record in results("swapped", *command, "--shuffle"):
        donor = record.attrs["blur_from"]
        assert donor != record.name
        wanted = blurred_by(record.images["sharp"], code_of(*held[donor]))
        assert_made(record.images["blur"], wanted)


def test_pairs_that_are_none(space: Path, photos: Path) -> None:
    command = ("reblur", photos / "0.png", "-c", space, "-q")
    ran = invoke(*command, "--like", write("blurry.png", blurred(photo(5))))
    told = ("record 'blurry' holds blur", "takes the blur of a pair, sharp and blur")
    assert_failed(ran, "0", *told)
    told = ("0.png: holds no pair of a sharp and a blurry image", "with --like")
    assert_refused(invoke(*command), *told)
    pairs = shard_of(
        "pairs.h5",
        Record("good", {"sharp": photo(5), "blur": blurred(photo(5))}),
        Record("bad", {"sharp": photo(6), "blur": photo(6, 40, 50)}),
    )
    size = "bad: sharp is 64x48, blur is 50x40; the images of a pair must have the same size"
    for start, first in ((("transfer", photos / "0.png"), "0/"), (("reblur",), "")):
        command = (*start, pairs, "-c", space, "-o", "o.h5", "-q", "--force")
        assert_failed(invoke(*command), f"{first}bad", size)
        assert [r.name for r in records("o.h5")] == [f"{first}good"]


@pytest.mark.usefixtures("photos")
def test_the_system_chooses_the_weights(
    space: Path, variational: Path, joint: Path, shard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, transfer = "photos/0.png", ("transfer", "photos/0.png", shard)

    def ship(file: Path) -> None:
        monkeypatch.setattr(folder, "SYSTEM", replace(folder.SYSTEM, weights=str(file)))

    ship(variational)
    ran = done(*transfer, "-o", "o.h5", "--system", "kernel-space")
    by = "blurkit (encoded blur kernel space, no date)"
    assert ran.lines[0] == f"using the weights that come with {by}; -c names others"
    assert records("o.h5")[0].attrs["reblurred_by"] == "variational.pt"
    done("reblur", one, "--random", "-o", "r.png", "-q")
    ship(Path("kernel_space.pt").absolute())
    output = ("-o", "new.h5")
    lacking: list[tuple[object, ...]] = [
        (*transfer, "--system", "kernel-space", *output),
        ("reblur", one, "--random", *output),
        ("prepare", "photos", "--transfer-from", shard, "-q", *output),
    ]
    told = "kernel_space.pt: the weights that come with blurkit are missing"
    assert_each_refused(dict.fromkeys(lacking, told), status=1)
    cases = {
        ("-c", space, "--system", "msdi"): f"{space}: holds",
        ("-c", joint, "--system", "kernel-space"): "not --system kernel-space",
        ("-c", space, "--encoder", joint): "does not accept --encoder",
    }
    for command in (transfer, ("reblur", one, "--like", shard)):
        assert_each_refused(cases, *command, *output)
    ran = invoke("interpolate", one, "photos/1.png", "-c", space)
    assert_refused(ran, "interpolation needs MSDI-Net's encoder and latents, and a generator")


# ---- kernels and codes ---------------------------------------------------------------------------


def test_codes_of_a_shard(space: Path, photos: Path) -> None:
    codes = np.random.default_rng(0).standard_normal((3, CODE, 2, 2)).astype(np.float32)
    held = [Record(f"k{n}", {"blur": photo(9)}, {"kernel": code}) for n, code in enumerate(codes)]
    one = shard_of("one.h5", held[1])
    for shard, of in ((one, [1, 1, 1]), (shard_of("three.h5", *held), [0, 1, 2])):
        command = ("reblur", photos, "--kernel", shard, "-c", space, *FP32)
        made = results(f"{shard.stem}-out.h5", *command)
        for number, (record, which) in enumerate(zip(made, of, strict=True)):
            code = torch.from_numpy(codes[which][None])
            assert_made(record.images["reblurred"], blurred_by(photo(number), code))
            assert record.attrs["reblurred_like"] == f"k{which}"
            assert record.attrs["reblurred_by"] == "kernel.pt"
    options = f"-c {space} -o piped.h5 -q --precision fp32"
    piped(f"blurkit reblur photos --kernel - {options} < three.h5")
    assert_all_same(timeless(records("piped.h5")), timeless(made))


def test_a_code_of_another_photos_size_is_resized(space: Path) -> None:
    code = np.random.default_rng(0).standard_normal((CODE, 2, 2)).astype(np.float32)
    shard = shard_of("k.h5", Record("k", {}, {"kernel": code}))
    image = photo(1, 200, 512)
    write("wide.png", image)
    done("reblur", "wide.png", "--kernel", shard, "-c", space, "--overlap", 0, "-q", *FP32)
    # Places lie at the middles of their 128 pixels: a quarter and three quarters of the way.
    across = np.clip((np.arange(4) + 0.5) / 4 * 2 - 0.5, 0, 1)
    wide = code[:, :, :1] * (1 - across) + code[:, :, 1:] * across
    made = imageio.imread("wide.reblurred.png")
    for half in (0, 1):
        part = torch.from_numpy(wide[None, :, :, 2 * half : 2 * half + 2].astype(np.float32))
        inside = slice(256 * half, 256 * half + 256)
        assert_made(made[:, inside], blurred_by(image[:, inside], part))


def test_codes_that_do_not_fit(space: Path, photos: Path) -> None:
    shapes = {"long": (CODE + 1, 2, 2), "good": (CODE, 2, 2), "flat": (CODE,)}
    long, good, flat = (
        Record(name, {}, {"kernel": np.ones(shape, np.float32)}) for name, shape in shapes.items()
    )
    command = ("reblur", photos, "-c", space, "-q", "-o", "o.h5", "--force", "--kernel")
    ran = invoke(*command, shard_of("k.h5", long, good, flat))
    assert_failed(ran, "0", "long: a blur code of 17x2x2, but the network's codes have 16 values")
    assert_failed(ran, "2", "flat: a blur code of 16, but the network")
    assert [r.name for r in records("o.h5")] == ["1"]
    ran = invoke(*command, shard_of("two.h5", good, good))
    assert_failed(ran, "2", "2: no blur is left; --kernel holds 2")
    none = shard_of("none.h5", Record("plain", {"sharp": photo(1)}))
    told = "none.h5: record 'plain' holds no kernel; blind-deblur --keep-kernel"
    assert_each_refused({(none,): told, ("x.h5",): "x.h5"}, *command, status=1)


def kernel(seed: int = 0) -> np.ndarray:
    """A lopsided kernel of 7 rows and 5 columns, its sum 1."""
    values = np.random.default_rng(seed).random((7, 5)) ** 4
    return values / values.sum()


def convolved(image: np.ndarray, psf: np.ndarray) -> np.ndarray:
    return scipy.ndimage.convolve(image.astype(float), psf[:, :, None], mode="reflect")


def test_kernels_are_convolved_with(photos: Path) -> None:
    np.save("k.npy", 3 * kernel())
    ran = done("reblur", photos, "--kernel", "k.npy", "-o", "o.h5", "--json")
    assert [row.get("like") for row in ran.json] == ["k", "k", "k", None]
    assert [line.split()[0] for line in ran.lines] == ["wrote", "reblurred"]
    for number, record in enumerate(records("o.h5")):
        assert_made(record.images["reblurred"], convolved(photo(number), kernel()))
        assert record.attrs["reblurred_by"] == "convolution"
        assert record.attrs["reblurred_like"] == "k"
    shard = shard_of("k.h5", Record("found", {}, {"kernel": kernel().astype(np.float32)}))
    done("reblur", photos / "1.png", "--kernel", shard, "-q")
    assert_made(imageio.imread(photos / "1.reblurred.png"), convolved(photo(1), kernel()))


def test_light_and_many_kernels(photos: Path) -> None:
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = kernel(1), kernel(2)
    scipy.io.savemat("k.mat", {"kernels": cells})
    ran = invoke("reblur", photos, "--kernel", "k.mat", "--gamma", 2.2, "-q", "-o", "o.h5")
    assert_failed(ran, "2", "no blur is left; --kernel holds 2")
    first, second = records("o.h5")
    np.save("k1.npy", kernel(1))
    options = ("--synthesize", "shake", "--kernels", "k1.npy", "--jobs", 1)
    prepared = results("p.h5", "prepare", photos, *options)[0]
    np.testing.assert_array_equal(first.images["reblurred"], prepared.images["blur"])
    light = convolved((photo(1) / 255) ** 2.2, kernel(2))
    assert_made(second.images["reblurred"], 255 * light ** (1 / 2.2))


# ---- the code of a pair, searched ----------------------------------------------------------------


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pair whose blur is of the space, of a code drawn here; a tall gray one; half a pair."""
    code = 2 * np.random.default_rng(4).standard_normal((1, CODE, 2, 2))
    blur = blurred_by(photo(0), torch.from_numpy(code.astype(np.float32)))
    gray = photo(3, 200, 70).mean(2, keepdims=True).astype(np.uint8)
    return shard_of(
        tmp_path_factory.mktemp("pairs") / "pairs.h5",
        Record("known", {"sharp": photo(0), "blur": np.rint(blur).astype(np.uint8)}),
        Record("gray", {"sharp": gray, "blur": np.roll(gray, 1, axis=1)}),
        Record("half", {"sharp": photo(5)}),
    )


@pytest.mark.slow
def test_the_blur_of_a_pair_is_found(space: Path, pairs: Path) -> None:
    command = ("reblur", pairs, "--search", "-c", space, "-o", "o.h5", *FP32)
    ran = invoke(*command, "--iterations", 40, "--kernel-rate", 3e-3, "--seed", 3, "--json")
    assert_failed(ran, "half", "record 'half' holds sharp", "blur is needed")
    known, gray = records("o.h5")
    for row, record in zip(ran.json, (known, gray), strict=False):
        images = record.images
        assert images["reblurred"].shape == images["sharp"].shape
        assert row["like"] == record.name
        assert row["reblurred_psnr"] == pytest.approx(psnr(images["reblurred"], images["blur"]))
        assert row["reblurred_psnr_sharp"] == pytest.approx(psnr(images["sharp"], images["blur"]))
    assert known.attrs["reblurred_psnr"] > known.attrs["reblurred_psnr_sharp"] + 10
    assert known.attrs["reblurred_by"] == "kernel.pt"
    assert known.attrs["reblurred_with"] == "search iterations=40 seed=3"
    ran = invoke(*command, "--force", "--kernel-rate", 1e30, "--iterations", 9)
    assert_failed(ran, "known", "the search diverged at iteration 9; try a smaller --kernel-rate")


def test_a_search_depends_on_seed_and_name(space: Path) -> None:
    images = {"sharp": photo(3), "blur": blurred(photo(3))}
    made = []
    for number, (name, seed) in enumerate((("a", 3), ("a", 3), ("a", 4), ("other", 3))):
        before = [Record(f"before-{number}", images)] if number else []
        source = shard_of(f"{number}.h5", *before, Record(name, images))
        options = ("--search", "-c", space, "--iterations", 2, "--seed", seed, *FP32)
        made.append(results(f"{number}-out.h5", "reblur", source, *options)[-1].images["reblurred"])
    np.testing.assert_array_equal(made[0], made[1])
    assert (made[0] != made[2]).any() and (made[0] != made[3]).any()


def test_eval_against_the_blur() -> None:
    sharp, blur = photo(0), blurred(photo(0))
    near = np.clip(blur.astype(int) + 3, 0, 255).astype(np.uint8)
    shard = shard_of(
        "r.h5",
        Record("a", {"sharp": sharp, "blur": blur, "reblurred": near}),
        Record("b", {"sharp": photo(1), "blur": blurred(photo(1))}),
    )
    ran = done("eval", shard, "--target", "blur", "--json")
    first, second, last = ran.json
    assert [*first] == ["name", "psnr", "ssim", "ssim_matlab", "psnr_sharp", "sequence"]
    assert first["psnr"] == pytest.approx(psnr(near, blur))
    assert first["psnr_sharp"] == pytest.approx(psnr(sharp, blur))
    assert second["psnr"] == second["psnr_sharp"]  # nothing else is there
    assert last["protocol"]["compared"] == "reblurred or sharp with blur"
    assert "of sharp" in last["protocol"]["psnr_sharp"]
    assert "psnr_sharp" in ran.err and "reblurred or sharp with blur" in ran.err
    ran = invoke("eval", shard, "--image", "reblurred", "--json", "-q")
    assert_failed(ran, "b", "record 'b' holds", "reblurred is needed")
    row, last = ran.json
    assert row["psnr"] == pytest.approx(psnr(near, sharp))
    assert row["psnr_blur"] == pytest.approx(psnr(blur, sharp))
    assert last["protocol"]["compared"] == "reblurred with sharp"
    assert "compared" not in invoke("eval", shard, "--json", "-q").json[-1]["protocol"]
    for side in ("restored", "sharp"):
        write(f"{side}/a.png", photo(0))
    inputs = ("restored", "sharp"), ("restored", "--reference", "sharp")
    cases = dict.fromkeys(inputs, "--image and --target choose among the images of records")
    assert_each_refused(cases, "eval", "--target", "blur")


# ---- training sets in a new domain ---------------------------------------------------------------


def test_prepare_transfers(space: Path, photos: Path, shard: Path) -> None:
    held = {record.name: record for record in records(shard)}
    command = ("prepare", photos, "--transfer-from", shard, "-c", space, "--copies", 3, *FP32)
    made = results("1.h5", *command, "--jobs", 1)
    assert_done(run(*command, "-q", "--jobs", 2, "-o", "2.h5"))
    assert_all_same(made, records("2.h5"))
    assert [r.name for r in made[:4]] == ["0", "0-copy1", "0-copy2", "1"]
    assert len({record.attrs["blur_from"] for record in made}) > 1
    for record in made:
        number = int(record.name[0])
        pair = held[record.attrs["blur_from"]]
        wanted = blurred_by(photo(number), code_of(pair.images["sharp"], pair.images["blur"]))
        np.testing.assert_array_equal(record.images["sharp"], photo(number))
        assert_made(record.images["blur"], wanted)
        assert record.attrs["transferred_by"] == "kernel.pt"
        told = psnr(photo(number), record.images["blur"])
        assert record.attrs["psnr_blur"] == pytest.approx(told)
    tiles = results("cut.h5", *command, "--jobs", 1, "--limit", 1, "--crop", 16)
    np.testing.assert_array_equal(tiles[0].images["blur"], made[0].images["blur"][:16, :16])
    assert len(tiles) == 3 * 12


def test_a_code_is_drawn_for_each_photo(variational: Path, photos: Path, shard: Path) -> None:
    options = ("--transfer-from", shard, "-c", variational, "--seed", 5, "--jobs", 1, *FP32)
    whole = results("all.h5", "prepare", photos, *options)
    (photos / "1.png").unlink()
    assert_all_same([whole[0], whole[2]], results("two.h5", "prepare", photos, *options))
    held = records(shard)
    for number in range(3):
        generator = np.random.default_rng([5, zlib.crc32(b"%d" % number), 0])
        pair = held[int(generator.integers(4))]
        assert whole[number].attrs["blur_from"] == pair.name
        noise = torch.from_numpy(generator.standard_normal((CODE, 2, 2), np.float32))
        with torch.inference_mode():
            sides = (tensor(pair.images[role]) for role in ("sharp", "blur"))
            mean, deviation = kernel_space(True).encode(*sides)
        wanted = blurred_by(photo(number), mean + deviation * noise, variational=True)
        assert_made(whole[number].images["blur"], wanted)
        plain = blurred_by(photo(number), mean, variational=True)
        assert np.abs(plain - wanted).mean() > 1, "the noise shows"


def test_prepare_goes_on_and_resumes(space: Path, photos: Path, shard: Path) -> None:
    command = ("prepare", photos, "--transfer-from", shard, "-c", space, "--jobs", 1)
    rotated = (*command, "--shard-size", 1)
    whole = results("whole", *rotated)
    results("parts", *rotated, "--limit", 2)
    assert_all_same(whole, results("parts", *rotated, "--resume"))
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:900])
    assert_failed(invoke(*command, "-q", "-o", "o.h5"), "1", "damaged or truncated")
    assert [r.name for r in records("o.h5")] == ["0", "2"]


def test_prepare_with_what_does_not_go_together(space: Path, photos: Path, shard: Path) -> None:
    command = ("prepare", photos, "-o", "o.h5", "-q")
    needed = "-c, --device and --precision require --transfer-from"
    cases: dict[tuple[object, ...], str] = {
        ("--transfer-from", shard, "--synthesize", "shake"): "--transfer-from excludes",
        ("--transfer-from", shard, "--average", 3): "--transfer-from excludes",
        ("-c", space): needed,
        ("--precision", "fp32"): needed,
        ("--transfer-from", "-", "-c", "-"): "standard input can be read only once",
    }
    assert_each_refused(cases, *command)
    ran = invoke(*command, "--transfer-from", photos / "0.png", "-c", space, "--jobs", 1)
    assert_failed(ran, "2", "record '0' holds blur; this network takes the blur of a pair")
    Path("empty").mkdir()
    ran = invoke(*command, "--transfer-from", "empty", "-c", space)
    assert ran.status == 1 and "--transfer-from" in ran.lines[-1] and "no record" in ran.lines[-1]
