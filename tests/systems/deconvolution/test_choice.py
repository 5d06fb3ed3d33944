"""Which light and which size of kernel the estimates of a photo's windows speak for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import Tensor

from blurkit.systems.deconvolution.choice import Estimates, KernelSelection, NonBlindDeconvolution
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.system import load_shipped
from blurkit.systems.uses import network_for
from tests.systems.deconvolution.photos import batch, photo, psnr, shake, taken

PHOTOS = ("astronaut", "coffee", "chelsea")


@pytest.fixture(scope="module")
def undo() -> NonBlindDeconvolution:
    """That of the weights that come with blurkit."""
    return NonBlindDeconvolution(
        network_for("deconvolving", load_shipped("deconvolution")), "cpu", "fp32"
    )


def windows(light: float) -> list[np.ndarray]:
    """Windows of three photos, blurred by one kernel in that light."""
    return [taken(photo(name, 256), shake(3, 17), 0.004, light) for name in PHOTOS]


@pytest.mark.parametrize("light", [2.2, pytest.param(1.0, marks=pytest.mark.slow)])
def test_photos_tell_together_in_which_light_they_were_blurred(
    undo: NonBlindDeconvolution, light: float
) -> None:
    choice = KernelSelection(undo, WindowOptions())
    found = [choice.estimates(window) for window in windows(light)]
    for estimates in found:
        assert estimates.kernels.shape == (2, 2, 41, 41) and estimates.better.shape == (2, 2)
    assert [best.gamma for best in choice.chosen(found, [[]] * 3)] == [light] * 3


def test_the_usual_light_is_left_only_for_one_that_is_clearly_better(
    undo: NonBlindDeconvolution,
) -> None:
    choice = KernelSelection(undo, WindowOptions(doubt=0.2))

    def light(*others: float) -> float:
        kernels = [[line(12)], [line(12)]]
        found = [made(kernels, [[1], [1 + other]]) for other in others]
        return choice.chosen(found, [[]] * len(others))[0].gamma

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
    choice = KernelSelection(undo, WindowOptions(gammas=(2.2,)))
    true, sharp = shake(1, 71), photo("coffee", 400, 600).astype(np.float32)
    found = choice.whole(taken(sharp, true, 0.004))
    assert found is not None and found.gain > 0.15
    size = max(found.kernel.shape[0], 71)
    kernel, wanted = padded(found.kernel, size), padded(batch(true)[0], size)
    assert float(kernel_agreement(kernel, wanted)) > 0.7
    assert choice.whole(sharp) is None
    assert choice.whole(sharp[:200, :200]) is None  # windows see all of it


@pytest.mark.parametrize(("name", "seed"), [("chelsea", 5), ("coffee", 2)])
def test_of_two_sizes_the_one_with_the_better_picture_is_chosen(
    undo: NonBlindDeconvolution, name: str, seed: int
) -> None:
    sharp = photo(name)
    blurry = taken(sharp, shake(seed, 9), 0.004)
    choice = KernelSelection(undo, WindowOptions(gammas=(2.2,)))
    found = choice.estimates(blurry)
    (best,) = choice.chosen([found], [[]])
    assert best.kernel.shape == (41, 41) and best.kernel.sum() == pytest.approx(1, abs=1e-4)
    photos = torch.from_numpy(blurry).permute(2, 0, 1).expand(2, -1, -1, -1)
    results, _ = undo(photos, found.kernels[0], [2.2, 2.2])
    scores = [psnr(result.permute(1, 2, 0).numpy(), sharp) for result in results]
    assert torch.equal(best.kernel, found.kernels[0, int(np.argmax(scores))])
    assert max(scores) > psnr(blurry, sharp) + 3


def test_one_size_of_kernels_is_enough(undo: NonBlindDeconvolution) -> None:
    choice = KernelSelection(undo, WindowOptions(kernel_sizes=(25,)))
    found = choice.estimates(taken(photo("coffee", 256), shake(1, 17), 0.004))
    assert found.kernels.shape == (2, 1, 25, 25)
    (best,) = choice.chosen([found], [[]])
    assert float(kernel_agreement(best.kernel[None], padded(batch(shake(1, 17)), 25))) > 0.75


def line(row: int) -> Tensor:
    kernel = torch.zeros(25, 25)
    kernel[row] = 1 / 25
    return kernel


LINE, SLOPE = line(12), torch.eye(25) / 25
ALIKE = float(kernel_agreement(LINE[None], SLOPE[None]))


def made(kernels: list[list[Tensor]], better: list[list[float]]) -> Estimates:
    stacked = torch.stack([torch.stack(sizes) for sizes in kernels])
    return Estimates(stacked, np.array(better, float))


def test_trust_is_how_far_the_other_light_the_other_size_and_neighbours_agree(
    undo: NonBlindDeconvolution,
) -> None:
    choice = KernelSelection(undo, WindowOptions(voice=0))
    first = made([[LINE, SLOPE], [SLOPE, SLOPE]], [[2, 1], [0, 0]])
    second = made([[LINE, LINE], [SLOPE, LINE]], [[2, 1], [0, 0]])
    third = made([[LINE, SLOPE], [SLOPE, SLOPE]], [[1, 2], [0, 0]])

    def trusts(near: list[list[int]], *found: Estimates) -> list[float]:
        return [best.trust for best in choice.chosen(found, near)]

    assert trusts([[], []], first, second) == pytest.approx([ALIKE, 1], abs=1e-5)
    together = trusts([[1], [0]], first, second)
    assert together == pytest.approx([(2 * ALIKE + 1) / 3, 1], abs=1e-5)
    apart = trusts([[1, 2], [0, 2], [0, 1]], first, second, third)
    mixed = (1 + ALIKE) / 2
    expected = [(2 * ALIKE + mixed) / 3, (2 + mixed) / 3, (1 + 2 * ALIKE) / 3]
    assert apart == pytest.approx(expected, abs=1e-5)


def test_neighbours_help_to_choose_between_estimates_that_promise_the_same(
    undo: NonBlindDeconvolution,
) -> None:
    doubtful = made([[SLOPE, LINE]] * 2, [[1.1, 1], [0, 0]])
    sure = made([[LINE, LINE]] * 2, [[1, 1], [0, 0]])

    def chosen(voice: float, *others: Estimates) -> Tensor:
        near = [[1, 2], [0, 2], [0, 1]]
        return (
            KernelSelection(undo, WindowOptions(voice=voice))
            .chosen([doubtful, *others], near)[0]
            .kernel
        )

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


# ---- refinement ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["coffee", "astronaut"])
def test_a_kernel_that_is_nearly_right_becomes_better(
    undo: NonBlindDeconvolution, name: str
) -> None:
    true = padded(batch(shake(1, 17)), 41)[0]
    blurry = taken(photo(name, 256, 256), shake(1, 17))
    vague = torch.from_numpy(ndimage.gaussian_filter(true.numpy(), 1.5))
    refined = KernelSelection(undo, WindowOptions()).refined(blurry, vague, 2.2)
    before, after = (float(kernel_agreement(k[None], true[None])) for k in (vague, refined))
    assert after > before + 0.03
    assert refined.shape == vague.shape and float(refined.sum()) == pytest.approx(1, abs=1e-5)
    assert torch.equal(
        KernelSelection(undo, WindowOptions(rounds=0)).refined(blurry, vague, 2.2), vague
    )


@pytest.mark.parametrize("limit", [{"repeats": 0.0}, {"longest": 1.0}])
def test_a_kernel_stays_where_a_refinement_cannot_be_trusted(
    undo: NonBlindDeconvolution, limit: dict[str, float]
) -> None:
    blurry = taken(photo("coffee", 256, 256), shake(1, 17))
    short = padded(batch(ndimage.zoom(shake(1, 17), 0.5, order=1)), 41)[0]
    short = short / short.sum()
    assert not torch.equal(
        KernelSelection(undo, WindowOptions(longest=9)).refined(blurry, short, 2.2), short
    )
    assert torch.equal(
        KernelSelection(undo, WindowOptions(**limit)).refined(blurry, short, 2.2), short
    )


@pytest.mark.parametrize("given", ["true", "wrong"])
def test_a_refinement_never_promises_less(undo: NonBlindDeconvolution, given: str) -> None:
    blurry = taken(photo("coffee", 256, 256), shake(1, 17))
    kernel = padded(batch(shake(1, 17) if given == "true" else shake(3, 15)), 41)[0]
    both = torch.stack(
        [kernel, KernelSelection(undo, WindowOptions()).refined(blurry, kernel, 2.2)]
    )
    parts = batch(blurry.transpose(2, 0, 1)).expand(2, -1, -1, -1)
    before, after = undo(parts, both, [2.2, 2.2])[1].mean((1, 2, 3)).tolist()
    assert after >= before


def test_a_kernel_that_is_known_to_promise_more_stays(undo: NonBlindDeconvolution) -> None:
    blurry = taken(photo("coffee", 256, 256), shake(1, 17))
    true = padded(batch(shake(1, 17)), 41)[0]
    vague = torch.from_numpy(ndimage.gaussian_filter(true.numpy(), 1.5))
    choice = KernelSelection(undo, WindowOptions())
    better = choice.refined(blurry, vague, 2.2)
    parts = batch(blurry.transpose(2, 0, 1)).expand(2, -1, -1, -1)
    gains = undo(parts, torch.stack([vague, better]), [2.2, 2.2])[1].mean((1, 2, 3)).tolist()
    assert torch.equal(choice.refined(blurry, vague, 2.2, gains[0]), better)
    assert torch.equal(choice.refined(blurry, vague, 2.2, gains[1] + 0.01), vague)
