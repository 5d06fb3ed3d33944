"""Images come back as they were: every format, depth, orientation and colour profile."""

import io
import struct
import time
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
import skimage.data
import tifffile

from blurkit.errors import BlurkitError
from blurkit.io.images import read_image, write_image
from tests.io.scenes import SRGB, deep, exif

PHOTO = skimage.data.astronaut()[60:84, 200:232]
GRAY = PHOTO[:, :, :1]
ALPHA = np.linspace(0, 255, PHOTO[:, :, 0].size).astype(np.uint8).reshape(24, 32, 1)
LOSSLESS = (".png", ".bmp", ".ppm", ".tif", ".tiff")


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("pixels", [PHOTO, GRAY], ids=["rgb", "gray"])
def test_eight_bit_files_come_back_exactly(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"photo{suffix}"
    write_image(path, pixels)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.alpha is None
    assert picture.attrs == {"source": str(path), "suffix": suffix}
    with PIL.Image.open(path) as opened:
        np.testing.assert_array_equal(np.asarray(opened), pixels.squeeze())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_files_come_back_nearly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    write_image(path, PHOTO)
    picture = read_image(path)
    assert picture.pixels.shape == PHOTO.shape
    assert np.abs(picture.pixels.astype(int) - PHOTO).mean() < 4
    with PIL.Image.open(path) as opened:
        np.testing.assert_array_equal(picture.pixels, np.asarray(opened.convert("RGB")))


def test_deeper_values_are_rounded_to_what_a_format_holds(tmp_path: Path) -> None:
    floats = np.linspace(0, 1, 24, dtype=np.float32).reshape(2, 4, 3)
    write_image(tmp_path / "a.tif", floats)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif").pixels, floats)
    for suffix, top in ((".png", 65535), (".bmp", 255)):
        write_image(tmp_path / f"a{suffix}", floats)
        rounded = read_image(tmp_path / f"a{suffix}").pixels
        np.testing.assert_array_equal(rounded, np.rint(floats.astype(np.float64) * top))
    write_image(tmp_path / "b.bmp", deep(PHOTO))
    np.testing.assert_array_equal(read_image(tmp_path / "b.bmp").pixels, np.rint(deep(PHOTO) / 257))


def test_alpha_of_a_webp_comes_back(tmp_path: Path) -> None:
    for pixels in (PHOTO, GRAY):
        write_image(tmp_path / "a.webp", pixels, ALPHA)
        np.testing.assert_array_equal(read_image(tmp_path / "a.webp").alpha, ALPHA)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "P", "1"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_kinds_of_pixels_against_pillow(tmp_path: Path, mode: str, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    pixels = np.concatenate([PHOTO, ALPHA], axis=2) if "A" in mode else PHOTO
    image = PIL.Image.fromarray(pixels).convert(mode)
    image.save(path)
    gray = mode in ("L", "LA", "1")
    picture = read_image(path)
    expected = np.asarray(image.convert("L" if gray else "RGB")).reshape(24, 32, -1)
    np.testing.assert_array_equal(picture.pixels, expected)
    assert (picture.alpha is not None) == ("A" in mode)


def test_transparent_palette(tmp_path: Path) -> None:
    image = PIL.Image.fromarray(PHOTO).quantize(8)
    image.save(tmp_path / "a.png", transparency=3)
    picture = read_image(tmp_path / "a.png")
    transparent = np.asarray(image) == 3
    assert transparent.any()
    np.testing.assert_array_equal(picture.alpha, np.where(transparent, 0, 255)[:, :, None])


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    PIL.Image.fromarray(PHOTO).convert("CMYK").save(path, quality=100)
    picture = read_image(path)
    assert picture.alpha is None
    with PIL.Image.open(path) as opened:
        np.testing.assert_array_equal(picture.pixels, np.asarray(opened.convert("RGB")))


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "packbits", "zstd"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
def test_tiff_storage(tmp_path: Path, compression: str | None, planes: str) -> None:
    storage = {"compression": compression, "predictor": compression == "lzw", "byteorder": ">"}
    for pixels in (PHOTO, deep(PHOTO)):
        given = np.moveaxis(pixels, -1, 0).copy() if planes == "separate" else pixels
        path = tmp_path / "a.tif"
        tifffile.imwrite(path, given, photometric="rgb", planarconfig=planes, **storage)
        np.testing.assert_array_equal(read_image(path).pixels, pixels)


def test_tiff_kinds(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    bilevel = GRAY[:, :, 0] > 100
    tifffile.imwrite(path, bilevel, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path).pixels[:, :, 0], np.where(bilevel, 0, 255))
    tifffile.imwrite(path, GRAY[:, :, 0].astype(np.uint16) * 16, bitspersample=12)
    np.testing.assert_allclose(read_image(path).pixels, GRAY * (65535 * 16 / 4095), atol=0.51)
    tifffile.imwrite(path, np.stack([PHOTO, PHOTO[::-1]]), photometric="rgb")
    np.testing.assert_array_equal(read_image(path).pixels, PHOTO)  # of several pages the first
    PIL.Image.fromarray(PHOTO).save(path, compression="jpeg", quality=95)
    assert np.abs(read_image(path).pixels.astype(int) - PHOTO).mean() < 4
    tifffile.imwrite(path, PHOTO / 255, photometric="rgb", bigtiff=True)
    np.testing.assert_allclose(read_image(path).pixels, PHOTO / 255, atol=1e-7)


def test_deep_netpbm_also_as_opencv_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P5 32 24 65535\n" + deep(GRAY).astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm").pixels, deep(GRAY))
    cv2.imwrite(str(tmp_path / "a.ppm"), deep(PHOTO)[:, :, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm").pixels, deep(PHOTO))
    data = (PHOTO.astype(np.uint16) * 4).astype(">u2").tobytes()
    (tmp_path / "b.ppm").write_bytes(b"P6 # ten bits\n# of them\n32\n24 1020\n" + data)
    np.testing.assert_array_equal(read_image(tmp_path / "b.ppm").pixels, PHOTO.astype(int) * 257)
    floats = PHOTO.astype(np.float32) / 255
    for name, pixels in {"colour.pfm": floats, "gray.pfm": floats[:, :, :1]}.items():
        cv2.imwrite(str(tmp_path / name), pixels[:, :, ::-1])
        np.testing.assert_array_equal(read_image(tmp_path / name).pixels, pixels)
    (tmp_path / "b.pfm").write_bytes(b"PF\n32 24\n1.0\n" + floats[::-1].astype(">f4").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "b.pfm").pixels, floats)
    (tmp_path / "b.pfm").write_bytes(b"PF\n32 24\n1.0\n" + floats[1:].astype(">f4").tobytes())
    with pytest.raises(BlurkitError, match="damaged or truncated"):
        read_image(tmp_path / "b.pfm")


# -- orientation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_against_pillow(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, copy = tmp_path / f"a{suffix}", tmp_path / f"copy{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, PHOTO, extratags=[(274, "H", 1, orientation, True)])
    else:
        PIL.Image.fromarray(PHOTO).save(path, quality=100, exif=exif(orientation))
    with PIL.Image.open(path) as opened:
        upright = np.asarray(PIL.ImageOps.exif_transpose(opened))
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, upright)
    assert picture.attrs.get("orientation", 1) == orientation
    write_image(copy, picture.pixels, attrs=picture.attrs)
    assert read_image(copy).attrs.get("orientation", 1) == orientation
    with PIL.Image.open(copy) as opened:
        if suffix != ".tif":  # Pillow turns a TIFF when it opens it
            assert opened.getexif()[274] == orientation
            assert opened.getexif()[271] == "a camera"
        seen = np.asarray(PIL.ImageOps.exif_transpose(opened))
    assert np.abs(seen.astype(int) - upright).mean() < (3 if suffix in (".jpg", ".webp") else 1e-9)


def test_orientation_and_profile_of_sixteen_bits_and_alpha(tmp_path: Path) -> None:
    upright, alpha = np.rot90(deep(PHOTO), -1), np.rot90(deep(ALPHA), -1)
    blocks = {"exif": exif(6), "icc_profile": SRGB}
    attrs = {name: np.frombuffer(block, np.uint8) for name, block in blocks.items()}
    write_image(tmp_path / "a.png", upright, alpha, attrs | {"orientation": 6})
    stored = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(stored, np.concatenate([deep(PHOTO), deep(ALPHA)], axis=2))
    with PIL.Image.open(tmp_path / "a.png") as opened:
        assert opened.info["icc_profile"] == SRGB
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, upright)
    np.testing.assert_array_equal(picture.alpha, alpha)
    assert picture.attrs["icc_profile"].tobytes() == SRGB


@pytest.mark.parametrize("suffix", [".bmp", ".ppm"])
def test_formats_without_orientation_hold_upright_pixels(tmp_path: Path, suffix: str) -> None:
    attrs = {"exif": np.frombuffer(exif(6), np.uint8), "orientation": 6}
    write_image(tmp_path / f"a{suffix}", PHOTO, attrs=attrs)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").pixels, PHOTO)


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(PHOTO).save(path)
    data, body = path.read_bytes(), b"eXIf" + exif(6).removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:-12] + chunk + data[-12:])
    np.testing.assert_array_equal(read_image(path).pixels, np.rot90(PHOTO, -1))


@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_is_written_sooner_than_by_default_and_no_larger(tmp_path: Path, bits: int) -> None:
    photo = skimage.data.astronaut()
    noise = np.random.default_rng(0).integers(0, 60, photo.shape, np.uint16)
    pixels = photo if bits == 8 else photo * np.uint16(257) ^ noise
    ours, default = [], []
    for _ in range(3):
        started = time.thread_time()
        write_image(tmp_path / "photo.png", pixels)
        ours.append(time.thread_time() - started)
        started = time.thread_time()
        if bits == 8:
            PIL.Image.fromarray(pixels).save(file := io.BytesIO(), "PNG")
            encoded = file.getvalue()
        else:
            encoded = imagecodecs.png_encode(pixels)
        default.append(time.thread_time() - started)
    assert (tmp_path / "photo.png").stat().st_size < 1.05 * len(encoded)
    assert min(ours) < 0.6 * min(default)
