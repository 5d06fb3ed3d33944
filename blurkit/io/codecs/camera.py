"""Files of cameras: RAW (developed to 16-bit sRGB) and HEIC, by optional libraries."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.codecs.metadata import Metadata, as_upright, with_header
from blurkit.io.codecs.pillow import QUALITY
from blurkit.io.paths import check_claim
from blurkit.io.records import Image, full_range

SRGB_GAMMA = (2.4, 12.92)

CLIPPED = 0.001
"""The fraction of pixels that may become white when a picture is brightened; LibRaw's is 0.01."""


def read_raw(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return a RAW photo (H, W, 3), uint16 and upright, with the camera's white balance.

    Raises BlurkitError if it claims too many pixels or is none that LibRaw reads.
    """
    import rawpy

    with _silent():
        try:
            raw = rawpy.imread(file)
        except rawpy.LibRawFileUnsupportedError as error:
            raise BlurkitError(f"{where}: is not a RAW file that LibRaw reads") from error
        with raw:
            check_claim(raw.sizes.height, raw.sizes.width, 16, file.seek(0, 2), where)
            pixels = raw.postprocess(
                use_camera_wb=True, output_bps=16, gamma=SRGB_GAMMA, auto_bright_thr=CLIPPED
            )
    return pixels, Metadata()


@contextmanager
def _silent() -> Iterator[None]:
    """Discard what is written to standard error: LibRaw itself prints what it then raises."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


# ---- HEIC and HEIF -------------------------------------------------------------------------------

PRESET = "fast"
"""x265's: half the time of its default, with files larger by a hundredth."""


def read_heif(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels of the main image, already upright, and its metadata.

    10 and 12 bits become 16. Raises BlurkitError if the image claims too many pixels.
    """
    import pillow_heif

    image = pillow_heif.open_heif(file, convert_hdr_to_8bit=False, hdr_to_16bit=False)
    check_claim(image.size[1], image.size[0], 24, file.seek(0, 2), where)
    pixels = np.asarray(image)
    if pixels.dtype == np.uint16:
        pixels = full_range(pixels, image.info["bit_depth"])
    exif = as_upright(with_header(image.info.get("exif")))
    return pixels, Metadata(image.info.get("icc_profile") or b"", exif)


def write_heif(file: BinaryIO, pixels: Image, metadata: Metadata, quality: int | None) -> None:
    """Write pixels (H, W, 1 to 4), 16 bits as 12; libheif applies the orientation in the EXIF."""
    import pillow_heif

    height, width, channels = pixels.shape
    mode = ("L", "LA", "RGB", "RGBA")[channels - 1] + (";16" if pixels.dtype == np.uint16 else "")
    pillow_heif.options.SAVE_HDR_TO_12_BIT = True
    data = np.ascontiguousarray(pixels).tobytes()
    known = {"exif": metadata.exif, "icc_profile": metadata.icc}
    stated = {name: value for name, value in known.items() if value}
    options = {"quality": quality or QUALITY, "chroma": 444, "enc_params": {"preset": PRESET}}
    pillow_heif.encode(mode, (width, height), data, file, **options, **stated)
