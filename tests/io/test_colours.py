"""Colours of unusual files are right, and what is said of them stays true after writing."""

import io
import struct
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import tifffile

from blurkit.errors import BlurkitError
from blurkit.io.films import is_film, read_film
from blurkit.io.images import Picture, read_image, write_image
from tests.io.test_carried import (
    ALPHA,
    BRIGHT,
    DEEP,
    EXAMPLES,
    FLOAT,
    INDEXED,
    PHOTO,
    PQ,
    box,
    chunks,
    codes,
    copied,
    jp2,
    multi,
    saved,
    segment,
    stored,
    tiff,
)
from tests.io.test_images import cmyk_profile, error, opened

COLOURS = np.zeros((256, 3), np.uint16)
COLOURS[:64] = np.reshape(INDEXED.getpalette()[: 3 * 64], (-1, 3))


def read(folder: Path, name: str, data: bytes) -> Picture:
    (folder / name).write_bytes(data)
    return read_image(folder / name)


# ---- TIFF ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1, 257])
def test_palettes_have_entries_of_8_or_16_bits(tmp_path: Path, scale: int) -> None:
    colormap = (COLOURS * scale).T.copy()
    data = tiff(np.asarray(INDEXED), photometric="palette", colormap=colormap)
    pixels = read(tmp_path, "a.tif", data).pixels
    np.testing.assert_array_equal(pixels, np.asarray(INDEXED.convert("RGB")))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_white_may_be_zero(tmp_path: Path, kind: type) -> None:
    values = PHOTO[:, :, 0].astype(kind) if kind != np.float32 else FLOAT[:, :, 0]
    pixels = read(tmp_path, "a.tif", tiff(values, photometric="miniswhite")).pixels
    top = 1 if kind == np.float32 else np.iinfo(kind).max
    np.testing.assert_array_equal(pixels[:, :, 0], (top - values).astype(kind))


@pytest.mark.parametrize("name", ["a.tif", "16.tif", "float.tif", "a.jp2"])
def test_colours_multiplied_by_alpha_are_divided_once(tmp_path: Path, name: str) -> None:
    top = {"16.tif": 65535, "float.tif": 1}.get(name, 255)
    kind = {"16.tif": np.uint16, "float.tif": np.float32}.get(name, np.uint8)
    values = np.dstack([PHOTO * (ALPHA / 255), ALPHA]) / 255 * top
    values = (values if top == 1 else values.round()).astype(kind)
    if name == "a.jp2":
        opacity = struct.pack(">H12H", 4, 0, 0, 1, 1, 0, 2, 2, 0, 3, 3, 2, 0)
        data = jp2(values, header=box(b"cdef", opacity))
    else:
        data = tiff(values, extrasamples=["assocalpha"])
    picture = read(tmp_path, name, data)
    assert error(picture.pixels / top * 255, PHOTO) < 1.5  # 3 where alpha is lowest
    copied(picture, tmp_path / "b.png")
    with PIL.Image.open(tmp_path / "b.png") as seen:
        assert error(np.asarray(seen), np.dstack([PHOTO, ALPHA])) < 1.5


def test_other_channels_are_not_transparency(tmp_path: Path) -> None:
    both = tiff(np.dstack([PHOTO, ALPHA, ALPHA[::-1]]), extrasamples=["unassalpha", "unspecified"])
    picture = read(tmp_path, "a.tif", both)
    np.testing.assert_array_equal(picture.alpha, ALPHA)
    assert "channel of unstated meaning" in copied(picture, tmp_path / "b.tif")[0]
    assert read(tmp_path, "c.tif", tiff(np.dstack([PHOTO, ALPHA]), extrasamples=[0])).alpha is None
    ink = np.dstack([255 - PHOTO, ALPHA * 0, ALPHA])
    cmyk = read(tmp_path, "d.tif", tiff(ink, photometric="separated", extrasamples=[2]))
    np.testing.assert_array_equal(cmyk.pixels, PHOTO)
    np.testing.assert_array_equal(cmyk.alpha, ALPHA)


def test_every_plane_of_one_directory_is_a_frame(tmp_path: Path) -> None:
    planes = np.moveaxis(PHOTO, -1, 0).copy()
    volume = tmp_path / "volume.tif"
    volume.write_bytes(tiff(planes, photometric="minisblack", volumetric=True))
    stack = tmp_path / "stack.tif"
    described = "ImageJ=1.54f\nimages=3\nslices=3\n"
    one = tiff(planes[0], photometric="minisblack", description=described)
    stack.write_bytes(one + planes[1:].tobytes())
    for path in (volume, stack):
        assert is_film(path)
        frames = np.stack([frame.pixels[:, :, 0] for frame in read_film(path)])
        np.testing.assert_array_equal(frames, planes)
    more = tiff(np.dstack([PHOTO, PHOTO]), photometric="minisblack", planarconfig="contig")
    with pytest.raises(BlurkitError, match="has 6 planes whose meaning is not stated"):
        read(tmp_path, "six.tif", more)


def test_what_is_beyond_white_is_added_to_the_result(tmp_path: Path) -> None:
    picture = read(tmp_path, "a.tif", tiff(BRIGHT))
    assert picture.pixels.min() == 0 and picture.pixels.max() == 1
    darker = Picture(picture.pixels * np.float32(0.5), None, picture.attrs)
    assert copied(darker, tmp_path / "b.tif") == []
    beyond = BRIGHT - BRIGHT.clip(0, 1)
    expected = BRIGHT.clip(0, 1) / 2 + beyond
    np.testing.assert_allclose(tifffile.imread(tmp_path / "b.tif"), expected, atol=1e-6)
    for values in (PHOTO.astype(np.float32), np.where(BRIGHT > 2, np.float32(1e30), BRIGHT)):
        with pytest.raises(BlurkitError, match=r"values from .* float images are in"):
            read(tmp_path, "c.tif", tiff(values))


# ---- colour codes and gamma ----------------------------------------------------------------------


@pytest.mark.parametrize("source", [".avif", ".heic", ".png"])
def test_high_dynamic_range_keeps_its_codes_or_is_refused(tmp_path: Path, source: str) -> None:
    picture = read(tmp_path, f"a{source}", EXAMPLES[source]["colour codes"]())
    for suffix in (".png", ".avif", ".heic"):
        copied(picture, tmp_path / f"b{suffix}")
        assert codes(tmp_path / f"b{suffix}") == PQ[:2]
        if source != ".png":
            assert error(stored(tmp_path / f"b{suffix}"), DEEP / 65535) < 0.02
    for suffix in (".jpg", ".tif", ".jxl"):
        with pytest.raises(BlurkitError, match=r"range \(PQ\); write \.png, \.avif or \.heic"):
            copied(picture, tmp_path / f"b{suffix}")
        assert not (tmp_path / f"b{suffix}").exists()


P3 = (0.68, 0.32, 0.265, 0.69, 0.15, 0.06)


@pytest.mark.parametrize("source", ["avif", "png"])
def test_colours_by_codes_or_gamma_become_a_profile(tmp_path: Path, source: str) -> None:
    """Whose primaries littleCMS reads as those of Display P3."""
    points = struct.pack(">8I", 31270, 32900, *(round(number * 1e5) for number in P3))
    gamma = (b"gAMA", struct.pack(">I", 45455)), (b"cHRM", points)
    options = {"primaries": 12, "transfer": 13, "matrix": 0, "level": 100, "speed": 10}
    made = {
        "avif": lambda: imagecodecs.avif_encode(PHOTO, **options),
        "png": lambda: chunks(*gamma),
    }
    picture = read(tmp_path, f"a.{source}", bytes(made[source]()))
    assert copied(picture, tmp_path / "b.jpg") == []
    with PIL.Image.open(tmp_path / "b.jpg") as seen:
        profile = PIL.ImageCms.ImageCmsProfile(io.BytesIO(seen.info["icc_profile"]))
    red = profile.profile.red_colorant[0]
    np.testing.assert_allclose(red, (0.5151, 0.2412, -0.0011), atol=2e-3)
    converted = PIL.ImageCms.profileToProfile(
        PIL.Image.fromarray(PHOTO), profile, PIL.ImageCms.createProfile("sRGB")
    )
    (line,) = copied(picture, tmp_path / "b.bmp")
    assert "profile" in line
    assert error(cv2.imread(str(tmp_path / "b.bmp"))[:, :, ::-1], np.asarray(converted)) < 1


# ---- storage -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".webp", ".jxl", ".avif"])
def test_what_is_stored_without_loss_stays_so(tmp_path: Path, suffix: str) -> None:
    data = {
        ".webp": lambda: saved("WEBP", lossless=True),
        ".jxl": lambda: bytes(imagecodecs.jpegxl_encode(PHOTO, lossless=True)),
        ".avif": lambda: bytes(imagecodecs.avif_encode(PHOTO, level=100, matrix=0, speed=10)),
    }[suffix]()
    picture = read(tmp_path, f"a{suffix}", data)
    np.testing.assert_array_equal(picture.pixels, PHOTO)
    copied(picture, tmp_path / f"b{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"b{suffix}").pixels, PHOTO)
    write_image(tmp_path / f"c{suffix}", PHOTO, attrs=picture.attrs, quality=50)
    assert (tmp_path / f"c{suffix}").stat().st_size < (tmp_path / f"b{suffix}").stat().st_size / 2


def test_a_finer_jpeg_of_other_colours_is_not_made_coarser(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(PHOTO).convert("CMYK")
    options = {"icc_profile": cmyk_profile(), "progressive": True}
    picture = read(tmp_path, "a.jpg", saved("JPEG", image, quality=100, **options))
    copied(picture, tmp_path / "b.jpg")
    with PIL.Image.open(tmp_path / "b.jpg") as seen:
        assert seen.info["progressive"]
        assert {*seen.quantization[0]} == {1} and error(np.asarray(seen), picture.pixels) < 1


# ---- what becomes false --------------------------------------------------------------------------


def test_thumbnails_and_signatures_are_dropped(tmp_path: Path) -> None:
    thumbnail = saved("JPEG", PHOTO[::4, ::4].copy())
    directory = struct.pack("<H2HII2HIII", 2, 513, 4, 1, 56, 514, 4, 1, len(thumbnail), 0)
    block = b"II*\0\x08\0\0\0" + struct.pack("<HHHI4sI", 1, 271, 2, 4, b"cam\0", 26) + directory
    data = segment(0xE1, b"Exif\0\0" + block + thumbnail)
    data = segment(0xEB, b"JP\0\1\0\0\0\1\0\0\0\x10jumbc2pa", data)
    with PIL.Image.open(io.BytesIO(data)) as before:
        assert before.getexif().get_ifd(PIL.ExifTags.IFD.IFD1)[514] == len(thumbnail)
    assert "content credentials" in copied(read(tmp_path, "a.jpg", data), tmp_path / "b.jpg")[0]
    result = (tmp_path / "b.jpg").read_bytes()
    assert thumbnail not in result and b"jumb" not in result
    with PIL.Image.open(tmp_path / "b.jpg") as after:
        assert after.getexif()[271] == "cam" and not after.getexif().get_ifd(PIL.ExifTags.IFD.IFD1)


def test_previews_in_a_list_of_pictures_are_dropped(tmp_path: Path) -> None:
    data = bytearray(multi())
    base = data.index(b"MPF\0") + 4
    (listed,) = struct.unpack_from("<I", data, base + 8 + 2 + 2 * 12 + 8)
    struct.pack_into("<I", data, base + listed + 16, 0x010002)
    with PIL.Image.open(io.BytesIO(bytes(data))) as before:
        assert before.mpinfo[45058][1]["Attribute"]["MPType"].startswith("Large Thumbnail")
    assert copied(read(tmp_path, "a.jpg", bytes(data)), tmp_path / "b.jpg") == []
    result = (tmp_path / "b.jpg").read_bytes()
    assert b"MPF" not in result and result.count(b"\xff\xd9") == 1


def test_more_pictures_than_two_are_listed_where_they_are(tmp_path: Path) -> None:
    """Pillow's own list says that the third one is larger than it is."""
    first, *others = (PIL.Image.fromarray(np.roll(PHOTO, n, 0)) for n in range(3))
    first.save(file := io.BytesIO(), "MPO", save_all=True, append_images=others)
    copied(read(tmp_path, "a.mpo", file.getvalue()), tmp_path / "b.mpo")
    with PIL.Image.open(tmp_path / "a.mpo") as before, PIL.Image.open(tmp_path / "b.mpo") as after:
        assert before.n_frames == after.n_frames == 3
        for number in (1, 2):
            before.seek(number)
            after.seek(number)
            np.testing.assert_array_equal(np.asarray(after), np.asarray(before))


def test_sizes_and_orientations_are_true(tmp_path: Path) -> None:
    block = PIL.Image.Exif()
    block[274] = 6
    block.get_ifd(34665).update({40962: 96, 40963: 80})
    packet = b'<x tiff:Orientation="6" exif:PixelXDimension="96"><tiff:ImageLength>80</x>'
    picture = read(tmp_path, "a.jpg", saved("JPEG", exif=block, xmp=packet))
    copied(picture, tmp_path / "b.jp2")
    data = (tmp_path / "b.jp2").read_bytes()
    assert b'<x tiff:Orientation="1" exif:PixelXDimension="80"><tiff:ImageLength>96</x>' in data
    written = PIL.Image.Exif()
    written.load(b"Exif\0\0" + data[data.index(b"JpgTiffExif->JP2") + 16 :])
    assert written[274] == 1
    assert [written.get_ifd(34665)[tag] for tag in (40962, 40963)] == [80, 96]
    copied(picture, tmp_path / "b.jpg")
    assert packet in (tmp_path / "b.jpg").read_bytes()


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".avif", ".heic", ".jp2", ".tif"])
def test_an_orientation_beside_other_tags_is_shown_once(tmp_path: Path, suffix: str) -> None:
    """TIFF states it outside of what becomes the EXIF block of other formats."""
    picture = read(tmp_path, "a.tif", tiff(description="a title", extratags=[(274, 3, 1, 6, True)]))
    copied(picture, tmp_path / f"b{suffix}")
    shown = np.asarray(PIL.ImageOps.exif_transpose(opened(tmp_path / f"b{suffix}")))
    assert error(shown, np.rot90(PHOTO, -1)) < 4
