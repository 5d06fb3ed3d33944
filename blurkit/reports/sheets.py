"""The contact sheet of `prepare`: prepared pairs, each with a description of its blur."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from blurkit.errors import UsageError
from blurkit.io.formats import is_written
from blurkit.io.images import write_image
from blurkit.io.records import Image, Record, central_crop
from blurkit.io.writing import refuse_existing
from blurkit.reports.frames import contact_sheet
from blurkit.reports.pictures import side_by_side

MOST_PAIRS = 24
PAIRS_IN_A_ROW = 3
SIDE = 256


class PairSheet:
    """Collects the first sharp and blurry pairs and writes them as one picture.

    The sheet shows the centre of each image, at most 256 pixels square and not scaled down, because
    that would hide the blur. Raises UsageError if `path` is not an image file, and BlurkitError if
    it exists and `force` is not set.
    """

    def __init__(self, path: Path, force: bool = False) -> None:
        if not is_written(path):
            raise UsageError(f"--sheet {path}: name an image file, such as sheet.png")
        refuse_existing(path, force)
        self._path, self._force = path, force
        self._pairs: list[Image] = []
        self._captions: list[str] = []

    def add(self, record: Record) -> None:
        """Add a record if it is a pair and the sheet is not full."""
        if len(self._pairs) < MOST_PAIRS and {"blur", "sharp"} <= record.images.keys():
            both = (central_crop(record.images[k], SIDE, SIDE) for k in ("sharp", "blur"))
            self._pairs.append(side_by_side(list(both)))
            self._captions.append(caption(record))

    def finish(self) -> None:
        """Write the picture, if any pair was added."""
        if self._pairs:
            sheet = contact_sheet(self._pairs, self._captions, PAIRS_IN_A_ROW)
            write_image(self._path, sheet, force=self._force)


def caption(record: Record) -> str:
    """Return one line on how a record was blurred; it starts with the name of a real pair.

    Noise is given in grey levels of 255, at mid-grey.
    """
    attrs = record.attrs
    parts = [record.name]
    if "blur_kind" in attrs:
        parts = [f"{attrs['blur_kind']} {attrs['blur_extent']:.0f} px"]
    if np.isfinite(attrs.get("psnr_blur", np.nan)):
        parts.append(f"{attrs['psnr_blur']:.1f} dB")
    gamma = attrs.get("gamma", 2.2)
    variance = attrs.get("noise", 0) ** 2 + attrs.get("blur_shot", 0) * 0.5**gamma
    slope = 0.5 ** (1 - gamma) / gamma  # of the curve from light to pixel values
    for template, value in (
        ("defocus {:.1f}", attrs.get("blur_defocus", 0)),
        ("highlights x{:.1f}", attrs.get("blur_highlights", 0)),
        ("noise {:.1f}", 255 * slope * variance**0.5),
        ("JPEG {}", attrs.get("blur_jpeg", 0)),
    ):
        if value:
            parts.append(template.format(value))
    return ", ".join(parts)
