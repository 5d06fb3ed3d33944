"""AVIF files: pixels by imagecodecs, and the boxes that describe them.

imagecodecs reads and writes every depth and the codes of colours, but no metadata; Pillow reads
that. It is written into the box `meta` (ISO/IEC 14496-12, 8.11; ISO/IEC 23008-12).
"""

import struct
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from blurkit.io.codecs.exif import EXIF_HEADER
from blurkit.io.codecs.jpeg import box, boxes, content, other_boxes
from blurkit.io.codecs.metadata import Metadata
from blurkit.io.codecs.pillow import QUALITY, metadata_of, opened, plain_pixels
from blurkit.io.records import Image, full_range, hollow, squeezed

MARKS = {
    **{"gain map": b"tmap", "light levels": b"clli"},
    **{"crop (it shows all pixels now)": b"clap", "aspect ratio of pixels": b"pasp"},
}
"""What only other programs write, and how it is recognised."""

RGB_MATRIX = 0
"""The matrix of colours that are stored as RGB, which is without loss."""

SRGB, UNSTATED = (1, 13, 6, 1), (2, 2, 6, 1)
"""The codes of sRGB in YCbCr, as most files state them, and of colours that a profile states."""

TURNS = {
    2: ((b"imir", 1),),
    3: ((b"irot", 2),),
    4: ((b"imir", 0),),
    5: ((b"irot", 1), (b"imir", 0)),
    6: ((b"irot", 3),),
    7: ((b"irot", 3), (b"imir", 0)),
    8: ((b"irot", 1),),
}
"""The properties that show an orientation: quarters to the left, and then the axis of a mirror."""

FULL, LOCATION, ESSENTIAL = 4, 14, 0x80
"""The bytes of version and flags of some boxes, those of the place of an item in one extent, and
the mark of a property that readers must know."""


def read_avif(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels and metadata of an AVIF file; 10 and 12 bits become 16."""
    import imagecodecs  # Pillow would read them as 8 bits

    with opened(file, where, "AVIF") as image:
        file.seek(0)
        data = file.read()
        flags = data[data.index(b"av1C") + 6]  # of the box that describes the first picture
        bits = 8 if not flags & 0x40 else 12 if flags & 0x20 else 10
        place = data.find(b"colrnclx")
        codes = struct.unpack_from(">HHHB", data, place + 8) if place >= 0 else None
        marked = [name for name, mark in MARKS.items() if mark in content(data, b"meta")]
        metadata = replace(
            metadata_of(image),
            cicp=(*codes[:3], codes[3] >> 7) if codes else None,
            bits=bits if bits > 8 else None,
            lossless=bool(codes and codes[2] == RGB_MATRIX),
            lost=", ".join([*marked, *other_boxes(data)]),
        )
        if bits == 8:
            return plain_pixels(image, decoded), metadata
        if not decoded:
            return hollow((image.height, image.width, len(image.getbands())), np.uint16), metadata
        return full_range(imagecodecs.avif_decode(data, index=0), bits), metadata


def write_avif(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4) with a quality and chroma of full size, 16 bits as 10 or 12."""
    import imagecodecs

    bits = 8 if pixels.dtype == np.uint8 else metadata.bits if metadata.bits == 10 else 12
    primaries, transfer, matrix, _ = metadata.cicp or (UNSTATED if metadata.icc else SRGB)
    lossless, colours = metadata.lossless and quality is None, pixels.shape[2] > 2
    if bits > 8:
        pixels = np.rint(pixels * np.float32((2**bits - 1) / 0xFFFF)).astype(np.uint16)
    chroma = imagecodecs.AVIF.PIXEL_FORMAT  # not their names, which 2026.10.10 refuses
    if lossless and colours:
        matrix = RGB_MATRIX
    elif matrix not in (1, 5, 6, 9):  # of BT.709, BT.601 and BT.2020
        matrix = SRGB[2]
    data = imagecodecs.avif_encode(
        squeezed(pixels),
        level=100 if lossless else quality or QUALITY,
        speed=8,  # a third of the time of Pillow's 6, with files larger by a hundredth
        bitspersample=bits,
        pixelformat=chroma.YUV444 if colours else chroma.YUV400,
        primaries=primaries,
        transfer=transfer,
        matrix=matrix,
    )
    file.write(_described(bytes(data), metadata))


def _described(data: bytes, metadata: Metadata) -> bytes:
    """Return a file of imagecodecs with metadata, profile and orientation added."""
    texts = []
    if metadata.exif:
        texts.append((b"Exif\0", bytes(4) + metadata.exif.removeprefix(EXIF_HEADER)))
    if metadata.xmp:
        texts.append((b"mime\0application/rdf+xml\0", metadata.xmp))
    profile = [box(b"colr", b"prof" + metadata.icc)] if metadata.icc else []
    turns = [box(kind, bytes((n,))) for kind, n in TURNS.get(metadata.orientation, ())]
    if not texts and not profile and not turns:
        return data
    whole = dict(boxes(data))
    meta = whole[b"meta"]
    parts = dict(boxes(meta[FULL:]))
    (known,) = struct.unpack_from(">H", parts[b"iinf"], FULL)
    numbers = range(known + 1, known + 1 + len(texts))
    items = parts[b"iinf"][:FULL] + struct.pack(">H", known + len(texts))
    parts[b"iinf"] = items + parts[b"iinf"][len(items) :]
    for number, (kind, _) in zip(numbers, texts, strict=True):
        parts[b"iinf"] += box(b"infe", struct.pack(">IHH", 2 << 24, number, 0) + kind)
    if texts:
        describe = (box(b"cdsc", struct.pack(">HHH", number, 1, 1)) for number in numbers)
        parts[b"iref"] = parts.get(b"iref", bytes(FULL)) + b"".join(describe)
    parts[b"iprp"] = _with_properties(parts[b"iprp"], profile, turns)
    lengths = [len(text) for _, text in texts]
    size = FULL + sum(8 + len(body) for body in parts.values()) + LOCATION * len(texts)
    parts[b"iloc"] = _moved(parts[b"iloc"], size - len(meta), len(data), lengths)
    whole[b"meta"] = bytes(FULL) + b"".join(box(*part) for part in parts.items())
    whole[b"mdat"] += b"".join(text for _, text in texts)
    return b"".join(box(*part) for part in whole.items())


def _with_properties(held: bytes, profile: list[bytes], turns: list[bytes]) -> bytes:
    """Return the properties of items with a profile for the first, and turns for all of them."""
    listed, used = content(held, b"ipco"), content(held, b"ipma")
    number = sum(1 for _ in boxes(listed))
    added = range(number + 1, number + 1 + len(profile) + len(turns))
    (entries,) = struct.unpack_from(">I", used, FULL)
    place, changed = FULL + 4, used[: FULL + 4]
    for entry in range(entries):
        item, count = struct.unpack_from(">HB", used, place)
        own = [*added[: len(profile)]] if entry == 0 else []
        own += [ESSENTIAL | index for index in added[len(profile) :]]
        old = used[place + 3 : place + 3 + count]
        changed += struct.pack(">HB", item, count + len(own)) + old + bytes(own)
        place += 3 + count
    return box(b"ipco", listed + b"".join(profile + turns)) + box(b"ipma", changed)


def _moved(locations: bytes, shift: int, end: int, lengths: list[int]) -> bytes:
    """Return the places of items that move by `shift`, and of more that begin at the old `end`."""
    changed = bytearray(locations)
    (known,) = struct.unpack_from(">H", locations, FULL + 2)
    for entry in range(FULL + 4, FULL + 4 + LOCATION * known, LOCATION):
        (place,) = struct.unpack_from(">I", locations, entry + 6)
        struct.pack_into(">I", changed, entry + 6, place + shift)
    struct.pack_into(">H", changed, FULL + 2, known + len(lengths))
    place = end + shift
    for number, length in enumerate(lengths, known + 1):
        changed += struct.pack(">HHHII", number, 0, 1, place, length)
        place += length
    return bytes(changed)
