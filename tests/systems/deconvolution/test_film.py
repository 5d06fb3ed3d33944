"""The blur of a film's frames, found with the help of the frame before each."""

import sys
from unittest.mock import patch

import numpy as np
import pytest
import torch
from scipy import ndimage

from blurkit.io.records import Record, from_float
from blurkit.model import Model
from blurkit.options import Placement
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.film import FilmEstimate, series_of
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.deconvolution.inference import deconvolving
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import Window
from blurkit.systems.registry import load_networks
from blurkit.systems.system import load_shipped
from tests.systems.deconvolution.photos import photo, psnr, shake, taken

SIDE, MOVED = 176, 3


def frames(name: str, count: int, size: int = 11) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Sharp and blurry frames of a camera that moves along a photo, each with its own shake."""
    wide = photo(name, 256, 256)
    sharp = [wide[20 + n : 20 + n + SIDE, MOVED * n : MOVED * n + SIDE] for n in range(count)]
    shaken = [taken(frame, shake(n, size)) for n, frame in enumerate(sharp)]
    return sharp, [from_float(frame, np.uint8) for frame in shaken]


def film(*blurry: np.ndarray, first: int = 0) -> list[Record]:
    return [
        Record(f"a/{n:06d}", {"blur": frame}, {"film": "a", "source": "a.mp4", "frame": n})
        for n, frame in enumerate(blurry, first)
    ]


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(placement=Placement("cpu"))


Scenes = tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray], int]


@pytest.fixture(scope="module")
def scenes(model: Model) -> Scenes:
    """The sharp, blurry and restored frames of two scenes, and the number of searches."""
    work, _ = model.deblurring("shake")
    first, second = frames("astronaut", 3), frames("coffee", 3)
    sharp, blurry = first[0] + second[0], first[1] + second[1]
    search = Deconvolution.windows
    with patch.object(Deconvolution, "windows", autospec=True, side_effect=search) as searched:
        restored = [work(record).image("restored") for record in film(*blurry)]
    return sharp, blurry, restored, searched.call_count


def test_kernels_come_from_the_frame_before(scenes: Scenes) -> None:
    *images, searches = scenes
    assert searches == 2  # once in each scene
    for true, before, made in zip(*images, strict=True):
        assert psnr(made / 255, true, 16) > psnr(before / 255, true, 16) + 1


def test_a_scene_does_not_depend_on_the_one_before(model: Model, scenes: Scenes) -> None:
    work, _ = model.deblurring("shake")
    _, blurry, restored, _ = scenes
    again = [work(record).image("restored") for record in film(*blurry[3:], first=3)]
    np.testing.assert_equal(again, restored[3:])


@pytest.fixture(scope="module")
def estimate() -> FilmEstimate:
    network = deconvolving(load_networks(load_shipped("deconvolution")))
    return FilmEstimate(Deconvolution(network, WindowOptions(), "cpu"))


def found(estimate: FilmEstimate, sharp: list[np.ndarray], seen: list[np.ndarray]) -> list[Window]:
    """The windows of the last frame, where the ones before it were restored perfectly."""
    options = WindowOptions(window=112, seen=112)
    film = FilmEstimate(Deconvolution(estimate._photo.undo.network, options, "cpu"))
    for frame, blurry in zip(sharp, seen, strict=True):
        film.begin(blurry)
        windows = film.windows(blurry)
        film.end(frame.astype(np.float32), windows, [False] * len(windows))
    return windows


def test_windows_under_one_blur_find_it_together(estimate: FilmEstimate) -> None:
    sharp, blurry = frames("astronaut", 2)
    first, *others = found(estimate, sharp, [frame / np.float32(255) for frame in blurry])
    assert len(others) == 3
    assert all((window.kernel == first.kernel).all() for window in others)


def test_a_window_under_another_blur_keeps_its_own(estimate: FilmEstimate) -> None:
    side, kernels = 240, [shake(n, 11) for n in (2, 3, 7)]
    wide = photo("coffee", side, side + MOVED)
    sharp = [wide[:, :side], wide[:, MOVED:]]
    blurry, now, other = map(taken, [*sharp, sharp[1]], kernels)
    now[-112:, -112:] = other[-112:, -112:]
    first, *_, last = found(estimate, sharp, [blurry, now])
    for window, kernel in ((first, kernels[1]), (last, kernels[2])):
        true = padded(torch.from_numpy(kernel), window.kernel.shape[-1])
        assert kernel_agreement(window.kernel, true) > 0.9


def test_a_blur_that_stays_keeps_its_kernel(estimate: FilmEstimate) -> None:
    """That a soft frame explains another one is no reason, if a turn leads back to it."""
    estimate.forget()
    kernels, (sharp, _) = [], frames("astronaut", 2)
    for frame in sharp:
        blurry, soft = taken(frame, shake(3, 15)), ndimage.gaussian_filter(frame, (2, 2, 0))
        estimate.begin(blurry)
        (window,) = estimate.windows(blurry)
        estimate.end(soft.astype(np.float32), [window], [False])
        kernels.append(window.kernel)
    torch.testing.assert_close(*kernels, rtol=0, atol=0)


def guided(
    estimate: FilmEstimate, *restored: np.ndarray, left: bool = False
) -> list[tuple[np.ndarray, float]]:
    """Restored frames with the help of their neighbours, and the parts that these are."""
    estimate.forget()
    made = []
    for frame in (x.astype(np.float32) for x in restored):
        estimate.begin(frame)
        windows = estimate._photo.places(frame)
        made.append(estimate.end(frame, windows, [left] * len(windows)))
    return [frame.finished() for frame in made]


@pytest.mark.parametrize("left", [True, False])
def test_a_sharper_frame_guides_its_neighbours(estimate: FilmEstimate, left: bool) -> None:
    sharp, _ = frames("astronaut", 3)
    soft = [ndimage.gaussian_filter(frame, (1.5, 1.5, 0)) for frame in sharp]
    (before, part), (middle, _), (after, _) = guided(
        estimate, soft[0], sharp[1], soft[2], left=left
    )
    assert psnr(before, sharp[0], 16) > psnr(soft[0], sharp[0], 16) + 2
    assert part > 0.3
    assert psnr(middle, sharp[1], 16) > (60 if left else 40)
    assert psnr(after, sharp[2], 16) > psnr(soft[2], sharp[2], 16) + 2


def test_what_restored_frames_show_alike_has_less_noise(estimate: FilmEstimate) -> None:
    sharp, _ = frames("coffee", 2)
    rng = np.random.default_rng(0)
    noisy = [frame + rng.normal(0, 0.02, frame.shape) for frame in sharp]
    for (made, _), before, now in zip(guided(estimate, *noisy), noisy, sharp, strict=True):
        assert psnr(made, now, 16) > psnr(before, now, 16) + 1


def test_what_only_one_frame_shows_is_no_ghost(estimate: FilmEstimate) -> None:
    (before, now), _ = frames("coffee", 2)
    came = now.copy()
    came[60:100, 60:100] = photo("astronaut", 40, 40)
    for pair in ((before, came), (came, now)):
        (_, (made, _)) = guided(estimate, *pair)
        assert psnr(made[66:94, 66:94], pair[1][66:94, 66:94]) > 38


def test_a_frame_that_awaits_the_next_is_guided_by_it(model: Model) -> None:
    work, _ = model.deblurring("shake")
    sharp, blurry = frames("astronaut", 2)
    first, second = film(blurry[0], from_float(sharp[1], np.uint8))
    alone = work(first)
    finish = work.begun(first)
    work(second)
    both = finish()
    assert both.attrs["restored_guided"] > 0.3 > alone.attrs["restored_guided"] == 0
    scores = [psnr(made.image("restored") / 255, sharp[0], 16) for made in (alone, both)]
    assert scores[1] > scores[0] + 1


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
def test_what_belongs_together(name: str, attrs: dict, series: tuple[str, int] | None) -> None:
    assert series_of(Record(name, {}, attrs)) == series
