"""Sinks for the images and films of records, and the choice of a sink by what `-o` names."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.films import FILM_SUFFIXES, FilmOptions, OpenFilm, can_write
from blurkit.io.formats import (
    WRITTEN_SUFFIXES,
    is_written,
    shown_suffixes,
    why_unread,
    written_suffix,
)
from blurkit.io.images import OnLoss, encode_image, write_image
from blurkit.io.paths import is_folder
from blurkit.io.records import Image, Record, safe_name
from blurkit.io.shards import SHARD_SUFFIXES, is_shard
from blurkit.io.sinks import ShardSink, Sink, StreamSink
from blurkit.io.streams import standard_output
from blurkit.io.writing import refuse_existing, refuse_unwritable, tidy


@dataclass(frozen=True)
class FileOptions:
    """How images and films are written.

    Existing files are replaced with `force`, and with `resume` if no earlier run has finished them.
    Images have a `format`, such as `png`, and a `quality` (1 to 100) if that is lossy; by default,
    the format of their source, and the quality that `write_image` chooses. `warn` receives a line
    about each image whose format cannot hold all that its source does.
    """

    force: bool = False
    resume: bool = False
    format: str | None = None
    quality: int | None = None
    films: FilmOptions = field(default_factory=FilmOptions)
    warn: OnLoss = warnings.warn

    @property
    def suffix(self) -> str | None:
        """The suffix of files of the format. Raises UsageError if it is not written."""
        if self.format is None:
            return None
        suffix = f".{self.format.lower().removeprefix('.')}"
        if suffix not in WRITTEN_SUFFIXES:
            known = shown_suffixes(written=True).replace(".", "")
            raise UsageError(f"--format {self.format}: use one of {known}")
        return suffix


class _Images(Sink):
    """Writes an image file per record and a film per series of frames; subclasses choose paths."""

    def __init__(
        self, output: Path, show: Sequence[str], options: FileOptions = FileOptions()
    ) -> None:
        self._output, self._show, self._options = output, show, options
        self._force = options.force or options.resume
        self._film: OpenFilm | None = None
        self._written: set[Path] = set()

    @abstractmethod
    def path(self, record: Record) -> Path:
        """Return the file for `record`. Raises BlurkitError if its name is unsafe."""

    def claim(self, record: Record) -> None:
        """Raise BlurkitError for unsafe or repeated names, and existing files without --force."""
        path = self.path(record)
        if self._film is not None and self._film.takes(path, record):
            return
        if path in self._written:
            raise BlurkitError(f"{path}: a record named {record.name!r} was written there already")
        refuse_existing(path, self._force)
        refuse_unwritable(path.parent)

    def is_done(self, record: Record) -> bool:
        """Return whether its file was there, with content and no older than the source file."""
        if not self._options.resume:
            return False
        try:
            path = self.path(record)
        except BlurkitError:  # which claim reports
            return False
        if path in self._written or not path.is_file():
            return False
        source, result = Path(str(record.attrs.get("source", ""))), path.stat()
        changed = source.stat().st_mtime_ns if source.is_file() else 0
        return result.st_size > 0 and result.st_mtime_ns >= changed

    def write(self, record: Record) -> None:
        """Write the first available image of `show`, with its alpha and metadata."""
        self.claim(record)
        path, source = self.path(record), self._source(record)
        image, alpha = _shown(record, self._show)
        if source is None:
            options = self._options
            write_image(
                path, image, alpha, record.attrs, self._force, options.quality, options.warn
            )
        else:
            self._open(path, source).write(record, image, alpha)
        self._written.add(path)

    def finish(self) -> None:
        film, self._film = self._film, None
        if film is not None:
            film.finish()

    def abandon(self) -> None:
        if self._film is not None:
            self._film.abandon()

    def _source(self, record: Record) -> Path | None:
        """Return the film that `record` is written as a frame of, None if it is an image."""
        path = Path(str(record.attrs.get("source", "")))
        is_frame = "film" in record.attrs and path.is_file()  # the film may be gone
        return path if is_frame and not self._options.films.frames else None

    def _open(self, path: Path, source: Path) -> OpenFilm:
        """Return the film at `path`, which is begun after the one before it is finished."""
        if self._film is None or self._film.path != path:
            self.finish()
            self._film = OpenFilm(path, source, self._options.films, self._force)
        return self._film

    def _suffix(self, source: str) -> str:
        """Return the suffix of the result of a file with the suffix `source`."""
        return self._options.suffix or written_suffix(source.lower())


class ImageStream(Sink):
    """Writes the image of a single record to a binary stream."""

    def __init__(self, stream: BinaryIO, show: Sequence[str], options: FileOptions) -> None:
        self._stream, self._show, self._options = stream, show, options
        self._written = False

    def claim(self, record: Record) -> None:
        """Raise UsageError for a second record, because images cannot be told apart in a pipe."""
        if self._written:
            raise UsageError(
                "-o - with --format is one image, but there are more; name a folder/, or leave out "
                "--format for a stream of records"
            )

    def write(self, record: Record) -> None:
        """Send the first available image of `show`, with its alpha and metadata."""
        self.claim(record)
        shown, options = _shown(record, self._show), self._options
        encoded = encode_image(
            str(options.suffix),
            *shown,
            record.attrs,
            options.quality,
            where=record.name,
            warn=options.warn,
        )
        self._stream.write(encoded)
        self._stream.flush()
        self._written = True


class ImageFolder(_Images):
    """A folder of images and films with the records' relative names and their files' suffixes.

    If files of a format are not written, as of RAW photos and GIF, see `written_suffix`.
    """

    def path(self, record: Record) -> Path:
        """Return folder/NAME.suffix. Raises BlurkitError if the name would leave the folder."""
        source = Path(str(record.attrs.get("source", "")))
        if film := self._source(record):
            name, suffix = safe_name(str(record.attrs["film"])), film.suffix
        else:
            name = safe_name(record.name)
            suffix = self._suffix(str(record.attrs.get("suffix")))
        # Files that differ only in their suffix have it in their names already.
        if name.name == source.name and name.suffix == suffix:
            return self._output / name
        return self._output / f"{name}{suffix}"


class ImageFile(_Images):
    """A single image file, for a single record, or a single film."""

    def path(self, record: Record) -> Path:
        return self._output

    def claim(self, record: Record) -> None:
        """Raise UsageError for a second image or film, and for a film in a file of an image."""
        source, suffix = self._source(record), self._output.suffix.lower()
        where = f"-o {self._output}"
        if source is None and suffix in FILM_SUFFIXES:
            raise UsageError(f"{where} is a film, but {record.name} is an image")
        if source is None and self._output in self._written:
            raise UsageError(f"{where} is one image, but there are more; name a folder/")
        if source is not None and not can_write(suffix, source):
            raise UsageError(f"{where} cannot hold the film {source}; name a folder/")
        if source and self._film is not None and not self._film.takes(self._output, record):
            raise UsageError(f"{where} is one film, but there are more; name a folder/")
        super().claim(record)


class ImagesBeside(_Images):
    """Writes each image next to its source file: photo.jpg gives photo.LABEL.jpg.

    Records with an attribute `frame` come from the same file: photo.LABEL-FRAME.jpg.
    """

    def __init__(
        self, show: Sequence[str], label: str, options: FileOptions = FileOptions()
    ) -> None:
        super().__init__(Path(), show, options)
        self._label = label

    def path(self, record: Record) -> Path:
        """Return SOURCE.label.suffix. Raises UsageError if the source file does not exist."""
        path = Path(str(record.attrs.get("source", "")))
        if not path.is_file():  # a shard may come from elsewhere and is not trusted
            raise UsageError("name an output with -o: a folder/, a shard (.h5) or -")
        if self._source(record):
            return path.with_name(f"{path.stem}.{self._label}{path.suffix}")
        frame = f"-{record.attrs['frame']}" if "frame" in record.attrs else ""
        suffix = self._suffix(path.suffix)
        if suffix == path.suffix.lower():
            suffix = path.suffix  # in its own case
        return path.with_name(f"{path.stem}.{self._label}{frame}{suffix}")


def _shown(record: Record, show: Sequence[str]) -> tuple[Image, Image | None]:
    """Return the first available image of `show`, and the record's alpha if it fits that."""
    image, alpha = record.image(*show), record.images.get("alpha")
    return image, alpha if alpha is not None and alpha.shape[:2] == image.shape[:2] else None


# ---- What -o names -------------------------------------------------------------------------------


def open_sink(
    output: str | None, show: Sequence[str], label: str, options: FileOptions = FileOptions()
) -> Sink:
    """Return the sink that `-o OUTPUT` names.

    `-` is a stream on standard output, or one image if `options` name a format, `x.h5` a shard,
    `x.png` and the like one image, `x.mp4` and the like one film, `x/` or an existing folder a
    folder of images and films; None writes each image or film next to its source file, with
    `.label` before the suffix. `show` lists a record's images in order of preference: images and
    folders receive the first that the record has, shards and streams the whole record. Raises
    UsageError if the output is none of these or is a terminal, if `options` cannot apply to it, or
    for a stream that is to be resumed.
    """
    suffix = options.suffix
    if output is None:
        return ImagesBeside(show, label, options)
    if output == "-" and options.resume:
        raise UsageError("--resume requires files as output; '-o -' cannot be continued")
    if output == "-" and suffix:
        return ImageStream(standard_output(), show, options)
    path = Path(output)
    if is_folder(output):
        tidy(path)
        return ImageFolder(path, show, options)
    if is_written(path) or path.suffix.lower() in FILM_SUFFIXES:
        if suffix not in (None, path.suffix.lower()):
            raise UsageError(f"--format {options.format} contradicts -o {output}")
        return ImageFile(path, show, options)
    if (suffix or options.quality is not None) and (output == "-" or is_shard(path)):
        raise UsageError(f"-o {output} holds records, not images; leave out --format and --quality")
    if output == "-":
        return StreamSink(standard_output())
    if is_shard(path):
        return ShardSink(path, options.force, resume=options.resume)
    shards = " ".join(sorted(SHARD_SUFFIXES))
    kinds = f"an image, a film, a folder (end it with /), a shard ({shards}) or -"
    reason = why_unread(path.suffix.lower())
    raise UsageError(f"-o {output}: name {kinds}" + (f" ({reason})" if reason else ""))
