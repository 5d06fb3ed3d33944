"""Netpbm files (PBM, PGM, PPM, PFM): Pillow reads them, except colours of 16 bits and of floats."""

from __future__ import annotations

import re
from typing import BinaryIO

import numpy as np

from blurkit.io.limits import check_pixels
from blurkit.io.metadata import Metadata
from blurkit.io.pillow import read_pillow
from blurkit.io.records import from_float

NETPBM_STARTS = (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PF")

_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEADER = re.compile(
    _GAP.join([rb"(P6|PF)", rb"(\d{1,9})", rb"(\d{1,9})", rb"([-+.\deE]{1,20})\s"])
)


def read_netpbm(file: BinaryIO, where: str) -> tuple[np.ndarray, Metadata]:
    """Return the pixels of the first picture: 8 or 16 bits, scaled to their range, or float32.

    Raises BlurkitError if it claims too many pixels, ValueError or OSError if it is damaged.
    """
    file.seek(0)
    header = _HEADER.match(file.read(4096))
    deep = header and header[1] == b"P6" and 255 < int(header[4]) < 65536
    if not header or (header[1] == b"P6" and not deep):
        return read_pillow(file, where, "PPM")
    width, height, most = int(header[2]), int(header[3]), float(header[4])
    check_pixels(height, width, where)
    kind = np.dtype(">u2" if deep else "<f4" if most < 0 else ">f4")
    file.seek(header.end())
    data = file.read(3 * height * width * kind.itemsize)
    pixels = np.frombuffer(data, kind).reshape(height, width, 3)
    if deep:
        return from_float(pixels / np.float32(most), np.uint16), Metadata()
    return pixels[::-1].astype(np.float32), Metadata()  # a PFM begins with its last row
