"""Videos: their frames as upright RGB pictures, read by PyAV, which is FFmpeg, one at a time."""

from __future__ import annotations

import re
import struct
from collections import deque
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from blurkit.errors import BlurkitError, one_line
from blurkit.io.codecs.metadata import HLG, PQ, PRIMARIES, built_profile
from blurkit.io.formats import ending
from blurkit.io.images import FrameTime, Picture, frame_picture
from blurkit.io.paths import check_claim, decoding_errors, reading_error
from blurkit.io.records import Attributes, from_float

MUXERS = {
    **{".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".3gp": "3gp"},
    **{".mkv": "matroska", ".webm": "webm", ".avi": "avi", ".mts": "mpegts", ".m2ts": "mpegts"},
}
"""FFmpeg's names of the containers, by suffix."""

VIDEO_SUFFIXES = frozenset(MUXERS)

READING = {
    **{"format_whitelist": "mov,matroska,avi,mpegts", "protocol_whitelist": "file"},
    "export_xmp": "1",
}
"""FFmpeg's options for reading: playlists and the like would open other files and the network."""

MATRICES = {1: "ITU709", 4: "FCC", 5: "ITU601", 6: "ITU601", 7: "SMPTE240M", 9: "BT2020"}
"""Names of the matrices between YUV and RGB, by FFmpeg's number of the colour space."""

MATRIX_NUMBERS = {"ITU709": 1, "FCC": 4, "ITU601": 5, "SMPTE240M": 7, "BT2020": 9}
"""The same matrices as swscale's numbers, since older versions of PyAV do not know every name."""

FULL_RANGE = 2

SCALING = 0x4 | 0x2000 | 0x40000
"""swscale's BICUBIC, FULL_CHR_H_INT and ACCURATE_RND: else luma loses a grey level on its way."""


@contextmanager
def open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a video and yield its container and the stream of its moving pictures.

    Raises BlurkitError if the file is missing or not a video, or if it has too many pixels.
    """
    import av  # only for videos: it takes a tenth of a second

    damage = "is not a video that can be read, or its start is damaged"
    with decoding_errors(path, damage, reason_of):
        container = av.open(address(path), metadata_errors="replace", options=READING)
    with container:
        stream = next((s for s in container.streams.video if not is_cover(s)), None)
        if stream is None:
            raise BlurkitError(f"{path}: holds no moving pictures")
        if stream.codec_context is None:
            raise BlurkitError(f"{path}: its codec is not known, or its start is damaged")
        check_claim(stream.height, stream.width, 24, path.stat().st_size, str(path))
        yield container, stream


def address(path: Path) -> str:
    """Return a path as FFmpeg takes it for that of a file, with whatever name."""
    return f"file:{path.absolute()}"


def is_cover(stream: Any) -> bool:
    """Return whether a stream of a video is a still picture of its cover."""
    from av.stream import Disposition

    return Disposition.attached_pic in stream.disposition


def read_video(path: Path) -> Generator[Picture, None, None]:
    """Yield the frames of a video, (H, W, 3) uint8, or uint16 if it has more than 8 bits.

    They are upright: the rotation that phones store is applied. The attribute `icc_profile` says
    how colours other than the usual ones are shown. Raises BlurkitError where the file is damaged.
    """
    decoded = 0
    with open_video(path) as (container, stream):
        stream.thread_type = "AUTO"
        try:
            for frame, time in _timed(container, stream):
                check_claim(frame.height, frame.width, 24, path.stat().st_size, str(path))
                if not decoded:
                    matrix = _display_matrix(frame)
                pixels = as_displayed(_rgb(frame), matrix)
                picture = frame_picture(path, pixels, time, _profile_of(frame))
                decoded += 1
                yield picture
        except BlurkitError:
            raise
        except Exception as error:  # decoders raise errors of any kind on damaged data
            reason = f"cannot be decoded after frame {decoded} ({reason_of(error)})"
            raise reading_error(path, reason, error) from error
    if not decoded:
        raise BlurkitError(f"{path}: holds no frame that can be decoded")


def _timed(container: Any, stream: Any) -> Iterator[tuple[Any, FrameTime]]:
    """Yield every frame and its time, which ends when the next frame begins."""
    usual = max(1, round(1 / ((stream.average_rate or Fraction(25)) * stream.time_base)))

    def time(frame: Any, start: int, end: int | None) -> FrameTime:
        ticks = end - start if end is not None else frame.duration or usual
        return FrameTime(start, ticks, frame.time_base or stream.time_base)

    held, start, error = None, 0, None
    try:
        for frame, stated in _decoded(container, stream):
            if held is None:
                held, start = frame, stated or 0
                continue
            begins = start + usual if stated is None or stated <= start else stated
            yield held, time(held, start, begins)
            held, start = frame, begins
    except Exception as damage:  # of any kind; the frame before it is whole
        error = damage
    if held is not None:
        yield held, time(held, start, None)
    if error is not None:
        raise error


def _decoded(container: Any, stream: Any) -> Iterator[tuple[Any, int | None]]:
    """Yield every frame and when it is shown, if that is known.

    AVI states times in the order of the packets alone, from which FFmpeg guesses wrongly if frames
    are shown in another. Raises ValueError for damage that FFmpeg conceals.
    """
    decoded, reached = 0, 0.0
    kind, starts = container.format.name, deque[int | None]()
    for packet in container.demux():
        if packet.pts is not None:
            reached = max(reached, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream.index != stream.index:
            continue
        starts += [packet.dts] if kind == "avi" and packet.size else []
        for frame in packet.decode():
            if frame.is_corrupt:
                raise ValueError("parts of the next one are missing")
            decoded += 1
            yield frame, starts.popleft() if starts else frame.pts
    # A file that has been cut states more than there is; what an edit list drops is not shown.
    stated = (container.duration or 0) / 1e6
    shown = stated_frames(container, stream)
    if "mp4" in kind and decoded < shown:
        raise ValueError(f"{shown} were expected")
    if "matroska" in kind and reached < stated - 0.5:
        raise ValueError(f"{reached:.1f} of {stated:.1f} seconds are there")


def video_times(path: Path) -> list[FrameTime]:
    """Return when the frames of a video are shown, in order, without decoding them.

    Raises BlurkitError as `open_video` does, and if the file ends before a whole packet.
    """
    with open_video(path) as (container, stream):
        with decoding_errors(path, "cannot be read whole", reason_of):
            packets = [p for p in container.demux(stream) if p.pts is not None and not p.is_discard]
        usual = max(1, round(1 / ((stream.average_rate or Fraction(25)) * stream.time_base)))
        packets.sort(key=lambda packet: packet.pts)
        return [FrameTime(p.pts, p.duration or usual, p.time_base) for p in packets]


def stated_frames(container: Any, stream: Any) -> int:
    """Return how many frames a file states that it shows, 0 if it does not state that."""
    if "mp4" in container.format.name and stream.frames:
        return sum(not entry.is_discard for entry in stream.index_entries)
    return int(stream.frames)


def is_video(path: Path) -> bool:
    """Return whether a file's suffix, or its content if it has none, is that of a video."""
    return ending(path) in VIDEO_SUFFIXES


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
    usual = "ITU709" if context.height > 576 else "ITU601"  # as players do where none is stated
    return MATRICES.get(int(context.colorspace), usual)


def range_of(context: Any) -> int:
    """Return the range of YUV of a frame or codec context: 1 is limited, as usual, 2 is full."""
    full = int(context.color_range) == FULL_RANGE or "yuvj" in context.format.name
    return FULL_RANGE if full else 1


def bits_of(pixel_format: Any) -> int:
    """Return the bits of the deepest component of a pixel format."""
    return max(component.bits for component in pixel_format.components)


def _rgb(frame: Any) -> np.ndarray:
    pixels: np.ndarray = frame.to_ndarray(
        format="rgb24" if bits_of(frame.format) <= 8 else "rgb48le",
        src_colorspace=MATRIX_NUMBERS[matrix_of(frame)],
        src_color_range=range_of(frame),
        dst_color_range=FULL_RANGE,
        interpolation=SCALING,
    )
    return pixels


def _display_matrix(frame: Any) -> np.ndarray:
    """Return the matrix of a film's first frame; asked for it, PyAV keeps a frame in memory."""
    data = [bytes(data) for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
    return np.frombuffer(data[0], np.int32) if data else np.eye(3, dtype=np.int32).ravel()


def as_displayed(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return pixels turned by right angles and mirrored by FFmpeg's display matrix of 9 numbers."""
    across, down = matrix[0], matrix[4]
    if abs(matrix[1]) > abs(across):
        pixels, across, down = pixels.swapaxes(0, 1), matrix[3], matrix[1]
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])


# ---- Looks ---------------------------------------------------------------------------------------

MASTERING, LIGHT = "MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL"
"""PyAV's names of the static metadata of HDR10."""


@dataclass(frozen=True)
class Look:
    """What a video states of its pictures as a whole; the defaults are for films that are none.

    `matrix` and `range` convert from RGB; `tags` are the colour space, range, primaries and
    transfer function as FFmpeg's numbers, which may be 2 or 0 for unspecified. `chroma` is FFmpeg's
    name of the place of chroma samples. `aspect` is that of a pixel in a picture of `size` (width,
    height). `extras` are the bytes that frames carry, by PyAV's names.
    """

    codec: str = "h264"
    pixels: str = "yuv420p"
    matrix: str = "ITU709"
    range: int = 1
    tags: tuple[int, int, int, int] = (1, 1, 1, 1)
    chroma: str = "left"
    rate: Fraction = Fraction(25)
    aspect: Fraction | None = None
    size: tuple[int, int] = (0, 0)
    interlaced: bool = False
    transparent: bool = False
    extras: Mapping[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, path: Path) -> Look:
        """Return the look of a video. Raises BlurkitError if it cannot be read."""
        with open_video(path) as (container, stream):
            stream.thread_count = 1  # no thread that logs with `LOGGED`
            with decoding_errors(path, "cannot be decoded", reason_of):
                first = next(container.decode(stream))
            return cls(
                codec_of(stream),
                first.format.name.replace("yuvj", "yuv").replace("yuva", "yuv"),
                matrix_of(first),
                range_of(first),
                (first.colorspace, first.color_range, first.color_primaries, first.color_trc),
                _chroma_location(first),
                min(filter(None, (stream.average_rate, stream.guessed_rate)), default=Fraction(25)),
                stream.sample_aspect_ratio,
                (stream.width, stream.height),
                first.interlaced_frame,
                any(part.is_alpha for part in first.format.components)
                or stream.metadata.get("alpha_mode") == "1",
                {data.type.name: bytes(data) for data in first.side_data},
            )

    def mastering(self) -> str:
        """Return the static metadata of HDR10 as parameters of x265, empty if there are none."""
        parts = []
        if MASTERING in self.extras:  # FFmpeg's struct AVMasteringDisplayMetadata
            values = struct.unpack("=22i", self.extras[MASTERING][:88])
            pairs = zip(values[0:20:2], values[1:20:2], strict=True)
            *points, low, high = (n / d if d else 0 for n, d in pairs)
            r, g, b, white = (
                "({:.0f},{:.0f})".format(*(50000 * c for c in points[n : n + 2]))
                for n in range(0, 8, 2)
            )
            parts.append(
                f"master-display=G{g}B{b}R{r}WP{white}L({10000 * high:.0f},{10000 * low:.0f})"
            )
        if LIGHT in self.extras:
            parts.append("max-cll={},{}".format(*struct.unpack("=2I", self.extras[LIGHT][:8])))
        return ":".join(parts)


LOGGED = Lock()
"""Held while FFmpeg logs. A level that stayed set would let films hang when they are closed: with
the interpreter's lock held, that waits for decoding threads, which wait for the lock to log."""


def _chroma_location(frame: Any) -> str:
    """Return FFmpeg's name of the place of a frame's chroma samples, which PyAV does not have."""
    from av import logging
    from av.filter import Graph

    graph = Graph()
    source = graph.add_buffer(None, frame.width, frame.height, frame.format, None, Fraction(1))
    graph.link_nodes(source, graph.add("showinfo", checksum="0"), graph.add("buffersink"))
    graph.configure()
    with LOGGED:
        level = logging.get_level()
        logging.set_level(logging.INFO)
        try:
            with logging.Capture() as lines:
                graph.vpush(frame)
                graph.vpull()
        finally:
            logging.set_level(level)
    found = re.search(r" cl:(\w+) ", "".join(line[2] for line in lines))
    return found[1] if found else "unspecified"


# ---- Colour profiles -----------------------------------------------------------------------------

WIDE = {9: PRIMARIES[9], 11: PRIMARIES[12], 12: PRIMARIES[12]}
"""Red, green and blue of BT.2020 and of P3, by FFmpeg's number of the primaries; others are few."""

WHITE, PEAK = 203.0, 1000.0
"""Candelas per square metre of paper (ITU-R BT.2408) and of the brightest light that is kept."""


def _profile_of(frame: Any) -> Attributes:
    """Return an attribute with the profile of a frame's colours, none for those shown as sRGB."""
    wide, transfer = int(frame.color_primaries), int(frame.color_trc)
    if wide not in WIDE and transfer not in (PQ, HLG):
        return {}
    return {"icc_profile": np.frombuffer(_profile(wide, transfer), np.uint8)}


@lru_cache
def _profile(wide: int, transfer: int) -> bytes:
    """Return the profile of primaries, with sRGB's curve or compressed high dynamic range."""
    code = np.linspace(0, 1, 1024)
    curve = np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    if transfer in (PQ, HLG):
        light = _light_of_pq(code) if transfer == PQ else PEAK * _scene_of_hlg(code) ** 1.2
        curve = _light_of_pq(_compressed(_pq_of_light(light))) / WHITE
    white = (0.314, 0.351) if wide == 11 else (0.3127, 0.3290)
    return built_profile(white, WIDE.get(wide, WIDE[9]), from_float(curve.clip(0, 1), np.uint16))


def _light_of_pq(code: np.ndarray) -> np.ndarray:
    """Return the candelas per square metre of PQ values in [0, 1] (ITU-R BT.2100, table 4)."""
    root = code ** (32 / 2523)
    linear = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
    return 10000 * linear ** (16384 / 2610)


def _pq_of_light(light: np.ndarray) -> np.ndarray:
    """Invert `_light_of_pq`."""
    power = (light / 10000) ** (2610 / 16384)
    return ((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** (2523 / 32)


def _scene_of_hlg(code: np.ndarray) -> np.ndarray:
    """Return the light in [0, 1] of a scene of HLG values (ITU-R BT.2100, table 5)."""
    bright = (np.exp((code - 0.55991073) / 0.17883277) + 0.28466892) / 12
    return np.where(code <= 0.5, code**2 / 3, bright)


def _compressed(code: np.ndarray) -> np.ndarray:
    """Return PQ values up to `PEAK` compressed into those up to `WHITE` (ITU-R BT.2390, 5.4.1)."""
    peak, white = _pq_of_light(np.array([PEAK, WHITE]))
    code, most = np.minimum(code / peak, 1), white / peak
    knee = 1.5 * most - 0.5
    t = np.maximum(code - knee, 0) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee)
    bent += (3 * t**2 - 2 * t**3) * most
    return np.where(code < knee, code, bent) * peak


def reason_of(error: Exception) -> str:
    """Return what FFmpeg says, without the number of its error and the name of its function."""
    return str(getattr(error, "strerror", None) or one_line(error))
