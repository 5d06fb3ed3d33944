"""The real pairs of ../shared/data/pairs: which the shipped weights have never seen, by scene."""

from collections.abc import Iterator

import numpy as np

from blurkit.data.sources import read_records
from blurkit.io.records import Record
from tests.shared import shared_folder

HELD_OUT = {
    "gopro": ("building", "parked_cars", "square"),
    "gopro_avg": ("GOPR0384_11_00", "GOPR0374_11_00"),
    "reds_180p": ("val/000",),
}
"""By set, the scenes that training never saw: what all results are measured on."""

TRAINED_ON = {"gopro_avg": ("GOPR0477_11_00",), "reds_180p": ("train/000", "train/001")}
"""The scenes that training may use; of GOPR0477_11_00 the video, too."""

OTHERS = ("aligned_ab", "large")
"""More pairs that training never saw: a shrunk frame of GoPro side by side with its blurry one, and
a large photo whose sharp image is soft."""

SEEN = "000024"
"""The frame in aligned_ab that is of GOPR0372_07_00, which training has seen."""


def pairs(name: str, scenes: tuple[str, ...]) -> Iterator[Record]:
    """The records of a set that belong to some of its scenes, each with `blur` and `sharp`.

    (H, W, 3) uint8. Skips the test that asks when the data are not there.
    """
    folder = shared_folder("data", "BLURKIT_DATA") / "pairs" / name
    for record in read_records([folder]):
        if record.name.startswith(tuple(f"{scene}/" for scene in scenes)):
            yield record


def held_out(name: str) -> list[Record]:
    """The pairs of a set that training never saw."""
    return list(pairs(name, HELD_OUT[name]))


def trained_on(name: str) -> list[Record]:
    """The pairs of a set that training may have seen."""
    return list(pairs(name, TRAINED_ON[name]))


def others(name: str) -> list[Record]:
    """The pairs of one of `OTHERS`, without `SEEN`."""
    records = read_records([shared_folder("data", "BLURKIT_DATA") / "pairs" / name])
    unseen = (record for record in records if record.name != SEEN)
    return [_halves(record) if "sharp" not in record.images else record for record in unseen]


def _halves(record: Record) -> Record:
    """A picture whose left half is blurry and whose right half is sharp, as a pair."""
    blur, sharp = np.split(record.images["blur"], 2, axis=1)
    return Record(record.name, {"blur": blur, "sharp": sharp}, record.attrs)
