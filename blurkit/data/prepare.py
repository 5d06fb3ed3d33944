"""Data preparation: items of any layout become finished records, in several processes."""

import re
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

from xxhash import xxh3_64_digest

from blurkit.data.films import (
    Clip,
    clip_records,
    film_records,
    find_clips,
    has_films,
    scene_length,
    windows,
)
from blurkit.data.lists import STRENGTH
from blurkit.data.places import WHOLE, Found, Scene, WorkPart
from blurkit.data.sources import ShardSource, find_items, is_stream, load_scene, read_shard_source
from blurkit.data.workers import in_order
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.films import stated_length, unfilmed
from blurkit.io.records import Image, Record, crop_record
from blurkit.io.writing import last_change
from blurkit.synthesis.averaging import Averaging
from blurkit.synthesis.drawing import Synthesis, synthesize

WorkItem = Scene | ShardSource | Clip
"""A unit of work: one scene or window of frames, or a source of many records."""


@dataclass(frozen=True)
class Preparation:
    """What is done to every record; by default, records are only read.

    `average` makes pairs from frames. `synthesis` makes `copies` blurred versions of each sharp
    photo, or else `transfer` does, a function of record and copy that is called only in this
    process. `crop` cuts tiles every `stride` pixels. `split` keeps one split; `validation` is the
    fraction of the training frames to move to `val`, and `drawn` are the sequences chosen for it.
    `measure` compares the images `blur` and `sharp` of each record for its attribute `psnr_blur`.
    """

    average: Averaging | None = None
    synthesis: Synthesis | None = None
    transfer: Callable[[Record, int], Record] | None = None
    copies: int = 1
    crop: int = 0
    stride: int = 0
    split: str = ""
    validation: float = 0.0
    drawn: frozenset[str] = frozenset()
    seed: int = 0
    part: WorkPart = WHOLE
    measure: Callable[[Image, Image], float] | None = None

    def split_of(self, item: Scene | Clip | Record) -> str | None:
        """Return the split of an item or record; training scenes may be drawn for `val`."""
        split = item.attrs.get("split") if isinstance(item, Record) else item.split
        return "val" if split in (None, "train") and _sequence(item) in self.drawn else split

    def origin(self, name: str) -> str:
        """Return the name of the item that a finished record named `name` came from."""
        if self.crop:
            name = re.sub(r"-\d{3,}$", "", name)
        return re.sub(r"-copy\d+$", "", name) if self.copies > 1 else name

    def wanted(self, item: Scene | Clip | Record) -> bool:
        """Return whether an item, or some of its records, belongs to the split and part to keep."""
        of_split = not self.split or (self.split_of(item) or "train") == self.split
        return of_split and (_is_film(item) or _where(item) in self.part)


def known_count(items: Sequence[WorkItem]) -> int | None:
    """Return the number of items, or None if a source of unknown length is among them."""
    unknown = any(isinstance(item, ShardSource) or _is_film(item) for item in items)
    return None if unknown else len(items)


def item_outlines(items: Sequence[WorkItem]) -> list[Record]:
    """Return records without images that have the names and the newest files of items.

    Raises UsageError for shards and films, of which only reading tells the names.
    """
    if known_count(items) is None:
        raise UsageError("--status counts photos and pairs, not the records of shards or films")
    newest = (max(item.paths, key=last_change) for item in items)
    return [Record(_where(i), {}, {"source": str(f)}) for i, f in zip(items, newest, strict=True)]


def find(
    inputs: Sequence[str],
    preparation: Preparation,
    unpaired_as: str = "blur",
    blur: str = "blur",
    lists: Sequence[Path] = (),
    limit: int = 0,
) -> tuple[Found[WorkItem], Preparation]:
    """Find everything to be prepared from `inputs`, `once`, and its preparation `with_validation`.

    `unpaired_as`, `blur` and `lists` are as for `find_items`. `limit` keeps the first items only,
    in all parts together. Raises UsageError and BlurkitError as `find_items` and `with_validation`
    do, and BlurkitError for a list file that names no image.
    """
    found: Found[WorkItem] = Found()
    if preparation.average is None:
        items = find_items(inputs, image=unpaired_as, blur=blur, lists=lists)
        if items.unmatched:
            raise BlurkitError(items.unmatched[0])
        found.layouts, found.left_out, found.results = items.layouts, items.left_out, items.results
        found.items += once(items.items, found.layouts)
    else:
        clips = find_clips(inputs, preparation.average.average)
        found.left_out = clips.left_out
        for clip in once(clips.items, found.layouts):
            found.items += windows(clip, preparation.average) if clip.frames else [clip]
        found.layouts.append(f"{len(clips.items)} clips of frames")
    if limit and not preparation.split:
        found.items = found.items[:limit]
    preparation = with_validation(preparation, found.items)
    whole = replace(preparation, part=WHOLE)
    found.items = [i for i in found.items if isinstance(i, ShardSource) or whole.wanted(i)]
    found.items = found.items[: limit or None]
    if known_count(found.items) is not None:
        preparation = replace(preparation, part=preparation.part.among(map(_where, found.items)))
    found.items = [i for i in found.items if isinstance(i, ShardSource) or preparation.wanted(i)]
    return found, preparation


def with_validation(preparation: Preparation, items: Sequence[WorkItem]) -> Preparation:
    """Return the preparation with the sequences `drawn` that make up its `validation` of `items`.

    Names and seed decide the order in which whole sequences, or photos without one, are drawn,
    until they have the fraction `validation` of the training frames; one is left. Raises UsageError
    for a stream, and BlurkitError if all training frames are one sequence.
    """
    if not preparation.validation:
        return preparation
    frames: Counter[str] = Counter()
    for item in items:
        for outline, count in _outlines(item):
            if preparation.split_of(outline) in (None, "train"):
                frames[_sequence(outline)] += count
    if len(frames) == 1:
        raise BlurkitError(f"--validation: {next(iter(frames))} is all there is to train on")
    places = {
        name: f"{preparation.seed}/{name}".encode(errors="surrogateescape") for name in frames
    }
    order = sorted(frames, key=lambda name: xxh3_64_digest(places[name]))
    total, reached, drawn = frames.total(), 0, set()
    for name in order[:-1]:
        if reached / total < preparation.validation:
            drawn.add(name)
            reached += frames[name]
    return replace(preparation, drawn=frozenset(drawn))


def _outlines(item: WorkItem) -> Iterator[tuple[Scene | Clip | Record, int]]:
    """Yield what `split_of` needs of an item, or of each record in a shard, and its frames."""
    if isinstance(item, Clip):
        yield item, 1 if item.frames else stated_length(item.source) or 1
    elif isinstance(item, Scene):
        yield item, scene_length(item) or 1
    elif is_stream(item.source):
        raise UsageError("--validation: a stream is known only at its end; save it to a file")
    else:
        for record in read_shard_source(item, lambda where, error: None, pixels=False):
            yield record, 1


def _sequence(item: Scene | Clip | Record) -> str:
    """Return the name of what is never divided between two splits."""
    if isinstance(item, Record):
        return str(item.attrs.get("sequence", item.name))
    if isinstance(item, Scene) and item.sequence and not _is_film(item):
        return item.sequence
    return item.name


def prepare_items(
    items: Iterable[WorkItem],
    preparation: Preparation,
    jobs: int = 1,
    on_error: OnError = raise_error,
    on_item: Callable[[], None] = lambda: None,
) -> Generator[Record, None, None]:
    """Yield the finished records of `items` in order, whatever the number of processes.

    Shards, streams and videos are read in this process, one record at a time, and all else by
    `jobs` processes. Errors are reported to `on_error`; `on_item` is called after each item.
    """
    if preparation.synthesis is not None:
        import blurkit.synthesis.rendering  # noqa: F401  torch once, before processes fork
    items = list(items)
    local = [jobs == 1 or isinstance(item, ShardSource) or _is_film(item) for item in items]
    remote = [item for item, is_local in zip(items, local, strict=True) if not is_local]
    reads_only = preparation.transfer is not None
    work = Preparation() if reads_only else preparation
    with closing(in_order(partial(_alone, preparation=work), remote, jobs)) as outcomes:
        for item, is_local in zip(items, local, strict=True):
            outcome = _here(item, preparation, on_error) if is_local else next(outcomes)
            if isinstance(outcome, BlurkitError):
                on_error(_where(item), outcome)
            elif reads_only and not is_local:
                yield from _finish_all(outcome, preparation, on_error)
            else:
                yield from outcome
            on_item()


def unfinished(
    items: Sequence[WorkItem], preparation: Preparation, finished: Iterable[Sequence[str]]
) -> list[WorkItem]:
    """Return the items that an interrupted run still has to process.

    `finished` are the names of its records by split. The last item of each split may have been
    divided between two shards, so it is processed again.
    """
    complete: set[str] = set()
    for names in finished:
        origins = [preparation.origin(name) for name in names]
        complete |= set(origins) - set(origins[-1:])
    return [item for item in items if isinstance(item, ShardSource) or item.name not in complete]


def last_changes(items: Iterable[WorkItem], preparation: Preparation) -> Callable[[str], int]:
    """Return by a finished record's name when its item's files last changed, in ns, or else 0."""
    times: dict[str, int] = {}
    for item in items:
        if not isinstance(item, ShardSource):
            name = f"{item.name}/" if _is_film(item) else _where(item)
            times[name] = max(map(last_change, item.paths))
        elif not is_stream(item.source):
            records = read_shard_source(item, lambda where, error: None, pixels=False)
            times |= dict.fromkeys((r.name for r in records), last_change(Path(item.source)))

    def changed(name: str) -> int:
        origin = preparation.origin(name)
        return times.get(origin) or times.get(origin[: origin.rfind("/") + 1], 0)  # of a film

    return changed


Outcome = BlurkitError | Iterable[Record]


def _alone(item: WorkItem, preparation: Preparation) -> Outcome:
    """Return one item's records, in a worker process that uses one thread."""
    if preparation.synthesis is not None:
        import torch  # takes seconds to import, and only synthesis needs it

        torch.set_num_threads(1)
    return _apart(item, preparation)


def _apart(item: WorkItem, preparation: Preparation) -> Outcome:
    """Return one item's records; errors are returned as values, as from another process."""
    assert not isinstance(item, ShardSource)
    try:
        if isinstance(item, Scene):
            record = load_scene(item)
        else:
            assert preparation.average is not None
            record = next(clip_records(item, preparation.average))
        return list(_finish(record, preparation))
    except BlurkitError as error:
        return error
    except MemoryError:
        return BlurkitError(f"{item.name}: too large for this machine's memory")


def _here(item: WorkItem, preparation: Preparation, on_error: OnError) -> Outcome:
    """Return one item's records, in this process; sources of many records are read lazily."""
    if isinstance(item, ShardSource):
        return _finish_all(read_shard_source(item, on_error), preparation, on_error)
    if isinstance(item, Scene) and _is_film(item):  # its frames make no film again
        frames = film_records(item, on_error)
        single = (Record(frame.name, frame.images, unfilmed(frame.attrs)) for frame in frames)
        return _finish_all(single, preparation, on_error)
    if isinstance(item, Clip) and _is_film(item) and preparation.average is not None:
        return _finish_all(clip_records(item, preparation.average, on_error), preparation, on_error)
    return _apart(item, preparation)


def _finish_all(
    records: Iterable[Record], preparation: Preparation, on_error: OnError
) -> Iterator[Record]:
    for record in records:
        if preparation.wanted(record):
            try:
                yield from _finish(record, preparation)
            except BlurkitError as error:
                on_error(record.name, error)


def _finish(record: Record, preparation: Preparation) -> Iterator[Record]:
    """Yield the records to write for a loaded one: blurred, cropped, with split and PSNR."""
    p = preparation
    split = p.split_of(record)
    if split and split != record.attrs.get("split"):
        record.attrs |= {"split": split, "split_source": "--validation"}
    copies: Iterable[Record] = [record]
    if p.transfer is not None:
        copies = map(p.transfer, [record] * p.copies, range(p.copies))
    elif p.synthesis is not None:
        copies = (synthesize(record, p.synthesis, p.seed, copy) for copy in range(p.copies))
    for whole in copies:
        for final in crop_record(whole, p.crop, p.stride or p.crop) if p.crop else [whole]:
            if p.measure is not None and {"blur", "sharp"} <= final.images.keys():
                final.attrs["psnr_blur"] = p.measure(final.images["blur"], final.images["sharp"])
            yield final


def _is_film(item: WorkItem | Record) -> bool:
    """Return whether an item is read frame by frame, and not as a whole."""
    if isinstance(item, Scene):
        try:
            return has_films(item)
        except BlurkitError:  # which is reported when it is read
            return False
    return isinstance(item, Clip) and not item.frames


def _where(item: WorkItem | Record) -> str:
    """Return the name by which a failed item is reported."""
    if isinstance(item, ShardSource):
        return item.source
    if isinstance(item, Clip) and item.frames:  # a record is named after its middle frame
        return f"{item.name}/{item.frames[len(item.frames) // 2].stem}"
    return item.name


Item = TypeVar("Item", bound=Scene | ShardSource | Clip)


def once(items: Sequence[Item], notes: list[str]) -> list[Item]:
    """Return the items without those whose images belong to others; their number is a note.

    Of items with the same files, the first stays. An item that shares any file with one of a
    stronger split (test before val before train) goes, so that no test image is trained on.
    Files are the same if links lead to the same data.
    """
    owners: dict[object, tuple[int, int]] = {}
    kept = []
    ranks = [STRENGTH.index(item.split or "train") for item in items]
    for rank, number in sorted(zip(ranks, range(len(items)), strict=True)):
        held = [owners.setdefault(_identity(path), (rank, number)) for path in items[number].paths]
        if not held or ((rank, number) in held and all(other == rank for other, _ in held)):
            kept.append(number)
    if count := len(items) - len(kept):
        notes.append(f"{count} scenes share images with others (by links) and are not used again")
    return [items[number] for number in sorted(kept)]


def _identity(path: Path) -> object:
    """Return what all paths to one file have in common, or the path if it leads to no file."""
    try:
        status = path.stat()
    except OSError:  # reported when the file is read
        return path
    return status.st_dev, status.st_ino
