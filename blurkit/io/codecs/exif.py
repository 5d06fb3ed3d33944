"""EXIF blocks, and the directories of tags that they and TIFF files are made of.

Values stay as they are, byte for byte, also those of unknown tags; only what would become false is
changed. A block has a header, then a small TIFF file (TIFF 6.0, section 2; EXIF 2.32, 4.6).
"""

import io
import struct
from typing import BinaryIO, Literal

EXIF_HEADER = b"Exif\x00\x00"

ORIENTATION_TAG, XMP_TAG, IPTC_TAG, PHOTOSHOP_TAG = 274, 700, 33723, 34377
EXIF_TAG, GPS_TAG, INTEROPERABILITY_TAG = 34665, 34853, 40965
DIRECTORIES = (EXIF_TAG, GPS_TAG, INTEROPERABILITY_TAG)
"""Tags whose value is the place of another directory."""

WIDTH_TAG, HEIGHT_TAG = 40962, 40963

TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
"""Bytes of a value by its type; those of 64 bits, which only BigTIFF has, are left out."""

Value = tuple[int, int, bytes]
"""The type of a tag's values, their number, and their bytes."""

Directory = dict[int, "Value | Directory"]


def byte_order(head: bytes | bytearray) -> Literal["<", ">"]:
    """Return struct's sign of the byte order of a TIFF file that begins with `head`."""
    return ">" if head[:1] == b"M" else "<"


def read_directory(
    file: BinaryIO, place: int, order: str, big: bool = False, depth: int = 0
) -> Directory:
    """Return the directory at a place of a TIFF file, of a BigTIFF file if `big`.

    Tags whose values are damaged or of unknown types are left out, and so are those with which
    values would have more bytes than the file: they would be of the same place.
    """
    found: Directory = {}
    left = file.seek(0, 2)
    file.seek(place)
    forms = ("Q", "HHQ8s") if big else ("H", "HHI4s")
    count_form, entry_form = (order + form for form in forms)
    head = file.read(struct.calcsize(count_form))
    if len(head) < struct.calcsize(count_form):
        return found
    length = struct.calcsize(entry_form)
    entries = file.read(length * min(struct.unpack(count_form, head)[0], 4096))
    for start in range(0, len(entries) - length + 1, length):
        tag, kind, count, inline = struct.unpack_from(entry_form, entries, start)
        size = TYPE_SIZES.get(kind, 0) * count
        where = struct.unpack(f"{order}{'Q' if big else 'I'}", inline)[0]
        if tag in DIRECTORIES and depth < 2:
            found[tag] = read_directory(file, where, order, big, depth + 1)
        elif 0 < size <= len(inline):
            found[tag] = kind, count, inline[:size]
        elif 0 < size <= min(left, 1 << 24):  # larger ones do not describe a picture
            file.seek(where)
            if len(data := file.read(size)) == size:
                found[tag] = kind, count, data
                left -= size
    return found


def first_directory(file: BinaryIO) -> tuple[Directory, str]:
    """Return the first directory of a TIFF file or the like, and its byte order."""
    file.seek(0)
    head = file.read(8)
    order = byte_order(head)
    place = struct.unpack(f"{order}I", head[4:].ljust(4, b"\0"))[0]
    return read_directory(file, place, order), order


def parsed(exif: bytes) -> tuple[Directory, str]:
    """Return the first directory of an EXIF block, and its byte order."""
    return first_directory(io.BytesIO(exif.removeprefix(EXIF_HEADER)))


def directory_bytes(directory: Directory, place: int, order: str) -> bytes:
    """Return a directory as it is stored at a place of a TIFF file, the values behind it."""
    tags = sorted(directory.items())
    end = place + 2 + 12 * len(tags) + 4
    entries, values = struct.pack(f"{order}H", len(tags)), bytearray()
    for tag, value in tags:
        if isinstance(value, dict):
            kind, count, data = 4, 1, struct.pack(f"{order}I", end + len(values))
            values += directory_bytes(value, end + len(values), order)
        else:
            kind, count, data = value
        if len(data) > 4:
            start = end + len(values)
            values += data
            data = struct.pack(f"{order}I", start)
        values += bytes(len(values) % 2)
        entries += struct.pack(f"{order}HHI", tag, kind, count) + data.ljust(4, b"\0")
    return entries + bytes(4) + values


def block(directory: Directory, order: str) -> bytes:
    """Return the EXIF block with a directory, b"" if that is empty."""
    if not directory:
        return b""
    start = b"II*\0" if order == "<" else b"MM\0*"
    return EXIF_HEADER + start + struct.pack(f"{order}I", 8) + directory_bytes(directory, 8, order)


def content_of(directory: Directory, tag: int) -> bytes:
    """Return the bytes of a tag's values, b"" if there are none."""
    value = directory.get(tag)
    return value[2] if isinstance(value, tuple) else b""


def with_header(exif: bytes | None) -> bytes:
    """Return an EXIF block with its header, which some formats leave out; b"" for no block."""
    return EXIF_HEADER + exif.removeprefix(EXIF_HEADER) if exif else b""


def orientation_of(exif: bytes) -> int:
    """Return the orientation (1 to 8) that an EXIF block states, 1 if it states none."""
    directory, order = parsed(exif)
    value = directory.get(ORIENTATION_TAG)
    if not isinstance(value, tuple) or value[0] not in (3, 4):
        return 1
    number = int.from_bytes(value[2][: TYPE_SIZES[value[0]]], "big" if order == ">" else "little")
    return number if number in range(2, 9) else 1


def revised(exif: bytes, orientation: int = 1, size: tuple[int, int] | None = None) -> bytes:
    """Return an EXIF block that is true of a picture with this orientation and (height, width).

    Its thumbnail, which shows the picture as it was, is dropped. All else stays where it is, since
    the notes of makers refer to places in the block. No block, b"", stays none.
    """
    start, changed = len(EXIF_HEADER), bytearray(exif)
    order = byte_order(exif[start:])
    new = {ORIENTATION_TAG: orientation}
    if size:
        new |= {HEIGHT_TAG: size[0], WIDTH_TAG: size[1]}
    try:
        (first,) = struct.unpack_from(f"{order}I", exif, start + 4)
        places, end = _entries(exif, start + first, order)
        for place in [*places]:
            tag, inner = struct.unpack_from(f"{order}H6xI", exif, place)
            if tag == EXIF_TAG:
                places += _entries(exif, start + inner, order)[0]
        for place in places:
            tag, kind, count = struct.unpack_from(f"{order}HHI", exif, place)
            if tag in new and count == 1 and kind in (3, 4):
                form = "H2x" if kind == 3 and new[tag] < 1 << 16 else "I"
                struct.pack_into(f"{order}H", changed, place + 2, 3 if form == "H2x" else 4)
                struct.pack_into(order + form, changed, place + 8, new[tag])
        (thumbnail,) = struct.unpack_from(f"{order}I", exif, end)
        struct.pack_into(f"{order}I", changed, end, 0)
    except struct.error:  # damaged, and therefore without more
        return exif
    return bytes(_without_thumbnail(changed, start, thumbnail, order) if thumbnail else changed)


def _entries(block: bytes, place: int, order: str) -> tuple[list[int], int]:
    """Return the places of the entries of a directory, and where they end."""
    (entries,) = struct.unpack_from(f"{order}H", block, place)
    end = place + 2 + 12 * entries
    return [*range(place + 2, min(end, len(block) - 11), 12)], end


def _without_thumbnail(block: bytearray, start: int, place: int, order: str) -> bytearray:
    """Return a block with zeros for its thumbnail, or without it if that is at its end."""
    found = read_directory(io.BytesIO(bytes(block[start:])), place, order)
    values = [found.get(tag) for tag in (513, 514)]  # its place and its bytes
    if not all(isinstance(value, tuple) and len(value[2]) == 4 for value in values):
        return block
    first, length = (struct.unpack(f"{order}I", value[2])[0] for value in values)  # type: ignore
    end = min(start + first + length, len(block))
    if first < place:  # not where writers put it, so other things may be there
        return block
    if end == len(block):
        return block[: start + first]
    block[start + first : end] = bytes(max(end - start - first, 0))
    return block
