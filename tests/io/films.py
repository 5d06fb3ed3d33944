"""Small films made by PyAV, Pillow and tifffile, and what these say of films."""

import io
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import skimage.data
import tifffile

from blurkit.data.sources import read_records
from blurkit.io.encoding import scheduling_kept
from blurkit.io.films import FilmOptions
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.videos import is_cover

PHOTO = skimage.data.astronaut()
TICK = Fraction(1, 25)
UNEVEN = (0, 1, 3, 4, 8, 9, 15, 16, 17, 30)
"""The times of the frames of a film of variable rate, in ticks of a 25th of a second."""

DURATIONS = (40, 80, 120, 60, 200)
"""The milliseconds for which the frames of an animation are shown."""


def pictures(count: int = 10, width: int = 64, height: int = 48) -> list[np.ndarray]:
    """Crops of a photo that moves by two pixels from frame to frame."""
    return [PHOTO[100 : 100 + height, 2 * n : 2 * n + width].copy() for n in range(count)]


def copy(source: Path, output: Path, **options: Any) -> list[str]:
    """Write the frames of a film as they are; return the warnings."""
    told: list[str] = []
    films = FilmOptions(warn=told.append, **options)
    with open_sink(str(output), ("blur",), "deblurred", FileOptions(films=films)) as sink:
        for record in read_records([source]):
            sink.claim(record)
            sink.write(record)
    return told


def make_video(
    path: Path,
    frames: list[np.ndarray] | None = None,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: tuple[int, ...] | None = None,
    tags: tuple[int, int, int, int] | None = None,
    rotation: int | None = None,
    audio: bool = True,
    options: dict[str, str] | None = None,
    encoder: dict[str, str] | None = None,
    sound: str = "aac",
    metadata: dict[str, str] | None = None,
) -> Path:
    """Write a video; `tags` are the colour space, range, primaries and transfer function.

    Frames are RGB, or flat planes of the format `pixels`, which is then 4:2:0. `options` are those
    of the container, `encoder` those of the encoder.
    """
    frames = pictures() if frames is None else frames
    kind, (height, width) = "rgb24", frames[0].shape[:2]
    if frames[0].ndim == 2:
        kind, height = pixels, height * 2 // 3
    with scheduling_kept(), av.open(str(path), "w", options=options or {}) as film:
        film.metadata.update(metadata or {"title": "A Film"})
        video: Any = film.add_stream(codec, rate=25, options={"crf": "10"} | (encoder or {}))
        video.width, video.height, video.pix_fmt = width, height, pixels
        video.codec_context.time_base = TICK
        if tags is not None:
            context = video.codec_context
            context.colorspace, context.color_range = tags[:2]
            context.color_primaries, context.color_trc = tags[2:]
        if rotation is not None:
            video.set_display_rotation(rotation)
        track: Any = film.add_stream(sound, rate=48000, layout="mono") if audio else None
        for number, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format=kind).reformat(format=pixels)
            frame.pts, frame.time_base = (times or range(len(frames)))[number], TICK
            film.mux(video.encode(frame))
        film.mux(video.encode(None))
        if track is not None:
            _write_sound(film, track, len(frames))
    return path


def make_flat(path: Path, yuv: np.ndarray, height: int, tags: Any, count: int = 1) -> None:
    """Write a video whose frames have one colour, of 8 or of 10 bits."""
    kind = "yuv420p10le" if yuv.dtype == np.uint16 else "yuv420p"
    flat = np.repeat(np.repeat(yuv, [height, height // 4, height // 4])[:, None], 64, axis=1)
    make_video(path, [flat] * count, pixels=kind, tags=tags, audio=False, encoder={"crf": "1"})


def _write_sound(film: Any, track: Any, frames: int) -> None:
    wave = np.sin(np.arange(1920 * frames) / 20).astype(np.float32)
    step = track.codec_context.frame_size or 1024
    kind = av.AudioResampler(track.codec_context.format, "mono", 48000)
    for start in range(0, len(wave) - step + 1, step):
        part = wave[None, start : start + step]
        frame = av.AudioFrame.from_ndarray(part, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        film.mux(packet for whole in kind.resample(frame) for packet in track.encode(whole))
    film.mux(track.encode(None))


@dataclass(frozen=True)
class Shown:
    """What PyAV says of a video, and its frames as YUV."""

    codec: str
    pixels: str
    size: tuple[int, int]
    times: list[Fraction]
    tags: tuple[int, int, int, int]
    sound: list[bytes]
    title: str | None
    yuv: list[np.ndarray]
    rotation: int


def shown(path: Path) -> Shown:
    """Everything of a video that blurkit promises to keep."""
    with av.open(str(path)) as film:
        sound = [bytes(p) for p in film.demux(audio=0) if p.size] if film.streams.audio else []
    with av.open(str(path)) as film:
        stream = film.streams.video[0]
        context: Any = stream.codec_context
        frames = list(film.decode(stream))
        return Shown(
            context.codec.canonical_name,
            context.format.name,
            (stream.width, stream.height),
            [frame.pts * frame.time_base for frame in frames],  # type: ignore[misc,operator]
            (context.colorspace, context.color_range, context.color_primaries, context.color_trc),
            sound,
            film.metadata.get("title"),
            [frame.to_ndarray() for frame in frames],
            frames[0].rotation,
        )


def planes(path: Path) -> list[np.ndarray]:
    """The three planes of a film's fourth frame, as floats."""
    with av.open(str(path)) as film:
        frame: Any = [*film.decode(video=0)][3]
        kind: Any = np.uint8 if frame.format.components[0].bits == 8 else np.uint16
        return [
            np.frombuffer(plane, kind).reshape(plane.height, -1)[:, : plane.width].astype(float)
            for plane in frame.planes
        ]


def displacement(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """By how many samples an image has moved down and to the right, by its gradients."""
    gradients = [part[2:-2, 2:-2].ravel() for part in np.gradient(before)]
    change = (before - after)[2:-2, 2:-2].ravel()
    return np.linalg.lstsq(np.stack(gradients, 1), change, rcond=None)[0]


def make_rich_video(folder: Path, key: str) -> Path:
    """Write a Matroska file with all that may be beside pictures; `rich_parts` finds it again.

    `key` is the name of a metadatum.
    """
    (folder / "a.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\nHello\n")
    make_video(folder / "plain.mp4")
    cover = io.BytesIO()
    PIL.Image.fromarray(PHOTO[:40, :40]).save(cover, "JPEG")
    with (
        av.open(str(folder / "plain.mp4")) as film,
        av.open(str(folder / "a.srt")) as text,
        av.open(str(folder / "rich.mkv"), "w") as output,
    ):
        copies: Any = {
            s: output.add_stream_from_template(s) for s in [*film.streams, *text.streams]
        }
        for stream, language in zip(copies.values(), ("fra", "deu", "eng"), strict=True):
            stream.metadata["language"] = language
        output.streams.video[0].metadata["timecode"] = "01:00:00:00"
        output.metadata[key] = "value"
        output.add_attachment("cover.jpg", "image/jpeg", cover.getvalue())
        output.add_attachment("font.ttf", "font/ttf", b"no font")
        chapter = {"id": 1, "start": 0, "end": 300, "time_base": Fraction(1, 1000)}
        output.set_chapters([chapter | {"metadata": {"title": "One"}}])  # type: ignore[list-item]
        for packet in [*film.demux(), *text.demux()]:
            if packet.size:
                packet.stream = copies[packet.stream]
                output.mux(packet)
    return folder / "rich.mkv"


def rich_parts(path: Path) -> dict[str, Any]:
    """What a film holds of `make_rich_video`, by the names that messages have for it."""
    with av.open(str(path)) as film:
        known = dict(film.streams.video[0].metadata) | dict(film.metadata)
        texts = {key.lower(): value for key, value in known.items()}
        languages = {s.type: s.language for s in film.streams if s.language not in (None, "und")}
        data: dict[str, list[bytes]] = defaultdict(list)
        for packet in film.demux():
            kind = "cover" if is_cover(packet.stream) else packet.stream.type
            if packet.size:
                data[kind].append(bytes(packet))
        return {
            "subtitle stream": data.get("subtitle"),
            "cover stream": data.get("cover"),
            "attachment stream": [s.type for s in film.streams if s.type == "attachment"],
            "chapters": [chapter["metadata"]["title"] for chapter in film.chapters()],
            "language of video": languages.get("video"),
            "language of audio": languages.get("audio"),
            "timecode": texts.get("timecode"),
            "metadata": [texts.get(name) for name in ("com.example.key", "comment")],
        }


def psnr(first: list[np.ndarray], second: list[np.ndarray], peak: float = 255) -> float:
    """The PSNR in dB between two lists of images of one size."""
    squares = (np.float64(np.stack(first)) - np.stack(second)) ** 2
    return float(10 * np.log10(peak**2 / np.mean(squares)))


def make_animation(path: Path, transparent: bool = False, **options: Any) -> Path:
    """Write an animation of five frames by Pillow; a hole moves through transparent ones."""
    images = [PIL.Image.fromarray(rgb) for rgb in pictures(5)]
    if transparent:
        for number, image in enumerate(images):
            alpha = np.full((48, 64), 255, np.uint8)
            alpha[5 * number : 5 * number + 10, :20] = 0
            image.putalpha(PIL.Image.fromarray(alpha))
    kind = {".gif": "GIF", ".webp": "WEBP", ".avif": "AVIF"}.get(path.suffix, "PNG")
    settings = {"duration": list(DURATIONS), "append_images": images[1:], "save_all": True}
    images[0].save(path, kind, **(settings | options))
    return path


def shown_animation(path: Path) -> tuple[list[Any], Any, list[np.ndarray]]:
    """The durations, the loop count and the frames as RGBA that Pillow sees."""
    durations, frames = [], []
    with PIL.Image.open(path) as image:
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            frames.append(np.asarray(image.convert("RGBA")))
            durations.append(image.info.get("duration"))
        return durations, image.info.get("loop"), frames


def make_pages(path: Path) -> list[np.ndarray]:
    """Write a TIFF file of four pages of several sizes, one of them grey; return its pages."""
    pages = [PHOTO[:20, : 30 + n].astype(np.uint16) * 257 for n in range(4)]
    pages[2] = pages[2][:, :, 0]
    with tifffile.TiffWriter(path) as file:
        for page in pages:
            kind = "rgb" if page.ndim == 3 else "minisblack"
            file.write(page, photometric=kind, metadata=None)
    return pages
