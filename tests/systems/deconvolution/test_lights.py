"""Lights: what clipped pixels hide, and the kernels that the streaks of lights show."""

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.systems.deconvolution import choice, nonblind
from blurkit.systems.deconvolution.config import FULL, WindowOptions
from blurkit.systems.deconvolution.estimator import dots
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.deconvolution.lights import BRIGHT, kernel_of_lights, lights
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.deconvolution.windows import SelectedKernel
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


def night(name: str = "coffee", height: int = 256, width: int = 256) -> np.ndarray:
    """A photo (H, W, 3) in pixel values with lamps, above 1."""
    light = photo(name, height, width) ** GAMMA
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


def test_what_clipped_pixels_hide_is_what_the_streaks_beside_them_show() -> None:
    scene, kernel = night(), shake(3, 25)
    blurry = taken(scene, kernel, deviation=0)
    found = lights(tensor(blurry), batch(kernel), torch.tensor([GAMMA]))
    assert found is not None
    hidden = tensor(blurry) >= 1
    before = taken(scene / scene.max(), kernel, deviation=0) * scene.max()
    true = tensor(before)[hidden] ** GAMMA
    kept = ~(tensor(blurry) >= 250 / 255)
    torch.testing.assert_close(found.photos[kept], tensor(blurry)[kept] ** GAMMA)
    error = (found.photos[hidden] - true).abs().mean()
    assert error < 0.5 * (true - 1).mean()  # most of what clipping took away is back
    for top, left, side, bright in LAMPS:
        around = found.sharp[0, 0, top - 4 : top + side + 4, left - 4 : left + side + 4]
        assert float(around.max()) > 0.3 * bright
        assert 0.6 < float(around.clamp_min(1).sub(1).sum()) / (side**2 * (bright - 1)) < 1.4


@pytest.mark.parametrize("exposed", [0.5, 1, 1.6, 3])
def test_photos_without_lamps_have_no_lights(exposed: float) -> None:
    scene = (photo("astronaut") * exposed ** (1 / GAMMA)).clip(0, 1)  # at most a white wall or sky
    blurry = tensor(taken(scene, shake(5, 31)))
    assert lights(blurry, batch(shake(5, 31)), torch.tensor([GAMMA])) is None


def test_pictures_with_lights_gain_by_what_they_hide(
    deconvolution: Deconvolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, kernel = night(), shake(3, 25)
    blurry = taken(scene, kernel)
    gains = []
    for _ in range(2):
        restored, _ = deconvolution.undo(tensor(blurry), batch(kernel), [GAMMA])
        result = restored[0].permute(1, 2, 0).numpy()
        gains.append(psnr(result, scene.clip(0, 1), 16) - psnr(blurry, scene.clip(0, 1), 16))
        monkeypatch.setattr(nonblind, "lights", lambda *known: None)
    assert gains[0] > gains[1] + 0.5
    assert gains[0] > 3


def test_a_wrong_kernel_makes_no_endless_light() -> None:
    blurry = taken(night(), shake(3, 25))
    found = lights(tensor(blurry), batch(shake(8, 61)), torch.tensor([GAMMA]))
    assert found is None or float(found.photos.max()) < 100


def test_streaks_show_the_kernel() -> None:
    kernel = shake(5, 31)
    blurry = tensor(taken(night(), kernel))[0]
    sides, options = (7, 11, 15, 21, 29, FULL), WindowOptions(edge=0.3, edges=0.01)
    found, _ = kernel_of_lights(blurry, dots(1), sides, FULL, GAMMA, options)
    true = padded(torch.from_numpy(kernel).float(), FULL)
    assert float(kernel_agreement(true, found)[0]) > 0.7


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
    scene, kernel = night("coffee", 400, 600), shake(3, 71)
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


@pytest.mark.parametrize("trust", [0.77, 0.95])
def test_what_lights_show_has_to_promise_more_if_it_is_hardly_trusted(
    deconvolution: Deconvolution, trust: float
) -> None:
    """A soft, white sky shows a kernel of 21 pixels, too."""
    engine, stroke = engine_of(deconvolution), padded(torch.ones(1, 25) / 25, FULL)
    engine.choice.of_lights = lambda *_: SelectedKernel(stroke, GAMMA, trust, 0.0)  # type: ignore[method-assign]
    engine.choice.gain = lambda *_: 0.14  # type: ignore[method-assign]
    blurry = taken(night(), shake(3, 25))
    assert (engine._rivalled(blurry, None, [FULL], [0.1]) is None) == (trust < 0.8)
