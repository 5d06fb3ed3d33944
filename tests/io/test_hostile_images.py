"""Images made to harm: claims beyond the file, other formats behind a suffix, wild values."""

from __future__ import annotations

import io
import resource
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile

from blurkit.errors import BlurkitError
from blurkit.io.images import read_image
from tests.cli.command import assert_failed, run, shell
from tests.shared import shared_folder

MEGABYTES = 300


def png(width: int, height: int, bits: int = 8, data: bytes = b"") -> bytes:
    """A PNG whose header claims a size, whatever its data holds."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def tiff(width: int, height: int, length: int = 10) -> bytes:
    """An uncompressed TIFF whose tags claim a size."""
    tags = [(256, width), (257, height), (258, 8), (259, 1), (262, 2), (273, 8), (277, 3)]
    tags += [(278, height), (279, length)]
    packed = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = b"II*\0" + struct.pack("<I", 24) + b"\0" * 16
    return start + struct.pack("<H", len(tags)) + packed + b"\0" * 4


def gif(width: int, height: int) -> bytes:
    file = io.BytesIO()
    PIL.Image.new("P", (1, 1)).save(file, "GIF")
    data = bytearray(file.getvalue())
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def floats(value: float) -> bytes:
    file = io.BytesIO()
    pixels = np.full((20, 30, 3), 0.5, np.float32)
    pixels[3, 3] = value
    tifffile.imwrite(file, pixels, photometric="rgb")
    return file.getvalue()


BAD: dict[str, tuple[str, Callable[[], bytes]]] = {
    "header.png": ("more than --max-pixels", lambda: png(60000, 60000)),
    "largest.png": ("more than --max-pixels", lambda: png(2**31 - 1, 2**31 - 1)),
    "deep.png": ("more than --max-pixels", lambda: png(60000, 60000, 16)),
    "below.png": ("cannot hold", lambda: png(30000, 30000, 8, zlib.compress(bytes(1000)))),
    "large.tif": ("more than --max-pixels", lambda: tiff(60000, 60000)),
    "below.tif": ("cannot hold", lambda: tiff(30000, 30000)),
    "strip.tif": ("damaged", lambda: tiff(100, 100, 2**32 - 1)),
    "gif.png": ("more than --max-pixels", lambda: gif(65535, 65535)),
    "tiny.png": ("cannot hold", lambda: gif(30000, 30000)),
    "script.png": ("is not an image", lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "page.jpg": ("is not an image", lambda: b"<html>"),
    "infinite.tif": ("NaN or infinite", lambda: floats(np.inf)),
    "far.tif": ("float images are in [0, 1]", lambda: floats(1e30)),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    words, make = BAD[name]
    (tmp_path / name).write_bytes(make())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BlurkitError) as told:
        read_image(tmp_path / name)
    assert words in str(told.value) and str(told.value).startswith(f"{tmp_path / name}: ")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


def test_a_small_file_that_asks_for_gigabytes() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BlurkitError, match=r"hang\.tif: claims"):
        read_image(shared_folder("campaigns", "BLURKIT_CAMPAIGNS") / "hang.tif")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEGABYTES * 1024


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


def test_the_limit_is_an_option(tmp_path: Path) -> None:
    PIL.Image.new("RGB", (200, 300)).save(tmp_path / "photo.png")
    PIL.Image.new("RGB", (20, 30)).save(tmp_path / "small.png")
    ran = run("prepare", tmp_path, "--max-pixels", 59_999, "-o", "x.h5", "-q", cwd=tmp_path)
    assert_failed(ran, "photo", "photo.png: claims 200x300 pixels, more than --max-pixels 59999")
