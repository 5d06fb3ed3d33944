"""Videos: their frames as upright RGB pictures, read by PyAV, which is FFmpeg, one at a time."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.errors import BlurkitError, one_line
from blurkit.io.frames import FrameTime, frame_picture
from blurkit.io.images import Picture
from blurkit.io.limits import check_pixels

MUXERS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".3gp": "3gp"},
    **{".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".mts": "mpegts", ".m2ts": "mpegts"},
}
"""FFmpeg's names of the containers, by suffix."""

VIDEO_SUFFIXES = frozenset(MUXERS)

MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020"}
"""Names of the matrices between YUV and RGB, by FFmpeg's number of the colour space."""

MATRIX_NUMBERS = {"ITU709": 1, "FCC": 4, "ITU601": 5, "SMPTE240M": 7, "BT2020": 9}
"""The same matrices as swscale's numbers, since older versions of PyAV do not know every name."""

TALLEST_SD = 576
"""Where a video does not state its matrix, players take BT.601 up to this height, else BT.709."""

FULL_RANGE = 2

SCALING = 0x4 | 0x2000 | 0x40000
"""swscale's BICUBIC, FULL_CHR_H_INT and ACCURATE_RND: else luma loses a grey level on its way."""

SLACK = 0.5
"""A Matroska file that ends so many seconds before the end that it states has been cut."""


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and yield its container and the stream of its moving pictures.

    Raises BlurkitError if the file is missing or not a video, or if it has too many pixels.
    """
    import av  # only for videos: it takes a tenth of a second

    try:
        container = av.open(str(path), metadata_errors="replace")
    except Exception as error:  # of any kind
        reason = "is not a video that can be read, or its start is damaged"
        raise BlurkitError(f"{path}: {reason} ({_reason(error)})") from error
    with container:
        stream = next((s for s in container.streams.video if not is_cover(s)), None)
        if stream is None:
            raise BlurkitError(f"{path}: holds no moving pictures")
        if stream.codec_context is None:
            raise BlurkitError(f"{path}: its codec is not known, or its start is damaged")
        check_pixels(stream.height, stream.width, str(path))
        yield container, stream


def stated_frames(path: Path) -> int | None:
    """Return the number of frames that a video states; None for a container that does not."""
    try:
        with open_video(path) as (_, stream):
            return int(stream.frames) or None
    except BlurkitError:
        return None


def is_cover(stream: Any) -> bool:
    """Return whether a stream of a video is a still picture of its cover."""
    return "attached_pic" in str(stream.disposition)


def read_video(path: Path) -> Generator[Picture, None, None]:
    """Yield the frames of a video, (H, W, 3) uint8, or uint16 if it has more than 8 bits.

    They are upright: the rotation that phones store is applied. Raises BlurkitError where the file
    is damaged.
    """
    decoded = 0
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            for frame, time in _Frames(container, stream).timed():
                check_pixels(frame.height, frame.width, str(path))
                picture = frame_picture(path, _upright_rgb(frame), time)
                decoded += 1
                yield picture
        except BlurkitError:
            raise
        except Exception as error:  # decoders raise errors of any kind on damaged data
            where = f"{path}: cannot be decoded after frame {decoded}"
            raise BlurkitError(f"{where} ({_reason(error)})") from error
    if not decoded:
        raise BlurkitError(f"{path}: holds no frame that can be decoded")


class _Frames:
    """The decoded frames of a video, whose damage raises errors where FFmpeg conceals it."""

    def __init__(self, container: Any, stream: Any) -> None:
        self._container, self._stream = container, stream
        rate = stream.average_rate or Fraction(25)
        self._usual = max(1, round(1 / (rate * stream.time_base)))
        self._reached, self._count = 0.0, 0

    def timed(self) -> Iterator[tuple[Any, FrameTime]]:
        """Yield every frame and its time, which ends when the next frame begins."""
        held, error = None, None
        try:
            for frame in self._decoded():
                if held is not None:
                    yield held, self._time(held, frame.pts)
                held = frame
        except Exception as damage:  # of any kind; the frame before it is whole
            error = damage
        if held is not None:
            yield held, self._time(held, None)
        if error is not None:
            raise error

    def _time(self, frame: Any, end: int | None) -> FrameTime:
        self._count += 1
        start = self._usual * (self._count - 1) if frame.pts is None else frame.pts
        ticks = end - start if end is not None and end > start else frame.duration or self._usual
        return FrameTime(start, ticks, frame.time_base)

    def _decoded(self) -> Iterator[Any]:
        decoded = 0
        for packet in self._container.demux():
            if packet.pts is not None:
                end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                self._reached = max(self._reached, end)
            if packet.stream.index != self._stream.index:
                continue
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise ValueError("parts of the next one are missing")
                decoded += 1
                yield frame
        self._check_end(decoded)

    def _check_end(self, decoded: int) -> None:
        """Raise ValueError if the file has been cut: if it states more than there is."""
        kind, stated = self._container.format.name, (self._container.duration or 0) / 1e6
        # An edit list may drop frames at the start of an MP4.
        if "mp4" in kind and not self._stream.start_time and decoded < self._stream.frames:
            raise ValueError(f"{self._stream.frames} were expected")
        if "matroska" in kind and self._reached < stated - SLACK:
            raise ValueError(f"{self._reached:.1f} of {stated:.1f} seconds are there")


def is_video(path: Path) -> bool:
    """Return whether a file's suffix is that of a video."""
    return path.suffix.lower() in VIDEO_SUFFIXES


def describe_video(path: Path) -> dict[str, Any]:
    """Return the codecs, pixel format, colours and rotation of a video, as plain values."""
    with open_video(path) as (container, stream):
        first = next(container.decode(stream))
        return {
            "codec": codec_of(stream),
            "pixel_format": stream.codec_context.format.name,
            "matrix": matrix_of(first),
            "range": "full" if range_of(first) == FULL_RANGE else "limited",
            "rotation": first.rotation,
            "audio": [codec_of(s) for s in container.streams.audio],
            "subtitles": [codec_of(s) for s in container.streams.subtitles],
        }


def codec_of(stream: Any) -> str:
    """Return FFmpeg's name of a stream's codec, whichever decoder reads it, or `unknown`."""
    context = stream.codec_context
    return "unknown" if context is None else str(context.codec.canonical_name)


def matrix_of(context: Any) -> str:
    """Return the name of the matrix between YUV and RGB of a frame or codec context."""
    stated = MATRICES.get(int(context.colorspace))
    return stated or ("ITU709" if context.height > TALLEST_SD else "ITU601")


def range_of(context: Any) -> int:
    """Return the range of YUV of a frame or codec context: 1 is limited, as usual, 2 is full."""
    full = int(context.color_range) == FULL_RANGE or "yuvj" in context.format.name
    return FULL_RANGE if full else 1


def bits_of(pixel_format: Any) -> int:
    """Return the bits of the deepest component of a pixel format."""
    return max(component.bits for component in pixel_format.components)


def _upright_rgb(frame: Any) -> np.ndarray:
    pixels = frame.to_ndarray(
        format="rgb24" if bits_of(frame.format) <= 8 else "rgb48le",
        src_colorspace=MATRIX_NUMBERS[matrix_of(frame)],
        src_color_range=range_of(frame),
        dst_color_range=FULL_RANGE,
        interpolation=SCALING,
    )
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90)))


def _reason(error: Exception) -> str:
    """Return what FFmpeg says, without the number of its error and the name of its function."""
    return str(getattr(error, "strerror", None) or one_line(error))
