"""`blurkit deblur`: photos of any kind and size, to wherever they are sent."""

import re
from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import pytest
import tifffile

import blurkit
from blurkit.cli import batch
from blurkit.io.images import read_image
from blurkit.io.records import Record
from blurkit.reports.pictures import PANEL_SIDE, RESTORED, before_after, most_changed
from tests.cli.command import assert_failed, files, records
from tests.cli.invoke import assert_each_refused, done, invoke, results
from tests.cli.pictures import blurred, photo, plant_tree, write
from tests.io.scenes import SRGB, exif

SIZES = [(1, 1), (1, 7), (7, 1), (17, 5), (31, 33), (67, 131)]


def assert_restored(restored: Path, source: Path, tolerance: float = 0.06) -> None:
    """Size, channels, depth and transparency are the source's; the pixels are nearly."""
    after, before = read_image(restored), read_image(source)
    assert after.pixels.shape == before.pixels.shape
    assert after.pixels.dtype == before.pixels.dtype
    peak = 1 if after.pixels.dtype.kind == "f" else np.iinfo(after.pixels.dtype).max
    error = np.abs(after.pixels.astype(float) - before.pixels) / peak
    assert 0 < error.mean() < tolerance
    if before.alpha is not None:
        np.testing.assert_array_equal(after.alpha, before.alpha)


def test_a_photo_beside_and_to_a_file(checkpoint: Path) -> None:
    source = write("photo.jpg", photo(0))
    before = source.read_bytes()
    ran = done("deblur", "photo.jpg", "-c", checkpoint, "--json")
    beside = Path("photo.deblurred.jpg")
    assert_restored(beside, source)
    (told,) = ran.json
    assert (told["name"], told["width"], told["height"], told["tile"]) == ("photo", 64, 48, 64)
    assert told["seconds"] > 0
    made = beside.read_bytes()
    ran = done("deblur", source, "-c", checkpoint, "--force")
    assert ran.lines[-1] == f"wrote {beside}" and beside.read_bytes() == made

    other = write("other.png", photo(1))
    ran = invoke("deblur", source, other, "-c", checkpoint, "-q")
    assert_failed(ran, "photo", "photo.deblurred.jpg: exists already; give --force")
    assert_restored(Path("other.deblurred.png"), other)

    output = write("new/out.png", photo(2))  # to be overwritten
    piped = "deblur", "photo.jpg", "-c", "-", "-o", output, "--force", "--quiet"
    ran = done(*piped, input=checkpoint.read_bytes())
    assert (ran.out, ran.err) == (b"", "")
    assert_restored(output, source)
    assert source.read_bytes() == before and beside.read_bytes() == made


def test_a_folder_keeps_names_and_sizes(checkpoint: Path) -> None:
    for number, (height, width) in enumerate(SIZES):
        write(f"in/nested/{number + 8}.png", photo(3, height, width))
    write("in/top.jpg", photo(1))
    ran = done("deblur", "in", "-c", checkpoint, "-o", "out/", "--json")
    assert sorted(files("out")) == sorted(files("in"))
    told = [line["name"] for line in ran.json]
    assert told == [*(f"nested/{number + 8}" for number in range(len(SIZES))), "top"]
    for name in files("in"):
        assert_restored(Path("out", name), Path("in", name), 0.2)


def test_trees_shards_and_streams_give_the_same(checkpoint: Path, tree: Path, shard: Path) -> None:
    options = ["-c", checkpoint, "-q", "-o"]
    restored = results("whole.h5", "deblur", tree, "-c", checkpoint)
    assert [r.name for r in restored] == ["scene0/0", "scene0/1", "scene1/0", "scene1/1"]
    assert all({"blur", "sharp", "restored"} <= r.images.keys() for r in restored)
    assert restored[0].attrs["restored_by"] == "tiny.pt"
    done("deblur", shard, *options, "images/", "--part", "1/2")
    assert sorted(files("images")) == ["scene0/0.png", "scene1/0.png"]
    for record in restored[::2]:
        image = imageio.imread(f"images/{record.name}.png")
        np.testing.assert_array_equal(image, record.images["restored"])
    ran = done("deblur", "-", *options, "-", "--part", "2/2", input=shard.read_bytes())
    Path("stream.h5").write_bytes(ran.out)
    for record, other in zip(records("stream.h5"), restored[:2], strict=True):
        assert record.name == other.name
        np.testing.assert_array_equal(record.images["restored"], other.images["restored"])


def test_every_kind_of_picture(checkpoint: Path) -> None:
    folder, image = Path("in"), photo(5, 40, 56)
    deep = image.astype(np.uint16) * 257 - image[:, ::-1] // 2
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    write(folder / "grey.png", image[:, :, 1])
    write(folder / "alpha.png", np.concatenate([image, alpha], axis=2))
    write(folder / "web.webp", image)
    write(folder / "plain.bmp", image)
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    tifffile.imwrite(folder / "deep16.tif", deep, photometric="rgb")
    tifffile.imwrite(folder / "float.tiff", image.astype(np.float32) / 255, photometric="rgb")
    PIL.Image.fromarray(image).save(folder / "turned.jpg", exif=exif(6), icc_profile=SRGB)

    ran = done("deblur", folder, "-c", checkpoint, "-o", "out/", "-q", "--json")
    for path in folder.iterdir():
        assert_restored(Path("out") / path.name, path, 0.1)
    assert read_image(Path("out/deep.png")).pixels.dtype == np.uint16
    assert read_image(Path("out/grey.png")).pixels.shape == (40, 56, 1)
    assert tifffile.imread(Path("out/float.tiff")).dtype == np.float32
    told = {line["name"]: (line["width"], line["height"]) for line in ran.json}
    assert told["turned"] == (40, 56)
    with PIL.Image.open("out/turned.jpg") as turned:
        assert turned.size == (56, 40)
        assert turned.info["icc_profile"] == SRGB
        assert (turned.getexif()[274], turned.getexif()[271]) == (6, "a camera")


def test_strength_blends_with_the_photo(checkpoint: Path) -> None:
    image, deep = photo(4, 40, 56), Path("deep.png")
    deep.write_bytes(imagecodecs.png_encode(image.astype(np.uint16) * 257))
    values = image.astype(np.float32) / 255
    tifffile.imwrite("float.tif", values, photometric="rgb")

    def restored(strength: float) -> tuple[np.ndarray, np.ndarray]:
        command = "deblur", deep, "float.tif", "-c", checkpoint, "--json", "-q"
        ran = done(*command, "--strength", strength, "-o", f"{strength}/")
        assert [line["strength"] for line in ran.json] == [strength] * 2
        output = Path(str(strength))
        return read_image(output / "deep.png").pixels, tifffile.imread(output / "float.tif")

    (nothing, none), (part, some), (whole, all_) = map(restored, (0, 0.3, 1))
    np.testing.assert_array_equal(nothing, read_image(deep).pixels)
    np.testing.assert_array_equal(none, values)
    np.testing.assert_allclose(part, 0.7 * nothing + 0.3 * whole, atol=0.75)
    np.testing.assert_allclose(some, 0.7 * values + 0.3 * all_, atol=1e-6)
    assert np.abs(all_ - values).max() > 0.005
    ran = done("deblur", deep, "-c", checkpoint, "--strength", 0.25, "-o", "out.h5")
    assert ran.lines[-1] == "wrote out.h5"
    assert records("out.h5")[0].attrs["restored_strength"] == 0.25


def test_a_mask_says_where(checkpoint: Path) -> None:
    """Black pixels keep their bits, whatever the depth; grey ones are between."""
    image = photo(5, 40, 56)
    mask = np.zeros((40, 56), np.uint8)
    mask[:, 20:] = 128
    mask[:, 40:] = 255
    write("mask.png", mask)
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    write("in/alpha.png", np.concatenate([image, alpha], axis=2))
    Path("in/deep.png").write_bytes(imagecodecs.png_encode(image.astype(np.uint16) * 257 + 3))
    command = ["deblur", "in", "-c", checkpoint, "-q"]
    done(*command, "-o", "whole/")
    done(*command, "-o", "part/", "--mask", "mask.png")
    for name in ("alpha.png", "deep.png"):
        before, whole, part = (
            read_image(Path(folder, name)).pixels.astype(int) for folder in ("in", "whole", "part")
        )
        np.testing.assert_array_equal(part[:, :20], before[:, :20])
        np.testing.assert_array_equal(part[:, 40:], whole[:, 40:])
        between = before + (whole - before) * 128 / 255
        peak = 255 if name == "alpha.png" else 65535
        np.testing.assert_allclose(part[:, 20:40], between[:, 20:40], atol=peak / 255)
        assert (part[:, 20:40] != before[:, 20:40]).any()
    np.testing.assert_array_equal(read_image(Path("part/alpha.png")).alpha, alpha)
    made = blurkit.load(checkpoint).deblur(image, mask=mask)
    np.testing.assert_array_equal(made, read_image(Path("part/alpha.png")).pixels)


def test_masks_by_name(checkpoint: Path) -> None:
    for name in ("a", "b/c", "d"):
        write(f"in/{name}.jpg", photo(1))
    white = np.full((48, 64), 255, np.uint8)
    write("masks/a.png", white - white)
    write("masks/b/c.tif", white)
    command = ["deblur", "in", "-c", checkpoint, "--format", "png", "-q", "-o", "out/"]
    ran = invoke(*command, "--mask", "masks")
    assert_failed(ran, "d", "--mask masks: holds no picture named d")
    before = read_image(Path("in/a.jpg")).pixels
    np.testing.assert_array_equal(read_image(Path("out/a.png")).pixels, before)
    assert (read_image(Path("out/b/c.png")).pixels != before).any()

    for mask, words in (
        (white[1:], "a: has 64x48 pixels, and its mask 64x47"),
        (photo(1), "a: its mask has colours; a mask is grey"),
    ):
        ran = invoke("deblur", "in/a.jpg", "-c", checkpoint, "--mask", write("m.png", mask), "-q")
        assert_failed(ran, "a", words)


def test_a_batch_says_how_long_it_takes(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "SOON", 0)
    for number in range(4):
        write(f"in/{number}.png", photo(number, 40 + 8 * number, 56))
    command = ["deblur", "in", "-c", checkpoint, "-o"]
    assert re.search(r"^4 photos, about \d+ seconds?$", done(*command, "out/").err, re.MULTILINE)
    for name in ("2.png", "3.png"):
        Path("out", name).unlink()
    done("prepare", "in", "-o", "in.h5", "-q")
    for again in (["out/", "--resume"], ["other/", "-q"]):
        assert " photos, about " not in done(*command, *again).err
    assert " photos, about " not in done("deblur", "in.h5", *command[2:], "shard/").err


def test_a_folder_twice(checkpoint: Path) -> None:
    """What the first run wrote beside the photos is no input of the second."""
    write("a.jpg", photo(0))
    write("deep/b.JPG", photo(1))
    write("c.deblurred.png", photo(2))  # of a photo that is elsewhere
    command = ["deblur", Path(), "-c", checkpoint]
    done(*command)
    made = {"a.deblurred.jpg", "deep/b.deblurred.JPG", "c.deblurred.deblurred.png"}
    first = files()
    assert made < first.keys() and len(first) == 6
    again = invoke(*command)
    assert_failed(again, "a", "a.deblurred.jpg: exists already; give --force")
    skipped = "a.deblurred.jpg, c.deblurred.deblurred.png, b.deblurred.JPG"
    assert again.lines[0] == f"skipped 3 written by blurkit itself: {skipped}"
    assert len(again.lines) == 5  # one for each, and the last
    ran = done(*command, "--force", "--json")
    assert [line["name"] for line in ran.json] == ["a", "c.deblurred", "deep/b"]
    assert ran.lines[1].startswith("wrote 3 images to ") and files() == first
    named = done("deblur", "a.deblurred.jpg", "-c", checkpoint, "--json")
    assert named.json[0]["name"] == "a.deblurred"


def test_a_tree_of_pairs_twice(checkpoint: Path) -> None:
    plant_tree(Path(), 2)
    for force in ([], ["--force"]):
        ran = done("deblur", Path(), "-c", checkpoint, "--json", *force)
        assert [line["name"] for line in ran.json] == ["scene0/0", "scene0/1"]
        assert ran.lines[-2] == "wrote 2 images to test/scene0/blur/"
        assert ran.lines[-1].startswith("deblurred 2 images in ")


def test_tiles_and_slices(checkpoint: Path) -> None:
    source = write("large.png", blurred(photo(2, 100, 130)))
    results = {}
    for protocol, tile, *options in (
        ("tiles", 64),
        ("tiles", 144, "--tile", 144),
        ("slices", 64, "--protocol", "slices"),
    ):
        output = Path(f"out/{protocol}{tile}.png")
        (told,) = done("deblur", source, "-c", checkpoint, "-o", output, "--json", *options).json
        assert (told["protocol"], told["tile"]) == (protocol, tile)
        results[protocol, tile] = imageio.imread(output).astype(int)
        assert_restored(output, source)
    assert np.abs(results["tiles", 64] - results["slices", 64]).max() < 30
    assert len({image.tobytes() for image in results.values()}) == 3


WRONG = {
    ("--tile", "50"): "multiple of 16, at least 32",
    ("--tile", "wide"): "--tile wide: give a number of pixels, or auto",
    ("--device", "cuda:9"): "--device cuda:9: this machine does not have it",
    ("--part", "3/2"): "--part 3/2: write I/N",
    ("--strength", "1.5"): "--strength 1.5: must be from 0 (unchanged) to 1",
    ("--strength", "-0.1"): "--strength -0.1: must be from 0 ",
    ("--strength", "nan"): "--strength nan: must be from 0 ",
    ("--json", "-o", "-"): "both write to standard output",
    ("-", "-c", "-"): "standard input can be read only once",
    ("--mask", "none.png"): "--mask none.png: no such file or folder",
    ("--preview", "--mask", "."): "--preview restores a part of each photo, and excludes --mask",
    ("--preview", "-o", "out.h5"): "-o out.h5: --preview writes pictures; name an image or a fol",
    ("-o", "out.gif"): "-o out.gif is one film",
    ("-o", "out.h5", "--compare"): "--compare requires images",
    ("-o", "-", "--compare"): "--compare requires images",
}


def test_wrong_options_are_told_in_one_line(checkpoint: Path, tree: Path) -> None:
    assert_each_refused(WRONG, "deblur", tree, "-c", checkpoint, "-o", "out/")


# ---- --compare -----------------------------------------------------------------------------------


def test_a_comparison_is_beside_the_photo_and_not_taken_as_input(checkpoint: Path) -> None:
    before = write("photo.png", blurred(photo(0)))
    command = ["deblur", Path(), "-c", checkpoint, "--compare"]
    done(*command)
    made = files()
    assert list(made) == ["photo.compare.jpg", "photo.deblurred.png", "photo.png"]
    with PIL.Image.open("photo.compare.jpg") as opened:
        assert opened.format == "JPEG"
        picture = np.asarray(opened).astype(int)
    for image, left in ((before, 0), (Path("photo.deblurred.png"), 64 + 8)):
        shown = picture[:48, left : left + 64]
        assert np.abs(shown - imageio.imread(image)).mean() < 6, "a JPEG of it"
    assert (picture[48:] < 128).any(), "a caption"

    assert_failed(invoke(*command), "photo", "photo.deblurred.png: exists already")
    Path("photo.deblurred.png").unlink()
    assert_failed(invoke(*command), "photo", "photo.compare.jpg: exists already; give --force")
    assert files().keys() == {"photo.compare.jpg", "photo.png"}, "nothing is half done"
    ran = done(*command, "--force", "--json")
    assert [line["name"] for line in ran.json] == ["photo"] and files() == made


def test_results_with_comparisons_can_be_evaluated(checkpoint: Path, tree: Path) -> None:
    done("deblur", tree, "-c", checkpoint, "-o", "out/", "--compare", "-q")
    names = [f"scene{n // 2}/{n % 2}" for n in range(4)]
    made = sorted(f"{name}{end}" for name in names for end in (".png", ".compare.jpg"))
    assert list(files("out")) == made
    for name in names:
        write(f"sharp/{name}.png", imageio.imread(f"out/{name}.png"))
    ran = done("eval", "out", "sharp", "--json", "-q")
    assert [line["name"] for line in ran.json[:-1]] == names
    picture = imageio.imread("out/scene0/0.compare.jpg")
    assert picture.shape[1] == 3 * 64 + 2 * 8, "before, after and reference"


def test_files_of_one_stem_have_a_comparison_each(checkpoint: Path) -> None:
    named = write("a.png", photo(0)), write("a.jpg", photo(1))
    command = ["deblur", *named, "-c", checkpoint, "--compare"]
    assert done(*command).lines[-2] == "wrote 2 images and 2 comparisons to ./"
    compared = {"a.jpg.compare.jpg", "a.png.compare.jpg"}
    made = {"a.png", "a.jpg", "a.deblurred.png", "a.deblurred.jpg", *compared}
    assert files().keys() == made
    done("deblur", Path(), *command[3:], "--force")
    assert files().keys() == made
    done(*command[:-1], "--format", "png", "--force")
    assert files().keys() == made | {"a.jpg.deblurred.png"}


def test_a_comparison_fails_alone(checkpoint: Path) -> None:
    write("a.png", photo(0))
    Path("out/a.compare.jpg/").mkdir(parents=True)
    ran = invoke("deblur", "a.png", "-c", checkpoint, "-o", "out/", "--compare", "--force")
    assert_failed(ran, "1 failed, 1 deblurred: out/a.compare.jpg", "Is a directory")
    assert [*files("out")] == ["a.png"]
    Path("out/a.compare.jpg").rmdir()
    done("deblur", "a.png", "-c", checkpoint, "-o", "out/", "--compare", "--resume")
    assert Path("out/a.compare.jpg").is_file()


def test_comparisons_of_reblur_and_transfer(joint: Path) -> None:
    sharp = write("sharp.png", photo(0))
    blur = write("blur.png", blurred(photo(0)))
    done("reblur", sharp, "--like", blur, "-c", joint, "--compare")
    done("transfer", sharp, sharp, blur, "-c", joint, "-o", "t.png", "--compare")
    made = {"t.png", "t.compare.jpg", "sharp.reblurred.png", "sharp.compare.jpg"}
    assert files().keys() == {"sharp.png", "blur.png"} | made


def test_a_large_photo_also_shows_the_part_that_changed_most() -> None:
    blur = np.full((1500, 2400, 3), 90, np.uint8)
    restored = blur.copy()
    restored[1200:1300, 2000:2100] = 250
    picture = before_after(Record("a", {"blur": blur, "restored": restored}), RESTORED)
    assert picture.shape[1] == 2 * PANEL_SIDE + 8 and picture.dtype == np.uint8
    top, left = most_changed(blur, restored, 960)
    assert top.start <= 1200 and top.stop >= 1300 and top.stop <= 1500
    assert left.start <= 2000 and left.stop >= 2100 and left.stop <= 2400
    changed = (picture[:, PANEL_SIDE + 8 :] == 250).all(axis=2).sum()
    assert changed == pytest.approx(100 * 100 * (1 + (PANEL_SIDE / 2400) ** 2), rel=0.05)
