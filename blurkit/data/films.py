"""Films as records: a record per frame, shared by the films of a scene, and windows of frames."""

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

from blurkit.data.places import (
    FOLDER_NAME,
    Found,
    Scene,
    free_name,
    split_of_folder,
    split_of_root,
    take_split,
    unique_names,
)
from blurkit.errors import BlurkitError, OnError, UsageError, raise_error
from blurkit.io.films import FILM_SUFFIXES, can_write, is_film, read_film, stated_length
from blurkit.io.formats import IMAGE_SUFFIXES, is_written
from blurkit.io.images import Picture, image_record, read_image
from blurkit.io.paths import composed, is_folder, walk
from blurkit.io.records import Record
from blurkit.io.shards import is_shard
from blurkit.io.videos import VIDEO_SUFFIXES, read_video
from blurkit.synthesis.averaging import Averaging, average_frames, interpolated_average


def has_films(scene: Scene) -> bool:
    """Return whether a scene's files are films. Raises BlurkitError if one cannot be read."""
    return any(map(is_film, scene.files.values()))


def scene_length(scene: Scene) -> int | None:
    """Return the number of a scene's records: 1, or what films state, None if they do not."""
    try:
        if not has_films(scene):
            return 1
        lengths = [stated_length(path) for path in scene.files.values()]
    except BlurkitError:  # which is reported when they are read
        return None
    return None if None in lengths else min(length for length in lengths if length is not None)


def film_records(scene: Scene, on_error: OnError = raise_error) -> Iterator[Record]:
    """Yield a record NAME/000000, ... for every frame of a scene's films, one in memory at a time.

    Attributes are those of the first film's frame, and `film`, `frame`, `sequence` and, if known,
    `split`. Damage, after which a film ends, and different lengths are reported to `on_error`.
    """
    with ExitStack() as stack:
        films = [stack.enter_context(closing(read_film(path))) for path in scene.files.values()]
        try:
            for number, frames in enumerate(zip_longest(*films)):
                known = zip(scene.files, frames, strict=True)
                pictures = {role: frame for role, frame in known if frame is not None}
                if short := [path for role, path in scene.files.items() if role not in pictures]:
                    longer = scene.files[next(iter(pictures))]
                    raise BlurkitError(f"{short[0]}: has {number} frames, but {longer} has more")
                record = image_record(f"{scene.name}/{number:06d}", pictures)
                record.check_one_size(*pictures)
                record.attrs |= {"film": scene.name, "frame": number, "sequence": scene.name}
                if scene.split:
                    record.attrs |= {"split": scene.split, "split_source": scene.split_source}
                yield record
        except BlurkitError as error:
            on_error(scene.name, error)


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


# ---- Windows of frames ---------------------------------------------------------------------------

VIDEOS = " ".join(sorted(VIDEO_SUFFIXES))
"""The suffixes of videos, for messages."""


@dataclass(frozen=True)
class Clip:
    """Consecutive frames: image files in order, or a video when `frames` is empty."""

    name: str
    source: Path
    frames: tuple[Path, ...] = ()
    split: str | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        """Its files."""
        return self.frames or (self.source,)


def find_clips(inputs: Sequence[str | Path], average: int) -> Found[Clip]:
    """Find every video and every folder of at least `average` images among and below `inputs`.

    A clip is named by its path below the input, without a split folder and a video's suffix; names
    are made unique as those of scenes are.
    """
    result: Found[Clip] = Found()
    taken: set[str] = set()

    def skip(path: Path, reason: str) -> None:
        result.left_out.append((str(path), f"{path}: {reason}"))

    for path in map(Path, inputs):
        try:
            clips = _clips_of(path, skip)
        except BlurkitError as error:
            result.left_out.append((str(path), str(error)))
            continue
        names = unique_names([(clip.split, clip.name) for clip in clips])
        for unique, clip in zip(names, clips, strict=True):
            if clip.frames and len(clip.frames) < average:
                skip(clip.source, f"{len(clip.frames)} images, but a window takes {average}")
            elif name := free_name(unique, path, taken):
                result.items.append(replace(clip, name=name))
            else:
                skip(clip.source, f"the name {unique!r} is taken")
    return result


def windows(clip: Clip, averaging: Averaging) -> list[Clip]:
    """Split a clip of image files into clips of one window each, jobs that can run apart."""
    starts = range(0, len(clip.frames) - averaging.average + 1, averaging.step)
    return [replace(clip, frames=clip.frames[s : s + averaging.average]) for s in starts]


def clip_records(
    clip: Clip, averaging: Averaging, on_error: OnError = raise_error
) -> Iterator[Record]:
    """Yield a record per window of a clip: `blur`, and `sharp`, frame `average // 2` of the window.

    A record is named after the clip and that frame. Its attributes are `sequence`, `average`,
    `stride`, `gamma` or `response`, `source` and, with interpolated frames, those of
    `interpolated_average`. At most one window of frames is in memory, and each frame is decoded
    once. Windows that cannot be read or averaged are reported to `on_error` and skipped.
    """
    window: deque[tuple[str, Picture | None]] = deque(maxlen=averaging.average)
    for number, (stem, frame) in enumerate(_frames(clip, on_error)):
        if number % averaging.step >= averaging.average:
            continue  # between two windows
        try:
            window.append((stem, read_image(frame) if isinstance(frame, Path) else frame))
        except BlurkitError as error:
            on_error(stem, error)
            window.append((stem, None))
        start = number - averaging.average + 1
        if start < 0 or start % averaging.step:
            continue
        pictures = [picture for _, picture in window if picture is not None]
        if len(pictures) < averaging.average:
            continue
        name = f"{clip.name}/{window[averaging.average // 2][0]}"
        try:
            yield _record(name, pictures, clip, averaging)
        except BlurkitError as error:
            on_error(name, error)


def _record(name: str, pictures: list[Picture], clip: Clip, averaging: Averaging) -> Record:
    pixels, response = [picture.pixels for picture in pictures], averaging.response
    try:
        if averaging.interpolates:
            blur, interpolation = interpolated_average(pixels, averaging)
        else:
            blur, interpolation = average_frames(pixels, averaging.gamma, response), {}
    except BlurkitError as error:
        raise BlurkitError(f"{name}: {error}") from error
    middle = pictures[averaging.average // 2]
    record = image_record(name, {"blur": Picture(blur, attrs=middle.attrs), "sharp": middle})
    counts = {"average": averaging.average, "stride": averaging.step}
    record.attrs |= {"sequence": clip.name, **counts, **interpolation}
    record.attrs |= {"response": response.name} if response else {"gamma": averaging.gamma}
    if clip.split:
        record.attrs |= {"split": clip.split, "split_source": FOLDER_NAME}
    return record


def _frames(clip: Clip, on_error: OnError) -> Iterator[tuple[str, Path | Picture]]:
    """Yield the (name, file or decoded frame) of every frame; video frames are named by number."""
    if clip.frames:
        yield from ((path.stem, path) for path in clip.frames)
        return
    try:
        for number, frame in enumerate(read_video(clip.source)):
            # Of a frame's attributes, these hold for an average of frames, too.
            kept = {k: v for k, v in frame.attrs.items() if k in ("source", "icc_profile")}
            yield f"{number:06d}", Picture(frame.pixels, attrs=kept)
    except BlurkitError as error:
        on_error(str(clip.source), error)


def _clips_of(path: Path, on_skip: Callable[[Path, str], None]) -> list[Clip]:
    """Return the clips of one input, named by their path below it. Raises BlurkitError if none."""
    if not path.exists():
        raise BlurkitError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise BlurkitError(f"{path}: is neither a folder of frames nor a video ({VIDEOS})")
        return [Clip(composed(path.stem), path)]
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in walk(path, IMAGE_SUFFIXES, on_skip):
        folders[file.parent].append(file)
    clips = [_clip(folder, path, tuple(frames)) for folder, frames in folders.items()]
    videos = walk(path, VIDEO_SUFFIXES, on_skip)
    clips += [_clip(video.with_suffix(""), path, (), video) for video in videos]
    if not clips:
        raise BlurkitError(f"{path}: holds no folder of frames and no video ({VIDEOS})")
    return clips


def _clip(place: Path, root: Path, frames: tuple[Path, ...], video: Path | None = None) -> Clip:
    *parts, last = place.relative_to(root).parts or (root.absolute().name,)
    split = take_split(parts) or (split_of_folder(last) if frames else None) or split_of_root(root)
    return Clip(composed("/".join((*parts, last))), video or place, frames, split)
