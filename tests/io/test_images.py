"""Images come back as they were, whatever their format, and other programs read them, too."""

import io
import struct
import time
import zlib
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import skimage.color
import skimage.data
import tifffile

from blurkit.io.formats import WRITTEN_SUFFIXES, recognise
from blurkit.io.images import read_image, write_image
from tests.io.scenes import SRGB, deep, exif, refusal

PHOTO = skimage.data.astronaut()[60:108, 200:264]
GRAY = PHOTO[:, :, :1]
ALPHA = np.linspace(0, 255, GRAY.size).astype(np.uint8).reshape(GRAY.shape)
ADOBE = imagecodecs.cms_profile("adobergb")
BEFORE_EXIF = {
    **{".avif": bytes(4), ".heic": b"Exif\0\0", ".jp2": b"JpgTiffExif->JP2"},
    ".jxl": b"Exif" + bytes(4),
}


def error(first: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(first.astype(float) - other).mean())


def held(orientation: int) -> dict[str, Any]:
    """The attributes of a picture with a profile, of a camera held so."""
    blocks = {"exif": exif(orientation), "icc_profile": SRGB}
    attrs = {name: np.frombuffer(block, np.uint8) for name, block in blocks.items()}
    return attrs | {"orientation": orientation}


def opened(path: Path) -> PIL.Image.Image:
    if path.suffix == ".heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    image = PIL.Image.open(path)
    image.load()
    return image


def seen(path: Path) -> np.ndarray:
    """The upright pixels of a file, read by Pillow or, of a JPEG XL, by imagecodecs."""
    if path.suffix == ".jxl":
        return imagecodecs.jpegxl_decode(path.read_bytes())
    return np.asarray(PIL.ImageOps.exif_transpose(opened(path)))


def exif_block(path: Path) -> PIL.Image.Exif:
    """The EXIF block of a file, found by its first tag whatever the container."""
    data, block = path.read_bytes(), PIL.Image.Exif()
    start = max(data.rfind(b"MM\0*"), data.rfind(b"II*\0"))
    assert data[:start].endswith(BEFORE_EXIF[path.suffix])
    block.load(b"Exif\0\0" + data[start:])
    return block


DECODERS = {
    **{".jxl": imagecodecs.jpegxl_decode, ".jp2": imagecodecs.jpeg2k_decode},
    **{".png": imagecodecs.png_decode, ".tif": imagecodecs.tiff_decode},
}


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".ppm", ".tif", ".tiff"])
@pytest.mark.parametrize("pixels", [PHOTO, GRAY], ids=["rgb", "gray"])
def test_eight_bit_files_come_back_exactly(tmp_path: Path, suffix: str, pixels: np.ndarray) -> None:
    path = tmp_path / f"photo{suffix}"
    write_image(path, pixels)
    picture = read_image(path)
    np.testing.assert_array_equal(picture.pixels, pixels)
    assert picture.alpha is None
    assert picture.attrs == {"source": str(path), "suffix": suffix}
    np.testing.assert_array_equal(np.asarray(opened(path)), pixels.squeeze())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_lossy_files_come_back_nearly(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"photo{suffix}"
    write_image(path, PHOTO)
    picture = read_image(path)
    assert picture.pixels.shape == PHOTO.shape
    assert error(picture.pixels, PHOTO) < 4
    np.testing.assert_array_equal(picture.pixels, np.asarray(opened(path).convert("RGB")))


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
    expected = np.asarray(image.convert("L" if gray else "RGB")).reshape(48, 64, -1)
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
def test_cmyk_becomes_rgb_by_its_profile_if_it_has_one(tmp_path: Path, suffix: str) -> None:
    path, cmyk = tmp_path / f"a{suffix}", cmyk_profile()
    stored = PIL.Image.fromarray(PHOTO).convert("CMYK")
    stored.save(path, quality=100)
    picture = read_image(path)
    assert picture.alpha is None
    np.testing.assert_array_equal(picture.pixels, np.asarray(opened(path).convert("RGB")))
    stored.save(path, quality=100, icc_profile=cmyk)
    picture = read_image(path)
    profiles = PIL.ImageCms.ImageCmsProfile(io.BytesIO(cmyk)), PIL.ImageCms.createProfile("sRGB")
    shown = PIL.ImageCms.profileToProfile(opened(path), *profiles, outputMode="RGB")
    assert np.abs(picture.pixels.astype(float) - np.asarray(shown)).max() < 2
    assert "icc_profile" not in picture.attrs


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
    assert error(read_image(path).pixels, PHOTO) < 4
    tifffile.imwrite(path, PHOTO / 255, photometric="rgb", bigtiff=True)
    np.testing.assert_allclose(read_image(path).pixels, PHOTO / 255, atol=1e-7)


def test_deep_netpbm_also_as_opencv_writes_it(tmp_path: Path) -> None:
    (tmp_path / "a.ppm").write_bytes(b"P5 64 48 65535\n" + deep(GRAY).astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm").pixels, deep(GRAY))
    cv2.imwrite(str(tmp_path / "a.ppm"), deep(PHOTO)[:, :, ::-1])
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm").pixels, deep(PHOTO))
    data = (PHOTO.astype(np.uint16) * 4).astype(">u2").tobytes()
    (tmp_path / "b.ppm").write_bytes(b"P6 # ten bits\n# of them\n64\n48 1020\n" + data)
    np.testing.assert_array_equal(read_image(tmp_path / "b.ppm").pixels, PHOTO.astype(int) * 257)
    floats = PHOTO.astype(np.float32) / 255
    for name, pixels in {"colour.pfm": floats, "gray.pfm": floats[:, :, :1]}.items():
        cv2.imwrite(str(tmp_path / name), pixels[:, :, ::-1])
        np.testing.assert_array_equal(read_image(tmp_path / name).pixels, pixels)
    (tmp_path / "b.pfm").write_bytes(b"PF\n64 48\n1.0\n" + floats[::-1].astype(">f4").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "b.pfm").pixels, floats)
    (tmp_path / "b.pfm").write_bytes(b"PF\n64 48\n1.0\n" + floats[1:].astype(">f4").tobytes())
    assert "damaged or truncated" in refusal(read_image, tmp_path / "b.pfm")


@pytest.mark.parametrize("suffix", DECODERS)
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_no_bit_is_lost(tmp_path: Path, suffix: str, bits: int, channels: int) -> None:
    path, depth = tmp_path / f"a{suffix}", deep if bits == 16 else np.copy
    pixels, alpha = depth(PHOTO if channels > 2 else GRAY), depth(ALPHA)
    write_image(path, pixels, None if channels in (1, 3) else alpha, quality=100)
    picture = read_image(path)
    assert picture.pixels.dtype == pixels.dtype
    np.testing.assert_array_equal(picture.pixels, pixels)
    whole = pixels
    if channels in (2, 4):
        np.testing.assert_array_equal(picture.alpha, alpha)
        whole = np.concatenate([pixels, alpha], axis=2)
    np.testing.assert_array_equal(DECODERS[suffix](path.read_bytes()), whole.squeeze())


@pytest.mark.parametrize("bits", [10, 12])
def test_deep_avif_and_jpeg_2000_become_sixteen_bits(tmp_path: Path, bits: int) -> None:
    values = deep(PHOTO) >> (16 - bits)
    lossless = {"bitspersample": bits, "codecformat": "jp2", "reversible": True}
    for name, data, stored in (
        ("a.jp2", imagecodecs.jpeg2k_encode(values, 0, **lossless), lambda _: values),
        ("a.avif", imagecodecs.avif_encode(values, bitspersample=bits), imagecodecs.avif_decode),
    ):
        (tmp_path / name).write_bytes(data)
        pixels = read_image(tmp_path / name).pixels
        assert pixels.dtype == np.uint16
        np.testing.assert_allclose(pixels / 65535, stored(data) / (2**bits - 1), atol=1e-5)


@pytest.mark.parametrize("pixels", [PHOTO, GRAY], ids=["rgb", "gray"])
def test_deep_heic_becomes_sixteen_bits(tmp_path: Path, pixels: np.ndarray) -> None:
    heif = pytest.importorskip("pillow_heif")
    write_image(tmp_path / "a.heic", deep(pixels), quality=100)
    again = read_image(tmp_path / "a.heic").pixels
    assert again.dtype == np.uint16 and again.shape == pixels.shape
    assert error(again, deep(pixels)) < 200
    stored = heif.open_heif(tmp_path / "a.heic", convert_hdr_to_8bit=False, hdr_to_16bit=False)
    assert stored.info["bit_depth"] == 12
    np.testing.assert_allclose(again.squeeze() / 65535, np.asarray(stored) / 4095, atol=1e-5)


def test_jpeg_xl_made_of_a_jpeg(tmp_path: Path) -> None:
    path, file = tmp_path / "a.jxl", io.BytesIO()
    PIL.Image.fromarray(PHOTO).save(file, "JPEG", quality=95, exif=exif(6))
    path.write_bytes(imagecodecs.jpegxl_encode_jpeg(file.getvalue(), usecontainer=True))
    picture = read_image(path)
    upright = np.rot90(PHOTO, -1)
    assert error(picture.pixels, upright) < 6
    assert "orientation" not in picture.attrs  # the decoder has turned the pixels
    write_image(tmp_path / "b.jpg", picture.pixels, attrs=picture.attrs)
    assert seen(tmp_path / "b.jpg").shape == upright.shape


def test_jpeg_xl_of_other_colours_is_refused(tmp_path: Path) -> None:
    path, file = tmp_path / "a.jxl", io.BytesIO()
    PIL.Image.fromarray(PHOTO).save(file, "JPEG", icc_profile=ADOBE)
    path.write_bytes(imagecodecs.jpegxl_encode_jpeg(file.getvalue()))
    assert refusal(read_image, path).startswith("has colours other than sRGB")


@pytest.mark.parametrize("suffix", [".jxl", ".bmp", ".ppm"])
@pytest.mark.parametrize("pixels", [PHOTO, deep(PHOTO)], ids=["8", "16"])
def test_colours_are_converted_where_no_profile_can_be_kept(
    tmp_path: Path, suffix: str, pixels: np.ndarray
) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, pixels, attrs={"icc_profile": np.frombuffer(ADOBE, np.uint8)}, quality=100)
    profiles = PIL.ImageCms.ImageCmsProfile(io.BytesIO(ADOBE)), PIL.ImageCms.createProfile("sRGB")
    converted = PIL.ImageCms.profileToProfile(PIL.Image.fromarray(PHOTO), *profiles)
    stored = read_image(path).pixels
    assert (np.asarray(converted) != PHOTO).mean() > 0.5
    assert np.abs(stored / np.iinfo(stored.dtype).max * 255 - np.asarray(converted)).max() < 3


def cmyk_profile() -> bytes:
    """A printer's profile whose inks darken like those of Pillow's formula, squared."""
    grid = np.linspace(0, 1, 3)
    c, m, y, k = np.meshgrid(grid, grid, grid, grid, indexing="ij")
    light = np.stack([(1 - ink) * (1 - k) for ink in (c, m, y)], axis=-1) ** 2
    matrix = np.array([[0.436, 0.385, 0.143], [0.222, 0.717, 0.061], [0.014, 0.097, 0.714]])
    lab = skimage.color.xyz2lab(light @ matrix.T, "D50") * [2.55, 1, 1] + [0, 128, 128]
    values, ramp = lab.clip(0, 255).round().astype(np.uint8).tobytes(), bytes(range(256))
    identity = (np.eye(3) * 65536).astype(">i4").tobytes()
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 3) + identity + ramp * 4 + values + ramp * 3
    table += bytes(-len(table) % 4)
    start = 128 + 4 + 12
    header = struct.pack(
        ">I4sI4s4s4s12s4s4sI4s4sQI3I4s",
        *(start + len(table), b"test", 0x02400000, b"prtr", b"CMYK", b"Lab ", bytes(12)),
        *(b"acsp", bytes(4), 0, bytes(4), bytes(4), 0, 0, 63190, 65536, 54061, b"test"),
    ).ljust(128, b"\0")
    return header + struct.pack(">I4sII", 1, b"A2B0", start, len(table)) + table


def test_sizes_are_bounded_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blurkit.io.paths.most_pixels", 48 * 64 - 1)
    monkeypatch.setattr(imagecodecs, "jpegxl_decode", None)
    monkeypatch.setattr(imagecodecs, "jpeg2k_decode", None)
    for suffix in sorted(WRITTEN_SUFFIXES):
        write_image(tmp_path / f"a{suffix}", PHOTO)
        why = refusal(read_image, tmp_path / f"a{suffix}")
        assert "claims 64x48 pixels, more than --max-pixels" in why


def test_contents_decide_what_a_file_is(tmp_path: Path) -> None:
    for suffix in sorted(WRITTEN_SUFFIXES - {".ppm", ".bmp", ".webp", ".avif"}):
        write_image(tmp_path / f"a{suffix}", PHOTO, quality=100)
        renamed = (tmp_path / f"a{suffix}").rename(tmp_path / "renamed.bmp")
        assert error(read_image(renamed).pixels, PHOTO) < 4
        assert read_image(renamed).attrs["suffix"] == ".bmp"
    assert recognise(b"%!PS-Adobe-3.0") is None and recognise(b"RIFF1234AVI LIST") is None


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


# ---- orientation and what else surrounds pixels --------------------------------------------------


@pytest.mark.parametrize("suffix", [".jpg", ".webp", ".png", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_against_pillow(tmp_path: Path, suffix: str, orientation: int) -> None:
    path, copy = tmp_path / f"a{suffix}", tmp_path / f"copy{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, PHOTO, extratags=[(274, "H", 1, orientation, True)])
    else:
        PIL.Image.fromarray(PHOTO).save(path, quality=100, exif=exif(orientation))
    upright, picture = seen(path), read_image(path)
    np.testing.assert_array_equal(picture.pixels, upright)
    assert picture.attrs.get("orientation", 1) == orientation
    write_image(copy, picture.pixels, attrs=picture.attrs)
    assert read_image(copy).attrs.get("orientation", 1) == orientation
    if suffix != ".tif":  # Pillow turns a TIFF when it opens it
        block = opened(copy).getexif()
        assert (block[274], block[271]) == (orientation, "a camera")
    assert error(seen(copy), upright) < (3 if suffix in (".jpg", ".webp") else 1e-9)


def test_orientation_and_profile_of_sixteen_bits_and_alpha(tmp_path: Path) -> None:
    upright, alpha = np.rot90(deep(PHOTO), -1), np.rot90(deep(ALPHA), -1)
    write_image(tmp_path / "a.png", upright, alpha, held(6))
    stored = imagecodecs.png_decode((tmp_path / "a.png").read_bytes())
    np.testing.assert_array_equal(stored, np.concatenate([deep(PHOTO), deep(ALPHA)], axis=2))
    assert opened(tmp_path / "a.png").info["icc_profile"] == SRGB
    picture = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, upright)
    np.testing.assert_array_equal(picture.alpha, alpha)
    assert picture.attrs["icc_profile"].tobytes() == SRGB


@pytest.mark.parametrize("suffix", [".bmp", ".ppm"])
def test_formats_without_orientation_hold_upright_pixels(tmp_path: Path, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", PHOTO, attrs=held(6))
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}").pixels, PHOTO)


def test_exif_behind_the_pixels_of_a_png(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    PIL.Image.fromarray(PHOTO).save(path)
    data, body = path.read_bytes(), b"eXIf" + exif(6).removeprefix(b"Exif\0\0")
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(data[:-12] + chunk + data[-12:])
    np.testing.assert_array_equal(read_image(path).pixels, np.rot90(PHOTO, -1))


@pytest.mark.parametrize("suffix", BEFORE_EXIF)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_surrounds_the_pixels_is_kept(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    path, copy = tmp_path / f"a{suffix}", tmp_path / f"copy{suffix}"
    write_image(path, PHOTO, ALPHA, held(orientation))
    picture = read_image(path)
    write_image(copy, picture.pixels, picture.alpha, picture.attrs)
    for file in (path, copy):
        assert exif_block(file)[271] == "a camera"
        pixels = seen(file)
        assert error(pixels[:, :, :3], PHOTO) < 4 and error(pixels[:, :, 3:], ALPHA) < 1
        assert error(read_image(file).pixels, PHOTO) < 4
    assert error(picture.alpha, ALPHA) < 1
    if suffix != ".jxl":  # its colours are sRGB
        assert picture.attrs["icc_profile"].tobytes() == SRGB
        assert SRGB in copy.read_bytes()
    photo = tmp_path / "photo.jpg"  # a format in which the EXIF block alone states the orientation
    write_image(photo, picture.pixels, None, picture.attrs)
    assert error(seen(photo), PHOTO) < 6


# ---- JPEG ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("quality", "subsampling"), [(60, 2), (85, 1), (92, 0)])
def test_a_jpeg_is_stored_like_its_source(tmp_path: Path, quality: int, subsampling: int) -> None:
    path, copy = tmp_path / "a.jpg", tmp_path / "copy.jpg"
    for pixels in (PHOTO, GRAY[:, :, 0]):
        PIL.Image.fromarray(pixels).save(path, quality=quality, subsampling=subsampling)
        picture = read_image(path)
        write_image(copy, picture.pixels, attrs=picture.attrs)
        with PIL.Image.open(path) as first, PIL.Image.open(copy) as second:
            assert first.quantization == second.quantization
            assert pixels.ndim == 2 or first.layer == second.layer  # each with its sampling
        write_image(copy, picture.pixels, attrs=picture.attrs, quality=30)
        assert copy.stat().st_size < path.stat().st_size


@pytest.mark.parametrize("chroma", [444, 422, 420])
def test_chroma_of_a_heic_is_stored_like_its_source(tmp_path: Path, chroma: int) -> None:
    heif = pytest.importorskip("pillow_heif")
    path, copy = tmp_path / "a.heic", tmp_path / "copy.heic"
    with path.open("wb") as file:
        heif.encode("RGB", PHOTO.shape[1::-1], PHOTO.tobytes(), file, quality=90, chroma=chroma)
    picture = read_image(path)
    write_image(copy, picture.pixels, attrs=picture.attrs)
    first, second = (heif.open_heif(each) for each in (path, copy))
    assert first.info["chroma"] == second.info["chroma"] == chroma
    assert error(np.asarray(second), np.asarray(first)) < 2
    # devices tell by the brand whether they can show it
    assert path.read_bytes()[8:12] == copy.read_bytes()[8:12]


def test_tables_of_other_colours_are_not_used(tmp_path: Path) -> None:
    PIL.Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "a.jpg", quality=20)
    assert "jpeg_tables" not in read_image(tmp_path / "a.jpg").attrs


# ---- RAW ----------------------------------------------------------------------------------------


def write_raw(path: Path, scene: np.ndarray, *more: tuple[int, Any, int, Any]) -> None:
    """A DNG file: the light of a scene (H, W, 3) behind a Bayer filter, as a camera stores it.

    It has `more` tags: their numbers, and the types, numbers and bytes of their values.
    """
    neutral = (0.5, 1, 0.7)
    light = np.where(scene <= 10, scene / 255 / 12.92, ((scene / 255 + 0.055) / 1.055) ** 2.4)
    mosaic = np.zeros(scene.shape[:2])
    for channel, (row, column) in ((0, (0, 0)), (1, (0, 1)), (1, (1, 0)), (2, (1, 1))):
        mosaic[row::2, column::2] = light[row::2, column::2, channel] * neutral[channel]
    values = (mosaic * 16383).round().astype(np.uint16)
    xyz = [32405, -15371, -4985, -9693, 18760, 416, 556, -2040, 10572]  # of linear sRGB
    ratios = tuple(number for value in neutral for number in (round(value * 10000), 10000))
    tags = [
        (33421, "H", 2, (2, 2)),
        (33422, "B", 4, (0, 1, 1, 2)),
        (50706, "B", 4, (1, 4, 0, 0)),
        (50708, "s", 0, "test"),
        (50714, "H", 1, 0),
        (50717, "H", 1, 16383),
        (50721, "2i", 9, tuple(n for value in xyz for n in (value, 10000))),
        (50728, "2I", 3, ratios),
        (50778, "H", 1, 21),
        (274, "H", 1, 6),
    ]
    own = [(*tag, True) for tag in (*tags, *more)]
    tifffile.imwrite(path, values, photometric=32803, extratags=own, metadata=None)


@pytest.mark.parametrize("suffix", [".dng", ".NEF"])
def test_raw_is_developed_with_the_cameras_white_balance(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("rawpy")
    scene = np.ascontiguousarray(skimage.data.astronaut()[:256, 100:356])
    write_raw(tmp_path / f"a{suffix}", scene)
    picture = read_image(tmp_path / f"a{suffix}")
    assert picture.pixels.dtype == np.uint16 and picture.pixels.shape == scene.shape
    shown = np.rot90(picture.pixels, 1)[8:-8, 8:-8] / 257  # the file says that it was turned
    scale = shown.mean() / scene[8:-8, 8:-8].mean()  # LibRaw brightens
    assert 0.8 < scale < 1.5
    means = shown.mean((0, 1)) / scene[8:-8, 8:-8].mean((0, 1)) / scale
    np.testing.assert_allclose(means, 1, atol=0.05)
    assert np.corrcoef(shown.ravel(), scene[8:-8, 8:-8].ravel())[0, 1] > 0.98


def test_damaged_raw_is_one_line(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("rawpy")
    path = tmp_path / "a.cr2"
    for data in (b"II*\0" + bytes(100), b"FUJIFILMCCD-RAW 0201" + bytes(50), b"IIU\0" + bytes(40)):
        path.write_bytes(data)
        assert refusal(read_image, path).startswith(("is not a RAW file", "damaged"))
    write_raw(path, PHOTO)
    path.write_bytes(path.read_bytes()[:-3000])
    assert refusal(read_image, path).startswith("damaged")
    assert capfd.readouterr().err == ""  # nor does LibRaw talk


def test_a_raw_file_without_its_suffix_is_never_its_preview(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.tif", PHOTO)
    tifffile.imwrite(tmp_path / "b.tif", PHOTO, photometric="rgb", subfiletype=1)
    for name in ("a.tif", "b.tif"):
        why = refusal(read_image, tmp_path / name)
        assert why.startswith("holds a preview ") and " by its suffix" in why
    kind = recognise(b"II*\0\x10\0\0\0CR\2\0")
    assert kind is not None and ".cr2" in kind.suffixes
