"""Which light and which size of kernel the estimates of a photo's windows speak for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from blurkit.systems.deconvolution.choice import Choice, Estimates, Undoing, oddness
from blurkit.systems.deconvolution.config import Shake
from blurkit.systems.deconvolution.deblurring import deconvolution_network
from blurkit.systems.deconvolution.kernels import agreement, padded
from blurkit.weights.shipped import load_shipped
from tests.systems.deconvolution.photos import batch, photo, psnr, shake, taken

PHOTOS = ("astronaut", "coffee", "chelsea")


@pytest.fixture(scope="module")
def undo() -> Undoing:
    """That of the weights that come with blurkit."""
    return Undoing(deconvolution_network(load_shipped("deconvolution")), "cpu", "fp32")


def windows(light: float) -> list[np.ndarray]:
    """Windows of three photos, blurred by one kernel in that light."""
    return [taken(photo(name, 256), shake(3, 17), 0.004, light) for name in PHOTOS]


@pytest.mark.parametrize(("light", "index"), [(2.2, 0), (1.0, 1)])
def test_photos_tell_together_in_which_light_they_were_blurred(
    undo: Undoing, light: float, index: int
) -> None:
    choice = Choice(undo, Shake())
    found = [choice.in_every_light(window) for window in windows(light)]
    assert choice.light(found) == index
    for estimates in found:
        assert estimates.kernels.shape == (2, 41, 41) and (estimates.oddness > 0).all()


def test_the_usual_light_is_left_only_for_one_that_is_clearly_better(undo: Undoing) -> None:
    choice = Choice(undo, Shake(doubt=0.2))
    kernels = torch.full((2, 3, 3), 1 / 9)

    def light(*others: float) -> int:
        return choice.light([Estimates(kernels, np.exp([0, other])) for other in others])

    assert light(-0.19) == 0 and light(-0.21) == 1
    assert light(-0.9, 0.1, 0) == 0  # one window among three is not enough
    assert light(-0.3, -0.25, 0.5) == 1


def test_the_true_kernel_is_less_odd_in_its_light() -> None:
    kernels = batch(shake(3, 17))
    for window in windows(2.2):
        grey = torch.from_numpy(window).mean(2)[None]
        assert oddness(grey, kernels, 2.2) < oddness(grey, kernels, 1.0) * np.exp(0.16)


@pytest.mark.parametrize(("name", "seed"), [("chelsea", 5), ("coffee", 2)])
def test_a_small_blur_is_not_taken_for_a_large_one(undo: Undoing, name: str, seed: int) -> None:
    kernel = shake(seed, 9)
    window = taken(photo(name), kernel, 0.004)
    choice = Choice(undo, Shake())
    found = choice.in_every_light(window)
    best, _ = choice.best(window, found, 0)
    true = padded(batch(kernel), 41)
    assert best.shape == (41, 41) and best.sum() == pytest.approx(1, abs=1e-4)
    assert float(agreement(best[None], true)) > float(agreement(found.kernels[:1], true))


def test_trust_is_how_far_the_other_light_and_the_other_sizes_agree(undo: Undoing) -> None:
    window = taken(photo("coffee"), shake(3, 17), 0.004)
    choice = Choice(undo, Shake(kernel_sizes=(25, 17)))
    found = choice.in_every_light(window)
    best, trust = choice.best(window, found, 0)
    assert Shake().trust < trust <= 1
    line = torch.zeros(25, 25)
    line[12] = 1 / 25
    other, doubtful = choice.best(window, replace(found, kernels=torch.stack([best, line])), 0)
    again, sure = choice.best(window, replace(found, kernels=torch.stack([best, best])), 0)
    torch.testing.assert_close(other, again)
    missing = 1 - float(agreement(best[None], line[None]))
    assert sure - doubtful == pytest.approx(missing / 2, abs=0.02)


@pytest.mark.parametrize("sides", [(48, 48), (99, 145)])
def test_sides_that_no_network_takes_come_back_as_they_were(
    undo: Undoing, sides: tuple[int, int]
) -> None:
    sharp = photo("coffee", *sides)
    kernel = shake(2, 9)
    blurry = taken(sharp, kernel, 0.004)
    image, better = undo(batch(blurry.transpose(2, 0, 1)), batch(kernel), [2.2])
    assert image.shape == (1, 3, *sides)
    assert better.shape == (1, 1, *(-(-side // 16) * 2 for side in sides))
    restored = image[0].permute(1, 2, 0).numpy()
    assert psnr(restored, sharp) > psnr(blurry, sharp)
