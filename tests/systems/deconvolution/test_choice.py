"""Which light and which kernel the estimates of a photo's windows speak for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.systems.deconvolution.choice import Estimates, KernelSelection, NonBlindDeconvolution
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.deconvolution.photo import shipped_estimator
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from tests.systems.deconvolution.photos import batch, photo, psnr, shake, taken

PHOTOS = ("astronaut", "coffee", "chelsea")


@pytest.fixture(scope="module")
def undo() -> NonBlindDeconvolution:
    """That of the weights that come with blurkit."""
    network = network_for("deconvolving", load_shipped("deconvolution"))
    return NonBlindDeconvolution(network, "cpu", "fp32")


def selection(undo: NonBlindDeconvolution, **options: Any) -> KernelSelection:
    """That of the weights that come with blurkit."""
    return KernelSelection(undo, shipped_estimator(), WindowOptions(**options))


def windows(light: float) -> list[np.ndarray]:
    """Windows of three photos, blurred by one kernel in that light."""
    return [taken(photo(name, 256), shake(3, 17), 0.004, light) for name in PHOTOS]


@pytest.mark.parametrize("light", [2.2, pytest.param(1.0, marks=pytest.mark.slow)])
def test_photos_tell_together_in_which_light_they_were_blurred(
    undo: NonBlindDeconvolution, light: float
) -> None:
    choice = selection(undo)
    found = [choice.estimates(window) for window in windows(light)]
    for estimates in found:
        assert estimates.kernels.shape == (2, 41, 41) and estimates.better.shape == (2,)
    assert choice.o.gammas[choice.light(found)] == light


def test_the_usual_light_is_left_only_for_one_that_is_clearly_better(
    undo: NonBlindDeconvolution,
) -> None:
    choice = selection(undo, doubt=0.2)

    def light(*others: float) -> float:
        found = [made([LINE, LINE], [1, 1 + other]) for other in others]
        return choice.o.gammas[choice.light(found)]

    assert light(0.19) == 2.2 and light(0.21) == 1
    assert light(0.5, 0, 0) == 2.2  # one window among three has to be sure
    assert light(0.5, 0.5, -0.3) == 1


def test_the_true_kernel_promises_more_in_its_light(undo: NonBlindDeconvolution) -> None:
    kernels = batch(shake(3, 17)).expand(2, -1, -1)
    for window in windows(2.2):
        photos = batch(window.transpose(2, 0, 1)).expand(2, -1, -1, -1)
        _, better = undo(photos, kernels, [2.2, 1.0])
        assert better[0].mean() > better[1].mean()


def test_a_long_blur_is_found_in_the_whole_photo(undo: NonBlindDeconvolution) -> None:
    choice = selection(undo, gammas=(2.2,))
    true, sharp = shake(1, 71), photo("coffee", 400, 600).astype(np.float32)
    found = choice.whole(taken(sharp, true, 0.004))
    assert found is not None and found.gain > 0.15
    size = max(found.kernel.shape[0], 71)
    kernel, wanted = padded(found.kernel, size), padded(batch(true)[0], size)
    assert float(kernel_agreement(kernel, wanted)) > 0.7
    assert choice.whole(sharp) is None
    assert choice.whole(sharp[:200, :200]) is None  # windows see all of it


@pytest.mark.parametrize(("name", "seed"), [("chelsea", 5), ("coffee", 2)])
def test_of_three_estimates_one_with_a_good_picture_is_chosen(
    undo: NonBlindDeconvolution, name: str, seed: int
) -> None:
    sharp, true = photo(name), shake(seed, 17)
    blurry = taken(sharp, true, 0.004)
    choice = selection(undo)
    learned = choice.learned(blurry, choice.estimates(blurry), 0)
    (best,) = choice.chosen([learned], [[]], 0)
    assert best.kernel.shape == (41, 41) and best.kernel.sum() == pytest.approx(1, abs=1e-4)
    photos = torch.from_numpy(blurry).permute(2, 0, 1).expand(3, -1, -1, -1)
    results, _ = undo(photos, learned.kernels, [2.2] * 3)
    scores = [psnr(result.permute(1, 2, 0).numpy(), sharp) for result in results]
    at = next(n for n, kernel in enumerate(learned.kernels) if torch.equal(kernel, best.kernel))
    assert scores[at] > max(scores) - 0.5 and scores[at] > psnr(blurry, sharp) + 3
    agreements = kernel_agreement(learned.kernels, padded(batch(true), 41))
    assert agreements[1:].max() > max(0.85, float(agreements[0]))  # the learned ones are better


def test_a_small_window_has_small_kernels(undo: NonBlindDeconvolution) -> None:
    choice, true = selection(undo), shake(1, 13)
    blurry = taken(photo("coffee", 96, 96), true, 0.004)
    learned = choice.learned(blurry, choice.estimates(blurry), 0)
    assert learned.kernels.shape == (3, 31, 31)
    assert float(kernel_agreement(learned.kernels, padded(batch(true), 31)).max()) > 0.75


def line(row: int) -> Tensor:
    kernel = torch.zeros(25, 25)
    kernel[row] = 1 / 25
    return kernel


LINE, SLOPE = line(12), torch.eye(25) / 25
ALIKE = float(kernel_agreement(LINE[None], SLOPE[None]))


def made(kernels: list[Tensor], better: list[float]) -> Estimates:
    return Estimates(torch.stack(kernels), torch.full((2,), ALIKE), np.array(better, float))


def test_trust_is_the_expected_agreement_and_that_with_other_estimates_and_neighbours(
    undo: NonBlindDeconvolution,
) -> None:
    choice = selection(undo, voice=0)
    first = made([LINE, SLOPE], [2, 1])
    second = made([LINE, LINE], [2, 1])
    third = made([LINE, SLOPE], [1, 2])

    def trusts(near: list[list[int]], *found: Estimates) -> list[float]:
        return [best.trust for best in choice.chosen(found, near, 0)]

    mixed = (1 + ALIKE) / 2
    assert trusts([[], []], first, second) == pytest.approx([ALIKE, mixed], abs=1e-5)
    together = [(2 * ALIKE + 1) / 3, (2 + ALIKE) / 3]
    assert trusts([[1], [0]], first, second) == pytest.approx(together, abs=1e-5)
    apart = trusts([[1, 2], [0, 2], [0, 1]], first, second, third)
    expected = [(2 * ALIKE + mixed) / 3, (ALIKE + 1 + mixed) / 3, ALIKE]
    assert apart == pytest.approx(expected, abs=1e-5)


def test_neighbours_help_to_choose_between_estimates_that_promise_the_same(
    undo: NonBlindDeconvolution,
) -> None:
    doubtful, sure = made([SLOPE, LINE], [1.1, 1]), made([LINE, LINE], [1, 1])

    def chosen(voice: float, *others: Estimates) -> Tensor:
        near = [[1, 2], [0, 2], [0, 1]]
        return selection(undo, voice=voice).chosen([doubtful, *others], near, 0)[0].kernel

    assert torch.equal(chosen(0, sure, sure), SLOPE)
    assert torch.equal(chosen(0.3, sure, sure), LINE)
    assert torch.equal(chosen(0.3, doubtful, doubtful), SLOPE)  # they found both


@pytest.mark.parametrize("sides", [(48, 48), (99, 145)])
def test_sides_that_no_network_takes_come_back_as_they_were(
    undo: NonBlindDeconvolution, sides: tuple[int, int]
) -> None:
    sharp = photo("coffee", *sides)
    kernel = shake(2, 9)
    blurry = taken(sharp, kernel, 0.004)
    image, better = undo(batch(blurry.transpose(2, 0, 1)), batch(kernel), [2.2])
    assert image.shape == (1, 3, *sides)
    assert better.shape == (1, 1, *(-(-side // 16) * 2 for side in sides))
    restored = image[0].permute(1, 2, 0).numpy()
    assert psnr(restored, sharp) > psnr(blurry, sharp)
