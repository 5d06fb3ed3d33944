"""Frame averaging: exactly the published pairs, from folders and videos, in bounded memory."""

from __future__ import annotations

import pickle
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import skimage.data

from blurkit.data.films import average_window, averaged_records, clip_records, find_clips, windows
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.images import read_image
from blurkit.io.videos import read_video
from blurkit.synthesis.averaging import Averaging, average_frames, read_response
from tests.data.trees import Plant


@pytest.fixture
def frames(shared_data: Path, tmp_path: Path) -> Path:
    """The frames 164 to 213 of a GoPro sequence, as links."""
    folder = tmp_path / "train" / "GOPR0477_11_00"
    folder.mkdir(parents=True)
    for path in (shared_data / "video/gopr0477_240fps").glob("*.png"):
        (folder / path.name).symlink_to(path)
    return tmp_path


@pytest.mark.parametrize("start", [165, 198])
def test_published_pairs_are_reproduced_exactly(
    start: int, frames: Path, shared_data: Path
) -> None:
    (clip,) = find_clips([frames], 8).items
    every = windows(clip, Averaging(8, stride=1))
    assert len(every) == 50 - 8 + 1
    window = every[start + 1 - 164]  # the window starts one frame after the number in the name
    record = average_window(pickle.loads(pickle.dumps(window)), Averaging(8, stride=1))
    name = f"st{start:04d}_n08.png"
    published = shared_data / "pairs/gopro_avg/train/GOPR0477_11_00"
    for role in ("blur", "sharp"):
        expected = read_image(published / role / name).pixels
        np.testing.assert_array_equal(record.images[role], expected)
    assert record.name == f"GOPR0477_11_00/{start + 5:06d}"
    del record.attrs["source"], record.attrs["suffix"]
    assert record.attrs == {
        "sequence": "GOPR0477_11_00",
        "average": 8,
        "stride": 1,
        "gamma": 2.2,
        "split": "train",
        "split_source": "folder name",
    }


@pytest.mark.parametrize(("average", "stride", "count"), [(7, 0, 3), (5, 2, 10), (3, 10, 3)])
def test_windows_one_after_another_are_the_jobs_run_apart(
    average: int, stride: int, count: int, tmp_path: Path, plant: Plant
) -> None:
    for number in range(24):
        plant(f"{number}.png", number)
    averaging = Averaging(average, stride)
    (clip,) = find_clips([tmp_path], average).items
    records = list(clip_records(clip, averaging))
    apart = [average_window(window, averaging) for window in windows(clip, averaging)]
    assert len(records) == len(apart) == count
    for number, (one, other) in enumerate(zip(records, apart, strict=True)):
        middle = number * averaging.step + average // 2
        assert one.name == other.name == f"{tmp_path.name}/{middle}"
        for role in ("blur", "sharp"):
            np.testing.assert_array_equal(one.images[role], other.images[role])


def test_video(shared_data: Path) -> None:
    video = shared_data / "video/bigbuckbunny.mp4"
    records = list(averaged_records([video], Averaging(5, stride=25)))
    assert [record.name for record in records] == [
        f"bigbuckbunny/{number:06d}" for number in (2, 27, 52, 77, 102, 127)
    ]
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
    records = averaged_records(
        [tmp_path, tmp_path / "none", tmp_path / "good/2.png"],
        Averaging(3, stride=1),
        on_error=lambda where, error: told.append(str(error)),
    )
    assert [record.name for record in records] == ["good/3", "good/4"]
    for part in (
        "1 images, but a window takes 3",
        "none: no such",
        "2.png: is neither a folder of frames",
        "1.png: ",
    ):
        assert any(part in text for text in told), part
    assert any("video.mp4: is not a video" in text for text in told)
    assert len(told) == 5


def test_sixteen_bits_give_the_same_as_eight(tmp_path: Path) -> None:
    photo = skimage.data.chelsea()[:40, :50]
    eight = [np.roll(photo, shift, axis=1) for shift in range(5)]
    sixteen = [frame.astype(np.uint16) * 257 for frame in eight]
    fine = average_frames(sixteen)
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
        still = average_frames([photo] * 7, response=tmp_path / name)
        np.testing.assert_array_equal(still, photo)
    sixteen = average_frames([photo.astype(np.uint16) * 257] * 3, response=tmp_path / "curve.npy")
    np.testing.assert_array_equal(sixteen, photo.astype(np.uint16) * 257)


@pytest.mark.parametrize(
    ("text", "message"),
    [("1 2 3", "this one has 3"), ("7\n" * 256, "not all increasing"), ("seven", "not a response")],
)
def test_bad_response_curves(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "curve.txt"
    path.write_text(text)
    with pytest.raises(BlurkitError, match=message):
        read_response(path)


def test_frames_of_one_window_are_alike(tmp_path: Path) -> None:
    photo = skimage.data.chelsea()
    with pytest.raises(BlurkitError, match="differ"):
        average_frames([photo, photo[:-1]])
    for bad in ({"average": 0}, {"stride": -1}, {"gamma": 0.0}):
        with pytest.raises(UsageError, match="at least 1 frame"):
            Averaging(**bad)  # type: ignore[arg-type]
