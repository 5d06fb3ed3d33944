"""Pictures of what the shipped weights do, of photos that may be shown.

They are of photos that scikit-image carries (CC0 or public domain), blurred by `blurkit prepare`:
those that the tables are measured on may not be passed on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import skimage.data

import blurkit
from blurkit.io.images import read_image, write_image
from blurkit.io.records import Image, Record
from blurkit.model import Model
from blurkit.reports.pictures import side_by_side
from tests.benchmarks.classical import METHODS, best, restored
from tests.benchmarks.measure import command, run

SIZE = ("--kernel-size", "9", "17", "--seed", "1")
BLURRED = {
    "shake": ("chelsea.png", 30, 110),
    "camera": ("astronaut.png", 20, 130),
    "objects": ("coffee.png", 70, 200),
}
"""By kind of blur, a photo, and the top and left of the part that is shown."""
LIMITS = (
    ("coffee.png", 60, 175, "realistic", "--kernel-size", "45", "60", "--seed", "3"),
    ("rocket.jpg", 187, 235, "realistic", "--kernel-size", "25", "35", "--highlights", "5"),
    ("astronaut.png", 20, 100, "objects", "--kernel-size", "35", "45", "--seed", "1"),
    ("chelsea.png", 0, 100, "defocus", "--kernel-size", "15", "21", "--noise", "0.004"),
)
"""What the weights cannot undo, likewise: a photo, top and left, the blur and its options."""
SHARP = ("rocket.jpg", 225, 260)
SHOWN = 200
"""The side of what is shown."""


def part(image: Image, top: int, left: int, side: int = SHOWN) -> Image:
    """A square part of an image."""
    return image[top : top + side, left : left + side]


def blurred(photo: str, *blur: str) -> Record:
    """A photo with the blur that these arguments of `blurkit prepare --synthesize` make."""
    path = Path(skimage.data.__file__).with_name(photo)
    with tempfile.TemporaryDirectory() as folder:
        shard = f"{folder}/pair.h5"
        run(command("prepare", path, "--synthesize", *blur, "--quiet", "-o", shard))
        return next(blurkit.read_records(shard))


def row(record: Record, weights: Model, top: int, left: int) -> Image:
    """Blurry, sharpened, Richardson-Lucy, deblurred and sharp: a part of each, side by side."""
    blur, sharp = record.images["blur"], record.images["sharp"]
    images = [blur]
    for name in ("unsharp masking", "Richardson-Lucy"):
        bank = METHODS[name]()
        images.append(restored(blur, bank[best(bank, [blur], [sharp])]))
    images += [weights.deblur(blur), sharp]
    return side_by_side([part(image, top, left) for image in images])


def limits(weights: Model) -> Image:
    """Each of LIMITS in a row: blurry, deblurred and sharp."""
    rows = []
    for photo, top, left, *blur in LIMITS:
        images = blurred(photo, *blur).images
        shown = [images["blur"], weights.deblur(images["blur"]), images["sharp"]]
        rows.append(side_by_side([part(image, top, left, side=220) for image in shown]))
    return np.concatenate(rows)


def write_pictures(folder: Path, weights: Model) -> None:
    """Write quality_KIND.jpg for every kind of blur, limits.jpg, quality_sharp.jpg."""
    for kind, (photo, top, left) in BLURRED.items():
        record = blurred(photo, kind, *SIZE)
        write_image(folder / f"quality_{kind}.jpg", row(record, weights, top, left))
    write_image(folder / "limits.jpg", limits(weights), quality=85)
    name, top, left = SHARP
    sharp = read_image(Path(skimage.data.__file__).with_name(name)).pixels
    both = [sharp, weights.deblur(sharp)]
    shown = [part(image, top, left) for image in both]
    write_image(folder / "quality_sharp.jpg", side_by_side(shown))
