"""Which light and which kernel the estimates of a photo's windows speak for."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from blurkit.systems.deconvolution.choice import KernelSelection, copied
from blurkit.systems.deconvolution.config import WindowOptions
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded, resized_kernels, trimmed
from blurkit.systems.deconvolution.nonblind import NonBlindDeconvolution
from blurkit.systems.deconvolution.photo import Deconvolution, shipped_estimator
from blurkit.systems.deconvolution.windows import Estimates, SelectedKernel, supported, unlike
from tests.systems.deconvolution.photos import batch, photo, psnr, shake, taken

PHOTOS = ("astronaut", "coffee", "chelsea")


@pytest.fixture
def undo(deconvolution: Deconvolution) -> NonBlindDeconvolution:
    return deconvolution.undo


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
    ends = [
        [choice.in_light(window, None, number, {})[1] for number in (0, 1)]
        for window in windows(light)
    ]
    assert all([end.gamma for end in each] == [2.2, 1.0] for each in ends)
    assert choice.o.gammas[choice.light([[end.gain for end in each] for each in ends])] == light


def test_windows_found_together_are_as_if_alone(undo: NonBlindDeconvolution) -> None:
    choice = selection(undo)
    parts = windows(2.2)
    for part, own in zip(parts, choice.from_dots(parts, 0), strict=True):
        alone = choice.starts(part, 0, alone=False)
        assert float(kernel_agreement(own.kernels[0], alone.kernels[0])) > 0.98
        torch.testing.assert_close(own.agreement, alone.agreement, atol=0.02, rtol=0)
        np.testing.assert_allclose(own.better, alone.better, atol=0.02)


def bars(width: int) -> list[np.ndarray]:
    """Two scenes (256, 256, 3) with edges in one direction each, so many pixels apart at least."""
    row = np.random.default_rng(0).integers(0, 2, 256 // width).repeat(width) * 0.8 + 0.1
    upright = np.broadcast_to(row[None, :, None], (256, 256, 3))
    return [upright, upright.swapaxes(0, 1)]


@pytest.mark.parametrize("light", [2.2, pytest.param(1.0, marks=pytest.mark.slow)])
def test_windows_tell_light_by_what_they_share(undo: NonBlindDeconvolution, light: float) -> None:
    """From a dot alone, both promise as much in the usual light."""
    choice = selection(undo)
    parts = [taken(scene, shake(3, 21), 0.004, light) for scene in bars(8)]
    shared = {number: choice.shared(parts, number) for number in (0, 1)}
    usual, other = (
        np.mean([choice.in_light(part, None, number, shared)[1].gain for part in parts])
        for number in (0, 1)
    )
    assert (usual - other if light == 2.2 else other - usual) > 0.04


def test_windows_share_a_kernel(undo: NonBlindDeconvolution) -> None:
    """Of equal windows it is that of one; of windows with edges in few directions, a better one."""
    choice, (sharp, true) = selection(undo), (photo("astronaut"), shake(5, 17))
    blurry = taken(sharp, true, 0.004)
    own = choice.starts(blurry, 0, alone=False)
    shared, sure = choice.shared([blurry] * 3, 0)
    torch.testing.assert_close(shared, own.kernels, atol=2e-3, rtol=0.05)
    torch.testing.assert_close(sure, own.agreement, atol=0.02, rtol=0)

    parts = [taken(scene, true, 0.004) for scene in bars(4)]
    shared, sure = choice.shared(parts, 0)
    found = [choice.starts(part, 0, alone=False) for part in parts]
    wanted = resized_kernels(padded(batch(true)[0], 41)[None], 21)[0]
    alone = [float(kernel_agreement(each.kernels[0], wanted)) for each in found]
    assert float(kernel_agreement(shared[0], wanted)) > max(alone) + 0.1
    both = choice.joined(parts[0], found[0], (shared, sure), 0)
    assert torch.equal(both.kernels, torch.cat([found[0].kernels, shared]))
    assert both.agreement[1] == sure and len(both.better) == 2


def test_the_usual_light_is_left_only_for_one_that_is_clearly_better(
    undo: NonBlindDeconvolution,
) -> None:
    choice = selection(undo, doubt=0.2)

    def light(*others: float) -> float:
        return choice.o.gammas[choice.light([[1, 1 + other] for other in others])]

    assert light(0.25) == 2.2 and light(0.27) == 1  # a fifth of it, and of `LITTLE`
    assert light(0.8, 0, 0.1) == 2.2  # what one window among three says may be chance
    assert light(0.5, 0.5, -0.9) == 1


def test_a_kernel_is_refined_by_what_the_whole_network_restores(
    undo: NonBlindDeconvolution,
) -> None:
    choice, sharp = selection(undo), photo("coffee", 256)
    blurry = taken(sharp, shake(7, 25), 0.004)
    (found,) = choice.refined([blurry], [finished(choice, blurry)])
    assert restored(undo, blurry, sharp, found) > 30.4  # by turns alone 29.4


def test_windows_under_one_blur_refine_their_kernels_together(
    undo: NonBlindDeconvolution,
) -> None:
    choice, kernel = selection(undo), shake(1, 31)
    sharp = [photo(name, 256) for name in PHOTOS]
    blurry = [taken(each, kernel, 0.008) for each in sharp]
    found = [finished(choice, each) for each in blurry]
    alone = [choice.refined([each], [own])[0] for each, own in zip(blurry, found, strict=True)]
    together = choice.refined(blurry, found)
    for first, second in zip(alone, together, strict=True):
        assert second.gain >= first.gain

    def mean(ends: list[SelectedKernel]) -> float:
        every = zip(blurry, sharp, ends, strict=True)
        return float(np.mean([restored(undo, *each) for each in every]))

    assert mean(together) > mean(alone) + 0.5  # 28.7 alone, 29.5 together


def test_windows_under_different_blur_refine_their_kernels_alone(
    undo: NonBlindDeconvolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    choice, kernels = selection(undo), [shake(3, 25), shake(7, 25), shake(1, 31)]
    blurry = [taken(photo(name, 256), k, 0.008) for name, k in zip(PHOTOS, kernels, strict=True)]
    found = [finished(choice, each) for each in blurry]
    gains, tried = choice.gains, []

    def counted(photos: np.ndarray, kernels: Tensor, gamma: float) -> np.ndarray:
        tried.append(len(kernels))
        return gains(photos, kernels, gamma)

    monkeypatch.setattr(choice, "gains", counted)
    choice.refined(blurry, found)
    assert tried == [1, 1, 1]  # with those of others, three each


def test_an_l0_kernel_starts_estimates_where_the_first_are_unsure(
    undo: NonBlindDeconvolution,
) -> None:
    choice, sharp = selection(undo), photo("chelsea", 256)
    blurry = taken(sharp, shake(2, 19), 0.012)  # from a dot, or an L0 kernel of 15 pixels: 24.6
    assert restored(undo, blurry, sharp, finished(choice, blurry)) > 28


def finished(choice: KernelSelection, blurry: np.ndarray) -> SelectedKernel:
    """The kernel that turns find in a window, in the usual light."""
    found = choice.starts(blurry, 0)
    return choice.finished(blurry, found, found.best, 0)


def restored(
    undo: NonBlindDeconvolution, blurry: np.ndarray, sharp: np.ndarray, found: SelectedKernel
) -> float:
    """PSNR in dB of a window without the blur of a kernel."""
    inputs = batch(blurry.transpose(2, 0, 1))
    image, _ = undo(inputs, trimmed(found.kernel[None]), [found.gamma])
    return psnr(image[0].permute(1, 2, 0).cpu().numpy(), sharp, 24)


def test_the_true_kernel_promises_more_in_its_light(undo: NonBlindDeconvolution) -> None:
    kernels = batch(shake(3, 17)).expand(2, -1, -1)
    for window in windows(2.2):
        photos = batch(window.transpose(2, 0, 1)).expand(2, -1, -1, -1)
        _, better = undo(photos, kernels, [2.2, 1.0])
        assert better[0].mean() > better[1].mean()


@pytest.mark.slow
def test_a_long_blur_is_found_in_small_copies(undo: NonBlindDeconvolution) -> None:
    choice = selection(undo, gammas=(2.2,))
    true, sharp = shake(1, 71), photo("coffee", 400, 600).astype(np.float32)
    blurry, sizes = taken(sharp, true, 0.004), choice.o.long_sizes(sharp.shape[:2])

    def ends(image: np.ndarray) -> list[SelectedKernel]:
        copies = [copied(image, size) for size in sizes]
        found = [choice.starts(copy, 0) for copy in copies]
        best = [int(each.better.argmax()) for each in found]
        return [choice.finished(*inputs, 0) for inputs in zip(copies, found, best, strict=True)]

    found = ends(blurry)
    best = sizes.index(93)  # 61 pixels do not hold it
    assert found[best].gain > 0.15
    kernel = choice.enlarged(blurry, found[best], sizes[best]).kernel
    side = max(kernel.shape[0], 71)
    assert float(kernel_agreement(padded(kernel, side), padded(batch(true)[0], side))) > 0.7
    assert max(end.gain for end in ends(sharp)) < 0.15
    assert not choice.o.long_sizes((200, 200))  # windows see all of it


@pytest.mark.parametrize(
    ("name", "seed", "sure", "count"), [("chelsea", 5, 2.0, 3), ("coffee", 2, 0.9, 1)]
)
def test_of_the_estimates_one_with_a_good_picture_is_chosen(
    undo: NonBlindDeconvolution, name: str, seed: int, sure: float, count: int
) -> None:
    sharp, true = photo(name), shake(seed, 17)
    blurry = taken(sharp, true, 0.004)
    choice = selection(undo, sure=sure)
    found = choice.starts(blurry, 0)
    assert found.kernels.shape == (count, 21, 21)
    (best,) = choice.chosen([found], [[]])
    ends = [choice.finished(blurry, found, number, 0) for number in range(count)]
    kernels = torch.stack([end.kernel for end in ends])
    assert kernels.shape == (count, 41, 41)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(count), atol=1e-4, rtol=0)
    photos = torch.from_numpy(blurry).permute(2, 0, 1).expand(count, -1, -1, -1)
    results, _ = undo(photos, kernels, [2.2] * count)
    scores = [psnr(result.permute(1, 2, 0).numpy(), sharp) for result in results]
    assert scores[best] > max(scores) - 0.5 and scores[best] > psnr(blurry, sharp) + 3
    assert float(kernel_agreement(kernels[best], padded(batch(true)[0], 41))) > 0.85
    if count == 2:
        agreed = float(kernel_agreement(found.kernels[best], found.kernels[1 - best]))
        assert 0.5 < 2 * ends[best].trust - agreed < 1  # what the estimator expects of itself
    else:
        assert found.agreement[0] > 0.9 and found.better[0] > 0.15


def test_a_small_window_has_small_kernels(undo: NonBlindDeconvolution) -> None:
    choice, true = selection(undo), shake(1, 13)
    for side, size in ((96, 31), (48, 15)):
        blurry = taken(photo("coffee", side, side), true, 0.004)
        found = choice.starts(blurry, 0)
        (best,) = choice.chosen([found], [[]])
        kernel = choice.finished(blurry, found, best, 0).kernel
        assert kernel.shape == (size, size)
        if side > 48:
            assert float(kernel_agreement(kernel, padded(batch(true)[0], size))) > 0.75


LINE, SLOPE = torch.zeros(25, 25), torch.eye(25) / 25
LINE[12] = 1 / 25
ALIKE = float(kernel_agreement(LINE[None], SLOPE[None]))


def made(kernels: list[Tensor], better: list[float]) -> Estimates:
    return Estimates(torch.stack(kernels), torch.full((2,), ALIKE), np.array(better, float))


def test_a_third_of_the_trust_is_the_agreement_with_neighbours() -> None:
    found = [SelectedKernel(kernel, 2.2, 0.6, 1) for kernel in (LINE, SLOPE, LINE)]

    def trusts(*near: list[int]) -> list[float]:
        return [own.trust for own in supported(found, near)]

    mixed = (1 + ALIKE) / 2
    assert trusts([], [], []) == pytest.approx([0.6] * 3)
    assert trusts([1], [0], []) == pytest.approx([0.4 + ALIKE / 3] * 2 + [0.6], abs=1e-5)
    all_round = [0.4 + agreed / 3 for agreed in (mixed, ALIKE, mixed)]
    assert trusts([1, 2], [0, 2], [0, 1]) == pytest.approx(all_round, abs=1e-5)


def test_neighbours_help_to_choose_between_estimates_that_promise_the_same(
    undo: NonBlindDeconvolution,
) -> None:
    doubtful, sure = made([SLOPE, LINE], [1.1, 1]), made([LINE, LINE], [1, 1])

    def chosen(voice: float, *others: Estimates) -> int:
        near = [[1, 2], [0, 2], [0, 1]]
        return selection(undo, voice=voice).chosen([doubtful, *others], near)[0]

    assert chosen(0, sure, sure) == 0
    assert chosen(0.3, sure, sure) == 1
    assert chosen(0.3, doubtful, doubtful) == 0  # they found both


def test_of_kernels_of_print_those_are_tried_that_others_are_like() -> None:
    kernels = {1.1: SLOPE, 1.0: LINE, 0.9: 0.9 * LINE + 0.1 * SLOPE, 0.95: LINE}
    starts = [made([kernel] * 2, [promised] * 2)[:1] for promised, kernel in kernels.items()]

    def tried(voice: float, starts: list[Estimates]) -> list[float]:
        return [float(each.better[0]) for each in unlike(starts, voice)]

    assert tried(0, starts) == [1.1, 1.0]
    assert tried(2, starts) == [1.0, 1.1]
    assert tried(2, starts[1:]) == [1.0]


def test_print_has_one_light_in_all_of_a_photo(undo: NonBlindDeconvolution) -> None:
    choice, true = selection(undo), padded(batch(shake(1, 17))[0], 41)
    page = taken(np.repeat(photo("page", 144, 144)[..., None], 3, 2), true.numpy())
    wrong = SelectedKernel(padded(LINE, 41), 1.0, 0.7, 9.0)
    best = choice.readable(page, wrong, SelectedKernel(true, 2.2, 0.7, 0.0))
    assert best.gamma == 2.2 and 0.2 < best.gain < 9
    assert float(kernel_agreement(best.kernel, true)) > 0.9


def test_of_kernels_of_print_that_promise_alike_the_trusted_one_is_taken(
    undo: NonBlindDeconvolution,
) -> None:
    choice, page = selection(undo), np.zeros((96, 96, 3), np.float32)
    choice.gains = lambda *_: np.array([0.5, 0.48])  # type: ignore[method-assign]
    for trust, taken_one in ((0.8, SLOPE), (0.7, LINE)):
        found, other = SelectedKernel(LINE, 2.2, 0.7, 0.5), SelectedKernel(SLOPE, 2.2, trust, 0.5)
        assert choice.readable(page, found, other).kernel.equal(taken_one)


@pytest.mark.parametrize("sides", [(48, 48), (99, 145)])
def test_sides_that_no_network_takes_come_back_as_they_were(
    undo: NonBlindDeconvolution, sides: tuple[int, int]
) -> None:
    sharp, kernel = photo("coffee", *sides), shake(2, 9)
    blurry = taken(sharp, kernel, 0.004)
    image, better = undo(batch(blurry.transpose(2, 0, 1)), batch(kernel), [2.2])
    assert image.shape == (1, 3, *sides)
    assert better.shape == (1, 1, *(-(-side // 16) * 2 for side in sides))
    assert psnr(image[0].permute(1, 2, 0).numpy(), sharp) > psnr(blurry, sharp)
