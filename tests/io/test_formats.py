"""Formats of images: depth, transparency, colours and EXIF, read by others too."""

import io
import struct
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import PIL.ImageCms
import PIL.ImageOps
import pytest
import skimage.data
import tifffile

from blurkit.errors import BlurkitError
from blurkit.io.formats import WRITTEN_SUFFIXES, recognise
from blurkit.io.images import read_image, write_image
from tests.io.scenes import SRGB, deep, exif

PHOTO = skimage.data.astronaut()[60:108, 200:264]
GRAY = PHOTO[:, :, :1]
ALPHA = np.linspace(0, 255, GRAY.size).astype(np.uint8).reshape(GRAY.shape)
ADOBE = imagecodecs.cms_profile("adobergb")
BEFORE_EXIF = {
    **{".avif": bytes(4), ".heic": b"Exif\0\0", ".jp2": b"JpgTiffExif->JP2"},
    ".jxl": b"Exif" + bytes(4),
}


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


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


@pytest.mark.parametrize("suffix", BEFORE_EXIF)
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_what_surrounds_the_pixels_is_kept(tmp_path: Path, suffix: str, orientation: int) -> None:
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    path, copy = tmp_path / f"a{suffix}", tmp_path / f"copy{suffix}"
    attrs = {"exif": as_array(exif(orientation)), "icc_profile": as_array(SRGB)}
    attrs |= {"orientation": orientation}
    write_image(path, PHOTO, ALPHA, attrs)
    picture = read_image(path)
    write_image(copy, picture.pixels, picture.alpha, picture.attrs)
    for file in (path, copy):
        assert exif_block(file)[271] == "a camera"
        pixels = seen(file)
        assert np.abs(pixels[:, :, :3].astype(float) - PHOTO).mean() < 4
        assert np.abs(pixels[:, :, 3:].astype(float) - ALPHA).mean() < 1
        assert np.abs(read_image(file).pixels.astype(float) - PHOTO).mean() < 4
    assert np.abs(picture.alpha.astype(float) - ALPHA).mean() < 1
    if suffix != ".jxl":  # its colours are sRGB
        assert picture.attrs["icc_profile"].tobytes() == SRGB
        assert SRGB in copy.read_bytes()
    photo = tmp_path / "photo.jpg"  # a format in which the EXIF block alone states the orientation
    write_image(photo, picture.pixels, None, picture.attrs)
    assert np.abs(seen(photo).astype(float) - PHOTO).mean() < 6


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
    assert np.abs(again.astype(float) - deep(pixels)).mean() < 200
    stored = heif.open_heif(tmp_path / "a.heic", convert_hdr_to_8bit=False, hdr_to_16bit=False)
    assert stored.info["bit_depth"] == 12
    np.testing.assert_allclose(again.squeeze() / 65535, np.asarray(stored) / 4095, atol=1e-5)


def test_jpeg_xl_made_of_a_jpeg(tmp_path: Path) -> None:
    path, file = tmp_path / "a.jxl", io.BytesIO()
    PIL.Image.fromarray(PHOTO).save(file, "JPEG", quality=95, exif=exif(6))
    path.write_bytes(imagecodecs.jpegxl_encode_jpeg(file.getvalue(), usecontainer=True))
    picture = read_image(path)
    upright = np.rot90(PHOTO, -1)
    assert np.abs(picture.pixels.astype(float) - upright).mean() < 6
    assert "orientation" not in picture.attrs  # the decoder has turned the pixels
    write_image(tmp_path / "b.jpg", picture.pixels, attrs=picture.attrs)
    assert seen(tmp_path / "b.jpg").shape == upright.shape


def test_jpeg_xl_of_other_colours_is_refused(tmp_path: Path) -> None:
    path, file = tmp_path / "a.jxl", io.BytesIO()
    PIL.Image.fromarray(PHOTO).save(file, "JPEG", icc_profile=ADOBE)
    path.write_bytes(imagecodecs.jpegxl_encode_jpeg(file.getvalue()))
    with pytest.raises(BlurkitError, match=r"a\.jxl: has colours other than sRGB"):
        read_image(path)


@pytest.mark.parametrize("suffix", [".jxl", ".bmp", ".ppm"])
@pytest.mark.parametrize("pixels", [PHOTO, deep(PHOTO)], ids=["8", "16"])
def test_colours_are_converted_where_no_profile_can_be_kept(
    tmp_path: Path, suffix: str, pixels: np.ndarray
) -> None:
    path = tmp_path / f"a{suffix}"
    write_image(path, pixels, attrs={"icc_profile": as_array(ADOBE)}, quality=100)
    profiles = PIL.ImageCms.ImageCmsProfile(io.BytesIO(ADOBE)), PIL.ImageCms.createProfile("sRGB")
    converted = PIL.ImageCms.profileToProfile(PIL.Image.fromarray(PHOTO), *profiles)
    stored = read_image(path).pixels
    assert (np.asarray(converted) != PHOTO).mean() > 0.5
    assert np.abs(stored / np.iinfo(stored.dtype).max * 255 - np.asarray(converted)).max() < 3


def test_cmyk_by_its_profile(tmp_path: Path) -> None:
    cmyk = cmyk_profile()
    stored = PIL.Image.fromarray(PHOTO).convert("CMYK")
    profiles = PIL.ImageCms.ImageCmsProfile(io.BytesIO(cmyk)), PIL.ImageCms.createProfile("sRGB")
    for suffix, options in ((".jpg", {"quality": 100}), (".tif", {})):
        path = tmp_path / f"a{suffix}"
        stored.save(path, icc_profile=cmyk, **options)
        with PIL.Image.open(path) as opened:
            shown = PIL.ImageCms.profileToProfile(opened, *profiles, outputMode="RGB")
        picture = read_image(path)
        assert np.abs(picture.pixels.astype(float) - np.asarray(shown)).max() < 2
        assert "icc_profile" not in picture.attrs


def cmyk_profile() -> bytes:
    """A printer's profile whose inks darken like those of Pillow's formula, squared."""
    grid = np.linspace(0, 1, 3)
    c, m, y, k = np.meshgrid(grid, grid, grid, grid, indexing="ij")
    light = np.stack([(1 - ink) * (1 - k) for ink in (c, m, y)], axis=-1) ** 2
    matrix = np.array([[0.436, 0.385, 0.143], [0.222, 0.717, 0.061], [0.014, 0.097, 0.714]])
    xyz = light @ matrix.T
    f = np.cbrt(xyz / [0.9642, 1.0, 0.8249])
    lab = np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )
    scaled = np.stack([lab[..., 0] / 100, (lab[..., 1] + 128) / 255, (lab[..., 2] + 128) / 255], -1)
    values = np.clip(scaled * 255, 0, 255).round().astype(np.uint8).tobytes()
    identity = np.eye(3).astype(">i4") * 65536
    ramp = bytes(range(256))
    table = struct.pack(">4s4xBBBx", b"mft1", 4, 3, 3) + identity.astype(">i4").tobytes()
    table += ramp * 4 + values + ramp * 3
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
        with pytest.raises(BlurkitError, match="claims 64x48 pixels, more than --max-pixels"):
            read_image(tmp_path / f"a{suffix}")


def test_contents_decide_what_a_file_is(tmp_path: Path) -> None:
    for suffix in sorted(WRITTEN_SUFFIXES - {".ppm", ".bmp", ".webp", ".avif"}):
        write_image(tmp_path / f"a{suffix}", PHOTO, quality=100)
        renamed = (tmp_path / f"a{suffix}").rename(tmp_path / "renamed.bmp")
        assert np.abs(read_image(renamed).pixels.astype(float) - PHOTO).mean() < 4
        assert read_image(renamed).attrs["suffix"] == ".bmp"
    assert recognise(b"%!PS-Adobe-3.0") is None and recognise(b"RIFF1234AVI LIST") is None


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
    assert np.abs(np.asarray(second).astype(float) - np.asarray(first)).mean() < 2
    # devices tell by the brand whether they can show it
    assert path.read_bytes()[8:12] == copy.read_bytes()[8:12]


def test_tables_of_other_colours_are_not_used(tmp_path: Path) -> None:
    PIL.Image.fromarray(PHOTO).convert("CMYK").save(tmp_path / "a.jpg", quality=20)
    assert "jpeg_tables" not in read_image(tmp_path / "a.jpg").attrs


# ---- RAW ----------------------------------------------------------------------------------------


def write_raw(path: Path, scene: np.ndarray, neutral: tuple[float, ...] = (0.5, 1, 0.7)) -> None:
    """A DNG file: the light of a scene (H, W, 3) behind a Bayer filter, as a camera stores it."""
    light = np.where(scene <= 10, scene / 255 / 12.92, ((scene / 255 + 0.055) / 1.055) ** 2.4)
    mosaic = np.zeros(scene.shape[:2])
    for channel, (row, column) in ((0, (0, 0)), (1, (0, 1)), (1, (1, 0)), (2, (1, 1))):
        mosaic[row::2, column::2] = light[row::2, column::2, channel] * neutral[channel]
    values = (mosaic * 16383).round().astype(np.uint16)
    xyz = [32405, -15371, -4985, -9693, 18760, 416, 556, -2040, 10572]  # of linear sRGB
    ratios = tuple(number for value in neutral for number in (round(value * 10000), 10000))
    tags = [
        (33421, "H", 2, (2, 2), True),
        (33422, "B", 4, (0, 1, 1, 2), True),
        (50706, "B", 4, (1, 4, 0, 0), True),
        (50708, "s", 0, "test", True),
        (50714, "H", 1, 0, True),
        (50717, "H", 1, 16383, True),
        (50721, "2i", 9, tuple(n for value in xyz for n in (value, 10000)), True),
        (50728, "2I", 3, ratios, True),
        (50778, "H", 1, 21, True),
        (274, "H", 1, 6, True),
    ]
    tifffile.imwrite(path, values, photometric=32803, extratags=tags, metadata=None)


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
        with pytest.raises(BlurkitError, match=r"a\.cr2: (is not a RAW file|damaged)"):
            read_image(path)
    write_raw(path, PHOTO)
    path.write_bytes(path.read_bytes()[:-3000])
    with pytest.raises(BlurkitError, match=r"a\.cr2: damaged"):
        read_image(path)
    assert capfd.readouterr().err == ""  # nor does LibRaw talk


def test_a_raw_file_without_its_suffix_is_never_its_preview(tmp_path: Path) -> None:
    write_raw(tmp_path / "a.tif", PHOTO)
    tifffile.imwrite(tmp_path / "b.tif", PHOTO, photometric="rgb", subfiletype=1)
    for name in ("a.tif", "b.tif"):
        with pytest.raises(BlurkitError, match=r"\.tif: holds a preview .* by its suffix"):
            read_image(tmp_path / name)
    kind = recognise(b"II*\0\x10\0\0\0CR\2\0")
    assert kind is not None and ".cr2" in kind.suffixes
