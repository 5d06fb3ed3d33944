"""Blurred and sharp pairs from consecutive sharp frames, as GoPro and its kind were made.

A window of frames, turned to linear light, averaged and turned back, is the blurred image; its
middle frame is the sharp one (Nah et al., "Deep Multi-scale Convolutional Neural Network for
Dynamic Scene Deblurring", CVPR 2017). Where a camera took too few frames for that, more are made
between them by optical flow.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import imageio.v3 as imageio
import numpy as np

from blurkit.data.places import SPLITS, free_name, unique_names
from blurkit.errors import BlurkitError, OnError, UsageError, one_line, raise_error
from blurkit.io.images import IMAGE_SUFFIXES, Picture, image_record, read_image
from blurkit.io.opencv import opencv
from blurkit.io.paths import walk
from blurkit.io.records import Image, Record
from blurkit.synthesis.flow import FLOW_PURPOSE, Motion, find_motion

DIGITS = 6
"""Decimals of a level that are kept before it is floored: still frames must not lose a level to the
last digit of a float."""

VIDEO_SUFFIXES = frozenset({".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v"})


@dataclass(frozen=True)
class Averaging:
    """How frames become a blurred image: windows of `average` frames, one every `stride` frames
    (0: one after another), in linear light by `gamma`, or by `response`, a camera response file.

    With `interpolate` N of 2 or more, the optical flow gives N - 1 more frames between each two
    frames of a window, which is left out if the flow of any two agrees, forward and backward, for
    a smaller fraction of the pixels than `agreement`, 0 to 1.

    Raises UsageError for values out of range, and BlurkitError where OpenCV is needed and missing.
    """

    average: int = 7
    stride: int = 0
    gamma: float = 2.2
    response: Path | None = None
    interpolate: int = 0
    agreement: float = 0.5

    def __post_init__(self) -> None:
        if self.average < 1 or self.stride < 0 or not self.gamma > 0:
            raise UsageError(
                "averaging takes at least 1 frame, a stride of 0 or more and a gamma above 0; "
                f"got {self.average}, {self.stride} and {self.gamma:g}"
            )
        if self.interpolate < 0 or not 0 <= self.agreement <= 1:
            raise UsageError(
                "interpolation takes 0 or more steps and an agreement from 0 to 1; "
                f"got {self.interpolate} and {self.agreement:g}"
            )
        if self.interpolates and self.average < 2:
            raise UsageError("--interpolate goes with --average of 2 or more")
        if self.interpolates:
            opencv(FLOW_PURPOSE)

    @property
    def step(self) -> int:
        """Frames from the start of one window to the next."""
        return self.stride or self.average

    @property
    def interpolates(self) -> bool:
        """Whether frames are made between the frames of a window."""
        return self.interpolate > 1

    @property
    def samples(self) -> int:
        """The number of frames in a mean, with those made in between."""
        return (self.average - 1) * max(self.interpolate, 1) + 1


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


def window_name(clip: Clip) -> str:
    """The name of the record of a clip of one window."""
    return f"{clip.name}/{clip.frames[len(clip.frames) // 2].stem}"


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
    `gamma` or `response`, and `source`; with interpolated frames, those of `interpolated_average`
    too. At most one window of frames is in memory, each decoded once. A frame that cannot be read
    goes to `on_error` and its windows are left out; so does a window whose mean cannot be made.
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


def average_frames(
    frames: Sequence[Image], gamma: float = 2.2, response: Path | None = None
) -> Image:
    """The mean of `frames` in linear light, of their shape (H, W, C) and type.

    floor(mean(v ** gamma) ** (1 / gamma)) per channel on grey levels (0..255 or 0..65535; float
    frames are not floored). With `response`, a file as for `read_response`, its curve and the
    inverse of it take the place of the two powers.
    Raises BlurkitError for frames of different shapes or types.
    """
    _check_alike(frames)
    total = np.zeros(frames[0].shape)
    for frame in frames:
        total += _linear(frame, gamma, response)
    values = _levels(total / len(frames), frames[0].dtype, gamma, response)
    if response is not None:
        values = values.round(DIGITS)
    return _stored(values, frames[0].dtype)


def interpolated_average(
    frames: Sequence[Image], averaging: Averaging
) -> tuple[Image, dict[str, float]]:
    """Return the mean of `frames` and of those interpolated between them, and its attributes.

    The mean is in linear light, as by `average_frames`, of the frames' shape (H, W, C) and type;
    all `averaging.samples` frames count the same. The attributes are `interpolate`, `samples`, and
    `flow_agreement`, the fraction of pixels, 0 to 1, where the forward and the backward flow agree
    between the two frames where they do so least.
    Raises BlurkitError for frames of different shapes or types, for an agreement below
    `averaging.agreement`, and as `find_motion` does.
    """
    _check_alike(frames)
    light = _linear(frames[0], averaging.gamma, averaging.response)
    total, agreements = light.copy(), []
    for number, pair in enumerate(pairwise(frames), 1):
        motion = find_motion(*pair)
        _check_agreement(motion, averaging.agreement, number)
        agreements.append(motion.agreement)
        before, light = light, _linear(pair[1], averaging.gamma, averaging.response)
        for step in range(1, averaging.interpolate):
            total += motion.between(before, light, step / averaging.interpolate)
        total += light
    dtype, mean = frames[0].dtype, total / averaging.samples
    blur = _stored(_levels(mean, dtype, averaging.gamma, averaging.response).round(DIGITS), dtype)
    told = {"interpolate": averaging.interpolate, "samples": averaging.samples}
    return blur, told | {"flow_agreement": min(agreements)}


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


def _check_alike(frames: Sequence[Image]) -> None:
    first = frames[0]
    if any(frame.shape != first.shape or frame.dtype != first.dtype for frame in frames):
        told = sorted({f"{f.shape[1]}x{f.shape[0]}x{f.shape[2]} {f.dtype}" for f in frames})
        raise BlurkitError(f"frames of one window differ: {', '.join(told)}")


def _check_agreement(motion: Motion, least: float, number: int) -> None:
    """Raise BlurkitError if frame `number` of a window and the next one agree on less."""
    if motion.agreement < least:
        raise BlurkitError(
            f"left out: from frame {number} to {number + 1} of the window the optical flow agrees "
            f"for {motion.agreement:.1%} of the pixels, fewer than {least:.0%}: a cut, or motion "
            "too fast to follow"
        )


def _levels(mean: np.ndarray, dtype: np.dtype, gamma: float, response: Path | None) -> np.ndarray:
    """Linear light as levels of frames of type `dtype`, neither rounded nor cast."""
    if response is None:
        levels: np.ndarray = mean ** (1 / gamma)
        return levels
    curve = read_response(response)
    scale = np.iinfo(dtype).max if dtype.kind == "u" else 1
    return np.interp(mean, curve, np.linspace(0, scale, len(curve)))


def _stored(levels: np.ndarray, dtype: np.dtype) -> Image:
    return (levels if dtype.kind == "f" else np.floor(levels)).astype(dtype)


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


def _blur(frames: Sequence[Image], averaging: Averaging) -> tuple[Image, dict[str, float]]:
    """The mean of a window, and the attributes of frames interpolated for it."""
    if averaging.interpolates:
        return interpolated_average(frames, averaging)
    return average_frames(frames, averaging.gamma, averaging.response), {}


def _record(name: str, pictures: list[Picture], clip: Clip, averaging: Averaging) -> Record:
    pixels = [picture.pixels for picture in pictures]
    try:
        blur, told = _blur(pixels, averaging)
    except BlurkitError as error:
        raise BlurkitError(f"{name}: {error}") from error
    middle = pictures[averaging.average // 2]
    record = image_record(name, {"blur": Picture(blur, attrs=middle.attrs), "sharp": middle})
    record.attrs |= {
        "sequence": clip.name,
        "average": averaging.average,
        "stride": averaging.step,
        **told,
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
