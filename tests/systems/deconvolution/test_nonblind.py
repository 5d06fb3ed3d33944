"""Photos of known blur: where their pictures are, how windows are joined, and small copies."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.registration import phase_cross_correlation

from blurkit.io.records import Record
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.fourier import kernel_agreement, shape
from blurkit.systems.deconvolution.inference import WindowDeblurring
from blurkit.systems.deconvolution.nonblind import Undone, detailed, shifted
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import (
    Window,
    displacements,
    known,
    narrowed,
    rectangles,
    scaled,
    shrunk,
)
from tests.systems.deconvolution.photos import (
    batch,
    engine_of,
    followed,
    grown,
    noise,
    photo,
    psnr,
    shake,
    taken,
    without_blur,
)


@pytest.mark.parametrize("factor", [0.5, 0.25, 0.7])
def test_shrinking_keeps_light_in_its_place(factor: float) -> None:
    def waves(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        channels = [0.5 + 0.4 * np.sin((3 * rows + 2 * columns) / 100 + c) for c in range(3)]
        return np.stack(channels, 2).astype(np.float32)

    whole = waves(*np.mgrid[:200, :300])
    small = shrunk(whole, factor)
    assert small.shape == (round(200 * factor), round(300 * factor), 3)
    rows, columns = (np.mgrid[: small.shape[0], : small.shape[1]] + 0.5) / factor - 0.5
    np.testing.assert_allclose(small, waves(rows, columns), atol=0.01)
    np.testing.assert_array_equal(shrunk(whole, 1), whole)
    stripes = np.zeros((66, 66, 3), np.float32)
    stripes[:, ::2] = 1
    inside = shrunk(stripes, 1 / 3)[2:-2, 2:-2]
    np.testing.assert_allclose(inside, 0.5, atol=0.06)  # they do not become coarser ones


def test_images_are_moved_by_parts_of_a_pixel() -> None:
    image = photo("coffee", 90, 120)
    images = batch(*np.moveaxis(image, 2, 0))[None]
    for offset in ((2, -3), (0.5, 0.25)):
        expected = ndimage.shift(image, (*offset, 0), order=3, mode="nearest")
        moved = shifted(images, offset)[0].permute(1, 2, 0).numpy()
        assert psnr(moved, expected) > 40
        assert psnr(moved, image) < 30
        back = shifted(shifted(images, offset), [-by for by in offset])
        assert psnr(back[0].permute(1, 2, 0).numpy(), image, 8) > 45
    by_whole = shifted(images, (2, -3))
    np.testing.assert_allclose(by_whole[..., 2:, :-3], images[..., :-2, 3:], atol=1e-4)
    np.testing.assert_allclose(by_whole[..., 2:, -1], images[..., :-2, -1], atol=1e-4)


def test_a_known_kernel_away_from_the_middle_moves_the_picture(
    deconvolution: Deconvolution,
) -> None:
    """The blur is undone as it was: `y = x * k`, whatever the centroid."""
    sharp, kernel = photo("coffee", 160, 192), np.pad(shake(1, 11), ((0, 6), (4, 2)))
    blurry = taken(sharp, kernel)
    windows = known(blurry, kernel, deconvolution.options)
    restored = without_blur(deconvolution, blurry, windows)
    assert psnr(restored, sharp, 20) > psnr(blurry, sharp, 20) + 4
    centred = [replace(window, centred=True) for window in windows]
    assert (
        psnr(without_blur(deconvolution, blurry, centred), sharp, 20)
        < psnr(restored, sharp, 20) - 4
    )


def test_windows_of_their_own_blur_are_joined(deconvolution: Deconvolution) -> None:
    """Two halves of a photo, each with its own kernel, and a third in which none is believed."""
    sharp, kernels = photo("coffee", 160, 400), [shake(1, 13), shake(0, 13)]
    engine = engine_of(deconvolution, window=160, overlap=40)
    places = list(rectangles(160, 400, engine.options))
    assert [place[1] for place in places] == [0, 120, 240]
    first, second = (taken(sharp, kernel) for kernel in kernels)
    blurry = np.hstack([first[:, :140], second[:, 140:]])
    windows = [
        Window(*places[0], batch(kernels[0])[0], centred=False),
        Window(*places[1], batch(kernels[1])[0], centred=False),
        Window(*places[2], batch(kernels[1])[0], trust=0.1, believed=False),
    ]
    restored = without_blur(engine, blurry, windows)
    left, centre, right = (slice(12, 108), slice(170, 228), slice(280, None))
    for part in (left, centre):
        before, after, there = (x[20:-20, part] for x in (blurry, restored, sharp))
        assert psnr(after, there) > psnr(before, there) + 3
    np.testing.assert_allclose(restored[:, right], blurry[:, right], atol=1e-6)
    other = without_blur(engine, blurry, windows, np.full_like(blurry, 0.25))
    np.testing.assert_allclose(other[:, right], 0.25, atol=1e-6)
    steps = np.abs(np.diff(other[:, 241:281].mean((0, 2))))
    assert steps.max() < 0.03  # blended, not cut


@pytest.mark.parametrize(("side", "cut"), [(21, 5), (91, 18)])
def test_kernels_of_one_blur_show_one_picture(
    deconvolution: Deconvolution, side: int, cut: int
) -> None:
    """The centroid of a kernel that lacks the end of a path is elsewhere, the picture is not."""
    sharp, kernel = photo("coffee", 200, 400), shake(1, side)
    blurry, lacking = taken(sharp, kernel), kernel.copy()
    lacking[:cut] = 0
    kernels = batch(kernel, lacking / lacking.sum())
    assert 0.87 < float(kernel_agreement(kernels[:1], kernels[1:])) < 0.97
    apart = np.subtract(*(ndimage.center_of_mass(k.numpy()) for k in kernels))
    assert np.abs(apart).max() > 0.5
    engine = engine_of(deconvolution, window=224, overlap=48)
    places = rectangles(200, 400, engine.options)
    windows = [Window(*place, own) for place, own in zip(places, kernels, strict=True)]
    restored = without_blur(engine, blurry, windows)
    moved = [
        phase_cross_correlation(x[20:-20, part], y[20:-20, part], upsample_factor=50)[0]
        for x, y in [(sharp.mean(2), restored.mean(2))]
        for part in (slice(20, 170), slice(230, 380))
    ]
    np.testing.assert_allclose(*moved, atol=0.15)
    unlike = [replace(windows[0], kernel=batch(shake(2, side))[0]), windows[1]]
    assert displacements(unlike).tolist() == [[0, 0], [0, 0]]


def test_what_a_network_made_of_the_photo_takes_part(deconvolution: Deconvolution) -> None:
    """With a good draft a photo is restored better, with the photo itself hardly worse."""
    sharp, kernel = photo("coffee", 160, 192), shake(1, 13)
    blurry = taken(sharp, kernel)
    window = [Window(0, 0, 160, 192, batch(kernel)[0])]
    good = (sharp + noise(sharp.shape, 0.01)).astype(np.float32)
    reached, poor, better = (
        psnr(without_blur(deconvolution, blurry, window, *draft), sharp)
        for draft in ((), (blurry,), (good,))
    )
    assert poor > reached - 0.5
    assert better > reached + 1


@pytest.mark.parametrize("with_draft", [False, True])
def test_what_is_sharp_beside_a_blur_stays(deconvolution: Deconvolution, with_draft: bool) -> None:
    sharp = photo("astronaut")
    blurry, middle = followed(sharp, kernel := shake(1, 13))
    window = [Window(0, 0, 256, 256, batch(kernel)[0])]
    drafts = (blurry,) if with_draft else ()
    restored = without_blur(deconvolution, blurry, window, *drafts)
    inside, outside = (ndimage.binary_erosion(x, iterations=20) for x in (middle, ~middle))
    before, after = (
        [psnr(x[where][None], sharp[where][None]) for where in (inside, outside)]
        for x in (blurry, restored)
    )
    assert after[0] > before[0] - 2
    assert after[1] > before[1] + 2


def test_windows_of_one_kernel_hardly_overlap() -> None:
    """Where all have one, they overlap by 48 pixels; where one has its own, it stays whole."""
    places, kernels = rectangles(480, 848, WindowOptions()), torch.rand(2, 41, 41)
    windows = [Window(*place, kernels[0]) for place in places]
    for own in (None, 4):
        if own is not None:
            windows[own] = replace(windows[own], kernel=kernels[1])
        parts = narrowed(windows, 48)
        times = np.zeros((480, 848))
        for part in parts:
            times[part.top : part.top + part.height, part.left : part.left + part.width] += 1
        assert times.min() == 1
        if own is None:
            assert [part.width for part in parts] == [332, 280, 332] * 2
            assert {part.height for part in parts} == {264}
            assert (times > 1).sum() == 48 * 848 + 2 * 48 * 480 - 2 * 48 * 48
        else:
            assert parts[own] == windows[own]
            assert parts[own - 1].width == windows[own - 1].width


# ---- small copies --------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(256, 384), (155, 233), (505, 758), (900, 1350)])
def test_windows_of_another_size_of_a_photo_cover_it(height: int, width: int) -> None:
    image, other = (np.zeros((*sides, 3)) for sides in ((512, 768), (height, width)))
    places = rectangles(512, 768, WindowOptions())
    windows = [
        Window(*place, batch(shake(n, 25))[0], trust=n / 20, believed=n % 3 > 0)
        for n, place in enumerate(places)
    ]
    result = scaled(windows, image, other)
    covered = np.zeros((height, width), int)
    for old, new in zip(windows, result, strict=True):
        covered[new.top : new.top + new.height, new.left : new.left + new.width] += 1
        np.testing.assert_allclose(
            new.centre, np.multiply(old.centre, (height / 512, width / 768)), atol=1.5
        )
        factor = new.kernel.shape[0] / 25
        assert factor == pytest.approx(height / 512, abs=1 / 25)
        assert float(new.kernel.sum()) == pytest.approx(1, abs=1e-5)
        assert shape(new.kernel).length == pytest.approx(factor * shape(old.kernel).length, rel=0.1)
        assert (new.trust, new.believed) == (old.trust, old.believed)
    assert covered.min() == 1
    assert len({(window.height, window.width) for window in result}) == 1
    assert scaled(windows, image, image.copy()) == windows


@pytest.mark.parametrize(("name", "seed"), [("chelsea", 2), ("astronaut", 3)])
def test_long_blur_is_undone_in_a_small_copy(
    deconvolution: Deconvolution, name: str, seed: int
) -> None:
    """The network was trained on kernels of 41 pixels, and does worse in the photo itself."""
    sharp, kernel = photo(name, 300, 450), shake(seed, 91)
    blurry = taken(sharp, kernel)
    centred = [replace(w, centred=True) for w in known(blurry, kernel, deconvolution.options)]
    assert shape(centred[0].kernel).length > 60
    restored = without_blur(deconvolution, blurry, centred)
    straight, _ = deconvolution.undo(batch(blurry).movedim(-1, 1), centred[0].kernel[None], [2.2])
    direct = straight[0].permute(1, 2, 0).numpy()
    assert psnr(restored, sharp, 20) > psnr(direct, sharp, 20) + 0.3
    assert psnr(restored, sharp, 20) > psnr(blurry, sharp, 20) + 3


def test_a_large_photo_is_restored_in_a_small_copy_with_its_detail(
    deconvolution: Deconvolution,
) -> None:
    sharp, kernel = photo("astronaut", 300, 420), shake(1, 21)
    blurry = taken(sharp, kernel)
    engine = engine_of(deconvolution, megapixels=0.06, window=200)
    done = WindowDeblurring(engine, "some.pt", keep_kernel=True)(Record("a", {"blur": blurry}))
    small = shrunk(blurry, math.sqrt(0.06e6 / 300 / 420))
    alone = WindowDeblurring(engine, "some.pt")(Record("a", {"blur": small}))
    places = list(rectangles(*small.shape[:2], engine.options))
    assert done.attrs["restored_windows"] == alone.attrs["restored_windows"] == len(places)
    assert done.attrs["restored_believed"] == len(places)
    assert float(kernel_agreement(batch(done.attrs["kernel"]), batch(kernel))) > 0.75
    for what in ("blur_length", "restored_offset"):
        larger, smaller = (np.array(record.attrs.get(what, 0)) for record in (done, alone))
        np.testing.assert_allclose(larger, smaller * 300 / small.shape[0], rtol=0.1, atol=0.1)
    restored = done.image("restored")
    larger = grown(alone.image("restored"), 300, 420)
    assert psnr(restored, sharp, 20) > psnr(larger, sharp, 20) + 0.2
    assert psnr(restored, sharp, 20) > psnr(blurry, sharp, 20) + 3


def test_what_nothing_changed_in_a_copy_is_the_photo(deconvolution: Deconvolution) -> None:
    """To the bit, and no kernel made any of it, though windows with kernels are there."""
    image = photo("coffee", 120, 160).astype(np.float32)
    copy = shrunk(image, 0.5)
    windows = known(image, shake(1, 9), deconvolution.options)
    made = Undone(copy.copy(), np.ones((60, 80, 1), np.float32), np.zeros((60, 80, 1), np.float32))
    result = detailed(image, copy, made, windows, 24, torch.device("cpu"))
    np.testing.assert_array_equal(result.picture, image)
    assert result.share.shape == (120, 160, 1) and not result.share.any()
