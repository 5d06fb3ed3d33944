"""Collections of records that can be read one at a time, in any order, as often as needed."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from blurkit.data.films import film_records, has_films
from blurkit.data.pairs import are_two_sides, find_two_sides
from blurkit.data.places import Scene
from blurkit.data.sources import Packed, find_items, load_scene, unpack
from blurkit.errors import BlurkitError, OnError, raise_error
from blurkit.io.records import Record
from blurkit.io.shards import read_record, record_keys
from blurkit.io.streams import ShardWriter

Fetch = Callable[[], Record]


class Collection(Sequence[Record]):
    """The records of some inputs, none of them held in memory.

    `len()` counts the records, and `[i]` reads one, raising BlurkitError if that fails; `places`
    names the location of each. Photos and shards are read where they are; streams and the frames of
    films, which can be read only in order, are copied to a temporary shard.
    """

    def __init__(self, fetches: Sequence[tuple[str, Fetch]]) -> None:
        self.places = [place for place, _ in fetches]
        self._fetches = [fetch for _, fetch in fetches]

    def __len__(self) -> int:
        return len(self._fetches)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        return self._fetches[index]()


def collect(
    inputs: Sequence[str],
    *,
    image: str = "blur",
    on_error: OnError = raise_error,
    stdin: BinaryIO | None = None,
) -> Collection:
    """Collect the records that `read_records` reads from `inputs`; single images get role `image`.

    Skipped inputs and shards that cannot be opened are reported to `on_error`.
    """
    found = find_items(inputs, image=image)
    for where, reason in found.left_out:
        on_error(where, BlurkitError(reason))
    fetches: list[tuple[str, Fetch]] = []
    for item in found.items:
        if isinstance(item, Packed):
            fetches += _packed(item, on_error, stdin)
        else:
            fetches += scene_fetches(item, on_error)
    return Collection(fetches)


def collect_pairs(
    inputs: Sequence[str],
    roles: tuple[str, str] = ("blur", "sharp"),
    on_error: OnError = raise_error,
    stdin: BinaryIO | None = None,
) -> Collection:
    """Act as `collect`, but pair two folders or two image files as the two `roles`."""
    if are_two_sides(inputs):
        scenes = find_two_sides(inputs[0], inputs[1], roles, on_error)
        return Collection([f for scene in scenes for f in scene_fetches(scene, on_error)])
    return collect(inputs, image=roles[0], on_error=on_error, stdin=stdin)


def scene_fetches(scene: Scene, on_error: OnError) -> list[tuple[str, Fetch]]:
    """Return the name of a scene and a function that reads it, or those of its films' frames."""
    if not has_films(scene):
        return [(scene.name, partial(load_scene, scene))]
    spool = _Spool(film_records(scene, on_error))
    return [(name, partial(spool.read, key)) for key, name in spool.names.items()]


def _packed(item: Packed, on_error: OnError, stdin: BinaryIO | None) -> list[tuple[str, Fetch]]:
    """Return fetches for the records of a shard, or of a source that is first read to its end."""
    if item.source != "-":
        path = Path(item.source)
        try:
            keys = record_keys(path)
            return [(f"{path}, record {key}", partial(read_record, path, key)) for key in keys]
        except BlurkitError:
            pass  # truncated, or a stream saved to a file: read what can be read
    spool = _Spool(unpack(item, on_error, stdin))
    return [(f"{item.source}, record {key}", partial(spool.read, key)) for key in spool.names]


class _Spool:
    """A temporary shard of records that can be read only once, deleted with its last reference."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="blurkit-")
        self._path = Path(self._folder.name) / "records.h5"
        names = []
        with ShardWriter(self._path) as writer:
            for record in records:
                writer.write(record)
                names.append(record.name)
        self.names = dict(zip(record_keys(self._path), names, strict=True)) if names else {}

    def read(self, key: str) -> Record:
        return read_record(self._path, key)
