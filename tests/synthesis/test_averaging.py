"""Averaged frames: exactly the published pairs; interpolated ones against real ones and shifts."""

import pickle
import subprocess
import sys
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import scipy.ndimage
import skimage.data

from blurkit.data.films import clip_records, find_clips, windows
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.images import read_image
from blurkit.io.records import Image
from blurkit.io.videos import read_video
from blurkit.synthesis.averaging import (
    Averaging,
    Motion,
    average_frames,
    find_motion,
    interpolated_average,
    read_response,
)
from tests.benchmarks.blur import scores
from tests.data.trees import Plant
from tests.synthesis.exposures import averaged_records


@pytest.fixture
def frames(shared_data: Path, tmp_path: Path) -> Path:
    """The frames 164 to 213 of a GoPro sequence, as links."""
    folder = tmp_path / "train" / "GOPR0477_11_00"
    folder.mkdir(parents=True)
    for path in (shared_data / "video/gopr0477_240fps").glob("*.png"):
        (folder / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("start", [165, 198])
def test_published_pairs_come_out_exactly(start: int, frames: Path, shared_data: Path) -> None:
    (clip,) = find_clips([frames], 8).items
    every = windows(clip, Averaging(8, stride=1))
    assert len(every) == 50 - 8 + 1
    window = every[start + 1 - 164]  # the window starts one frame after the number in the name
    record = next(clip_records(pickle.loads(pickle.dumps(window)), Averaging(8, stride=1)))
    name = f"st{start:04d}_n08.png"
    published = shared_data / "pairs/gopro_avg/train/GOPR0477_11_00"
    for role in ("blur", "sharp"):
        expected = read_image(published / role / name).pixels
        np.testing.assert_array_equal(record.images[role], expected)
    assert record.name == f"GOPR0477_11_00/{start + 5:06d}"
    del record.attrs["source"], record.attrs["suffix"]
    told = {"sequence": "GOPR0477_11_00", "average": 8, "stride": 1, "gamma": 2.2}
    assert record.attrs == told | {"split": "train", "split_source": "folder name"}


@pytest.mark.parametrize(("average", "stride", "count"), [(7, 0, 3), (5, 2, 10), (3, 10, 3)])
def test_windows_one_after_another_are_the_jobs_run_apart(
    average: int, stride: int, count: int, tmp_path: Path, plant: Plant
) -> None:
    for number in range(24):
        plant(f"{number}.png", number)
    averaging = Averaging(average, stride)
    (clip,) = find_clips([tmp_path], average).items
    records = list(clip_records(clip, averaging))
    apart = [next(clip_records(window, averaging)) for window in windows(clip, averaging)]
    assert len(records) == len(apart) == count
    for number, (one, other) in enumerate(zip(records, apart, strict=True)):
        middle = number * averaging.step + average // 2
        assert one.name == other.name == f"{tmp_path.name}/{middle}"
        np.testing.assert_equal(one.images, other.images)


@pytest.mark.slow
def test_video(shared_data: Path) -> None:
    video = shared_data / "video/bigbuckbunny.mp4"
    records = list(averaged_records([video], Averaging(5, stride=25)))
    names = [f"bigbuckbunny/{number:06d}" for number in range(2, 128, 25)]
    assert [record.name for record in records] == names
    decoded = [frame.pixels for frame in islice(read_video(video), 25, 30)]
    np.testing.assert_array_equal(records[1].images["sharp"], decoded[2])
    mean = np.mean([frame**2.2 for frame in np.float64(decoded)], axis=0) ** (1 / 2.2)
    np.testing.assert_array_equal(records[1].images["blur"], np.floor(mean))
    assert records[1].attrs["source"] == str(video)


def test_bad_inputs_are_told_and_the_rest_goes_on(tmp_path: Path, plant: Plant) -> None:
    for number in range(6):
        plant(f"good/{number}.png", number)
    plant("short/1.png", 1)
    (tmp_path / "good/1.png").write_bytes(b"broken")
    (tmp_path / "video.mp4").write_bytes(b"broken")
    told: list[str] = []
    inputs = [tmp_path, tmp_path / "none", tmp_path / "good/2.png"]
    averaging = Averaging(3, stride=1)
    records = averaged_records(inputs, averaging, on_error=lambda _, error: told.append(str(error)))
    assert [record.name for record in records] == ["good/3", "good/4"]
    for part in (
        *("1 images, but a window takes 3", "none: no such", "1.png: "),
        *("2.png: is neither a folder of frames", "video.mp4: is not a video"),
    ):
        assert any(part in text for text in told), part
    assert len(told) == 5


def test_sixteen_bits_give_the_same_as_eight() -> None:
    photo = skimage.data.chelsea()[:40, :50]
    eight = [np.roll(photo, shift, axis=1) for shift in range(5)]
    fine = average_frames([frame.astype(np.uint16) * 257 for frame in eight])
    assert fine.dtype == np.uint16
    np.testing.assert_array_equal(fine // 257, average_frames(eight))
    floats = average_frames([(frame / 255).astype(np.float32) for frame in eight])
    np.testing.assert_allclose(floats, fine / 65535, atol=2e-5)


def test_response_curve(tmp_path: Path) -> None:
    photo = skimage.data.chelsea()[:40, :50]
    frames = [np.roll(photo, shift, axis=1) for shift in range(7)]
    curve = np.arange(256) ** 2.2
    np.save(tmp_path / "curve.npy", curve)
    np.savetxt(tmp_path / "curve.txt", curve)
    (tmp_path / "curve.csv").write_text(",".join(map(repr, curve.tolist())))
    for name in ("curve.npy", "curve.txt", "curve.csv"):
        blur = average_frames(frames, response=tmp_path / name)
        # Between two levels the curve is taken as straight, the power is not.
        assert np.abs(blur.astype(int) - average_frames(frames)).max() <= 1
        np.testing.assert_array_equal(average_frames([photo] * 7, response=tmp_path / name), photo)
    sixteen = average_frames([photo.astype(np.uint16) * 257] * 3, response=tmp_path / "curve.npy")
    np.testing.assert_array_equal(sixteen, photo.astype(np.uint16) * 257)


def test_a_damaged_header_is_refused(tmp_path: Path) -> None:
    """NumPy parses it as Python."""
    np.save(path := tmp_path / "curve.npy", np.linspace(0, 1, 256))
    path.write_bytes(path.read_bytes().replace(b"(256,)", b"\x00256,)"))
    with pytest.raises(BlurkitError, match="not a response curve"):
        read_response(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 2 3", "this one has 3"),
        ("7\n" * 256, "not all increasing"),
        ("-inf -inf" + " 1" * 254, "not all increasing and finite"),
        ("seven", "not a response"),
        ("", "has 0"),
    ],
)
def test_bad_response_curves(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.txt"
    path.write_text(text)
    with pytest.raises(BlurkitError, match=message):
        read_response(path)


def test_frames_of_one_window_are_alike() -> None:
    photo = skimage.data.chelsea()
    with pytest.raises(BlurkitError, match="differ"):
        average_frames([photo, photo[:-1]])
    for bad in ({"average": 0}, {"stride": -1}, {"gamma": 0.0}):
        with pytest.raises(UsageError, match="at least 1 frame"):
            Averaging(**bad)  # type: ignore[arg-type]


# ---- interpolated frames -------------------------------------------------------------------------

PHOTO = skimage.data.astronaut()[100:260, 150:350]
OTHER = skimage.data.coffee()[100:260, 150:350]


def moved(x: float, y: float = 0) -> Image:
    """The photo moved by (x, y) pixels, as SciPy does it."""
    larger = np.float64(skimage.data.astronaut()[60:300, 110:390])
    shifted = scipy.ndimage.shift(larger, (y, x, 0), order=3)[40:200, 40:240]
    return shifted.round().clip(0, 255).astype(np.uint8)


def difference(image: np.ndarray, other: np.ndarray) -> float:
    """The root mean square difference, gray levels."""
    return float(np.sqrt(np.mean((np.float64(image) - other) ** 2)))


@pytest.mark.parametrize("start", [0, pytest.param(33, marks=pytest.mark.slow)])
def test_blur_of_interpolated_frames_is_nearly_the_real_one(start: int, shared_data: Path) -> None:
    paths = sorted((shared_data / "video/gopr0477_240fps").glob("*.png"))[start : start + 17]
    alone, dissolved, interpolated, agreement = scores([read_image(p).pixels for p in paths], 8)
    assert interpolated > 44
    assert interpolated > alone + 10 and interpolated > dissolved + 10
    assert 0.85 < agreement < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("channels", [1, 3])
def test_still_frames_stay_as_they_are(dtype: type, channels: int) -> None:
    photo = PHOTO[:, :, :channels]
    if dtype == np.uint16:
        photo = photo.astype(dtype) * 257
    if dtype == np.float32:
        photo = photo.astype(dtype) / 255
    blur, attrs = interpolated_average([photo] * 3, Averaging(3, interpolate=5))
    assert blur.dtype == dtype and blur.shape == photo.shape
    np.testing.assert_allclose(blur, photo, rtol=0, atol=2e-6 if dtype == np.float32 else 0)
    assert attrs == {"interpolate": 5, "samples": 11, "flow_agreement": 1.0}


@pytest.mark.parametrize("way", [(8, 0), (-5, 3), (0, 10)])
@pytest.mark.parametrize("time", [0.25, 0.5])
def test_a_frame_in_between_is_moved_by_a_part(way: tuple[float, float], time: float) -> None:
    first, second = moved(0), moved(*way)
    motion = find_motion(first, second)
    made = motion.between(first.astype(np.float32), second.astype(np.float32), time)
    expected = moved(time * way[0], time * way[1])
    assert made.dtype == np.float32 and made.shape == first.shape
    inner = np.s_[12:-12, 12:-12]
    assert difference(made[inner], expected[inner]) < 4
    mixed = (1 - time) * first[inner] + time * second[inner]
    assert difference(made[inner], expected[inner]) < difference(mixed, expected[inner]) / 5
    np.testing.assert_allclose(np.median(motion.forward, axis=(0, 1)), way, atol=0.1)
    np.testing.assert_allclose(np.median(motion.backward, axis=(0, 1)), np.negative(way), atol=0.1)
    assert motion.agreement > 0.8


def test_a_thing_that_hides_another_leaves_no_ghost() -> None:
    """A square moves over a photo, of which it hides another part in each frame."""
    frames = []
    for left in (40, 45, 50):
        frame = PHOTO.copy()
        frame[50:110, left : left + 60] = OTHER[40:100, 40:100]
        frames.append(frame)
    motion = find_motion(frames[0], frames[2])
    first, second = np.float64(frames[0]), np.float64(frames[2])
    error = difference(motion.between(first, second, 0.5), frames[1])
    assert error < difference((first + second) / 2, frames[1]) / 2


def test_what_one_frame_has_left_comes_from_the_other() -> None:
    right = np.zeros((20, 40, 2), np.float32) + np.float32([8, 0])
    first, second = np.zeros((20, 40, 1)), np.ones((20, 40, 1))
    made = Motion(right, -right, 1.0).between(first, second, 0.25)[:, :, 0]
    assert made[:, :2].min() > 0.99  # entered on the left: only the second frame shows it
    np.testing.assert_allclose(made[:, 2:-6], 0.25, atol=1e-6)
    assert made[:, -6:].max() < 0.01


def test_the_mean_is_in_linear_light_by_gamma_or_by_response(tmp_path: Path) -> None:
    np.save(tmp_path / "curve.npy", np.arange(256) ** 2.2)
    frames = [moved(0), moved(6)]
    by_gamma, _ = interpolated_average(frames, Averaging(2, interpolate=6))
    response = tmp_path / "curve.npy"
    by_curve, _ = interpolated_average(frames, Averaging(2, interpolate=6, response=response))
    real = average_frames([moved(x) for x in range(7)])
    inner = np.s_[12:-12, 12:-12]
    assert np.abs(by_gamma.astype(int) - by_curve).max() <= 1
    assert difference(by_gamma[inner], real[inner]) < 2.5
    linear, _ = interpolated_average(frames, Averaging(2, interpolate=6, gamma=1.0))
    assert difference(linear[inner], real[inner]) > difference(by_gamma[inner], real[inner])


def test_flat_pictures_of_unlike_brightness_do_not_match() -> None:
    black = np.zeros((40, 50, 3), np.uint8)
    assert find_motion(black, black).agreement == 1
    assert find_motion(black, black + 200).agreement == 0
    assert Averaging(3).samples == Averaging(3, interpolate=1).samples == 3
    assert not Averaging(3, interpolate=1).interpolates


def test_wrong_values() -> None:
    for bad in ({"interpolate": -1}, {"agreement": 1.5}):
        with pytest.raises(UsageError, match="an agreement from 0 to 1"):
            Averaging(3, **bad)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="--average of 2"):
        Averaging(1, interpolate=8)
    with pytest.raises(BlurkitError, match="12 or more pixels"):
        interpolated_average([PHOTO[:11]] * 2, Averaging(2, interpolate=2))
    with pytest.raises(BlurkitError, match="differ"):
        interpolated_average([PHOTO, PHOTO[1:]], Averaging(2, interpolate=2))


def test_without_opencv(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what interpolates asks for it."""
    monkeypatch.setitem(sys.modules, "cv2", None)
    Averaging(3, interpolate=1)
    with pytest.raises(BlurkitError, match=r"pip install 'blurkit\[align\]'$"):
        Averaging(3, interpolate=2)


def test_a_forked_process_does_not_wait_for_threads_of_its_parent() -> None:
    script = """
import multiprocessing, numpy as np
from blurkit.synthesis.averaging import find_motion
from blurkit.io.opencv import opencv
cv2 = opencv("this test")
frame = np.random.default_rng(0).integers(0, 256, (720, 1280, 3), np.uint8)
find_motion(frame, frame)
cv2.remap(frame, *np.meshgrid(*map(np.float32, map(np.arange, (1280, 720)))), cv2.INTER_LINEAR)
child = multiprocessing.get_context("fork").Process(target=find_motion, args=(frame, frame))
child.start()
child.join(30)
hangs = child.is_alive()
child.kill()
raise SystemExit(hangs)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60).returncode == 0
