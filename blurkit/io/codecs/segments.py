"""JPEG files: their pixels by Pillow, and the segments before and behind these.

Metadata is in application segments before the pixels (ISO/IEC 10918-1, B.2.4.6). Behind the end of
the picture may be others, which a segment of the Multi-Picture Format (CIPA DC-007) lists, such as
a gain map, and the film of a motion photo.
"""

import re
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np
import PIL.Image
import PIL.JpegImagePlugin

from blurkit.io.codecs.exif import EXIF_HEADER, byte_order
from blurkit.io.codecs.metadata import CENTIMETRE, INCH, METRE, Metadata
from blurkit.io.codecs.pillow import QUALITY, encoded, metadata_of, opened, plain_pixels
from blurkit.io.records import Image

APP0, APP1, APP2, APP11, APP13, APP14, COMMENT = 0xE0, 0xE1, 0xE2, 0xEB, 0xED, 0xEE, 0xFE
FIRST_QUANTISATION, START_OF_SCAN, END = 0xDB, 0xDA, 0xD9
START_OF_IMAGE = b"\xff\xd8"
FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
"""The kinds of segments that state a picture's size, behind its depth."""

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
PHOTOSHOP = b"Photoshop 3.0\0"
MULTI_PICTURE = b"MPF\0"
ICC = b"ICC_PROFILE\0"

LARGEST_SEGMENT = 65_533
"""The most bytes that a segment holds."""

LARGEST_PACKET = LARGEST_SEGMENT - len(XMP)
"""The most bytes of an XMP packet in one segment; an EXIF block or comment may be a bit longer."""

DENSITY_UNITS = (0, INCH, CENTIMETRE)

NUMBER_TAG, ENTRIES_TAG, ENTRY = 0xB001, 0xB002, 16
"""The tags of a Multi-Picture index for the number and list of pictures, and the bytes of each."""

MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
GAIN_MAP = re.compile(rb"hdr-?gain-?map|urn:iso:std:iso:ts:21496", re.I)


def read_jpeg(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of a JPEG file."""
    with opened(file, where, "JPEG") as image:
        pixels, storage = plain_pixels(image, decoded), _storage(image)
        metadata = metadata_of(image)
    file.seek(0)
    stated = _stated(file.read())
    lost = stated.pop("lost")
    return pixels, replace(metadata, **storage, **stated).lacking(lost)


def write_jpeg(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write 8-bit pixels with a quality, by default as `metadata` says that a JPEG was stored."""
    storage: dict[str, Any] = {"quality": quality or QUALITY, "subsampling": 0}
    if quality is None and metadata.tables is not None:
        storage = {"qtables": metadata.tables.tolist(), "subsampling": metadata.subsampling or 0}
    storage["progressive"] = metadata.progressive
    data = bytearray(encoded(pixels, metadata, "JPEG", **storage))
    data[13:18] = _density(metadata.resolution)  # in the JFIF segment, with which it begins
    place = next(start for kind, start, _ in segments(data) if kind == FIRST_QUANTISATION) - 4
    size, photoshop, extras = LARGEST_SEGMENT - len(PHOTOSHOP), metadata.photoshop, metadata.extras
    parts = (photoshop[first : first + size] for first in range(0, len(photoshop), size))
    own = b"".join(_segment(APP13, PHOTOSHOP + part) for part in parts)
    end = max((end for _, _, end in segments(extras, 0)), default=0)
    comment = _segment(COMMENT, metadata.comment) if metadata.comment else b""
    data[place:place] = own + extras[:end] + comment
    _set_index(data, len(data))
    file.write(data + extras[end + 2 :])


def _storage(image: PIL.Image.Image) -> dict[str, Any]:
    """Return the quantisation tables and subsampling by which a JPEG is stored no worse."""
    assert isinstance(image, PIL.JpegImagePlugin.JpegImageFile)
    progressive = bool(image.info.get("progressive"))
    tables = np.asarray([image.quantization[key] for key in sorted(image.quantization)], np.uint16)
    if image.mode == "CMYK" or image.info.get("adobe_transform") == 0:  # no luma and chroma
        finest = tables.min(axis=0, keepdims=True)  # of what will be these
        fine = finest.max() < 10  # the coarsest step of chroma in quality 95
        return {"tables": finest if fine else None, "progressive": progressive}
    sampling = PIL.JpegImagePlugin.get_sampling(image)
    stated = sampling if sampling in (0, 1, 2) else None
    return {"tables": tables, "subsampling": stated, "progressive": progressive}


def _stated(data: bytes) -> dict[str, Any]:
    """Return what the segments of a JPEG state, as fields of `Metadata`, beside EXIF and ICC."""
    stated: dict[str, Any] = {"photoshop": b"", "comment": b""}
    own, names, lost, place = b"", [], [], 0
    for kind, start, end in segments(data):
        body, place = data[start:end], end
        if kind == APP0 and body.startswith(b"JFIF") and len(body) >= 12:
            unit, across, down = struct.unpack_from(">BHH", body, 7)
            if unit in (1, 2) or across != down:
                stated["resolution"] = (float(across), float(down), DENSITY_UNITS[unit % 3])
        elif kind == APP1 and body.startswith(XMP):
            stated["xmp"] = body.removeprefix(XMP)
        elif kind == APP13 and body.startswith(PHOTOSHOP):
            stated["photoshop"] += body.removeprefix(PHOTOSHOP)
        elif kind == COMMENT:
            stated["comment"] += (b"\n" if stated["comment"] else b"") + body
        elif kind == APP11:  # of the pixels that were
            lost.append("content credentials" if b"jumb" in body else "layers of JPEG XT")
        elif kind == APP14 and body[11:12] == b"\1":  # by Adobe, of luma and chroma
            own += _segment(kind, body)
        elif kind in range(APP1, APP14) and not body.startswith((EXIF_HEADER, ICC)):
            own += _segment(kind, body)
            if body.startswith(EXTENDED_XMP):
                names.append("extended XMP")
            elif not body.startswith(MULTI_PICTURE):
                names.append(f"APP{kind - APP0} data")
    end = _end(data, place)
    own, behind = _without_thumbnails(own, data, end)
    if behind.strip(b"\0"):
        names.append(_named(behind))
    if own or names:
        extras = own + bytes((0xFF, END)) + behind
        stated |= {"extras": extras, "extras_of": ".jpg", "extras_names": _listed(names)}
    return stated | {"lost": _listed(lost)}


def _named(behind: bytes) -> str:
    """Return what the bytes behind a picture are."""
    found = {
        "gain map": GAIN_MAP.search(behind),
        "film": b"ftyp" in behind,
        "second picture": behind.startswith(START_OF_IMAGE) and not GAIN_MAP.search(behind),
    }
    return _listed(name for name, present in found.items() if present) or "data behind it"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))


# ---- Segments ------------------------------------------------------------------------------------


def segments(data: bytes | bytearray, place: int = 2) -> Iterator[tuple[int, int, int]]:
    """Yield the kind of every segment before the pixels, and where its content begins and ends."""
    while place + 4 <= len(data) and data[place] == 0xFF:
        kind, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if kind == 0xFF:  # a byte to fill
            place += 1
            continue
        end = place + 2 + size
        if kind in (START_OF_SCAN, END) or end > len(data) or size < 2:
            return
        yield kind, place + 4, end
        place = end


def _end(data: bytes, place: int) -> int:
    """Return where a picture ends, whose pixels begin at or behind a place."""
    while match := MARKER.search(data, place):
        kind, place = data[match.start() + 1], match.end()
        if kind == END:
            return place
        place += int.from_bytes(data[place : place + 2], "big")
    return len(data)


def _segment(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, 2 + len(body)) + body


# ---- Several pictures ----------------------------------------------------------------------------


Index = tuple[int, dict[int, int], str, list[tuple[int, int, int, int]]]
"""The base of places in an index of pictures, the places of its tags, its byte order, and of every
picture where it is listed, its kind, size and place."""


def _index(data: bytes | bytearray, place: int = 2) -> Index | None:
    for kind, start, end in segments(data, place):
        if kind == APP2 and data[start : start + 4] == MULTI_PICTURE:
            base, order = start + 4, byte_order(data[start + 4 : start + 6])
            try:
                (first,) = struct.unpack_from(f"{order}I", data, base + 4)
                (number,) = struct.unpack_from(f"{order}H", data, base + first)
                entries = range(base + first + 2, base + first + 2 + 12 * number, 12)
                tags = {struct.unpack_from(f"{order}H", data, entry)[0]: entry for entry in entries}
                count, listed = struct.unpack_from(f"{order}4xII", data, tags[ENTRIES_TAG])
                struct.unpack_from(f"{order}8xI", data, tags[NUMBER_TAG])
            except (struct.error, KeyError):
                return None
            if base + listed + count > end:
                return None
            places = range(base + listed, base + listed + count - ENTRY + 1, ENTRY)
            form = f"{order}III"
            pictures = [(entry, *struct.unpack_from(form, data, entry)) for entry in places]
            return base, tags, order, pictures
    return None


def _set_index(data: bytearray, end: int) -> None:
    """Write into the index of pictures where they are, if it says so from the end of the first."""
    if index := _index(data):
        base, _, order, pictures = index
        for number, (entry, _, size, place) in enumerate(pictures):
            now = (size, place + end - base) if number else (end, 0)
            struct.pack_into(f"{order}II", data, entry + 4, *now)


def _without_thumbnails(own: bytes, data: bytes, end: int) -> tuple[bytes, bytes]:
    """Return segments with an index of pictures from `end` on, and these, without thumbnails."""
    whole, behind = _index(data), data[end:]
    if whole is None:
        return own, behind
    base, _, _, old = whole
    changed, index = bytearray(own), _index(own, 0)
    assert index is not None
    _, tags, order, listed = index
    kept, shift = [], 0
    for number, (_, kind, size, place) in enumerate(old):
        begin = place + base - end
        if number and (begin < 0 or data[end + begin : end + begin + 2] != START_OF_IMAGE):
            return _without_index(own), behind  # since no picture is there
        size = min(size, len(data) - end - begin)  # that of a third one of Pillow's is too large
        if number and kind & 0xFFFFFF in (0x010001, 0x010002):  # it shows the first one smaller
            begin -= shift
            behind = behind[:begin] + behind[begin + size :]
            shift += size
        else:
            kept.append((number, kind, size, begin - shift if number else 0))
    if len(kept) < 2:
        return _without_index(own), behind
    for (entry, *_), (number, *values) in zip(listed, kept, strict=False):
        changed[entry : entry + ENTRY] = data[old[number][0] : old[number][0] + ENTRY]
        struct.pack_into(f"{order}III", changed, entry, *values)
    struct.pack_into(f"{order}I", changed, tags[NUMBER_TAG] + 8, len(kept))
    struct.pack_into(f"{order}I", changed, tags[ENTRIES_TAG] + 4, ENTRY * len(kept))
    return bytes(changed), behind


def _without_index(own: bytes) -> bytes:
    parts = [(kind, own[start:end]) for kind, start, end in segments(own, 0)]
    return b"".join(_segment(*part) for part in parts if not part[1].startswith(MULTI_PICTURE))


def _density(resolution: tuple[float, float, float] | None) -> bytes:
    """Return a resolution as JFIF states it, in whole dots per inch or centimetre."""
    across, down, unit = resolution or (1, 1, 0)
    if unit == METRE:
        across, down, unit = across * INCH, down * INCH, INCH
    number = DENSITY_UNITS.index(unit) if unit in DENSITY_UNITS else 0
    return struct.pack(">BHH", number, *(min(max(round(n), 1), 65535) for n in (across, down)))
