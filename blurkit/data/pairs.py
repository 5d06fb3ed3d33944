"""Two folders or files that belong together: restored images and the sharp ones to hold them to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from blurkit.data.places import Scene
from blurkit.data.sources import load
from blurkit.errors import BlurkitError, OnError, raise_error
from blurkit.io.images import IMAGE_SUFFIXES
from blurkit.io.paths import walk
from blurkit.io.records import Record


def read_two_sides(
    restored: str,
    sharp: str,
    part: tuple[int, int] = (1, 1),
    on_error: OnError = raise_error,
) -> Iterator[Record]:
    """Records of `restored` and `sharp` images from two folders, or two files.

    In folders they are paired by relative path without suffix, never by position; one without a
    partner goes to `on_error`, and so does an image that cannot be read or a pair of two sizes.
    """
    sides = _images(Path(restored)), _images(Path(sharp))
    if Path(restored).is_file():
        pairs = {Path(restored).stem: (Path(restored), Path(sharp))}
    else:
        pairs = {
            name: (path, sides[1][name]) for name, path in sides[0].items() if name in sides[1]
        }
        for name, path in (sides[0] | sides[1]).items():
            if name not in pairs:
                other = sharp if name in sides[0] else restored
                on_error(name, BlurkitError(f"{path}: no partner of that name in {other}"))
    for name, (first, second) in list(pairs.items())[part[0] - 1 :: part[1]]:
        try:
            yield load(Scene(name, {"restored": first, "sharp": second}))
        except BlurkitError as error:
            on_error(name, error)


def _images(path: Path) -> dict[str, Path]:
    """Images below a folder by relative path without suffix."""
    if path.is_file():
        return {}
    return {
        file.relative_to(path).with_suffix("").as_posix(): file
        for file in walk(path, IMAGE_SUFFIXES)
    }
