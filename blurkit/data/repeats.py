"""Images that several scenes share, because of links or because inputs overlap."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from blurkit.data.clips import Clip
from blurkit.data.places import Scene
from blurkit.data.sources import Packed
from blurkit.data.splits import STRENGTH

Item = TypeVar("Item", bound=Scene | Packed | Clip)


def once(items: Sequence[Item], notes: list[str]) -> list[Item]:
    """Return the items without those whose images belong to others; their number is a note.

    Of items with the same files, the first stays. An item that shares any file with one of a
    stronger split (test before val before train) goes, so that no test image is trained on.
    Files are the same if links lead to the same data.
    """
    owners: dict[object, tuple[int, int]] = {}
    kept = []
    for rank, number in sorted((_rank(item), number) for number, item in enumerate(items)):
        files = [_identity(path) for path in _files(items[number])]
        held = [owners.setdefault(file, (rank, number)) for file in files]
        if not held or ((rank, number) in held and all(other == rank for other, _ in held)):
            kept.append(number)
    if len(kept) < len(items):
        count = len(items) - len(kept)
        notes.append(f"{count} scenes share images with others (by links) and are not used again")
    return [items[number] for number in sorted(kept)]


def _rank(item: Scene | Packed | Clip) -> int:
    return STRENGTH.index("train" if isinstance(item, Packed) else item.split or "train")


def _files(item: Scene | Packed | Clip) -> list[Path]:
    if isinstance(item, Packed):
        return []
    return list(item.files.values() if isinstance(item, Scene) else item.frames or [item.source])


def _identity(path: Path) -> object:
    """Return what all paths to one file have in common, or the path if it leads to no file."""
    try:
        status = path.stat()
    except OSError:  # reported when the file is read
        return path
    return status.st_dev, status.st_ino
