"""Frames in one file: animations read back with Pillow, contact sheets by their pixels."""

from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import skimage.data
from PIL import Image as Pillow

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.reports.pictures import Animation, ContactSheets, contact_sheet
from tests.io.scenes import refusal, write_all

PHOTO = skimage.data.astronaut()
SHOW = ("reblurred",)


def frame(number: int, name: str = "a", dtype: type = np.uint8, channels: int = 3) -> Record:
    image = PHOTO[10 * number : 10 * number + 48, 100:164, :channels]
    if dtype == np.uint16:
        image = image.astype(np.uint16) * 257
    attrs = {"amount": number / 4, "frame": number}
    return Record(f"{name}/{number}", {"reblurred": image, "blur": image[::-1]}, attrs)


def played(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """The frames of an animation as RGB, and how long each is shown, in milliseconds."""
    frames, durations = [], []
    with Pillow.open(path) as animation:
        assert animation.info.get("loop") == 0, "for ever"
        for number in range(animation.n_frames):  # type: ignore[attr-defined]
            animation.seek(number)
            animation.load()
            frames.append(np.asarray(animation.convert("RGB")))
            durations.append(animation.info["duration"])
    return frames, durations


# ---- animations ----------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".gif", ".png", ".apng", ".webp", ".GIF"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_an_animation_shows_every_frame(tmp_path: Path, suffix: str, dtype: type) -> None:
    path = tmp_path / f"new/a{suffix}"
    with Animation(path, SHOW, 10) as animation:
        for number in range(5):
            animation.claim(frame(number))
            animation.write(frame(number, dtype=dtype))
    frames, durations = played(path)
    assert durations == [400, 100, 100, 100, 400]
    for number, image in enumerate(frames):
        expected = frame(number).images["reblurred"]
        if suffix.lower() == ".gif":  # 256 colours
            assert np.abs(image.astype(int) - expected).mean() < 8
        else:
            np.testing.assert_array_equal(image, expected)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize(("fps", "duration"), [(4, 250), (0.5, 2000), (100, 10)])
def test_frames_per_second(tmp_path: Path, fps: float, duration: int) -> None:
    for suffix in (".gif", ".png", ".webp"):
        write_all(Animation(tmp_path / f"a{suffix}", SHOW, fps), map(frame, range(3)))
        _, durations = played(tmp_path / f"a{suffix}")
        assert durations == [4 * duration, duration, 4 * duration]


def test_gray_and_single_frames(tmp_path: Path) -> None:
    for suffix in (".gif", ".png", ".webp"):
        path = tmp_path / f"one{suffix}"
        write_all(Animation(path, SHOW, 4), [frame(1, channels=1)])
        image = imageio.imread(path)
        image = image[0] if image.ndim == 4 else image
        np.testing.assert_array_equal(image[..., 0], frame(1).images["reblurred"][..., 0])


def test_an_animation_is_of_one_picture_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    for name in ("a.jpg", "a.tif", "a.mp4", "a"):
        with pytest.raises(UsageError, match=r"an animation is one of \.gif \.png \.apng \.webp"):
            Animation(tmp_path / name, SHOW, 4)
    animation = Animation(path, SHOW, 4)
    animation.claim(frame(0))
    with pytest.raises(UsageError, match=r"a.gif is one animation, but there are several pictures"):
        animation.claim(frame(0, "b"))
    with pytest.raises(KeyError), Animation(path, SHOW, 4) as animation:
        animation.write(frame(0))
        raise KeyError
    write_all(Animation(path, SHOW, 4), [])
    assert list(tmp_path.iterdir()) == []
    path.write_bytes(b"mine")
    assert refusal(Animation, path, SHOW, 4).startswith("exists already; give --force")
    write_all(Animation(path, SHOW, 4, force=True), [frame(0)])
    assert path.read_bytes().startswith(b"GIF8")


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp"])
def test_a_full_disk(small_disk: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (760, 760, 3), np.uint8)
    images = enumerate((noise, noise[::-1]))
    frames = [Record(f"a/{number}", {"reblurred": image}) for number, image in images]
    with pytest.raises(BlurkitError, match="the disk is full"):
        write_all(Animation(small_disk / f"a{suffix}", SHOW, 4), frames)
    assert list(small_disk.iterdir()) == []


# ---- contact sheets ------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (5, 5), (7, 7), (8, 4), (15, 5)])
def test_the_layout_of_a_sheet(count: int, columns: int) -> None:
    images = [frame(n % 9).images["reblurred"] for n in range(count)]
    sheet = contact_sheet(images, [f"{n:.2f}" for n in range(count)])
    assert sheet.dtype == np.uint8
    rows = -(-count // columns)
    height, gap = sheet.shape[0], 8
    assert sheet.shape[1] == 64 * columns + gap * (columns - 1)
    step = (height + gap) // rows
    assert step * rows == height + gap
    assert step > 48 + 2 * gap, "no room for captions"
    for number, image in enumerate(images):
        top, left = step * (number // columns), (64 + gap) * (number % columns)
        np.testing.assert_array_equal(sheet[top : top + 48, left : left + 64], image)
        caption = sheet[top + 48 : top + step - gap, left : left + 64]
        assert caption.min() < 64 and np.median(caption) == 255  # dark text on white
        np.testing.assert_array_equal(sheet[top : top + 48, left + 64 : left + 72], 255)
    last = (count - 1) % columns + 1
    np.testing.assert_array_equal(sheet[step * (rows - 1) :, (64 + gap) * last :], 255)


def test_captions_tell_the_frames_apart() -> None:
    image = frame(0).images["reblurred"]
    zero, half, again = (contact_sheet([image], [text])[48:] for text in ("0.00", "0.50", "0.00"))
    assert (zero != half).any() and (zero == again).all()


def test_sheets_of_many_pictures(tmp_path: Path) -> None:
    sheets = ContactSheets(f"{tmp_path}/sheets/", SHOW)
    for name in ("x/a", "b"):
        for number in range(3):
            sheets.add(frame(number, name, np.uint16, 1 if name == "b" else 3))
        assert (tmp_path / "sheets/x/a.png").exists() == (name == "b")
    sheets.finish()
    sheets.finish()
    assert sorted(p.name for p in tmp_path.rglob("*.png")) == ["a.png", "b.png"]
    for name, channels in (("x/a", 3), ("b", 1)):
        sheet = imageio.imread(tmp_path / f"sheets/{name}.png")
        for number in range(3):
            shown = sheet[:48, 72 * number : 72 * number + 64]
            expected = frame(number, channels=channels).images["reblurred"]
            np.testing.assert_array_equal(shown, np.broadcast_to(expected, shown.shape))


def test_sheets_that_are_refused(tmp_path: Path) -> None:
    for output in ("sheet.gif", "sheet", "a.h5"):
        with pytest.raises(UsageError, match="name an image, or a folder"):
            ContactSheets(f"{tmp_path}/{output}", SHOW)
    sheets = ContactSheets(f"{tmp_path}/sheet.png", SHOW)
    sheets.add(frame(0))
    several = "one file, but there are several pictures; name a folder/"
    with pytest.raises(UsageError, match=several):
        sheets.add(frame(0, "b"))
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "sheet.png").write_text("mine")
    with pytest.raises(BlurkitError, match="exists already; give --force"):
        ContactSheets(f"{tmp_path}/sheet.png", SHOW)
    sheets = ContactSheets(f"{tmp_path}/sheet.png", SHOW, force=True)
    sheets.add(frame(0))
    sheets.finish()
    assert imageio.imread(tmp_path / "sheet.png").shape[1] == 64


def test_a_sheet_that_cannot_be_written_takes_no_frame_of_the_next(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("mine")
    sheets = ContactSheets(f"{tmp_path}/", SHOW)
    sheets.add(frame(0))
    with pytest.raises(BlurkitError, match=r"a\.png: exists already"):
        sheets.add(frame(1, "b"))
    sheets.add(frame(2, "b"))
    sheets.finish()
    shown = imageio.imread(tmp_path / "b.png")[:48]
    np.testing.assert_array_equal(shown[:, :64], frame(1).images["reblurred"])
    np.testing.assert_array_equal(shown[:, 72:], frame(2).images["reblurred"])
    assert (tmp_path / "a.png").read_text() == "mine"
