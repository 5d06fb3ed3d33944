"""What is wrong with an image, or made to harm, is one clear line; nothing is half-written."""

import io
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import skimage.data
import tifffile

from blurkit.errors import BlurkitError
from blurkit.io.codecs.jpeg import box
from blurkit.io.images import encode_image, read_image, write_image
from tests.cli.command import assert_failed, shell
from tests.io.scenes import deep, refusal
from tests.io.test_images import held
from tests.shared import shared_folder

PHOTO = skimage.data.astronaut()[60:124, 200:296]
NOISE = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("This is no image.\n")
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "folder.png").mkdir()
    for name, expected in {
        "text.png": "is not an image that can be read",
        "empty.jpg": "is empty (0 bytes)",
        "folder.png": "is a folder",
        "missing.tif": "no such file",
        "text.png/below.png": "cannot be read",
    }.items():
        assert expected in refusal(read_image, tmp_path / name)


OLD = (".png", ".jpg", ".webp", ".bmp", ".ppm", ".tif", "16.png")
NEW = (".avif", ".heic", ".jp2", ".jxl")


def written(folder: Path, suffix: str) -> Path:
    """A photo in a file with what surrounds it; those called 16 have so many bits."""
    if suffix == ".heic":
        pytest.importorskip("pillow_heif")
    path = folder / f"whole{suffix}"
    alpha = PHOTO[:, :, :1] if suffix in NEW else None
    write_image(path, deep(PHOTO) if suffix == "16.png" else PHOTO, alpha, held(6))
    return path


@pytest.mark.parametrize("suffix", [*OLD, *NEW])
def test_truncated_files(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    cut, data = tmp_path / f"cut{suffix}", written(tmp_path, suffix).read_bytes()
    late = (len(data) * 9 // 10, len(data) - 60) if suffix in OLD else ()
    for size in (1, 5, 20, 60, 150, len(data) // 2, *late):
        cut.write_bytes(data[:size])
        assert refusal(read_image, cut)
    assert capfd.readouterr().err == ""  # nor do the libraries talk


@pytest.mark.parametrize("suffix", [*OLD, *NEW])
def test_damage_is_no_crash(tmp_path: Path, suffix: str, capfd: pytest.CaptureFixture[str]) -> None:
    path, rng = written(tmp_path, suffix), np.random.default_rng(1)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    for number in range(50):
        damaged = data.copy()
        damaged[rng.integers(8 * (number % 2), len(data), 5)] = rng.integers(0, 256, 5)
        path.write_bytes(damaged.tobytes())
        try:
            read_image(path)
        except BlurkitError as error:
            assert str(error).startswith(f"{path}: ") and "\n" not in str(error)
    assert capfd.readouterr().err == ""


def test_values_of_float_images(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    floats = (PHOTO / 255).astype(np.float32)
    for bad in (np.nan, np.inf, -np.inf):
        broken = floats.copy()
        broken[3, 4] = bad
        tifffile.imwrite(path, broken, photometric="rgb")
        assert "3 values are NaN or infinite" in refusal(read_image, path)
    tifffile.imwrite(path, np.full((5, 5), np.nan, np.float32))
    assert "25 values are NaN" in refusal(read_image, path)
    tifffile.imwrite(path, floats * 1.2 - 0.1, photometric="rgb")  # a little beyond is clipped
    expected = np.clip(floats * np.float32(1.2) - np.float32(0.1), 0, 1)
    np.testing.assert_allclose(read_image(path).pixels, expected, atol=1e-6)


def test_pixels_that_are_no_photo(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, PHOTO.astype(np.int16), photometric="rgb")
    assert "int16" in refusal(read_image, path)
    tifffile.imwrite(path, np.concatenate([PHOTO, PHOTO], axis=2), planarconfig="contig")
    assert refusal(read_image, path)
    tifffile.imwrite(path, PHOTO, photometric="cielab")
    assert "CIELAB; convert" in refusal(read_image, path)


# -- writing ---------------------------------------------------------------------------------------


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("a file")
    (tmp_path / "folder.png").mkdir()
    for name in ("file/a.png", "folder.png", f"{'long' * 70}.png"):
        path = tmp_path / name
        assert "cannot be written" in refusal(write_image, path, PHOTO)
    path = tmp_path / "a.xyz"
    assert "unknown image suffix" in refusal(write_image, path, PHOTO)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "folder.png"]
    assert (tmp_path / "file").read_text() == "a file"


def test_larger_than_a_format_allows(tmp_path: Path) -> None:
    wide = np.zeros((1, 70000, 3), np.uint8)
    for suffix in (".webp", ".jpg"):
        path = tmp_path / f"a{suffix}"
        assert "cannot be written" in refusal(write_image, path, wide)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".jpg", ".tif", "16.png"])
def test_a_full_disk_leaves_the_old_file(small_disk: Path, suffix: str) -> None:
    path = small_disk / f"a{suffix}"
    write_image(path, PHOTO)
    before = path.read_bytes()
    pixels = NOISE.astype(np.uint16) * 257 if suffix == "16.png" else NOISE
    assert "the disk is full" in refusal(write_image, path, pixels)
    assert path.read_bytes() == before
    assert [p.name for p in small_disk.iterdir()] == [path.name]


def test_any_changed_byte_of_a_png_is_reported(tmp_path: Path) -> None:
    """The last ones too, of which Pillow makes other pixels without a word."""
    write_image(tmp_path / "whole.png", PHOTO)
    data = (tmp_path / "whole.png").read_bytes()
    end = data.index(b"IEND") - 8
    for place in [*range(end - 60, end), *range(41, end, 97)]:
        changed = bytearray(data)
        changed[place] ^= 4
        (tmp_path / "x.png").write_bytes(changed)
        assert "damaged" in refusal(read_image, tmp_path / "x.png")


# ---- made to harm --------------------------------------------------------------------------------

MEGABYTES = 300
ZEROS = zlib.compress(bytes(1000))


def png(width: int, height: int, bits: int = 8, data: bytes | None = b"") -> bytes:
    """A PNG whose header claims a size, whatever its data holds, or without any."""
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    chunks = {b"IHDR": header, b"IDAT": data, b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks.items()
        if body is not None
    )


def tiff(width: int, height: int, length: int = 10) -> bytes:
    """An uncompressed TIFF whose tags claim a size."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, 8), (277, 3)]
    tags += [(278, height), (279, length)]
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = b"II*\0" + struct.pack("<I", 24) + b"\0" * 16
    return start + struct.pack("<H", len(tags)) + packed + b"\0" * 4


def gif(width: int, height: int) -> bytes:
    PIL.Image.new("P", (1, 1)).save(file := io.BytesIO(), "GIF")
    data = bytearray(file.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    """A WebP of 30 bytes without loss, whose header claims a size."""
    body = b"\x2f" + struct.pack("<I", width - 1 | height - 1 << 14) + bytes(5)
    chunk = b"VP8L" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


def retagged(data: bytes, **values: int) -> bytes:
    """A TIFF in which some tags have other values."""
    changed = bytearray(data)
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        for name, value in values.items():
            place = file.pages[0].tags[name].offset + 2  # of type, count and value
            struct.pack_into("<HII", changed, place, 4, 1, value)
    return bytes(changed)


def fax(width: int, height: int) -> bytes:
    """A bilevel TIFF of 132 bytes, compressed like a fax; its decoder fills up with white."""
    data = tiff(width, height)
    stated = {"BitsPerSample": 1, "Compression": 4, "SamplesPerPixel": 1}
    data = retagged(data, PhotometricInterpretation=0, **stated)
    return data[:8] + b"\xff" * 16 + data[24:]


def wordy() -> bytes:
    """A TIFF whose colour space is a list of hundreds of numbers."""
    data = tiff(10, 10, 300) + bytes(300)
    many = struct.pack("<HHII", 262, 3, 900, len(data))
    return data.replace(struct.pack("<HHII", 262, 4, 1, 2), many) + b"\x39\x30" * 900


def tiles(side: int) -> bytes:
    """A deflated TIFF of 20x30 pixels in one tile that claims to be larger."""
    pixels = np.zeros((20, 30), np.uint8)
    tifffile.imwrite(file := io.BytesIO(), pixels, tile=(32, 32), compression="zlib")
    return retagged(file.getvalue(), TileWidth=side, TileLength=side)


def bilevel() -> bytes:
    """A TIFF of 5 million rows of one bit, all but the first of them missing JPEGs."""
    pixels, file = np.zeros((64, 48), np.uint8), io.BytesIO()
    tifffile.imwrite(file, pixels, compression="jpeg", rowsperstrip=64)
    return retagged(file.getvalue(), ImageLength=5_000_000, BitsPerSample=1)


def embedded(side: int) -> bytes:
    """A TIFF whose only strip is a JPEG that claims to be larger than the page."""
    tifffile.imwrite(file := io.BytesIO(), PHOTO, photometric="rgb", compression="jpeg")
    data = file.getvalue()
    place = data.index(b"\xff\xc0") + 5
    return data[:place] + struct.pack(">HH", side, side) + data[place + 4 :]


def jpeg2000(side: int, tile: int = 0) -> bytes:
    """A JPEG 2000 file of 16 bits whose codestream claims another size than its boxes, or tiles."""
    data = encode_image(".jp2", deep(PHOTO))
    place = data.index(b"\xff\x4f\xff\x51") + 8
    sizes = struct.pack(">IIIIII", side, side, 0, 0, tile or side, tile or side)
    return data[:place] + sizes + data[place + 24 :]


def stack(planes: int) -> bytes:
    """A TIFF of which ImageJ says that so many planes follow its only page."""
    described = f"ImageJ=1.54f\nimages={planes}\n"
    tifffile.imwrite(file := io.BytesIO(), PHOTO[..., 0], description=described, metadata=None)
    return file.getvalue()


def compressed(kind: bytes) -> bytes:
    """A JPEG XL file with a box of 20 MB that are compressed to a few bytes."""
    body = kind + bytes(imagecodecs.brotli_encode(bytes(20_000_000), level=0))
    whole = imagecodecs.jpegxl_encode(PHOTO, usecontainer=True)
    return bytes(whole) + box(b"brob", body)


BAD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "header.png": ("more than --max-pixels", lambda: png(60000, 60000)),
    "largest.png": ("more than --max-pixels", lambda: png(2**31 - 1, 2**31 - 1)),
    "deep.png": ("more than --max-pixels", lambda: png(60000, 60000, 16)),
    "below.png": ("cannot hold", lambda: png(30000, 30000, 8, ZEROS)),
    "below16.png": ("cannot hold", lambda: png(20000, 20000, 16, ZEROS)),
    "empty.png": ("cannot hold", lambda: png(20000, 20000)),
    "empty16.png": ("cannot hold", lambda: png(20000, 20000, 16)),
    "bare.png": ("cannot hold", lambda: png(20000, 20000, 8, None)),
    "bare16.png": ("cannot hold", lambda: png(20000, 20000, 16, None)),
    "large.tif": ("more than --max-pixels", lambda: tiff(60000, 60000)),
    "below.tif": ("cannot hold", lambda: tiff(30000, 30000)),
    "strip.tif": ("damaged", lambda: tiff(100, 100, 2**32 - 1)),
    "small.webp": ("cannot hold", lambda: webp(16383, 16383)),
    "fax.tif": ("cannot hold", lambda: fax(30000, 30000)),
    "short.tif": ("cannot hold", lambda: fax(3000, 3000)),
    "wordy.tif": ("unsupported TIFF colour space", wordy),
    "tiles.tif": ("cannot hold", lambda: tiles(30000)),
    "embedded.tif": ("cannot hold", lambda: embedded(30000)),
    "bilevel.tif": ("cannot hold", bilevel),
    "stack.tif": ("cannot hold", lambda: stack(100_000)),
    "stacks.tif": ("more than --max-pixels", lambda: stack(10**9)),
    "text.jxl": ("damaged", lambda: compressed(b"Exif")),
    "packet.jxl": ("damaged", lambda: compressed(b"xml ")),
    "largest.jp2": ("more than --max-pixels", lambda: jpeg2000(60000)),
    "large.jp2": ("cannot hold", lambda: jpeg2000(20000)),
    "tiles.jp2": ("claims 40000 tiles", lambda: jpeg2000(1000, 5)),
    "gif.png": ("more than --max-pixels", lambda: gif(65535, 65535)),
    "tiny.png": ("cannot hold", lambda: gif(30000, 30000)),
    "script.png": ("is not an image", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "page.jpg": ("is not an image", lambda: b"<html>"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    words, make = BAD[name]
    (tmp_path / name).write_bytes(make())
    refused_cheaply(tmp_path / name, words)


def test_other_compressed_blocks_of_jpeg_xl_are_kept_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jxl"
    path.write_bytes(data := compressed(b"oURs"))
    picture = read_image(path)
    block = data[data.index(b"broboURs") - 4 :]
    assert encode_image(".jxl", picture.pixels, None, picture.attrs).endswith(block)


def test_tags_of_one_place_take_no_more_memory_than_the_file(tmp_path: Path) -> None:
    """Each of 2500 tags in several directories has the whole of the EXIF block as its value."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    size = 12 * 2503
    own = [(tag, 4, 1, 8) for tag in (34665, 34853, 40965)]
    tags = [*((40966 + number, 7, size, 8) for number in range(2500)), *own]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    block = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    data = encode_image(".png", PHOTO, None, {"exif": np.frombuffer(b"Exif\0\0" + block, np.uint8)})
    path = tmp_path / "a.png"
    path.write_bytes(data)
    np.testing.assert_array_equal(read_image(path).pixels, PHOTO)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


def refused_cheaply(path: Path, words: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    why = refusal(read_image, path)
    assert words in why and len(why) < 300
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


def test_a_small_file_that_asks_for_gigabytes() -> None:
    refused_cheaply(shared_folder("campaigns", "BLURKIT_CAMPAIGNS") / "hang.tif", "claims")


def test_no_helper_program_is_started(tmp_path: Path) -> None:
    """Pillow would give PostScript to Ghostscript, whatever the file's suffix."""
    helper = tmp_path / "bin" / "gs"
    helper.parent.mkdir()
    helper.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\n")
    helper.chmod(0o755)
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "photo.png").write_bytes(BAD["script.png"][1]() + b"%%EndComments\nshowpage\n%%EOF\n")
    PIL.Image.new("RGB", (20, 30)).save(photos / "good.png")
    ran = shell(f"PATH={helper.parent}:$PATH blurkit prepare photos -o x.h5 -q", tmp_path)
    assert_failed(ran, "photo", "photo.png: is not an image")
    assert not (tmp_path / "started").exists()
