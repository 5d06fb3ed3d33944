"""`blurkit reblur`: the blur of one photo, of one each, or of each other."""

import os
from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage
import skimage.data
import skimage.metrics

import blurkit
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.images import read_image
from blurkit.io.records import Record
from blurkit.tasks.reblur import exchange, with_estimated_blur
from tests.cli import bgans, kernel_spaces
from tests.cli.command import assert_failed, assert_refused, files, piped, records, shard_records
from tests.cli.guides import FP32, assert_made, like, official, psnr
from tests.cli.invoke import assert_each_refused, done, invoke, results, timeless
from tests.cli.pictures import blurred, photo, plant_pair, plant_photos, write
from tests.engine.networks import steered, stored
from tests.io.scenes import SRGB, assert_all_same, exif

PHOTOS = [Path(f"photos/{n}.png") for n in range(4)]
REFERENCES = [Path(f"blurry/{n}.png") for n in range(3)]


@pytest.fixture
def photos(inside: None) -> None:
    """Four sharp photos, and blurry ones of something else to blur them like."""
    plant_photos("photos", 4)
    for n, path in enumerate(REFERENCES):
        write(path, blurred(photo(n + 20)))


# ---- whose blur ----------------------------------------------------------------------------------


def test_one_photo_like_another(joint: Path) -> None:
    sharp = write("sharp.png", photo(0))
    blurry = write("blurry.png", blurred(photo(9, 56, 40)))
    before = files()
    command = ("reblur", "sharp.png", "--like", "blurry.png", "-c", joint)
    row, last = done(*command, "--json", *FP32).json
    made = imageio.imread("sharp.reblurred.png")
    assert_made(made, like(imageio.imread(sharp), imageio.imread(blurry)))
    assert np.abs(made - like(photo(0), photo(3))).mean() > 1, "the guide matters"
    assert (row["name"], row["like"], row["width"], row["height"]) == ("sharp", "blurry", 64, 48)
    assert row["tile"] == 64 and row["precision"] == "float32" and row["seconds"] > 0
    assert "reblurred_psnr" not in row and last == {"total": {"images": 1}}
    assert files().items() > before.items()
    again = invoke(*command, "-q")
    assert_failed(again, "sharp", "sharp.reblurred.png: exists already; give --force")
    done(*command, "-q", "--force")


def test_one_reference_for_many_photos(joint: Path, photos: None) -> None:
    given = ("--like", REFERENCES[1], "-c", joint, "-q", *FP32)
    for folder, *options in (("out",), ("drawn", "--shuffle")):
        done("reblur", "photos", *given, "-o", f"{folder}/", *options)
        assert sorted(files(folder)) == [f"{n}.png" for n in range(4)]
        for n in range(4):
            assert_made(imageio.imread(f"{folder}/{n}.png"), like(photo(n), blurred(photo(21))))


def test_one_reference_per_photo_in_order(joint: Path, photos: None) -> None:
    named = [argument for path in REFERENCES for argument in ("--like", path)]
    for number, given in enumerate((named, ["--like", "blurry"])):
        made = results(f"{number}.h5", "reblur", *PHOTOS[:3], *given, "-c", joint, *FP32)
        assert [record.attrs["reblurred_like"] for record in made] == ["0", "1", "2"]
        for n, record in enumerate(made):
            assert_made(record.images["reblurred"], like(photo(n), blurred(photo(n + 20))))


def test_a_bad_photo_or_reference_shifts_no_other(joint: Path, photos: None) -> None:
    common = ("--like", "blurry", "-c", joint, "-q", *FP32)
    ran = invoke("reblur", PHOTOS[0], "missing.png", PHOTOS[2], *common, "-o", "out/")
    assert_refused(ran, "missing.png: no such file or folder")  # all behind it would be shifted
    PHOTOS[0].write_bytes(PHOTOS[0].read_bytes()[:900])
    ran = invoke("reblur", *PHOTOS[:3], *common, "-o", "out/")
    assert_failed(ran, "0", str(PHOTOS[0]), "damaged or truncated")
    assert ran.lines[-1] == "1 failed, 2 reblurred: 0"
    for n in (1, 2):
        assert_made(imageio.imread(f"out/{n}.png"), like(photo(n), blurred(photo(n + 20))))
    REFERENCES[1].write_bytes(b"no image")
    ran = invoke("reblur", *PHOTOS[1:], *common, "-o", "more/")
    assert_failed(ran, "2", str(REFERENCES[1]), "is not an image")
    assert sorted(files("more")) == ["1.png", "3.png"]
    assert_made(imageio.imread("more/3.png"), like(photo(3), blurred(photo(22))))


def test_more_photos_than_references(joint: Path, photos: None) -> None:
    command = ("reblur", "photos", "--like", "blurry", "-c", joint, "-q")
    ran = invoke(*command, "-o", "out/")
    assert_failed(ran, "3", "error: 3: no blur is left; --like holds 3 images")
    assert sorted(files("out")) == ["0.png", "1.png", "2.png"]
    drawn = []
    for seed in (0, 0, 5):
        made = results("drawn.h5", *command, "--shuffle", "--seed", seed, "--force", *FP32)
        drawn.append([r.attrs["reblurred_like"] for r in made])
        assert sorted(drawn[-1][:3]) == ["0", "1", "2"]
        for n, record in enumerate(made):
            guide = blurred(photo(20 + int(drawn[-1][n])))
            assert_made(record.images["reblurred"], like(photo(n), guide))
    assert drawn[0] == drawn[1] != drawn[2]


# ---- records with blur and sharp -----------------------------------------------------------------


def test_records_reblur_themselves(joint: Path, shard: Path, tree: Path) -> None:
    ran = done("reblur", tree, "-c", joint, "-o", "out.h5", "--json", *FP32)
    *rows, last = ran.json
    held, made = records(shard), records("out.h5")
    for row, record, source in zip(rows, made, held, strict=True):
        sharp, blur = source.images["sharp"], source.images["blur"]
        assert row["name"] == row["like"] == record.name == source.name
        assert_made(record.images["reblurred"], like(sharp, blur))
        for end, image in (("", record.images["reblurred"]), ("_sharp", sharp)):
            key = f"reblurred_psnr{end}"
            assert row[key] == record.attrs[key] == pytest.approx(psnr(image, blur))
    means = {k: np.mean([r[k] for r in rows]) for k in ("reblurred_psnr", "reblurred_psnr_sharp")}
    assert last["total"] == pytest.approx({"images": 4, **means})
    assert f"{means['reblurred_psnr']:.2f}" in ran.err and "how close the reblurred" in ran.err
    quiet = done("reblur", shard, "-c", joint, "-o", "images/", "-q", *FP32)
    assert (quiet.out, quiet.err) == (b"", "")
    piped(
        f"cat {shard} | blurkit reblur - -c {joint} -o - -q {' '.join(FP32)} | tee own.h5 | "
        f"blurkit reblur {shard} --like - --shuffle -c {joint} -o drawn.h5 -q"
    )
    for record, own in zip(made, records("own.h5"), strict=True):
        image = imageio.imread(f"images/{record.name}.png")
        np.testing.assert_array_equal(image, record.images["reblurred"])
        np.testing.assert_array_equal(image, own.images["reblurred"])
    names, drawn = [r.name for r in held], records("drawn.h5")
    assert [r.name for r in drawn] == names
    assert sorted(r.attrs["reblurred_like"] for r in drawn) == names


def test_a_swapped_data_set(joint: Path, training_shards: Path) -> None:
    given = sorted(training_shards.glob("*.h5"))
    command = ("reblur", *given, "--shuffle", "--seed", 3, "-c", joint, "-q", "--tile", 176)
    ran = done(*command, "-o", "swapped/", "--json")
    before, after = records(*given), shard_records("swapped")
    assert sorted(files("swapped")) == ["train-00000.h5", "val-00000.h5"]
    assert [r.name for r in after] == [r.name for r in before], "train comes before val"
    donors = exchange(len(before), 3)
    assert [row["like"] for row in ran.json[:-1]] == [before[d].name for d in donors]
    for record, source, donor in zip(after, before, donors, strict=True):
        assert list(record.images) == ["blur", "sharp"]
        np.testing.assert_array_equal(record.images["sharp"], source.images["sharp"])
        assert record.attrs["blur_from"] == before[donor].name != record.name
        assert record.attrs.get("split") == source.attrs.get("split")
        assert "kernel" in source.attrs and "kernel" not in record.attrs
        assert np.abs(record.images["blur"].astype(int) - source.images["blur"]).mean() > 1
    assert_all_same(timeless(after), timeless(results("one.h5", *command)))
    refused = invoke(*command, "-o", "swapped/")
    assert_refused(refused, "holds 2 shards already; give --resume to continue them")
    assert len(results("swapped", *command, "--force", "--seed", 4)) == len(before)


def test_depth_alpha_and_metadata_are_the_photos_own(joint: Path) -> None:
    image = photo(5, 40, 56)
    deep = image.astype(np.uint16) * 257 - image[:, ::-1] // 2
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    Path("in").mkdir()
    Path("in/deep.png").write_bytes(imagecodecs.png_encode(deep))
    write("in/alpha.png", np.concatenate([image, alpha], axis=2))
    write("in/grey.png", image[:, :, 1])
    write("in/speck.png", image[:1, :1])
    PIL.Image.fromarray(image).save("in/turned.jpg", exif=exif(6), icc_profile=SRGB)
    reference = write("like.png", blurred(photo(30))[:, :, :1].repeat(4, axis=2))
    done("reblur", Path("in"), "--like", reference, "-c", joint, "-q", *FP32, "-o", "out/")
    guide = imageio.imread(reference)[:, :, :3]
    made = {path.stem: read_image(path) for path in Path("out").iterdir()}
    assert made["deep"].pixels.dtype == np.uint16
    np.testing.assert_allclose(made["deep"].pixels / 257, like(deep, guide), atol=0.02)
    assert_made(made["alpha"].pixels, like(image, guide))
    np.testing.assert_array_equal(made["alpha"].alpha, alpha)
    assert made["speck"].pixels.shape == (1, 1, 3)
    grey = like(image[:, :, 1], guide)
    plain = ((grey > 0) & (grey < 255)).all(axis=2)  # nothing was clamped before the mean
    assert plain.mean() > 0.5
    np.testing.assert_allclose(made["grey"].pixels[plain, 0], grey.mean(axis=2)[plain], atol=0.52)
    with PIL.Image.open("out/turned.jpg") as written:
        assert written.size == (56, 40) and written.info["icc_profile"] == SRGB
        assert (written.getexif()[274], written.getexif()[271]) == (6, "a camera")


# ---- a blur that is estimated in the other photo -------------------------------------------------


def stroke(length: int, degrees: float) -> np.ndarray:
    """A straight line, antialiased, that sums to 1; degrees counterclockwise from the right."""
    across = np.arange(length + 4) - (length + 3) / 2
    columns, rows = np.meshgrid(across, across)
    angle = np.radians(degrees)
    along = columns * np.cos(angle) - rows * np.sin(angle)
    aside = columns * np.sin(angle) + rows * np.cos(angle)
    line = np.clip(length / 2 + 0.5 - abs(along), 0, 1) * np.clip(1 - abs(aside), 0, 1)
    return line / line.sum()


def shaken(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """An 8-bit photo whose light was blurred by a kernel."""
    blurred = scipy.ndimage.convolve((image / 255) ** 2.2, kernel[:, :, None], mode="nearest")
    return np.rint(255 * np.clip(blurred, 0, 1) ** (1 / 2.2)).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A blurry photo, a sharp one of something else, and how that should look with its blur."""
    folder = tmp_path_factory.mktemp("estimated")
    coffee, cat = skimage.data.coffee()[80:336, 150:406], skimage.data.chelsea()[20:276, 90:346]
    write(folder / "blurry.png", shaken(coffee, stroke(13, 30)))
    write(folder / "still.png", coffee)
    write(folder / "cat.png", cat)
    write(folder / "wanted.png", shaken(cat, stroke(13, 30)))
    return folder


@pytest.mark.slow
def test_the_direction_of_blur_survives(folder: Path) -> None:
    wanted = imageio.imread(folder / "wanted.png")[16:-16, 16:-16]
    given = ("reblur", folder / "cat.png", "--like", folder / "blurry.png", "--json")
    scores = {}
    for method in ("auto", "network"):
        output = folder / f"{method}.png"
        found = done(*given, "--method", method, "-o", output).json[0]
        assert not found["warnings"]
        assert ("reblurred_length" in found) == (method == "auto")
        scores[method] = psnr(imageio.imread(output)[16:-16, 16:-16], wanted)
        if method == "auto":
            assert abs(found["reblurred_angle"] - 30) < 6
            assert abs(found["reblurred_length"] - 13) < 3
    assert scores["auto"] > max(33, scores["network"] + 3), scores
    cat = imageio.imread(folder / "cat.png")
    with pytest.raises(UsageError, match="takes no networks"):
        blurkit.load(system="msdi").reblur(cat, cat, method="auto")


@pytest.mark.slow
def test_a_photo_without_blur_to_find(folder: Path) -> None:
    given = (folder / "cat.png", "--like", folder / "still.png", "-o", folder / "still-cat.png")
    ran = done("reblur", *given)
    assert "cat: no uniform blur found in still, so blurred by the network" in ran.lines
    ran = invoke("reblur", *given, "--method", "shake", "--force")
    assert ran.status == 1
    assert "error: cat: no uniform blur is found in still; --method network needs none" in ran.lines


def test_many_photos_like_one_take_one_estimate() -> None:
    estimates = []

    def estimate(image: np.ndarray) -> dict[str, object]:
        estimates.append(image)
        about = {"blur_length": 3.0, "blur_angle": 0.0, "blur_trust": 0.9, "blur_gamma": 1.0}
        return {"kernel": np.full((1, 3), 1 / 3)} | about

    like, other = (Record(name, {"blur": photo(4)}) for name in ("like", "other"))
    blurred = with_estimated_blur(estimate)
    for number in range(3):
        sharp = photo(number)
        made = blurred(Record(f"{number}", {"sharp": sharp}), like).images["reblurred"]
        wanted = scipy.ndimage.uniform_filter1d(sharp.astype(float), 3, axis=1)[:, 1:-1]
        assert np.abs(made[:, 1:-1] - wanted).max() <= 1
    assert len(estimates) == 1
    blurred(Record("3", {"sharp": photo(3)}), other)
    assert len(estimates) == 2
    with pytest.raises(BlurkitError, match="no uniform blur"):
        with_estimated_blur(lambda image: {})(Record("4", {"sharp": photo(4)}), like)


# ---- references and records that do not serve ----------------------------------------------------


def test_references_that_are_none(joint: Path, photos: None, shard: Path) -> None:
    Path("empty").mkdir()
    Path("text.png").write_text("no image")
    Path("notes.txt").write_text("no image")
    Path("cut.h5").write_bytes(shard.read_bytes()[:-40_000])
    cases = {
        ("missing.png",): "missing.png: no such file or folder",
        ("empty",): "empty: holds no image and no shard",
        ("text.png",): "text.png: is not an image",
        ("notes.txt",): "is not an image, film or shard",
        ("cut.h5",): "truncated, 40000 bytes are missing",
    }
    for output in ("out/", "out.h5"):
        command = ("reblur", "photos", "-c", joint, "-q", "-o", output, "--like")
        assert_each_refused(cases, *command, status=1)
    assert not Path("out").exists()


def test_records_that_lack_an_image(joint: Path, shard: Path) -> None:
    one, whole = write("0.png", photo(0)), records(shard)
    ran = invoke("reblur", one, "-c", joint, "-q")
    assert_refused(ran, "0.png: holds no pair of a sharp and a blurry image; name what to")
    one.unlink()
    del whole[1].images["blur"], whole[2].images["sharp"]
    blurkit.write_records(whole, "mixed.h5")
    given = ("mixed.h5", "-c", joint, "-q", "-o")
    for command, kept in {
        ("reblur",): ["scene0/0", "scene1/1"],
        ("interpolate", "--steps", 1): ["scene0/0/0", "scene1/1/0"],
    }.items():
        ran = invoke(*command, *given, f"{command[0]}.h5")
        assert_failed(ran, "scene0/1", "record 'scene0/1' holds sharp; blur is needed")
        assert_failed(ran, "scene1/0", "record 'scene1/0' holds blur; sharp", "is needed")
        assert ran.lines[-1].startswith("2 failed, 2 ")
        assert [r.name for r in records(f"{command[0]}.h5")] == kept
    # In an exchange one fails for want of its own sharp image, one for want of another's blur.
    ran = invoke("reblur", "--shuffle", *given, "swapped.h5")
    assert_failed(ran, "scene1/0", "record 'scene0/1' holds sharp; blur is needed")
    assert_failed(ran, "scene1/0", "record 'scene1/0' holds blur; sharp or restored is needed")
    assert {*files()} == {f"{n}.h5" for n in ("mixed", "reblur", "interpolate", "swapped")}


def test_an_exchange_that_cannot_be(joint: Path) -> None:
    plant_pair("one/test", "s/0")
    cases = {(o,): "--shuffle needs two records at least" for o in ("o/", "o.h5", "-")}
    assert_each_refused(cases, "reblur", "one", "--shuffle", "-c", joint, "-q", "-o", status=1)
    assert [path.name for path in Path().iterdir()] == ["one"]


# ---- checkpoints and options ---------------------------------------------------------------------


def test_checkpoints_that_do_not_reblur(joint: Path, checkpoint: Path, shard: Path) -> None:
    roles = steered().roles()
    for lacking in ("reblur", "encoder"):
        stored(Path(f"no-{lacking}.pt"), {k: n for k, n in roles.items() if k != lacking})
    small = official(Path("small.pth"), steered(width=4).net_prior)
    needed = "reblurring needs an encoder, latents and a reblurring generator"
    cases: dict[tuple[object, ...], str] = {
        ("-c", "no-reblur.pt"): "no-reblur.pt: holds encoder (DegradationEncoder), latents "
        f"(PriorUpsampling), deblur (JointGenerator); {needed}, as train-reblur writes them",
        ("-c", "no-encoder.pt"): "no-encoder.pt: holds latents (PriorUpsampling), reblur (Joint",
        ("-c", checkpoint): f"holds deblur (MSDINet); {needed}",
        ("-c", joint, "--encoder", checkpoint): "tiny.pt: holds deblur (MSDINet), but no encoder",
        ("-c", joint, "--encoder", small): "these networks do not fit together: DegradationEncoder"
        " width 4",
    }
    assert_each_refused(cases, "reblur", shard, "-o", "o.h5", "-q", status=1)
    Path("garbage.pt").write_bytes(os.urandom(500))
    cases = {("missing.pt",): "no such checkpoint", ("garbage.pt",): "not a checkpoint"}
    for command in (("reblur", shard), ("transfer", shard, shard), ("interpolate", shard)):
        for output in ("out.h5", "out/", "-"):
            assert_each_refused(cases, *command, "-q", "-o", output, "-c", status=1)


def test_wrong_usage(joint: Path, shard: Path, photos: None) -> None:
    one, kernel = PHOTOS[0], write("kernel.png", photo(1, 5, 5)[:, :, 0])
    bgan = bgans.saved(Path("bgan.pt"))
    space = kernel_spaces.saved(Path("space.pt"))
    ways = "one of --like, --kernel, --random, --noise and --search"
    other = "--shuffle and --encoder exclude --kernel, --random"
    noise, noise_bgan = "--noise requires -c with a BGAN", ("--noise", "-c", bgan)
    draws = "--copies and --random-scale require --random or --noise"
    searches = "--iterations and --kernel-rate require --search"
    stdin = "standard input can be read only once"
    cases: dict[tuple[object, ...], str] = {
        ("-c", joint, "--json", "-o", "-"): "both write to standard output",
        ("-c", joint, "-", "--like", "-"): stdin,
        ("-c", joint, "--tile", "50"): "multiple of 16, at least 32",
        ("-c", joint, "--tile", "wide"): "give a number of pixels, or auto",
        ("-c", joint, "-o", "out.gif"): "out.gif is one film, but there are more",
        ("-c", joint, "-o", "one.png"): "is one image, but there are more",
        ("--search", "--random"): ways,
        ("--search", "--like", one): ways,
        ("--search", "--shuffle"): other,
        ("--search", "--system", "msdi"): "--system msdi excludes --kernel, --random",
        ("--search", "--tile", 256): "takes photos whole",
        ("--search", "--iterations", 0): "--iterations 0: must be at least 1",
        ("--iterations", 9): searches,
        ("--kernel-rate", 1): searches,
        ("--search", "-c", joint): "not --system kernel-space",
    }
    assert_each_refused(cases, "reblur", shard, "-q")
    cases = {
        ("--like", "-", "-c", "-"): stdin,
        ("-", "--noise", "-c", "-", "-o", "-"): stdin,
        ("--method", "auto"): "--method auto requires --like",
        ("--method", "shake", "--random"): "--method shake requires --like",
        ("--like", one, "--method", "shake", "--system", "msdi"): "--system, --tile and --overlap "
        "are for --method network",
        ("--noise",): f"{noise}, without --system; none comes with blurkit",
        (*noise_bgan, "--system", "kernel-space"): noise,
        (*noise_bgan, "--random"): ways,
        (*noise_bgan, "--like", one): ways,
        (*noise_bgan, "--kernel", kernel): ways,
        (*noise_bgan, "--search"): ways,
        (*noise_bgan, "--shuffle"): other,
        (*noise_bgan, "--encoder", joint): other,
        (*noise_bgan, "--gamma", 2): "--gamma requires --kernel",
        (*noise_bgan, "--copies", -1): "",
        (*noise_bgan, "--seed", -1): "",
        (*noise_bgan, "--pairs"): "--pairs writes a dataset: name a folder/, a shard",
        (*noise_bgan, "--pairs", "-o", "o.png"): "--pairs writes a dataset",
        ("--random", "-c", space): "space.pt: new blurs can only be drawn from a variational kern",
        ("--random", "--like", one): ways,
        ("--random", "--kernel", one): ways,
        ("--random", "--shuffle"): other,
        ("--random", "--system", "msdi"): "--system msdi excludes --kernel, --random",
        ("--copies", 2): draws,
        ("--like", one, "--random-scale", 2): draws,
        ("--like", one, "--gamma", 2): "--gamma requires --kernel",
        ("--kernel", kernel, "--gamma", 0): "--gamma 0: a gamma is above 0",
        ("--kernel", kernel, "-c", space): "a convolution, which takes no checkpoint",
    }
    assert_each_refused(cases, "reblur", one, "-q")
    cases = {
        (*noise_bgan[:2], joint): "enc.pt: holds encoder (DegradationEncoder), latents",
        (*noise_bgan[:2], space): "space.pt: holds kernel_space (KernelSpace); random blur from "
        "noise needs a BGAN",
        (*noise_bgan[:2], Path("missing.pt")): "missing.pt: no such checkpoint",
        ("--like", one, "-c", bgan): "bgan.pt: holds bgan (BGAN)",
        ("--random", "-c", bgan): "bgan.pt: holds bgan (BGAN)",
        ("--random", "-c", joint): "random blur needs a variational blur kernel",
    }
    assert_each_refused(cases, "reblur", one, "-q", status=1)
