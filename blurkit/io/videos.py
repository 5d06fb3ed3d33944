"""Videos: their frames as upright RGB pictures, read by PyAV, which is FFmpeg, one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.errors import BlurkitError, one_line
from blurkit.io.images import FrameTime, Picture, frame_picture
from blurkit.io.paths import check_claim
from blurkit.io.records import Image, from_float, to_float

MUXERS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".3gp": "3gp"},
    **{".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".mts": "mpegts", ".m2ts": "mpegts"},
}
"""FFmpeg's names of the containers, by suffix."""

VIDEO_SUFFIXES = frozenset(MUXERS)

READING = {"format_whitelist": "mov,matroska,avi,mpegts", "protocol_whitelist": "file"}
"""FFmpeg's options for reading: playlists and the like would open other files and the network."""

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
        container = av.open(_address(path), metadata_errors="replace", options=READING)
    except Exception as error:  # of any kind
        reason = "is not a video that can be read, or its start is damaged"
        raise BlurkitError(f"{path}: {reason} ({_reason(error)})") from error
    with container:
        stream = next((s for s in container.streams.video if not is_cover(s)), None)
        if stream is None:
            raise BlurkitError(f"{path}: holds no moving pictures")
        if stream.codec_context is None:
            raise BlurkitError(f"{path}: its codec is not known, or its start is damaged")
        check_claim(stream.height, stream.width, 24, path.stat().st_size, str(path))
        yield container, stream


def _address(path: Path) -> str:
    """Return a path as FFmpeg takes it for that of a file, with whatever name."""
    return f"file:{path.absolute()}"


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
            for frame, time in _timed(container, stream):
                check_claim(frame.height, frame.width, 24, path.stat().st_size, str(path))
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


def _timed(container: Any, stream: Any) -> Iterator[tuple[Any, FrameTime]]:
    """Yield every frame and its time, which ends when the next frame begins."""
    usual = max(1, round(1 / ((stream.average_rate or Fraction(25)) * stream.time_base)))

    def time(frame: Any, number: int, end: int | None) -> FrameTime:
        start = usual * number if frame.pts is None else frame.pts
        ticks = end - start if end is not None and end > start else frame.duration or usual
        return FrameTime(start, ticks, frame.time_base)

    number, held, error = 0, None, None
    try:
        for number, frame in enumerate(_decoded(container, stream)):
            if held is not None:
                yield held, time(held, number - 1, frame.pts)
            held = frame
    except Exception as damage:  # of any kind; the frame before it is whole
        error = damage
    if held is not None:
        yield held, time(held, number, None)
    if error is not None:
        raise error


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Yield every frame. Raises ValueError for damage that FFmpeg conceals."""
    decoded, reached = 0, 0.0
    for packet in container.demux():
        if packet.pts is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            reached = max(reached, end)
        if packet.stream.index != stream.index:
            continue
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError("parts of the next one are missing")
            decoded += 1
            yield frame
    # A file that has been cut states more than there is. An edit list may drop the first frames.
    kind, stated = container.format.name, (container.duration or 0) / 1e6
    if "mp4" in kind and not stream.start_time and decoded < stream.frames:
        raise ValueError(f"{stream.frames} were expected")
    if "matroska" in kind and reached < stated - SLACK:
        raise ValueError(f"{reached:.1f} of {stated:.1f} seconds are there")


def video_times(path: Path) -> list[FrameTime]:
    """Return when the frames of a video are shown, in order, without decoding them.

    Raises BlurkitError as `open_video` does, and if the file ends before a whole packet.
    """
    with open_video(path) as (container, stream):
        try:
            packets = [p for p in container.demux(stream) if p.pts is not None and not p.is_discard]
        except Exception as error:  # of any kind
            raise BlurkitError(f"{path}: cannot be read whole ({_reason(error)})") from error
        usual = max(1, round(1 / ((stream.average_rate or Fraction(25)) * stream.time_base)))
        packets.sort(key=lambda packet: packet.pts)
        return [FrameTime(p.pts, p.duration or usual, p.time_base) for p in packets]


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


# ---- Writing videos ------------------------------------------------------------------------------

ENCODERS = {
    "h264": ("libx264", {}),
    "hevc": ("libx265", {"x265-params": "log-level=error"}),
    "vp8": ("libvpx", {"b": "0", "cpu-used": "4"}),
    "vp9": ("libvpx-vp9", {"b": "0", "cpu-used": "4", "row-mt": "1"}),
    "av1": ("libsvtav1", {"preset": "8"}),
}
"""The encoder of each codec that is kept, and its options; bits per second of 0 leave it to CRF."""

CRF = 17
"""The default constant rate factor: with h264, a film that is hard to tell from its frames."""


@dataclass(frozen=True)
class Look:
    """What a video states of its pictures as a whole; the defaults are for films that are none.

    `matrix` and `full_range` convert from RGB; `tags` are the colour space, range, primaries and
    transfer function as FFmpeg's numbers, which may be 2 or 0 for unspecified. `aspect` is that of
    a pixel in a picture of `size` (width, height).
    """

    codec: str = "h264"
    pixels: str = "yuv420p"
    matrix: str = "ITU709"
    range: int = 1
    tags: tuple[int, int, int, int] = (1, 1, 1, 1)
    rate: Fraction = Fraction(25)
    aspect: Fraction | None = None
    size: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, stream: Any) -> Look:
        """Return the look of a stream of a video."""
        c = stream.codec_context
        return cls(
            codec_of(stream),
            c.format.name.replace("yuvj", "yuv"),
            matrix_of(c),
            range_of(c),
            (c.colorspace, c.color_range, c.color_primaries, c.color_trc),
            stream.average_rate or Fraction(25),
            stream.sample_aspect_ratio,
            (stream.width, stream.height),
        )


class VideoWriter:
    """Encodes every frame as it comes and writes a video to a file.

    Codec, pixel format, colours and aspect ratio are those of the film `source`, whose sound,
    subtitles and metadata are copied. `crf` is the constant rate factor: lower is better, None the
    default. What changes or is lost is reported to `warn`. The file is whole after `close`;
    `release` closes all files, whether it is whole or not.
    """

    def __init__(
        self, path: Path, suffix: str, source: Path, crf: int | None, warn: Callable[[str], None]
    ) -> None:
        import av  # only for videos: it takes a tenth of a second

        self._crf, self._warn, self._where = CRF if crf is None else crf, warn, source
        self._files = ExitStack()
        self._look, original = Look(), None
        if is_video(source):
            original, stream = self._files.enter_context(open_video(source))
            self._look = Look.of(stream)
        self._output = self._files.enter_context(
            av.open(_address(path), "w", format=MUXERS[suffix], container_options={})
        )
        self._encoder = self._choose_encoder(suffix)
        self._stream: Any = None
        self._size = (0, 0)
        self._copies = Copies(original, self._output, self._say)

    def write(self, image: Image, alpha: Image | None, attrs: Mapping[str, Any]) -> None:
        """Encode a frame (H, W, 1 or 3). Raises BlurkitError if its size differs from the first.

        Transparent pixels are shown on black.
        """
        time = FrameTime.of(attrs)
        pixels = image if alpha is None else from_float(to_float(image) * to_float(alpha), np.uint8)
        height, width = pixels.shape[:2]
        if self._stream is None:
            self._size = (width, height)
            self._stream = self._open_stream(time.time_base)
            self._copies.begin()
        elif (width, height) != self._size:
            raise BlurkitError(f"a frame of {width}x{height} pixels does not fit the film's others")
        with _encoding():
            self._copies.until(time.start)
            self._output.mux(self._stream.encode(self._frame(pixels, time)))

    def close(self) -> None:
        """Complete the file."""
        with _encoding():
            if self._stream is not None:
                self._output.mux(self._stream.encode(None))
                self._copies.until(None)
            self.release()

    def release(self) -> None:
        """Close all files."""
        self._files.close()

    def _say(self, text: str) -> None:
        self._warn(f"{self._where}: {text}")

    def _choose_encoder(self, suffix: str) -> str:
        """Return the codec to write: that of the source, if it can be written in this container."""
        codec, other = self._look.codec, "vp9" if suffix == ".webm" else "h264"
        if codec in ENCODERS and (codec in ("vp8", "vp9", "av1") or suffix != ".webm"):
            return codec
        if self._look.size != (0, 0):
            self._say(f"its codec {codec} cannot be written; the new film is {other}")
        return other

    def _open_stream(self, time_base: Fraction) -> Any:
        name, options = ENCODERS[self._encoder]
        os.environ.setdefault("SVT_LOG", "1")  # else its encoder of AV1 prints fifty lines
        look, (width, height) = self._look, self._size
        stream = self._output.add_stream(name, rate=look.rate)
        context = stream.codec_context
        context.width, context.height = width, height
        context.pix_fmt = _pixel_format(context.codec, look.pixels, self._size)
        context.time_base = time_base
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = (
            look.tags
        )
        if look.aspect and look.aspect != 1:
            turned = look.size == (height, width) != (width, height)
            context.sample_aspect_ratio = 1 / look.aspect if turned else look.aspect
        if self._encoder == "hevc" and self._output.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players refuse others
        context.options = options | {"crf": str(self._crf)}
        return stream

    def _frame(self, pixels: Image, time: FrameTime) -> Any:
        from av import VideoFrame

        deep = pixels.dtype != np.uint8
        pixels = from_float(to_float(pixels), np.uint16) if deep else pixels
        pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        frame = VideoFrame.from_ndarray(pixels, format="rgb48le" if deep else "rgb24").reformat(
            format=self._stream.codec_context.pix_fmt,
            src_color_range=FULL_RANGE,
            dst_color_range=self._look.range,
            dst_colorspace=MATRIX_NUMBERS[self._look.matrix],
            interpolation=SCALING,
        )
        frame.pts, frame.duration, frame.time_base = time.pts, time.ticks, time.time_base
        return frame


class Copies:
    """Copies the sound, subtitles and metadata of a video, packet by packet, as time goes on."""

    def __init__(self, original: Any, output: Any, warn: Callable[[str], None]) -> None:
        self._original, self._output, self._warn = original, output, warn
        self._streams: dict[int, Any] = {}
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None

    def begin(self) -> None:
        """Add the streams to the output, after that of its pictures."""
        if self._original is None:
            return
        self._output.metadata.update(self._original.metadata)
        self._output.set_chapters(self._original.chapters())
        for stream in self._original.streams:
            if stream.type != "video" or is_cover(stream):
                self._add(stream)
        copied = [self._original.streams[index] for index in self._streams]
        if copied:
            self._packets = self._original.demux(*copied)

    def _add(self, stream: Any) -> None:
        kind = "cover" if stream.type == "video" else stream.type
        try:
            if kind not in ("audio", "subtitle"):
                raise ValueError(kind)
            copy = self._output.add_stream_from_template(stream)
        except ValueError:  # of a codec, too, that the container does not hold
            self._warn(f"its {kind} stream {stream.index} is not copied")
            return
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition.value
        self._streams[stream.index] = copy

    def until(self, seconds: Fraction | None) -> None:
        """Copy the packets up to a time, or all that are left."""
        while True:
            self._next = self._next or next(self._packets, None)
            packet = self._next
            if packet is None:
                return
            if packet.size:  # the last packet of each stream is empty
                start = packet.pts if packet.dts is None else packet.dts
                if None not in (seconds, start) and start * packet.time_base > seconds:
                    return
                packet.stream = self._streams[packet.stream.index]
                self._output.mux_one(packet)
            self._next = None


@contextmanager
def scheduling_kept() -> Iterator[None]:
    """Restore the scheduling of this thread at the end of the block, where systems have it."""
    if not hasattr(os, "sched_getscheduler"):
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, parameters)


@contextmanager
def _encoding() -> Iterator[None]:
    """Turn FFmpeg's errors into BlurkitError, except for those of the operating system.

    The thread keeps its scheduling: the encoder of AV1 gives it real-time priority, if it may, with
    which it would take the processors from all other programs until it ends.
    """
    from av import FFmpegError

    try:
        with scheduling_kept():
            yield
    except FFmpegError as error:
        if isinstance(error, OSError):
            raise
        raise BlurkitError(f"cannot be encoded ({one_line(error)})") from error


def _pixel_format(codec: Any, wanted: str, size: tuple[int, int]) -> str:
    """Return the pixel format nearest to `wanted` that an encoder accepts for this size."""
    from av import VideoFormat

    offered = [f.name for f in codec.video_formats or ()] or ["yuv420p"]
    odd = any(side % 2 for side in size)
    if wanted in offered and not (odd and "420" in wanted):
        return wanted
    deep = "10le" if bits_of(VideoFormat(wanted)) > 8 else ""
    choices = [f"yuv444p{deep}"] if odd else [f"yuv420p{deep}", "yuv420p"]
    return next((name for name in choices if name in offered), "yuv420p")
