"""Films: read frame by frame as other programs show them, and written again as they were."""

import os
import struct
import subprocess
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest
import tifffile

from blurkit.data.sources import read_records
from blurkit.errors import BlurkitError
from blurkit.io import paths
from blurkit.io.codecs.metadata import to_srgb
from blurkit.io.films import is_film, read_film, stated_length
from blurkit.io.image_sinks import open_sink
from blurkit.io.images import FrameTime, read_image
from blurkit.io.records import Record
from blurkit.io.videos import Look, as_displayed, describe_video
from tests.io.films import (
    DURATIONS,
    PHOTO,
    UNEVEN,
    copy,
    displacement,
    make_animation,
    make_flat,
    make_pages,
    make_rich_video,
    make_video,
    pictures,
    planes,
    psnr,
    rich_parts,
    shown,
    shown_animation,
)
from tests.io.scenes import PEAK_MEGABYTES, write_all

HDR: dict[str, Any] = {"codec": "libx265", "pixels": "yuv420p10le", "tags": (9, 1, 9, 16)}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("uneven.mp4", {"times": UNEVEN}),
        ("uneven.mkv", {"times": UNEVEN}),
        ("phone.mov", {"tags": (1, 2, 1, 1)}),
        ("hdr.mp4", HDR),
        ("camera.mov", {"pixels": "yuv422p10le", "tags": (1, 1, 1, 1)}),
        ("tv.mts", {"tags": (6, 1, 6, 6)}),
        ("web.webm", {"codec": "libvpx-vp9", "audio": False}),
        ("new.mp4", {"codec": "libsvtav1", "pixels": "yuv420p10le"}),
    ],
)
def test_a_video_keeps_all_the_rest(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    source, output = make_video(tmp_path / name, **options), tmp_path / f"out_{name}"
    assert copy(source, output) == []
    # The encoder of AV1 gives a thread of root real-time priority, and leaves it.
    assert not hasattr(os, "sched_getscheduler") or os.sched_getscheduler(0) == os.SCHED_OTHER
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


@pytest.mark.parametrize(
    ("name", "place", "options"),
    [
        *(("a.mp4", place, {}) for place in ("left", "center", "topleft")),
        ("hdr.mov", "topleft", HDR),
        ("tv.mts", "left", {"pixels": "yuv422p"}),
        ("web.webm", "unspecified", {"codec": "libvpx-vp9", "audio": False}),
    ],
)
def test_a_pass_does_not_move_the_colours(
    name: str, place: str, options: dict[str, Any], tmp_path: Path
) -> None:
    """Re-encoding keeps all planes in place, whatever the place of chroma samples."""
    encoder = {} if place == "unspecified" else {"chroma_sample_location": place}
    source = make_video(tmp_path / name, encoder=encoder, **options)
    copy(source, tmp_path / f"out_{name}")
    assert Look.of(source).chroma == Look.of(tmp_path / f"out_{name}").chroma == place
    for before, after in zip(*map(planes, (source, tmp_path / f"out_{name}")), strict=True):
        assert np.abs(displacement(before, after)).max() < 0.08


def test_looks_taken_at_once_leave_no_logs_on(tmp_path: Path) -> None:
    """With them, decoding threads wait for Python's lock, and closing a film for those threads."""
    source = make_video(tmp_path / "a.mp4", encoder={"chroma_sample_location": "center"})
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            looks = [*pool.map(Look.of, [source] * 64)]
    finally:
        sys.setswitchinterval(usual)
    assert {look.chroma for look in looks} == {"center"}
    assert av.logging.get_level() is None


ALL = {
    **{"title": "A Film", "comment": "c", "make": "Maker", "location": "+48.1000+011.5000/"},
    **{"creation_time": "2024-05-06T05:08:09.000000Z", "album": "b", "copyright": "me"},
}
APPLE = {
    "com.apple.quicktime.location.ISO6709": "+48.1374+011.5755+519/",
    "com.apple.quicktime.make": "Apple",
    "com.apple.quicktime.creationdate": "2024-05-06T07:08:09+0200",
    "com.android.version": "14",
}


@pytest.mark.parametrize(
    ("name", "metadata", "lost"),
    [
        ("a.mp4", ALL, ["make"]),
        ("a.m4v", ALL, ["make"]),
        ("a.mov", ALL, []),
        ("a.mp4", ALL | APPLE, []),
        ("a.mov", ALL | APPLE, []),
        ("a.mkv", ALL | APPLE, []),
        ("a.3gp", {"location": ALL["location"], "make": "Maker"}, ["make"]),
        ("a.avi", ALL, ["make", "location", "creation_time", "album"]),
        ("a.mts", ALL, [*ALL]),
    ],
)
def test_metadata_comes_along_or_is_named(
    name: str, metadata: dict[str, str], lost: list[str], tmp_path: Path
) -> None:
    output = tmp_path / name
    source = make_video(tmp_path / "in.mkv", pictures(2), audio=False, metadata=metadata)
    (told,) = copy(source, output) or [""]
    with av.open(str(output)) as film:
        kept = {key.lower(): value for key, value in film.metadata.items()}
    for key, value in metadata.items():
        assert (kept.get(key.lower()) == value) != (key in lost), (key, kept)
    named = told.partition("metadata (")[2].strip(")").lower()
    assert sorted(filter(None, named.split(", "))) == sorted(lost)
    if output.suffix in (".mp4", ".mov", ".m4v", ".3gp"):
        data = output.read_bytes()
        assert data.find(b"moov") < data.find(b"mdat")  # the index comes first


@pytest.mark.parametrize(
    ("sound", "name", "kept"),
    [
        ("libopus", "b.mp4", True),
        ("libopus", "b.mov", False),
        ("flac", "b.mov", False),
        ("flac", "b.avi", True),
        ("pcm_s16le", "b.mts", False),
    ],
)
def test_sound_comes_along_or_is_named(sound: str, name: str, kept: bool, tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mkv", pictures(2), sound=sound)
    (told,) = copy(source, tmp_path / name) or [""]
    assert ("audio stream 1" in told) != kept
    before, after = shown(source).sound, shown(tmp_path / name).sound
    assert after == (before if kept else [])


def test_damaged_sound_does_not_end_a_film(tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mts", pictures(4))
    data = bytearray(source.read_bytes())
    second = data.index(b"\xff\xf1", data.index(b"\xff\xf1") + 1)  # the header of ADTS
    data[second + 4] ^= 0x0F  # the length of its frame
    source.write_bytes(data)
    (told,) = copy(source, tmp_path / "b.mp4")
    assert told.endswith("not kept in the new film: damaged parts of audio stream 1")
    after = shown(tmp_path / "b.mp4")
    assert (len(after.yuv), bool(after.sound)) == (4, True)


@pytest.mark.parametrize(("name", "kept"), [("b.mp4", True), ("b.mov", True), ("b.mkv", False)])
def test_xmp_comes_along_or_is_named(name: str, kept: bool, tmp_path: Path) -> None:
    source = make_video(tmp_path / "a.mp4", pictures(2))
    xmp = b"<x:xmpmeta>\xe2\x82\xac</x:xmpmeta>"
    box = b"uuid" + uuid.UUID("BE7ACFCB-97A9-42E8-9C71-999491E3AFAC").bytes + xmp
    source.write_bytes(source.read_bytes() + struct.pack(">I", 4 + len(box)) + box)
    told = copy(source, tmp_path / name)
    assert told == ([] if kept else [f"{source}: not kept in the new film: metadata (xmp)"])
    with av.open(str(tmp_path / name), options={"export_xmp": "1"}) as film:
        assert film.metadata.get("xmp", "").encode() == (xmp if kept else b"")


@pytest.mark.parametrize(("first", "last"), [(3, 9), (0, 6), (3, 6)])
def test_a_trimmed_film_is_whole(first: int, last: int, tmp_path: Path) -> None:
    """An edit list says which frames of the file are shown."""
    source = make_video(tmp_path / "a.mp4", audio=False)
    whole = [picture.pixels for picture in read_film(source)]
    data = bytearray(source.read_bytes())
    place = data.find(b"elst") + 12  # after the version and the number of entries
    (start,) = struct.unpack_from(">i", data, place + 4)
    struct.pack_into(">Ii", data, place, 40 * (last - first + 1), start + 512 * first)
    source.write_bytes(data)
    shown_frames = [picture.pixels for picture in read_film(source)]
    np.testing.assert_array_equal(shown_frames, whole[first : last + 1])
    assert stated_length(source) == len(shown_frames)
    assert copy(source, tmp_path / "b.mp4") == []
    assert len(shown(tmp_path / "b.mp4").yuv) == len(shown_frames)


def test_times_of_another_container_start_anew(tmp_path: Path) -> None:
    """Those of a transport stream start anywhere; AVI cannot hold sound that starts later."""
    source = make_video(tmp_path / "a.mts")
    assert copy(source, tmp_path / "a.mp4") == []
    before, after = shown(source).times, shown(tmp_path / "a.mp4").times
    assert before[0] > 0
    assert np.diff(before).tolist() == np.diff(after).tolist()
    with av.open(str(source)) as old, av.open(str(tmp_path / "a.mp4")) as new:
        assert abs(new.start_time or 0) < 50_000
        starts = [[float(s.start_time * s.time_base) for s in f.streams] for f in (old, new)]
    assert np.diff(starts[0]) == pytest.approx(np.diff(starts[1]), abs=0.02)
    with av.open(str(source)) as film, av.open(str(tmp_path / "late.mkv"), "w") as output:
        copies = {stream: output.add_stream_from_template(stream) for stream in film.streams}
        for packet in film.demux():
            if packet.size and packet.pts is not None:
                late = 45_000 if packet.stream.type == "audio" else 0
                packet.pts, packet.stream = packet.pts + late, copies[packet.stream]
                packet.dts = packet.pts if late else packet.dts
                output.mux(packet)
    (told,) = copy(tmp_path / "late.mkv", tmp_path / "late.avi")
    assert "delay of audio stream 1 (0.4" in told


def _repeated(path: Path) -> None:
    """Give every third frame the time of the one before."""
    path.rename(path.with_suffix(".old"))
    with av.open(str(path.with_suffix(".old"))) as film, av.open(str(path), "w") as output:
        output.add_stream_from_template(film.streams[0])
        for packet in film.demux():
            if packet.size:
                assert packet.pts is not None
                packet.pts -= 40 if packet.pts % 120 == 40 else 0
                packet.dts = packet.pts
                output.mux(packet)


@pytest.mark.parametrize(
    ("name", "change", "options", "ticks"),
    [
        ("b-frames.avi", None, {}, range(10)),
        ("b-frames.avi", None, {"codec": "mpeg4", "encoder": {"bf": "2"}}, range(10)),
        ("uneven.avi", None, {"encoder": {"bf": "0"}, "times": UNEVEN}, UNEVEN),
        ("uneven.mp4", None, {"times": UNEVEN}, UNEVEN),
        ("repeated.mkv", _repeated, {"encoder": {"bf": "0"}}, None),
    ],
)
def test_films_of_odd_times_can_be_written(
    name: str, change: Any, options: dict[str, Any], ticks: Any, tmp_path: Path
) -> None:
    source = make_video(tmp_path / name, audio=False, **options)
    if change:
        change(source)
    frames = [picture.pixels for picture in read_film(source)]
    for output in (tmp_path / "out.avi", tmp_path / "out.mkv"):
        copy(source, output)
        pictures = list(read_film(output))
        starts = [FrameTime.of(picture.attrs).start for picture in pictures]
        assert starts == sorted(set(starts))
        assert psnr(frames, [picture.pixels for picture in pictures]) > 30
        if ticks is not None:
            since = [float(start - starts[0]) for start in starts]
            np.testing.assert_allclose(since, np.array(ticks) / 25, atol=1e-3)


@pytest.mark.parametrize(
    ("tags", "signal", "srgb"),
    [
        ((9, 1, 9, 16), 0.4403, 137),  # PQ of 50 candelas per square metre
        ((9, 1, 9, 18), 0.5, 137),  # HLG of as many on a display of 1000
        ((9, 1, 9, 16), 0.7518, 255),  # 1000
        ((9, 1, 9, 14), 0.5, 127),
        ((1, 1, 12, 1), 0.5, 127),  # P3
    ],
)
def test_wide_colours_are_those_of_pictures(
    tags: Any, signal: float, srgb: int, tmp_path: Path
) -> None:
    """Stills have a profile that shows them as films are shown, and a GIF is in sRGB."""
    level = round(64 + 876 * signal)
    make_flat(tmp_path / "a.mp4", np.array([level, 512, 512], np.uint16), 48, tags, count=2)
    copy(tmp_path / "a.mp4", tmp_path / "a.gif")
    np.testing.assert_allclose(shown_animation(tmp_path / "a.gif")[2][0][24, 32, :3], srgb, atol=2)
    (tmp_path / "stills").mkdir()
    copy(tmp_path / "a.mp4", tmp_path / "stills", frames=True)
    still = read_image(tmp_path / "stills" / "a" / "000000.png")
    profile = still.attrs["icc_profile"].tobytes()
    assert profile[24:36] == struct.pack(">6H", 2000, 1, 1, 0, 0, 0)  # always the same date
    seen = to_srgb(still.pixels, profile)
    np.testing.assert_allclose(seen[24, 32] / 257, srgb, atol=2)


def test_mirrored_films_are_upright_and_what_frames_carry_is_kept_or_named(tmp_path: Path) -> None:
    pixels = np.arange(6).reshape(2, 3)
    for matrix, expected in [
        ((1, 0, 0, 0, 1), pixels),
        ((-1, 0, 0, 0, 1), pixels[:, ::-1]),
        ((1, 0, 0, 0, -1), pixels[::-1]),
        ((0, 1, 0, -1, 0), np.rot90(pixels, -1)),
        ((0, -1, 0, 1, 0), np.rot90(pixels)),
        ((0, 1, 0, 1, 0), pixels.T),
    ]:
        np.testing.assert_array_equal(as_displayed(pixels, np.array(matrix) * 65536), expected)
    hdr10 = "master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    hdr10 += ":max-cll=1000,400:log-level=error"
    source = make_video(tmp_path / "hdr.mp4", encoder={"x265-params": hdr10}, **HDR)
    assert copy(source, tmp_path / "b.mp4") == []
    kept = Look.of(tmp_path / "b.mp4").extras
    assert all(kept.get(k) == v for k, v in Look.of(source).extras.items() if "SEI" not in k)
    (told,) = copy(source, tmp_path / "b.webm")
    assert "codec hevc (it is av1), its mastering display, its content light level" in told
    source = make_video(tmp_path / "tv.mts", encoder={"x264-params": "tff=1"})
    assert "interlacing" in copy(source, tmp_path / "c.mts")[0]
    source = make_video(tmp_path / "deep.mov", codec="prores_ks", pixels="yuva444p10le")
    (told,) = copy(source, tmp_path / "d.mov")
    assert "codec prores (it is h264), pixel format yuv444p12le" in told
    assert told.endswith("transparency")


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile other.mp4\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period/></MPD>',
        "[playlist]\nFile1=other.mp4\n",
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
    "name",
    ["12:30:05.mp4", "http:/127.0.0.1:9/a.mp4", "-f.mp4", "a%20?b.mp4", "%03d.mkv", "file:a|b.avi"],
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


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_turned_film_is_upright(rotation: int, tmp_path: Path) -> None:
    upright = pictures()
    # A display rotation is counterclockwise, so the stored pictures are turned clockwise.
    stored = [np.ascontiguousarray(np.rot90(rgb, -rotation // 90)) for rgb in upright]
    source = make_video(tmp_path / "a.mp4", stored, rotation=rotation, pixels="yuv444p")
    assert shown(source).rotation in (rotation, -rotation if rotation == 180 else rotation)
    assert psnr([picture.pixels for picture in read_film(source)], upright) > 35
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
    make_flat(tmp_path / "a.mp4", np.array([y, u, v], np.uint8), height, tags)
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
    assert told == f"{tmp_path}/old.avi: not kept in the new film: codec mpeg4 (it is h264)"
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
    assert told.endswith("not kept in the new film: audio stream 1")
    assert len(shown(tmp_path / "new.mkv").yuv) == len(shown(tmp_path / "a.mkv").yuv)


def test_everything_else_is_copied_or_named(tmp_path: Path) -> None:
    """Sound and subtitles with their languages, covers, attachments, chapters, timecode."""
    cover, font = "cover stream 3", "attachment stream 4"
    lacks = "language of video stream 0, language of audio stream 1"
    for name, key, lost in [
        ("b.mkv", "com.example.key", None),
        ("b.mp4", "comment", f"subtitle stream 2, {font}"),
        ("b.mp4", "com.example.key", f"subtitle stream 2, {cover}, {font}"),
        ("b.avi", "com.example.key", f"subtitle stream 2, {cover}, {font}, chapters, {lacks}, "),
    ]:
        source = make_rich_video(tmp_path, key)
        (tmp_path / name).unlink(missing_ok=True)
        told = "".join(copy(source, tmp_path / name))
        assert told.startswith(f"{source}: not kept in the new film: {lost}" if lost else "")
        before, after = rich_parts(source), rich_parts(tmp_path / name)
        for part, value in before.items():
            assert (after[part] == value) != (part in told.lower()), (name, part)


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
        np.testing.assert_equal([page.asarray() for page in file.pages], pages)


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
    (told,) = copy(tmp_path / "b.mp4", tmp_path / "b.gif")
    assert told == f"{tmp_path}/b.mp4: not kept in the new film: audio"
    assert shown_animation(tmp_path / "b.gif")[0][:4] == [40, 80, 40, 160]


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


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cut.mp4", {"options": {"movflags": "faststart"}}),
        ("blot.mp4", {"options": {"movflags": "faststart"}}),
        ("cut.mkv", {}),
        ("cut.webm", {"codec": "libvpx-vp9", "audio": False}),
    ],
)
def test_the_frames_before_damage_are_kept(name: str, options: Any, tmp_path: Path) -> None:
    source = make_video(tmp_path / name, pictures(60, 128, 96), **options)
    data = source.read_bytes()
    start = round(len(data) * 0.6)
    rest = bytes(1000) + data[start + 1000 :] if name == "blot.mp4" else b""
    source.write_bytes(data[:start] + rest)
    told: list[str] = []
    records = read_records([source], on_error=lambda _, error: told.append(str(error)))
    write_all(open_sink(f"{tmp_path}/out/", ("blur",), "x"), records)
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


def test_frames_state_their_places_and_come_once_and_in_order(tmp_path: Path) -> None:
    first, second = islice(read_records([make_video(tmp_path / "in.mp4")]), 2)
    stated = {"film": "in", "frame": 0, "sequence": "in", "suffix": ".png", "pts": 0}
    assert first.name == "in/000000" and first.attrs | stated == first.attrs
    with open_sink(f"{tmp_path}/out/", ("blur",), "x") as sink:
        sink.write(second)
        with pytest.raises(BlurkitError, match="written there already"):
            sink.write(first)


def test_errors_of_encoders_name_the_film(tmp_path: Path) -> None:
    source = make_video(tmp_path / "in.mp4", pictures(2), codec="libsvtav1", audio=False)
    with pytest.raises(BlurkitError, match=r"/out\.mp4: cannot be encoded \([^/]+\)$"):
        copy(source, tmp_path / "out.mp4", crf=1000)
    frames = make_animation(tmp_path / "in.gif")
    with pytest.raises(BlurkitError, match=r"/out\.webm: cannot be encoded \([^/]+\)$"):
        copy(frames, tmp_path / "out.webm", crf=1000)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.gif", "in.mp4"]


def test_frames_of_another_size_do_not_fit(tmp_path: Path) -> None:
    first, second = islice(read_records([make_video(tmp_path / "in.mp4")]), 2)
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


@pytest.mark.slow
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
