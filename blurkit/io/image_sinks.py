"""Sinks for the images and films of records, and the choice of a sink by what `-o` names."""

import warnings
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from blurkit.errors import BlurkitError, Say, UsageError
from blurkit.io import formats
from blurkit.io.films import FILM_SUFFIXES, FilmOptions, OpenFilm, can_write, shown_frames
from blurkit.io.images import encode_image, write_image
from blurkit.io.paths import comparison_path, composed, is_folder
from blurkit.io.records import Image, Record, safe_name
from blurkit.io.shards import SHARD_SUFFIXES, is_shard
from blurkit.io.sinks import ResumedShard, ShardSink, Sink, StreamSink, source_change
from blurkit.io.streams import ShardWriter, standard_output
from blurkit.io.writing import last_change, refuse_existing, refuse_unwritable, tidy


@dataclass(frozen=True)
class FileOptions:
    """How images and films are written.

    Existing files are replaced with `force`, and with `resume` if no earlier run has finished them.
    Images have a `format`, such as `png`, and a `quality` (1 to 100) if that is lossy; by default,
    the format of their source, and the quality that `write_image` chooses. `warn` receives a line
    about each image whose format cannot hold all that its source does. With `compare`, its picture
    of each record is written beside the result, of a film the `sheet` of those of some frames, with
    their numbers. `guard` surrounds the end of a film and each such picture, so that these fail
    alone. What there is of a film whose name is in `failed`, which could not be read to its end,
    does not count as finished.
    """

    force: bool = False
    resume: bool = False
    format: str | None = None
    quality: int | None = None
    films: FilmOptions = field(default_factory=FilmOptions)
    warn: Say = warnings.warn
    compare: Callable[[Record], Image] | None = None
    sheet: Callable[[Sequence[Image], Sequence[int]], Image] = lambda pictures, frames: pictures[0]
    guard: Callable[[str], AbstractContextManager[None]] = lambda where: nullcontext()
    failed: Sequence[str] = ()

    @property
    def suffix(self) -> str | None:
        """The suffix of files of the format. Raises UsageError if it is not written."""
        if self.format is None:
            return None
        suffix = f".{self.format.lower().removeprefix('.')}"
        if suffix not in formats.WRITTEN_SUFFIXES:
            known = formats.shown_suffixes().replace(".", "")
            raise UsageError(f"--format {self.format}: use one of {known}")
        return suffix


class _Images(Sink):
    """Writes an image file per record and a film per series of frames; subclasses choose paths."""

    def __init__(
        self, output: Path, show: Sequence[str], options: FileOptions = FileOptions()
    ) -> None:
        super().__init__()
        self._output, self._show, self._options = output, show, options
        self._force = options.force or options.resume
        self._film: OpenFilm | None = None
        self._first = Record("")
        self._shown: set[int] = set()
        self._pictures: dict[int, Image] = {}
        self._written: dict[str, list[Path]] = defaultdict(list)
        self._dropped: set[tuple[str | None, object]] = set()
        self._writable: set[Path] = set()

    @abstractmethod
    def path(self, record: Record) -> Path:
        """Return the file for `record`. Raises BlurkitError if its name is unsafe."""

    def claim(self, record: Record) -> None:
        """Raise BlurkitError for unsafe or repeated names, and existing files without --force."""
        path = self.path(record)
        if self._film is not None and self._film.takes(path, record):
            return
        if self._has_written(path):
            raise BlurkitError(f"{path}: a record named {record.name!r} was written there already")
        refuse_existing(path, self._force)
        if self._options.compare and not self._has_written(comparison := self._comparison(record)):
            refuse_existing(comparison, self._force)
        if path.parent not in self._writable:
            refuse_unwritable(path.parent)
            self._writable.add(path.parent)

    def is_done(self, record: Record) -> bool:
        """Return whether its file, not older than the source, and any comparison were there."""
        if not self._options.resume:
            return False
        try:
            path = self.path(record)
        except BlurkitError:  # which claim reports
            return False
        if self._has_written(path) or not path.is_file():
            return False
        if self._options.compare and not self._comparison(record).is_file():
            return False
        return path.stat().st_size > 0 and last_change(path) >= source_change(record)

    def write(self, record: Record) -> None:
        """Write the first available image of `show`, with its alpha and metadata."""
        path, source, options = self.path(record), self._source(record), self._options
        if self._film is not None and not self._film.takes(path, record):
            self.finish()
        self.claim(record)
        shown = _shown(record, self._show)
        if source is None:
            write_image(path, *shown, record.attrs, self._force, options.quality, options.warn)
            self._count(path, record)
            return
        if self._film is None:
            self._film = OpenFilm(path, source, options.films, self._force)
            self._first, self._pictures = record, {}
            self._shown = shown_frames(source, options.films.only)
        try:
            self._film.write(record, *shown)
        except BaseException:
            self.drop(record)
            raise
        number = int(record.attrs["frame"])
        if options.compare is not None and number in self._shown:
            with options.guard(str(self._comparison(record))):
                self._pictures[number] = options.compare(record)

    def finish(self) -> None:
        """Complete the film that is open."""
        film, self._film = self._film, None
        if film is not None:
            name = str(self._first.attrs["film"])
            with self._options.guard(name):
                film.finish(name not in self._options.failed)
                self.films += 1
                self._count(film.path, self._first)

    def abandon(self) -> None:
        film, self._film = self._film, None
        if film is not None:
            film.abandon()

    def film(self, record: Record) -> str | None:
        return str(record.attrs["film"]) if self._source(record) else None

    def drop(self, record: Record) -> None:
        if film := self.film(record):
            self._dropped.add((film, record.attrs["source"]))
            if self._film is not None and self._film.path == self.path(record):
                self.abandon()

    def is_dropped(self, record: Record) -> bool:
        return (self.film(record), record.attrs.get("source")) in self._dropped

    def _count(self, path: Path, record: Record) -> None:
        """Count a finished result, and write the comparison beside it."""
        self._written[_regardless(path)].append(path)
        self.files.append(path)
        self.done += 1
        if self._options.compare is None:
            return
        comparison = self._comparison(record)
        with self._options.guard(str(comparison)):
            if self._has_written(comparison):
                raise BlurkitError(f"{comparison}: the comparison of another result is there")
            attrs = {k: v for k, v in record.attrs.items() if k == "icc_profile"}
            pictures, self._pictures = self._pictures, {}
            if pictures:
                picture = self._options.sheet([*pictures.values()], [*pictures])
            else:
                picture = self._options.compare(record)
            write_image(comparison, picture, None, attrs, self._force)
            self._written[_regardless(comparison)].append(comparison)
            self.comparisons.append(comparison)

    def _has_written(self, path: Path) -> bool:
        """Return whether `path` is a file of this run, perhaps by another form of its name."""
        same = self._written.get(_regardless(path), [])
        return path in same or any(p.exists() and path.exists() and p.samefile(path) for p in same)

    def _comparison(self, record: Record) -> Path:
        """Return the file of a record's comparison; files of one stem have one each."""
        name = (self.film(record) or record.name).rpartition("/")[2]
        alone = name != composed(record.source.name)
        return comparison_path(self.path(record), None if alone else name)

    def _source(self, record: Record) -> Path | None:
        """Return the film that `record` is written as a frame of, None if it is an image."""
        is_frame = "film" in record.attrs and record.source.is_file()
        return record.source if is_frame and not self._options.films.frames else None

    def _suffix(self, source: str) -> str:
        return self._options.suffix or formats.written_suffix(source.lower())


class ImageStream(Sink):
    """Writes the image of a single record to a binary stream."""

    only = "-o - with --format is one image"

    def __init__(self, stream: BinaryIO, show: Sequence[str], options: FileOptions) -> None:
        super().__init__()
        self._stream, self._show, self._options = stream, show, options

    def claim(self, record: Record) -> None:
        """Raise UsageError for a second record, because images cannot be told apart in a pipe."""
        if self.done:
            raise UsageError(
                "-o - with --format is one image, but there are more; name a folder/, or leave out "
                "--format for a stream of records"
            )

    def write(self, record: Record) -> None:
        """Send the first available image of `show`, with its alpha and metadata."""
        self.claim(record)
        shown, options = _shown(record, self._show), self._options
        suffix, quality = str(options.suffix), options.quality
        data = encode_image(suffix, *shown, record.attrs, quality, record.name, options.warn)
        self._stream.write(data)
        self._stream.flush()
        self.done += 1


class ImageFolder(_Images):
    """A folder of images and films with the records' relative names and their files' suffixes."""

    def path(self, record: Record) -> Path:
        """Return folder/NAME.suffix. Raises BlurkitError if the name would leave the folder."""
        if film := self._source(record):
            name, suffix = str(record.attrs["film"]), film.suffix or formats.ending(film)
        else:
            name, suffix = record.name, self._suffix(str(record.attrs.get("suffix")))
        path = safe_name(composed(name))
        # Files that differ only in their suffix have it in their names already.
        if path.name == composed(record.source.name) and path.suffix == suffix:
            return self._output / path
        return self._output / f"{path}{suffix}"


class ImageFile(_Images):
    """A single image file, for a single record, or a single film."""

    def __init__(self, output: Path, show: Sequence[str], options: FileOptions) -> None:
        super().__init__(output, show, options)
        what = "film" if output.suffix.lower() in FILM_SUFFIXES else "image"
        self.only = f"-o {output} is one {what}"

    def path(self, record: Record) -> Path:
        return self._output

    def claim(self, record: Record) -> None:
        """Raise UsageError for a second image or film, and for a film in a file of an image."""
        source, suffix = self._source(record), self._output.suffix.lower()
        if source is None and suffix in FILM_SUFFIXES:
            raise UsageError(f"-o {self._output} is a film, but {record.name} is an image")
        if source is not None and not can_write(suffix, source):
            raise UsageError(f"-o {self._output} cannot hold the film {source}; name a folder/")
        begun = self._film is not None and not self._film.takes(self._output, record)
        self.refuse_several(1 + (begun or self.done))
        super().claim(record)


class ImagesBeside(_Images):
    """Writes each image next to its source file: photo.jpg gives photo.LABEL.jpg.

    Records with an attribute `frame` come from the same file: photo.LABEL-FRAME.jpg.
    """

    def __init__(self, show: Sequence[str], label: str, options: FileOptions) -> None:
        super().__init__(Path(), show, options)
        self._label = label

    def path(self, record: Record) -> Path:
        """Return SOURCE.label.suffix. Raises UsageError if the source file does not exist."""
        path = record.source
        if not path.is_file():  # a shard may come from elsewhere and is not trusted
            raise UsageError("name an output with -o: a folder/, a shard (.h5) or -")
        if self._source(record):
            return path.with_name(f"{path.stem}.{self._label}{path.suffix or formats.ending(path)}")
        frame = f"-{record.attrs['frame']}" if "frame" in record.attrs else ""
        suffix, stem = self._suffix(formats.ending(path)), path.stem
        if suffix == path.suffix.lower():
            suffix = path.suffix  # in its own case
        elif record.name.rpartition("/")[2] == composed(path.name):
            stem = path.name  # another file of its stem may get the same suffix
        return path.with_name(f"{stem}.{self._label}{frame}{suffix}")


def _regardless(path: Path) -> str:
    """Return a path regardless of case and Unicode form, which a file system may ignore."""
    return composed(str(path)).casefold()


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
    suffix, path = options.suffix, Path(output or "")
    writes_files = formats.is_written(path) or path.suffix.lower() in FILM_SUFFIXES
    if options.compare and output is not None and not (writes_files or is_folder(output)):
        raise UsageError("--compare requires images as output: name an image or a folder/")
    if output is None:
        return ImagesBeside(show, label, options)
    if output == "-" and options.resume:
        raise UsageError("--resume requires files as output; '-o -' cannot be continued")
    if output == "-" and suffix:
        return ImageStream(standard_output(), show, options)
    if is_folder(output):
        tidy(path)
        return ImageFolder(path, show, options)
    if writes_files:
        if suffix not in (None, path.suffix.lower()):
            raise UsageError(f"--format {options.format} contradicts -o {output}")
        return ImageFile(path, show, options)
    if (suffix or options.quality is not None) and (output == "-" or is_shard(path)):
        raise UsageError(f"-o {output} holds records, not images; leave out --format and --quality")
    if output == "-":
        return StreamSink(standard_output())
    if is_shard(path):
        return ShardSink(ResumedShard(path) if options.resume else ShardWriter(path, options.force))
    shards = " ".join(sorted(SHARD_SUFFIXES))
    kinds = f"an image, a film, a folder (end it with /), a shard ({shards}) or -"
    reason = formats.why_unread(path.suffix.lower())
    raise UsageError(f"-o {output}: name {kinds}" + (f" ({reason})" if reason else ""))
