"""Blurred and sharp pairs from consecutive sharp frames, as GoPro and its kind were made.

A window of frames, turned to linear light, averaged and turned back, is the blurred image; its
middle frame is the sharp one (Nah et al., "Deep Multi-scale Convolutional Neural Network for
Dynamic Scene Deblurring", CVPR 2017).
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from blurkit.data.places import SPLITS, free_name, unique_names
from blurkit.errors import BlurkitError, OnError, UsageError, one_line, raise_error
from blurkit.io.images import IMAGE_SUFFIXES, Picture, image_record, read_image
from blurkit.io.paths import walk
from blurkit.io.records import Image, Record

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})


@dataclass(frozen=True)
class Averaging:
    """How frames become a blurred image: windows of `average` frames, one every `stride` frames
    (0: one after another), in linear light by `gamma`, or by `response`, a camera response file.

    Raises UsageError for values out of range.
    """

    average: int = 7
    stride: int = 0
    gamma: float = 2.2
    response: Path | None = None

    def __post_init__(self) -> None:
        if self.average < 1 or self.stride < 0 or not self.gamma > 0:
            raise UsageError(
                "averaging takes at least 1 frame, a stride of 0 or more and a gamma above 0; "
                f"got {self.average}, {self.stride} and {self.gamma:g}"
            )

    @property
    def step(self) -> int:
        """Frames from the start of one window to the next."""
        return self.stride or self.average


@dataclass(frozen=True)
class Clip:
    """Consecutive frames: image files in order, or a video when `frames` is empty."""

    name: str
    source: Path
    frames: tuple[Path, ...] = ()
    split: str | None = None


@dataclass
class Clips:
    """The clips that some inputs hold, nothing opened yet, and what was left out and why."""

    clips: list[Clip] = field(default_factory=list)
    left_out: list[tuple[str, str]] = field(default_factory=list)


def find_clips(inputs: Sequence[str | Path], average: int) -> Clips:
    """Every video and every folder of at least `average` images among and below `inputs`.

    Frames are in natural order of their names. A clip is named by its path below the input,
    without a split folder and, for a video, without the suffix; names are made unique as those
    of scenes are.
    """
    found = Clips()
    taken: set[str] = set()
    for path in map(Path, inputs):
        try:
            clips = _clips_of(path)
        except BlurkitError as error:
            found.left_out.append((str(path), str(error)))
            continue
        names = unique_names([(clip.split, clip.name) for clip in clips])
        for unique, clip in zip(names, clips, strict=True):
            if clip.frames and len(clip.frames) < average:
                reason = f"{len(clip.frames)} images, a window takes {average}"
                found.left_out.append((str(clip.source), f"{clip.source}: {reason}"))
            elif name := free_name(unique, path, taken):
                found.clips.append(replace(clip, name=name))
            else:
                reason = f"{clip.source}: the name {unique!r} is taken"
                found.left_out.append((str(clip.source), reason))
    return found


def windows(clip: Clip, averaging: Averaging) -> list[Clip]:
    """A clip of image files as clips of one window each: jobs that can be pickled and run apart.

    Give each to `average_window`. Where windows overlap, each job decodes its own frames again.
    """
    starts = range(0, len(clip.frames) - averaging.average + 1, averaging.step)
    return [replace(clip, frames=clip.frames[s : s + averaging.average]) for s in starts]


def average_window(clip: Clip, averaging: Averaging) -> Record:
    """The record of a clip of one window. Raises BlurkitError for a frame that cannot be read."""
    return next(clip_records(clip, averaging))


def averaged_records(
    inputs: Sequence[str | Path], averaging: Averaging, on_error: OnError = raise_error
) -> Iterator[Record]:
    """The records of every window of every clip of `inputs`, as `clip_records` makes them."""
    found = find_clips(inputs, averaging.average)
    for where, reason in found.left_out:
        on_error(where, BlurkitError(reason))
    for clip in found.clips:
        yield from clip_records(clip, averaging, on_error)


def clip_records(
    clip: Clip, averaging: Averaging, on_error: OnError = raise_error
) -> Iterator[Record]:
    """One record per window of a clip: `blur`, and `sharp`, frame `average // 2` of the window.

    Named by the clip and its middle frame, with the attributes `sequence`, `average`, `stride`,
    `gamma` or `response`, and `source`. At most one window of frames is in memory, each decoded
    once. A frame that cannot be read goes to `on_error` and its windows are left out.
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
        middle = averaging.average // 2
        try:
            yield _record(f"{clip.name}/{window[middle][0]}", pictures, clip, averaging)
        except BlurkitError as error:
            on_error(str(clip.source), error)


def average_frames(
    frames: Sequence[Image], gamma: float = 2.2, response: Path | None = None
) -> Image:
    """The mean of `frames` in linear light, of their shape (H, W, C) and type.

    floor(mean(v ** gamma) ** (1 / gamma)) per channel on grey levels (0..255 or 0..65535; float
    frames are not floored). With `response`, a file as for `read_response`, its curve and the
    inverse of it take the place of the two powers.
    Raises BlurkitError for frames of different shapes or types.
    """
    first = frames[0]
    if any(frame.shape != first.shape or frame.dtype != first.dtype for frame in frames):
        told = sorted({f"{f.shape[1]}x{f.shape[0]}x{f.shape[2]} {f.dtype}" for f in frames})
        raise BlurkitError(f"frames of one window differ: {', '.join(told)}")
    total = np.zeros(first.shape)
    for frame in frames:
        total += _linear(frame, gamma, response)
    mean = total / len(frames)
    if response is None:
        values = mean ** (1 / gamma)
    else:
        curve = read_response(response)
        scale = np.iinfo(first.dtype).max if first.dtype.kind == "u" else 1
        values = np.interp(mean, curve, np.linspace(0, scale, len(curve)))
        values = values.round(6)  # still frames must not lose a level to the last digit
    return (values if first.dtype.kind == "f" else np.floor(values)).astype(first.dtype)


@lru_cache(maxsize=4)
def read_response(path: Path) -> np.ndarray:
    """A camera response curve: 256 increasing values, the linear light of grey levels 0 to 255.

    From .npy, or text (.txt by blanks or lines, .csv by commas or lines).
    Raises BlurkitError for anything else.
    """
    try:
        if path.suffix.lower() == ".npy":
            curve = np.load(path, allow_pickle=False)
        else:
            curve = np.loadtxt(path, delimiter="," if path.suffix.lower() == ".csv" else None)
        curve = np.asarray(curve, np.float64).ravel()
    except FileNotFoundError as error:
        raise BlurkitError(f"{path}: no such response file") from error
    except (OSError, ValueError) as error:
        raise BlurkitError(f"{path}: not a response curve ({one_line(error)})") from error
    if curve.shape != (256,) or not np.all(np.diff(curve) > 0):
        raise BlurkitError(
            f"{path}: a response curve is 256 increasing values, this has {len(curve)}"
            + (", not all increasing" if len(curve) == 256 else "")
        )
    return curve


def _linear(frame: Image, gamma: float, response: Path | None) -> np.ndarray:
    if frame.dtype.kind == "u":
        return _table(np.iinfo(frame.dtype).max, gamma, response)[frame]
    if response is None:
        return frame.astype(np.float64) ** gamma
    curve = read_response(response)
    return np.interp(frame, np.linspace(0, 1, len(curve)), curve)


@lru_cache(maxsize=4)
def _table(top: int, gamma: float, response: Path | None) -> np.ndarray:
    """The linear light of every grey level from 0 to `top`."""
    levels = np.arange(top + 1, dtype=np.float64)
    if response is None:
        return levels**gamma
    curve = read_response(response)
    return np.interp(levels, np.linspace(0, top, len(curve)), curve)


def _record(name: str, pictures: list[Picture], clip: Clip, averaging: Averaging) -> Record:
    pixels = [picture.pixels for picture in pictures]
    try:
        blur = average_frames(pixels, averaging.gamma, averaging.response)
    except BlurkitError as error:
        raise BlurkitError(f"{name}: {error}") from error
    middle = pictures[averaging.average // 2]
    record = image_record(name, {"blur": Picture(blur, attrs=middle.attrs), "sharp": middle})
    record.attrs |= {
        "sequence": clip.name,
        "average": averaging.average,
        "stride": averaging.step,
    }
    if averaging.response is None:
        record.attrs["gamma"] = averaging.gamma
    else:
        record.attrs["response"] = averaging.response.name
    if clip.split:
        record.attrs["split"] = clip.split
    return record


def _frames(clip: Clip, on_error: OnError) -> Iterator[tuple[str, Path | Picture]]:
    """(Name, file or decoded frame) of every frame; a video's frames are named by their number."""
    if clip.frames:
        yield from ((path.stem, path) for path in clip.frames)
        return
    decoded = 0
    try:
        for frame in imageio.imiter(clip.source, plugin="pyav"):
            yield f"{decoded:06d}", Picture(frame, attrs={"source": str(clip.source)})
            decoded += 1
    except Exception as error:  # the decoder raises whatever it likes on damaged data
        reason = f"{clip.source}: cannot be decoded after frame {decoded} ({one_line(error)})"
        on_error(str(clip.source), BlurkitError(reason))


def _clips_of(path: Path) -> list[Clip]:
    """The clips of one input, named by their path below it. Raises BlurkitError when none."""
    if not path.exists():
        raise BlurkitError(f"{path}: no such file or folder")
    if path.is_file():
        if path.suffix.lower() not in VIDEO_SUFFIXES:
            raise BlurkitError(f"{path}: frames are a folder or one of {_known()}")
        return [Clip(path.stem, path)]
    folders: dict[Path, list[Path]] = defaultdict(list)
    for file in walk(path, IMAGE_SUFFIXES):
        folders[file.parent].append(file)
    clips = [_clip(folder, path, tuple(frames)) for folder, frames in folders.items()]
    clips += [_clip(video.with_suffix(""), path, (), video) for video in walk(path, VIDEO_SUFFIXES)]
    if not clips:
        raise BlurkitError(f"{path}: holds no folder of frames and no video ({_known()})")
    return clips


def _clip(place: Path, root: Path, frames: tuple[Path, ...], video: Path | None = None) -> Clip:
    parts = list(place.relative_to(root).parts) or [root.absolute().name]
    split = next((part for part in parts[:-1] if part.lower() in SPLITS), None)
    if split:
        parts.remove(split)
    return Clip("/".join(parts), video or place, frames, SPLITS[split.lower()] if split else None)


def _known() -> str:
    return " ".join(sorted(VIDEO_SUFFIXES))
