"""Films: read frame by frame as other programs show them, and written again as they were."""

import os
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import tifffile

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError, UsageError
from blurkit.io import paths
from blurkit.io.films import FilmOptions, is_film, read_film
from blurkit.io.image_sinks import FileOptions, open_sink
from blurkit.io.images import FrameTime, read_image
from blurkit.io.records import Record
from blurkit.io.videos import describe_video
from tests.io.films import (
    DURATIONS,
    PHOTO,
    TICK,
    UNEVEN,
    make_animation,
    make_pages,
    make_video,
    pictures,
    psnr,
    shown,
    shown_animation,
)
from tests.io.scenes import PEAK_MEGABYTES


def copy(source: Path, output: Path, **options: Any) -> list[str]:
    """Write the frames of a film as they are; return the warnings."""
    told: list[str] = []
    films = FilmOptions(warn=told.append, **options)
    with open_sink(str(output), ("blur",), "deblurred", FileOptions(films=films)) as sink:
        for record in read_records([source]):
            sink.claim(record)
            sink.write(record)
    return told


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("uneven.mp4", {"times": UNEVEN}),
        ("uneven.mkv", {"times": UNEVEN}),
        ("phone.mov", {"tags": (1, 2, 1, 1)}),
        ("hdr.mp4", {"codec": "libx265", "pixels": "yuv420p10le", "tags": (9, 1, 9, 16)}),
        ("camera.mov", {"pixels": "yuv422p10le", "tags": (1, 1, 1, 1)}),
        ("tv.mts", {"tags": (6, 1, 6, 6)}),
        ("web.webm", {"codec": "libvpx-vp9", "audio": False}),
        ("new.mp4", {"codec": "libsvtav1", "pixels": "yuv420p10le"}),
    ],
)
def test_a_video_keeps_all_the_rest(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    source, output = make_video(tmp_path / name, **options), tmp_path / f"out_{name}"
    assert copy(source, output) == []
    before, after = shown(source), shown(output)
    same = [(s.codec, s.pixels, s.size, s.times, s.tags, s.title) for s in (before, after)]
    assert same[0] == same[1]
    assert before.sound == after.sound
    deep = "10" in before.pixels
    assert psnr(before.yuv, after.yuv, 1023 if deep else 255) > 38
    # Neither the way to RGB and back nor the encoder makes a film darker.
    height = before.size[1]
    both = ([f[:height] if f.ndim == 2 else f[..., 0] for f in s.yuv] for s in (before, after))
    assert abs(np.subtract(*map(np.mean, both))) < (1.2 if deep else 0.3)


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="no scheduling policies here")
@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
    ],
)
def test_a_list_of_other_files_is_no_film(text: str, tmp_path: Path) -> None:
    make_video(tmp_path / "other.mp4")
    film = tmp_path / "film.mp4"
    film.write_text(text)
    with pytest.raises(BlurkitError, match=r"film\.mp4: is not a video"):
        next(read_film(film))


@pytest.mark.skipif(os.name == "nt", reason="its files have no such names")
@pytest.mark.parametrize(
    "name", ["12:30:05.mp4", "http:/127.0.0.1:9/a.mp4", "-f.mp4", "a%20?b.mp4"]
)
def test_any_name_is_that_of_a_file(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    make_video(Path("a.mp4")).rename(name)
    (Path("out") / name).parent.mkdir(parents=True)
    assert copy(Path(name), Path("out") / name) == []
    assert len(shown(Path("out") / name).yuv) == len(pictures())


def test_an_encoder_does_not_raise_the_priority_of_the_program(tmp_path: Path) -> None:
    """That of AV1 gives a thread of root real-time priority, and leaves it."""
    source = make_video(tmp_path / "a.mp4", codec="libsvtav1", pixels="yuv420p10le")
    copy(source, tmp_path / "out.mp4")
    assert shown(tmp_path / "out.mp4").codec == shown(source).codec
    assert os.sched_getscheduler(0) == os.SCHED_OTHER


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_film_is_upright(rotation: int, tmp_path: Path) -> None:
    upright = pictures()
    # A display rotation is counterclockwise, so the stored pictures are turned clockwise.
    stored = [np.ascontiguousarray(np.rot90(rgb, -rotation // 90)) for rgb in upright]
    source = make_video(tmp_path / "a.mp4", stored, rotation=rotation, pixels="yuv444p")
    assert shown(source).rotation in (rotation, -rotation if rotation == 180 else rotation)
    frames = [picture.pixels for picture in read_film(source)]
    assert psnr(frames, upright) > 35
    copy(source, tmp_path / "out.mp4")
    again = shown(tmp_path / "out.mp4")
    assert (again.rotation, again.size) == (0, (64, 48))
    assert psnr([p.pixels for p in read_film(tmp_path / "out.mp4")], upright) > 35


@pytest.mark.parametrize(
    ("tags", "height", "red", "blue", "full"),
    [
        ((1, 1, 1, 1), 48, 0.2126, 0.0722, False),
        ((6, 1, 6, 6), 48, 0.299, 0.114, False),
        ((5, 2, 5, 6), 48, 0.299, 0.114, True),
        ((9, 1, 9, 14), 48, 0.2627, 0.0593, False),
        (None, 48, 0.299, 0.114, False),
        (None, 720, 0.2126, 0.0722, False),
    ],
)
def test_colours_follow_the_matrix_and_the_range(
    tags: Any, height: int, red: float, blue: float, full: bool, tmp_path: Path
) -> None:
    y, u, v = 110.0, 100.0, 160.0
    rows = np.repeat([y, u, v], [height, height // 4, height // 4])
    flat = np.repeat(rows[:, None], 64, axis=1).astype(np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as film:
        stream: Any = film.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, height, "yuv420p"
        if tags is not None:
            stream.codec_context.colorspace, stream.codec_context.color_range = tags[:2]
            stream.codec_context.color_primaries, stream.codec_context.color_trc = tags[2:]
        film.mux(stream.encode(av.VideoFrame.from_ndarray(flat, format="yuv420p")))
        film.mux(stream.encode(None))
    # ITU-R BT.601, BT.709 and BT.2020, section on the derivation of R, G and B.
    light = y / 255 if full else (y - 16) / 219
    cb, cr = (c / (255 if full else 224) for c in (u - 128, v - 128))
    r, b = light + 2 * (1 - red) * cr, light + 2 * (1 - blue) * cb
    g = (light - red * r - blue * b) / (1 - red - blue)
    (picture,) = read_film(tmp_path / "a.mp4")
    np.testing.assert_allclose(picture.pixels[height // 2, 32], 255 * np.array([r, g, b]), atol=2)


def test_a_codec_without_an_encoder_becomes_h264(tmp_path: Path) -> None:
    make_video(tmp_path / "old.avi", codec="mpeg4", audio=False)
    (told,) = copy(tmp_path / "old.avi", tmp_path / "new.avi")
    assert told == f"{tmp_path}/old.avi: its codec mpeg4 cannot be written; the new film is h264"
    assert shown(tmp_path / "new.avi").codec == "h264"
    assert len(shown(tmp_path / "new.avi").yuv) == len(shown(tmp_path / "old.avi").yuv)


def test_codecs_that_nobody_knows(tmp_path: Path) -> None:
    """Pictures cannot be read; sound is not copied."""
    make_video(tmp_path / "a.mkv")
    data = (tmp_path / "a.mkv").read_bytes()
    (tmp_path / "pictures.mkv").write_bytes(data.replace(b"V_MPEG4", b"V_ZZZZ4"))
    with pytest.raises(BlurkitError, match="its codec is not known"):
        next(read_film(tmp_path / "pictures.mkv"))
    (tmp_path / "sound.mkv").write_bytes(data.replace(b"A_AAC", b"A_ZZZ"))
    assert describe_video(tmp_path / "sound.mkv")["audio"] == ["unknown"]
    (told,) = copy(tmp_path / "sound.mkv", tmp_path / "new.mkv")
    assert told.endswith("its audio stream 1 is not copied")
    assert len(shown(tmp_path / "new.mkv").yuv) == len(shown(tmp_path / "a.mkv").yuv)


def test_subtitles_are_copied_and_what_is_not_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.srt").write_text("1\n00:00:00,000 --> 00:00:00,300\nHello\n")
    make_video(tmp_path / "plain.mkv")
    with (
        av.open(str(tmp_path / "plain.mkv")) as film,
        av.open(str(tmp_path / "a.srt")) as text,
        av.open(str(tmp_path / "a.mkv"), "w") as output,
    ):
        output.add_attachment("font.ttf", "font/ttf", b"no font")
        copies = {s: output.add_stream_from_template(s) for s in [*film.streams, *text.streams]}
        for packet in [*film.demux(), *text.demux()]:
            if packet.size:
                packet.stream = copies[packet.stream]
                output.mux(packet)
    (told,) = copy(tmp_path / "a.mkv", tmp_path / "b.mkv")
    assert told.endswith("its attachment stream 3 is not copied")
    (told, _) = copy(tmp_path / "a.mkv", tmp_path / "b.avi")
    with av.open(str(tmp_path / "b.mkv")) as film:
        packets = [bytes(p) for p in film.demux(subtitles=0) if p.size]
    assert packets == [b"Hello"]
    assert "subtitle stream 2 is not copied" in told


def test_animations_keep_times_loops_and_transparency(tmp_path: Path) -> None:
    for name, options, close in [
        ("a.gif", {"loop": 3}, 12),
        ("once.gif", {}, 12),
        ("hole.gif", {"loop": 0, "transparent": True, "disposal": 2}, 12),
        ("a.png", {"loop": 2}, 0),
        ("hole.apng", {"loop": 2, "transparent": True, "disposal": 1}, 0),
        ("a.avif", {}, 6),
        ("hole.webp", {"loop": 4, "transparent": True, "lossless": True}, 6),
    ]:
        source, output = make_animation(tmp_path / name, **options), tmp_path / f"out_{name}"
        assert is_film(source), name
        copy(source, output)
        (times, loop, before), (new_times, new_loop, after) = map(shown_animation, (source, output))
        assert (times, loop) == (new_times, new_loop) == (list(DURATIONS), loop), name
        for old, new in zip(before, after, strict=True):
            np.testing.assert_array_equal(old[..., 3], new[..., 3], name)
            visible = old[..., 3] > 0
            error = np.abs(old.astype(float) - new)[visible]
            assert error.mean() <= close, name


@pytest.mark.parametrize(
    ("name", "options"),
    [
        *(("a.gif", {"transparent": True, "disposal": n}) for n in range(3)),
        *(("a.png", {"transparent": True, "disposal": n, "blend": n % 2}) for n in range(3)),
        ("a.apng", {"default_image": True, "duration": DURATIONS[1:]}),
        ("a.webp", {"transparent": True, "exif": b"no EXIF"}),
        ("a.avif", {"transparent": True}),
    ],
)
def test_frames_of_an_animation_are_what_pillow_shows(
    name: str, options: dict[str, Any], tmp_path: Path
) -> None:
    source, start = make_animation(tmp_path / name, **options), 0
    pictures = read_film(source)
    for picture, duration, rgba in zip(pictures, *shown_animation(source)[::2], strict=True):
        np.testing.assert_array_equal(picture.pixels, rgba[:, :, :3])
        if picture.alpha is None:
            assert (rgba[:, :, 3] == 255).all()
        else:
            np.testing.assert_array_equal(picture.alpha, rgba[:, :, 3:])
        time = FrameTime.of(picture.attrs)
        assert (1000 * time.start, 1000 * time.duration) == (start, round(duration or 0))
        start += round(duration or 0)


def test_frames_before_the_end_of_a_cut_animation(tmp_path: Path) -> None:
    data = make_animation(tmp_path / "a.gif").read_bytes()
    whole = shown_animation(tmp_path / "a.gif")[2]
    for size in range(len(data) // 4, len(data) - 40, len(data) // 50):
        (tmp_path / "a.gif").write_bytes(data[:size])
        count = 0
        with pytest.raises(BlurkitError, match=r"a\.gif: damaged after frame \d") as told:
            for count, picture in enumerate(read_film(tmp_path / "a.gif"), 1):
                np.testing.assert_array_equal(picture.pixels, whole[count - 1][:, :, :3])
        assert f"after frame {count} " in str(told.value)


@pytest.mark.parametrize("name", ["a.gif", "a.apng", "a.png", "a.webp", "a.avif"])
def test_a_cut_animation_is_never_taken_for_a_whole_one(name: str, tmp_path: Path) -> None:
    """Nor is a GIF that is cut between the blocks of its frames, where Pillow sees no damage."""
    data, path = make_animation(tmp_path / name).read_bytes(), tmp_path / name
    end = len(data) - (24 if "png" in name else 0)  # the last chunks of a PNG hold no pixels
    for size in {*range(1, end, -(-end // 120)), *range(end - 9, end)}:
        path.write_bytes(data[:size])
        with pytest.raises(BlurkitError, match=rf"/{name}: .*(damaged|truncated)"):
            list(read_film(path)) if is_film(path) else read_image(path)


def test_pages_keep_sizes_depth_and_channels(tmp_path: Path) -> None:
    pages = make_pages(tmp_path / "a.tif")
    copy(tmp_path / "a.tif", tmp_path / "b.tif")
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        for page, before in zip(file.pages, pages, strict=True):
            np.testing.assert_array_equal(page.asarray(), before)


def test_pages_in_a_circle_end(tmp_path: Path) -> None:
    """Found by fuzzing: the second page named itself as the next one."""
    path = tmp_path / "a.tif"
    make_pages(path)
    with tifffile.TiffFile(path) as file:
        second = file.pages[1]
        entries = int.from_bytes(path.read_bytes()[second.offset :][:2], "little")
        place = second.offset + 2 + 12 * entries
    data = bytearray(path.read_bytes())
    data[place : place + 4] = second.offset.to_bytes(4, "little")
    path.write_bytes(data)
    assert len(list(read_film(path))) == 2


def test_a_film_may_become_one_of_another_kind(tmp_path: Path) -> None:
    make_animation(tmp_path / "a.gif", loop=0)
    copy(tmp_path / "a.gif", tmp_path / "a.mp4")
    starts = [sum(DURATIONS[:n]) for n in range(5)]
    assert [1000 * time for time in shown(tmp_path / "a.mp4").times] == starts
    make_video(tmp_path / "b.mp4", times=UNEVEN[:5], frames=pictures(5))
    copy(tmp_path / "b.mp4", tmp_path / "b.gif")
    assert shown_animation(tmp_path / "b.gif")[0][:4] == [40, 80, 40, 160]
    with pytest.raises(UsageError, match=r"b\.png cannot hold the film"):
        copy(tmp_path / "b.mp4", tmp_path / "b.png")


def test_stills_are_no_films(tmp_path: Path) -> None:
    for name in ("a.png", "a.webp", "a.tif", "a.gif"):
        PIL.Image.fromarray(PHOTO[:20, :20]).save(tmp_path / name)
        assert not is_film(tmp_path / name)
    with tifffile.TiffWriter(tmp_path / "thumbnail.tif") as file:
        file.write(PHOTO, photometric="rgb")
        file.write(PHOTO[::8, ::8], photometric="rgb", subfiletype=1)
    assert not is_film(tmp_path / "thumbnail.tif")
    with pytest.raises(BlurkitError, match="single image"):
        next(read_film(tmp_path / "a.gif"))


def _cut(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: round(len(data) * 0.6)])


def _blot(path: Path) -> None:
    data = bytearray(path.read_bytes())
    start = round(len(data) * 0.6)
    data[start : start + 1000] = bytes(1000)
    path.write_bytes(data)


FASTSTART = {"movflags": "faststart"}


@pytest.mark.parametrize(
    ("name", "damage", "options"),
    [
        ("cut.mp4", _cut, {"options": FASTSTART}),
        ("blot.mp4", _blot, {"options": FASTSTART}),
        ("cut.mkv", _cut, {}),
        ("cut.webm", _cut, {"codec": "libvpx-vp9", "audio": False}),
    ],
)
def test_the_frames_before_damage_are_kept(
    name: str, damage: Callable[[Path], None], options: Any, tmp_path: Path
) -> None:
    source = make_video(tmp_path / name, pictures(60, 128, 96), **options)
    damage(source)
    told: list[str] = []
    with open_sink(f"{tmp_path}/out/", ("blur",), "x") as sink:
        for record in read_records([source], on_error=lambda _, error: told.append(str(error))):
            sink.write(record)
    assert len(told) == 1
    assert "cannot be decoded after frame" in told[0]
    kept = int(told[0].split("after frame ")[1].split()[0])
    assert 5 < kept < 59
    assert len(shown(tmp_path / "out" / name).yuv) == kept


def test_damaged_animations_and_pages_are_reported(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "b.tif") as writer:
        for page in pictures(3):
            writer.write(page, photometric="rgb", compression="zlib", metadata=None)
    data = (tmp_path / "b.tif").read_bytes()
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        place = file.pages[2].dataoffsets[0]  # type: ignore[union-attr]
    (tmp_path / "b.tif").write_bytes(data[:place] + bytes(40) + data[place + 40 :])
    frames = read_film(tmp_path / "b.tif")
    assert len(list(islice(frames, 2))) == 2
    with pytest.raises(BlurkitError, match="damaged after page 2"):
        next(frames)
    (tmp_path / "c.mp4").write_bytes(b"broken")
    with pytest.raises(BlurkitError, match=r"c\.mp4: is not a video that can be read"):
        next(read_film(tmp_path / "c.mp4"))


def test_max_pixels_bound_whole_animations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_video(tmp_path / "a.mp4")
    make_animation(tmp_path / "a.gif")
    monkeypatch.setattr(paths, "most_pixels", 3 * 64 * 48)
    assert len(list(read_film(tmp_path / "a.mp4"))) == 10
    with pytest.raises(BlurkitError, match="--max-pixels"):
        next(read_film(tmp_path / "a.gif"))
    monkeypatch.setattr(paths, "most_pixels", 64 * 47)
    with pytest.raises(BlurkitError, match="--max-pixels"):
        next(read_film(tmp_path / "a.mp4"))


def test_a_frame_beyond_the_picture_is_refused_before_it_takes_memory(tmp_path: Path) -> None:
    path = make_animation(tmp_path / "a.gif")
    data = bytearray(path.read_bytes())
    second = [at for at in range(len(data) - 9) if data[at : at + 5] == b"\x2c\0\0\0\0"][1]
    data[second + 5 : second + 9] = b"\x50\xc3\x50\xc3"  # 50,000 x 50,000 pixels
    path.write_bytes(data)
    frames = read_film(path)
    next(frames)
    with pytest.raises(BlurkitError, match=r"a\.gif: damaged after frame 1 \(.*exceeds limit"):
        next(frames)


def test_an_unfinished_film_leaves_nothing(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    for name in ("a.mp4", "a.gif"):
        before = len([*Path("/proc/self/fd").iterdir()])
        sink = open_sink(f"{tmp_path}/{name}", ("blur",), "x")
        with pytest.raises(KeyboardInterrupt), sink:
            for record in islice(read_records([source]), 4):
                sink.write(record)
            raise KeyboardInterrupt
        assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]
        assert len([*Path("/proc/self/fd").iterdir()]) <= before


def test_films_are_not_overwritten_and_frames_come_once_and_in_order(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    (tmp_path / "a.mp4").write_bytes(b"here")
    with pytest.raises(BlurkitError, match="exists already"):
        copy(source, tmp_path / "a.mp4")
    assert (tmp_path / "a.mp4").read_bytes() == b"here"
    first, second = islice(read_records([source]), 2)
    with open_sink(f"{tmp_path}/out/", ("blur",), "x") as sink:
        sink.write(second)
        with pytest.raises(BlurkitError, match="written there already"):
            sink.write(first)


def test_frames_of_another_size_do_not_fit(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4")
    first, second = islice(read_records([source]), 2)
    small = Record(second.name, {"blur": second.images["blur"][:10]}, second.attrs)
    for name in ("a.mp4", "a.gif"):
        with open_sink(f"{tmp_path}/{name}", ("blur",), "x") as sink:
            sink.write(first)
            with pytest.raises(BlurkitError, match="does not fit the film"):
                sink.write(small)


COPYING = f"""
import sys
from blurkit.data.sources import read_records
from blurkit.io.image_sinks import open_sink
with open_sink(sys.argv[2], ("blur",), "x") as sink:
    for record in read_records([sys.argv[1]]):
        sink.write(record)
print({PEAK_MEGABYTES})
"""


def test_long_films_take_no_more_memory(tmp_path: Path) -> None:
    """The frames of the longer film are 36 MB more than those of the shorter one."""
    peaks = []
    for count in (70, 140):  # more than the frames that an encoder looks ahead
        frames = [np.tile(PHOTO[:360, n : n + 160], (1, 3, 1)) for n in range(count)]
        source = make_video(tmp_path / f"{count}.mp4", frames, audio=False)
        arguments = [sys.executable, "-c", COPYING, source, tmp_path / f"out_{count}.mp4"]
        ran = subprocess.run(arguments, capture_output=True, text=True, check=True)
        peaks.append(int(ran.stdout))
    assert peaks[1] < peaks[0] + 15


def test_the_tick_of_the_time_base_is_kept(tmp_path: Path) -> None:
    record = next(iter(read_records([make_video(tmp_path / "a.mp4")])))
    assert record.attrs["film"] == "a"
    assert (record.attrs["frame"], record.attrs["sequence"]) == (0, "a")
    assert (record.name, record.attrs["suffix"]) == ("a/000000", ".png")
    ticks = record.attrs["duration"] * record.attrs["pts"]
    assert (ticks, TICK) == (0, TICK)
