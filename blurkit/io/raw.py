"""RAW files of cameras, developed to 16-bit sRGB: `pip install 'blurkit[raw]'`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np

from blurkit.errors import BlurkitError
from blurkit.io.limits import check_pixels
from blurkit.io.metadata import Metadata

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
            check_pixels(raw.sizes.height, raw.sizes.width, where)
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
