"""Films as records: a record per frame, which several films of a scene share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from itertools import count
from pathlib import Path

from blurkit.data.places import Scene
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.films import FILM_SUFFIXES, can_write, is_film, read_film, stated_length
from blurkit.io.formats import is_written
from blurkit.io.images import Picture, image_record
from blurkit.io.paths import is_folder
from blurkit.io.records import Record
from blurkit.io.shards import is_shard


def has_films(scene: Scene) -> bool:
    """Return whether a scene's files are films, which are opened to see that."""
    return any(map(is_film, scene.files.values()))


def scene_length(scene: Scene) -> int | None:
    """Return the number of records of a scene: 1, or that of frames, None if films do not state it.

    Damaged films may have fewer.
    """
    if not has_films(scene):
        return 1
    lengths = [stated_length(path) for path in scene.files.values()]
    return None if None in lengths else min(length for length in lengths if length is not None)


def film_records(scene: Scene, on_error: OnError = raise_error) -> Iterator[Record]:
    """Yield a record NAME/000000, ... for every frame of a scene's films, one in memory at a time.

    Frames of several films, such as `blur` and `sharp`, are paired by their number. Attributes are
    those of the first film's frame, and `film`, `frame`, `sequence` and, if known, `split`. Damage,
    after which a film ends, and films of different lengths are reported to `on_error`.
    """
    with ExitStack() as stack:
        films = [stack.enter_context(closing(read_film(path))) for path in scene.files.values()]
        for number in count():
            try:
                pictures = _next(scene, films, number)
                if pictures is None:
                    return
                record = image_record(f"{scene.name}/{number:06d}", pictures)
                record.check_one_size(*pictures)
            except BlurkitError as error:
                on_error(scene.name, error)
                return
            source = scene.split_source if scene.split else None
            known = {"split": scene.split, "split_source": source}
            record.attrs |= {"film": scene.name, "frame": number, "sequence": scene.name}
            record.attrs |= {key: value for key, value in known.items() if value is not None}
            yield record


def check_film_output(inputs: Sequence[str], output: str | None) -> None:
    """Raise UsageError if `-o OUTPUT` is a film, but the inputs are not one, or the other way.

    Shards and streams are not opened; what they hold is checked when it is written.
    """
    suffix = Path(output or "").suffix.lower()
    film_output = suffix in FILM_SUFFIXES
    if output is None or is_folder(output) or not (film_output or is_written(Path(output))):
        return
    paths = [Path(text) for text in inputs if text != "-" and not is_shard(Path(text))]
    films = [path for path in paths if is_film(path)]
    stills = [path for path in paths if path not in films and path.exists()]
    if film_output and (len(inputs) > 1 or stills):
        what = f"but {stills[0]} is not a film" if stills else "but there are more inputs"
        raise UsageError(f"-o {output} is one film, {what}; name a folder/")
    for film in films:
        if not can_write(suffix, film):
            raise UsageError(f"-o {output} cannot hold the film {film}; name a film or a folder/")


def _next(
    scene: Scene, films: Sequence[Iterator[Picture]], number: int
) -> dict[str, Picture] | None:
    """Return the next frame of every film, by role, or None after the last.

    Raises BlurkitError if a film is damaged there, or is shorter than others.
    """
    pictures = {
        role: picture
        for role, film in zip(scene.files, films, strict=True)
        if (picture := next(film, None)) is not None
    }
    short = [role for role in scene.files if role not in pictures]
    if short and pictures:
        longer = scene.files[next(iter(pictures))]
        raise BlurkitError(f"{scene.files[short[0]]}: has {number} frames, but {longer} has more")
    return pictures or None
