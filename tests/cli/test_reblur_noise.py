"""`blurkit reblur --noise`: several blurs of each photo, as images, in pipes and to train on."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.metrics

from blurkit.data.sampler import CropSampler
from blurkit.io.records import Record
from tests.cli import kernel_spaces
from tests.cli.bgans import blurred_by, noise_of, saved
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
from tests.shared import shared_folder


@pytest.fixture(scope="module")
def bgan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("bgan") / "bgan.pt")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of three sharp photos of 64x48."""
    for number in range(3):
        write(tmp_path / f"photos/{number}.png", photo(number))
    return tmp_path / "photos"


def timeless(made: list[Record]) -> list[Record]:
    """The records without the seconds that each took."""
    for record in made:
        del record.attrs["reblurred_seconds"]
    return made


# ---- what is drawn -------------------------------------------------------------------------------


def test_several_blurs_of_each_photo(bgan: Path, photos: Path, tmp_path: Path) -> None:
    command = ("reblur", photos, "--noise", "-c", bgan, "-q", *FP32)
    made = []
    for options in (["--seed", 7], ["--seed", 7], ["--seed", 8], ["--seed", 7, "--copies", 3]):
        output = tmp_path / f"{len(made)}.h5"
        assert_done(invoke(*command, *options, "-o", output))
        made.append(timeless(records(output)))
    one, again, other, copies = made
    assert_same_records(one, again)
    assert_same_records(one, copies[::3])
    assert [r.name for r in copies[:4]] == ["0", "0-copy1", "0-copy2", "1"]
    for record in [*one, *copies]:
        image, noise = photo(int(record.name[0])), noise_of(7, record.name)
        assert_made(record.images["reblurred"], blurred_by(image, noise))
        np.testing.assert_array_equal(record.images["sharp"], image)
        np.testing.assert_array_equal(record.attrs["reblurred_noise"], noise)
        told = {"reblurred_like": "noise", "reblurred_by": "bgan.pt", "reblurred_seed": 7,
                "reblurred_scale": 1.0}  # fmt: skip
        assert {key: record.attrs[key] for key in told} == told
    drawn = [*other, *copies]
    for first, second in combinations(drawn, 2):
        if first.name[0] == second.name[0]:
            difference = np.subtract(*(r.images["reblurred"].astype(int) for r in (first, second)))
            assert np.abs(difference).mean() > 0.5, "every noise is another blur"


def test_images_beside_photos_and_in_folders(bgan: Path, photos: Path, tmp_path: Path) -> None:
    command = ("reblur", photos, "--noise", "-c", bgan, "--copies", 2, "-q")
    assert_done(invoke(*command))
    beside = {path: digest for path, digest in files(photos).items() if "reblurred" in path}
    assert sorted(beside) == [f"{n}.reblurred{copy}.png" for n in range(3) for copy in ("-1", "")]
    assert_done(invoke(*command, "-o", f"{tmp_path}/out/"))
    in_folder = files(tmp_path / "out")
    assert sorted(in_folder) == [f"{n}{copy}.png" for n in range(3) for copy in ("-copy1", "")]
    assert [*beside.values()] == [*in_folder.values()], "the same bytes"
    assert_failed(invoke(*command), "0", "exists already; give --force")


def test_how_wide_the_noise_is(bgan: Path, photos: Path, tmp_path: Path) -> None:
    one = photos / "1.png"
    for scale in (0, 2.5):
        output = tmp_path / f"{scale}.h5"
        options = ("--random-scale", scale, "-o", output, "-q", *FP32)
        assert_done(invoke("reblur", one, "--noise", "-c", bgan, *options))
        (record,) = records(output)
        noise = scale * noise_of(0, "1")
        np.testing.assert_array_equal(record.attrs["reblurred_noise"], noise)
        assert record.attrs["reblurred_scale"] == scale
        assert_made(record.images["reblurred"], blurred_by(photo(1), noise))


def test_gray_and_deep_photos(bgan: Path, tmp_path: Path) -> None:
    gray = write(tmp_path / "gray.png", photo(1)[:, :, 1])
    deep = write(tmp_path / "deep.tif", photo(2).astype(np.uint16) * 257)
    assert_done(invoke("reblur", gray, deep, "--noise", "-c", bgan, "-q", *FP32))
    wanted = blurred_by(photo(1)[:, :, 1], noise_of(0, "gray"))
    plain = ((wanted > 0) & (wanted < 255)).all(axis=2)  # nothing was clamped before the mean
    made = imageio.imread(tmp_path / "gray.reblurred.png")
    assert made.shape == (48, 64) and plain.mean() > 0.5
    np.testing.assert_allclose(made[plain], wanted.mean(axis=2)[plain], atol=0.52)
    made = imageio.imread(tmp_path / "deep.reblurred.tif")
    assert made.dtype == np.uint16
    np.testing.assert_allclose(made / 257, blurred_by(photo(2), noise_of(0, "deep")), atol=0.02)


def test_the_tile_changes_no_noise(bgan: Path, tmp_path: Path) -> None:
    path = write(tmp_path / "large.png", photo(2, 160, 224))
    made = []
    for tile in (64, 96, 256):
        output = tmp_path / f"{tile}.h5"
        options = ("--tile", tile, "-o", output, "-q", *FP32)
        assert_done(invoke("reblur", path, "--noise", "-c", bgan, *options))
        made += records(output)
    for record in made:
        np.testing.assert_array_equal(record.attrs["reblurred_noise"], noise_of(0, "large"))
    small, _, whole = (record.images["reblurred"].astype(int) for record in made)
    # Tiles of 64 start at 0, 32, 64, ...: here no tile has its border within the network's reach.
    assert np.abs(small[40:56, 40:56] - whole[40:56, 40:56]).max() <= 1
    assert np.abs(small[104:120, 72:88] - whole[104:120, 72:88]).max() <= 1


# ---- pipes and data sets -------------------------------------------------------------------------


def test_pipes(bgan: Path, tree: Path, shard: Path, tmp_path: Path) -> None:
    piped = shell(
        f"blurkit prepare {tree} -o - -q | blurkit reblur - --noise -c {bgan} --seed 3 -o - -q "
        "| tee blurred.h5 | blurkit eval - --json -q",
        tmp_path,
    )
    assert_done(piped)
    output = tmp_path / "whole.h5"
    assert_done(invoke("reblur", shard, "--noise", "-c", bgan, "--seed", 3, "-o", output, "-q"))
    made = timeless(records(tmp_path / "blurred.h5"))
    assert_same_records(made, timeless(records(output)))
    for record, row in zip(made, piped.json, strict=False):
        expected = skimage.metrics.peak_signal_noise_ratio(
            record.images["sharp"], record.images["reblurred"]
        )
        assert row["name"] == record.name and row["psnr"] == pytest.approx(expected)
    by_pipe = shell(f"cat {bgan} | blurkit reblur {shard} --noise -c - -o p.h5 --seed 3", tmp_path)
    assert_done(by_pipe)
    for first, second in zip(made, records(tmp_path / "p.h5"), strict=True):
        np.testing.assert_array_equal(first.images["reblurred"], second.images["reblurred"])


def test_pairs_to_train_on(bgan: Path, photos: Path, tmp_path: Path) -> None:
    command = ("reblur", photos, "--noise", "-c", bgan, "--copies", 2, "--seed", 5, "-q", *FP32)
    assert_done(invoke(*command, "-o", tmp_path / "images.h5"))
    ran = invoke(*command, "--pairs", "-o", f"{tmp_path}/pairs/", "--json")
    assert_done(ran)
    assert [*files(tmp_path / "pairs")] == ["train-00000.h5"]
    pairs = shard_records(tmp_path / "pairs")
    assert [r.name for r in pairs] == [f"{n}{copy}" for n in range(3) for copy in ("", "-copy1")]
    assert [row.get("like") for row in ran.json] == 6 * ["noise"] + [None]
    for pair, record in zip(pairs, records(tmp_path / "images.h5"), strict=True):
        assert list(pair.images) == ["blur", "sharp"]
        np.testing.assert_array_equal(pair.images["blur"], record.images["reblurred"])
        np.testing.assert_array_equal(pair.images["sharp"], record.images["sharp"])
        assert pair.attrs["blur_from"] == "noise" and "reblurred_like" not in pair.attrs
        noise = record.attrs["reblurred_noise"]
        np.testing.assert_array_equal(pair.attrs["reblurred_noise"], noise)
    piped = shell(
        f"blurkit reblur {photos} --noise -c {bgan} --copies 2 --seed 5 --pairs -o - -q "
        "--precision fp32 > piped.h5",
        tmp_path,
    )
    assert_done(piped)
    assert_same_records(timeless(pairs), timeless(records(tmp_path / "piped.h5")))
    assert_refused(
        invoke(*command, "--pairs", "-o", f"{tmp_path}/pairs/"), "holds 1 shards already"
    )
    assert_done(invoke(*command, "--pairs", "-o", f"{tmp_path}/pairs/", "--force"))
    sampler = CropSampler(sorted((tmp_path / "pairs").glob("*.h5")), 32, ("blur", "sharp"))
    blur, sharp = sampler.batch(0, 0, 4)
    assert len(sampler) == 6 and blur.shape == sharp.shape == (4, 32, 32, 3)
    assert np.abs(blur.astype(int) - sharp).mean() > 1


def test_training_takes_the_pairs(bgan: Path, tmp_path: Path) -> None:
    for number in range(2):
        write(tmp_path / f"photos/{number}.png", photo(number, 96, 96))
    ran = invoke("reblur", tmp_path / "photos", "--noise", "-c", bgan, "--pairs", "-q", "-o",
                 f"{tmp_path}/pairs/")  # fmt: skip
    assert_done(ran)
    options = ["--system", "msfs", "--preset", "small", "--width", 4, "--batch", 2, "--crop", 32,
               "--iterations", 2, "--device", "cpu", "-q"]  # fmt: skip
    assert_done(run("train-deblur", tmp_path / "pairs", *options, "-o", tmp_path / "d.pt"))
    assert (tmp_path / "d.pt").is_file()


def test_pairs_of_other_blurs(joint: Path, photos: Path, tmp_path: Path) -> None:
    """--pairs goes with every way to blur."""
    blurry = write(tmp_path / "blurry.png", blurred(photo(9)))
    np.save(tmp_path / "k.npy", np.eye(5))
    space = kernel_spaces.saved(tmp_path / "kernel.pt", variational=True)
    for way, like in (
        (["--like", blurry, "-c", joint], "blurry"),
        (["--kernel", tmp_path / "k.npy"], "k"),
        (["--random", "-c", space], "random"),
    ):
        folder = tmp_path / like
        common = ("reblur", photos, *way, "-q")
        assert_done(invoke(*common, "--pairs", "-o", f"{folder}/"))
        assert_done(invoke(*common, "-o", tmp_path / f"{like}.h5"))
        records_there = records(tmp_path / f"{like}.h5")
        for pair, record in zip(shard_records(folder), records_there, strict=True):
            assert list(pair.images) == ["blur", "sharp"] and pair.attrs["blur_from"] == like
            np.testing.assert_array_equal(pair.images["blur"], record.images["reblurred"])


# ---- how much they differ, and what stays --------------------------------------------------------


def decibels(first: np.ndarray, second: np.ndarray) -> float:
    return float(skimage.metrics.peak_signal_noise_ratio(first, second))


def expected_means(made: list[Record], copies: int) -> dict[str, float]:
    """What the versions of each photo, one photo after another, come to."""
    groups = [made[first : first + copies] for first in range(0, len(made), copies)]
    pairs = [
        np.mean([decibels(a.images["reblurred"], b.images["reblurred"]) for a, b in found])
        for found in (list(combinations(group, 2)) for group in groups)
    ]
    near = [decibels(r.images["sharp"], r.images["reblurred"]) for r in made]
    return {"pairwise_psnr": float(np.mean(pairs)), "psnr_sharp": float(np.mean(near))}


def test_how_much_copies_differ(bgan: Path, photos: Path, tmp_path: Path) -> None:
    space = kernel_spaces.saved(tmp_path / "kernel.pt", variational=True)
    for way in (["--noise", "-c", bgan], ["--random", "-c", space]):
        output = tmp_path / "out.h5"
        command = ("reblur", photos, *way, "--copies", 3, "--json")
        ran = invoke(*command, "-o", output, "--force")
        assert_done(ran)
        means = expected_means(records(output), 3)
        wanted = {"images": 9, "photos": 3, "identical": 0, **means}
        assert ran.json[-1]["total"] == pytest.approx(wanted)
        assert "how much the versions of a photo differ" in ran.err
        for mean in means.values():
            assert f"{mean:.2f}" in ran.err
        swapped = invoke(*command, "-q", "--pairs", "-o", f"{tmp_path}/pairs/", "--force")
        assert swapped.json[-1] == ran.json[-1] and swapped.err == ""
        alike = invoke(*command, "-o", output, "--force", "--random-scale", 0)
        assert_done(alike)
        total = alike.json[-1]["total"]
        assert (total["identical"], total["pairwise_psnr"]) == (3, None)
        assert total["psnr_sharp"] > 0
    ran = invoke("reblur", photos, "--noise", "-c", bgan, "-o", output, "--force", "--json")
    assert ran.json[-1] == {"total": {"images": 3}} and "versions" not in ran.err


def test_content_stays(bgan: Path, tmp_path: Path) -> None:
    features = shared_folder("weights", "BLURKIT_WEIGHTS") / "vgg11_bn_trunk.safetensors"
    path = write(tmp_path / "a.png", photo(3, 64, 64))
    output = tmp_path / "out.h5"
    assert_done(invoke("reblur", path, "--noise", "-c", bgan, "--copies", 2, "-o", output, "-q"))
    ran = invoke("contextual-sim", output, "--features", features, "--json", "-q")
    assert_done(ran)
    *rows, last = ran.json
    assert [row["name"] for row in rows] == ["a", "a-copy1"]
    assert all(0 < row["similarity"] <= 1 for row in rows)
    same = invoke("contextual-sim", output, "--images", "sharp", "sharp", "--features", features,
                  "--json", "-q")  # fmt: skip
    assert last["total"]["similarity"] < same.json[-1]["total"]["similarity"]


# ---- what is wrong -------------------------------------------------------------------------------


def test_bad_photos_in_a_batch(bgan: Path, photos: Path, tmp_path: Path) -> None:
    (photos / "1.png").write_bytes((photos / "1.png").read_bytes()[:900])
    taken = write(photos / "2.reblurred.png", photo(9))
    ran = invoke("reblur", photos, "--noise", "-c", bgan, "--copies", 3, "--json", *FP32)
    assert_failed(ran, "1", "damaged or truncated")
    assert "2.reblurred.png: exists already" in ran.err
    assert ran.lines[-1].startswith("2 failed, 5 reblurred")
    np.testing.assert_array_equal(imageio.imread(taken), photo(9))
    made = {
        name: imageio.imread(photos / f"{name[0]}.reblurred{name[1:]}.png")
        for name in ("0", "0-1", "0-2", "2-1", "2-2")
    }
    # What is left of each photo is measured, and no photo's versions are held to another's.
    first = [decibels(made[a], made[b]) for a, b in combinations(("0", "0-1", "0-2"), 2)]
    expected = np.mean([np.mean(first), decibels(made["2-1"], made["2-2"])])
    total = ran.json[-1]["total"]
    assert total["photos"] == 2 and total["pairwise_psnr"] == pytest.approx(expected)


def test_records_without_a_sharp_image(bgan: Path, photos: Path, tmp_path: Path) -> None:
    assert_done(invoke("prepare", photos, "-o", tmp_path / "blur.h5", "-q", "--jobs", 1))
    ran = invoke(
        "reblur", tmp_path / "blur.h5", "--noise", "-c", bgan, "-o", tmp_path / "o.h5", "-q"
    )
    assert_failed(ran, "0", "record '0' holds blur; sharp or restored is needed")
    assert not (tmp_path / "o.h5").exists()


def test_what_noise_needs(bgan: Path, joint: Path, photos: Path, tmp_path: Path) -> None:
    one = photos / "0.png"
    kernel = write(tmp_path / "kernel.png", photo(1, 5, 5)[:, :, 0])
    before = files(tmp_path)
    with_bgan = ["--noise", "-c", bgan]
    for options, words in (
        (
            ["--noise"],
            "--noise requires -c with a BGAN, without --system; none comes with blurkit",
        ),
        ([*with_bgan, "--system", "kernel-space"], "--noise requires -c with a BGAN"),
        ([*with_bgan, "--random"], "one of --like, --kernel, --random, --noise and --search"),
        ([*with_bgan, "--like", one], "one of --like, --kernel, --random, --noise"),
        ([*with_bgan, "--kernel", kernel], "one of --like, --kernel, --random, --noise"),
        ([*with_bgan, "--search"], "one of --like, --kernel, --random, --noise"),
        ([*with_bgan, "--shuffle"], "--shuffle and --encoder exclude --kernel, --random"),
        ([*with_bgan, "--encoder", joint], "--shuffle and --encoder exclude --kernel"),
        ([*with_bgan, "--gamma", 2], "--gamma requires --kernel"),
        ([*with_bgan, "--pairs"], "--pairs writes a dataset: name a folder/, a shard"),
        ([*with_bgan, "--pairs", "-o", tmp_path / "o.png"], "--pairs writes a dataset"),
        (["--copies", 2], "--copies and --random-scale require --random or --noise"),
    ):
        assert_refused(invoke("reblur", one, *options, "-q"), words, status=2)
    assert invoke("reblur", one, *with_bgan, "--copies", 0).status == 2
    ran = invoke("reblur", "-", "--noise", "-c", "-", "-o", "-")
    assert_refused(ran, "standard input can be read only once", status=2)
    for wrong, held in (
        (joint, "enc.pt: holds encoder (DegradationEncoder), latents"),
        (
            kernel_spaces.saved(tmp_path / "kernel.pt"),
            "kernel.pt: holds kernel_space (KernelSpace)",
        ),
    ):
        ran = invoke("reblur", one, "--noise", "-c", wrong, "-q")
        assert_refused(ran, held, "random blur from noise needs a BGAN")
    ran = invoke("reblur", one, "--noise", "-c", tmp_path / "missing.pt", "-q")
    assert_refused(ran, "missing.pt: no such checkpoint")
    for way in (["--like", one], ["--random"]):
        ran = invoke("reblur", one, *way, "-c", bgan, "-q")
        assert_refused(ran, "bgan.pt: holds bgan (BGAN)", "blur kernel space")
    (tmp_path / "kernel.pt").unlink()
    assert files(tmp_path) == before


def test_info(bgan: Path) -> None:
    ran = invoke("info", bgan, "--json")
    assert_done(ran)
    network = ran.json[0]["networks"]["bgan"]
    told = {"network": "BGAN", "width": 8, "blocks": 1, "noise": 4}
    assert {key: network[key] for key in told} == told
    # 3x3 kernels: 7 to 8 channels, six times 8 to 8, 8 to 3; and a bias for each channel.
    assert network["parameters"] == 9 * (56 + 6 * 64 + 24) + 7 * 8 + 3
