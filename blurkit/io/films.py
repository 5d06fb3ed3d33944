"""Films: files of several pictures (videos, animations, TIFF files of several pages).

Each frame is read as a picture whose attributes say how to write it again: `source` is the film,
`pts` and `duration` are its time on the screen in units of `time_base` seconds, such as `1/1000`.
Pages of TIFF files have no time. Films are written frame by frame.
"""

import io
import os
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import PIL.AvifImagePlugin  # Pillow would import all of its plugins, which takes longer
import PIL.Image
import PIL.WebPImagePlugin

from blurkit.errors import BlurkitError, Say, one_line
from blurkit.io import images, paths, videos
from blurkit.io.codecs.metadata import Metadata, to_srgb
from blurkit.io.codecs.pillow import QUALITY, check_frame, check_gif_end, claims_limited, opened
from blurkit.io.codecs.png import described_png
from blurkit.io.codecs.tiff import link_directories, page_count, read_pages, write_page
from blurkit.io.encoding import FilmOptions, VideoWriter
from blurkit.io.formats import BY_SUFFIX, TIFF, ending
from blurkit.io.records import Attributes, Image, Record, from_float, to_float
from blurkit.io.writing import Uncomplaining, last_change, replacing, writing_errors

FILM_SUFFIXES = videos.VIDEO_SUFFIXES | {".gif", ".apng"}
"""The suffixes of files that usually hold films; images with other suffixes may hold some too."""


def is_film(path: Path) -> bool:
    """Return whether a file holds several pictures: a video, an animation, or several TIFF pages.

    A damaged file is not a film, unless its suffix is a video's. Pipes, which can be read only
    once, are not opened. Raises BlurkitError if the operating system cannot read the file.
    """
    suffix = ending(path)
    if suffix in videos.VIDEO_SUFFIXES:
        return True
    if not path.is_file():
        return False
    if suffix in TIFF.suffixes:
        return page_count(path) > 1
    if suffix not in ANIMATION_KINDS:
        return False
    try:
        with _animation(path) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception as error:  # Pillow raises errors of any kind on damaged data
        if paths.system_failure(error):
            raise paths.reading_error(path, "", error) from error
        return False


def stated_length(path: Path) -> int | None:
    """Return the number of a film's frames without decoding them, None if it is not stated."""
    suffix = ending(path)
    if suffix in TIFF.suffixes:
        return page_count(path)
    try:
        if suffix in videos.VIDEO_SUFFIXES:
            with videos.open_video(path) as (container, stream):
                return videos.stated_frames(container, stream) or None
        with _animation(path) as image:
            return int(getattr(image, "n_frames", 1))  # for a GIF, all frames are looked at
    except Exception:  # of any kind
        return None


def shown_frames(path: Path, only: range | None = None) -> set[int]:
    """Return the numbers of six frames, evenly spread over a film or over `only` some of them.

    They are all if there are fewer; of a film that does not state its length, the first.
    """
    frames = only or range(stated_length(path) or 1)
    places = np.linspace(0, len(frames) - 1, min(6, len(frames)))
    return {frames[place] for place in places.round().astype(int)}


def read_film(path: Path) -> Generator[images.Picture, None, None]:
    """Yield the upright frames of a film, one in memory at a time.

    Raises BlurkitError if the file is missing or not a film, and at the place where it is damaged.
    """
    suffix = ending(path)
    if not path.is_file():
        reason = "is not a regular file" if path.exists() else "no such file"
        raise BlurkitError(f"{path}: {reason}")
    if suffix in videos.VIDEO_SUFFIXES:
        yield from videos.read_video(path)
    elif not is_film(path):
        raise BlurkitError(f"{path}: is a single image, not a film")
    elif suffix in TIFF.suffixes:
        for pixels, metadata in read_pages(path):
            yield images.upright_picture(path, pixels, metadata.attributes())
    else:
        yield from read_animation(path)


def unfilmed(attrs: Attributes) -> Attributes:
    """Return the attributes of a frame without those by which it becomes part of a film again."""
    return {key: value for key, value in attrs.items() if key != "film"}


# ---- Animations ----------------------------------------------------------------------------------

ANIMATION_KINDS = {".gif": "GIF", ".png": "PNG", ".apng": "PNG", ".webp": "WEBP", ".avif": "AVIF"}
"""Pillow's names of the formats that hold animations, by suffix."""

PILLOW_NAMES = {"icc": "icc_profile", "exif": "exif", "xmp": "xmp", "comment": "comment"}
"""Pillow's names of the fields of `Metadata` that it writes into animations."""

STILLS = {".apng": ".png"}
"""The suffix of single pictures in the format of an animation, if it is another."""

TICKS = 1000
"""Ticks a second of the times of frames, which all these formats round to milliseconds or more."""


@contextmanager
def _animation(path: Path) -> Iterator[PIL.Image.Image]:
    """Yield a file that may be an animation as Pillow opens it. Raises BlurkitError as `opened`."""
    with path.open("rb") as file, opened(file, str(path), *ANIMATION_KINDS.values()) as image:
        yield image


def read_animation(path: Path) -> Generator[images.Picture, None, None]:
    """Yield the frames of an animation as they are shown: whole pictures of 8 bits.

    They are RGB, with alpha where a frame is transparent. Raises BlurkitError where the file is
    damaged, and if all frames, which writing keeps in memory, have more than `--max-pixels`.
    """
    clock, stored = 0, path.stat().st_size
    # Not by imageio, which reads the EXIF block of every frame and stops at one that is invalid.
    with _animation(path) as image:
        with paths.decoding_errors(path, "damaged after frame 0"):
            count = int(getattr(image, "n_frames", 1))
        for number in range(count):
            with paths.decoding_errors(path, f"damaged after frame {number}"):
                with claims_limited(stored):
                    image.seek(number)
                check_frame(image, stored, str(path))
                paths.check_pixels(image.height * count, image.width, str(path))
                pixels = np.asarray(image.convert("RGBA"))
                duration = round(image.info.get("duration", 0))
            opaque = bool((pixels[:, :, 3] == 255).all())
            time = images.FrameTime(clock, duration, Fraction(1, TICKS))
            yield images.frame_picture(path, pixels[:, :, :3] if opaque else pixels, time)
            clock += duration
    if image.format == "GIF":
        with path.open("rb") as file, paths.decoding_errors(path, f"damaged after frame {count}"):
            check_gif_end(file)


def write_animation(
    path: Path, result: Path, frames: Iterable[np.ndarray], durations: Sequence[int], **options: Any
) -> None:
    """Write frames, all (H, W, 3) or all (H, W, 4) uint8, to `path`, which will be `result`.

    The format is that of the suffix of `result`. `durations` are in milliseconds; `options` are
    those of Pillow's plugin. Raises BlurkitError if the format cannot hold the frames.
    """
    import imageio.v3 as imageio  # only for these files

    options |= {"save_all": True, "duration": list(durations)}
    suffix = result.suffix.lower()
    file = io.BytesIO()  # after an error of the disk, Pillow would write to the closed file
    try:
        with imageio.imopen(file, "w", plugin="pillow", extension=suffix) as animation:
            for frame in frames:
                animation.write(frame, **options)
    except ValueError as error:  # larger than the format allows
        raise BlurkitError(f"{result}: cannot be written ({one_line(error)})") from error
    path.write_bytes(file.getbuffer())


class AnimationWriter:
    """Writes an animation to a file; until `close`, all its frames are kept in memory."""

    def __init__(self, path: Path, result: Path, source: Path, warn: Say) -> None:
        self._path, self._result, self._source, self._warn = path, result, source, warn
        suffix = result.suffix.lower()
        self._kind = BY_SUFFIX[STILLS.get(suffix, suffix)]
        self._frames: list[np.ndarray] = []
        self._durations: list[int] = []

    def write(self, image: Image, alpha: Image | None, attrs: Mapping[str, Any]) -> None:
        """Add a frame, in sRGB. Raises BlurkitError if its size differs from that of the first."""
        profile = Metadata.of(attrs).icc
        frame = rgb(to_srgb(image, profile) if profile and image.shape[2] == 3 else image)
        if alpha is not None:
            frame = np.dstack([frame, from_float(to_float(alpha), np.uint8)])
        if self._frames and frame.shape[:2] != self._frames[0].shape[:2]:
            height, width = frame.shape[:2]
            raise BlurkitError(f"a frame of {width}x{height} pixels does not fit the film's others")
        self._frames.append(frame)
        self._durations.append(round(TICKS * images.FrameTime.of(attrs).duration))

    def close(self) -> None:
        """Write the file, and report what it lacks. Raises BlurkitError if the format is unfit."""
        transparent = any(frame.shape[2] == 4 for frame in self._frames)
        frames: Iterable[np.ndarray] = self._frames
        if transparent:  # opaque where a frame had no alpha
            opaque = np.full_like(self._frames[0][:, :, 0], 255)
            frames = (f if f.shape[2] == 4 else np.dstack([f, opaque]) for f in self._frames)
        options, metadata = _options(self._source) | {"quality": QUALITY}, self._metadata()
        if self._kind is BY_SUFFIX[".gif"]:
            options["disposal"] = 2 if transparent else 1  # else old pixels show through
        if metadata.icc and "icc" not in self._kind.holds:
            frames = (
                np.dstack([to_srgb(np.ascontiguousarray(f[:, :, :3]), metadata.icc), f[:, :, 3:]])
                for f in frames
            )
        if self._kind is not BY_SUFFIX[".png"]:
            names = self._kind.holds.intersection(PILLOW_NAMES)
            stated = {PILLOW_NAMES[name]: getattr(metadata, name) for name in names}
            options |= {name: value for name, value in stated.items() if value}
        if self._kind is BY_SUFFIX[".webp"]:
            options["lossless"] = metadata.lossless
        write_animation(self._path, self._result, frames, self._durations, **options)
        if self._kind is BY_SUFFIX[".png"]:
            self._path.write_bytes(described_png(self._path.read_bytes(), metadata))

    def _metadata(self) -> Metadata:
        kind, source = self._kind, _metadata_of(self._source)
        if kind is not BY_SUFFIX[".png"]:  # Pillow writes no codes of colours
            kind = replace(kind, holds=kind.holds - {"cicp"})
        try:
            metadata, lost = images.held(kind, source)
        except ValueError as error:
            raise BlurkitError(f"{self._source}: cannot be written ({error})") from error
        if metadata.orientation > 1 and kind.suffixes == (".avif",):  # on which Pillow 13 crashes
            metadata, lost = metadata.stored(1, self._frames[0].shape[:2]), [*lost, "orientation"]
        lost += [f"depth of {source.bits} bits"] if source.bits else []
        if lost:
            self._warn(f"{self._source}: {images.not_kept(lost)}")
        return metadata

    def release(self) -> None:
        self._frames.clear()


def rgb(image: Image) -> np.ndarray:
    """Return an image (H, W, 1 or 3) as (H, W, 3) uint8."""
    pixels = from_float(to_float(image), np.uint8)
    return np.repeat(pixels, 3, axis=2) if pixels.shape[2] == 1 else pixels


def _metadata_of(source: Path) -> Metadata:
    """Return the metadata of an animation; frames have their own palettes, so none is lost."""
    suffix = ending(source)
    if suffix not in ANIMATION_KINDS:
        return Metadata()
    with paths.reading_errors(source), source.open("rb") as file:
        _, metadata = BY_SUFFIX[STILLS.get(suffix, suffix)].read(file, str(source), False)
    lost = (what for what in metadata.lost.split(", ") if what != "palette")
    return replace(metadata, lost=", ".join(lost))


def _options(source: Path) -> dict[str, Any]:
    """Return Pillow's options for an animation as a whole; without `loop`, a GIF is shown once."""
    if ending(source) not in ANIMATION_KINDS:
        return {"loop": 0}  # for ever
    with paths.reading_errors(source), _animation(source) as image:
        return {key: image.info[key] for key in ("loop", "default_image") if key in image.info}


# ---- Writing films -------------------------------------------------------------------------------


class PageWriter:
    """Writes pages of any size and depth to a TIFF file."""

    def __init__(self, path: Path, source: Path, warn: Say) -> None:
        import tifffile  # only for these files

        self._raw = Uncomplaining(path)  # tifffile suppresses errors when it closes a file
        self._path, self._source, self._warn, self._lost = path, source, warn, list[str]()
        with paths.reading_errors(source), tifffile.TiffFile(source) as read:
            large = source.stat().st_size >= 2**31
            self._file = tifffile.TiffWriter(
                cast(BinaryIO, self._raw), bigtiff=large, byteorder=read.byteorder
            )

    def write(self, image: Image, alpha: Image | None, attrs: dict[str, Any]) -> None:
        pixels, metadata, lost = images.fitted(TIFF, image, alpha, attrs)
        write_page(self._file, pixels, metadata)
        self._lost += lost
        if self._raw.error is not None:
            raise self._raw.error

    def close(self) -> None:
        """Complete the file, and report what it lacks of its source."""
        self.release()
        if self._raw.error is not None:
            raise self._raw.error
        link_directories(self._path)
        if self._lost:
            self._warn(f"{self._source}: {images.not_kept(self._lost)}")

    def release(self) -> None:
        self._file.close()
        self._raw.close()


class OpenFilm:
    """A film that is being written, and takes the place of `path` when it is finished."""

    def __init__(self, path: Path, source: Path, options: FilmOptions, force: bool) -> None:
        self.path, self.last, self._source = path, -1, source
        self._stack = ExitStack()
        with self._stack:
            self._partial = self._stack.enter_context(replacing(path, force))
            self._writer = _writer(self._partial, path, source, options)
            self._stack.callback(self._writer.release)
            self._stack = self._stack.pop_all()

    def takes(self, path: Path, record: Record) -> bool:
        """Return whether `record` is a later frame of this film."""
        return path == self.path and int(record.attrs.get("frame", -1)) > self.last

    def write(self, record: Record, image: Image, alpha: Image | None) -> None:
        """Add a frame. Raises BlurkitError if it cannot be written."""
        with writing_errors(self.path):
            self._writer.write(image, alpha, record.attrs)
        self.last = int(record.attrs["frame"])

    def finish(self, whole: bool = True) -> None:
        """Complete the film and put it in place, unless it is `whole` dated before its source."""
        try:
            with writing_errors(self.path):
                self._writer.close()
                if not whole:
                    before = last_change(self._source) - 1
                    os.utime(self._partial, ns=(before, before))
        except BaseException:
            self.abandon()
            raise
        self._stack.close()

    def abandon(self) -> None:
        """Remove the unfinished film."""
        self._stack.__exit__(BlurkitError, BlurkitError(f"{self.path}: is not finished"), None)


def can_write(suffix: str, source: Path) -> bool:
    """Return whether the frames of `source` can be written as a film with this suffix.

    Videos and animations can become each other; still formats hold films only for their own kind.
    """
    kind = ending(source)
    if suffix in TIFF.suffixes or kind in TIFF.suffixes:
        return suffix in TIFF.suffixes and kind in TIFF.suffixes
    return suffix in FILM_SUFFIXES | {".webp", ".avif"} or suffix == kind


def _writer(
    partial: Path, result: Path, source: Path, options: FilmOptions
) -> VideoWriter | AnimationWriter | PageWriter:
    """Return a writer of frames, whose file is whole after `close` and released in any case."""
    if videos.is_video(result):
        return VideoWriter(partial, result, source, options)
    if result.suffix.lower() in ANIMATION_KINDS:
        about = videos.describe_video(source) if videos.is_video(source) else {}
        lost = [name for name in ("audio", "subtitles") if about.get(name)]
        if lost and options.only is None:
            options.warn(f"{source}: not kept in the new film: {', '.join(lost)}")
        return AnimationWriter(partial, result, source, options.warn)
    return PageWriter(partial, source, options.warn)
