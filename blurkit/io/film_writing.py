"""Writing films: frame by frame, whole or not at all, in the format of the suffix."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from blurkit.errors import BlurkitError
from blurkit.io.animations import ANIMATION_SUFFIXES, AnimationWriter
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import TIFF
from blurkit.io.images import stored_pixels
from blurkit.io.metadata import Metadata
from blurkit.io.records import Image, Record
from blurkit.io.tiff import write_page
from blurkit.io.video_writing import VideoWriter
from blurkit.io.videos import VIDEO_SUFFIXES
from blurkit.io.writing import replacing, writing_errors


@dataclass(frozen=True)
class FilmOptions:
    """How films are written: as files of `frames`, or as films, videos with this `crf`.

    What a new film lacks of its source is reported to `warn`.
    """

    frames: bool = False
    crf: int | None = None
    warn: Callable[[str], None] = lambda text: None


class FrameWriter(Protocol):
    """Writes frames to a file that is whole after `close`; `release` closes it in any case."""

    def write(self, image: Image, alpha: Image | None, attrs: dict[str, Any]) -> None:
        """Add a frame. Raises BlurkitError if it does not fit the film."""

    def close(self) -> None:
        """Complete the file."""

    def release(self) -> None:
        """Close all files."""


class PageWriter:
    """Writes pages of any size and depth to a TIFF file."""

    def __init__(self, path: Path, source: Path) -> None:
        import tifffile  # only for these files

        self._file = tifffile.TiffWriter(path, bigtiff=source.stat().st_size >= 2**31)

    def write(self, image: Image, alpha: Image | None, attrs: dict[str, Any]) -> None:
        """Append a page."""
        metadata = Metadata.of(attrs)
        write_page(self._file, stored_pixels(TIFF, image, alpha, metadata), metadata)

    def close(self) -> None:
        """Close the file, which is whole after every page."""
        self.release()

    def release(self) -> None:
        """Close the file."""
        self._file.close()


class OpenFilm:
    """A film that is being written, and takes the place of `path` when it is finished."""

    def __init__(self, path: Path, source: Path, options: FilmOptions, force: bool) -> None:
        self.path, self.last = path, -1
        self._stack = ExitStack()
        with self._stack:
            partial = self._stack.enter_context(replacing(path, force))
            self._writer = _writer(partial, path.suffix.lower(), source, options)
            self._stack.callback(self._writer.release)
            self._stack = self._stack.pop_all()

    def takes(self, path: Path, record: Record) -> bool:
        """Return whether `record` is a later frame of this film."""
        return path == self.path and int(record.attrs.get("frame", -1)) > self.last

    def write(self, record: Record, image: Image, alpha: Image | None) -> None:
        """Add a frame. Raises BlurkitError if it cannot be written."""
        with writing_errors(self.path):
            self._writer.write(image, alpha, record.attrs)
        self.last = int(record.attrs["frame"])

    def finish(self) -> None:
        """Complete the film and put it in place."""
        try:
            with writing_errors(self.path):
                self._writer.close()
        except BaseException:
            self.abandon()
            raise
        self._stack.close()

    def abandon(self) -> None:
        """Remove the unfinished film."""
        unfinished = BlurkitError(f"{self.path}: is not finished")
        self._stack.__exit__(BlurkitError, unfinished, None)


def can_write(suffix: str, source: Path) -> bool:
    """Return whether the frames of `source` can be written as a film with this suffix.

    Videos and animations can become each other; still formats hold films only for their own kind.
    """
    kind = source.suffix.lower()
    if suffix in TIFF.suffixes or kind in TIFF.suffixes:
        return suffix in TIFF.suffixes and kind in TIFF.suffixes
    return suffix in FILM_SUFFIXES | {".webp", ".avif"} or suffix == kind


def _writer(partial: Path, suffix: str, source: Path, options: FilmOptions) -> FrameWriter:
    if suffix in VIDEO_SUFFIXES:
        return VideoWriter(partial, suffix, source, options.crf, options.warn)
    if suffix in ANIMATION_SUFFIXES:
        return AnimationWriter(partial, suffix, source)
    return PageWriter(partial, source)
