"""Contact sheets and animations of the frames of one picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from blurkit.errors import UsageError
from blurkit.io.formats import is_written
from blurkit.io.images import write_image
from blurkit.io.paths import is_folder
from blurkit.io.records import Image, Record, from_float, safe_name, to_float
from blurkit.io.sinks import Sink
from blurkit.io.writing import refuse_existing, replacing
from blurkit.reports.pictures import GAP, side_by_side

ANIMATIONS = (".gif", ".png", ".apng", ".webp")


class Animation(Sink):
    """Collects the frames of one picture and writes them as an animated GIF, PNG or WebP.

    Each frame is the first image in `show` that its record has. It is shown for `1 / fps` seconds,
    the first and the last frame four times as long, in an endless loop. Raises UsageError if `path`
    has another suffix, and BlurkitError if the file exists and `force` is not set.
    """

    def __init__(self, path: Path, show: Sequence[str], fps: float, force: bool = False) -> None:
        if path.suffix.lower() not in ANIMATIONS:
            raise UsageError(f"-o {path}: an animation is one of {' '.join(ANIMATIONS)}")
        refuse_existing(path, force)
        self._path, self._show, self._fps = path, show, fps
        self._name: str | None = None
        self._frames: list[Pillow.Image] = []

    def claim(self, record: Record) -> None:
        """Raise UsageError if the frame belongs to a second picture."""
        name = record.name.rpartition("/")[0]
        if self._name not in (None, name):
            raise UsageError(
                f"-o {self._path} is one animation, but there are several pictures; name a folder/"
            )
        self._name = name

    def write(self, record: Record) -> None:
        """Add a frame, rounded to 8 bits."""
        self._frames.append(Pillow.fromarray(_rgb(record.image(*self._show))))

    def path(self, record: Record) -> Path:
        """Return the animation, whatever the frame."""
        return self._path

    def finish(self) -> None:
        """Write the animation, whole or not at all; without frames, write nothing."""
        if not self._frames:
            return
        durations = [round(1000 / self._fps)] * len(self._frames)
        for end in {0, len(durations) - 1}:
            durations[end] *= 4
        first, *others = self._frames
        kind = {".gif": "GIF", ".webp": "WEBP"}.get(self._path.suffix.lower(), "PNG")
        # Lossless, because lossy compression would add to the blur that the animation shows.
        options = {"lossless": True} if kind == "WEBP" else {}
        with replacing(self._path) as partial:
            first.save(
                partial,
                format=kind,
                save_all=True,
                append_images=others,
                duration=durations,
                loop=0,
                **options,
            )


class ContactSheets:
    """Writes a contact sheet of the frames of each picture as soon as the next picture begins.

    `output` is an image file for a single picture, or a folder/ that gets a PICTURE.png for each.
    Each frame is the first image in `show` that its record has. Raises UsageError if `output` is
    neither, and BlurkitError if a file exists and `force` is not set.
    """

    def __init__(self, output: str, show: Sequence[str], force: bool = False) -> None:
        self._folder = Path(output) if is_folder(output) else None
        self._file, self._show, self._force = Path(output), show, force
        if self._folder is None and not is_written(self._file):
            raise UsageError(f"--sheet {output}: name an image, or a folder (end it with /)")
        if self._folder is None:
            refuse_existing(self._file, force)
        self._name: str | None = None
        self._images: list[Image] = []
        self._captions: list[str] = []

    def add(self, frame: Record) -> None:
        """Add the next frame.

        Raises UsageError if the frame belongs to a second picture and the output is a single file.
        Raises BlurkitError if the previous picture's sheet cannot be written; the frame is added
        all the same.
        """
        name = frame.name.rpartition("/")[0]
        if self._images and name != self._name and self._folder is None:
            raise UsageError(
                f"--sheet {self._file} is one file, but there are several pictures; name a folder/"
            )
        try:
            if name != self._name:
                self.finish()
        finally:
            self._name = name
            self._images.append(frame.image(*self._show))
            self._captions.append(f"{frame.attrs['amount']:.2f}")

    def finish(self) -> None:
        """Write the sheet of the current picture's frames, if there are any."""
        if not self._images:
            return
        path = self._file
        if self._folder is not None:
            path = self._folder / f"{safe_name(str(self._name))}.png"
        images, captions = self._images, self._captions
        self._images, self._captions = [], []
        write_image(path, contact_sheet(images, captions), force=self._force)


def contact_sheet(images: Sequence[Image], captions: Sequence[str], most: int = 7) -> Image:
    """Return images (H, W, C) in rows of at most `most`, each above its caption, as uint8 RGB."""
    font = ImageFont.load_default(size=max(12, images[0].shape[0] // 18))
    columns = math.ceil(len(images) / math.ceil(len(images) / most))
    captioned = [_captioned(i, text, font) for i, text in zip(images, captions, strict=True)]
    rows = [
        side_by_side(captioned[first : first + columns])
        for first in range(0, len(captioned), columns)
    ]
    width = max(row.shape[1] for row in rows)
    height = sum(row.shape[0] for row in rows) + GAP * (len(rows) - 1)
    sheet = np.full((height, width, 3), 255, np.uint8)
    top = 0
    for row in rows:
        sheet[top : top + row.shape[0], : row.shape[1]] = row
        top += row.shape[0] + GAP
    return sheet


def _captioned(
    image: Image, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> Image:
    right, bottom = (round(side) for side in font.getbbox(text)[2:])
    picture = _rgb(image)
    height, width = picture.shape[:2]
    canvas = Pillow.new("RGB", (width, height + bottom + GAP), "white")
    canvas.paste(Pillow.fromarray(picture))
    ImageDraw.Draw(canvas).text(((width - right) / 2, height + GAP / 2), text, "black", font)
    return np.asarray(canvas)


def _rgb(image: Image) -> Image:
    eight_bit = from_float(to_float(image), np.uint8)
    return np.repeat(eight_bit, 3, axis=2) if eight_bit.shape[2] == 1 else eight_bit
