"""Pictures of what the shipped weights do, of photos that may be shown.

They are of photos that scikit-image carries (CC0 or public domain), blurred by `blurkit prepare`:
those that the tables are measured on may not be passed on.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import skimage.data

import blurkit
from blurkit.api import Model
from blurkit.io.images import read_image, write_image
from blurkit.io.records import Image, Record
from blurkit.reports.pictures import side_by_side
from tests.benchmarks.classical import METHODS, best, restored
from tests.benchmarks.measure import command, run

BLURRED = {
    "shake": ("chelsea.png", 30, 110),
    "camera": ("astronaut.png", 20, 130),
    "objects": ("coffee.png", 70, 200),
}
"""By kind of blur, a photo, and the top and left of the part that is shown."""
SHARP = ("rocket.jpg", 225, 260)
SHOWN = 200
"""The side of what is shown."""


def blurred(kind: str, photo: str) -> Record:
    """A photo with a blur of this kind, as `blurkit prepare --synthesize` makes it."""
    path = Path(skimage.data.__file__).with_name(photo)
    with tempfile.TemporaryDirectory() as folder:
        shard = f"{folder}/pair.h5"
        size = [*("--kernel-size", "9", "17"), *("--seed", "1"), "--quiet"]
        run(command("prepare", path, "--synthesize", kind, *size, "-o", shard))
        return next(blurkit.read_records(shard))


def row(record: Record, weights: Model, top: int, left: int) -> Image:
    """Blurry, sharpened, Richardson-Lucy, deblurred and sharp: a part of each, side by side."""
    blur, sharp = record.images["blur"], record.images["sharp"]
    images = [blur]
    for name in ("unsharp masking", "Richardson-Lucy"):
        bank = METHODS[name]()
        images.append(restored(blur, bank[best(bank, [blur], [sharp])]))
    images += [weights.deblur(blur), sharp]
    return side_by_side([i[top : top + SHOWN, left : left + SHOWN] for i in images])


def write_pictures(folder: Path, weights: Model) -> None:
    """Write quality_KIND.jpg for every kind of blur, and quality_sharp.jpg: sharp, deblurred."""
    for kind, (photo, top, left) in BLURRED.items():
        write_image(folder / f"quality_{kind}.jpg", row(blurred(kind, photo), weights, top, left))
    name, top, left = SHARP
    sharp = read_image(Path(skimage.data.__file__).with_name(name)).pixels
    both = [sharp, weights.deblur(sharp)]
    shown = [image[top : top + SHOWN, left : left + SHOWN] for image in both]
    write_image(folder / "quality_sharp.jpg", side_by_side(shown))
