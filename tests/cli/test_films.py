"""Films through the commands: deblurred, reblurred, transferred, scored and described."""

import json
import resource
import shutil
import signal
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import pytest

from blurkit.data.sources import read_records
from blurkit.engine.engine import Engine
from blurkit.io.records import from_float
from tests.cli.command import assert_failed, files, piped, start
from tests.cli.invoke import assert_each_refused, done, invoke
from tests.cli.test_interrupts import end, wait_for
from tests.io.films import (
    PHOTO,
    UNEVEN,
    make_animation,
    make_pages,
    make_video,
    pictures,
    psnr,
    shown,
    shown_animation,
)
from tests.systems.deconvolution.photos import photo, shake, taken


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a photo, three videos, an animation and pages; their frames are 64x48."""
    folder = tmp_path_factory.mktemp("films")
    PIL.Image.fromarray(PHOTO[:48, :64]).save(folder / "photo.png")
    make_video(folder / "sound.mp4", pictures(4))
    make_video(folder / "uneven.mkv", pictures(4), times=UNEVEN[2:6], audio=False)
    make_video(folder / "phone.mov", pictures(3), rotation=90)
    make_animation(folder / "moving.webp", loop=2, lossless=True)
    make_pages(folder / "pages.tif")
    return folder


def test_a_folder_of_photos_and_films(films: Path, checkpoint: Path) -> None:
    ran = done("deblur", films, "-c", checkpoint, "-o", "out/")
    assert files("out").keys() == files(films).keys()
    assert f"wrote {len(files(films))} files to out/" in ran.lines
    for name in ("sound.mp4", "uneven.mkv", "phone.mov"):
        before, after = shown(films / name), shown(Path("out") / name)
        assert (before.times, before.sound) == (after.times, after.sound)
    assert shown(Path("out") / "phone.mov").size == (48, 64)
    before, after = shown(films / "sound.mp4"), shown(Path("out") / "sound.mp4")
    assert 25 < psnr(before.yuv, after.yuv) < 60
    assert shown_animation(Path("out") / "moving.webp")[:2] == ([40, 80, 120, 60, 200], 2)


def test_beside_its_source_and_as_a_file(films: Path, checkpoint: Path) -> None:
    shutil.copy(films / "sound.mp4", "a.mp4")
    command = ["deblur", "a.mp4", "-c", checkpoint]
    done(*command)
    made = Path("a.deblurred.mp4")
    assert len(shown(made).yuv) == 4
    assert_failed(invoke(*command), "1 failed, 0 deblurred: a", "exists already")
    done(*command, "-o", "b.mp4", "--crf", 40)
    assert Path("b.mp4").stat().st_size < made.stat().st_size
    # The next run on the folder has the same inputs.
    again = invoke("deblur", Path(), "-c", checkpoint, "-o", "out/", "--json")
    assert [line["name"] for line in again.json][:4] == [f"a/{n:06d}" for n in range(4)]
    assert [*files("out")] == ["a.mp4", "b.mp4"]


def test_frames_as_images_and_records(films: Path, checkpoint: Path) -> None:
    film = films / "sound.mp4"
    names = [f"{number:06d}" for number in range(4)]
    done("deblur", film, "-c", checkpoint, "-o", "out/", "--frames")
    assert [*files("out")] == [f"sound/{name}.png" for name in names]
    done("deblur", film, "-c", checkpoint, "-o", "a.h5")
    (about,) = invoke("info", "a.h5", "--json").json
    assert (about["records"], about["attributes"]["film"]["examples"]) == (4, ["sound"])
    assert "sharpness_before" not in about["attributes"]  # it is nowhere shown
    # From records, the film is made again, as long as its source is there.
    done("deblur", "a.h5", "-c", checkpoint, "-o", "a.mp4")
    assert shown(Path("a.mp4")).sound == shown(film).sound


def test_a_film_and_a_sheet_of_six_of_its_frames(checkpoint: Path) -> None:
    source = make_video(Path("long.mp4"), pictures(11))
    ran = done("deblur", source, "-c", checkpoint, "-o", "out/", "--compare", "--html", "page")
    assert "wrote out/long.mp4 and out/long.compare.jpg" in ran.lines
    assert len(shown(Path("out/long.mp4")).yuv) == 11
    picture = np.asarray(PIL.Image.open("out/long.compare.jpg")).astype(int)
    frames = [record.images["blur"] for record in read_records([source])]
    width = (picture.shape[1] - 8) // 2  # two in a row
    for place, number in ((0, 0), (width + 8, 2)):
        own = picture[:48, place : place + 64]
        assert np.abs(own - frames[number]).mean() < 6
    page = Path("page/index.html").read_text()
    named = [number for number in range(11) if f"long/{number:06d}" in page]
    assert named == [0, 2, 4, 6, 8, 10]


def test_a_preview_has_only_some_frames_and_is_no_result(films: Path, checkpoint: Path) -> None:
    shutil.copy(films / "sound.mp4", "a.mp4")
    command = ["deblur", "a.mp4", "-c", checkpoint]
    ran = done(*command, "--clip", "1:2", "--compare")
    assert "wrote a.previewed.mp4 and a.compare.jpg" in ran.lines
    done(*command, "--resume", "-o", "whole/")
    made, whole = shown(Path("a.previewed.mp4")), shown(Path("whole/a.mp4"))
    assert (len(made.yuv), made.times[0], made.sound) == (2, 0, [])
    assert psnr(made.yuv, whole.yuv[1:3]) > 40
    again = done("deblur", Path(), "-c", checkpoint, "-o", "out/")
    assert [*files("out")] == ["a.mp4", "whole/a.mp4"], again.err


def test_the_blur_of_a_film_over_time_is_told(films: Path, kernel: Path) -> None:
    film = films / "sound.mp4"
    ran = done("deblur", film, "--kernel", kernel, "-o", "a.mp4")
    assert "sound: blur undone in 4 of 4 frames, over time up to 5 5 5 5 pixels" in ran.lines
    assert "pixels" not in done("deblur", film, "--method", "network", "-o", "b.mp4").err


def test_a_frame_awaits_the_next_one_also_in_a_stream() -> None:
    """Which is sharp here, so that the one before becomes sharper."""
    sharp = photo("astronaut", 128, 128)
    blurry = from_float(taken(sharp, shake(0, 11)), np.uint8)
    save_pages("a.tif", [blurry, from_float(sharp, np.uint8), blurry])
    ran = piped(
        "blurkit deblur a.tif --json -o a.h5; blurkit prepare a.tif -o - | blurkit deblur - -o b.h5"
    )
    first, second, _ = (json.loads(line)["restored_guided"] for line in ran.out.splitlines())
    assert first > 0.5 > second
    made, streamed = ([r.images["restored"] for r in read_records([f])] for f in ("a.h5", "b.h5"))
    np.testing.assert_array_equal(made, streamed)
    assert psnr(made[0] / 255, sharp) > psnr(blurry / 255, sharp) + 5


def save_pages(path: str | Path, frames: Iterable[np.ndarray], **options: Any) -> None:
    first, *others = map(PIL.Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, **options)


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Writing more than `size` bytes to a file fails, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("suffix", [".gif", ".tif", ".mp4"])
def test_a_film_that_cannot_be_written_is_its_own_failure(suffix: str, kernel: Path) -> None:
    """A GIF is written at its end, when the first frame of the next film is there already."""
    noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)
    for name, frames in (("a", [*noise]), ("b", [*noise // 64]), ("c", [*noise])):
        path = Path(f"in/{name}{suffix}")
        path.parent.mkdir(exist_ok=True)
        if suffix == ".mp4":
            make_video(path, frames, audio=False)
        else:
            save_pages(path, frames, duration=40)
    command = ["reblur", "in", "--kernel", kernel, "-o", "out/"]
    done(*command, "-q")
    sizes = {path.stem: path.stat().st_size for path in Path("out").iterdir()}
    shutil.rmtree("out")
    with largest_file((sizes["b"] + min(sizes["a"], sizes["c"])) // 2):
        ran = invoke(*command)
    large = f"out/a{suffix}: cannot be written (File too large)"
    assert_failed(ran, "2 failed, 1 reblurred: a", large)
    assert [*files("out")] == [f"b{suffix}"] and f"wrote out/b{suffix}" in ran.lines
    assert len([*read_records([f"out/b{suffix}"])]) == 3
    ran = done(*command, "--resume")
    assert ran.lines[-1].startswith("reblurred 2 files in ")
    assert ran.lines[-1].endswith(", 1 finished before")
    assert len([*read_records(["out"])]) == 9


def test_a_full_disk_ends_a_batch_after_what_is_finished(small_disk: Path, kernel: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 300, 400, 3), np.uint8)
    Path("in").mkdir()
    PIL.Image.fromarray(noise[0, :9]).save("in/a.png")
    save_pages("in/b.tif", noise)
    ran = invoke("reblur", "in", "--kernel", kernel, "-o", f"{small_disk}/out/")
    full = f"error: {small_disk}/out/b.tif: the disk is full; free some space and run again"
    assert (ran.status, ran.lines) == (1, [f"wrote {small_disk}/out/a.png", full])
    assert [*files(small_disk)] == ["out/a.png"]


def test_a_film_that_lacks_a_frame_is_not_there(
    films: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, count = Engine.__call__, iter(range(100))

    def failing(engine: Engine, *images: Any, **more: Any) -> Any:
        if next(count) == 1:
            raise MemoryError
        return call(engine, *images, **more)

    monkeypatch.setattr(Engine, "__call__", failing)
    named = films / "sound.mp4", films / "phone.mov"
    ran = invoke("deblur", *named, "-c", checkpoint, "-o", "out/")
    assert_failed(ran, "1 failed, 1 deblurred: sound/000001", "out of memory")
    assert [*files("out")] == ["phone.mov"]
    assert len(shown(Path("out/phone.mov")).yuv) == 3


def test_what_cannot_be_one_film_or_previewed_is_refused_at_once(films: Path) -> None:
    out, clip = ("-o", "out.mp4"), ("sound.mp4", "--clip")
    cases: dict[tuple[object, ...], str] = {
        ("photo.png", "--clip", "0:3"): "photo.png is not a film alone",
        ("sound.mp4", "uneven.mkv", "--clip", "0:3"): "uneven.mkv is not a film alone",
        (".", "--clip", "0:3"): "is not a film alone",
        (*clip, "3"): "--clip 3: give the first and last frame",
        (*clip, "3:1"): "--clip 3:1: give the first and last frame",
        (*clip, "4:5"): "sound.mp4 has 4 frames",
        (*clip, "0:1", "--resume"): "leave out --resume and --status",
        ("photo.png", "sound.mp4", *out): "out.mp4 is one film, but",
        ("sound.mp4", "uneven.mkv", *out): "out.mp4 is one film, but",
        ("photo.png", *out): "photo.png is not a film",
        ("sound.mp4", "-o", "out.png"): "out.png cannot hold the film",
        ("pages.tif", *out): "out.mp4 cannot hold the film",
        ("sound.mp4", "--frames", *out): "--frames writes many images",
        ("sound.mp4", "--crf", "70", *out): "--crf 70: must be at least 0 and at most 63",
    }
    assert_each_refused(cases, "deblur", cwd=films)


def test_reblur_gives_all_frames_one_blur(films: Path, kernel: Path) -> None:
    source, output = films / "sound.mp4", Path("a.mp4")
    done("reblur", source, "--kernel", kernel, "-o", output)
    for before, after in zip(shown(source).yuv, shown(output).yuv, strict=True):
        luma = before[:48].astype(float)
        blurred = sum(luma[4:-4, 4 + d : 60 + d] for d in (-2, -1, 0, 1, 2)) / 5
        assert psnr([blurred], [after[4:44, 4:60]]) > 34


def test_one_random_blur_is_drawn_for_a_film() -> None:
    still = make_video(Path("still.mkv"), [PHOTO[:96, :96]] * 2, codec="ffv1", audio=False)
    done("reblur", still, "--random", "-o", "out/", "--frames")
    first, second = (Path(f"out/still/00000{n}.png") for n in (0, 1))
    assert first.read_bytes() == second.read_bytes()
    done("reblur", still, "--random", "--copies", 2, "-o", "copies/")
    assert len(files("copies")) == 4


def test_transfer_to_a_film(films: Path, joint: Path) -> None:
    PIL.Image.fromarray(PHOTO[:48, :64]).save("sharp.png")
    PIL.Image.fromarray(PHOTO[:48, 2:66]).save("blurry.png")
    film = films / "sound.mp4"
    done("transfer", film, "sharp.png", "blurry.png", "-c", joint, "-o", "a.mp4")
    assert shown(Path("a.mp4")).sound == shown(film).sound


def test_eval_of_film_against_film(films: Path, kernel: Path) -> None:
    sharp, blurry = films / "sound.mp4", Path("blurry.mp4")
    done("reblur", sharp, "--kernel", kernel, "-o", blurry)
    *frames, total = invoke("eval", blurry, sharp, "--json").json
    rgb = [np.stack(_decoded(path)) for path in (blurry, sharp)]
    expected = [psnr([a], [b]) for a, b in zip(*rgb, strict=True)]
    np.testing.assert_allclose([line["psnr"] for line in frames], expected, atol=0.25)
    assert total["total"]["psnr"] == pytest.approx(np.mean(expected), abs=0.25)
    for name, film in (("run", blurry), ("reference", sharp)):
        Path(name).mkdir()
        shutil.copy(film, f"{name}/a.mp4")
    runs = invoke("eval", "run", "--reference", "reference", "--json").json
    assert runs[-1]["total"]["psnr"] == pytest.approx(total["total"]["psnr"])
    short = make_video(Path("short.mp4"), pictures(3))
    assert_failed(invoke("eval", short, sharp), "1 failed, 3 evaluated", "has 3 frames, but")


def _decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as film:
        return [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]


def test_info_describes_films(films: Path) -> None:
    named = [films / name for name in ("uneven.mkv", "phone.mov", "moving.webp", "pages.tif")]
    described = invoke("info", *named, "--json").json
    assert invoke("info", *named, "--json", "--verify").json == described
    uneven, phone, moving, pages = described
    assert (uneven["codec"], uneven["frames"], uneven["variable_rate"]) == ("h264", 4, True)
    assert (phone["width"], phone["height"], phone["rotation"]) == (48, 64, 90)
    assert (phone["audio"], phone["rate"], phone["seconds"]) == (["aac"], 25.0, 0.12)
    assert (moving["frames"], moving["seconds"]) == (5, 0.5)
    assert (pages["frames"], pages["type"]) == (4, "uint16")


def test_info_decodes_all_of_a_film_only_to_verify_it() -> None:
    damaged = make_video(Path("a.mp4"), pictures(12), audio=False)
    data = bytearray(damaged.read_bytes())
    end = data.index(b"moov")
    data[end - 90 : end - 20] = bytes(70)
    damaged.write_bytes(data)
    (about,) = invoke("info", "a.mp4", "--json").json
    assert (about["frames"], about["rate"]) == (12, 25.0)
    assert_failed(invoke("info", "a.mp4", "--verify"), "a.mp4", "cannot be decoded after frame")


def test_prepare_reads_films_frame_by_frame(films: Path) -> None:
    names = [films / "sound.mp4", films / "moving.webp"]
    done("prepare", *names, "--as", "sharp", "-o", "a.h5", "--synthesize", "shake", "-q")
    (about,) = invoke("info", "a.h5", "--json").json
    assert (about["records"], sorted(about["images"])) == (9, ["blur", "sharp"])
    assert "film" not in about["attributes"]  # they are photos now


def test_a_damaged_film_does_not_stop_the_others(films: Path, checkpoint: Path) -> None:
    Path("in").mkdir()
    damaged = make_video(Path("in/a.mp4"), pictures(12), options={"movflags": "faststart"})
    damaged.write_bytes(damaged.read_bytes()[:-3000])
    shutil.copy(films / "sound.mp4", "in/b.mp4")
    Path("in/c.mp4").write_bytes(b"broken")
    ran = invoke("deblur", "in", "-c", checkpoint, "-o", "out/")
    assert_failed(ran, "2 failed, ", "a.mp4: cannot be decoded after frame")
    assert "c.mp4: is not a video that can be read" in ran.err
    assert [*files("out")] == ["a.mp4", "b.mp4"]
    assert 0 < len(shown(Path("out/a.mp4")).yuv) < 12
    again = invoke("deblur", "in", "-c", checkpoint, "-o", "out/", "--resume")
    assert_failed(again, "2 failed, 1 deblurred, 1 finished before", "a.mp4: cannot be decoded")


@pytest.mark.parametrize(
    "stop", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_a_stopped_run_leaves_no_film(stop: signal.Signals, checkpoint: Path) -> None:
    source = make_video(Path("a.mp4"), pictures(20) * 10)
    ran = start("deblur", source, "-c", checkpoint, "-o", "out/b.mp4")
    wait_for(lambda: any(Path().glob("out/.b.mp4.*.partial")), 60)
    end(ran, stop)
    assert not Path("out/b.mp4").exists()
    left = [*Path("out").iterdir()]
    assert left == [] or stop == signal.SIGKILL
    if left:  # the next run removes what a killed one has left
        short = make_video(Path("short.mp4"), pictures(2))
        done("deblur", short, "-c", checkpoint, "-o", "out/b.mp4")
        assert [*files("out")] == ["b.mp4"]


@pytest.mark.slow
def test_a_film_killed_at_any_time_and_resumed_is_as_if_run_through(checkpoint: Path) -> None:
    """Pages of a TIFF file, since two runs of an encoder of videos differ."""
    save_pages("a.tif", pictures(20) * 8)
    done("deblur", "a.tif", "-c", checkpoint, "-o", "whole.tif")
    command = ["deblur", "a.tif", "-c", checkpoint, "-o", "b.tif", "--resume"]
    for seconds in (0, 0.05, 0.1, 0.2, 0.3):
        left = {*Path().glob(".b.tif.*.partial")}
        ran = start(*command)
        wait_for(lambda left=left: {*Path().glob(".b.tif.*.partial")} - left, 60)
        time.sleep(seconds)
        end(ran, signal.SIGKILL)
        assert not Path("b.tif").exists()
    done(*command)
    made, whole = ([r.images["blur"] for r in read_records([f])] for f in ("b.tif", "whole.tif"))
    np.testing.assert_array_equal(made, whole)
    assert "1 finished before" in done(*command).lines[-1]


def test_the_total_counts_frames_where_films_state_them(films: Path) -> None:
    stated = ("photo.png", "sound.mp4", "phone.mov", "moving.webp", "pages.tif")
    records = read_records([films / name for name in stated])
    assert records.total == sum(1 for _ in records) == 17
    assert read_records([films / "uneven.mkv"]).total is None
