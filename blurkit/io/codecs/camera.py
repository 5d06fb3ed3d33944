"""Files of cameras: RAW (developed to 16-bit sRGB) and HEIC, by optional libraries."""

import io
from typing import Any, BinaryIO

import numpy as np

from blurkit.errors import BlurkitError, silenced
from blurkit.io.codecs import exif
from blurkit.io.codecs.jpeg import boxes, other_boxes
from blurkit.io.codecs.metadata import Metadata, divided, with_iptc
from blurkit.io.codecs.pillow import QUALITY
from blurkit.io.paths import check_claim
from blurkit.io.records import Image, full_range, hollow


def read_raw(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return a RAW photo (H, W, 3), uint16 and upright, with the camera's white balance.

    Raises BlurkitError if it claims too many pixels or is none that LibRaw reads.
    """
    import rawpy

    with silenced(2):  # LibRaw itself prints what it then raises
        try:
            raw = rawpy.imread(file)
        except rawpy.LibRawFileUnsupportedError as error:
            raise BlurkitError(f"{where}: is not a RAW file that LibRaw reads") from error
        with raw:
            check_claim(raw.sizes.height, raw.sizes.width, 16, file.seek(0, 2), where)
            if decoded:  # by sRGB's gamma; LibRaw would make a hundredth of all pixels white
                pixels = raw.postprocess(
                    use_camera_wb=True, output_bps=16, gamma=(2.4, 12.92), auto_bright_thr=0.001
                )
            else:
                size = raw.sizes.iheight, raw.sizes.iwidth
                turned = size[::-1] if raw.sizes.flip in (5, 6) else size
                pixels = hollow((*turned, 3), np.uint16)
    return pixels, raw_metadata(file)


DESCRIPTIVE = (
    *(270, 271, 272, 305, 306, 315, 316, 18246, 18249, 33432, *range(40091, 40096), 50708),
    *exif.DIRECTORIES,
)
"""Tags of a RAW file that are true of the developed picture, too."""

CANON_DIRECTORIES = ((b"CMT1", 0), (b"CMT2", exif.EXIF_TAG), (b"CMT4", exif.GPS_TAG))
"""Boxes of a CR3 file, and the tag of the directory in each."""

FUJI_PREVIEW = 84
"""The place in a RAF file that has the place of its preview, a JPEG with the metadata."""


def raw_metadata(file: BinaryIO) -> Metadata:
    """Return the metadata of a RAW file whose pixels are developed and upright."""
    file.seek(0)
    head = file.read(FUJI_PREVIEW + 4)
    if head.startswith(b"FUJIFILM"):
        file.seek(int.from_bytes(head[FUJI_PREVIEW:], "big"))
        _, _, stored = file.read(1 << 17).partition(exif.EXIF_HEADER)
        directory, order = exif.first_directory(io.BytesIO(stored))
    elif head[4:8] == b"ftyp":
        directory, order = _of_canon(file)
    elif head[:2] in (b"II", b"MM"):
        directory, order = exif.first_directory(file)
    else:
        return Metadata(lost="EXIF")
    tags = exif.XMP_TAG, exif.PHOTOSHOP_TAG, exif.IPTC_TAG
    xmp, photoshop, iptc = (exif.content_of(directory, tag) for tag in tags)
    described = exif.block({t: directory[t] for t in DESCRIPTIVE if t in directory}, order)
    return Metadata(exif=exif.revised(described), xmp=xmp, photoshop=with_iptc(photoshop, iptc))


def _of_canon(file: BinaryIO) -> tuple[exif.Directory, str]:
    """Return the directories of a CR3 file as one, and their byte order."""
    file.seek(0)
    data, directory, order = file.read(1 << 20), exif.Directory(), ""
    for name, tag in CANON_DIRECTORIES:
        if (place := data.find(name)) >= 0:
            found, order = exif.first_directory(io.BytesIO(data[place + 4 :]))
            directory |= {tag: found} if tag else found
    return directory, order


# ---- HEIC and HEIF -------------------------------------------------------------------------------


def read_heif(file: BinaryIO, where: str, decoded: bool = True) -> tuple[np.ndarray, Metadata]:
    """Return the pixels of the main image, already upright, and its metadata.

    10 and 12 bits become 16. Raises BlurkitError if the image claims too many pixels.
    """
    import pillow_heif

    opened = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    image = opened[opened.primary_index]
    check_claim(image.size[1], image.size[0], 24, file.seek(0, 2), where)
    info: dict[str, Any] = dict(image.info)
    bits, (width, height) = info["bit_depth"], image.size
    if decoded:
        pixels = full_range(np.asarray(image), bits)
    else:
        channels = len(image.mode.partition(";")[0])
        pixels = hollow((height, width, channels), np.uint16 if bits > 8 else np.uint8)
    if image.premultiplied_alpha and decoded:
        pixels = divided(pixels)
    file.seek(0)
    data = file.read()
    nclx = info.get("nclx_profile")
    codes: Any = tuple(int(nclx[name]) for name in NCLX) if nclx else None
    auxiliary = [
        "gain map" if name in GAIN_MAPS else "auxiliary picture" for name in info.get("aux", {})
    ]
    lost = {
        **dict.fromkeys(auxiliary, True),
        "depth map": info.get("depth_images"),
        "other pictures": len(opened) > 1,
        "film": any(kind in (b"mpvd", b"moov") for kind, _ in boxes(data)),
        **dict.fromkeys(other_boxes(data), True),
        "light levels": LIGHT_LEVELS & info.keys(),
    }
    return pixels, Metadata(
        info.get("icc_profile") or b"",
        exif.revised(exif.with_header(info.get("exif"))),
        subsampling=CHROMA.index(info["chroma"]) if info.get("chroma") in CHROMA else None,
        xmp=info.get("xmp") or b"",
        cicp=codes,
        bits=bits if bits > 8 else None,
        lost=", ".join(name for name, found in lost.items() if found),
    )


CHROMA = (444, 422, 420)
"""pillow_heif's numbers of the chroma formats, in the order of `Metadata.subsampling`."""

NCLX = ("color_primaries", "transfer_characteristics", "matrix_coefficients", "full_range_flag")
"""pillow_heif's names of the codes of colours, in the order of `Metadata.cicp`."""

GAIN_MAPS = {"urn:com:apple:photo:2020:aux:hdrgainmap", "urn:iso:std:iso:ts:21496:-1"}

LIGHT_LEVELS = {"content_light_level", "mastering_display_colour_volume"}


def write_heif(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4), 16 bits as 10 or 12; libheif applies the EXIF's orientation."""
    import pillow_heif

    height, width, channels = pixels.shape
    mode = ("L", "LA", "RGB", "RGBA")[channels - 1] + (";16" if pixels.dtype == np.uint16 else "")
    data = np.ascontiguousarray(pixels).tobytes()
    known = {"exif": metadata.exif, "icc_profile": metadata.icc, "xmp": metadata.xmp}
    stated: dict[str, Any] = {name: value for name, value in known.items() if value}
    if metadata.cicp:
        stated |= dict(zip(NCLX, metadata.cicp, strict=True))
    pillow_heif.options.SAVE_HDR_TO_12_BIT = metadata.bits != 10
    # Chroma is as small as in the source, since many devices show 4:2:0 alone.
    stated |= {"quality": quality or QUALITY, "chroma": CHROMA[metadata.subsampling or 0]}
    speed = {"preset": "fast"}  # half the time of x265's default, files larger by a hundredth
    pillow_heif.encode(mode, (width, height), data, file, enc_params=speed, **stated)
