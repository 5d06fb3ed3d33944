"""The blur kernel space in `transfer`, `reblur` and `prepare --transfer-from`."""

from __future__ import annotations

import zlib
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import scipy.io
import scipy.ndimage
import skimage.metrics
import torch

from blurkit.io.records import Record
from blurkit.io.streams import ShardWriter
from blurkit.systems import kernel_space as folder
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    assert_same_records,
    blurred,
    files,
    photo,
    records,
    run,
    shard_records,
    shell,
    write,
)
from tests.cli.guides import FP32, assert_made
from tests.cli.invoke import invoke
from tests.cli.kernel_spaces import CODE, blurred_by, code_of, kernel_space, saved, tensor


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("space") / "kernel.pt")


@pytest.fixture(scope="module")
def variational(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("space") / "variational.pt", variational=True)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three sharp photos of 64x48."""
    for number in range(3):
        write(tmp_path / f"photos/{number}.png", photo(number))
    return tmp_path / "photos"


def shard_of(path: Path, *held: Record) -> Path:
    with ShardWriter(path) as writer:
        for record in held:
            writer.write(record)
    return path


# ---- the blur of a pair --------------------------------------------------------------------------


def test_transfer(space: Path, tmp_path: Path) -> None:
    sharp = photo(30, 200, 150)
    blur = blurred(sharp)
    write(tmp_path / "a.png", photo(0))
    write(tmp_path / "s.png", sharp)
    write(tmp_path / "b.png", blur)
    ran = run("transfer", "a.png", "s.png", "b.png", "-c", space, "--json", *FP32, cwd=tmp_path)
    assert_done(ran)
    made = imageio.imread(tmp_path / "a.transferred.png")
    code = code_of(sharp, blur)
    assert_made(made, blurred_by(photo(0), code))
    other = blurred_by(photo(0), code_of(sharp, np.roll(sharp, 9, axis=0)))
    assert np.abs(made - other).mean() > 1, "the pair matters"
    reproduced = np.rint(blurred_by(sharp, code)).astype(np.uint8)
    psnr = skimage.metrics.peak_signal_noise_ratio(blur, reproduced)
    (row,) = ran.json
    assert row["reblurred_psnr"] == pytest.approx(psnr, abs=0.02)
    assert row["tile"] == 256 and f"{row['reblurred_psnr']:.2f}" in ran.err


def test_tiles_look_at_the_same_place_of_the_pair(space: Path, tmp_path: Path) -> None:
    a, sharp = photo(2, 384, 256), photo(3, 256, 500)
    blur = blurred(sharp)
    paths = [write(tmp_path / f"{n}.png", image) for n, image in enumerate((a, sharp, blur))]
    assert_done(invoke("transfer", *paths, "-c", space, "--overlap", 0, "-q", *FP32))
    made = imageio.imread(tmp_path / "0.transferred.png")
    # The photo's one column of tiles lies in the middle of the pair, which is padded to 512.
    pair = [tensor(image)[..., 128:384] for image in (sharp, blur)]
    with torch.inference_mode():
        code = kernel_space().encode(*pair)[0]
    assert_made(made[:128], blurred_by(a[:256], code)[:128])
    assert_made(made[256:], blurred_by(a[128:], code)[128:])


def test_gray_photos_and_gray_pairs(space: Path, tmp_path: Path) -> None:
    gray = photo(30)[:, :, 1]
    for name, image in (("a", photo(1)[:, :, 0]), ("s", gray), ("b", np.roll(gray, 3, axis=1))):
        write(tmp_path / f"{name}.png", image)
    named = [tmp_path / f"{name}.png" for name in "asb"]
    assert_done(invoke("transfer", *named, "-c", space, "-q", *FP32))
    made = imageio.imread(tmp_path / "a.transferred.png")
    wanted = blurred_by(photo(1)[:, :, 0], code_of(gray, np.roll(gray, 3, axis=1)))
    plain = ((wanted > 0) & (wanted < 255)).all(axis=2)  # nothing was clamped before the mean
    assert made.shape == (48, 64) and plain.mean() > 0.5
    np.testing.assert_allclose(made[plain], wanted.mean(axis=2)[plain], atol=0.52)


def test_official_files(photos: Path, shard: Path, tmp_path: Path) -> None:
    torch.save(kernel_space().state_dict(), tmp_path / "GOPRO_woVAE.pth")
    ran = invoke("reblur", shard, "-c", tmp_path / "GOPRO_woVAE.pth", "-o", tmp_path / "o.h5",
                 "-q", *FP32)  # fmt: skip
    assert_done(ran)
    for record in records(tmp_path / "o.h5"):
        sharp, blur = record.images["sharp"], record.images["blur"]
        assert_made(record.images["reblurred"], blurred_by(sharp, code_of(sharp, blur)))
        assert record.attrs["reblurred_psnr"] > 0


def test_like_pairs_and_exchanged(space: Path, photos: Path, shard: Path, tmp_path: Path) -> None:
    held = records(shard)
    ran = invoke("reblur", photos, "--like", shard, "-c", space, "-o", tmp_path / "o.h5", "-q",
                 *FP32)  # fmt: skip
    assert_done(ran)
    for number, record in enumerate(records(tmp_path / "o.h5")):
        code = code_of(held[number].images["sharp"], held[number].images["blur"])
        assert_made(record.images["reblurred"], blurred_by(photo(number), code))
        assert record.attrs["reblurred_like"] == held[number].name
    ran = invoke("reblur", shard, "--shuffle", "-c", space, "-o", f"{tmp_path}/swapped/", "-q",
                 *FP32)  # fmt: skip
    assert_done(ran)
    named = {record.name: record for record in held}
    for record in shard_records(tmp_path / "swapped"):
        donor = named[record.attrs["blur_from"]]
        assert donor.name != record.name
        code = code_of(donor.images["sharp"], donor.images["blur"])
        assert_made(record.images["blur"], blurred_by(record.images["sharp"], code))


def test_a_blurry_image_alone_is_no_pair(space: Path, photos: Path, tmp_path: Path) -> None:
    blurry = write(tmp_path / "blurry.png", blurred(photo(5)))
    ran = invoke("reblur", photos / "0.png", "--like", blurry, "-c", space, "-q")
    assert_failed(
        ran, "0", "record 'blurry' holds blur", "takes the blur of a pair, sharp and blur"
    )
    ran = invoke("reblur", photos / "0.png", "-c", space, "-q")
    assert_refused(ran, "0.png: holds no pair of a sharp and a blurry image", "with --like")


def test_a_pair_of_two_sizes_is_left_out(space: Path, photos: Path, tmp_path: Path) -> None:
    pairs = shard_of(
        tmp_path / "pairs.h5",
        Record("good", {"sharp": photo(5), "blur": blurred(photo(5))}),
        Record("bad", {"sharp": photo(6), "blur": photo(6, 40, 50)}),
    )
    told = "bad: sharp is 64x48, blur is 50x40; the images of a pair must have the same size"
    ran = invoke("transfer", photos / "0.png", pairs, "-c", space, "-o", tmp_path / "t.h5", "-q")
    assert_failed(ran, "0/bad", told)
    assert [r.name for r in records(tmp_path / "t.h5")] == ["0/good"]
    ran = invoke("reblur", pairs, "-c", space, "-o", tmp_path / "r.h5", "-q")
    assert_failed(ran, "bad", told)
    assert [r.name for r in records(tmp_path / "r.h5")] == ["good"]


def test_the_system_chooses_the_weights(
    space: Path, variational: Path, joint: Path, photos: Path, shard: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    one = photos / "0.png"
    command = ("transfer", one, shard, "-o", tmp_path / "o.h5")

    def ship(file: Path) -> None:
        system = replace(folder.SYSTEM, weights=str(file))
        monkeypatch.setattr(folder, "SYSTEM", system)

    ship(variational)
    ran = invoke(*command, "--system", "kernel-space")
    assert_done(ran)
    assert ran.lines[0] == (
        "using the weights that come with blurkit (encoded blur kernel space, no date); "
        "-c names others"
    )
    assert records(tmp_path / "o.h5")[0].attrs["reblurred_by"] == "variational.pt"
    assert_done(invoke("reblur", one, "--random", "-o", tmp_path / "r.png", "-q"))
    ship(tmp_path / "kernel_space.pt")
    for given in (
        ["transfer", one, shard, "--system", "kernel-space"],
        ["reblur", one, "--random"],
        ["prepare", photos, "--transfer-from", shard, "-q"],
    ):
        ran = invoke(*given, "-o", tmp_path / "new.h5")
        assert_refused(ran, "kernel_space.pt: the weights that come with blurkit are missing")
    for given in (["transfer", one, shard], ["reblur", one, "--like", shard]):
        for named, other in ((space, "msdi"), (joint, "kernel-space")):
            ran = invoke(*given, "-c", named, "--system", other, "-o", tmp_path / "new.h5")
            assert_refused(ran, f"{named}: holds", f"not --system {other}", status=2)
        ran = invoke(*given, "-c", space, "--encoder", joint, "-o", tmp_path / "new.h5")
        assert_refused(ran, "does not accept --encoder", status=2)
    ran = invoke("interpolate", one, photos / "1.png", "-c", space)
    assert_refused(ran, "interpolation needs MSDI-Net's encoder and latents, and a generator")


# ---- new blurs -----------------------------------------------------------------------------------


def test_random_blurs(variational: Path, photos: Path, tmp_path: Path) -> None:
    command = ("reblur", photos, "--random", "-c", variational, "-q", *FP32)
    made = []
    for options in (["--seed", 7], ["--seed", 7], ["--seed", 8], ["--seed", 7, "--copies", 3]):
        output = tmp_path / f"{len(made)}.h5"
        assert_done(invoke(*command, *options, "-o", output))
        made.append(records(output))
    for number, (one, again, other) in enumerate(zip(*made[:3], strict=True)):
        np.testing.assert_array_equal(one.images["reblurred"], again.images["reblurred"])
        assert np.abs(one.images["reblurred"] - other.images["reblurred"].astype(int)).mean() > 0.5
        generator = np.random.default_rng([7, zlib.crc32(b"%d" % number), 0])
        code = 1.2 * generator.standard_normal((1, CODE, 2, 2), np.float32)
        wanted = blurred_by(photo(number), torch.from_numpy(code), variational=True)
        assert_made(one.images["reblurred"], wanted)
        told = {"reblurred_like": "random", "reblurred_seed": 7, "reblurred_scale": 1.2}
        assert {key: one.attrs[key] for key in told} == told
    assert [r.name for r in made[3][:4]] == ["0", "0-copy1", "0-copy2", "1"]
    np.testing.assert_array_equal(made[3][0].images["reblurred"], made[0][0].images["reblurred"])
    assert len({r.images["reblurred"].tobytes() for r in made[3]}) == 9
    assert_done(invoke(*command, "--copies", 2))
    assert {"0.reblurred.png", "0.reblurred-1.png"} <= files(photos).keys()
    assert_done(invoke(*command, "--random-scale", 0, "-o", tmp_path / "none.h5"))
    nothing = blurred_by(photo(0), torch.zeros(1, CODE, 2, 2), variational=True)
    assert_made(records(tmp_path / "none.h5")[0].images["reblurred"], nothing)


def test_large_photos_have_a_code_at_every_place(variational: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "large.png", photo(2, 384, 300))
    ran = invoke("reblur", path, "--random", "-c", variational, "--overlap", 0, "-q", *FP32)
    assert_done(ran)
    made = imageio.imread(tmp_path / "large.reblurred.png")
    generator = np.random.default_rng([0, zlib.crc32(b"large"), 0])
    codes = torch.from_numpy(1.2 * generator.standard_normal((1, CODE, 3, 3), np.float32))
    # Tiles start at 0 and 128, each with its four places of the nine; the photo is 384 wide padded.
    padded = (tensor(photo(2, 384, 300))[0].numpy().transpose(1, 2, 0) * 255).round()
    first = blurred_by(padded[:256, :256].astype(np.uint8), codes[..., :2, :2], variational=True)
    last = blurred_by(padded[128:, 128:].astype(np.uint8), codes[..., 1:, 1:], variational=True)
    assert_made(made[:128, :128], first[:128, :128])
    assert_made(made[256:, 256:], last[128:, 128:172])


def test_what_random_needs(space: Path, joint: Path, photos: Path, tmp_path: Path) -> None:
    one = photos / "0.png"
    ran = invoke("reblur", one, "--random", "-c", space, "-q")
    assert_refused(
        ran, "kernel.pt: new blurs can only be drawn from a variational kernel space", status=2
    )
    ran = invoke("reblur", one, "--random", "-c", joint, "-q")
    assert_refused(ran, "enc.pt: holds encoder", "random blur needs a variational blur kernel")
    gray = write(tmp_path / "kernel.png", photo(1, 5, 5)[:, :, 0])
    for options, words in (
        (["--random", "--like", one], "one of --like, --kernel, --random"),
        (["--random", "--kernel", one], "one of --like, --kernel, --random"),
        (["--random", "--shuffle"], "--shuffle and --encoder exclude --kernel, --random"),
        (["--random", "--system", "msdi"], "--system msdi excludes --kernel, --random"),
        (["--copies", 2], "--copies and --random-scale require --random"),
        (["--like", one, "--random-scale", 2], "--copies and --random-scale require --random"),
        (["--like", one, "--gamma", 2], "--gamma requires --kernel"),
        (["--kernel", gray, "--gamma", 0], "--gamma 0: a gamma is above 0"),
        (["--kernel", gray, "-c", space], "a convolution, which takes no checkpoint"),
    ):
        assert_refused(invoke("reblur", one, *options, "-q"), words, status=2)
    assert sorted(files(photos)) == ["0.png", "1.png", "2.png"]


# ---- kernels and codes ---------------------------------------------------------------------------


def test_codes_of_a_shard(space: Path, photos: Path, tmp_path: Path) -> None:
    codes = np.random.default_rng(0).standard_normal((3, CODE, 2, 2)).astype(np.float32)
    held = [Record(f"k{n}", {"blur": photo(9)}, {"kernel": code}) for n, code in enumerate(codes)]
    one = shard_of(tmp_path / "one.h5", held[1])
    three = shard_of(tmp_path / "three.h5", *held)
    for shard, of in ((one, [1, 1, 1]), (three, [0, 1, 2])):
        output = tmp_path / f"{shard.stem}-out.h5"
        ran = invoke("reblur", photos, "--kernel", shard, "-c", space, "-o", output, "-q", *FP32)
        assert_done(ran)
        made = records(output)
        for number, (record, which) in enumerate(zip(made, of, strict=True)):
            code = torch.from_numpy(codes[which][None])
            assert_made(record.images["reblurred"], blurred_by(photo(number), code))
            assert record.attrs["reblurred_like"] == f"k{which}"
            assert record.attrs["reblurred_by"] == "kernel.pt"
    piped = shell(
        f"blurkit reblur photos --kernel - -c {space} -o piped.h5 -q --precision fp32 < three.h5",
        tmp_path,
    )
    assert_done(piped)
    for record, other in zip(records(tmp_path / "piped.h5"), made, strict=True):
        np.testing.assert_array_equal(record.images["reblurred"], other.images["reblurred"])


def test_a_code_of_another_photos_size_is_resized(space: Path, tmp_path: Path) -> None:
    code = np.random.default_rng(0).standard_normal((CODE, 2, 2)).astype(np.float32)
    shard = shard_of(tmp_path / "k.h5", Record("k", {}, {"kernel": code}))
    image = photo(1, 200, 512)
    path = write(tmp_path / "wide.png", image)
    command = ("reblur", path, "--kernel", shard, "-c", space, "--overlap", 0, "-q", *FP32)
    assert_done(invoke(*command))
    # Places lie at the middles of their 128 pixels: a quarter and three quarters of the way.
    across = np.clip((np.arange(4) + 0.5) / 4 * 2 - 0.5, 0, 1)
    wide = code[:, :, :1] * (1 - across) + code[:, :, 1:] * across
    made = imageio.imread(tmp_path / "wide.reblurred.png")
    for half in (0, 1):
        part = torch.from_numpy(wide[None, :, :, 2 * half : 2 * half + 2].astype(np.float32))
        inside = slice(256 * half, 256 * half + 256)
        assert_made(made[:, inside], blurred_by(image[:, inside], part))


def test_codes_that_do_not_fit(space: Path, photos: Path, tmp_path: Path) -> None:
    long = Record("long", {}, {"kernel": np.ones((CODE + 1, 2, 2), np.float32)})
    good = Record("good", {}, {"kernel": np.ones((CODE, 2, 2), np.float32)})
    flat = Record("flat", {}, {"kernel": np.ones(CODE, np.float32)})
    shard = shard_of(tmp_path / "k.h5", long, good, flat)
    output = tmp_path / "o.h5"
    ran = invoke("reblur", photos, "--kernel", shard, "-c", space, "-o", output, "-q")
    assert_failed(ran, "0", "long: a blur code of 17x2x2, but the network's codes have 16 values")
    assert_failed(ran, "2", "flat: a blur code of 16, but the network")
    assert [r.name for r in records(output)] == ["1"]
    none = shard_of(tmp_path / "none.h5", Record("plain", {"sharp": photo(1)}))
    ran = invoke("reblur", photos, "--kernel", none, "-c", space, "-o", tmp_path / "n.h5", "-q")
    assert_refused(ran, "none.h5: record 'plain' holds no kernel; blind-deblur --keep-kernel")
    two = shard_of(tmp_path / "two.h5", good, good)
    ran = invoke("reblur", photos, "--kernel", two, "-c", space, "-o", tmp_path / "t.h5", "-q")
    assert_failed(ran, "2", "2: no blur is left; --kernel holds 2")
    ran = invoke("reblur", photos, "--kernel", tmp_path / "x.h5", "-o", tmp_path / "x.png", "-q")
    assert_refused(ran, "x.h5")


def kernel(seed: int = 0) -> np.ndarray:
    """A lopsided kernel of 7 rows and 5 columns, its sum 1."""
    values = np.random.default_rng(seed).random((7, 5)) ** 4
    return values / values.sum()


def convolved(image: np.ndarray, psf: np.ndarray) -> np.ndarray:
    return scipy.ndimage.convolve(image.astype(float), psf[:, :, None], mode="reflect")


def test_kernels_are_convolved_with(photos: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "k.npy", 3 * kernel())
    ran = invoke("reblur", photos, "--kernel", tmp_path / "k.npy", "-o", tmp_path / "o.h5",
                 "--json")  # fmt: skip
    assert_done(ran)
    assert [row.get("like") for row in ran.json] == ["k", "k", "k", None]
    assert [line.split()[0] for line in ran.lines] == ["wrote", "reblurred"]
    for number, record in enumerate(records(tmp_path / "o.h5")):
        assert_made(record.images["reblurred"], convolved(photo(number), kernel()))
        assert record.attrs["reblurred_by"] == "convolution"
        assert record.attrs["reblurred_like"] == "k"
    held = Record("found", {}, {"kernel": kernel().astype(np.float32)})
    shard = shard_of(tmp_path / "k.h5", held)
    assert_done(invoke("reblur", photos / "1.png", "--kernel", shard, "-q"))
    assert_made(imageio.imread(photos / "1.reblurred.png"), convolved(photo(1), kernel()))


def test_light_and_many_kernels(photos: Path, tmp_path: Path) -> None:
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = kernel(1), kernel(2)
    scipy.io.savemat(tmp_path / "k.mat", {"kernels": cells})
    command = ("reblur", photos, "--kernel", tmp_path / "k.mat", "--gamma", 2.2, "-q")
    ran = invoke(*command, "-o", tmp_path / "o.h5")
    assert_failed(ran, "2", "no blur is left; --kernel holds 2")
    np.save(tmp_path / "k1.npy", kernel(1))
    options = ("--synthesize", "shake", "--kernels", tmp_path / "k1.npy", "--jobs", 1, "-q")
    assert_done(invoke("prepare", photos, *options, "-o", tmp_path / "p.h5"))
    first, second = records(tmp_path / "o.h5")
    prepared = records(tmp_path / "p.h5")[0]
    np.testing.assert_array_equal(first.images["reblurred"], prepared.images["blur"])
    light = convolved((photo(1) / 255) ** 2.2, kernel(2))
    assert_made(second.images["reblurred"], 255 * light ** (1 / 2.2))


# ---- training sets in a new domain ---------------------------------------------------------------


def test_prepare_transfers(space: Path, photos: Path, shard: Path, tmp_path: Path) -> None:
    held = {record.name: record for record in records(shard)}
    command = ("prepare", photos, "--transfer-from", shard, "-c", space, "--copies", 3, "-q",
               *FP32)  # fmt: skip
    for jobs, start in ((1, invoke), (2, run)):
        assert_done(start(*command, "--jobs", jobs, "-o", tmp_path / f"{jobs}.h5"))
    made = records(tmp_path / "1.h5")
    assert_same_records(made, records(tmp_path / "2.h5"))
    assert [r.name for r in made[:4]] == ["0", "0-copy1", "0-copy2", "1"]
    assert len({record.attrs["blur_from"] for record in made}) > 1
    for record in made:
        number = int(record.name[0])
        pair = held[record.attrs["blur_from"]]
        wanted = blurred_by(photo(number), code_of(pair.images["sharp"], pair.images["blur"]))
        np.testing.assert_array_equal(record.images["sharp"], photo(number))
        assert_made(record.images["blur"], wanted)
        assert record.attrs["transferred_by"] == "kernel.pt"
        psnr = skimage.metrics.peak_signal_noise_ratio(photo(number), record.images["blur"])
        assert record.attrs["psnr_blur"] == pytest.approx(psnr)
    one = invoke(*command, "--jobs", 1, "--limit", 1, "--crop", 16, "-o", tmp_path / "cut.h5")
    assert_done(one)
    tiles = records(tmp_path / "cut.h5")
    np.testing.assert_array_equal(tiles[0].images["blur"], made[0].images["blur"][:16, :16])
    assert len(tiles) == 3 * 12


def test_what_a_variational_space_draws_is_the_photos_own(
    variational: Path, photos: Path, shard: Path, tmp_path: Path
) -> None:
    options = ("--transfer-from", shard, "-c", variational, "--seed", 5, "-q", *FP32)
    assert_done(run("prepare", photos, *options, "--jobs", 2, "-o", tmp_path / "all.h5"))
    (photos / "1.png").unlink()
    assert_done(invoke("prepare", photos, *options, "--jobs", 1, "-o", tmp_path / "two.h5"))
    whole = records(tmp_path / "all.h5")
    assert_same_records([whole[0], whole[2]], records(tmp_path / "two.h5"))
    held = records(shard)
    for number in range(3):
        generator = np.random.default_rng([5, zlib.crc32(b"%d" % number), 0])
        pair = held[int(generator.integers(4))]
        assert whole[number].attrs["blur_from"] == pair.name
        noise = torch.from_numpy(generator.standard_normal((CODE, 2, 2), np.float32))
        with torch.inference_mode():
            mean, deviation = kernel_space(True).encode(
                tensor(pair.images["sharp"]), tensor(pair.images["blur"])
            )
        wanted = blurred_by(photo(number), mean + deviation * noise, variational=True)
        assert_made(whole[number].images["blur"], wanted)
        plain = blurred_by(photo(number), mean, variational=True)
        assert np.abs(plain - wanted).mean() > 1, "the noise shows"


def test_prepare_goes_on_and_resumes(
    space: Path, photos: Path, shard: Path, tmp_path: Path
) -> None:
    command = ("prepare", photos, "--transfer-from", shard, "-c", space, "--jobs", 1, "-q",
               "--shard-size", 1)  # fmt: skip
    assert_done(invoke(*command, "-o", f"{tmp_path}/whole/"))
    assert_done(invoke(*command, "-o", f"{tmp_path}/parts/", "--limit", 2))
    assert_done(invoke(*command, "-o", f"{tmp_path}/parts/", "--resume"))
    assert_same_records(shard_records(tmp_path / "whole"), shard_records(tmp_path / "parts"))
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:900])
    ran = invoke(*command[:-2], "-o", tmp_path / "o.h5")
    assert_failed(ran, "1", "damaged or truncated")
    assert [r.name for r in records(tmp_path / "o.h5")] == ["0", "2"]


def test_prepare_with_what_does_not_go_together(
    space: Path, photos: Path, shard: Path, tmp_path: Path
) -> None:
    output = ("-o", tmp_path / "o.h5", "-q")
    for options, words in (
        (["--transfer-from", shard, "--synthesize", "shake"], "--transfer-from excludes"),
        (["--transfer-from", shard, "--average", 3], "--transfer-from excludes"),
        (["-c", space], "-c, --device and --precision require --transfer-from"),
        (["--precision", "fp32"], "-c, --device and --precision require --transfer-from"),
        (["--transfer-from", "-", "-c", "-"], "standard input can be read only once"),
    ):
        assert_refused(invoke("prepare", photos, *options, *output), words, status=2)
    alone = photos / "0.png"
    ran = invoke("prepare", photos, "--transfer-from", alone, "-c", space, *output, "--jobs", 1)
    assert_failed(ran, "2", "record '0' holds blur; this network takes the blur of a pair")
    (tmp_path / "empty").mkdir()
    ran = invoke("prepare", photos, "--transfer-from", tmp_path / "empty", "-c", space, *output)
    assert ran.status == 1 and "--transfer-from" in ran.lines[-1] and "no record" in ran.lines[-1]
