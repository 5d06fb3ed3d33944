"""Sources: how every command reads its records, wherever they are stored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

from blurkit.data.films import film_records, has_films, scene_length
from blurkit.data.layouts import find_scenes, is_archive, read_picture
from blurkit.data.places import WHOLE, Found, Scene, WorkPart, free_name
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import IMAGE_SUFFIXES, UNREAD_SUFFIXES, ending, is_image, why_unread
from blurkit.io.images import image_record
from blurkit.io.paths import composed, distinct, normal, reading_errors, results_among, walk
from blurkit.io.records import Record
from blurkit.io.shards import SHARD_SUFFIXES, is_shard, read_shard, record_keys, stated_end
from blurkit.io.streams import read_stream, standard_input

STREAM = "-"
STDIN_NAMES = ("/dev/stdin", "/dev/fd/0", "/proc/self/fd/0")
OPEN_FILES = (Path("/dev"), Path("/dev/fd"), Path("/proc/self/fd"))
"""Folders of names for files that are open."""


def is_stream(source: str) -> bool:
    """Return whether a source can be read only once: `-`, a pipe, or what /dev names.

    A pipe with the suffix of a film is none: films are read from files only.
    """
    path = Path(source)
    special = path.exists() and not (path.is_file() or path.is_dir())
    named = path.parent in OPEN_FILES or (special and path.suffix.lower() not in FILM_SUFFIXES)
    return source == STREAM or named


@dataclass(frozen=True)
class ShardSource:
    """Records in a shard file, or on standard input (`-`), where an image gets the role `image`."""

    source: str
    image: str = "blur"
    split: ClassVar[str | None] = None  # each record has its own
    paths: ClassVar[tuple[Path, ...]] = ()


def find_items(
    inputs: Sequence[str | Path],
    *,
    image: str = "blur",
    blur: str = "blur",
    lists: Sequence[Path] | None = None,
) -> Found[Scene | ShardSource]:
    """Find the items of `inputs`, in order: image files, folders, dataset trees, shards, `-`.

    Single images and photos without partners get the role `image`; `blur` and `lists` are as for
    `find_scenes`, but by default no list file is read at all. `_names` makes names unique. A
    missing or unsupported input is listed in `left_out`, and the others are still searched. Raises
    UsageError if lists are combined with anything but one folder, or if `-` is named twice.
    """
    scenes = partial(find_scenes, blur=blur, lists=lists, unpaired_as=image)
    paths = [STREAM if str(path) in STDIN_NAMES else str(path) for path in inputs]
    if paths.count(STREAM) > 1:
        raise UsageError("standard input can be read only once; name '-' once")
    if lists and not (len(paths) == 1 and Path(paths[0]).is_dir()):
        raise UsageError("list files require one input, the folder that their paths start from")
    named = [Path(text) for text in paths if Path(text).is_file()]
    found: Found[Scene | ShardSource] = Found(results=results_among(named))
    entries: list[tuple[Path, Scene | ShardSource]] = []
    for text in paths:
        try:
            if Path(text) not in found.results:
                entries += [(Path(text), item) for item in _find(text, image, scenes, found)]
        except BlurkitError as error:
            found.left_out.append((text, str(error)))
    names = _names([(source, item) for source, item in entries if isinstance(item, Scene)])
    taken: set[str] = set()
    for source, item in entries:
        if isinstance(item, ShardSource):
            found.items.append(item)
        elif name := free_name(names[item.paths], source, taken):
            found.items.append(replace(item, name=name))
        else:
            where = str(item.paths[0])
            found.left_out.append((where, f"{where}: the name {item.name!r} is taken"))
    return found


def part_among(part: WorkPart, items: Sequence[Scene | ShardSource]) -> WorkPart:
    """Return an even part of items, or of streams, whose names are not known, one by names."""
    if part == WHOLE or any(isinstance(i, ShardSource) and is_stream(i.source) for i in items):
        return part
    shards = outlines(item for item in items if isinstance(item, ShardSource))
    names = [item.name for item in items if isinstance(item, Scene)]
    return part.among([*names, *map(result_name, shards)])


def result_name(record: Record) -> str:
    """Return the name of what a record becomes when it is written, of a frame that of its film."""
    return str(record.attrs.get("film", record.name))


def outlines(items: Iterable[Scene | ShardSource]) -> Iterator[Record]:
    """Yield the records of items without images: `without_images` of scenes, all of shards."""
    for item in items:
        if isinstance(item, Scene):
            yield without_images(item)
        else:
            yield from item_records([item], on_error=lambda where, error: None, pixels=False)


def without_images(scene: Scene) -> Record:
    """Return the record by which a sink knows a scene's file, or that of its films' first frame."""
    source = scene.paths[0]
    attrs = {"source": str(source), "suffix": ending(source)}
    with suppress(BlurkitError):  # which is reported when it is read
        attrs |= {"film": scene.name} if has_films(scene) else {}
    return Record(scene.name, {}, attrs)


def load_scene(scene: Scene, pixels: bool = True) -> Record:
    """Return the record of one scene: images, attributes, and its `split` and `sequence` if known.

    Without `pixels`, images have only shapes and types. Raises BlurkitError if an image cannot be
    read or the images differ in size.
    """
    pictures = {role: read_picture(path, pixels) for role, path in scene.files.items()}
    record = image_record(scene.name, pictures)
    record.check_one_size(*scene.files)
    if scene.split:
        record.attrs |= {"split": scene.split, "split_source": scene.split_source}
    if scene.sequence is not None:
        record.attrs["sequence"] = scene.sequence
    return record


def read_records(
    inputs: Sequence[str | Path],
    *,
    image: str = "blur",
    blur: str = "blur",
    on_error: OnError = raise_error,
    part: WorkPart = WHOLE,
) -> RecordStream:
    """Return the records of `inputs`, to be read one at a time.

    `image` and `blur` are as for `find_items`, which may raise UsageError. Only the records of
    `part` are read, a film as one. Skipped inputs and items that cannot be read are reported to
    `on_error`, and reading continues.
    """
    found = find_items(inputs, image=image, blur=blur)
    found.report(on_error)
    return RecordStream(found.items, part, on_error)


class RecordStream(Iterator[Record]):
    """The records of some items that are in `part`, one in memory at a time."""

    def __init__(
        self,
        items: Iterable[Scene | ShardSource],
        part: WorkPart = WHOLE,
        on_error: OnError = raise_error,
    ) -> None:
        items = list(items)
        part = part_among(part, items)
        self.items = [i for i in items if isinstance(i, ShardSource) or i.name in part]
        self._part = part
        # It does not refer to this object, which would keep files open until a garbage collection.
        self._read = item_records(self.items, part, on_error)

    def drop(self, unwanted: Callable[[Record], bool]) -> list[Scene]:
        """Drop the scenes whose `without_images` is `unwanted`, and return them."""
        scenes = [item for item in self.items if isinstance(item, Scene)]
        dropped = [scene for scene in scenes if unwanted(without_images(scene))]
        gone = {id(scene) for scene in dropped}
        self.items[:] = [item for item in self.items if id(item) not in gone]
        return dropped

    @property
    def total(self) -> int | None:
        """The number of records, or None if that is not known before they are read."""
        total = 0
        for item in self.items:
            if isinstance(item, ShardSource):
                if is_stream(item.source) or self._part != WHOLE:
                    return None
                try:
                    total += len(record_keys(Path(item.source)))
                except BlurkitError:  # damaged, or a stream saved to a file
                    return None
            elif (length := scene_length(item)) is None:
                return None
            else:
                total += length
        return total

    @property
    def results(self) -> int:
        """The number of images and films that become of them; of a stream, one is known."""
        found: set[str] = set()
        for item in self.items:
            if isinstance(item, Scene) or is_stream(item.source):
                found.add(item.name if isinstance(item, Scene) else item.source)
                continue
            names = map(result_name, outlines([item]))
            found.update(name for name in names if name in self._part)
        return len(found)

    def __next__(self) -> Record:
        return next(self._read)


def item_records(
    items: Iterable[Scene | ShardSource],
    part: WorkPart = WHOLE,
    on_error: OnError = raise_error,
    pixels: bool = True,
) -> Iterator[Record]:
    """Yield the records of items, films frame by frame, shards as `read_shard_source` in `part`."""
    for item in items:
        if isinstance(item, ShardSource):
            records = read_shard_source(item, on_error, pixels)
            yield from (record for record in records if result_name(record) in part)
            continue
        try:
            films = film_records(item, on_error) if has_films(item) else [load_scene(item, pixels)]
        except BlurkitError as error:
            on_error(item.name, error)
        else:
            yield from films


def read_shard_source(
    item: ShardSource, on_error: OnError = raise_error, pixels: bool = True
) -> Iterator[Record]:
    """Yield a shard's, a saved stream's or standard input's records, with `pixels` or without."""
    if item.source == STREAM:
        yield from read_stream(standard_input(), on_error, item.image)
        return
    path = Path(item.source)
    if is_stream(item.source):
        with reading_errors(path), path.open("rb") as stream:
            yield from read_stream(stream, on_error, item.image, path.name)
        return
    try:
        with reading_errors(path), path.open("rb") as file:
            # A stream saved to a file continues after the end of its first shard.
            if stated_end(file.read(64), item.source) < path.stat().st_size:
                file.seek(0)
                yield from read_stream(file, on_error)
                return
    except BlurkitError as error:
        on_error(item.source, error)
    else:
        yield from read_shard(path, on_error, pixels)


def _names(entries: Sequence[tuple[Path, Scene]]) -> dict[tuple[Path, ...], str]:
    """Return a name for the files of each scene, found in the input that is paired with it.

    It is the scene's name. Scenes that share it, which are of several inputs, get their suffix, or
    else as many names of folders above them as tell them apart.
    """
    scenes = {scene.paths: (source, scene) for source, scene in entries}
    if len({scene.name for _, scene in scenes.values()}) == len(scenes):
        return {files: scene.name for files, (_, scene) in scenes.items()}
    names = distinct([_candidates(source, scene) for source, scene in scenes.values()])
    return dict(zip(scenes, names, strict=True))


def _candidates(source: Path, scene: Scene) -> list[str]:
    """Return the names of a scene by preference: with more and more of the folders above it."""
    folder = normal(source) if source.is_dir() else normal(source).parent
    above = [*reversed(folder.parents), folder][1:]
    prefixes = ["", *(f"{folder.relative_to(top.parent).as_posix()}/" for top in reversed(above))]
    named = [scene.name]
    if len(scene.files) == 1 and composed(scene.paths[0].stem) == scene.name.rpartition("/")[2]:
        named.append(f"{scene.name}{scene.paths[0].suffix}")
    return [f"{composed(prefix)}{name}" for prefix in prefixes for name in named]


def _find(
    text: str, image: str, scenes: Callable[[Path], Found[Scene]], found: Found[Scene | ShardSource]
) -> list[Scene] | list[ShardSource]:
    """Return the items of one input; add what is known of its folder to `found`."""
    if not text:  # Path would take it for the current folder
        raise BlurkitError("an input has an empty name; give a file, a folder or -")
    path = Path(text)
    if is_stream(text) or (path.is_file() and is_shard(path)):
        return [ShardSource(text, image)]
    if path.is_dir() or is_archive(path):
        return _find_in_folder(path, scenes(path), found)
    if not path.exists():
        raise BlurkitError(f"{text}: no such file or folder")
    if not is_image(path) and ending(path) not in FILM_SUFFIXES:
        known = " ".join(sorted(IMAGE_SUFFIXES | FILM_SUFFIXES | SHARD_SUFFIXES))
        reason = why_unread(path.suffix.lower()) or f"known endings are {known}"
        raise BlurkitError(f"{text}: is not an image, film or shard that can be read; {reason}")
    return [Scene(composed(path.stem), {image: path})]


def _find_in_folder(
    folder: Path, scenes: Found[Scene], found: Found[Scene | ShardSource]
) -> list[Scene] | list[ShardSource]:
    found.unmatched += scenes.unmatched
    found.results += scenes.results

    def skip(path: Path, reason: str) -> None:
        if not path.is_dir():  # links to folders are named with the layout
            found.left_out.append((str(path), f"{path}: {reason}"))

    shards = [] if is_archive(folder) else walk(folder, SHARD_SUFFIXES, skip)
    if shards and (scenes.items or scenes.left_out):
        raise BlurkitError(f"{folder}: holds both images and shards; name a folder of one kind")
    if shards:
        found.layouts.append(f"{folder}: {len(shards)} shards")
        return [ShardSource(str(path)) for path in shards]
    if not (scenes.items or scenes.left_out or scenes.unmatched):
        raise BlurkitError(f"{folder}: holds no image and no shard")
    layout, *skipped = scenes.layouts
    found.layouts += [f"{folder}: {layout}, {len(scenes.items)} scenes", *skipped]
    found.left_out += [(where, f"{where}: {reason}") for where, reason in scenes.left_out]
    return scenes.items


# ---- What was not read ---------------------------------------------------------------------------


def unread_files(inputs: Iterable[str], but: Iterable[str] = ()) -> set[Path]:
    """Return the pictures and films in and below the folders among `inputs` that are not read.

    Files with a suffix in `but` (in lower case, with its dot) are left out.
    """
    suffixes, files = UNREAD_SUFFIXES.difference(but), set[Path]()
    for text in inputs:
        with suppress(BlurkitError, OSError):  # whoever reads the folder reports that
            if text and Path(text).is_dir():
                files.update(path.resolve() for path in walk(Path(text), suffixes))
    return files


def summary_of_results(results: Sequence[Path]) -> str:
    """Return how many files were skipped as results of commands, with examples, in one line."""
    names = ", ".join(path.name for path in results[:3]) + (", ..." if len(results) > 3 else "")
    return f"skipped {len(results)} written by blurkit itself: {names}"


def summary_of_unread(files: Iterable[Path]) -> str:
    """Return how many files were skipped, by suffix and with the reasons, in one line."""
    counts = Counter(path.suffix.lower() for path in files)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{count} {suffix} ({why_unread(suffix)})" for suffix, count in ordered]
    return f"skipped {counts.total()}: {', '.join(parts)}"
