"""`blurkit deblur`: photos of any kind and size, to wherever they are sent."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import imageio.v3 as imageio
import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
import tifffile

from blurkit.io.images import read_image
from tests.cli.command import (
    assert_done,
    assert_failed,
    assert_refused,
    blurred,
    files,
    photo,
    plant_tree,
    records,
    run,
    shell,
    write,
)
from tests.cli.invoke import invoke

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


def test_a_photo_beside_and_to_a_file(checkpoint: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "photo.jpg", photo(0))
    before = source.read_bytes()
    ran = run("deblur", "photo.jpg", "-c", checkpoint, "--json", cwd=tmp_path)
    assert_done(ran)
    assert_restored(tmp_path / "photo.deblurred.jpg", source)
    (told,) = ran.json
    assert (told["name"], told["width"], told["height"], told["tile"]) == ("photo", 64, 48, 64)
    assert told["seconds"] > 0
    made = (tmp_path / "photo.deblurred.jpg").read_bytes()

    other = write(tmp_path / "other.png", photo(1))
    ran = run("deblur", source, other, "-c", checkpoint, "-q")
    assert_failed(ran, "photo", "photo.deblurred.jpg: exists already; give --force")
    assert_restored(tmp_path / "other.deblurred.png", other)

    (tmp_path / "new").mkdir()
    (tmp_path / "new/out.png").write_text("to be overwritten")
    piped = f"cat {checkpoint} | blurkit deblur photo.jpg -c - -o new/out.png --force --quiet"
    ran = shell(piped, tmp_path)
    assert (ran.status, ran.out, ran.err) == (0, b"", "")
    assert_restored(tmp_path / "new/out.png", source)
    assert source.read_bytes() == before
    assert (tmp_path / "photo.deblurred.jpg").read_bytes() == made


def test_a_folder_keeps_names_and_sizes(checkpoint: Path, tmp_path: Path) -> None:
    for number, (height, width) in enumerate(SIZES):
        write(tmp_path / f"in/nested/{number + 8}.png", photo(3, height, width))
    write(tmp_path / "in/top.jpg", photo(1))
    ran = run("deblur", tmp_path / "in", "-c", checkpoint, "-o", f"{tmp_path}/out/", "--json")
    assert_done(ran)
    assert sorted(files(tmp_path / "out")) == sorted(files(tmp_path / "in"))
    told = [line["name"] for line in ran.json]
    assert told == [*(f"nested/{number + 8}" for number in range(len(SIZES))), "top"]
    for path in (tmp_path / "in").rglob("*.*"):
        assert_restored(tmp_path / "out" / path.relative_to(tmp_path / "in"), path, 0.2)


def test_a_dataset_a_shard_and_a_stream_give_the_same(
    checkpoint: Path, tree: Path, shard: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "whole.h5"
    assert_done(run("deblur", tree, "-c", checkpoint, "-o", whole, "-q"))
    restored = records(whole)
    assert [r.name for r in restored] == ["scene0/0", "scene0/1", "scene1/0", "scene1/1"]
    assert all({"blur", "sharp", "restored"} <= r.images.keys() for r in restored)
    assert restored[0].attrs["restored_by"] == "tiny.pt"
    ran = run("deblur", shard, "-c", checkpoint, "-o", f"{tmp_path}/images/", "-q", "--part", "1/2")
    assert_done(ran)
    assert sorted(files(tmp_path / "images")) == ["scene1/0.png", "scene1/1.png"]
    for record in restored[2:]:
        image = imageio.imread(tmp_path / f"images/{record.name}.png")
        np.testing.assert_array_equal(image, record.images["restored"])
    arguments = ["deblur", "-", "-c", checkpoint, "-o", "-", "-q", "--part", "2/2"]
    ran = run(*arguments, input=shard.read_bytes())
    assert_done(ran)
    (tmp_path / "stream.h5").write_bytes(ran.out)
    for record, other in zip(records(tmp_path / "stream.h5"), restored[:2], strict=True):
        assert record.name == other.name
        np.testing.assert_array_equal(record.images["restored"], other.images["restored"])


def test_every_kind_of_picture(checkpoint: Path, tmp_path: Path) -> None:
    folder, image = tmp_path / "in", photo(5, 40, 56)
    deep = image.astype(np.uint16) * 257 - image[:, ::-1] // 2
    alpha = np.linspace(0, 255, 40 * 56).reshape(40, 56, 1).astype(np.uint8)
    write(folder / "grey.png", image[:, :, 1])
    write(folder / "alpha.png", np.concatenate([image, alpha], axis=2))
    write(folder / "web.webp", image)
    write(folder / "plain.bmp", image)
    (folder / "deep.png").write_bytes(imagecodecs.png_encode(deep))
    tifffile.imwrite(folder / "deep16.tif", deep, photometric="rgb")
    values = image.astype(np.float32) / 255
    tifffile.imwrite(folder / "float.tiff", values, photometric="rgb")
    profile = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()
    exif = PIL.Image.Exif()
    exif[274] = 6  # the camera was turned
    exif[271] = "A camera"
    PIL.Image.fromarray(image).save(folder / "turned.jpg", exif=exif, icc_profile=profile)

    ran = run("deblur", folder, "-c", checkpoint, "-o", f"{tmp_path}/out/", "-q", "--json")
    assert_done(ran)
    for path in folder.iterdir():
        assert_restored(tmp_path / "out" / path.name, path, 0.1)
    assert read_image(tmp_path / "out/deep.png").pixels.dtype == np.uint16
    assert read_image(tmp_path / "out/grey.png").pixels.shape == (40, 56, 1)
    assert tifffile.imread(tmp_path / "out/float.tiff").dtype == np.float32
    told = {line["name"]: (line["width"], line["height"]) for line in ran.json}
    assert told["turned"] == (40, 56)
    with PIL.Image.open(tmp_path / "out/turned.jpg") as turned:
        assert turned.size == (56, 40)
        assert turned.info["icc_profile"] == profile
        assert (turned.getexif()[274], turned.getexif()[271]) == (6, "A camera")


def test_strength_blends_with_the_photo(checkpoint: Path, tmp_path: Path) -> None:
    image = photo(4, 40, 56)
    deep = tmp_path / "deep.png"
    deep.write_bytes(imagecodecs.png_encode(image.astype(np.uint16) * 257))
    values = image.astype(np.float32) / 255
    tifffile.imwrite(tmp_path / "float.tif", values, photometric="rgb")

    def restored(strength: float) -> tuple[np.ndarray, np.ndarray]:
        out = f"{tmp_path}/{strength}"
        ran = invoke("deblur", deep, tmp_path / "float.tif", "-c", checkpoint, "--json", "-q",
                     "--strength", strength, "-o", f"{out}/")  # fmt: skip
        assert_done(ran)
        assert [line["strength"] for line in ran.json] == [strength] * 2
        return read_image(Path(out, "deep.png")).pixels, tifffile.imread(f"{out}/float.tif")

    (nothing, none), (part, some), (whole, all_) = map(restored, (0, 0.3, 1))
    np.testing.assert_array_equal(nothing, read_image(deep).pixels)
    np.testing.assert_array_equal(none, values)
    np.testing.assert_allclose(part, 0.7 * nothing + 0.3 * whole, atol=0.75)
    np.testing.assert_allclose(some, 0.7 * values + 0.3 * all_, atol=1e-6)
    assert np.abs(all_ - values).max() > 0.005
    shard = tmp_path / "out.h5"
    assert_done(invoke("deblur", deep, "-c", checkpoint, "--strength", 0.25, "-o", shard, "-q"))
    assert records(shard)[0].attrs["restored_strength"] == 0.25
    for wrong in ("-0.1", "nan"):
        ran = invoke("deblur", deep, "-c", checkpoint, "--strength", wrong, "--force")
        assert_refused(ran, f"--strength {wrong}: must be from 0 ", status=2)


def test_a_folder_twice(checkpoint: Path, tmp_path: Path) -> None:
    """What the first run wrote beside the photos is no input of the second."""
    write(tmp_path / "a.jpg", photo(0))
    write(tmp_path / "deep/b.JPG", photo(1))
    write(tmp_path / "c.deblurred.png", photo(2))  # of a photo that is elsewhere
    command = ["deblur", tmp_path, "-c", checkpoint]
    assert_done(invoke(*command))
    made = {"a.deblurred.jpg", "deep/b.deblurred.JPG", "c.deblurred.deblurred.png"}
    first = files(tmp_path)
    assert made < first.keys() and len(first) == 6
    again = invoke(*command)
    assert_failed(again, "a", "a.deblurred.jpg: exists already; give --force")
    assert len(again.lines) == 4  # one for each, and the last
    ran = invoke(*command, "--force", "--json")
    assert_done(ran)
    assert [line["name"] for line in ran.json] == ["a", "c.deblurred", "deep/b"]
    assert ran.lines[0].startswith("wrote 3 images to ") and files(tmp_path) == first
    named = invoke("deblur", tmp_path / "a.deblurred.jpg", "-c", checkpoint, "--json")
    assert_done(named)
    assert named.json[0]["name"] == "a.deblurred"


def test_a_tree_of_pairs_twice(checkpoint: Path, tmp_path: Path) -> None:
    plant_tree(tmp_path, 2)
    for force in ([], ["--force"]):
        ran = invoke("deblur", tmp_path, "-c", checkpoint, "--json", *force)
        assert_done(ran)
        assert [line["name"] for line in ran.json] == ["scene0/0", "scene0/1"]
        assert ran.lines[0] == f"wrote 2 images to {tmp_path}/test/scene0/blur/"
        assert ran.lines[1].startswith("deblurred 2 images in ")


def test_tiles_and_slices(checkpoint: Path, tmp_path: Path) -> None:
    source = write(tmp_path / "large.png", blurred(photo(2, 100, 130)))
    results = {}
    for name, options in {
        "tiles": [],
        "large": ["--tile", 144],
        "slices": ["--protocol", "slices"],
    }.items():
        output = tmp_path / f"out/{name}.png"
        ran = run("deblur", source, "-c", checkpoint, "-o", output, "--json", *options)
        assert_done(ran)
        results[name] = imageio.imread(output).astype(int)
        assert ran.json[0]["protocol"] == ("slices" if name == "slices" else "tiles")
        assert ran.json[0]["tile"] == (144 if name == "large" else 64)
        assert_restored(output, source)
    assert np.abs(results["tiles"] - results["slices"]).max() < 30
    assert len({image.tobytes() for image in results.values()}) == 3


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--tile", "50"], "multiple of 16, at least 32"),
        (["--tile", "wide"], "--tile wide: give a number of pixels, or auto"),
        (["--device", "cuda:9"], "--device cuda:9: this machine does not have it"),
        (["--part", "3/2"], "--part 3/2: write I/N"),
        (["--strength", "1.5"], "--strength 1.5: must be from 0 (unchanged) to 1"),
        (["--json", "-o", "-"], "both write to standard output"),
        (["-", "-c", "-"], "standard input can be read only once"),
        (["-o", "out.gif"], "-o out.gif is one film"),
    ],
)
def test_wrong_options_are_told_in_one_line(
    checkpoint: Path, tree: Path, tmp_path: Path, options: list[str], words: str
) -> None:
    output = [] if "-o" in options else ["-o", "out/"]
    ran = run("deblur", tree, "-c", checkpoint, *output, *options, cwd=tmp_path)
    assert_refused(ran, words, status=2)
    assert files(tmp_path) == {}
