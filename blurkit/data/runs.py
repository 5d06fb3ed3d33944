"""Several restorations of the same scenes, matched by name with the sharp images."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from blurkit.data.collection import Fetch, scene_fetches
from blurkit.data.parts import WorkPart, in_part
from blurkit.data.sources import Packed, find_items, unpack
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.records import Record
from blurkit.io.shards import read_record, record_keys


class Runs:
    """Runs of restored images and their `reference`: folders or whole shards, not held in memory.

    Scenes are matched by name: the relative path without suffix in a folder, the record name in a
    shard. `names` are those that occur in all runs, the reference and `blurry`; other names are
    reported to `on_error`. The blurry images come from the folder `blurry`, or else from the
    reference if it holds them.

    Raises UsageError for a stream and for a run that is named twice, BlurkitError if a source is
    empty or cannot be read, or if no name is common to all.
    """

    def __init__(
        self,
        runs: Sequence[str],
        reference: str,
        blurry: str | None = None,
        on_error: OnError = raise_error,
    ) -> None:
        if "-" in (*runs, reference, blurry):
            raise UsageError("a stream cannot be paired by name; name folders or shards instead")
        if len(set(runs)) < len(runs):
            raise UsageError("a run is named twice; name each once")
        self._on_error = on_error
        self.runs = tuple(runs)
        self._sides = {run: _index(run, "restored", on_error) for run in runs}
        self._reference = _index(reference, "sharp", on_error)
        self._blurry = _index(blurry, "blur", on_error) if blurry else None
        sides = {**self._sides, reference: self._reference}
        if blurry and self._blurry is not None:
            sides[blurry] = self._blurry
        everything = dict.fromkeys(name for side in sides.values() for name in side)
        self.names = [name for name in everything if all(name in side for side in sides.values())]
        if not self.names:
            examples = ", ".join(f"{where} has {next(iter(side))}" for where, side in sides.items())
            raise BlurkitError(f"no image name is common to all: {examples}")
        for name in everything:
            missing = [where for where, side in sides.items() if name not in side]
            if missing:
                on_error(name, BlurkitError(f"{name}: no image of that name in {missing[0]}"))

    def part(self, part: WorkPart, without: Container[str] = ()) -> Iterator[dict[str, Record]]:
        """Yield the scenes of one part, as `load` returns them; `in_part` decides which.

        Scenes named in `without` are left out. Those that cannot be read are reported to
        `on_error`.
        """
        for name in self.names:
            if in_part(name, part) and name not in without:
                try:
                    yield self.load(name)
                except BlurkitError as error:
                    self._on_error(name, error)

    def load(self, name: str) -> dict[str, Record]:
        """Return each run's record of the scene `name`: `restored`, `sharp` and, if known, `blur`.

        Raises BlurkitError if an image cannot be read.
        """
        reference = self._reference[name]()
        shared = {"sharp": reference.image("sharp")}
        if self._blurry is not None:
            shared["blur"] = self._blurry[name]().image("blur")
        elif "blur" in reference.images:
            shared["blur"] = reference.images["blur"]
        loaded = {run: fetches[name]() for run, fetches in self._sides.items()}
        # Facts about the scene, such as its sequence, are the same for all runs.
        sequence: dict[str, str] = {}
        for record in (*loaded.values(), reference):
            sequence |= {k: v for k, v in record.attrs.items() if k == "sequence"}
        records = {}
        for run, record in loaded.items():
            images = {"restored": record.image("restored", "reblurred", "blur"), **shared}
            attrs = {**record.attrs, **reference.attrs, **sequence}
            records[run] = Record(name, images, attrs)
        return records


def side_by_side_record(scene: Mapping[str, Record]) -> Record:
    """Return a scene's blurry image if known, each run's restored image, and the sharp one."""
    first = next(iter(scene.values()))
    restored = {f"run {n}": r.images["restored"] for n, r in enumerate(scene.values(), 1)}
    blur = {"blur": first.images["blur"]} if "blur" in first.images else {}
    return Record(first.name, {**blur, **restored, "sharp": first.images["sharp"]})


def _index(source: str, image: str, on_error: OnError) -> dict[str, Fetch]:
    """Return a function per name that reads this record of `source`.

    Of shards, only the names are read in advance. Images without partners get the role `image`.
    """
    inputs = find_items([source], image=image)
    fetches: dict[str, Fetch] = {}
    for item in inputs.items:
        if isinstance(item, Packed):
            path = Path(item.source)
            keys = record_keys(path)
            for key, record in zip(keys, unpack(item, pixels=False), strict=True):
                fetches[record.name] = partial(read_record, path, key)
        else:
            fetches |= scene_fetches(item, on_error)
    if not fetches:
        raise BlurkitError(
            inputs.left_out[0][1] if inputs.left_out else f"{source}: holds no image"
        )
    for where, reason in inputs.left_out:
        on_error(where, BlurkitError(reason))
    return fetches
