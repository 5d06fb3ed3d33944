"""Sinks: the destinations of a command's records: an image, a folder, a shard, a stream."""

from __future__ import annotations

import os
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.film_writing import FilmOptions, OpenFilm, can_write
from blurkit.io.films import FILM_SUFFIXES, film_of
from blurkit.io.formats import (
    WRITTEN_SUFFIXES,
    is_written,
    shown_suffixes,
    why_unread,
    written_suffix,
)
from blurkit.io.images import encode_image, write_image
from blurkit.io.paths import walk
from blurkit.io.records import Image, Record, safe_name
from blurkit.io.resumed_shard import ResumedShard
from blurkit.io.shard_writing import ShardWriter
from blurkit.io.shards import SHARD_SUFFIXES, is_shard, read_shard
from blurkit.io.streams import standard_output, write_stream
from blurkit.io.writing import (
    REPLACING,
    finish_replacement,
    refuse_existing,
    refuse_unwritable,
    replace_set,
    tidy,
)


class ImageOptions(NamedTuple):
    """How images are written: their format, such as `png`, and their quality (1 to 100) if lossy.

    By default, an image has the format of its source, and the quality that `write_image` chooses.
    """

    format: str | None = None
    quality: int | None = None

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


class Sink(ABC):
    """A destination for records: call `claim` before the work on a record, and `write` after it.

    A sink is a context manager; leaving it without an error completes its output.
    """

    def is_done(self, record: Record) -> bool:
        """Return whether an earlier run that is resumed has finished `record`."""
        return False

    def claim(self, record: Record) -> None:
        """Raise BlurkitError if `record` could not be written, before any work is spent on it."""

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write `record`. Raises BlurkitError if that fails."""

    def path(self, record: Record) -> Path | None:
        """Return the file that `record` is written to, or None if there is no file."""
        return None

    def __enter__(self) -> Sink:
        return self

    def finish(self) -> None:
        """Complete the output."""

    def abandon(self) -> None:
        """Remove unfinished output after an error."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None:
            self.finish()
        else:
            self.abandon()


def open_sink(
    output: str | None,
    show: Sequence[str],
    label: str,
    force: bool = False,
    images: ImageOptions = ImageOptions(),
    films: FilmOptions = FilmOptions(),
    resume: bool = False,
) -> Sink:
    """Return the sink that `-o OUTPUT` names.

    `-` is a stream on standard output, or one image if `images` names a format, `x.h5` a shard,
    `x.png` and the like one image, `x.mp4` and the like one film, `x/` or an existing folder a
    folder of images and films; None writes each image or film next to its source file, with
    `.label` before the suffix. `images` and `films` say how these are written. `show` lists a
    record's images in order of preference: images and folders receive the first that the record
    has, shards and streams the whole record. With `resume`, what an earlier run has written is
    kept. Raises UsageError if the output is none of these or is a terminal, if `images` cannot
    apply to it, or for a stream that is to be resumed.
    """
    suffix = images.suffix
    if output is None:
        return ImagesBeside(show, label, force, images, films, resume)
    if output == "-" and resume:
        raise UsageError("--resume requires files as output; '-o -' cannot be continued")
    if output == "-" and suffix:
        return ImageStream(standard_output(), show, images)
    path = Path(output)
    if is_folder(output):
        return ImageFolder(path, show, force, images, films, resume)
    if is_written(path) or path.suffix.lower() in FILM_SUFFIXES:
        if suffix not in (None, path.suffix.lower()):
            raise UsageError(f"--format {images.format} contradicts -o {output}")
        return ImageFile(path, show, force, images, films, resume)
    if images != ImageOptions() and (output == "-" or is_shard(path)):
        raise UsageError(f"-o {output} holds records, not images; leave out --format and --quality")
    if output == "-":
        return StreamSink(standard_output())
    if is_shard(path):
        return ShardSink(path, force, resume=resume)
    shards = " ".join(sorted(SHARD_SUFFIXES))
    kinds = f"an image, a film, a folder (end it with /), a shard ({shards}) or -"
    reason = why_unread(path.suffix.lower())
    raise UsageError(f"-o {output}: name {kinds}" + (f" ({reason})" if reason else ""))


def is_folder(output: str) -> bool:
    """Return whether `-o OUTPUT` means a folder: it ends in a slash or is an existing folder."""
    return output.endswith(("/", os.sep)) or (output != "" and Path(output).is_dir())


class StreamSink(Sink):
    """Writes every record as a separate shard to a binary stream and flushes it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def write(self, record: Record) -> None:
        """Send the record."""
        write_stream(self._stream, record)


class ShardSink(Sink):
    """Writes all records to one shard; with `resume`, after those that it or an earlier run has."""

    def __init__(
        self,
        path: Path,
        force: bool = False,
        compression: str | None = None,
        resume: bool = False,
    ) -> None:
        self._writer: ShardWriter | ResumedShard
        if resume:
            self._writer = ResumedShard(path, compression)
            self._finished = self._writer.finished
        else:
            self._writer = ShardWriter(path, force, compression)
            self._finished = frozenset()

    def is_done(self, record: Record) -> bool:
        """Return whether the shard to resume has a record of this name."""
        return record.name in self._finished

    def write(self, record: Record) -> None:
        """Append the record."""
        self._writer.write(record)

    def path(self, record: Record) -> Path:
        """Return the shard."""
        return self._writer.path

    def finish(self) -> None:
        """Finish the shard and rename it to its path."""
        self._writer.close()

    def abandon(self) -> None:
        """Remove the unfinished shard."""
        self._writer.abandon()


class _Images(Sink):
    """Writes an image file per record and a film per series of frames; subclasses choose paths."""

    def __init__(
        self,
        show: Sequence[str],
        force: bool = False,
        images: ImageOptions = ImageOptions(),
        films: FilmOptions = FilmOptions(),
        resume: bool = False,
    ) -> None:
        self._show = show
        self._force = force or resume
        self._resume = resume
        self._images = images
        self._films = films
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
        try:
            path = self.path(record)
        except BlurkitError:  # which claim reports
            return False
        if not self._resume or path in self._written or not path.is_file():
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
            write_image(path, image, alpha, record.attrs, self._force, self._images.quality)
        else:
            self._open(path, source).write(record, image, alpha)
        self._written.add(path)

    def finish(self) -> None:
        """Complete the last film."""
        film, self._film = self._film, None
        if film is not None:
            film.finish()

    def abandon(self) -> None:
        """Remove the unfinished film."""
        if self._film is not None:
            self._film.abandon()

    def _source(self, record: Record) -> Path | None:
        """Return the film that `record` is written as a frame of, None if it is an image."""
        return None if self._films.frames else film_of(record)

    def _open(self, path: Path, source: Path) -> OpenFilm:
        """Return the film at `path`, which is begun after the one before it is finished."""
        if self._film is None or self._film.path != path:
            self.finish()
            self._film = OpenFilm(path, source, self._films, self._force)
        return self._film

    def _suffix(self, source: str) -> str:
        """Return the suffix of the result of a file with the suffix `source`."""
        return self._images.suffix or written_suffix(source.lower())


class ImageStream(Sink):
    """Writes the image of a single record to a binary stream."""

    def __init__(self, stream: BinaryIO, show: Sequence[str], images: ImageOptions) -> None:
        self._stream, self._show, self._images = stream, show, images
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
        shown = _shown(record, self._show)
        quality = self._images.quality
        self._stream.write(encode_image(str(self._images.suffix), *shown, record.attrs, quality))
        self._stream.flush()
        self._written = True


class ImageFolder(_Images):
    """A folder of images and films with the records' relative names and their files' suffixes.

    If files of a format are not written, as of RAW photos and GIF, see `written_suffix`.
    """

    def __init__(
        self,
        folder: Path,
        show: Sequence[str],
        force: bool = False,
        images: ImageOptions = ImageOptions(),
        films: FilmOptions = FilmOptions(),
        resume: bool = False,
    ) -> None:
        super().__init__(show, force, images, films, resume)
        self._folder = folder
        tidy(folder)

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
            return self._folder / name
        return self._folder / f"{name}{suffix}"


class ImageFile(_Images):
    """A single image file, for a single record, or a single film."""

    def __init__(
        self,
        file: Path,
        show: Sequence[str],
        force: bool = False,
        images: ImageOptions = ImageOptions(),
        films: FilmOptions = FilmOptions(),
        resume: bool = False,
    ) -> None:
        super().__init__(show, force, images, films, resume)
        self._file = file

    def path(self, record: Record) -> Path:
        """Return the file, whatever the record."""
        return self._file

    def claim(self, record: Record) -> None:
        """Raise UsageError for a second image or film, and for a film in a file of an image."""
        source, is_first = self._source(record), self._file not in self._written
        if source is None:
            if self._file.suffix.lower() in FILM_SUFFIXES:
                raise UsageError(f"-o {self._file} is a film, but {record.name} is an image")
            if not is_first:
                raise UsageError(
                    f"-o {self._file} is one image, but there are more; name a folder/"
                )
        elif not can_write(self._file.suffix.lower(), source):
            raise UsageError(f"-o {self._file} cannot hold the film {source}; name a folder/")
        elif self._film is not None and not self._film.takes(self._file, record):
            raise UsageError(f"-o {self._file} is one film, but there are more; name a folder/")
        super().claim(record)


class ImagesBeside(_Images):
    """Writes each image next to its source file: photo.jpg gives photo.LABEL.jpg.

    Records with an attribute `frame` come from the same file: photo.LABEL-FRAME.jpg.
    """

    def __init__(
        self,
        show: Sequence[str],
        label: str,
        force: bool = False,
        images: ImageOptions = ImageOptions(),
        films: FilmOptions = FilmOptions(),
        resume: bool = False,
    ) -> None:
        super().__init__(show, force, images, films, resume)
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


class ShardFolder(Sink):
    """Writes numbered shards to a folder, one series per split (`train-00000.h5`, ...).

    A shard is closed when its images exceed `max_bytes`. `resume` keeps existing whole shards and
    continues after them; `finished` then lists the names of their records by split. None means that
    the command cannot resume. With `force`, existing shards stay until all new ones, which are
    collected in a hidden folder, are whole; then all are replaced, if need be by the next run.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = 1 << 30,
        force: bool = False,
        resume: bool | None = False,
        compression: str | None = None,
        part: str = "",
    ) -> None:
        self.folder, self.max_bytes = folder, max_bytes
        self.compression, self._part = compression, part
        self.finished: dict[str, list[str]] = {}
        self.paths: list[Path] = []
        self._writers: dict[str, ShardWriter] = {}
        self._numbers: dict[str, int] = {}
        self._bytes: dict[str, int] = {}
        self._plan = folder / f".{part}{REPLACING}"
        tidy(folder)
        finish_replacement(self._plan)
        present = self._present()
        if present and resume:
            for path in present:
                self._adopt(path)
        elif present and not force:
            ways = "" if resume is None else "--resume to continue them or "
            raise BlurkitError(
                f"{folder}/ holds {len(present)} shards already; give {ways}--force to start over"
            )
        self._outdated = [] if resume else present
        self._unfinished = folder / f".{part}unfinished"
        shutil.rmtree(self._unfinished, ignore_errors=True)  # left by a run that was killed

    def is_done(self, record: Record) -> bool:
        """Return whether a whole shard of an earlier run holds a record of this name."""
        return any(record.name in names for names in self.finished.values())

    def path(self, record: Record) -> Path:
        """Return the folder."""
        return self.folder

    def _present(self) -> list[Path]:
        """Return the folder's shards of this series; other parts' and other files are skipped."""
        if not self.folder.is_dir():
            return []
        return [
            p for p in walk(self.folder, (".h5",)) if p.parent == self.folder and self._parse(p)
        ]

    def _parse(self, path: Path) -> tuple[str, int] | None:
        """Return the split and number of a shard of this part's series, otherwise None."""
        match = re.fullmatch(r"(.+?)-(p\d+of\d+-)?(\d{5,})", path.stem)
        if match is None or (match[2] or "") != self._part:
            return None
        return match[1], int(match[3])

    def _adopt(self, path: Path) -> None:
        parsed = self._parse(path)
        assert parsed is not None
        split, number = parsed
        self.finished.setdefault(split, []).extend(r.name for r in read_shard(path))
        self._numbers[split] = max(self._numbers.get(split, 0), number + 1)
        self.paths.append(path)

    def write(self, record: Record) -> None:
        """Append the record to its split's current shard; records without a split are `train`.

        Raises BlurkitError if the split is not a plain word, because it becomes part of a file
        name.
        """
        split = str(record.attrs.get("split") or "train")
        if len(safe_name(split).parts) > 1:
            raise BlurkitError(f"record {record.name!r}: split {split!r} is not a plain name")
        if split in self._writers and self._bytes[split] + record.bytes > self.max_bytes:
            self._close(split)
        if split not in self._writers:
            number = self._numbers.get(split, 0)
            folder = self._unfinished if self._outdated else self.folder
            path = folder / f"{split}-{self._part}{number:05d}.h5"
            self._writers[split] = ShardWriter(path, True, self.compression)
            self._numbers[split] = number + 1
            self._bytes[split] = 0
        self._writers[split].write(record)
        self._bytes[split] += record.bytes

    def _close(self, split: str) -> None:
        writer = self._writers[split]
        writer.close()  # a writer that fails stays, and fails again at the end
        self.paths.append(self._writers.pop(split).path)

    def finish(self) -> None:
        """Close every shard; with `force`, the new ones then replace the old ones."""
        try:
            for split in list(self._writers):
                self._close(split)
            if self._outdated and self.paths:
                self.paths = replace_set(self._plan, self.paths, self._outdated)
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Remove the unfinished shards; the whole ones stay."""
        for writer in self._writers.values():
            writer.abandon()
        shutil.rmtree(self._unfinished, ignore_errors=True)
