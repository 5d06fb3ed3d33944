"""Sources: how every command reads its records, wherever they are stored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import BinaryIO

from blurkit.data.films import film_records, has_films
from blurkit.data.layouts import find_scenes
from blurkit.data.places import Scene, free_name
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import is_image, shown_suffixes, why_unread
from blurkit.io.images import image_record, read_image
from blurkit.io.paths import walk
from blurkit.io.records import Record
from blurkit.io.shards import SHARD_SUFFIXES, is_shard, read_shard, stated_end
from blurkit.io.streams import read_stream, standard_input

STREAM = "-"


@dataclass(frozen=True)
class Packed:
    """Records in a shard file, or in the stream on standard input (`-`).

    If there is an image file on standard input, it gets the role `image`.
    """

    source: str
    image: str = "blur"


@dataclass
class Items:
    """The items of some inputs, each folder's layout in words, and what was skipped and why.

    `unmatched` describes list files that name no image of their folder, see `Scenes`. Items are
    not opened yet; they can be pickled and loaded anywhere.
    """

    items: list[Scene | Packed] = field(default_factory=list)
    layouts: list[str] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)
    unmatched: list[str] = field(default_factory=list)


def find_items(
    inputs: Sequence[str | Path],
    *,
    image: str = "blur",
    blur: str = "blur",
    lists: Sequence[Path] | None = None,
) -> Items:
    """Find the items of `inputs`, in order: image files, folders, dataset trees, shards, `-`.

    Single images and photos without partners get the role `image`; `blur` and `lists` are as for
    `find_scenes`, but by default no list file is read at all. A name that an earlier input has
    already taken is prefixed with the name of its folder. A missing or unsupported input is listed
    in `left_out`, and the others are still searched. Raises UsageError if lists are combined with
    anything but one folder, or if `-` is named twice.
    """
    paths = [str(path) for path in inputs]
    if paths.count(STREAM) > 1:
        raise UsageError("standard input can be read only once; name '-' once")
    if lists and not (len(paths) == 1 and Path(paths[0]).is_dir()):
        raise UsageError("list files require one input, the folder that their paths start from")
    found = Items()
    taken: set[str] = set()
    for text in paths:
        try:
            scenes = _find(text, image, blur, lists, found)
        except BlurkitError as error:
            found.left_out.append((text, str(error)))
            continue
        for scene in scenes:
            name = free_name(scene.name, Path(text), taken)
            if name is None:
                where = str(next(iter(scene.files.values())))
                found.left_out.append((where, f"{where}: the name {scene.name!r} is taken"))
            else:
                found.items.append(replace(scene, name=name))
    return found


def load_scene(scene: Scene) -> Record:
    """Return the record of one scene: images, attributes, and what is known of `split`,
    `split_source` and `sequence`.

    Raises BlurkitError if an image cannot be read or the images differ in size.
    """
    record = image_record(scene.name, {role: read_image(p) for role, p in scene.files.items()})
    record.check_one_size(*scene.files)
    source = scene.split_source if scene.split else None
    known = {"split": scene.split, "split_source": source, "sequence": scene.sequence}
    record.attrs |= {key: value for key, value in known.items() if value is not None}
    return record


def scene_records(scene: Scene, on_error: OnError = raise_error) -> Iterator[Record]:
    """Yield the record of a scene of images, or the records of the frames of its films.

    Items that cannot be read are reported to `on_error`.
    """
    if has_films(scene):
        yield from film_records(scene, on_error)
        return
    try:
        record = load_scene(scene)
    except BlurkitError as error:
        on_error(scene.name, error)
    else:
        yield record


def read_records(
    inputs: Sequence[str | Path],
    *,
    image: str = "blur",
    blur: str = "blur",
    lists: Sequence[Path] | None = None,
    on_error: OnError = raise_error,
    stdin: BinaryIO | None = None,
    part: tuple[int, int] | None = None,
) -> Iterator[Record]:
    """Yield the records of `inputs`, one in memory at a time.

    `image`, `blur` and `lists` are as for `find_items`. `stdin` replaces standard input for `-`.
    `part=(i, n)` takes every n-th record from the i-th on (i from 1), so that n machines can divide
    the work; images of other parts are not opened, and a film is one record. Skipped inputs and
    items that cannot be read are reported to `on_error`, and reading continues. Raises UsageError
    as `find_items` does.
    """
    found = find_items(inputs, image=image, blur=blur, lists=lists)
    for where, reason in found.left_out:
        on_error(where, BlurkitError(reason))
    first, parts = part or (1, 1)
    mine = (number % parts == first - 1 for number in count())
    for item in found.items:
        if isinstance(item, Packed):
            yield from (r for r in unpack(item, on_error, stdin) if next(mine))
        elif next(mine):
            yield from scene_records(item, on_error)


def unpack(
    item: Packed,
    on_error: OnError = raise_error,
    stdin: BinaryIO | None = None,
    pixels: bool = True,
) -> Iterator[Record]:
    """Yield the records of a shard file, a stream saved to a file, or standard input.

    Without `pixels`, a shard's images have only their shapes and types and are not read.
    """
    if item.source == STREAM:
        yield from read_stream(stdin or standard_input(), on_error, item.image)
        return
    path = Path(item.source)
    try:
        with path.open("rb") as file:
            # A stream saved to a file continues after the end of its first shard.
            if stated_end(file.read(64), item.source) < path.stat().st_size:
                file.seek(0)
                yield from read_stream(file, on_error)
                return
    except OSError as error:
        on_error(item.source, BlurkitError(f"{path}: cannot be read ({error.strerror})"))
    except BlurkitError as error:
        on_error(item.source, error)
    else:
        yield from read_shard(path, on_error, pixels)


def parse_part(text: str) -> tuple[int, int]:
    """Return `2/8` as (2, 8), the second of eight parts. Raises UsageError for anything else."""
    first, slash, parts = text.partition("/")
    if not (slash and first.isdecimal() and parts.isdecimal() and 1 <= int(first) <= int(parts)):
        raise UsageError(f"--part {text}: write I/N with I from 1 to N, such as 2/8")
    return int(first), int(parts)


def _find(
    text: str, image: str, blur: str, lists: Sequence[Path] | None, found: Items
) -> list[Scene]:
    """Return the scenes of one input; add shards and streams to `found`."""
    if not text:  # Path would take it for the current folder
        raise BlurkitError("an input has an empty name; give a file, a folder or -")
    path = Path(text)
    if text == STREAM or (is_shard(path) and path.is_file()):
        found.items.append(Packed(text, image) if text == STREAM else Packed(text))
        return []
    if path.is_dir():
        return _find_in_folder(path, image, blur, lists, found)
    if not path.exists():
        raise BlurkitError(f"{text}: no such file or folder")
    if not is_image(path) and path.suffix.lower() not in FILM_SUFFIXES:
        films, shards = " ".join(sorted(FILM_SUFFIXES)), " ".join(sorted(SHARD_SUFFIXES))
        known = f"known suffixes are {shown_suffixes()} {films} {shards}"
        reason = why_unread(path.suffix.lower()) or known
        raise BlurkitError(f"{text}: is not an image, film or shard that can be read; {reason}")
    return [Scene(path.stem, {image: path})]


def _find_in_folder(
    folder: Path, image: str, blur: str, lists: Sequence[Path] | None, found: Items
) -> list[Scene]:
    scenes = find_scenes(folder, blur, lists, unpaired_as=image)
    found.unmatched += scenes.unmatched
    shards = walk(folder, SHARD_SUFFIXES)
    if shards and (scenes.scenes or scenes.left_out):
        raise BlurkitError(f"{folder}: holds both images and shards; name a folder of one kind")
    if shards:
        found.items += [Packed(str(path)) for path in shards]
        found.layouts.append(f"{folder}: {len(shards)} shards")
        return []
    if not (scenes.scenes or scenes.left_out or scenes.unmatched):
        raise BlurkitError(f"{folder}: holds no image and no shard")
    found.layouts.append(f"{folder}: {scenes.layout}, {len(scenes.scenes)} scenes")
    found.left_out += [(where, f"{where}: {reason}") for where, reason in scenes.left_out]
    return scenes.scenes
