"""PNG files: their pixels by Pillow and imagecodecs, and the chunks around these.

Chunks are kept as they are, except those that describe stored pixels or the frames of animations
(PNG specification, third edition).
"""

import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.codecs.exif import EXIF_HEADER, orientation_of, with_header
from blurkit.io.codecs.metadata import METRE, Metadata, built_profile
from blurkit.io.codecs.pillow import encoded, metadata_of, opened, plain_pixels
from blurkit.io.records import Image, hollow, squeezed

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
HEADER_END = len(PNG_SIGNATURE) + 25
DEPTH_PLACE, COLOUR_PLACE = 24, 25
GRAYS, PALETTE = (0, 4), 3
"""The places of the depth and kind of colours, the kinds that are gray, and that with a palette."""

STRATEGY = zlib.Z_RLE
"""Runs of one byte only take a quarter of the time, and change the size of photos by under 5 %."""

XMP_START = b"XML:com.adobe.xmp\0\0\0\0\0"
"""What comes before an XMP packet in the chunk that holds it."""

CHUNK_NAMES = {
    **dict.fromkeys((b"tEXt", b"zTXt", b"iTXt"), "texts"),
    b"bKGD": "background colour",
    **dict.fromkeys((b"mDCV", b"cLLI"), "light levels"),
}
"""What chunks hold that no other format does."""

SRGB_GAMMA, SRGB_POINTS = 45455, (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
"""The gamma of sRGB, its white, red, green and blue, in units of 1/100000."""

SAID_ELSEWHERE = (b"sRGB", b"iCCP", b"cICP", b"gAMA", b"cHRM")
"""Chunks whose content is kept in other formats too, or is assumed there."""

OF_STORED_PIXELS = (
    *(b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"bKGD", b"hIST", b"sBIT", b"sPLT"),
    *(b"acTL", b"fcTL", b"fdAT", b"eXIf", b"pHYs", b"caBX", b"tIME"),
)
"""Chunks that are made anew or would be false, such as the time of the last change."""


def read_png(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of a PNG file. Raises BlurkitError if it is damaged."""
    data = file.read()
    with opened(file, where, "PNG") as image:
        stated = _stated(data, where)
        deep = data[DEPTH_PLACE] == 16
        pixels = plain_pixels(image, decoded and not deep)
        if deep and not decoded:
            channels = {0: 1, 2: 3, 4: 2, 6: 4}[data[COLOUR_PLACE]] + ("transparency" in image.info)
            pixels = hollow((image.height, image.width, channels), np.uint16)
        elif deep:
            import imagecodecs  # only for these files, which a training machine may never read

            pixels = imagecodecs.png_decode(data)
        lost = stated.pop("lost")
        return pixels, replace(metadata_of(image), **stated).lacking(lost)


def write_png(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4) of 8 or 16 bits."""
    if pixels.dtype == np.uint16:
        import imagecodecs  # only for these files

        data = bytes(imagecodecs.png_encode(squeezed(pixels), strategy=STRATEGY))
    else:
        data = encoded(pixels, Metadata(), "PNG", compress_type=STRATEGY)
    file.write(described_png(data, metadata))


def described_png(data: bytes, metadata: Metadata) -> bytes:
    """Return a PNG file with metadata in chunks behind its header, as most of them must be."""
    held = {kind for kind, *_ in _chunks(metadata.extras, 0)}
    chunks = b""
    # The codes of sRGB, and of nothing stated, need no chunk; others are of RGB and full range.
    if metadata.cicp and metadata.cicp[:2] not in ((1, 13), (2, 2)) and b"cICP" not in held:
        chunks += _chunk(b"cICP", bytes((*metadata.cicp[:2], 0, 1)))
    if metadata.icc and not held.intersection((b"iCCP", b"gAMA", b"cHRM")):
        chunks += _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(metadata.icc))
    chunks += metadata.extras
    if metadata.resolution:
        density = struct.pack(">IIB", *metadata.per_metre(), bool(metadata.resolution[2]))
        chunks += _chunk(b"pHYs", density)
    if metadata.exif:
        chunks += _chunk(b"eXIf", metadata.exif.removeprefix(EXIF_HEADER))
    if metadata.xmp:
        chunks += _chunk(b"iTXt", XMP_START + metadata.xmp)
    if metadata.comment:
        chunks += _chunk(b"tEXt", b"Comment\0" + metadata.comment.replace(b"\0", b" "))
    return data[:HEADER_END] + chunks + data[HEADER_END:]


def _stated(data: bytes, where: str) -> dict[str, Any]:
    """Return what the chunks of a file state, as fields of `Metadata`.

    Raises BlurkitError if one that holds pixels does not match its checksum: Pillow stops in the
    last of them when it has all rows, and does not verify it. Other damaged ones are left out.
    """
    stated: dict[str, Any] = {}
    plain = data[COLOUR_PLACE] != PALETTE and data[DEPTH_PLACE] >= 8
    extras, lost = b"", list[str]()
    names, colours = dict[str, bool](), dict[bytes, bytes]()
    for kind, body, intact in _chunks(data, len(PNG_SIGNATURE)):
        if not intact:
            if kind in (b"PLTE", b"IDAT"):
                reason = "its pixels do not match their checksum"
                raise BlurkitError(f"{where}: damaged or truncated ({reason})")
        elif kind == b"eXIf":  # which Pillow knows only after the pixels, if it is behind them
            stated["exif"] = with_header(body)
            stated["orientation"] = orientation_of(stated["exif"])
        elif kind == b"caBX":  # of the pixels that were
            lost.append("content credentials")
        elif kind == b"sBIT" and min(body, default=0) < (data[DEPTH_PLACE] if plain else 8):
            lost.append("number of significant bits")
        elif kind == b"pHYs" and len(body) == 9:
            *density, unit = struct.unpack(">IIB", body)
            stated["resolution"] = (*map(float, density), METRE if unit == 1 else 0)
        elif kind == b"iTXt" and body.startswith(XMP_START[:18]):
            packed, (_, _, text) = body[18], body[20:].split(b"\0", 2)
            stated["xmp"] = zlib.decompressobj().decompress(text, 1 << 24) if packed else text
        elif kind not in OF_STORED_PIXELS or (kind == b"bKGD" and plain):
            colours[kind] = body
            extras += _chunk(kind, body)
            if kind not in SAID_ELSEWHERE:
                names[CHUNK_NAMES.get(kind, f"{kind.decode('latin-1')} chunk")] = True
    if len(colours.get(b"cICP", b"")) == 4:
        stated["cicp"] = tuple(colours[b"cICP"])
    if not {b"iCCP", b"sRGB", b"cICP"}.intersection(colours):
        stated["icc"] = _profile(colours, gray=data[COLOUR_PLACE] in GRAYS)
    if extras:
        stated |= {"extras": extras, "extras_of": ".png", "extras_names": ", ".join(names)}
    return stated | {"lost": ", ".join(lost)}


def _profile(chunks: Mapping[bytes, bytes], gray: bool) -> bytes:
    """Return the profile of stated gamma and primaries, b"" if they are nearly those of sRGB."""
    gamma, points = SRGB_GAMMA, list(SRGB_POINTS)
    with suppress(struct.error):
        (gamma,) = struct.unpack(">I", chunks.get(b"gAMA", b""))
    with suppress(struct.error):
        points = [*struct.unpack(">8I", chunks.get(b"cHRM", b""))]
    near = max(abs(a - b) for a, b in zip(points, SRGB_POINTS, strict=True)) < 500
    if not 0 < gamma < 1000_000 or (near and abs(gamma - SRGB_GAMMA) < 1000):
        return b""
    white, primaries = ([n / 100_000 for n in part] for part in (points[:2], points[2:]))
    light = np.linspace(0, 1, 1024) ** (100_000 / gamma)
    try:
        return built_profile(white, [] if gray else primaries, light.astype(np.float32))
    except Exception:  # of any kind, for colours that do not exist
        return b""


def _chunks(data: bytes, place: int) -> Iterator[tuple[bytes, bytes, bool]]:
    """Yield the kind and content of every whole chunk, and whether its checksum is right."""
    while place + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, place)
        body, place = data[place + 8 : place + 8 + size], place + 12 + size
        if place > len(data):
            return
        yield kind, body, data[place - 4 : place] == _checksum(kind, body)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + _checksum(kind, body)


def _checksum(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(body, zlib.crc32(kind)))
