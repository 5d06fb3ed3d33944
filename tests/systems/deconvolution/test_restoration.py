"""Known blur undone: Levin's photos, other people's code, and minimisation by brute force."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.restoration
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.systems.deconvolution.fourier import with_residual
from blurkit.systems.deconvolution.networks import BETAS, soft
from tests.benchmarks import levin
from tests.benchmarks.inversion import (
    _conjugate_gradients,
    _two_thirds,
    hyper_laplacian,
    sparse,
    total_variation,
    wiener,
)
from tests.benchmarks.levin import Pair
from tests.shared import shared_folder
from tests.systems.deconvolution.photos import batch, grey, noise, psnr, shake

QUICK = {"wiener": wiener, "total variation": total_variation, "hyper-Laplacian": hyper_laplacian}
Method = Callable[[Tensor, Tensor], Tensor]
Pairs = dict[str, Pair]
INSIDE = slice(30, -30), slice(30, -30)


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    """The pairs of Levin et al. (CVPR 2009) that are at hand, by image and number of the kernel."""
    return {pair[0]: pair for pair in levin.pairs(shared_folder("data", "BLURKIT_DATA"))}


def score(image: np.ndarray, sharp: np.ndarray) -> float:
    """The PSNR without a border, moved to where it is best, of 8 bits."""
    return levin.decibels(levin.rounded_error(image, sharp))


def restored(method: Method, pair: Pair, turned: bool = True) -> float:
    """The score of a method, which is given the true kernel, or that of the file."""
    _, blurry, sharp, kernel = pair
    given = kernel if turned else kernel.flip(0, 1)
    return score(method(batch(blurry), given[None])[0].numpy(), sharp)


def test_the_blurry_photos_score_as_published(pairs: dict[str, Pair]) -> None:
    """Otherwise the scores below mean nothing."""
    scores = [score(blurry, sharp) for _, blurry, sharp, _ in pairs.values()]
    assert len(scores) == 16 and np.mean(scores) == pytest.approx(22.79, abs=0.1)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        pytest.param("wiener", 32.6, marks=pytest.mark.slow),
        ("total variation", 33.47),
        pytest.param("hyper-Laplacian", 33.51, marks=pytest.mark.slow),
    ],
)
def test_levins_photos_with_known_kernels(pairs: Pairs, name: str, reference: float) -> None:
    """As good as other implementations on the mean of all 16."""
    assert np.mean([restored(QUICK[name], pair) for pair in pairs.values()]) > reference - 0.4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "reference"), [("im1 3", 36.01), ("im1 5", 37.29)])
def test_levins_photos_with_a_sparse_prior(pairs: Pairs, name: str, reference: float) -> None:
    found = restored(sparse, pairs[name])
    assert found > reference - 0.4
    assert all(found > restored(method, pairs[name]) + 0.2 for method in QUICK.values())


@pytest.mark.parametrize("method", QUICK)
@pytest.mark.parametrize("name", ["im1 4", "im1 7"])
def test_a_kernel_turned_round_restores_nothing(pairs: Pairs, method: str, name: str) -> None:
    blurry = score(*pairs[name][1:3])
    assert restored(QUICK[method], pairs[name], turned=False) < blurry + 1
    assert restored(QUICK[method], pairs[name]) > blurry + 9


def island(side: int = 240) -> np.ndarray:
    """A photo that is a plain grey next to its border, which makes it periodic."""
    ramp = np.clip((np.minimum(np.arange(side), np.arange(side)[::-1]) - 50) / 20, 0, 1)
    return 0.5 + np.outer(ramp, ramp) * (grey("camera", side, side) - 0.5)


@pytest.mark.parametrize("strength", [50.0, 300.0])
@pytest.mark.parametrize("seed", [0, 1])
def test_wiener_is_that_of_scikit_image(strength: float, seed: int) -> None:
    sharp, kernel = island(), shake(seed, 15)
    blurry = ndimage.convolve(sharp, kernel, mode="wrap")
    expected = skimage.restoration.wiener(
        blurry, kernel, 1 / strength, reg=np.ones((1, 1)), clip=False
    )
    result = wiener(batch(blurry), batch(kernel), strength)[0].numpy()
    np.testing.assert_allclose(result[INSIDE], expected[INSIDE], atol=2e-3)
    assert psnr(result, sharp) > psnr(blurry, sharp) + 4


@pytest.mark.parametrize("name", QUICK)
def test_a_batch_is_restored_one_by_one(name: str) -> None:
    sharps = [grey("camera", 90, 120), grey("coffee", 90, 120)]
    kernels = [shake(0, 15), shake(1, 15)]
    blurry = [ndimage.convolve(s, k) for s, k in zip(sharps, kernels, strict=True)]
    together = QUICK[name](batch(*blurry), batch(*kernels))
    for sharp, kernel, photo, result in zip(sharps, kernels, blurry, together, strict=True):
        (alone,) = QUICK[name](batch(photo), batch(kernel))
        torch.testing.assert_close(result, alone)
        assert psnr(alone.numpy(), sharp, 10) > psnr(photo, sharp, 10) + 3


def test_sparse_restores_up_to_the_border() -> None:
    """What lies beyond the photo is made up by the others, and not by this one."""
    sharp, kernel = grey("coffee", 96, 110), shake(2, 13)
    blurry = ndimage.convolve(grey("coffee", 130, 144), kernel)[17:-17, 17:-17]
    photo, blur = batch(blurry), batch(kernel)
    with_border = sparse(torch.cat([photo, photo]), torch.cat([blur, blur]), 3000, steps=40)
    torch.testing.assert_close(with_border[0], with_border[1])
    border = np.pad(np.zeros((82, 96), bool), 7, constant_values=True)
    images = with_border[0].numpy(), hyper_laplacian(photo, blur)[0].numpy(), blurry
    error, *others = (np.square(image - sharp)[border].mean() for image in images)
    assert error < 0.7 * min(others)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize(("shrink", "power"), [(soft, 1), (_two_thirds, 2 / 3)])
def test_shrinking_minimises_its_cost(
    shrink: Callable[[Tensor, float], Tensor], power: float, beta: float
) -> None:
    """Against the best of all values on a fine grid."""
    values, grid = np.linspace(-1.5, 1.5, 301), np.linspace(-1.6, 1.6, 64001)

    def cost(w: np.ndarray, v: np.ndarray) -> np.ndarray:
        return np.abs(w) ** power + beta / 2 * (w - v) ** 2

    found = shrink(torch.from_numpy(values), beta).numpy()
    costs = np.array([cost(grid, value) for value in values])
    assert (cost(found, values) <= costs.min(1) + 1e-9).all()
    np.testing.assert_allclose(found, grid[costs.argmin(1)], atol=1e-4)
    kept = np.count_nonzero(found)
    assert 0 < kept < 301 or (beta == 1 and kept == 0 and power < 1)


def test_the_weights_of_the_steps() -> None:
    assert BETAS[0] == 1 and BETAS[-1] < 256 < BETAS[-1] * 8**0.5
    np.testing.assert_allclose(np.diff(np.log2(BETAS)), 1.5)


@pytest.mark.parametrize("shape", [(12,), (3, 4)])
def test_conjugate_gradients_solve_linear_equations(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    square = rng.normal(size=(12, 12))
    matrix, wanted = square @ square.T + np.eye(12), rng.normal(size=12)
    expected = np.linalg.solve(matrix, wanted)

    def normal(x: Tensor) -> Tensor:
        return (torch.from_numpy(matrix) @ x.flatten()).reshape(shape)

    def solved(steps: int, start: np.ndarray) -> np.ndarray:
        given = (torch.from_numpy(array.copy()).reshape(shape) for array in (wanted, start))
        return _conjugate_gradients(normal, *given, steps).numpy().ravel()

    errors = [np.abs(solved(steps, 0 * expected) - expected).max() for steps in (3, 14)]
    assert errors[1] < 1e-9 < errors[0]
    np.testing.assert_allclose(solved(14, rng.normal(size=12)), expected, atol=1e-8)


def residual_added(
    restored: np.ndarray, photo: np.ndarray, kernel: np.ndarray, gamma: float, noise: float
) -> np.ndarray:
    """`with_residual` of images (H, W) in [0, 1]."""
    images = (batch(image)[:, None].expand(-1, 3, -1, -1) for image in (restored, photo))
    numbers = (torch.tensor([number]) for number in (gamma, noise))
    return with_residual(*images, batch(kernel), *numbers)[0, 0].numpy()


def test_without_blur_the_residual_makes_a_photo_of_any_restoration() -> None:
    photo = grey("coffee", 90, 110)
    smooth, aside = ndimage.gaussian_filter(photo, 2), np.pad(np.ones((1, 1)), ((0, 4), (2, 2)))
    for restored, off in ((smooth, 1e-5), (smooth - 0.4, 2e-3), (smooth + 0.4, 1e-5)):
        for kernel in (np.ones((1, 1)), aside):
            same = residual_added(restored, photo, kernel, 2.2, 0.01)
            np.testing.assert_allclose(same, photo, atol=off)


@pytest.mark.parametrize(("gamma", "noise"), [(1.0, 0.0), (1.0, 0.02), (2.2, 0.004)])
def test_the_residual_is_inverted_as_far_as_the_kernel_lets_it(gamma: float, noise: float) -> None:
    photo, kernel = grey("coffee", 120, 120), np.outer(*[[0.1, 0.2, 0.4, 0.2, 0.1]] * 2)
    smooth = wanted = ndimage.gaussian_filter(photo, 1.5)
    response = np.fft.fft2(np.pad(kernel, (0, 251)))
    damping = max(0.05, 255 * noise / 2)
    seen = ndimage.convolve(np.ones((120, 120)), kernel, mode="constant")
    seen = (2 * seen - 1).clip(0, 1)  # at a border, half of the kernel is beyond
    inverse = response.conj() * (1 + damping) / (abs(response) ** 2 + damping)
    for _ in range(2):
        wanted = wanted.clip(0, 1)
        blurry = ndimage.convolve(wanted**gamma, kernel, mode="nearest") ** (1 / gamma)
        residual = np.fft.fft2(np.pad(seen * (photo - blurry), (64, 72)))
        lacking = np.roll(np.fft.ifft2(residual * inverse).real, (-62, -62), (0, 1))
        wanted = wanted + lacking[:120, :120]
    result = residual_added(smooth, photo, kernel, gamma, noise)
    inside = slice(8, -8), slice(8, -8)
    np.testing.assert_allclose(result[inside], wanted[inside], atol=2e-4)


def test_the_residual_spoils_no_border() -> None:
    """Under long blur, most of what a photo shows there is of what lies beyond."""
    wide, kernel = grey("coffee", 260, 260), shake(1, 61)
    blurry = ndimage.convolve(wide, kernel)[50:-50, 50:-50] + noise((160, 160), 0.004)
    sharp = wide[50:-50, 50:-50]
    near = ndimage.gaussian_filter(sharp, 1)
    result = residual_added(near, blurry, kernel, 1.0, 0.004)
    assert psnr(result, sharp) > psnr(near, sharp) - 0.5


def test_the_residual_brings_lost_detail_back() -> None:
    sharp, kernel = grey("coffee", 160, 160), shake(4, 11)
    blurry = ndimage.convolve(sharp, kernel, mode="nearest") + noise(sharp.shape, 0.004)
    smooth = ndimage.median_filter(sharp, 5)
    better = residual_added(smooth, blurry, kernel, 1.0, 0.004)
    assert psnr(better, sharp, 12) > psnr(smooth, sharp, 12) + 0.5
