"""JPEG XL and JPEG 2000 files, and the boxes that both containers are made of.

imagecodecs decodes JPEG XL without its colour profile. Whether there is one is therefore read from
the header (ISO/IEC 18181-1, Annex D), as is the size that it claims.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.codecs.exif import EXIF_HEADER, orientation_of, revised, with_header
from blurkit.io.codecs.metadata import METRE, Metadata, divided, iptc_of, with_iptc
from blurkit.io.codecs.pillow import QUALITY, opened, plain_pixels
from blurkit.io.paths import check_claim
from blurkit.io.records import Image, full_range, hollow, squeezed

JXL_CONTAINER = b"\0\0\0\x0cJXL \r\n\x87\n"
JXL_CODESTREAM = b"\xff\n"

SIZES = ((9, 1), (13, 1), (18, 1), (30, 1))
DEPTHS = ((0, 8), (0, 10), (0, 12), (6, 1))
FLOAT_DEPTHS = ((0, 32), (0, 16), (0, 24), (6, 1))
ENUM = ((0, 0), (0, 1), (4, 2), (6, 18))
CHANNELS = ((0, 0), (0, 1), (4, 2), (12, 1))
SHIFTS = ((0, 0), (0, 3), (0, 4), (3, 1))
NAME_LENGTHS = ((0, 0), (4, 0), (5, 16), (10, 48))
RATES = ((0, 100), (0, 1000), (10, 1), (30, 1))
DIVISORS = ((0, 1), (0, 1001), (8, 1), (10, 1))
LOOPS = ((0, 0), (3, 0), (16, 0), (32, 0))
"""Numbers of four forms each: their bits, and what is added to the value of these."""

RATIOS = ((1, 1), (12, 10), (4, 3), (3, 2), (16, 9), (5, 4), (2, 1))

SRGB = (1, 1, 13)
"""White point D65, the primaries of sRGB and its transfer function."""


def read_jpegxl(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels, already upright, and the metadata of a JPEG XL file.

    Raises BlurkitError if it claims too many pixels or its colours are not sRGB.
    """
    import imagecodecs  # only for these files

    data = file.read()
    header = _Bits(_codestream(data))
    check_claim(*header.shape, 24, len(data), where)
    if not header.srgb:
        reason = "has colours other than sRGB, which are not read from JPEG XL"
        raise BlurkitError(f"{where}: {reason}; convert it to PNG or TIFF first")
    pixels = imagecodecs.jpegxl_decode(data, index=0) if decoded else header.hollow()
    if decoded and header.premultiplied and pixels.ndim == 3:
        pixels = divided(pixels)
    return pixels, _jpegxl_metadata(data, header)


def write_jpegxl(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write upright sRGB pixels (H, W, 1 to 4); 16 bits, and what was stored so, without loss."""
    import imagecodecs

    lossless = quality == 100 or (metadata.lossless and quality is None)
    deep, quality = pixels.dtype == np.uint16, quality or QUALITY
    # libjxl's own formula for qualities of JPEG
    distance = max(0.0, 0.1 + (100 - quality) * 0.09) if quality >= 30 else 15.0
    data = imagecodecs.jpegxl_encode(
        squeezed(pixels), lossless=deep or lossless, distance=distance, usecontainer=True
    )
    file.write(_declared_srgb(bytes(data)) if deep else data)
    if metadata.exif:
        file.write(box(b"Exif", bytes(4) + metadata.exif.removeprefix(EXIF_HEADER)))
    if metadata.xmp:
        file.write(box(b"xml ", metadata.xmp))
    file.write(metadata.extras)


def _declared_srgb(data: bytes) -> bytes:
    """Return a file whose header says sRGB; that of imagecodecs says that 16 bits are linear."""
    header = _Bits(_codestream(data))
    if header.srgb:
        return data
    # The 4 bits before the position are those of the transfer function.
    place = 8 * (data.index(b"jxlc") + 4 + len(JXL_CODESTREAM)) + header.position - 4
    value = int.from_bytes(data, "little") & ~(0b1111 << place) | (SRGB[2] - 2 << place)
    return value.to_bytes(len(data), "little")


def _codestream(data: bytes) -> bytes:
    """Return the codestream or its first part, which begins with the header."""
    if data.startswith(JXL_CODESTREAM):
        return data
    for kind, body in boxes(data):
        if kind in (b"jxlc", b"jxlp"):
            return body[4:] if kind == b"jxlp" else body
    return data[-4096:]  # a last box without its end


OF_PIXELS = (b"JXL ", b"ftyp", b"jxll", b"jxlc", b"jxlp", b"jxli")
RECONSTRUCTION = b"jbrd"
"""Boxes that the encoder writes, and the one by which a file becomes the JPEG that it was."""


def _jpegxl_metadata(data: bytes, header: _Bits) -> Metadata:
    """Return what the boxes of a file state; some are compressed."""
    import imagecodecs

    found: dict[bytes, bytes] = {}
    extras, names, lost = b"", [], ["other frames"] if header.animated else []
    for kind, body in boxes(data) if data.startswith(JXL_CONTAINER) else ():
        stated = body[:4] if kind == b"brob" else kind
        if stated == b"jumb":  # of the pixels that were
            lost.append("content credentials")
        elif stated in (b"Exif", b"xml ", RECONSTRUCTION):
            if kind == b"brob" and stated not in found:
                body = bytes(imagecodecs.brotli_decode(body[4:], out=1 << 24))  # at most 16 MiB
            found.setdefault(stated, body)
        elif stated not in OF_PIXELS:
            extras += box(kind, body)
            names.append("gain map" if stated == b"jhgm" else f"{stated.decode('latin-1')} box")
    exif = found.get(b"Exif", b"")
    exif = with_header(exif[4 + int.from_bytes(exif[:4], "big") :]) if len(exif) > 8 else b""
    return Metadata(
        exif=revised(exif),
        xmp=found.get(b"xml ", b""),
        lossless=not header.xyb and RECONSTRUCTION not in found,
        extras=extras,
        extras_of=".jxl" if extras else "",
        extras_names=", ".join(names),
        lost=", ".join(lost),
    )


class _Bits:
    """The header of a codestream, read bit by bit, lowest first.

    `shape` is (height, width). Pixels that are `xyb` are in the space in which they lose; colours
    are `srgb` or its grays, and may be `premultiplied` by alpha.
    """

    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data[len(JXL_CODESTREAM) : 4096], "little")
        self.position = 0
        self.xyb, self.animated, self.premultiplied = True, False, False
        self._turned = self._gray = self._alpha = False
        self._type: type = np.uint8
        self.shape, self.srgb = self._size(), self._is_srgb()

    def hollow(self) -> np.ndarray:
        """Return the upright shape and type of the pixels."""
        shape = self.shape[::-1] if self._turned else self.shape
        return hollow((*shape, (1 if self._gray else 3) + self._alpha), self._type)

    def _number(self, bits: int) -> int:
        value = self._bits >> self.position & ((1 << bits) - 1)
        self.position += bits
        return value

    def _choice(self, forms: tuple[tuple[int, int], ...]) -> int:
        bits, offset = forms[self._number(2)]
        return self._number(bits) + offset

    def _size(self) -> tuple[int, int]:
        small = self._number(1)
        height = 8 * (self._number(5) + 1) if small else self._choice(SIZES)
        ratio = self._number(3)
        if ratio:
            across, down = RATIOS[ratio - 1]
            return height, height * across // down
        return height, 8 * (self._number(5) + 1) if small else self._choice(SIZES)

    def _is_srgb(self) -> bool:
        if self._number(1):  # everything as by default
            return True
        if self._number(1):
            self._turned = self._number(3) >= 4  # orientation less 1, which the decoder applies
            if self._number(1):
                self._size()
            if self._number(1):  # a preview, which nobody writes
                return False
            if self._number(1):
                self.animated = True
                for forms in (RATES, DIVISORS, LOOPS):
                    self._choice(forms)
                self._number(1)
        self._type = self._depth()
        self._number(1)
        for _ in range(self._choice(CHANNELS)):
            self._channel()
        self.xyb = bool(self._number(1))
        if self._number(1):
            return True
        if self._number(1):  # an ICC profile
            return False
        space = self._choice(ENUM)
        self._gray = space == 1
        white = self._choice(ENUM)
        if white == 2 or space > 1:
            return False
        primaries = self._choice(ENUM) if space == 0 else 1
        if primaries == 2 or self._number(1):  # primaries or a gamma of their own
            return False
        return (white, primaries, self._choice(ENUM)) == SRGB

    def _depth(self) -> type:
        if self._number(1):
            self._choice(FLOAT_DEPTHS)
            self._number(4)
            return np.float32
        return np.uint8 if self._choice(DEPTHS) <= 8 else np.uint16

    def _channel(self) -> None:
        if self._number(1):  # 8 bits of transparency
            self._alpha = True
            return
        kind = self._choice(ENUM)
        self._depth()
        self._choice(SHIFTS)
        self._number(8 * self._choice(NAME_LENGTHS))
        if kind == 0:  # of transparency, too
            self._alpha = True
            self.premultiplied = bool(self._number(1))


# ---- JPEG 2000 -----------------------------------------------------------------------------------

JP2_CONTAINER = b"\0\0\0\x0cjP  \r\n\x87\n"
JP2_CODESTREAM = b"\xff\x4f\xff\x51"

EXIF_UUID = b"JpgTiffExif->JP2"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")

END_OF_HEADER, COMMENT = b"\xff\x90", b"\xff\x64"


def read_jpeg2000(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of a JPEG 2000 file or codestream.

    Raises BlurkitError if it claims too many pixels or its colour space is unsupported.
    """
    import imagecodecs  # only for these files

    data = file.read()
    with opened(file, where, "JPEG2000") as claimed:
        height, width, depths, tiles = _stated(data)
        check_claim(height, width, 24, len(data), where)
        if tiles * 14 > len(data):  # by their markers alone; OpenJPEG takes 30 kB a tile at once
            reason = f"claims {tiles} tiles, which a file of {len(data)} bytes cannot hold"
            raise BlurkitError(f"{where}: {reason}")
        metadata, plain = _metadata(data)
        if max(depths) <= 8:  # Pillow knows palettes and YCC as well
            if not decoded:
                return plain_pixels(claimed, decoded), metadata
            claimed.load()
            return _straight(plain_pixels(claimed), data), metadata
    if not plain:
        raise BlurkitError(f"{where}: unsupported colour space; convert the file to RGB first")
    if not decoded:
        return hollow((height, width, len(depths)), np.uint16), metadata
    bare = data[data.index(JP2_CODESTREAM) :]  # else imagecodecs would apply the profile
    return _straight(full_range(imagecodecs.jpeg2k_decode(bare), max(depths)), data), metadata


def write_jpeg2000(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4) without loss, and upright: many viewers ignore orientations."""
    import imagecodecs

    data = bytes(imagecodecs.jpeg2k_encode(squeezed(pixels), 0, codecformat="jp2", reversible=True))
    described = {
        EXIF_UUID: metadata.exif.removeprefix(EXIF_HEADER),
        XMP_UUID: metadata.xmp,
        IPTC_UUID: iptc_of(metadata.photoshop),
    }
    for kind, body in boxes(data):
        if kind == b"jp2c":
            uuids = (uuid + text for uuid, text in described.items() if text)
            file.write(b"".join(box(b"uuid", text) for text in uuids))
            file.write(metadata.extras)
            if metadata.comment:
                end = max(end for _, end in _markers(body))
                comment = COMMENT + struct.pack(">HH", 4 + len(metadata.comment), 1)
                body = body[:end] + comment + metadata.comment + body[end:]
        if kind == b"jp2h":
            parts = dict(boxes(body))
            if metadata.icc:
                parts[b"colr"] = b"\2\0\0" + metadata.icc
            if metadata.resolution and metadata.resolution[2]:
                parts[b"res "] = _density(metadata.resolution)
            body = b"".join(box(part, inner) for part, inner in parts.items())
        file.write(box(kind, body))


def _stated(data: bytes) -> tuple[int, int, list[int], int]:
    """Return the height, width, bits of each channel and number of tiles of a codestream."""
    place = data.index(JP2_CODESTREAM) + 8
    right, below, left, top, *grid, channels = struct.unpack_from(">8IH", data, place)
    across, down, first, upper = grid
    tiles = -((first - right) // max(across, 1)) * -((upper - below) // max(down, 1))
    depths = [(data[place + 34 + 3 * channel] & 0x7F) + 1 for channel in range(channels)]
    return below - top, right - left, depths, tiles


def _density(resolution: tuple[float, float, float]) -> bytes:
    """Return the content of a box with a resolution: that in which a picture was taken."""
    across, down, unit = resolution
    numbers, exponents = [], []
    for value in (down / unit, across / unit):
        exponents.append(max(len(str(int(value))) - 4, 0))
        value /= 10 ** exponents[-1]
        ratio = Fraction(value).limit_denominator(0xFFFF // (int(value) + 1))
        numbers += [ratio.numerator, ratio.denominator]
    return box(b"resc", struct.pack(">HHHHbb", *numbers, *exponents))


def _resolution(content_of_res: bytes) -> tuple[float, float, float] | None:
    """Return the resolution in a box, that in which a picture was taken first."""
    stated = content(content_of_res, b"resc") or content(content_of_res, b"resd")
    if len(stated) != 10:
        return None
    down, below, across, under, down_power, across_power = struct.unpack(">HHHHbb", stated)
    if not (down and below and across and under):
        return None
    return across / under * 10.0**across_power, down / below * 10.0**down_power, METRE


def _comment(codestream: bytes) -> bytes:
    """Return the first comment in a codestream that is not about its encoder."""
    for start, end in _markers(codestream):
        if codestream[start : start + 2] == COMMENT:
            text = codestream[start + 6 : end]
            of_encoder = text.startswith((b"Created by ", b"Kakadu"))
            if codestream[start + 4 : start + 6] == b"\0\1" and not of_encoder:
                return text
    return b""


def _markers(codestream: bytes) -> Iterator[tuple[int, int]]:
    """Yield where the markers in the header of a codestream begin and end."""
    place = 2
    while place + 4 <= len(codestream) and codestream[place : place + 2] != END_OF_HEADER:
        end = place + 2 + int.from_bytes(codestream[place + 2 : place + 4], "big")
        if end < place + 4:
            return
        yield place, end
        place = end


def _straight(pixels: np.ndarray, data: bytes) -> np.ndarray:
    """Return pixels whose colours are not multiplied by alpha, a channel of kind 2 if they are."""
    channels = content(content(data, b"jp2h"), b"cdef")[2:]
    kinds = [kind for _, kind, _ in struct.iter_unpack(">HHH", channels[: len(channels) // 6 * 6])]
    return divided(pixels) if 2 in kinds and pixels.shape[2:] in ((2,), (4,)) else pixels


def _metadata(data: bytes) -> tuple[Metadata, bool]:
    """Return the metadata, and whether colours need no conversion other than by a profile."""
    if data.startswith(JP2_CODESTREAM):
        return Metadata(comment=_comment(data)), True
    header = content(data, b"jp2h")
    colour = content(header, b"colr")
    icc = colour[3:] if colour[:1] in (b"\2", b"\3") else b""  # restricted, and any other
    plain = bool(icc) or int.from_bytes(colour[3:7], "big") in (16, 17)  # sRGB and its grays
    described, extras = {EXIF_UUID: b"", XMP_UUID: b"", IPTC_UUID: b""}, b""
    for kind, body in boxes(data):
        if kind == b"uuid" and body[:16] in described:
            described[body[:16]] = body[16:]
        elif kind in (b"uuid", b"xml ", b"uinf", b"asoc", b"jp2i"):
            extras += box(kind, body)
    exif, iptc = with_header(described[EXIF_UUID]), described[IPTC_UUID]
    metadata = Metadata(
        *(icc, exif, orientation_of(exif)),
        xmp=described[XMP_UUID],
        photoshop=with_iptc(b"", iptc),
        comment=_comment(content(data, b"jp2c")),
        resolution=_resolution(content(header, b"res ")),
        extras=extras,
        extras_of=".jp2" if extras else "",
        extras_names="other boxes" if extras else "",
        lost="palette" if content(header, b"pclr") else "",
    )
    return metadata, plain


# ---- Boxes of containers -------------------------------------------------------------------------


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the kind (4 bytes) and the content of every whole box."""
    start, end = 0, len(data)
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, start)
        header = 8
        if size == 1 and start + 16 <= end:
            (size,), header = struct.unpack_from(">Q", data, start + 8), 16
        stop = end if size == 0 else start + size
        if stop > end or stop < start + header:
            return
        yield kind, data[start + header : stop]
        start = stop


def content(data: bytes, kind: bytes) -> bytes:
    """Return the content of the first box of a kind, b"" if there is none."""
    return next((body for found, body in boxes(data) if found == kind), b"")


def other_boxes(data: bytes) -> list[str]:
    """Return the names of what an AVIF or HEIC file has beside its pictures and their items."""
    known = {"ftyp", "meta", "mdat", "moov", "mpvd", "free", "skip"}  # also of films
    kinds = {kind.decode("latin-1") for kind, _ in boxes(data)} - known
    tags = {kind for kind, _ in boxes(content(data, b"moov"))} & {b"meta", b"udta"}
    names = sorted(f"{kind if kind.isalnum() else 'unknown'} box" for kind in kinds)
    return [*names, *(["tags of a film"] if tags else [])]


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


def brands(head: bytes) -> set[bytes]:
    """Return the brands that the first bytes of an AVIF, HEIC or CR3 file name."""
    if head[4:8] != b"ftyp":
        return set()
    names = head[8 : max(int.from_bytes(head[:4], "big"), 12)]
    return {names[place : place + 4] for place in range(0, len(names), 4) if place != 4}
