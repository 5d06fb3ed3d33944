"""Collections of records, pairs and runs, read in any order, as often as needed."""

import re
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Container, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from itertools import product, takewhile
from pathlib import Path
from typing import TypeVar

import numpy as np

from blurkit.data.films import film_records, has_films
from blurkit.data.layouts import image_files, sharp_beside
from blurkit.data.places import ROLE_FOLDER, WHOLE, Scene, WorkPart
from blurkit.data.sources import (
    RecordStream,
    ShardSource,
    find_items,
    is_stream,
    load_scene,
    read_shard_source,
)
from blurkit.errors import BlurkitError, OnError, Say, UsageError, raise_error
from blurkit.io.films import FILM_SUFFIXES
from blurkit.io.formats import ending, is_image
from blurkit.io.paths import composed, results_among
from blurkit.io.records import Image, Record
from blurkit.io.shards import is_shard, read_record, record_keys
from blurkit.io.streams import ShardWriter

Fetch = Callable[[], Record]


class RecordList(Sequence[Record]):
    """The records of some inputs, none of them held in memory.

    `[i]` reads one, raising BlurkitError if that fails; `places` names where each is. Streams and
    the frames of films, which can be read only in order, are copied to a temporary shard.
    """

    def __init__(self, fetches: Sequence[tuple[str, Fetch]]) -> None:
        self.places = [place for place, _ in fetches]
        self._fetches = [fetch for _, fetch in fetches]

    def __len__(self) -> int:
        return len(self._fetches)

    def __getitem__(self, index: int) -> Record:  # type: ignore[override]
        return self._fetches[index]()


def collect(
    inputs: Sequence[str], *, image: str = "blur", on_error: OnError = raise_error
) -> RecordList:
    """Collect the records that `read_records` would read; `on_error` is told what was skipped."""
    found = find_items(inputs, image=image)
    found.report(on_error)
    fetches: list[tuple[str, Fetch]] = []
    for item in found.items:
        if isinstance(item, ShardSource):
            fetches += _packed(item, on_error)
        else:
            fetches += scene_fetches(item, on_error)
    return RecordList(fetches)


def collect_pairs(
    inputs: Sequence[str],
    roles: tuple[str, str] = ("blur", "sharp"),
    on_error: OnError = raise_error,
) -> RecordList:
    """Act as `collect`, but pair two folders or two image files as the two `roles`."""
    if are_two_sides(inputs):
        scenes = find_two_sides(inputs[0], inputs[1], roles, on_error)
        return RecordList([f for scene in scenes for f in scene_fetches(scene, on_error)])
    return collect(inputs, image=roles[0], on_error=on_error)


def scene_fetches(scene: Scene, on_error: OnError) -> list[tuple[str, Fetch]]:
    """Return the name of a scene and a function that reads it, or those of its films' frames."""
    try:
        if not has_films(scene):
            return [(scene.name, partial(load_scene, scene))]
    except BlurkitError as error:
        on_error(scene.name, error)
        return []
    spool = _Spool(film_records(scene, on_error))
    return [(name, partial(spool.read, key)) for key, name in spool.names.items()]


def _packed(item: ShardSource, on_error: OnError) -> list[tuple[str, Fetch]]:
    """Return fetches for the records of a shard, or of a source that is first read to its end."""
    if not is_stream(item.source):
        path = Path(item.source)
        with suppress(BlurkitError):  # truncated, or a stream saved to a file: read what there is
            keys = record_keys(path)
            return [(f"{path}, record {key}", partial(read_record, path, key)) for key in keys]
    spool = _Spool(read_shard_source(item, on_error))
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


# ---- Runs of a scene -----------------------------------------------------------------------------


class RestorationRuns:
    """Runs of restored images and their `reference`: folders or whole shards, not held in memory.

    Without a `reference`, the runs are only put side by side. Scenes are matched by name, if need
    be as `renamed` does, which gets `say`. `names` are those that occur in all runs, the reference
    and `blurry`; other names are reported to `on_error`. The blurry images come from `blurry`, or
    else from the reference if it holds them.

    Raises UsageError for a stream and for a run that is named twice, BlurkitError if a source is
    empty or cannot be read, or if no name is common to all.
    """

    def __init__(
        self,
        runs: Sequence[str],
        reference: str | None,
        blurry: str | None = None,
        on_error: OnError = raise_error,
        say: Say = lambda _: None,
    ) -> None:
        if any(map(is_stream, filter(None, (*runs, reference, blurry)))):
            raise UsageError("a stream cannot be paired by name; name folders or shards instead")
        if len(set(runs)) < len(runs):
            raise UsageError("a run is named twice; name each once")
        self._on_error = on_error
        self.runs = tuple(runs)
        self._reference: dict[str, Fetch] = {}
        if reference is not None:
            refuse_reference(reference)
            self._reference = _index(reference, "sharp", on_error)

        def side(source: str, image: str) -> dict[str, Fetch]:
            found, names = _index(source, image, on_error), self._reference
            return renamed(found, names, source, say) if names else found

        self._sides = {run: side(run, "restored") for run in runs}
        self._blurry = side(blurry, "blur") if blurry else {}
        others = {reference: self._reference, blurry: self._blurry}
        sides = self._sides | {source: found for source, found in others.items() if source}
        everything = dict.fromkeys(name for side in sides.values() for name in side)
        self.names = [name for name in everything if all(name in side for side in sides.values())]
        if not self.names:
            examples = ", ".join(f"{where} has {next(iter(side))}" for where, side in sides.items())
            raise BlurkitError(f"no image name is common to all: {examples}")
        for name in everything:
            if missing := [where for where, side in sides.items() if name not in side]:
                on_error(name, BlurkitError(f"{name}: no image of that name in {missing[0]}"))

    def part(self, part: WorkPart, without: Container[str] = ()) -> Iterator[dict[str, Record]]:
        """Yield `load` of the scenes in `part` but not in `without`; errors go to `on_error`."""
        part = part.among(self.names)
        for name in self.names:
            if name in part and name not in without:
                try:
                    yield self.load(name)
                except BlurkitError as error:
                    self._on_error(name, error)

    def load(self, name: str) -> dict[str, Record]:
        """Return each run's record of the scene `name`: `restored`, `sharp` and, if known, `blur`.

        Raises BlurkitError if an image cannot be read.
        """
        reference, shared = Record(name, {}), dict[str, Image]()
        if self._reference:
            reference = self._reference[name]()
            shared["sharp"] = reference.image("sharp")
        if self._blurry:
            shared["blur"] = self._blurry[name]().image("blur")
        elif "blur" in reference.images:
            shared["blur"] = reference.images["blur"]
        loaded = {run: fetches[name]() for run, fetches in self._sides.items()}
        # Facts about the scene, such as its sequence, are the same for all runs.
        both = (*loaded.values(), reference)
        sequence = {k: v for r in both for k, v in r.attrs.items() if k == "sequence"}
        compared = None if "blur" in reference.images else shared.get("sharp")
        records = {}
        for run, record in loaded.items():
            given = record.images.get("blur")
            if given is not None and compared is not None and np.array_equal(given, compared):
                raise BlurkitError(f"{name}: the reference {RESTORED_ITSELF}")
            images = {"restored": record.image("restored", "reblurred", "blur"), **shared}
            records[run] = Record(name, images, {**record.attrs, **reference.attrs, **sequence})
        return records


def side_by_side_record(scene: Mapping[str, Record]) -> Record:
    """Return a scene's blurry image, each run's restored one, and the sharp one, if known."""
    first = next(iter(scene.values()))
    restored = {f"run {n}": r.images["restored"] for n, r in enumerate(scene.values(), 1)}
    blur = {"blur": first.images["blur"]} if "blur" in first.images else {}
    sharp = {"sharp": first.images["sharp"]} if "sharp" in first.images else {}
    return Record(first.name, {**blur, **restored, **sharp})


def _index(source: str, image: str, on_error: OnError) -> dict[str, Fetch]:
    """Return a function per name that reads the record; of shards, only names are read now."""
    inputs = find_items([source], image=image)
    fetches: dict[str, Fetch] = {}
    for item in inputs.items:
        if isinstance(item, ShardSource):
            path = Path(item.source)
            keys = record_keys(path)
            for key, record in zip(keys, read_shard_source(item, pixels=False), strict=True):
                fetches[composed(record.name)] = partial(read_record, path, key)
        else:
            fetches |= scene_fetches(item, on_error)
    if not fetches:
        why = next((reason for _, reason in inputs.left_out), f"{source}: holds no image")
        raise BlurkitError(why)
    inputs.report(on_error)
    return fetches


# ---- Names that mean one image -------------------------------------------------------------------

_T = TypeVar("_T")


def renamed(side: Mapping[str, _T], names: Collection[str], where: str, say: Say) -> dict[str, _T]:
    """Return `side` with its keys replaced by those of `names` that mean the same image.

    `a-b` and `a_b` mean `a/b`, and words for a role mean nothing (`scene1/blur_2`). An ending that
    all names of a side share may be left out, if more have a partner then: `0001_NAFNet-test`. If
    no image has, a name without folders means the only one that ends so: HIDE's sharp images are in
    one folder. Keys that could mean several names stay as they are. `say` is told of changes.
    """
    own = _by_words(name for name in side if name not in names)
    other = _by_words(name for name in names if name not in side)
    partners: dict[str, str] = {}
    endings = product(range(_shared_ending(side) + 1), range(_shared_ending(names) + 1))
    for first, second in sorted(endings, key=sum):
        cut = {words[: -second or None]: name for words, name in other.items()}
        if len(cut) < len(other):
            continue
        found = {n: cut[w[: -first or None]] for w, n in own.items() if w[: -first or None] in cut}
        if len({*found.values()}) == len(found) > len(partners):
            partners = found
    if not partners and not any(name in names for name in side):
        partners = _without_folders(side, names)
    for name, partner in [*partners.items()][:1]:
        say(f"{where}: {len(partners)} paired by names that differ, such as {name} with {partner}")
    return {partners.get(name, name): value for name, value in side.items()}


def _words(name: str) -> tuple[str, ...]:
    words = re.split(r"[/_.\-]+", name)
    return tuple(word for word in words if not ROLE_FOLDER.fullmatch(word.lower()))


def _by_words(names: Iterator[str]) -> dict[tuple[str, ...], str]:
    """Return the names by their words, without those that have the same ones."""
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        found[_words(name)].append(name)
    return {words: same[0] for words, same in found.items() if len(same) == 1}


def _without_folders(side: Collection[str], names: Collection[str]) -> dict[str, str]:
    """Return the names of a side by those with the same last part, if one of the two is no more."""
    ends = [Counter(name.rpartition("/")[2] for name in some) for some in (side, names)]
    other = {name.rpartition("/")[2]: name for name in names}
    found = {}
    for name in side:
        end = name.rpartition("/")[2]
        if ends[0][end] == ends[1][end] == 1 and (end == name) != (end == other[end]):
            found[name] = other[end]
    return found


def _shared_ending(names: Collection[str]) -> int:
    """Return how many last words all names have in common, leaving each at least one."""
    words = [_words(name)[::-1] for name in names]
    same = takewhile(lambda column: len({*column}) == 1, zip(*words, strict=False))
    return max(0, min([len([*same]), *(len(own) - 1 for own in words)]))


# ---- Pairs ---------------------------------------------------------------------------------------


def are_two_sides(inputs: Sequence[str]) -> bool:
    """Return whether `inputs` are two folders without shards, two images or two films."""
    if len(inputs) != 2 or "-" in inputs:
        return False
    first, second = map(Path, inputs)
    if first.is_dir() and second.is_dir():
        return not any(is_shard(path) for path in [*first.iterdir(), *second.iterdir()])
    return all(is_image(path) or ending(path) in FILM_SUFFIXES for path in (first, second))


def find_two_sides(
    first: str,
    second: str,
    roles: tuple[str, str],
    on_error: OnError = raise_error,
    say: Say = lambda _: None,
) -> list[Scene]:
    """Find the scenes with the image `roles[0]` in `first` and `roles[1]` in `second`.

    Both are folders or both are files. Images in folders are paired by name, which is their
    relative path without suffix, or their scene's in a dataset, if need be as `renamed` does. A
    dataset gives its images of the role; if the first has only `roles[1]`, the two change places.
    Images without a partner are reported to `on_error`. Raises BlurkitError if a side is missing.
    """
    for side in (first, second):
        if not Path(side).exists():
            raise BlurkitError(f"{side}: no such file or folder")
    if Path(first).is_file():
        names, scenes = [composed(Path(first).stem)], list[list[Scene]]()
        sides = [dict.fromkeys(names, Path(first)), dict.fromkeys(names, Path(second))]
    else:
        found = [find_items([first], image=roles[0]), find_items([second], image=roles[1])]
        for inputs in found:
            inputs.report(on_error)
        scenes = [[s for s in side.items if isinstance(s, Scene)] for side in found]
        if _are_pairs(scenes[0], roles) and not _are_pairs(scenes[1], roles):
            first, second, scenes = second, first, scenes[::-1]
        sides = [
            {scene.name: scene.files.get(role, scene.paths[0]) for scene in side}
            for side, role in zip(scenes, roles, strict=True)
        ]
        sides[0] = renamed(sides[0], sides[1], first, say)
    pairs = {name: (path, sides[1][name]) for name, path in sides[0].items() if name in sides[1]}
    others = _other_splits(scenes, {path for files in pairs.values() for path in files})
    left_out: Counter[str] = Counter()
    for name, path in (sides[0] | sides[1]).items():
        if split := others.get(path):
            left_out[split] += 1
        elif name not in pairs:
            where = second if name in sides[0] else first
            on_error(name, BlurkitError(f"{path}: no partner of that name in {where}"))
    for split, number in left_out.items():
        say(f"{number} of the split {split} are left out: no image of it has a partner")
    return [Scene(name, dict(zip(roles, files, strict=True))) for name, files in pairs.items()]


def _other_splits(sides: Sequence[Sequence[Scene]], paired: set[Path]) -> dict[Path, str]:
    """Return the files in splits of which no file is `paired`, but those of another split are."""
    others: dict[Path, str] = {}
    for scenes in sides:
        known = {scene.split for scene in scenes if not paired.isdisjoint(scene.paths)}
        left_out = (scene for scene in scenes if known and scene.split not in known)
        others |= {path: scene.split for scene in left_out if scene.split for path in scene.paths}
    return others


RESTORED_ITSELF = "is the very picture that was restored; name the sharp one to compare with"


def _are_pairs(scenes: Sequence[Scene], roles: tuple[str, str]) -> bool:
    """Return whether these are pairs of a dataset that has images of the second role alone."""
    return any(len(s.files) > 1 and roles[1] in s.files and roles[0] not in s.files for s in scenes)


def refuse_reference(source: str) -> None:
    """Raise BlurkitError if `source`, named as sharp, is on the blurred side of a dataset."""
    path = Path(source)
    if path.exists() and (sharp := sharp_beside(path if path.is_dir() else path.parent)):
        stems = {file.stem for file in image_files(sharp)}
        if any(file.stem in stems for file in (image_files(path) if path.is_dir() else [path])):
            raise BlurkitError(
                f"{source}: holds blurred pictures, whose sharp ones are in {sharp}; to compare "
                f"with these, name it, or {sharp.parent}"
            )


def refuse_unpaired(inputs: Sequence[str], image: str, needed: str, remedy: str) -> None:
    """Raise BlurkitError if no record of the inputs can hold an image with the role `needed`.

    `image` is as for `find_items`; `remedy` says what to do.
    """
    found = find_items(inputs, image=image)
    lacking = [item for item in found.items if isinstance(item, Scene) and needed not in item.files]
    if found.items and not found.left_out and len(lacking) == len(found.items):
        raise BlurkitError(
            f"{' '.join(inputs)}: holds no pair of a sharp and a blurry image{remedy}"
        )


def read_two_sides(
    first: str,
    second: str,
    part: WorkPart = WHOLE,
    on_error: OnError = raise_error,
    roles: tuple[str, str] = ("restored", "sharp"),
    say: Say = lambda _: None,
) -> RecordStream:
    """Return a record for each pair of `find_two_sides` that is in `part`, films frame by frame.

    Images that cannot be read and pairs of different sizes are reported to `on_error` too. Raises
    BlurkitError if the second images, which are sharp, are those that were restored.
    """
    scenes = find_two_sides(first, second, roles, on_error, say)
    for pair in (scene.paths for scene in scenes):
        if pair[0] == pair[1] or results_among(pair) == [pair[0]]:
            raise BlurkitError(f"{pair[1]}: {RESTORED_ITSELF}")
    if scenes:
        refuse_reference(str(scenes[0].paths[1].parent))
    return RecordStream(scenes, part, on_error)
