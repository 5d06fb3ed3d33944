"""Lights: what clipped pixels hide, and the kernels that the streaks of lights show."""

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.io.records import to_float
from blurkit.systems.deconvolution import choice, nonblind
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.estimator import dots
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.deconvolution.lights import BRIGHT, Lights, kernel_of_lights, lights, redrawn
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import Estimates, SelectedKernel, known
from tests.benchmarks.unchanged import noisy
from tests.shared import shared_folder
from tests.systems.deconvolution.photos import (
    GAMMA,
    batch,
    engine_of,
    photo,
    psnr,
    shake,
    taken,
    without_blur,
)

LAMPS = [(60, 80, 3, 20.0), (70, 190, 2, 30.0), (150, 60, 2, 12.0), (190, 200, 3, 8.0)]
"""Row, column, side, and light in units of white."""


def night(height: int = 256, width: int = 256, dim: float = 1) -> np.ndarray:
    """A photo (H, W, 3) in pixel values with lamps, above 1."""
    light = photo("coffee", height, width) ** GAMMA * dim
    for top, left, side, bright in LAMPS:
        light[top : top + side, left : left + side] = bright
    return light ** (1 / GAMMA)


def scattered(seed: int, count: int = 15) -> np.ndarray:
    """A photo (320, 320, 3) in pixel values with lamps here and there."""
    light, rng = photo("coffee", 320, 320) ** GAMMA, np.random.default_rng(seed)
    for _ in range(count):
        top, left, side = rng.integers(320), rng.integers(320), rng.integers(1, 4)
        light[top : top + side, left : left + side] = rng.uniform(3, 30)
    return light ** (1 / GAMMA)


def tensor(image: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))).float()[None]


def found_in(blurry: np.ndarray, kernel: np.ndarray) -> Lights:
    """The lights of a photo (H, W, 3)."""
    return lights(tensor(blurry), batch(kernel), torch.tensor([GAMMA]))


def test_a_photo_is_that_of_lamps_and_that_of_all_the_rest() -> None:
    kernel = shake(3, 25)
    found = found_in(taken(night(), kernel, deviation=0), kernel)
    for top, left, side, bright in LAMPS:
        around = found.lamps[0, :, top - 4 : top + side + 4, left - 4 : left + side + 4]
        assert around.amax((1, 2)).min() > 0.4 * bright
        assert 0.8 < float(around.mean(0).sum()) / (side**2 * bright) < 1.1
    unlit = night()
    for top, left, side, _ in LAMPS:
        unlit[top : top + side, left : left + side] = 0
    rest = taken(unlit, kernel, deviation=0)
    assert psnr(found.dark[0].permute(1, 2, 0).numpy(), rest) > 45
    beyond = found.share[0, 0] < 1e-3
    assert 0.5 < beyond.float().mean() < 0.98
    changed = (found.dark - tensor(taken(night(), kernel, deviation=0))).abs().amax(1)[0]
    assert changed[beyond].max() < 0.02


def test_lamps_keep_their_colours() -> None:
    light, kernel = photo("coffee", 256, 256) ** GAMMA * 0.1, shake(3, 25)
    colours = [(20.0, 5.0, 0.5), (1.0, 15.0, 4.0), (3.0, 3.0, 18.0), (9.0, 9.0, 9.0)]
    for (top, left, *_), colour in zip(LAMPS, colours, strict=True):
        light[top : top + 2, left : left + 2] = colour
    found = found_in(taken(light ** (1 / GAMMA), kernel), kernel)
    for (top, left, *_), colour in zip(LAMPS, colours, strict=True):
        sums = found.lamps[0, :, top - 4 : top + 6, left - 4 : left + 6].sum((1, 2)).numpy()
        np.testing.assert_allclose(sums / sums.sum(), np.array(colour) / sum(colour), atol=0.08)


@pytest.mark.parametrize("exposed", [0.5, 1, 1.6, 3])
def test_photos_without_lamps_have_no_lights(exposed: float) -> None:
    scene = (photo("astronaut") * exposed ** (1 / GAMMA)).clip(0, 1)  # at most a white wall or sky
    blurry = tensor(taken(scene, shake(5, 31)))
    found = lights(blurry, batch(shake(5, 31)), torch.tensor([GAMMA]))
    assert not found.share.any() and torch.equal(found.dark, blurry)


@pytest.mark.parametrize("size", [25, 71])
@pytest.mark.parametrize("dim", [1, 0.1])
def test_streaks_become_lamps(deconvolution: Deconvolution, size: int, dim: float) -> None:
    """Also in the small copies in which long blur is undone, and where all else is dark."""
    scene, kernel = night(300, 300, dim), shake(3, size)
    blurry = taken(scene, kernel)
    windows = known(blurry, kernel, deconvolution.options)
    gains = []
    for lamps in (lights, lambda photos, *_: Lights(photos, 0 * photos, 0 * photos[:, :1])):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(nonblind, "lights", lamps)
            restored = without_blur(deconvolution, blurry, windows)
        inner = restored, blurry, scene.clip(0, 1)
        result, before, sharp = (image[36:-36, 36:-36] for image in inner)
        gains.append(psnr(result, sharp) - psnr(before, sharp))
    assert gains[0] > max(3, gains[1] + 2)


def test_large_lamps_are_not_hollow(deconvolution: Deconvolution) -> None:
    light, kernel = photo("coffee", 256, 256) ** GAMMA * 0.05, shake(3, 25)
    rows, columns = np.indices((256, 256))
    light += 3 * np.exp(-((rows - 128) ** 2 + (columns - 128) ** 2) / 2 / 9**2)[..., None]
    blurry = taken(light ** (1 / GAMMA), kernel)
    windows = known(blurry, kernel, deconvolution.options)
    restored = without_blur(deconvolution, blurry, windows)
    assert restored[light > 1.3].min() > 0.95


def test_a_wrong_kernel_makes_no_endless_light() -> None:
    found = found_in(taken(night(), shake(3, 25)), shake(8, 61))
    assert float(found.lamps.max()) <= 100 and 0 <= found.dark.min() <= found.dark.max() <= 1


@pytest.mark.parametrize("seed", [8, 9, 10])
def test_a_kernel_that_does_not_explain_streaks_shows_no_lamps(seed: int) -> None:
    blurry = taken(night(dim=0.1), shake(3, 25))
    found = found_in(blurry, shake(seed, 25))
    assert not found.share.any() and torch.equal(found.dark, tensor(blurry))


def test_streaks_show_the_kernel() -> None:
    kernel = shake(5, 31)
    blurry = tensor(taken(night(), kernel))[0]
    sides, options = (7, 11, 15, 21, 29, FULL), WindowOptions(edge=0.3, edges=0.01)
    true, agreed = padded(torch.from_numpy(kernel).float(), FULL), []
    for redraws in (0, 4):
        found, _ = kernel_of_lights(blurry, dots(1), sides, FULL, GAMMA, options, redraws)
        agreed.append(float(kernel_agreement(true, found)[0]))
    assert agreed[0] > 0.7 and agreed[1] > agreed[0] + 0.05


def test_without_lamps_no_streak_draws_a_kernel() -> None:
    blurry = tensor(taken(photo("coffee", 128, 128) * 0.5, shake(5, 31))).mean(1, keepdim=True)
    kernel = batch(shake(8, 31))
    assert torch.equal(redrawn(kernel, blurry**GAMMA, blurry > 2), kernel)


@pytest.mark.parametrize("seed", [1, 2])
def test_lamps_tell_the_light_that_was_blurred(deconvolution: Deconvolution, seed: int) -> None:
    scene, kernel = scattered(seed), shake(seed + 3, 25 + 6 * seed)
    blurry = taken(scene, kernel)
    (window,) = windows = deconvolution.windows(blurry)
    assert window.believed and window.gamma == GAMMA
    gain = psnr(without_blur(deconvolution, blurry, windows), scene.clip(0, 1), 24)
    assert gain - psnr(blurry, scene.clip(0, 1), 24) > 5


def test_only_lamps_become_bright(deconvolution: Deconvolution) -> None:
    kernel, edges = shake(3, 25), choice.LAMP_EDGES[0]
    exposed = (photo("astronaut") * 1.6 ** (1 / GAMMA)).clip(0, 1)
    show = deconvolution.choice.by_lights
    lamps, walls = (
        show(taken(scene, kernel), choice.COARSE, dots(1), FULL, *edges)[1]
        for scene in (night(), exposed)
    )
    assert lamps > 2 * BRIGHT and walls < 0.8 * BRIGHT


@pytest.mark.slow
def test_a_photo_whose_lights_hide_a_long_blur_is_restored(deconvolution: Deconvolution) -> None:
    scene, kernel = night(400, 600), shake(3, 71)
    blurry = taken(scene, kernel)
    windows = deconvolution.windows(blurry)
    restored = without_blur(deconvolution, blurry, windows)
    sharp = scene.clip(0, 1)
    assert all(window.believed for window in windows)
    true = padded(torch.from_numpy(kernel).float(), max(71, windows[0].kernel.shape[-1]))
    found = torch.stack([padded(window.kernel, true.shape[-1]) for window in windows])
    assert float(kernel_agreement(true, found).mean()) > 0.6
    assert psnr(restored, sharp, 40) > psnr(blurry, sharp, 40)


def test_lights_show_no_long_blur_where_a_glance_shows_no_lamps(
    deconvolution: Deconvolution,
) -> None:
    """Much of an exposed photo is white; only coarse kernels are asked what its lights show."""
    engine, asked = engine_of(deconvolution), set[tuple[int, int]]()
    engine.choice.by_lights = lambda image, side, start, size, *edges, by=engine.choice.by_lights: (  # type: ignore[method-assign]
        asked.add((side, size)) or by(image, side, start, size, *edges)
    )
    exposed = (photo("astronaut", 300, 300) * 1.6 ** (1 / GAMMA)).clip(0, 1)
    engine.windows(taken(exposed, np.ones((1, 1))))
    first, then = ({(side, FULL), (side, 61)} for side in (15, choice.COARSE))
    assert first <= asked <= first | then


def test_lights_are_asked_where_small_copies_are_sure_of_no_long_blur(
    deconvolution: Deconvolution,
) -> None:
    """Also where windows promise something: of people before lights, they are doubted."""
    engine, asked = engine_of(deconvolution), list[list[float]]()
    sure = Estimates(dots(1), torch.tensor([0.95]), np.array([0.2]))
    engine.choice.starts = lambda *_, **__: sure  # type: ignore[method-assign]
    engine.whole.rivalled = lambda *given: asked.append(given[-1]())  # type: ignore[method-assign]
    engine.whole.kernel(photo("coffee", 300, 300), lambda _: [0.3, 0.2], None)
    assert asked == [[0.3, 0.2]]


@pytest.mark.parametrize(("trust", "bright", "kept"), [(0.77, 20, 0), (0.95, 8, 1), (0.95, 6, 0)])
def test_what_lights_show_has_to_promise_enough_and_to_make_them_bright(
    deconvolution: Deconvolution, trust: float, bright: float, kept: bool
) -> None:
    """Soft, white skies and faces before them show kernels of 21 to 42 pixels, too."""
    engine, stroke = engine_of(deconvolution), padded(torch.ones(1, 25) / 25, FULL)
    shown = SelectedKernel(stroke, GAMMA, trust, 0.0), bright
    engine.choice.of_lights = lambda *_: shown  # type: ignore[method-assign]
    engine.choice.beside_lamps = lambda *_: 0.14  # type: ignore[method-assign]
    engine.choice.gain = lambda *_: 0.0  # type: ignore[method-assign]
    blurry = taken(night(), shake(3, 25))
    found = engine.whole.shown(blurry, [FULL])
    assert (engine.whole.rivalled(blurry, [], found, lambda: [0.1]) is not None) == kept


def test_a_kernel_that_lights_show_is_not_used_if_refining_cuts_it_short(
    deconvolution: Deconvolution,
) -> None:
    """The white corner of a sharp face shows a kernel of 50 pixels; refined, it has two."""
    folder = shared_folder("data", "BLURKIT_DATA") / "sharp/set5"
    face = next(record for record in noisy([folder]) if record.name.startswith("head"))
    image, sharp = (to_float(face.image(role)) for role in ("blur", "sharp"))
    restored = without_blur(deconvolution, image, deconvolution.windows(image))
    assert psnr(restored, sharp) > psnr(image, sharp) - 0.5


def test_what_a_kernel_promises_beside_lamps_is_not_spoilt_by_them(
    deconvolution: Deconvolution,
) -> None:
    kernel, choice = shake(3, 25), deconvolution.choice
    blurry, right = taken(night(dim=0.1), kernel), torch.from_numpy(kernel).float()
    beside = choice.beside_lamps(blurry, right, GAMMA)
    unlit = taken(photo("coffee", 256, 256) * 0.1 ** (1 / GAMMA), kernel)
    assert beside > choice.gain(blurry, right, GAMMA) + 0.15
    assert beside == pytest.approx(choice.gain(unlit, right, GAMMA), abs=0.1)
