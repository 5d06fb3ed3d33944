"""The blur of a film's frames, found with the help of the frame before each."""

import sys
from unittest.mock import patch

import numpy as np
import pytest

from blurkit.io.records import Record, from_float
from blurkit.model import Model
from blurkit.options import Placement
from blurkit.systems.deconvolution.film import series_of
from blurkit.systems.deconvolution.photo import Deconvolution
from tests.systems.deconvolution.photos import photo, psnr, shake, taken

SIDE, MOVED = 176, 3


def frames(name: str, count: int, size: int = 11) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sharp and blurry frames of a camera that moves along a photo, each with its own shake."""
    wide = photo(name, 256, 256)
    sharp = [wide[20 + n : 20 + n + SIDE, MOVED * n : MOVED * n + SIDE] for n in range(count)]
    shaken = [taken(frame, shake(n, size)) for n, frame in enumerate(sharp)]
    return sharp, [from_float(frame, np.uint8) for frame in shaken]


def film(*blurry: np.ndarray, first: int = 0) -> list[Record]:
    about = ({"film": "a", "source": "a.mp4", "frame": first + n} for n in range(len(blurry)))
    names = (f"a/{first + n:06d}" for n in range(len(blurry)))
    images = ({"blur": frame} for frame in blurry)
    return [Record(*known) for known in zip(names, images, about, strict=True)]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(placement=Placement("cpu"))


@pytest.fixture(scope="module")
def scenes(model: Model) -> tuple[list[np.ndarray], list[np.ndarray], int]:
    """The sharp frames of two scenes, their blurry ones restored, and the number of searches."""
    work, _ = model.deblurring("shake")
    both = [frames(name, 3) for name in ("astronaut", "coffee")]
    sharp = [frame for scene, _ in both for frame in scene]
    blurry = [frame for _, scene in both for frame in scene]
    with patch.object(Deconvolution, "windows", autospec=True, side_effect=search) as searched:
        restored = [work(record).image("restored") for record in film(*blurry)]
    return sharp, restored, searched.call_count


search = Deconvolution.windows


def test_kernels_come_from_the_frame_before(
    scenes: tuple[list[np.ndarray], list[np.ndarray], int],
) -> None:
    sharp, restored, searches = scenes
    assert searches == 2  # once in each scene
    blurry = [frame for name in ("astronaut", "coffee") for frame in frames(name, 3)[1]]
    for true, made, before in zip(sharp, restored, blurry, strict=True):
        assert psnr(made / 255, true, 16) > psnr(before / 255, true, 16) + 1


def test_a_scene_does_not_depend_on_the_one_before(
    model: Model, scenes: tuple[list[np.ndarray], list[np.ndarray], int]
) -> None:
    work, _ = model.deblurring("shake")
    again = [work(record) for record in film(*frames("coffee", 3)[1], first=3)]
    np.testing.assert_equal([record.image("restored") for record in again], scenes[1][3:])


def test_without_opencv_each_frame_is_a_photo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", None)
    said: list[str] = []
    work, _ = Model(warn=said.append).deblurring("shake")
    blurry = frames("coffee", 2)[1]
    *_, last = map(work, film(*blurry))
    assert len(said) == 1
    assert "blurkit[align]" in said[0]
    alone = work(Record("photo", {"blur": blurry[-1]}))
    np.testing.assert_array_equal(last.image("restored"), alone.image("restored"))


def test_frames_of_any_size_follow_each_other(model: Model) -> None:
    """Tiny ones have no windows; those of another size, and of one colour, begin a scene."""
    work, _ = model.deblurring("shake")
    _, (blurry, other) = frames("coffee", 2)
    sizes = [blurry[:9, :7], blurry[:9, :7], blurry, other[:, :150], other[:40], 0 * other, other]
    for record in film(*sizes):
        assert work(record).image("restored").shape == record.image("blur").shape


@pytest.mark.parametrize(
    ("name", "attrs", "series"),
    [
        ("a/000007", {"film": "a", "source": "x/a.mp4", "frame": 7}, ("a x/a.mp4", 7)),
        ("b/000012", {}, ("b None", 12)),
        ("b/left_12", {"sequence": "b"}, ("b b", 12)),
        ("b/IMG_0012", {}, None),
        ("photo", {}, None),
    ],
)
def test_what_belongs_together(
    name: str, attrs: dict[str, object], series: tuple[str, int] | None
) -> None:
    assert series_of(Record(name, {}, attrs)) == series
