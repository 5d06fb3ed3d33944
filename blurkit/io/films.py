"""Films: files of several pictures, such as videos, animations and TIFF files of several pages.

Each frame is read as a picture whose attributes say how to write it again: `source` is the film,
`pts` and `duration` are its time on the screen in units of `time_base` seconds, such as `1/1000`.
Pages of TIFF files have no time.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

from blurkit.errors import BlurkitError
from blurkit.io.animations import ANIMATION_SUFFIXES, animation_length, is_animation, read_animation
from blurkit.io.formats import TIFF
from blurkit.io.images import Picture, upright_picture
from blurkit.io.records import Attributes, Record
from blurkit.io.tiff import page_count, read_pages
from blurkit.io.videos import VIDEO_SUFFIXES, read_video, stated_frames

FILM_SUFFIXES = VIDEO_SUFFIXES | {".gif", ".apng"}
"""The suffixes of files that usually hold films; images with other suffixes may hold some too."""


def is_film(path: Path) -> bool:
    """Return whether a file holds several pictures: a video, an animation, or several TIFF pages.

    A file that cannot be read is not a film, unless its suffix is a video's.
    """
    suffix = path.suffix.lower()
    if suffix in TIFF.suffixes:
        return page_count(path) > 1
    return suffix in VIDEO_SUFFIXES or (suffix in ANIMATION_SUFFIXES and is_animation(path))


def stated_length(path: Path) -> int | None:
    """Return the number of a film's frames without decoding them, None if it is not stated."""
    suffix = path.suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return stated_frames(path)
    return page_count(path) if suffix in TIFF.suffixes else animation_length(path)


def read_film(path: Path) -> Generator[Picture, None, None]:
    """Yield the upright frames of a film, one in memory at a time.

    Raises BlurkitError if the file is missing or not a film, and at the place where it is damaged.
    """
    suffix = path.suffix.lower()
    if not path.is_file():
        raise BlurkitError(f"{path}: no such file")
    if suffix in VIDEO_SUFFIXES:
        yield from read_video(path)
    elif not is_film(path):
        raise BlurkitError(f"{path}: is a single image, not a film")
    elif suffix in TIFF.suffixes:
        for pixels, metadata in read_pages(path):
            yield upright_picture(path, pixels, metadata.attributes())
    else:
        yield from read_animation(path)


def unfilmed(attrs: Attributes) -> Attributes:
    """Return the attributes of a frame without those by which it becomes part of a film again."""
    return {key: value for key, value in attrs.items() if key != "film"}


def film_of(record: Record) -> Path | None:
    """Return the film that a record is a frame of, or None if it is none, or the film is gone."""
    path = Path(str(record.attrs.get("source", "")))
    return path if "film" in record.attrs and path.is_file() else None
