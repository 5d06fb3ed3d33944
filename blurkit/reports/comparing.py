"""Before and after in one labelled picture, written beside each result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image as Pillow

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.image_sinks import ImageFile, ImageFolder, ImagesBeside
from blurkit.io.images import write_image
from blurkit.io.paths import comparison_path
from blurkit.io.records import Image, Record, to_float
from blurkit.io.sinks import Sink
from blurkit.io.writing import refuse_existing
from blurkit.metrics.scores import eight_bit
from blurkit.reports.frames import contact_sheet

Panels = dict[str, str]
"""The caption of each image of a record that is shown."""

RESTORED: Panels = {"blur": "before", "restored": "after", "sharp": "reference"}
REBLURRED: Panels = {"sharp": "before", "reblurred": "after", "blur": "real blur"}

PANEL_SIDE = 960
"""The longest side of a panel in pixels; of larger photos, a part is shown in full size below."""

STEP = 16
"""The grid in pixels on which the part that changed most is searched."""


class Comparing(Sink):
    """Writes records to another sink, and NAME.compare.jpg beside the file of each.

    Raises UsageError unless that sink writes image files.
    """

    def __init__(self, sink: Sink, panels: Panels, force: bool = False) -> None:
        if not isinstance(sink, (ImageFile, ImageFolder, ImagesBeside)):
            raise UsageError("--compare requires images as output: name an image or a folder/")
        self._sink, self._panels, self._force = sink, panels, force
        self._written: set[Path] = set()

    def path(self, record: Record) -> Path | None:
        """Return the file of the result."""
        return self._sink.path(record)

    def is_done(self, record: Record) -> bool:
        """Return whether an earlier run that is resumed has finished the result."""
        return self._sink.is_done(record)

    def claim(self, record: Record) -> None:
        """Raise BlurkitError if the result or its comparison could not be written."""
        self._sink.claim(record)
        self._comparison(record)

    def write(self, record: Record) -> None:
        """Write the result, then the comparison."""
        path = self._comparison(record)
        self._sink.write(record)
        attrs = {k: v for k, v in record.attrs.items() if k == "icc_profile"}
        write_image(path, before_after(record, self._panels), None, attrs, self._force)
        self._written.add(path)

    def finish(self) -> None:
        """Complete the results."""
        self._sink.finish()

    def abandon(self) -> None:
        """Remove unfinished results."""
        self._sink.abandon()

    def _comparison(self, record: Record) -> Path:
        """Return the comparison's file. Raises BlurkitError if it must not be written."""
        result = self._sink.path(record)
        assert result is not None
        path = comparison_path(result)
        if path in self._written:
            raise BlurkitError(f"{path}: the comparison of another result was written there")
        refuse_existing(path, self._force)
        return path


def before_after(record: Record, panels: Panels) -> Image:
    """Return the record's images among `panels` in one row with captions, as uint8 RGB.

    The first two captions state the sharpness if the record has been appraised. Photos with a side
    above 960 pixels are shrunk, and a second row shows the part that changed most at full size.
    Raises BlurkitError without the first two images.
    """
    roles = [role for role in panels if role in record.images]
    before, after = (eight_bit(record.image(role)) for role in list(panels)[:2])
    captions = [panels[role] for role in roles]
    for number, key in enumerate(("sharpness_before", "sharpness_after")):
        if key in record.attrs:
            captions[number] += f", sharpness {record.attrs[key]:.2f}"
    images = [eight_bit(record.images[role]) for role in roles]
    shown = [shrunk_to(image, PANEL_SIDE) for image in images]
    if max(before.shape[:2]) > PANEL_SIDE:
        part = most_changed(before, after, min(PANEL_SIDE, *before.shape[:2]))
        shown += [image[part] for image in images]
        captions += [f"{panels[role]}, part in full size" for role in roles]
    return contact_sheet(shown, captions, len(roles))


def shrunk_to(image: Image, longest: int) -> Image:
    """Return a uint8 image (H, W, C) whose longest side is at most `longest` pixels."""
    factor = longest / max(image.shape[:2])
    if factor >= 1:
        return image
    height, width = (max(1, round(side * factor)) for side in image.shape[:2])
    plain = image[:, :, 0] if image.shape[2] == 1 else image
    small = np.asarray(Pillow.fromarray(plain).resize((width, height), Pillow.Resampling.LANCZOS))
    return small[:, :, None] if image.shape[2] == 1 else small


def most_changed(before: Image, after: Image, side: int) -> tuple[slice, slice]:
    """Return the square of `side` pixels in which two images (H, W, C) differ most."""
    difference = np.abs(to_float(after) - to_float(before)).mean(axis=2)
    sums = np.pad(difference.cumsum(0, np.float64).cumsum(1), ((1, 0), (1, 0)))
    tops = np.arange(0, before.shape[0] - side + 1, STEP)[:, None]
    lefts = np.arange(0, before.shape[1] - side + 1, STEP)[None]
    ends = tops + side, lefts + side
    total = sums[ends] - sums[tops, ends[1]] - sums[ends[0], lefts] + sums[tops, lefts]
    row, column = np.unravel_index(total.argmax(), total.shape)
    top, left = int(row) * STEP, int(column) * STEP
    return slice(top, top + side), slice(left, left + side)
