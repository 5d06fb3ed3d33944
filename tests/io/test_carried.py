"""What a picture carries comes along, or a line says that it does not: the table in the docs.

Examples are made, and results are looked at, without our own readers.
"""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import PIL.Image
import PIL.PngImagePlugin
import pytest
import skimage.data
import tifffile

from blurkit.io.codecs.camera import raw_metadata
from blurkit.io.formats import BY_SUFFIX, WRITTEN_SUFFIXES, written_suffix
from blurkit.io.images import Picture, read_image, write_image
from tests.io.films import copy, make_animation
from tests.io.test_images import DECODERS, error, exif_block, opened, write_raw
from tests.shared import ROOT

PHOTO = np.ascontiguousarray(skimage.data.astronaut()[60:140, 200:296])
DEEP = PHOTO.astype(np.uint16) * 257
FLOAT = (PHOTO / 255).astype(np.float32)
BRIGHT = np.where(np.arange(80)[:, None, None] < 9, FLOAT * 3 - 0.1, FLOAT).astype(np.float32)
ALPHA = np.tile(np.linspace(40, 255, 96).astype(np.uint8), (80, 1))[:, :, None]
WIDE = imagecodecs.cms_profile("adobergb")
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF/>a packet</x:xmpmeta>'
IPTC = b"\x1c\x02\x19\0\x09a keyword"
PHOTOSHOP = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(IPTC)) + IPTC + b"\0"
RESOURCES = b"8BIM\x04\x0b\0\0\0\0\0\x07a block\0"
FILM = struct.pack(">I4s4sI4s", 20, b"ftyp", b"mp42", 0, b"mp42") + b"a film"
PQ = (9, 16, 9, 1)


def exif(byte_order: str = "<") -> bytes:
    block = PIL.Image.Exif()
    block.endian = byte_order
    block[271], block[274] = "a camera", 6
    block.get_ifd(34665)[37510] = b"ASCII\0\0\0a remark"
    block.get_ifd(34853)[1] = "N"
    return block.tobytes()


def saved(kind: str, pixels: np.ndarray = PHOTO, **options: object) -> bytes:
    image = pixels if isinstance(pixels, PIL.Image.Image) else PIL.Image.fromarray(pixels)
    image.save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def box(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), kind) + body


# ---- makers of examples --------------------------------------------------------------------------


def chunks(*added: tuple[bytes, bytes]) -> bytes:
    """A PNG file with chunks behind its header."""
    data = saved("PNG")
    parts = (
        struct.pack(">I4s", len(body), kind) + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in added
    )
    return data[:33] + b"".join(parts) + data[33:]


def segment(marker: int, body: bytes, data: bytes | None = None) -> bytes:
    """A JPEG file with a segment behind its first."""
    data = data or saved("JPEG", quality=90)
    return data[:20] + struct.pack(">BBH", 0xFF, marker, 2 + len(body)) + body + data[20:]


def multi(xmp: bytes = b"") -> bytes:
    """A JPEG file of two pictures, of which the second has an XMP packet."""
    first, second = (PIL.Image.fromarray(pixels) for pixels in (PHOTO, PHOTO[::-1].copy()))
    second.encoderinfo = {"xmp": xmp} if xmp else {}
    first.save(file := io.BytesIO(), "MPO", save_all=True, append_images=[second], quality=90)
    return file.getvalue()


def tiff(pixels: np.ndarray = PHOTO, **options: object) -> bytes:
    options = {"photometric": "rgb", "metadata": None} | options
    tifffile.imwrite(file := io.BytesIO(), pixels, **options)
    return file.getvalue()


def heic(pixels: np.ndarray = PHOTO, bits: int = 10, **options: object) -> bytes:
    heif = pytest.importorskip("pillow_heif")
    heif.options.SAVE_HDR_TO_12_BIT = bits == 12
    mode = {3: "RGB", 4: "RGBA"}[pixels.shape[2]] + (";16" if pixels.dtype == np.uint16 else "")
    data = np.ascontiguousarray(pixels).tobytes()
    heif.encode(mode, pixels.shape[1::-1], data, file := io.BytesIO(), quality=95, **options)
    return file.getvalue()


def two_heic() -> bytes:
    pytest.importorskip("pillow_heif").register_heif_opener()
    return saved("HEIF", save_all=True, append_images=[PIL.Image.fromarray(PHOTO[::-1].copy())])


def nclx(codes: tuple[int, ...]) -> dict[str, int]:
    names = ("color_primaries", "transfer_characteristics", "matrix_coefficients")
    return dict(zip((*names, "full_range_flag"), codes, strict=True))


def deep_avif(codes: tuple[int, ...] = (1, 13, 6, 1)) -> bytes:
    names = dict(zip(("primaries", "transfer", "matrix"), codes, strict=False))
    names |= {"bitspersample": 10, "pixelformat": "444", "speed": 10}
    return bytes(imagecodecs.avif_encode(DEEP >> 6, **names))


def jp2(pixels: np.ndarray = PHOTO, *before: bytes, header: bytes = b"") -> bytes:
    """A JPEG 2000 file with boxes before the codestream, and in its header."""
    data = bytes(imagecodecs.jpeg2k_encode(pixels, codecformat="jp2", reversible=True))
    place, start = data.index(b"jp2c") - 4, data.index(b"jp2h") - 4
    (size,) = struct.unpack_from(">I", data, start)
    inner = data[start + 8 : start + size]
    if header.startswith(b"\2\0\0"):  # instead of the colours
        at = inner.index(b"colr") - 4
        inner, header = inner[:at], box(b"colr", header)
    return data[:start] + box(b"jp2h", inner + header) + b"".join(before) + data[place:]


def jp2_palette() -> bytes:
    image = PIL.Image.fromarray(PHOTO).quantize(16)
    colours = np.asarray(image.getpalette()[:48], np.uint8)
    mapped = b"".join(struct.pack(">HBB", 0, 1, channel) for channel in range(3))
    palette = struct.pack(">HB3B", 16, 3, 7, 7, 7) + colours.tobytes()
    data = jp2(np.asarray(image), header=box(b"pclr", palette) + box(b"cmap", mapped))
    gray, rgb = (b"colr\1\0\0" + struct.pack(">I", colours) for colours in (17, 16))
    assert gray in data
    return data.replace(gray, rgb)


def jp2_comment() -> bytes:
    data = jp2()
    place = data.index(b"\xff\x90")
    text = b"a comment"
    data = data[:place] + b"\xff\x64" + struct.pack(">HH", 4 + len(text), 1) + text + data[place:]
    start = data.index(b"jp2c") - 4
    return data[:start] + struct.pack(">I", len(data) - start) + data[start + 4 :]


def jxl(pixels: np.ndarray = PHOTO, *behind: bytes) -> bytes:
    return bytes(imagecodecs.jpegxl_encode(pixels, usecontainer=True)) + b"".join(behind)


def bmp_with_profile() -> bytes:
    data = saved("BMP")
    header = bytearray(124)
    header[:40], header[56:60], pixels = data[14:54], b"DEBM", data[54:]
    struct.pack_into("<I", header, 0, 124)
    struct.pack_into("<II", header, 112, 124 + len(pixels), len(WIDE))
    return data[:10] + struct.pack("<I", 138) + bytes(header) + pixels + WIDE


def webp_chunk() -> bytes:
    data = saved("WEBP", xmp=XMP)
    more = b"oURs" + struct.pack("<I", 8) + b"a block."
    return data[:4] + struct.pack("<I", len(data) - 8 + len(more)) + data[8:] + more


def pfm(pixels: np.ndarray) -> bytes:
    return b"PF\n# a comment\n96 80\n-1.0\n" + pixels[::-1].astype("<f4").tobytes()


def dng(*tags: tuple[int, int, int, object]) -> bytes:
    """A RAW file with more tags."""
    path = Path("a.dng")
    write_raw(path, np.ascontiguousarray(skimage.data.astronaut()[:128, 100:228]), *tags)
    return path.read_bytes()


INDEXED = PIL.Image.fromarray(PHOTO).quantize(64)
SEEN = np.dstack([PHOTO, ALPHA])

EXAMPLES: dict[str, dict[str, Callable[[], bytes]]] = {
    ".png": {
        "profile": lambda: saved("PNG", icc_profile=WIDE),
        "EXIF": lambda: saved("PNG", exif=exif()),
        "XMP": lambda: chunks((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP)),
        "resolution": lambda: saved("PNG", dpi=(300, 150)),
        "texts": lambda: chunks((b"tEXt", b"Title\0a title"), (b"iTXt", b"Who\0\0\0de\0Wer\0ich")),
        "transparency": lambda: saved("PNG", SEEN),
        "palette": lambda: saved("PNG", INDEXED),
        "16 bits": lambda: imagecodecs.png_encode(DEEP),
        "colour codes": lambda: chunks((b"cICP", bytes((9, 16, 0, 1)))),
        "gamma": lambda: chunks((b"gAMA", struct.pack(">I", 100000))),
        "other blocks": lambda: chunks((b"prVt", b"a block")),
    },
    ".jpg": {
        "profile": lambda: saved("JPEG", icc_profile=WIDE),
        "EXIF": lambda: saved("JPEG", exif=exif(">")),
        "XMP": lambda: saved("JPEG", xmp=XMP),
        "IPTC": lambda: segment(0xED, b"Photoshop 3.0\0" + PHOTOSHOP),
        "comment": lambda: saved("JPEG", comment=b"a comment"),
        "resolution": lambda: saved("JPEG", dpi=(300, 150)),
        "CMYK": lambda: saved("JPEG", PIL.Image.fromarray(PHOTO).convert("CMYK")),
        "gain map": lambda: multi(b'<x hdrgm:Version="1.0" a:HDRGainMapVersion="1"/>'),
        "second picture": multi,
        "film": lambda: saved("JPEG") + FILM,
        "other blocks": lambda: segment(0xE4, b"a block"),
    },
    ".webp": {
        "profile": lambda: saved("WEBP", icc_profile=WIDE),
        "EXIF": lambda: saved("WEBP", exif=exif()),
        "XMP": lambda: saved("WEBP", xmp=XMP),
        "transparency": lambda: saved("WEBP", SEEN, lossless=True),
        "other blocks": webp_chunk,
    },
    ".bmp": {
        "profile": bmp_with_profile,
        "resolution": lambda: saved("BMP", dpi=(300, 150)),
        "palette": lambda: saved("BMP", INDEXED),
    },
    ".ppm": {
        "comment": lambda: b"P6\n# a comment\n96 80\n255\n" + PHOTO.tobytes(),
        "16 bits": lambda: b"P6\n96 80\n65535\n" + DEEP.astype(">u2").tobytes(),
    },
    ".tif": {
        "profile": lambda: tiff(iccprofile=WIDE),
        "EXIF": lambda: saved("TIFF", exif=exif()),
        "XMP": lambda: tiff(extratags=[(700, 1, len(XMP), XMP, True)]),
        "IPTC": lambda: tiff(extratags=[(33723, 7, len(IPTC), IPTC, True)]),
        "resolution": lambda: tiff(resolution=(300, 150), resolutionunit="inch"),
        "texts": lambda: tiff(description="a title", datetime="2001:02:03 04:05:06"),
        "transparency": lambda: tiff(SEEN, extrasamples=["unassalpha"]),
        "palette": lambda: saved("TIFF", INDEXED),
        "CMYK": lambda: saved("TIFF", PIL.Image.fromarray(PHOTO).convert("CMYK")),
        "16 bits": lambda: tiff(DEEP),
        "float": lambda: tiff(FLOAT),
        "highlights": lambda: tiff(BRIGHT),
        "other blocks": lambda: tiff(SEEN, extrasamples=["unspecified"]),
    },
    ".avif": {
        "profile": lambda: saved("AVIF", icc_profile=WIDE),
        "EXIF": lambda: saved("AVIF", exif=exif()),
        "XMP": lambda: saved("AVIF", xmp=XMP),
        "transparency": lambda: saved("AVIF", SEEN),
        "16 bits": deep_avif,
        "colour codes": lambda: deep_avif(PQ),
        "gain map": lambda: saved("AVIF", exif=exif()).replace(b"Exif\0\0\0\0", b"tmap\0\0\0\0", 1),
        "other blocks": lambda: saved("AVIF").replace(
            b"pixi\0\0\0\0\3\x08\x08\x08", b"pasp" + struct.pack(">II", 2, 1)
        ),
    },
    ".heic": {
        "profile": lambda: heic(icc_profile=WIDE),
        "EXIF": lambda: heic(exif=exif()),
        "XMP": lambda: heic(xmp=XMP),
        "transparency": lambda: heic(SEEN),
        "16 bits": lambda: heic(DEEP),
        "colour codes": lambda: heic(DEEP, **nclx(PQ)),
        "gain map": lambda: heic(SEEN).replace(b"urn:mpeg:hevc:2015:auxid:1", GAIN_MAP),
        "second picture": two_heic,
        "film": lambda: heic() + box(b"mpvd", FILM),
        "other blocks": lambda: heic() + box(b"uuid", bytes(16) + b"a block"),
    },
    ".jp2": {
        "profile": lambda: jp2(PHOTO, header=b"\2\0\0" + WIDE),
        "EXIF": lambda: jp2(PHOTO, box(b"uuid", b"JpgTiffExif->JP2" + exif()[6:])),
        "XMP": lambda: jp2(PHOTO, box(b"uuid", XMP_UUID + XMP)),
        "IPTC": lambda: jp2(PHOTO, box(b"uuid", IPTC_UUID + IPTC)),
        "comment": jp2_comment,
        "resolution": lambda: jp2(PHOTO, header=box(b"res ", box(b"resc", DENSITY))),
        "transparency": lambda: jp2(SEEN),
        "palette": jp2_palette,
        "16 bits": lambda: jp2(DEEP),
        "other blocks": lambda: jp2(PHOTO, box(b"xml ", b"<x>a block</x>")),
    },
    ".jxl": {
        "EXIF": lambda: jxl(PHOTO, box(b"Exif", bytes(4) + exif()[6:])),
        "XMP": lambda: jxl(PHOTO, box(b"xml ", XMP)),
        "transparency": lambda: jxl(SEEN),
        "16 bits": lambda: jxl_deep(),
        "gain map": lambda: jxl(PHOTO, box(b"jhgm", b"a gain map")),
        "other blocks": lambda: jxl(PHOTO, box(b"oURs", b"a block")),
    },
    ".gif": {
        "XMP": lambda: saved("GIF", INDEXED)[:-1] + XMP_IN_GIF + b";",
        "comment": lambda: saved("GIF", INDEXED, comment=b"a comment"),
        "transparency": lambda: saved("GIF", INDEXED, transparency=3),
        "palette": lambda: saved("GIF", INDEXED),
    },
    ".pfm": {
        "comment": lambda: pfm(FLOAT),
        "float": lambda: pfm(FLOAT),
        "highlights": lambda: pfm(BRIGHT),
    },
    ".dng": {
        "EXIF": lambda: dng((271, 2, 9, "a camera")),
        "XMP": lambda: dng((700, 1, len(XMP), XMP)),
        "IPTC": lambda: dng((33723, 7, len(IPTC), IPTC)),
        "other blocks": lambda: dng((34377, 1, len(RESOURCES), RESOURCES)),
        "texts": lambda: dng((270, 2, 8, "a title")),
    },
}
XMP_IN_GIF = b"\x21\xff\x0bXMP DataXMP" + XMP + b"\1" + bytes(range(255, -1, -1)) + b"\0"
GAIN_MAP = b"urn:com:apple:photo:aux:gm"
XMP_UUID = bytes.fromhex("be7acfcb97a942e89c71999491e3afac")
IPTC_UUID = bytes.fromhex("33c7a4d2b81d4723a0baf1a3e097ad38")
DENSITY = struct.pack(">HHHHbb", 5906, 1, 1181, 1, 0, 1)


def jxl_deep() -> bytes:
    write_image(Path("deep.jxl"), DEEP)  # imagecodecs alone says that 16 bits are linear
    return Path("deep.jxl").read_bytes()


# ---- how results are made and looked at ----------------------------------------------------------


def copied(picture: Picture, path: Path) -> list[str]:
    """Write a picture; return the lines that are said of it."""
    lines: list[str] = []
    write_image(path, picture.pixels, picture.alpha, picture.attrs, warn=lines.append)
    return lines


def stored(path: Path) -> np.ndarray:
    """The values in a file, from 0 to 1."""
    if path.suffix == ".heic":
        image = pytest.importorskip("pillow_heif").open_heif(path, convert_hdr_to_8bit=False)
        return np.asarray(image) / 65535
    if path.suffix == ".ppm":
        return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:, :, ::-1] / 65535
    data = path.read_bytes()
    if path.suffix == ".avif":
        return imagecodecs.avif_decode(data) / 1023
    return DECODERS[path.suffix](data) / 65535


def tags(path: Path) -> PIL.Image.Exif:
    """The EXIF tags of a file, by Pillow; where it does not know the container, from the bytes."""
    return exif_block(path) if path.suffix in (".jxl", ".jp2") else opened(path).getexif()


def info(path: Path) -> dict[str, object]:
    return opened(path).info


def codes(path: Path) -> tuple[int, ...]:
    data = path.read_bytes()
    if path.suffix == ".png":
        return (*data[data.index(b"cICP") + 4 :][:2],)
    return struct.unpack_from(">HH", data, data.rindex(b"colrnclx") + 8)


def second(path: Path) -> np.ndarray:
    image = PIL.Image.open(path)
    image.seek(1)
    return np.asarray(image)


def has(*texts: bytes) -> Callable[[Path], bool]:
    return lambda path: all(text in path.read_bytes() for text in texts)


def has_exif(path: Path) -> bool:
    found = tags(path)
    inner, place = found.get_ifd(34665), found.get_ifd(34853)
    raw = path.name.startswith("dng")  # in which the example has no more
    return found[271] == "a camera" and (raw or (b"a remark" in inner[37510] and place[1] == "N"))


def has_profile(path: Path) -> bool:
    return WIDE in path.read_bytes() if path.suffix == ".jp2" else info(path)["icc_profile"] == WIDE


def has_xmp(path: Path) -> bool:
    if path.suffix == ".tif":
        return opened(path).tag_v2[700] == XMP
    if path.suffix in (".jp2", ".jxl"):
        return XMP in path.read_bytes()
    return info(path)["xmp"] in (XMP, XMP.decode())


def has_iptc(path: Path) -> bool:
    if path.suffix == ".tif":
        return tifffile.TiffFile(path).pages[0].tags[33723].value == IPTC
    if path.suffix == ".jpg":
        return info(path)["photoshop"][0x0404] == IPTC
    return IPTC_UUID + IPTC in path.read_bytes()


def has_alpha(path: Path) -> bool:
    if path.suffix == ".jxl":
        return bool((imagecodecs.jpegxl_decode(path.read_bytes())[:, :, 3:] == ALPHA).all())
    alpha = np.asarray(opened(path).convert("RGBA"))[:, :, 3:]
    if path.name.startswith("gif"):
        return bool((alpha[:, :, 0] == np.where(np.asarray(INDEXED) == 3, 0, 255)).all())
    return error(alpha, ALPHA) < 1


def has_texts(path: Path) -> bool:
    if path.suffix == ".png":
        return info(path)["Title"] == "a title" and info(path)["Who"] == "ich"
    found = tags(path)
    return found[270] == "a title" and found.get(306, "2001:02:03 04:05:06")[:4] == "2001"


KEPT: dict[str, Callable[[Path], bool]] = {
    "profile": has_profile,
    "EXIF": has_exif,
    "XMP": has_xmp,
    "IPTC": has_iptc,
    "comment": has(b"a comment"),
    "resolution": lambda path: np.allclose(info(path)["dpi"], (300, 150), atol=0.05),
    "texts": has_texts,
    "transparency": has_alpha,
    "16 bits": lambda path: error(stored(path), DEEP / 65535) < LOSSES.get(path.suffix, 1e-6),
    "float": lambda path: bool((tifffile.imread(path) == FLOAT).all()),
    "highlights": lambda path: np.allclose(tifffile.imread(path), BRIGHT, atol=1e-6),
    "colour codes": lambda path: codes(path) == PQ[:2],
    "gamma": lambda path: info(path)["gamma"] == 1 and "icc_profile" not in info(path),
    "gain map": lambda path: has(b"a gain map")(path) or error(second(path), PHOTO[::-1]) < 5,
    "second picture": lambda path: error(second(path), PHOTO[::-1]) < 5,
    "film": lambda path: path.read_bytes().endswith(FILM),
    "other blocks": has(b"a block"),
}
"""Whether a result has what the example has."""

LOSSES = {".avif": 0.02, ".heic": 0.02}

SAID = {
    "profile": "colour profile (colours are converted to sRGB)",
    "IPTC": "IPTC data",
    "CMYK": "CMYK colours",
    "float": "float values",
    "highlights": "values beyond 0 and 1",
    ".avif gain map": "gain map",
    ".heic gain map": "auxiliary picture",
    ".heic second picture": "other pictures",
    ".webp other blocks": "oURs chunk",
    ".heic other blocks": "uuid box",
    ".avif other blocks": "aspect ratio of pixels",
    ".tif other blocks": "channel of unstated meaning",
}
"""What a line calls a thing, if not as the table does."""


# ---- the table -----------------------------------------------------------------------------------


def cells() -> list[tuple[str, str, str]]:
    """The suffix, thing and content of every cell of the table in the docs."""
    page = (ROOT / "docs/formats.md").read_text().split("<!-- carried -->")[1]
    table = page.split("<!-- end")[0].split("\n\n")[1]
    (_, *things), _, *rows = (line.strip("| ").split(" | ") for line in table.splitlines())
    return [
        (suffix.strip("`"), thing, cell)
        for suffix, *row in rows
        for thing, cell in zip(things, row, strict=True)
    ]


CELLS = cells()


def test_the_table_has_every_format() -> None:
    suffixes = {BY_SUFFIX[suffix].suffixes for suffix, _, _ in CELLS}
    assert suffixes >= {BY_SUFFIX[suffix].suffixes for suffix in WRITTEN_SUFFIXES}
    filled = {(suffix, thing) for suffix, thing, cell in CELLS if cell != "-"}
    assert filled == {(suffix, thing) for suffix, made in EXAMPLES.items() for thing in made}
    assert {cell for *_, cell in CELLS} == {"kept", "line", "-"}


@pytest.mark.parametrize(
    ("suffix", "thing", "cell"),
    [cell for cell in CELLS if cell[2] != "-"],
    ids=lambda value: value.strip("."),
)
def test_a_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, thing: str, cell: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if suffix == ".dng":
        pytest.importorskip("rawpy")
    source = Path(f"source{suffix}")
    source.write_bytes(EXAMPLES[suffix][thing]())
    picture, result = read_image(source), Path(f"{suffix[1:]}{written_suffix(suffix)}")
    assert_described(read_image(source, decoded=False), picture)
    lines = copied(picture, result)
    if cell == "kept":
        assert KEPT[thing](result)
    said = SAID.get(f"{suffix} {thing}", SAID.get(thing, thing))
    assert any(said in line for line in lines) == (cell == "line")
    assert len(lines) <= 1 and all(line.startswith(f"{result}: ") for line in lines)


def assert_described(outline: Picture, picture: Picture) -> None:
    """What is read of a file without its pixels is all but these."""
    assert outline.pixels.shape == picture.pixels.shape
    assert outline.pixels.dtype == picture.pixels.dtype
    assert (outline.alpha is None) == (picture.alpha is None)
    assert outline.pixels.strides == (0, 0, 0)
    stated = {key: value for key, value in picture.attrs.items() if key != "beyond"}
    np.testing.assert_equal(outline.attrs, stated)


HELD = ("profile", "EXIF", "XMP", "IPTC", "comment", "resolution", "transparency")


@pytest.mark.parametrize("suffix", [suffix for suffix in EXAMPLES if suffix in WRITTEN_SUFFIXES])
def test_what_another_format_has_comes_along_or_is_named(tmp_path: Path, suffix: str) -> None:
    path, lines = tmp_path / f"a{suffix}", list[str]()
    blocks = {"icc_profile": WIDE, "exif": exif(), "xmp": XMP, "photoshop": PHOTOSHOP}
    blocks |= {"comment": b"a comment"}
    attrs = {name: np.frombuffer(data, np.uint8) for name, data in blocks.items()}
    attrs |= {"resolution": np.array([300, 150, 0.0254]), "left_out": "film"}
    attrs |= {"extras": np.zeros(4, np.uint8), "extras_of": ".xyz", "extras_names": "texts, dust"}
    write_image(path, PHOTO, ALPHA, attrs, warn=lines.append)
    named = SAID | {thing: SAID.get(thing, thing) for thing in HELD}
    lost = {thing for thing in HELD if named[thing] in lines[0]}
    for thing in {*HELD} - lost:
        assert KEPT[thing](path)
    assert len(lines) == 1 and "film" in lines[0] and "texts, dust" in lines[0]


ANIMATIONS = {
    ".png": (PIL.PngImagePlugin.PngInfo(), {"icc_profile": WIDE}),
    ".gif": (None, {"comment": b"a comment"}),
    ".webp": (None, {"icc_profile": WIDE, "exif": exif(), "xmp": XMP, "lossless": True}),
    ".avif": (None, {"icc_profile": WIDE, "xmp": XMP}),
}


@pytest.mark.parametrize("suffix", ANIMATIONS)
def test_what_animations_carry(tmp_path: Path, suffix: str) -> None:
    texts, options = ANIMATIONS[suffix]
    if texts is not None:
        texts.add_text("Title", "a title")
        options |= {"pnginfo": texts}
    source, lines = make_animation(tmp_path / f"a{suffix}", **options), list[str]()
    for result in (tmp_path / f"b{suffix}", tmp_path / "c.gif"):
        lines += copy(source, result)
        first, again = opened(source), opened(result)
        assert again.n_frames == first.n_frames == 5
        kept = {"icc_profile", "exif", "xmp", "comment", "Title"}.intersection(first.info)
        if result.suffix == suffix:
            assert all(again.info[name] == first.info[name] for name in kept)
            frames = (np.asarray(image.convert("RGB")) for image in (first, again))
            assert suffix != ".webp" or error(*frames) == 0
    assert len(lines) == (suffix != ".gif") and all("c.gif" not in line for line in lines)
    assert suffix == ".gif" or "colour profile (colours are converted to sRGB)" in lines[0]


def test_tags_of_an_animation_as_a_film_are_named(tmp_path: Path) -> None:
    source = make_animation(tmp_path / "a.avif")
    data = source.read_bytes()
    place = data.index(b"moov") - 4
    (size,) = struct.unpack_from(">I", data, place)
    film = box(b"moov", data[place + 8 : place + size] + box(b"udta", box(b"auth", bytes(8))))
    data = data.replace(b"moov", b"free", 1)  # no place of pixels changes
    source.write_bytes(data + film + box(b"uuid", bytes(16) + XMP))
    (line,) = copy(source, tmp_path / "b.avif")
    assert "uuid box" in line and "tags of a film" in line


@pytest.mark.parametrize("photoshop", [b"", RESOURCES], ids=["none", "other"])
def test_iptc_of_a_tiff_is_where_it_was(tmp_path: Path, photoshop: bytes) -> None:
    path, result = tmp_path / "a.tif", tmp_path / "b.tif"
    held = [(33723, 7, IPTC), (34377, 1, photoshop)] if photoshop else [(33723, 7, IPTC)]
    path.write_bytes(tiff(extratags=[(tag, kind, len(d), d, True) for tag, kind, d in held]))
    copied(read_image(path), result)
    with tifffile.TiffFile(result) as file:
        found = file.pages[0].tags
        assert found[33723].value == IPTC and (34377 in found) == bool(photoshop)
        assert not photoshop or found[34377].value.startswith(photoshop)


def tagged(*tags: int) -> bytes:
    """A TIFF file with some tags of the EXIF block of the examples."""
    block = PIL.Image.Exif()
    for tag in tags:
        block[tag] = {271: "a camera", 37510: b"ASCII\0\0\0a remark", 1: "N"}[tag]
    return block.tobytes()[6:]


CANON = box(b"CMT1", tagged(271)) + box(b"CMT2", tagged(37510)) + box(b"CMT4", tagged(1))
PREVIEW = saved("JPEG", exif=exif(">"))
RAW = {
    "nef": exif(">")[6:],
    "orf": b"IIRO" + exif()[10:],
    "rw2": b"IIU\0" + exif()[10:],
    "cr3": box(b"ftyp", b"crx \0\0\0\1") + box(b"moov", box(b"uuid", bytes(16) + CANON)),
    "raf": b"FUJIFILMCCD-RAW ".ljust(84) + struct.pack(">I", 100) + bytes(12) + PREVIEW,
}


@pytest.mark.parametrize("suffix", RAW)
def test_every_kind_of_raw_file_gives_its_tags(suffix: str) -> None:
    """Whose pixels LibRaw reads."""
    block = PIL.Image.Exif()
    block.load(raw_metadata(io.BytesIO(RAW[suffix])).exif)
    assert block[271] == "a camera" and 274 not in block
    assert b"a remark" in block.get_ifd(34665)[37510] and block.get_ifd(34853)[1] == "N"


@pytest.mark.parametrize("bits", [5, 8])
def test_fewer_significant_bits_are_named(tmp_path: Path, bits: int) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(chunks((b"sBIT", bytes((bits,)) * 3)))
    assert ("significant bits" in read_image(path).attrs.get("left_out", "")) == (bits < 8)


def test_what_is_too_large_for_a_segment_is_named(tmp_path: Path) -> None:
    block = PIL.Image.Exif()
    block[274] = 6
    block.get_ifd(34665)[37500] = bytes(90_000)
    (tmp_path / "a.png").write_bytes(saved("PNG", exif=block))
    (line,) = copied(read_image(tmp_path / "a.png"), tmp_path / "b.jpg")
    assert "source's EXIF did not" in line
    assert error(np.asarray(opened(tmp_path / "b.jpg")), np.rot90(PHOTO, -1)) < 4
