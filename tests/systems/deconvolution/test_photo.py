"""Windows of photos, which of their kernels are believed, and photos restored by them."""

import math
import threading
import time
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.io.records import central_crop
from blurkit.synthesis.kernels import draw_path, random_trajectory, splat
from blurkit.systems.deconvolution.choice import KernelSelection
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.fourier import halfway, kernel_agreement, off_peak, shape
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.deconvolution.nonblind import NonBlindDeconvolution, Watch, instead, needless
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.samples import rested
from blurkit.systems.deconvolution.windows import (
    Estimates,
    SelectedKernel,
    Window,
    blurs,
    exposure_middle,
    helped,
    known,
    rectangles,
    spared,
    typical,
    unchanged,
)
from tests.systems.deconvolution.photos import (
    batch,
    engine_of,
    grey,
    noise,
    photo,
    psnr,
    shake,
    taken,
    without_blur,
)

SMALL = WindowOptions(window=96, overlap=24, seen=96)


def given(seed: int, size: int = 15) -> Tensor:
    return batch(shake(seed, size))[0]


def place(window: Window) -> tuple[int, int, int, int]:
    return window.top, window.left, window.height, window.width


def stroke(down: int, right: int) -> Tensor:
    """A straight stroke of 9 pixels."""
    kernel = torch.zeros(25, 25)
    for step in range(-4, 5):
        kernel[12 + down * step, 12 + right * step] = 1 / 9
    return kernel


@pytest.mark.parametrize("name", ["astronaut", pytest.param("coffee", marks=pytest.mark.slow)])
def test_a_sharp_photo_stays_as_it_is(deconvolution: Deconvolution, name: str) -> None:
    sharp = photo(name)
    noisy = (sharp + noise(sharp.shape, 1 / 255)).astype(np.float32)
    windows = deconvolution.windows(noisy)
    assert not any(window.believed for window in windows)
    np.testing.assert_allclose(without_blur(deconvolution, noisy, windows), noisy, atol=1e-6)


@pytest.mark.parametrize("blurred", [False, True])
def test_in_a_sharp_photo_neither_its_light_nor_longer_blur_is_looked_for(
    deconvolution: Deconvolution, blurred: bool
) -> None:
    engine = engine_of(deconvolution, window=192, overlap=24, seen=192)
    stages, sides = set[str](), set[int]()
    engine.choice.from_dots = lambda parts, light, dots=engine.choice.from_dots: (  # type: ignore[method-assign]
        sides.update(part.shape[0] for part in parts) or dots(parts, light)
    )
    image = taken(photo("astronaut", 320, 320), shake(1, 17) if blurred else np.ones((1, 1)))
    engine.windows(image, lambda stage, *_: stages.add(stage))
    assert ("find light" in stages) == blurred
    assert blurred or sides == {192}


def test_no_long_blur_is_looked_for_where_a_small_copy_is_surely_hardly_blurred(
    deconvolution: Deconvolution,
) -> None:
    engine, sides = engine_of(deconvolution), set[int]()
    engine.choice.surer = lambda part, *more, surer=engine.choice.surer, **light: (  # type: ignore[method-assign]
        sides.add(part.shape[0]) or surer(part, *more, **light)
    )
    assert len(engine.windows(taken(photo("chelsea", 300, 451), shake(2, 5), 0.004))) == 2
    assert sides == {300}


@pytest.mark.slow
def test_a_picture_that_repeats_itself_gains(deconvolution: Deconvolution) -> None:
    bricks = np.repeat(photo("brick", 512, 512)[..., None], 3, axis=2)
    blurry = taken(bricks, shake(1, 25))
    restored = without_blur(deconvolution, blurry, deconvolution.windows(blurry))
    assert psnr(restored, bricks, 12) > psnr(blurry, bricks, 12) + 2


@pytest.mark.slow
def test_the_more_a_kernel_promises_the_less_its_estimates_have_to_agree(
    deconvolution: Deconvolution,
) -> None:
    for trust, gain, sure in (
        *((0.9, 0.2, True), (0.8, 0.2, False), (0.8, 0.3, True)),
        *((0.65, 0.5, True), (0.5, 0.5, False), (1.0, 0.1, False)),
    ):
        found = SelectedKernel(stroke(0, 1), 2.2, trust, gain)
        engine = engine_of(deconvolution)
        engine.choice.finished = lambda *_, found=found, **light: found  # type: ignore[method-assign]
        (window,) = engine.windows(photo("coffee", 64, 64).astype(np.float32))
        assert window.believed == sure, (trust, gain)


def test_a_kernel_of_nearly_one_pixel_is_no_blur() -> None:
    kernel = stroke(0, 1)
    assert blurs(kernel, WindowOptions())
    kernel[12, 12] = 0.65
    assert not blurs(kernel, WindowOptions())


@pytest.mark.slow
@pytest.mark.parametrize(("length", "side"), [(45, 61), (17, 41)])
def test_long_blur_is_found_by_larger_kernels(
    deconvolution: Deconvolution, length: int, side: int
) -> None:
    stages = set()
    blurry = taken(photo("astronaut", 384, 384), np.full((1, length), 1 / length), 0.002)
    (window,) = deconvolution.windows(blurry, lambda stage, done, total: stages.add(stage))
    assert window.kernel.shape == (side, side) and window.believed
    assert ("estimate long blur" in stages) == (side == 61)
    assert shape(window.kernel).length == pytest.approx(length, rel=0.15)


@pytest.mark.slow
def test_no_longer_blur_is_looked_for_where_windows_are_sure(deconvolution: Deconvolution) -> None:
    looked: list[int] = []
    for size, width in ((17, 320), (17, 192), (95, 320)):
        engine = engine_of(deconvolution, window=192, overlap=32, seen=192)
        engine.whole.kernel = lambda *_, size=size: looked.append(size)  # type: ignore
        engine.windows(taken(photo("coffee", 192, width), shake(1, size), 0.004))
    assert looked == [17, 95]  # a window alone is not sure


@pytest.mark.slow
def test_the_light_of_a_longer_blur_is_looked_for_again(
    deconvolution: Deconvolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows hold too little of it to tell; a light that is known is not looked for."""
    monkeypatch.setattr(KernelSelection, "light", lambda self, promised: 1)
    engine, asked = engine_of(deconvolution, window=192, overlap=32, seen=192), []
    engine.whole.kernel = lambda photo, promised, light: asked.append(light)  # type: ignore
    blurry = taken(photo("coffee", 192, 320), shake(1, 95), 0.004)
    for light in (None, 1):
        engine.windows(blurry, light=light)
    assert asked == [None, 1]


def straight(length: int, trust: float) -> SelectedKernel:
    """A stroke that was found in a window."""
    kernel = torch.zeros(FULL, FULL)
    kernel[FULL // 2, (FULL - length) // 2 :][:length] = 1 / length
    return SelectedKernel(kernel, 2.2, trust, 0.5)


def test_longer_blur_is_looked_for_where_windows_are_sure_of_a_long_one(
    deconvolution: Deconvolution,
) -> None:
    looked: list[int] = []
    for length in (15, 27):
        engine = engine_of(deconvolution, window=192, overlap=32, seen=192)
        engine.choice.finished = lambda *_, length=length, **light: straight(length, 0.95)  # type: ignore[method-assign]
        engine.whole.kernel = lambda *_, length=length: looked.append(length)  # type: ignore
        engine.windows(taken(photo("coffee", 192, 320), shake(1, 17), 0.004))
    assert looked == [27]


@pytest.mark.parametrize(
    ("others", "asked", "light"),
    [((0.9, 0.8, 0.0), 2, 1), ((0.0, 0.5, 0.9), 2, 0), ((0.0, 0.9, 0.8), 3, 1)],
)
def test_two_windows_that_agree_tell_the_light(
    deconvolution: Deconvolution, others: tuple[float, ...], asked: int, light: int
) -> None:
    """With the usual gamma, each promises 0.5."""
    engine, own, tried = engine_of(deconvolution), straight(15, 0.9), set[int]()
    found = [
        Estimates(own.kernel[None], torch.tensor([0.9]), np.array([1 - n / 10])) for n in range(3)
    ]

    def in_light(part: np.ndarray, _: object, light: int, shared: object) -> object:
        number = int(part.mean())
        tried.add(number)
        return found[number], replace(own, gain=others[number] if light else 0.5)

    engine.choice.in_light = in_light  # type: ignore[method-assign, assignment]
    engine.whole.starts = lambda parts, *_: found[3 - len(parts) :]  # type: ignore[method-assign]
    parts = [np.full((96, 96, 3), number, np.float32) for number in range(3)]
    assert engine.whole.in_light(parts, found, {})[1] == light
    assert len(tried) == asked


@pytest.mark.parametrize(
    ("trusts", "length", "asked", "goes_on"),
    [
        ((0.95, 0.95, 0.5), 8, 2, False),
        ((0.5, 0.95, 0.95), 8, 3, False),
        ((0.5, 0.5, 0.95), 8, 3, True),
        ((0.95, 0.95, 0.95), 27, 3, True),
    ],
)
def test_two_copies_that_surely_show_no_long_blur_are_enough(
    deconvolution: Deconvolution,
    trusts: tuple[float, ...],
    length: int,
    asked: int,
    goes_on: bool,
) -> None:
    """Kernels of 41 pixels have 61, 93 and 139 in the photo."""
    engine, told, surer = engine_of(deconvolution), list[int](), list[int]()
    shown = [
        Estimates(straight(length, 1).kernel[None], torch.tensor([trust]), np.array([-1.0]))
        for trust in trusts
    ]
    engine.choice.starts = lambda *_, **light: told.append(1) or shown[len(told) - 1]  # type: ignore
    engine.choice.surer = lambda _, found, **light: surer.append(1) or found  # type: ignore
    engine.choice.finished = lambda *_, **light: replace(straight(3, 1), gain=0.0)  # type: ignore
    assert engine.whole.kernel(np.zeros((600, 600, 3), np.float32), lambda _: [0.5], 0) is None
    assert (len(told), bool(surer)) == (asked, goes_on)


@pytest.mark.parametrize(("lengths", "finished"), [((20, 13, 9), 1), ((20, 20, 9), 3)])
def test_one_copy_is_enough_where_all_surely_show_one_kernel(
    deconvolution: Deconvolution, lengths: tuple[int, ...], finished: int
) -> None:
    """Kernels of 41 pixels have 61, 93 and 139 in the photo."""
    engine, ended = engine_of(deconvolution), list[int]()
    shown = [
        Estimates(straight(length, 1).kernel[None], torch.tensor([0.95]), np.array([0.5]))
        for length in lengths
    ]
    engine.choice.starts = lambda *_, **light: shown.pop(0)  # type: ignore[method-assign]
    engine.choice.surer = lambda _, found, **light: found  # type: ignore[method-assign]
    engine.choice.finished = lambda *_, **light: ended.append(1) or straight(3, 1)  # type: ignore
    engine.whole.kernel(np.zeros((600, 600, 3), np.float32), lambda _: [0.5], 0)
    assert len(ended) == finished


@pytest.mark.parametrize(
    ("name", "length", "trust", "long"),
    [
        ("coffee", 33, 0.95, True),
        ("coffee", 15, 0.95, False),
        ("coffee", 15, 0.8, True),
        ("page", 33, 0.95, False),
    ],
)
@pytest.mark.parametrize("kept", [False, True])
def test_long_blur_is_looked_for_before_windows_are_finished(
    deconvolution: Deconvolution, name: str, length: int, trust: float, long: bool, kept: bool
) -> None:
    """If it is found, they are not, and it is looked for once."""
    engine = engine_of(deconvolution, window=64, overlap=8, seen=64)
    asked, found = list[str](), straight(length, trust)
    own = Estimates(found.kernel[None], torch.tensor([trust]), np.array([0.5]))
    engine.choice.from_dots = lambda photos, light: [own] * len(photos)  # type: ignore
    engine.choice.shared = lambda *_: (own.kernels, own.agreement)  # type: ignore[method-assign]
    engine.choice.joined = lambda photo, own, *_, **kernel: own  # type: ignore[method-assign]
    engine.choice.finished = lambda *_, **light: asked.append("finished") or found  # type: ignore
    engine.choice.refined = lambda parts, found: found  # type: ignore[method-assign]
    engine.whole.kernel = lambda *_: asked.append("whole") or (found if kept else None)  # type: ignore
    engine.whole.windows = lambda *_: ["long"]  # type: ignore[method-assign, list-item]
    picture = photo(name, 96, 160)
    grey = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture
    made = engine.windows(taken(grey, shake(1, 9)))
    assert (asked[0] == "whole") == long
    if long:
        assert asked.count("whole") == 1 and (asked == ["whole"]) == (made == ["long"]) == kept


@pytest.mark.parametrize(("length", "sizes"), [(27, [61]), (33, [61, 93])])
def test_a_kernel_of_a_larger_size_is_tried_where_the_best_one_is_cut(
    deconvolution: Deconvolution, length: int, sizes: list[int]
) -> None:
    engine, enlarged = engine_of(deconvolution), list[int]()
    engine.choice.enlarged = lambda _, found, size: enlarged.append(size) or found  # type: ignore
    engine.choice.gain = lambda *_: 0.0  # type: ignore[method-assign]
    found = [straight(length, 0.95)] * 3
    engine.whole._in_full(photo("coffee", 64, 64), found, [61, 93, 139], 0, l0=False)
    assert sorted(enlarged) == sizes


@pytest.mark.parametrize(
    ("trust", "promised", "own", "kept"),
    [(0.74, 0.97, 0.92, False), (0.95, 0.97, 0.92, True), (0.73, 0.88, 0.57, True)],
)
def test_a_doubtful_kernel_of_the_whole_photo_must_promise_clearly_more(
    deconvolution: Deconvolution, trust: float, promised: float, own: float, kept: bool
) -> None:
    """Where a picture repeats itself, a wrong one promises about as much as the right one."""
    engine, found = engine_of(deconvolution), straight(35, trust)
    engine.choice.gain = lambda *_: promised  # type: ignore[method-assign]
    best = engine.whole.rivalled(
        photo("coffee", 160, 160).astype(np.float32), [found], [], lambda: [own]
    )
    assert (best is found) == kept


@pytest.mark.parametrize(("trust", "kept"), [(0.65, False), (0.75, True)])
def test_a_long_kernel_that_no_estimate_bears_out_is_not_taken(
    deconvolution: Deconvolution, trust: float, kept: bool
) -> None:
    engine, point = engine_of(deconvolution), straight(1, 0.5)
    single = Estimates(point.kernel[None], torch.tensor([0.5]), np.array([0.0]))
    engine.choice.starts = lambda *_, **light: single  # type: ignore[method-assign]
    engine.choice.surer = lambda _, found, **light: found  # type: ignore[method-assign]
    long = replace(straight(35, trust), gain=2.0)
    engine.choice.finished = lambda *_, **light: long  # type: ignore[method-assign]
    l0s = list[bool]()
    engine.whole._in_full = lambda *_, l0: l0s.append(l0) or [long]  # type: ignore
    engine.whole.rivalled = lambda photo, found, *_: found[0] if found else None  # type: ignore
    for shown in ([], [long]):
        engine.whole.shown = lambda *_, shown=shown: shown  # type: ignore
        best = engine.whole.kernel(np.zeros((600, 600, 3), np.float32), lambda _: [0.5], 0)
        assert (best is long) == kept
    assert l0s == ([True, False] if kept else [])  # the prior has no chance where lights shine


@pytest.mark.parametrize("printed", [False, True])
def test_longer_blur_must_promise_more_than_that_of_print(
    deconvolution: Deconvolution, printed: bool
) -> None:
    engine, found, asked = engine_of(deconvolution), straight(35, 0.8), []
    page = taken(np.repeat(photo("page", 150, 150)[..., None], 3, 2), found.kernel.numpy())
    wrong = replace(found, kernel=found.kernel.T.contiguous())
    engine._printed = lambda *_: ([found], printed)  # type: ignore[method-assign]
    engine.whole.kernel = lambda *_: wrong  # type: ignore[method-assign]
    engine.whole.windows = lambda *_: asked.append(1) or [whole(wrong.kernel, 1, True)]  # type: ignore
    engine.windows(page)
    assert bool(asked) != printed


@pytest.mark.slow
def test_kernels_of_the_whole_photo_compete_with_a_doubtful_one(
    deconvolution: Deconvolution,
) -> None:
    true, engine = shake(1, 51), engine_of(deconvolution)
    engine.choice.finished = lambda *_, **light: straight(27, 0.8)  # type: ignore[method-assign]
    (window,) = engine.windows(taken(photo("coffee", 256, 320), true, 0.004))
    assert float(kernel_agreement(batch(true), window.kernel)) > 0.9


@pytest.mark.slow
def test_a_long_blur_is_no_rest_though_windows_show_a_point(deconvolution: Deconvolution) -> None:
    engine = engine_of(deconvolution, window=256, overlap=32, seen=256)
    finished, point = engine.choice.finished, replace(straight(1, 0.8), gain=0.1)
    engine.choice.finished = lambda part, *more, **light: (  # type: ignore[method-assign]
        point if part.shape[0] == 256 else finished(part, *more, **light)
    )
    windows = engine.windows(taken(photo("coffee", 256, 448), shake(1, 51), 0.004))
    assert all(shape(window.kernel).length > FULL for window in windows)


@pytest.mark.parametrize(
    ("own", "promised", "rested"), [(0.08, 0.18, False), (0.08, 0.29, True), (0.3, 0.55, False)]
)
def test_a_camera_rested_only_where_its_path_promises_clearly_more(
    deconvolution: Deconvolution, own: float, promised: float, rested: bool
) -> None:
    engine, point = engine_of(deconvolution), replace(straight(1, 0.8), gain=own)
    engine.choice.rested = lambda *_: straight(27, 0.8).kernel  # type: ignore[method-assign]
    engine.choice.gain = lambda *_, **of_kernel: promised  # type: ignore[method-assign]
    image = photo("coffee", 160, 160).astype(np.float32)
    (found,) = engine._rested(image, [image], [point])
    assert (found is not point) == rested


def test_a_window_that_a_network_hardly_changes_stays_as_it_is() -> None:
    image = 0.9 * photo("coffee", 100, 300).astype(np.float32)
    options = WindowOptions(window=100, overlap=0)
    windows = [Window(*place) for place in rectangles(100, 300, options)]
    restored = image + np.repeat([1.4, 1.6, 0.1], 100).astype(np.float32)[:, None] / 255
    same = unchanged(image, restored, windows, options)
    assert same == [True, False, True]
    result = spared(image, restored, windows, same, options)
    wanted = np.hstack([image[:, :100], restored[:, 100:200], image[:, 200:]])
    np.testing.assert_array_equal(result, wanted)
    for change, kept in ((1, True), (2, False)):
        changed = image + np.float32(change / 255)
        same = unchanged(image, changed, windows, options)
        assert same == [kept] * 3
        assert spared(image, changed, windows, same, options) is (image if kept else changed)
    lit = image.copy()
    lit[:5, :10] = 1  # lights, whose streaks may be taken for lights
    assert unchanged(lit, lit, windows, options) == [False, True, True]
    lit[1:] = image[1:]  # ten pixels, also in the large window of a long blur
    assert unchanged(lit, lit, [Window(0, 0, 100, 300)], options) == [False]
    page = np.stack([grey("text", 100, 300)] * 3, 2)
    for image, stays in ((page, True), (taken(page, np.full((1, 21), 1 / 21)), False)):
        image = image.astype(np.float32)
        assert unchanged(image, image, windows, options) == [stays] * 3


def whole(kernel: Tensor, trust: float, believed: bool) -> Window:
    return Window(0, 0, 256, 256, kernel, trust=trust, believed=believed)


def test_a_window_without_blur_stays_unless_the_change_promises_much(
    deconvolution: Deconvolution,
) -> None:
    sharp = photo("rocket").astype(np.float32)
    dot, stroke = torch.ones(1, 1), torch.full((1, 9), 1 / 9)
    doubtful = deconvolution.options.certain - 0.05
    windows = [
        *(whole(dot, 0.95, False), whole(stroke, doubtful, False)),
        *(whole(stroke, 0.95, False), whole(stroke, doubtful, True)),
    ]
    halo = sharp + 0.3 * (sharp - ndimage.gaussian_filter(sharp, (8, 8, 0)))
    none, blurry = [False] * 4, taken(sharp, shake(1, 9))

    def left(image: np.ndarray, changed: np.ndarray, same: list[bool]) -> list[bool]:
        known = windows, same, deconvolution.options
        return needless(deconvolution.undo, image, changed, *known)

    assert left(sharp, halo, none) == [True, True, True, False]
    assert left(sharp, halo, [*none[:3], True])[3]
    assert left(blurry, sharp, none) == none


def test_a_certain_kernel_is_used_where_the_network_sharpens_too_much(
    deconvolution: Deconvolution,
) -> None:
    kernel = np.full((1, 5), 0.2)
    blurry = taken(photo("astronaut").astype(np.float32), kernel, 0.004)
    halo = blurry + (blurry - ndimage.gaussian_filter(blurry, (2, 2, 0)))
    doubtful = deconvolution.options.certain - 0.05
    stroke, dot = torch.from_numpy(kernel).float(), torch.ones(1, 1)
    windows = [
        *(whole(stroke, 0.95, False), whole(stroke, doubtful, False)),
        *(whole(dot, 0.95, False), whole(stroke, 0.95, True)),
    ]
    plain = Deconvolver()  # which joins no drafts
    given = deconvolution.undo.network.state_dict()
    plain.load_state_dict({key: given[key] for key in plain.state_dict()})
    alone = Deconvolution(plain, deconvolution.options, "cpu", "fp32")

    def used(undo: NonBlindDeconvolution, changed: np.ndarray, same: bool) -> list[bool]:
        made = instead(undo, blurry, changed, windows, [same] * 4, deconvolution.options)
        return [window.believed for window in made]

    for changed, own in ((halo, True), (blurry, False)):
        assert used(deconvolution.undo, changed, False) == [own, False, False, True]
        assert used(alone.undo, changed, False)[1:] == [False, False, True]
    assert not any(used(deconvolution.undo, halo, True))


# ---- windows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [WindowOptions(), SMALL, WindowOptions(window=64, overlap=0)])
@pytest.mark.parametrize(
    "size", [(48, 48), (96, 97), (64, 1000), (100, 384), (385, 383), (720, 1280), (333, 500)]
)
def test_windows_cover_the_photo(options: WindowOptions, size: tuple[int, int]) -> None:
    hits = np.zeros(size, int)
    places = list(rectangles(*size, options))
    sides = min(options.window, size[0]), min(options.window, size[1])
    for top, left, height, width in places:
        assert (height, width) == sides
        assert 0 <= top <= size[0] - height and 0 <= left <= size[1] - width
        hits[top : top + height, left : left + width] += 1
    assert hits.min() == 1 and places == sorted(places)
    for axis in (0, 1):
        begins = sorted({place[axis] for place in places})
        overlap = min(options.overlap, sides[axis] // 2)
        shared = np.subtract(begins[:-1], begins[1:]) + sides[axis]
        assert (shared >= overlap).all()
        fewest = math.ceil((size[axis] - overlap) / (sides[axis] - overlap))
        assert len(begins) == max(1, fewest)


def test_the_middle_of_a_photo() -> None:
    image = photo("coffee", 101, 60)
    np.testing.assert_array_equal(central_crop(image, 40, 40), image[30:70, 10:50])
    np.testing.assert_array_equal(central_crop(image, 80, 80), image[10:90])
    np.testing.assert_array_equal(central_crop(image, 101, 101), image)


def grid(kernels: list[Tensor], believed: list[bool]) -> list[Window]:
    """Nine windows, three in a row, 96 pixels each, sharing 24."""
    each = zip(rectangles(240, 240, SMALL), kernels, believed, strict=True)
    return [
        Window(*place, kernel, trust=0.9 if sure else 0.3, believed=sure)
        for place, kernel, sure in each
    ]


def test_a_doubtful_window_takes_what_its_neighbours_agree_on() -> None:
    wrong, noisy = given(1), [0.9 * given(0) + 0.1 * given(seed) for seed in range(2, 10)]
    kernels = [*noisy[:4], wrong, *noisy[4:]]
    windows = grid(kernels, [number != 4 for number in range(9)])
    result = helped(windows, 0.78)
    assert all(window.believed for window in result)
    assert float(kernel_agreement(result[4].kernel[None], given(0)[None])) > 0.9
    assert float(kernel_agreement(wrong[None], given(0)[None])) < 0.78
    assert result[4].trust == windows[0].trust and result[4].top == windows[4].top
    assert all(result[number] is windows[number] for number in range(9) if number != 4)


def test_a_believed_window_takes_what_much_surer_neighbours_agree_on() -> None:
    windows = grid([given(1), *[given(0)] * 8], [True] * 9)
    for trust, taken_over in ((0.81, True), (0.83, False)):  # theirs is 0.9
        windows[0] = replace(windows[0], trust=trust)
        assert torch.equal(helped(windows, 0.78)[0].kernel, given(0 if taken_over else 1))
    windows[0] = replace(windows[0], trust=0.7)
    windows[1] = replace(windows[1], kernel=given(2))
    windows[4] = replace(windows[4], kernel=given(3))
    assert torch.equal(helped(windows, 0.95)[0].kernel, given(1))  # they disagree


def test_a_window_is_left_where_its_neighbours_disagree() -> None:
    windows = grid([given(seed) for seed in range(9)], [number != 4 for number in range(9)])
    assert not helped(windows, 0.78)[4].believed
    assert helped(windows, 0.3)[4].believed


def test_one_neighbour_is_not_enough() -> None:
    same = [given(0)] * 9
    for believed, corner in (([1], False), ([1, 3], True), ([1, 2], False), ([2, 5, 8], False)):
        windows = grid(same, [number in believed for number in range(9)])
        assert helped(windows, 0.78)[0].believed == corner, believed
    nowhere = grid(same, [False] * 9)
    assert helped(nowhere, 0.78) == nowhere


def test_help_is_not_handed_on() -> None:
    """Only what was believed in its own right helps others."""
    same = [given(0)] * 9
    result = helped(grid(same, [number in (0, 3, 6) for number in range(9)]), 0.78)
    assert [w.believed for w in result] == [True, True, False] * 3


def test_the_typical_blur_is_the_most_trusted() -> None:
    windows = [
        Window(0, 0, 96, 96, stroke(0, 1), trust=0.8),
        Window(0, 72, 96, 96, stroke(1, 0), trust=0.9),
        Window(0, 144, 96, 96, stroke(1, 1), trust=0.95, believed=False),
    ]
    assert typical(windows) is windows[1]
    assert typical(windows[2:]) is None and typical([]) is None


@pytest.mark.parametrize("sides", [(15, 15), (4, 4), (3, 8), (9, 2), (1, 1)])
def test_a_known_kernel_keeps_its_middle(sides: tuple[int, int]) -> None:
    kernel = np.random.default_rng(0).uniform(0.1, 5, sides)
    windows = known(np.zeros((150, 400, 3), np.float32), kernel, WindowOptions())
    assert [(w.top, w.left) for w in windows] == [(0, 0), (0, 16)]
    for window in windows:
        assert window.believed and not window.centred
        size = window.kernel.shape[0]
        assert window.kernel.shape == (size, size) and size % 2 == 1
        assert float(window.kernel.sum()) == pytest.approx(1, abs=1e-5)
        rows, columns = (slice(size // 2 - s // 2, size // 2 - s // 2 + s) for s in sides)
        part = window.kernel[rows, columns].numpy()
        np.testing.assert_allclose(part, kernel / kernel.sum(), rtol=1e-5)


# ---- photos --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "seed"), [pytest.param("coffee", 1, marks=pytest.mark.slow), ("astronaut", 1)]
)
def test_a_shaken_photo_is_restored(deconvolution: Deconvolution, name: str, seed: int) -> None:
    sharp, kernel = photo(name, 256, 300), shake(seed, 17)
    blurry = taken(sharp, kernel)
    told: list[tuple[str, int, int]] = []
    watch: Watch = lambda *stage: told.append(stage)  # noqa: E731
    (window,) = deconvolution.windows(blurry, watch)
    assert window.believed
    assert float(kernel_agreement(window.kernel[None], batch(kernel))) > 0.8
    restored = without_blur(deconvolution, blurry, [window], watch=watch)
    stages = ["estimate blur", "find light", "undo blur"]  # the light is found by refined kernels
    assert told == [(stage, 1, 1) for stage in stages]
    assert restored.shape == blurry.shape and restored.dtype == np.float32
    assert psnr(restored, sharp, 15) > psnr(blurry, sharp, 15) + 1
    best = without_blur(deconvolution, blurry, known(blurry, kernel, deconvolution.options))
    assert psnr(best, sharp, 15) > psnr(blurry, sharp, 15) + 3
    # The picture stays in its place, if only about where an estimate has its centroid.
    for axis in (0, 1):
        for step in (-1, 1):
            aside = [np.roll(image, step, axis) for image in (best, np.roll(restored, step, axis))]
            assert psnr(aside[0], sharp, 15) < psnr(best, sharp, 15) - 1
            assert psnr(aside[1], sharp, 15) < psnr(restored, sharp, 15) - 1


@pytest.mark.parametrize(
    ("name", "seed"), [pytest.param("astronaut", 2, marks=pytest.mark.slow), ("coffee", 0)]
)
def test_the_faint_path_of_a_camera_that_rested_is_undone(
    deconvolution: Deconvolution, name: str, seed: int
) -> None:
    """For three fifths of the exposure it rested; the others fall on all of its path."""
    rng = np.random.default_rng(seed)
    path = random_trajectory(rng)
    kernel = draw_path(rested(path, int(rng.integers(len(path))), 0.6), 25)
    sharp = photo(name, 288, 288)
    blurry = taken(sharp, kernel)
    (window,) = deconvolution.windows(blurry)
    assert window.believed and float(off_peak(window.kernel[None]).sum()) > 0.2
    restored = without_blur(deconvolution, blurry, [window])
    assert psnr(restored, sharp, 24) > psnr(blurry, sharp, 24) + 3


@pytest.mark.parametrize(
    ("seed", "size"),
    [
        (1, 17),
        pytest.param(11, 25, marks=pytest.mark.slow),
        pytest.param(107, 37, marks=pytest.mark.slow),
    ],
)
def test_a_shaken_page_can_be_read_again(
    deconvolution: Deconvolution, seed: int, size: int
) -> None:
    """The last one only by what is found in full size: its small copy is hardly more than grey."""
    sharp = np.repeat(photo("page", 190, 384)[..., None], 3, 2)
    blurry = taken(sharp, shake(seed, size), 2 / 255)
    told: list[str] = []
    windows = deconvolution.windows(blurry, lambda stage, *_: told.append(stage))
    restored = without_blur(deconvolution, blurry, windows)
    assert windows[0].believed and "read print" in told
    assert psnr(restored, sharp, 20) > psnr(blurry, sharp, 20) + 4


@pytest.mark.parametrize(("gain", "fine"), [(0.5, 0), (0.62, 0), (0.3, 5)])
def test_print_is_found_in_full_size_where_a_small_copy_does_not_show_it(
    deconvolution: Deconvolution, gain: float, fine: int
) -> None:
    engine, first, asked = engine_of(deconvolution), straight(15, 0.7), list[float]()
    first, coarse = replace(first, gain=0.3), replace(first, gain=gain)
    start = Estimates(first.kernel[None], torch.tensor([0.7]), np.array([0.3]))
    engine.choice.inked = lambda *_: torch.zeros(1)  # type: ignore[method-assign]
    engine.choice.of_print = lambda *_: start  # type: ignore[method-assign]
    engine.choice.of_fine_print = lambda *known: asked.append(known[-1]) or start  # type: ignore
    engine.choice.printed = lambda *_: coarse  # type: ignore[method-assign]
    engine.choice.toned = lambda *_, **gamma: first  # type: ignore[method-assign]
    engine.choice.readable = lambda part, found, other: other  # type: ignore[method-assign]
    page = np.repeat(photo("page", 150, 150)[..., None], 3, 2).astype(np.float32)
    ((found,), printed) = engine._printed(page, [page], [first], 2.2)
    assert len(asked) == fine and printed == (gain > 0.3) and found.gain == gain


def test_a_sharp_texture_of_one_colour_is_no_print(deconvolution: Deconvolution) -> None:
    """Its edges are on one line, too; what is sure is only replaced by what is like it."""
    sharp = np.repeat(photo("brick", 400, 400)[..., None], 3, 2)
    noisy = (sharp + noise(sharp.shape, 1 / 255)).astype(np.float32)
    windows = deconvolution.windows(noisy)
    assert not any(window.believed for window in windows)
    assert min(window.trust for window in windows) > 0.9


def test_the_middle_of_an_exposure_is_that_of_what_is_believed_and_nearly_straight() -> None:
    time = np.linspace(-0.5, 0.5, 400)
    paths = (24 * time, 12 * time**2), (9 * time, 9 * time), (20 * time, 24 * abs(time))
    arc, tail, corner = (batch(splat(v + 15, u + 15, 31))[0] for u, v in paths)
    assert exposure_middle([whole(arc, 1, True), whole(tail, 1, False)]) == tuple(halfway(arc))
    assert exposure_middle([whole(corner, 1, True)] * 2) == (0, 0)
    assert exposure_middle([whole(arc, 1, False)]) == (0, 0) == exposure_middle([])


def test_estimating_leaves_threads_as_they_were(deconvolution: Deconvolution) -> None:
    """Each window takes one processor; what runs afterwards takes as many as before."""
    blurry = taken(photo("coffee", 96, 96), shake(1, 9))
    engine = engine_of(deconvolution, window=96, overlap=24, seen=96)
    before, seen = torch.get_num_threads(), []
    torch.set_num_threads(3)
    try:
        engine.windows(blurry)
        assert torch.get_num_threads() == 3
        thread = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        thread.start()
        thread.join()
        assert seen == [3]
    finally:
        torch.set_num_threads(before)


class Counting:
    """A device that counts its callers."""

    def __init__(self) -> None:
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, window: int) -> int:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.02)
        with self._lock:
            self.now -= 1
        return window


@pytest.mark.parametrize(("device", "most"), [("cpu", 2), ("mps", 1), ("cuda", 1)])
def test_windows_use_a_gpu_one_after_the_other(device: str, most: int, one_thread: None) -> None:
    """Apple's aborts if several threads do at once."""
    torch.set_num_threads(2)
    work, told = Counting(), []
    owner = SimpleNamespace(undo=SimpleNamespace(device=torch.device(device)))
    watch: Watch = lambda *stage: told.append(stage)  # noqa: E731
    assert KernelSelection.each(owner, work, range(6), stage="stage", watch=watch) == [*range(6)]
    assert work.most == most and told[-1] == ("stage", 6, 6)


def test_the_engine_tells_what_it_runs_on(deconvolution: Deconvolution) -> None:
    assert deconvolution.describe() == "precision=float32 device=cpu"
