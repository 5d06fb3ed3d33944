"""`blurkit reblur`: the blur of one photo, of one each, or of each other."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import skimage.metrics

from blurkit.data.sampler import CropSampler
from blurkit.io.images import read_image
from blurkit.tasks.reblur import exchange
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    files,
    photo,
    records,
    run,
    shard_records,
    shell,
    write,
)
from tests.cli.guides import FP32, assert_made, expected, official
from tests.cli.invoke import invoke
from tests.engine.networks import steered


def like(image: np.ndarray, guide: np.ndarray) -> np.ndarray:
    return expected("reblur", image, (1, guide))


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Four sharp photos."""
    return [write(tmp_path / f"photos/{n}.png", photo(n)) for n in range(4)]


@pytest.fixture
def references(tmp_path: Path) -> list[Path]:
    """Three other photos, blurred."""
    return [write(tmp_path / f"blurry/{n}.png", blurred(photo(n + 20))) for n in range(3)]


# ---- whose blur ----------------------------------------------------------------------------------


def test_one_photo_like_another(joint: Path, tmp_path: Path) -> None:
    sharp = write(tmp_path / "sharp.png", photo(0))
    blurry = write(tmp_path / "blurry.png", blurred(photo(9, 56, 40)))
    before = files(tmp_path)
    ran = run("reblur", "sharp.png", "--like", "blurry.png", "-c", joint, "--json", *FP32,
              cwd=tmp_path)  # fmt: skip
    assert_done(ran)
    made = imageio.imread(tmp_path / "sharp.reblurred.png")
    assert_made(made, like(imageio.imread(sharp), imageio.imread(blurry)))
    assert np.abs(made - like(photo(0), photo(3))).mean() > 1, "the guide matters"
    row, last = ran.json
    assert (row["name"], row["like"], row["width"], row["height"]) == ("sharp", "blurry", 64, 48)
    assert row["tile"] == 64 and row["precision"] == "float32" and row["seconds"] > 0
    assert "reblurred_psnr" not in row and last == {"total": {"images": 1}}
    assert files(tmp_path).items() > before.items()
    again = invoke("reblur", sharp, "--like", blurry, "-c", joint, "-q")
    assert_failed(again, "sharp", "sharp.reblurred.png: exists already; give --force")
    assert_done(invoke("reblur", sharp, "--like", blurry, "-c", joint, "-q", "--force"))


def test_one_reference_for_many_photos(
    joint: Path, photos: list[Path], references: list[Path], tmp_path: Path
) -> None:
    for options in ([], ["--shuffle"]):
        folder = tmp_path / f"out{len(options)}"
        ran = invoke("reblur", photos[0].parent, "--like", references[1], "-c", joint, "-o",
                     f"{folder}/", "-q", *FP32, *options)  # fmt: skip
        assert_done(ran)
        assert sorted(files(folder)) == [f"{n}.png" for n in range(4)]
        for n in range(4):
            assert_made(imageio.imread(folder / f"{n}.png"), like(photo(n), blurred(photo(21))))


def test_one_reference_per_photo_in_order(
    joint: Path, photos: list[Path], references: list[Path], tmp_path: Path
) -> None:
    named = [argument for path in references for argument in ("--like", path)]
    for number, given in enumerate((named, ["--like", references[0].parent])):
        output = tmp_path / f"{number}.h5"
        ran = invoke("reblur", *photos[:3], *given, "-c", joint, "-o", output, "-q", *FP32)
        assert_done(ran)
        for n, record in enumerate(records(output)):
            assert record.attrs["reblurred_like"] == f"{n}"
            assert_made(record.images["reblurred"], like(photo(n), blurred(photo(n + 20))))
    assert len(records(output)) == 3


def test_a_bad_photo_or_reference_shifts_no_other(
    joint: Path, photos: list[Path], references: list[Path], tmp_path: Path
) -> None:
    photos[0].write_bytes(photos[0].read_bytes()[:900])
    ran = invoke("reblur", *photos[:3], "--like", references[0].parent, "-c", joint, "-o",
                 f"{tmp_path}/out/", "-q", *FP32)  # fmt: skip
    assert_failed(ran, "0", str(photos[0]), "damaged or truncated")
    assert ran.lines[-1] == "1 failed, 2 reblurred: 0"
    for n in (1, 2):
        made = imageio.imread(tmp_path / f"out/{n}.png")
        assert_made(made, like(photo(n), blurred(photo(n + 20))))
    references[1].write_bytes(b"no image")
    ran = invoke("reblur", *photos[1:], "--like", references[0].parent, "-c", joint, "-o",
                 f"{tmp_path}/more/", "-q", *FP32)  # fmt: skip
    assert_failed(ran, "2", str(references[1]), "is not an image")
    assert sorted(files(tmp_path / "more")) == ["1.png", "3.png"]
    made = imageio.imread(tmp_path / "more/3.png")
    assert_made(made, like(photo(3), blurred(photo(22))))


def test_in_order_no_photo_may_be_left_out(
    joint: Path, photos: list[Path], references: list[Path], tmp_path: Path
) -> None:
    """All behind it would get another's blur."""
    given = [photos[0], tmp_path / "missing.png", photos[2]]
    ran = invoke("reblur", *given, "--like", references[0].parent, "-c", joint, "-o",
                 f"{tmp_path}/out/", "-q")  # fmt: skip
    assert_refused(ran, "missing.png: no such file or folder")
    assert not (tmp_path / "out").exists()


def test_more_photos_than_references(
    joint: Path, photos: list[Path], references: list[Path], tmp_path: Path
) -> None:
    command = ("reblur", photos[0].parent, "--like", references[0].parent, "-c", joint, "-q")
    ran = invoke(*command, "-o", f"{tmp_path}/out/")
    assert_failed(ran, "3", "error: 3: no blur is left; --like holds 3 images")
    assert sorted(files(tmp_path / "out")) == ["0.png", "1.png", "2.png"]
    drawn = []
    for seed in (0, 0, 5):
        output = tmp_path / f"{len(drawn)}.h5"
        assert_done(invoke(*command, "--shuffle", "--seed", seed, "-o", output, *FP32))
        drawn.append([r.attrs["reblurred_like"] for r in records(output)])
        assert sorted(drawn[-1][:3]) == ["0", "1", "2"]
        for n, record in enumerate(records(output)):
            guide = blurred(photo(20 + int(drawn[-1][n])))
            assert_made(record.images["reblurred"], like(photo(n), guide))
    assert drawn[0] == drawn[1] != drawn[2]


# ---- records with blur and sharp -----------------------------------------------------------------


def test_records_reblur_themselves(joint: Path, shard: Path, tree: Path, tmp_path: Path) -> None:
    ran = invoke("reblur", tree, "-c", joint, "-o", tmp_path / "out.h5", "--json", *FP32)
    assert_done(ran)
    *rows, last = ran.json
    held = records(shard)
    for row, record, source in zip(rows, records(tmp_path / "out.h5"), held, strict=True):
        sharp, blur = source.images["sharp"], source.images["blur"]
        made = record.images["reblurred"]
        assert row["name"] == row["like"] == record.name == source.name
        assert_made(made, like(sharp, blur))
        for key, image in (("reblurred_psnr", made), ("reblurred_psnr_sharp", sharp)):
            psnr = skimage.metrics.peak_signal_noise_ratio(blur, image)
            assert row[key] == record.attrs[key] == pytest.approx(psnr)
    means = {k: np.mean([r[k] for r in rows]) for k in ("reblurred_psnr", "reblurred_psnr_sharp")}
    assert last["total"] == pytest.approx({"images": 4, **means})
    assert f"{means['reblurred_psnr']:.2f}" in ran.err and "how close the reblurred" in ran.err
    quiet = invoke("reblur", shard, "-c", joint, "-o", f"{tmp_path}/images/", "-q", *FP32)
    assert (quiet.status, quiet.out, quiet.err) == (0, b"", "")
    for record in records(tmp_path / "out.h5"):
        image = imageio.imread(tmp_path / f"images/{record.name}.png")
        np.testing.assert_array_equal(image, record.images["reblurred"])


def test_streams(joint: Path, shard: Path, tmp_path: Path) -> None:
    piped = shell(
        f"cat {shard} | blurkit reblur - -c {joint} -o - -q | tee own.h5 | "
        f"blurkit reblur {shard} --like - --shuffle -c {joint} -o drawn.h5 -q",
        tmp_path,
    )
    assert_done(piped)
    assert_done(invoke("reblur", shard, "-c", joint, "-o", tmp_path / "whole.h5", "-q"))
    for record, other in zip(
        records(tmp_path / "own.h5"), records(tmp_path / "whole.h5"), strict=True
    ):
        assert record.name == other.name
        np.testing.assert_array_equal(record.images["reblurred"], other.images["reblurred"])
    names = [r.name for r in records(shard)]
    drawn = records(tmp_path / "drawn.h5")
    assert [r.name for r in drawn] == names
    assert sorted(r.attrs["reblurred_like"] for r in drawn) == names


def test_a_reader_that_leaves_early_ends_it_quietly(
    joint: Path, shard: Path, tmp_path: Path
) -> None:
    script = f"blurkit reblur {shard} {shard} -c {joint} -o - -q | head -c 100; "
    ran = shell(script + "echo ${PIPESTATUS[0]}", tmp_path)
    assert ran.err == ""
    assert ran.out.startswith(b"\x89HDF\r\n\x1a\n") and ran.out.endswith(b"141\n")


# ---- blur-swapped data sets ----------------------------------------------------------------------


def test_a_swapped_data_set(joint: Path, training_shards: Path, tmp_path: Path) -> None:
    given = sorted(training_shards.glob("*.h5"))
    command = ("reblur", *given, "--shuffle", "--seed", 3, "-c", joint, "-q", "--tile", 176)
    ran = invoke(*command, "-o", f"{tmp_path}/swapped/", "--json")
    assert_done(ran)
    before, after = records(*given), shard_records(tmp_path / "swapped")
    splits = [record.attrs.get("split") for record in before]
    assert sorted(files(tmp_path / "swapped")) == ["train-00000.h5", "val-00000.h5"]
    assert [r.name for r in after] == [r.name for r in before], "train comes before val"
    donors = exchange(len(before), 3)
    assert [row["like"] for row in ran.json[:-1]] == [before[d].name for d in donors]
    for record, source, donor, split in zip(after, before, donors, splits, strict=True):
        assert list(record.images) == ["blur", "sharp"]
        np.testing.assert_array_equal(record.images["sharp"], source.images["sharp"])
        assert record.attrs["blur_from"] == before[donor].name != record.name
        assert record.attrs.get("split") == split
        assert "kernel" in source.attrs and "kernel" not in record.attrs
        assert np.abs(record.images["blur"].astype(int) - source.images["blur"]).mean() > 1
    assert_done(invoke(*command, "-o", tmp_path / "one.h5"))
    for first, second in zip(after, records(tmp_path / "one.h5"), strict=True):
        np.testing.assert_array_equal(first.images["blur"], second.images["blur"])
    refused = invoke(*command, "-o", f"{tmp_path}/swapped/")
    assert_refused(refused, "holds 2 shards already; give --resume to continue them")
    other = invoke(*command, "-o", f"{tmp_path}/swapped/", "--force", "--seed", 4)
    assert_done(other)
    assert len(shard_records(tmp_path / "swapped")) == len(before)


@pytest.mark.slow
def test_training_takes_a_swapped_data_set(
    joint: Path, training_shards: Path, tmp_path: Path
) -> None:
    train = sorted(training_shards.glob("train-*.h5"))
    ran = invoke("reblur", *train, "--shuffle", "-c", joint, "-o", f"{tmp_path}/swapped/", "-q")
    assert_done(ran)
    sampler = CropSampler(sorted((tmp_path / "swapped").glob("*.h5")), 64, ("blur", "sharp"))
    blur, sharp = sampler.batch(0, 0, 4)
    assert blur.shape == sharp.shape == (4, 64, 64, 3)
    options = ["--preset", "small", "--width", 8, "--hidden", 8, "--batch", 2, "--crop", 64,
               "--iterations", 2, "--discriminator-width", 8, "--perceptual", "none",
               "--device", "cpu", "-q"]  # fmt: skip
    output = tmp_path / "new.pt"
    assert_done(run("train-reblur", tmp_path / "swapped", *options, "-o", output))
    assert_done(invoke("reblur", *train, "-c", output, "-o", f"{tmp_path}/out/", "-q"))


# ---- kinds of pictures and of checkpoints --------------------------------------------------------


def test_depth_alpha_and_metadata_are_the_photos_own(joint: Path, tmp_path: Path) -> None:
    image = photo(5, 40, 56)
    deep = image.astype(np.uint16) * 257 - image[:, ::-1] // 2
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    (tmp_path / "in").mkdir()
    (tmp_path / "in/deep.png").write_bytes(imagecodecs.png_encode(deep))
    write(tmp_path / "in/alpha.png", np.concatenate([image, alpha], axis=2))
    write(tmp_path / "in/grey.png", image[:, :, 1])
    exif = PIL.Image.Exif()
    exif[274], exif[271] = 6, "A camera"
    PIL.Image.fromarray(image).save(tmp_path / "in/turned.jpg", exif=exif)
    reference = write(tmp_path / "like.png", blurred(photo(30))[:, :, :1].repeat(4, axis=2))
    ran = invoke("reblur", tmp_path / "in", "--like", reference, "-c", joint, "-q", *FP32,
                 "-o", f"{tmp_path}/out/")  # fmt: skip
    assert_done(ran)
    guide = imageio.imread(reference)[:, :, :3]
    made = {path.stem: read_image(path) for path in (tmp_path / "out").iterdir()}
    assert made["deep"].pixels.dtype == np.uint16
    np.testing.assert_allclose(made["deep"].pixels / 257, like(deep, guide), atol=0.02)
    assert_made(made["alpha"].pixels, like(image, guide))
    np.testing.assert_array_equal(made["alpha"].alpha, alpha)
    grey = like(image[:, :, 1], guide)
    plain = ((grey > 0) & (grey < 255)).all(axis=2)  # nothing was clamped before the mean
    assert plain.mean() > 0.5
    np.testing.assert_allclose(made["grey"].pixels[plain, 0], grey.mean(axis=2)[plain], atol=0.52)
    with PIL.Image.open(tmp_path / "out/turned.jpg") as turned:
        assert turned.size == (56, 40)
        assert (turned.getexif()[274], turned.getexif()[271]) == (6, "A camera")


def test_photos_and_references_of_many_tiles(joint: Path, tmp_path: Path) -> None:
    sharp = write(tmp_path / "large.png", photo(2, 160, 96))
    reference = write(tmp_path / "like.png", blurred(photo(3, 80, 208)))
    ran = invoke("reblur", sharp, "--like", reference, "-c", joint, "--overlap", 0, "-q", *FP32)
    assert_done(ran)
    made = imageio.imread(tmp_path / "large.reblurred.png")
    assert made.shape == (160, 96, 3)
    # Tiles start at 0, 48, 96 of 96 and 0, 32 of 32; in the reference at 0, 8, 16 and 0, 144.
    content, guide = imageio.imread(sharp), imageio.imread(reference)
    assert_made(made[:48, :32], like(content[:64, :64], guide[:64, :64])[:48, :32])
    second = like(content[48:112, 32:], guide[8:72, 144:])
    assert_made(made[64:96, 64:], second[16:48, 32:])
    assert_made(made[112:, 64:], like(content[96:, 32:], guide[16:, 144:])[16:, 32:])


def test_official_files(joint: Path, tmp_path: Path) -> None:
    first, second = steered(0), steered(1)
    given = {
        "joint.pth": official(tmp_path / "joint.pth", first),
        "net_E.pth": official(tmp_path / "net_E.pth", second.net_prior),
    }
    sharp, blurry = photo(0, 64, 64), blurred(photo(7, 64, 64))
    pair = [write(tmp_path / name, i) for name, i in (("s.png", sharp), ("b.png", blurry))]
    command = ("reblur", pair[0], "--like", pair[1], "--tile", 64, "-q", *FP32, "--force")
    assert_done(invoke(*command, "-c", given["joint.pth"]))
    assert_made(imageio.imread(tmp_path / "s.reblurred.png"), like(sharp, blurry))
    assert_done(invoke(*command, "-c", joint, "--encoder", given["net_E.pth"]))
    made = imageio.imread(tmp_path / "s.reblurred.png")
    first.net_prior = second.net_prior
    wanted = expected("reblur", sharp, (1, blurry), networks=first)
    assert_made(made, wanted)
    assert np.abs(wanted - like(sharp, blurry)).mean() > 1
