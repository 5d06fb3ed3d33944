"""The blur estimator: its parts against independent ones."""

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.systems.deconvolution import estimator, fourier
from blurkit.systems.deconvolution.estimator import BlurEstimator
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.deconvolution.networks import Deconvolver
from blurkit.systems.registry import from_state_dict
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from tests.systems.deconvolution.photos import GAMMA, photo, shake, taken


def kernel(size: int, seed: int = 3) -> Tensor:
    """The kernel (1, size, size) of a drawn path."""
    return torch.from_numpy(shake(seed, size))[None]


def blurred(side: int, by: Tensor) -> Tensor:
    """A photo (1, 3, side, side), blurred by scipy."""
    image = taken(photo("astronaut", side, side), by[0].numpy(), 0)
    return torch.from_numpy(image).permute(2, 0, 1)[None]


def test_true_edges_give_the_true_kernel() -> None:
    true = kernel(21)
    seen = estimator.view(blurred(256, true), torch.tensor([GAMMA]), 21)
    sharp = torch.from_numpy(photo("astronaut") ** GAMMA).float().mean(2)[None]
    edges = torch.stack(estimator.forward_differences(sharp), 1)
    ridge = torch.tensor([1e-6])
    found, _, _ = estimator.least_squares(seen, edges, 21, ridge, len(edges), steps=40)
    assert kernel_agreement(found, true.float()) > 0.97
    assert found.sum() == pytest.approx(1) and found.min() >= 0


def test_the_expected_gap_is_that_of_wiener_deconvolution() -> None:
    true, wrong = kernel(15), kernel(15, seed=5)
    noise, side, rng = 0.01, 44, np.random.default_rng(0)
    down, right = np.meshgrid(*[np.fft.fftfreq(side)] * 2, indexing="ij")
    power = 4 * np.sin(np.pi * down) ** 2 + 4 * np.sin(np.pi * right) ** 2
    spectrum = 0.006 / (power + 0.01)
    variance = 2 * (noise**2 + 2e-3**2)

    def error(by: Tensor) -> float:
        """The mean error for drawn pictures, periodic, each shifted to its kernel's centroid."""
        total = 0.0
        for _ in range(200):
            picture = np.fft.fft2(rng.standard_normal((side, side))) * np.sqrt(spectrum)
            grain = np.fft.fft2(rng.standard_normal((side, side))) * np.sqrt(variance)
            seen = picture * transfer(true) + grain
            inverse = transfer(by).conj() / (abs(transfer(by)) ** 2 + variance / spectrum)
            total += (abs(inverse * seen - picture) ** 2).mean()
        return total

    def transfer(of: Tensor) -> np.ndarray:
        values = np.zeros((side, side))
        values[:15, :15] = of[0].numpy()
        row, column = ndimage.center_of_mass(values)
        moved: np.ndarray = np.exp(2j * np.pi * (down * row + right * column))
        return np.fft.fft2(values) * moved

    found = estimator.expected_gap(wrong.float(), true.float(), torch.tensor([noise]))
    assert float(found) == pytest.approx(np.log(error(wrong) / error(true)), abs=0.05)
    same = estimator.expected_gap(true.float(), true.float(), torch.tensor([noise]))
    assert float(same) == pytest.approx(0, abs=1e-5)


def test_kernels_are_moved_and_compared_where_they_agree_best() -> None:
    true = padded(kernel(15).float(), 21)
    aside = torch.roll(true, (2, -1), (1, 2))
    other = padded(kernel(15, 7).float(), 21)
    assert estimator.distance(true, true) < 1e-6 < estimator.distance(true, other)
    np.testing.assert_array_equal(estimator.aligned(true, aside), aside)
    np.testing.assert_array_equal(fourier.recentred(aside), estimator.recentred(true))
    lost = fourier.moved(torch.ones(1, 5, 5), torch.tensor([1]), torch.tensor([-2]))
    assert lost[0].tolist() == [[0] * 5] + [[1, 1, 1, 0, 0]] * 4
    smaller = fourier.kernels_at(true, 9)
    assert smaller.shape == (1, 9, 9) and smaller.sum() == pytest.approx(1)


@pytest.mark.parametrize("design", [("soft", 40, 8), ("head", 12, 0), ("unet", 8, 8)])
def test_a_state_dict_is_recognised_and_its_turn_is_a_kernel(design: tuple[str, int, int]) -> None:
    made = BlurEstimator(*design)
    again = from_state_dict(made.state_dict())
    assert isinstance(again, BlurEstimator) and again.options == made.options
    network = network_for("deconvolving", load_shipped("deconvolution", "deconvolving"))
    assert isinstance(network, Deconvolver)
    true = kernel(11).float()
    known = network, blurred(96, true), torch.tensor([GAMMA]), true
    with torch.inference_mode():
        ((_, _, first), (_, _, turn)) = estimator.turns(again, *known, (29, 41))
    assert turn.kernels.shape == (1, 41, 41) and turn.edges.shape == (1, 2, 96, 96)
    assert turn.kernels.sum() == pytest.approx(1) and turn.kernels.min() >= 0
    assert first.edges.shape[-1] < 96 and 0 <= turn.agreement <= 1
