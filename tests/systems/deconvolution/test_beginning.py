"""Blind searches that start from the estimated blur: where they start, and what records keep."""

from functools import partial

import numpy as np
import pytest
import torch

from blurkit.io.records import Record
from blurkit.systems.blind_search import TiledSearch, run_searches
from blurkit.systems.deconvolution.fourier import kernel_agreement, padded
from blurkit.systems.deconvolution.inference import WindowDeblurring, search_start
from blurkit.systems.deconvolution.photo import Deconvolution
from blurkit.systems.kernel_space.objective import SearchContext
from blurkit.systems.kernel_space.search import Search, advance
from blurkit.systems.search_options import SearchOptions
from blurkit.systems.uses import Estimate, Estimator, network_for
from tests.systems.deconvolution.photos import batch, photo, psnr, shake, taken
from tests.systems.kernel_space.searches import continued, kernel_checkpoint

KERNEL, SIDE = shake(1, 15), 25


@pytest.fixture(scope="module")
def estimator(deconvolution: Deconvolution) -> Estimator:
    """What the weights that come with blurkit find, kernels up to 21 pixels."""
    return partial(search_start, WindowDeblurring(deconvolution, ""))


@pytest.fixture(scope="module")
def shaken() -> np.ndarray:
    """A photo that a shaken camera took, (200, 210, 3)."""
    return taken(photo("coffee", 200, 210), KERNEL)


@pytest.fixture(scope="module")
def estimate(estimator: Estimator, shaken: np.ndarray) -> Estimate:
    return estimator(shaken)


SMALL = {"prior_width": 8, "warm_up": 2, "iterations": 4, "kernel_size": SIDE}


def context(
    estimator: Estimator, operator: str = "convolution", **options: object
) -> SearchContext:
    """A short search that starts from the estimate."""
    chosen = SearchOptions.resolve(operator=operator, start_estimate=True, **SMALL | options)
    network = network_for("search", kernel_checkpoint()) if operator == "kernel-space" else None
    return SearchContext(chosen, network, device="cpu", precision="fp32", estimator=estimator)


def job(image: np.ndarray, shared: SearchContext) -> TiledSearch:
    return TiledSearch(Record("photo", {"blur": image}), shared)


def begun(job: TiledSearch) -> Search:
    (search,) = job.searches
    search.begin()
    return search


def test_the_estimate_is_blur_and_photo_without_it(estimate: Estimate, shaken: np.ndarray) -> None:
    sharp = photo("coffee", 200, 210)
    assert estimate.believed and estimate.trust >= 0.6
    assert float(kernel_agreement(estimate.kernel[None], batch(KERNEL))) > 0.7
    assert estimate.kernel.sum() == pytest.approx(1, abs=1e-5)
    assert estimate.picture.min() >= 0 and estimate.picture.max() <= 1
    picture = estimate.picture[0].permute(1, 2, 0).numpy()
    assert psnr(picture, sharp, 20) > psnr(shaken, sharp, 20) + 1


def test_nothing_is_believed_of_a_photo_that_is_too_small(estimator: Estimator) -> None:
    image = photo("astronaut", 40, 60).astype(np.float32)
    found = estimator(image)
    assert not found.believed and found.trust == 0
    assert np.array_equal(found.picture[0].permute(1, 2, 0).numpy(), image)


def test_the_first_kernel_is_the_estimate(
    estimator: Estimator, estimate: Estimate, shaken: np.ndarray
) -> None:
    search = begun(job(shaken, context(estimator, warm_up=0)))
    assert search.started and search.kind == "joint"
    _, blur = search.generate("joint")
    wanted = padded(estimate.kernel, SIDE)
    assert blur.shape == (1, 1, SIDE, SIDE)
    assert (blur[0, 0] - wanted).abs().sum() < 0.05
    assert float(kernel_agreement(blur[:, 0].detach(), wanted[None])) > 0.999
    advance([search])
    assert float(kernel_agreement(search.found.blur[:, 0], wanted[None])) > 0.999


def test_the_first_code_is_what_g_makes_of_it(estimate: Estimate, shaken: np.ndarray) -> None:
    shared = context(lambda image: estimate, "kernel-space", warm_up=0, step_noise=0.0)
    search = begun(job(shaken, shared))
    assert search.started and search.kind == "joint"  # no warm-up of the blur
    assert search.estimate is not None and search.estimate.picture.shape == (1, 3, 256, 256)
    code = shared.operator.network.encode(search.estimate.picture, search.photo)[0]
    _, blur = search.generate("joint")
    assert blur.shape == code.shape and code.std() > 0
    assert (blur - code).abs().max() < 1e-3 * code.abs().max()


def test_the_image_nears_that_of_the_estimate(estimate: Estimate, shaken: np.ndarray) -> None:
    search = begun(job(shaken, context(lambda image: estimate, warm_up=30)))
    target, margin = search.estimate.picture, SIDE // 2

    def far() -> float:
        with torch.no_grad():
            image = search.image(search.source)[..., margin:-margin, margin:-margin]
        return float((image - target).abs().mean())

    before = far()
    while search.kind == "image warm-up":
        advance([search])
    assert far() < 0.5 * before


def test_with_restarts_each_turn_starts_from_the_estimate(
    estimator: Estimator, estimate: Estimate, shaken: np.ndarray
) -> None:
    turns = {"search": "alternating", "restart_blur": True, "kernel_steps": 2, "kernel_rate": 0.05}
    search = begun(job(shaken, context(estimator, warm_up=0, **turns)))
    wanted = padded(estimate.kernel, SIDE)[None]
    alike = []
    for _ in range(5):  # two steps of the blur, one of the image, two of the next blur
        kind = search.kind
        if kind == "blur":
            alike.append(float(kernel_agreement(search.generate("blur")[1][:, 0].detach(), wanted)))
        advance([search])
    assert alike[0] > 0.999 and alike[2] > 0.999
    assert alike[1] < 0.99 and alike[3] < 0.99


def test_without_trust_it_starts_as_usual(estimator: Estimator) -> None:
    image = taken(photo("astronaut", 40, 60), np.full((1, 5), 1 / 5))
    told: list[str] = []
    (done,) = run_searches([job(image, context(estimator, warm_up=0))], warn=told.append)
    line, high = told
    assert high.startswith("photo: image and blur reproduce the photo with only")
    assert line == "photo: no estimated blur is believed (trust 0.00); the search starts as usual"
    attrs = done.result("test").attrs
    assert attrs["blind_started"] == 0 and attrs["blind_trust"] == 0
    usual = SearchOptions.resolve(operator="convolution", **SMALL | {"warm_up": 0})
    plain = job(image, SearchContext(usual, device="cpu", precision="fp32"))
    (finished,) = run_searches([plain])
    assert torch.equal(finished.searches[0].found.picture, done.searches[0].found.picture)
    assert "blind_started" not in finished.result("test").attrs


def test_a_kernel_that_is_too_large_is_told(
    estimator: Estimator, estimate: Estimate, shaken: np.ndarray
) -> None:
    (search,) = job(shaken, context(estimator, kernel_size=5)).searches
    told: list[str] = []
    search.begin(told.append)
    needed = f"--kernel-size {estimate.kernel.shape[-1]}"
    assert told == [f"photo: the estimated blur needs {needed}; the search starts as usual"]
    assert not search.started


@pytest.mark.parametrize("operator", ["convolution", "kernel-space"])
def test_a_seed_gives_the_same_bits(estimate: Estimate, shaken: np.ndarray, operator: str) -> None:
    shared = context(lambda image: estimate, operator)
    found = [next(run_searches([job(shaken, shared)])).result("test") for _ in range(2)]
    assert np.array_equal(found[0].images["restored"], found[1].images["restored"])
    for record in found:
        assert record.attrs["blind_started"] == 1 and record.attrs["blind_trust"] >= 0.6
        assert record.attrs["restored_with"].split(" precision")[0].endswith("start=estimate")


@pytest.mark.parametrize("operator", ["convolution", "kernel-space"])
def test_a_state_goes_on_bit_for_bit(estimate: Estimate, shaken: np.ndarray, operator: str) -> None:
    def never(image: np.ndarray) -> Estimate:
        raise AssertionError("what is resumed is not estimated again")

    (whole,) = run_searches([job(shaken, context(lambda image: estimate, operator))])
    wanted = whole.searches[0].found
    for steps in (1, 4):
        first = partial(job, shaken, context(lambda image: estimate, operator))
        rest = partial(job, shaken, context(never, operator))
        finished = continued(first, steps, rest)
        assert torch.equal(finished.searches[0].found.picture, wanted.picture)
        assert finished.searches[0].found.terms == wanted.terms
        assert finished.result("test").attrs["blind_started"] == 1
