"""Videos: encoded by PyAV frame by frame, with what their source holds beside its pictures."""

import io
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from blurkit.errors import BlurkitError, Say
from blurkit.io import videos
from blurkit.io.codecs.jpeg import XMP_UUID, box
from blurkit.io.images import FrameTime
from blurkit.io.records import Image, from_float, to_float

ENCODERS = {
    "h264": ("libx264", {}),
    "hevc": ("libx265", {"x265-params": "log-level=error"}),
    "vp8": ("libvpx", {"b": "0", "cpu-used": "4"}),
    "vp9": ("libvpx-vp9", {"b": "0", "cpu-used": "4", "row-mt": "1"}),
    "av1": ("libsvtav1", {"preset": "8"}),
}
"""The encoder of each codec that is kept, and its options; bits per second of 0 leave it to CRF."""

OWN = {"major_brand", "minor_version", "compatible_brands", "encoder", "software", "duration"}
"""Metadata that muxers write themselves, in lower case."""

XMP_KEY = "xmp"
"""FFmpeg's name of the XMP of MP4 and MOV, which it reads but does not write."""

STATISTICS = re.compile(
    r"bps|number_of_|_statistics_|duration|encoder|vendor_id|alpha_mode|rotate", re.IGNORECASE
)
"""How the names of metadata of the pictures' stream begin that another encoding makes false."""

HELD_BY = {"cover": ("mp4",), "attachment": ("matroska",), "data": (), "video": ()}
"""The containers in which streams are copied that are neither sound nor subtitles."""

COVERS = {"mjpeg": ("cover.jpg", "image/jpeg"), "png": ("cover.png", "image/png")}
"""The name and type of a cover in Matroska, where it is an attachment, by codec."""

EXTRAS = {
    **{"A53_CC": "closed captions", "SPHERICAL": "its projection as a panorama"},
    **{"STEREO3D": "its stereo layout", "ICC_PROFILE": "its colour profile"},
    **{"DOVI_METADATA": "Dolby Vision", "DYNAMIC_HDR_PLUS": "HDR10+"},
    **{"DYNAMIC_HDR_VIVID": "HDR Vivid", "S12M_TIMECODE": "timecode"},
    **{videos.MASTERING: "its mastering display", videos.LIGHT: "its content light level"},
}
"""What frames may carry beside their pixels, by PyAV's names, and what it is called when lost."""


@dataclass(frozen=True)
class FilmOptions:
    """How films are written: as files of `frames`, or as films.

    `crf` is the constant rate factor of videos: lower is better, None the default. If `only` some
    frames of each film are given, they begin at time 0, without its sound. What changes or is lost
    is reported to `warn`.
    """

    frames: bool = False
    crf: int | None = None
    only: range | None = None
    warn: Say = lambda text: None


class VideoWriter:
    """Encodes every frame as it comes and writes a video to a file.

    Codec, pixel format, colours and aspect ratio are those of the film `source`, whose sound,
    subtitles and metadata are copied, unless only a part of it is written. Errors name `result`,
    whose place `path` will take. The file is whole after `close`; `release` closes all files,
    whether it is whole or not.
    """

    def __init__(self, path: Path, result: Path, source: Path, options: FilmOptions) -> None:
        import av  # only for videos: it takes a tenth of a second

        self._path, self._result, self._source, self._options = path, result, source, options
        self._files = ExitStack()
        self._look, original, pictures = videos.Look(), None, None
        if videos.is_video(source):
            self._look = videos.Look.of(source)
            if options.only is None:
                original, pictures = self._files.enter_context(videos.open_video(source))
        muxer = videos.MUXERS[result.suffix.lower()]
        # The index comes first in MP4 and MOV, for players on networks.
        keys = original is not None and _has_keys(original.metadata)
        flags = {"movflags": "faststart" + "+use_metadata_tags" * keys}
        muxing = flags if muxer in ("mp4", "mov", "3gp") else {}
        output = av.open(videos.address(path), "w", format=muxer, container_options=muxing)
        self._output = self._files.enter_context(output)
        self._encoder = self._choose_encoder(result.suffix.lower())
        self._offset = Fraction(0)
        if original is not None and original.format.name == "mpegts" != muxer:
            # A transport stream starts at any time, from which other films count.
            self._offset = Fraction(original.start_time or 0, 1_000_000)
        self._stream: Any = None
        self._graphs: dict[str, Any] = {}
        self._size, self._last = (0, 0), -(2**62)
        self._copies = Copies(original, pictures, self._output, self._offset)

    def write(self, image: Image, alpha: Image | None, attrs: Mapping[str, Any]) -> None:
        """Encode a frame (H, W, 1 or 3). Raises BlurkitError if its size differs from the first.

        Transparent pixels are shown on black. A frame comes at least a tick after the one before.
        """
        time = FrameTime.of(attrs)
        pixels = image if alpha is None else from_float(to_float(image) * to_float(alpha), np.uint8)
        height, width = pixels.shape[:2]
        if self._stream is None:
            self._size = (width, height)
            self._offset = self._offset if self._options.only is None else time.start
            with _encoding(self._result):
                self._stream = self._open_stream(time.time_base)
                self._copies.begin(self._stream)
        elif (width, height) != self._size:
            raise BlurkitError(f"a frame of {width}x{height} pixels does not fit the film's others")
        self._last = max(time.pts - round(self._offset / time.time_base), self._last + 1)
        with _encoding(self._result):
            self._copies.until(time.start)
            self._output.mux(self._stream.encode(self._frame(pixels, time)))

    def close(self) -> None:
        """Complete the file, and report what it does not hold of its source."""
        with _encoding(self._result):
            if self._stream is not None:
                self._output.mux(self._stream.encode(None))
                self._copies.until(None)
            self._output.close()
            self._copies.append_xmp(self._path)
            lost = [*self._dropped(), *self._copies.lost(self._path)]
            self.release()
        if lost:
            self._options.warn(f"{self._source}: not kept in the new film: {', '.join(lost)}")

    def release(self) -> None:
        self._files.close()

    def _dropped(self) -> list[str]:
        look = self._look
        if look.size == (0, 0) or self._stream is None:
            return []
        kept = {videos.MASTERING, videos.LIGHT} if self._encoder == "hevc" else set()
        pixels = self._stream.codec_context.pix_fmt
        return [
            *[f"codec {look.codec} (it is {self._encoder})"] * (look.codec != self._encoder),
            *[f"pixel format {look.pixels} (it is {pixels})"] * (look.pixels != pixels),
            *[name for key, name in EXTRAS.items() if key in look.extras.keys() - kept],
            *["transparency"] * look.transparent,
            *["interlacing (its frames are as before)"] * look.interlaced,
        ]

    def _choose_encoder(self, suffix: str) -> str:
        """Return the codec to write: that of the source, if it can be written in this container."""
        from av import VideoFormat

        codec, deep = self._look.codec, videos.bits_of(VideoFormat(self._look.pixels)) > 8
        likes = ["vp9", "av1"] if suffix == ".webm" or codec in ("vp8", "vp9") else []
        held = self._output.supported_codecs
        if videos.MUXERS[suffix] == "mpegts":  # FFmpeg does not say it
            held = {"h264", "hevc"}
        shallow = ("vp8", "vp9") if deep else ()  # PyAV's encoders of these write 8 bits
        able = (held & ENCODERS.keys()).difference(shallow)
        return next(name for name in (codec, *likes, "h264") if name in able)

    def _open_stream(self, time_base: Fraction) -> Any:
        name, options = ENCODERS[self._encoder]
        os.environ.setdefault("SVT_LOG", "1")  # else its encoder of AV1 prints fifty lines
        look, (width, height) = self._look, self._size
        stream = self._output.add_stream(name, rate=look.rate)
        context: Any = stream.codec_context
        context.width, context.height = width, height
        context.pix_fmt = _pixel_format(context.codec, look.pixels, self._size)
        context.time_base = time_base
        if self._output.format.name == "avi":
            context.max_b_frames = 0  # its times are those of packets, in the order of the file
        context.colorspace, context.color_range, context.color_primaries, context.color_trc = (
            look.tags
        )
        if look.aspect and look.aspect != 1:
            turned = look.size == (height, width) != (width, height)
            context.sample_aspect_ratio = 1 / look.aspect if turned else look.aspect
        if self._encoder == "hevc" and self._output.format.name in ("mp4", "mov"):
            context.codec_tag = "hvc1"  # Apple's players refuse others
        if self._encoder == "hevc" and look.mastering():
            options = {"x265-params": f"{options['x265-params']}:{look.mastering()}"}
        place = {} if look.chroma == "unspecified" else {"chroma_sample_location": look.chroma}
        # By default, with h264, the film is hard to tell from its frames.
        crf = 17 if self._options.crf is None else self._options.crf
        context.options = options | place | {"crf": str(crf)}
        return stream

    def _frame(self, pixels: Image, time: FrameTime) -> Any:
        from av import VideoFrame

        deep = pixels.dtype != np.uint8
        pixels = from_float(to_float(pixels), np.uint16) if deep else pixels
        pixels = np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
        kind = "rgb48le" if deep else "rgb24"
        if kind not in self._graphs:
            self._graphs[kind] = self._conversion(kind)
        self._graphs[kind].vpush(VideoFrame.from_ndarray(pixels, format=kind))
        frame = self._graphs[kind].vpull()
        frame.pts, frame.duration, frame.time_base = self._last, time.ticks, time.time_base
        return frame

    def _conversion(self, kind: str) -> Any:
        """Return FFmpeg's conversion to the stream's pixels; PyAV's own does not place chroma."""
        from av import VideoFormat
        from av.filter import Graph

        look, (width, height) = self._look, self._size
        graph = Graph()
        graph.link_nodes(
            graph.add_buffer(None, width, height, VideoFormat(kind), None, Fraction(1)),
            graph.add(
                "scale",
                flags=str(videos.SCALING),
                in_range="full",
                out_range="full" if look.range == videos.FULL_RANGE else "limited",
                out_color_matrix=look.matrix.lower().replace("itu", "bt"),
                out_chroma_loc=look.chroma.replace("unspecified", "auto"),
            ),
            graph.add("format", pix_fmts=self._stream.codec_context.pix_fmt),
            graph.add("buffersink"),
        )
        graph.configure()
        return graph


def _has_keys(metadata: Mapping[str, str]) -> bool:
    """Return whether metadata has names such as `com.apple.quicktime.make`, QuickTime's keys.

    MP4 and MOV hold either those and all other names, or the usual names and a cover.
    """
    return any("." in name for name in metadata)


class Copies:
    """Copies the sound, subtitles and metadata of a video, packet by packet, as time goes on.

    `pictures` is the stream of the video's moving pictures, which are not copied; times become
    earlier by `offset` seconds.
    """

    def __init__(self, original: Any, pictures: Any, output: Any, offset: Fraction) -> None:
        self._original, self._pictures, self._output = original, pictures, output
        self._offset = offset
        self._streams: dict[int, Any] = {}
        self._left_out: list[str] = []
        self._last: dict[int, int] = {}
        self._packets: Iterator[Any] = iter(())
        self._next: Any = None

    def begin(self, encoded: Any) -> None:
        """Add the streams to the output, after that of its pictures, `encoded`."""
        if self._original is None:
            return
        metadata = self._original.metadata
        own = OWN | {XMP_KEY}
        self._output.metadata.update({k: v for k, v in metadata.items() if k.lower() not in own})
        self._output.set_chapters(self._original.chapters())
        stated = self._pictures.metadata
        encoded.metadata.update({k: v for k, v in stated.items() if not STATISTICS.match(k)})
        encoded.disposition = self._pictures.disposition.value
        for stream in self._original.streams:
            if stream.index != self._pictures.index:
                self._add(stream)
        copied = [self._original.streams[index] for index in self._streams]
        if copied:
            self._packets = self._original.demux(*copied)

    def _add(self, stream: Any) -> None:
        kind, codec = "cover" if videos.is_cover(stream) else stream.type, videos.codec_of(stream)
        muxers = HELD_BY.get(kind)
        if kind == "cover" and _has_keys(self._original.metadata):
            muxers = ()
        if kind == "cover" and self._output.format.name == "matroska" and codec in COVERS:
            data = bytes(next(self._original.demux(stream)))  # covers come before all packets
            self._output.add_attachment(*COVERS[codec], data)
            return
        try:
            if muxers is None:
                self._try(stream)
            elif self._output.format.name not in muxers:
                raise ValueError(kind)
            copy = self._output.add_stream_from_template(stream, opaque=True)
        except ValueError:  # of FFmpeg, too
            # The names of chapters are a stream of MP4 and MOV.
            named = kind == "data" and stream.name == "bin_data" and self._original.chapters()
            if "timecode" not in stream.metadata and not named:
                self._left_out.append(f"{kind} stream {stream.index}")
            return
        copy.metadata.update(stream.metadata)
        copy.disposition = stream.disposition.value
        self._streams[stream.index] = copy

    def _try(self, stream: Any) -> None:
        """Raise ValueError if the container does not hold a stream, which a header may show."""
        import av

        with av.open(io.BytesIO(), "w", format=self._output.format.name) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()

    def until(self, seconds: Fraction | None) -> None:
        """Copy the packets up to a time, or all that are left."""
        while (packet := self._next or next(self._packets, None)) is not None:
            self._next = packet
            if packet.size:  # the last packet of each stream is empty
                start = packet.pts if packet.dts is None else packet.dts
                if None not in (seconds, start) and start * packet.time_base > seconds:
                    return
                self._copy(packet, start)
            self._next = None

    def _copy(self, packet: Any, start: int | None) -> None:
        """Copy a packet, at least a tick after its stream's last one, unless it is damaged."""
        from av import FFmpegError

        index = packet.stream.index
        least = self._last.get(index, -(2**62)) + 1
        offset = round(self._offset / packet.time_base)
        packet.dts = max(least, 0 if start is None else start - offset)
        packet.pts = packet.dts if packet.pts is None else max(packet.pts - offset, packet.dts)
        self._last[index] = packet.dts
        kind, packet.stream = packet.stream.type, self._streams[index]
        try:
            self._output.mux_one(packet)
        except FFmpegError as error:
            if isinstance(error, OSError):
                raise
            part = f"damaged parts of {kind} stream {index}"
            self._left_out += [part] if part not in self._left_out else []

    def append_xmp(self, path: Path) -> None:
        """Write the XMP of the video, if any, behind a finished MP4 or MOV."""
        text = "" if self._original is None else self._original.metadata.get(XMP_KEY, "")
        if text and self._output.format.name in ("mp4", "mov"):
            with path.open("ab") as file:
                file.write(box(b"uuid", XMP_UUID + text.encode(errors="surrogateescape")))

    def lost(self, path: Path) -> list[str]:
        """Return what the finished file lacks of the streams, metadata and chapters."""
        import av

        if self._original is None:
            return []
        with av.open(
            videos.address(path), metadata_errors="replace", options=videos.READING
        ) as made:
            kept = (made.metadata, made.streams[0].metadata)
            known = OWN | {key.lower() for source in kept for key in source}
            stated = [*self._original.metadata]
            stated += [key for key in self._pictures.metadata if key.lower() == "timecode"]
            metadata = [key for key in stated if key.lower() not in known]
            chapters = ["chapters"] if self._original.chapters() and not made.chapters() else []
            before = [self._pictures, *(self._original.streams[index] for index in self._streams)]
            gone, changed = [], []
            for kind in ("video", "audio", "subtitle"):
                after = [s for s in made.streams if s.type == kind and not videos.is_cover(s)]
                olds = [s for s in before if s.type == kind and not videos.is_cover(s)]
                for old, new in zip_longest(olds, after[: len(olds)]):
                    if new is None or (
                        kind != "video" and videos.codec_of(old) != videos.codec_of(new)
                    ):
                        gone.append(f"{kind} stream {old.index}")
                        continue
                    if old.language not in (None, "und", new.language):
                        changed.append(f"language of {kind} stream {old.index}")
                    delays = _start(old) - _start(before[0]), _start(new) - _start(made.streams[0])
                    if kind == "audio" and abs(delays[0] - delays[1]) > 0.1:  # seconds
                        changed.append(f"delay of {kind} stream {old.index} ({delays[0]:.3f} s)")
        named = [f"metadata ({', '.join(metadata)})"] if metadata else []
        return [*self._left_out, *gone, *chapters, *changed, *named]


def _start(stream: Any) -> float:
    """Return when a stream starts, in seconds."""
    return float((stream.start_time or 0) * stream.time_base)


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
def _encoding(result: Path) -> Iterator[None]:
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
        raise BlurkitError(f"{result}: cannot be encoded ({videos.reason_of(error)})") from error


def _pixel_format(codec: Any, wanted: str, size: tuple[int, int]) -> str:
    """Return the pixel format nearest to `wanted` that an encoder accepts for this size."""
    from av import VideoFormat

    offered = [f.name for f in codec.video_formats or ()] or ["yuv420p"]
    odd = any(side % 2 for side in size)
    if wanted in offered and not (odd and "420" in wanted):
        return wanted
    deep = "10le" if videos.bits_of(VideoFormat(wanted)) > 8 else ""
    choices = [f"yuv444p{deep}"] if odd else [f"yuv420p{deep}", "yuv420p"]
    return next((name for name in choices if name in offered), "yuv420p")
