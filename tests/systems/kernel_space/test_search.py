"""The blind search: its steps against plain ones, and that it ends as it is said to."""

from __future__ import annotations

import copy
import io
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d
from torch import Tensor
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record
from blurkit.metrics.psnr import psnr
from blurkit.systems.blind_search import TiledSearch, run_searches
from blurkit.systems.kernel_space.objective import (
    OBJECTIVES,
    Objective,
    SearchContext,
    make_context,
)
from blurkit.systems.kernel_space.operators import Convolution, find_shift
from blurkit.systems.kernel_space.search import Search, advance, find_blur
from blurkit.systems.search_options import SearchOptions
from tests.systems.kernel_space.searches import context, photo, record, searched, shaken

# ---- the steps -----------------------------------------------------------------------------------


def plain_joint_search(search: Search, steps: int) -> list[Tensor]:
    """The images of joint steps as the equations say them, from where `search` stands."""
    image, blur = copy.deepcopy(search.image.network), copy.deepcopy(search.blur.network)
    z_x, z_k = search.image.noise.clone(), search.blur.noise.clone()
    network, y = search.context.operator.network, search.photo
    first = torch.optim.Adam(image.parameters(), 1e-2)
    second = torch.optim.Adam(blur.parameters(), 1e-2)
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    images = []
    for _ in range(steps):
        x, k = image(z_x), blur(z_k)
        images.append(x.detach())
        rho = ((network.blur(x, k) - y) ** 2 + 1e-6).sqrt().mean()
        gray = x.sum(1, keepdim=True)
        squares = sum(F.conv2d(gray, w[None, None], padding=1) ** 2 for w in (sobel, sobel.T))
        prior = (squares + 1e-6).sqrt().pow(0.66).mean()
        loss = rho + 0.1 * k.square().sum().sqrt() + 0.5 * prior
        first.zero_grad()
        second.zero_grad()
        loss.backward()
        first.step()
        second.step()
    return images


def test_joint_steps_are_those_of_equations_5_to_7() -> None:
    options = {"charbonnier": (1, 1), "code_norm": (0.1, 0.1), "gradient": (0.5, 0.5)}
    rates = {"image_rate": 1e-2, "kernel_rate": 1e-2, "rate_decay": 1.0}
    shared = context(
        "kernel-space", step_noise=0.0, warm_up=0, start_gaussian=0.0, **options, **rates
    )
    job = TiledSearch(record(height=256, width=256), shared)
    (search,) = job.searches
    search.begin()
    plain = plain_joint_search(search, 3)
    for number, wanted in enumerate(plain):
        advance([search])
        # Adam steps by the gradient's sign at first, whatever its size, rounding included: what
        # that leads to grows tenfold with every step.
        moved = (wanted - plain[0]).abs().mean() if number else 1e-3
        assert (search.picture - wanted).abs().mean() < 0.01 * moved


@pytest.mark.parametrize(("down", "right"), [(0, 0), (3, -5), (-11, 2)])
def test_an_image_that_lies_elsewhere_than_its_photo_is_found(down: int, right: int) -> None:
    image = torch.from_numpy(photo(160, 192).astype(np.float32) / 255).permute(2, 0, 1)[None]
    blurry = F.avg_pool2d(image, 7, 1, 3).roll((down, right), (2, 3))
    assert find_shift(image, blurry) == (down, right)
    assert find_shift(torch.full_like(image, torch.nan), blurry)  # any, but no error


def test_an_image_that_wandered_off_comes_back_with_its_kernel() -> None:
    """A kernel off its middle, and an image moved the other way: both are put where they belong,
    and still blur to the same."""
    operator, image = Convolution(9), torch.rand(1, 3, 40, 48)
    blur = torch.zeros(1, 1, 9, 9)
    blur[0, 0, 1:4, 5:8] = 1 / 9  # about (2, 6)
    photo = torch.empty(1, 3, 32, 40)
    picture, kernel = operator.crop_to_photo(image, blur, photo)
    assert torch.equal(picture, image[..., 8 - 2 : 40 - 2, 8 - 6 : 48 - 6])
    assert kernel[0, 0, 3:6, 3:6].sum() == pytest.approx(1)
    blurred = operator.blur(image, blur)[0, 0].numpy()
    again = convolve2d(picture[0, 0].numpy(), kernel[0, 0].numpy(), "same")
    np.testing.assert_allclose(again[4:-4, 4:-4], blurred[4:-4, 4:-4], atol=1e-6)
    broken, _ = operator.crop_to_photo(image, torch.full_like(blur, torch.nan), photo)
    assert broken.shape == (1, 3, 32, 40)


def test_convolution_is_a_true_one_of_what_the_kernel_reaches() -> None:
    rng = np.random.default_rng(0)
    images, kernels = rng.random((2, 3, 20, 23)), rng.random((2, 1, 5, 5))
    blurred = Convolution(5).blur(torch.from_numpy(images), torch.from_numpy(kernels))
    for image, kernel, found in zip(images, kernels, blurred, strict=True):
        for channel in range(3):
            wanted = convolve2d(image[channel], kernel[0], mode="valid")
            np.testing.assert_allclose(found[channel].numpy(), wanted, atol=1e-10)


def test_learning_rates_fall_as_those_of_the_released_code() -> None:
    # Its StepLR moves before the step of each of 20 iterations, here in fifths.
    shared = context(iterations=20, warm_up=0, image_rate=0.5, kernel_rate=0.25, patience=0)
    (search,) = TiledSearch(record(), shared).searches
    search.begin()
    one = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([one], 0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.7)
    for _ in range(19):
        optimizer.step()
        schedule.step()
        advance([search])
        wanted = optimizer.param_groups[0]["lr"]
        assert search._image_optimizer is not None
        assert search._image_optimizer.param_groups[0]["lr"] == pytest.approx(wanted)
        assert search._blur_optimizer.param_groups[0]["lr"] == pytest.approx(wanted / 2)


def test_selfdeblur_has_its_released_loss_and_schedule() -> None:
    # Of 25 steps as of 5000: a fifth by squared distances, rates halved after 2, 3 and 4 fifths.
    shared = context(preset="selfdeblur", iterations=25, warm_up=0)
    (search,) = TiledSearch(record(), shared).searches
    search.begin()
    one = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.Adam([one], 1e-2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [9, 14, 19], 0.5)
    for step in range(24):
        image, blur = search.generate("joint")
        blurred = shared.operator.blur(image, blur)
        late, target = search.second_half, search.target(blurred)
        terms = shared.objective.terms(blurred, target, image, blur, late, None, None, None)
        (name,) = terms
        assert name == ("squared" if step < 5 else "similarity")
        wanted = (blurred - target).square().mean() if step < 5 else None
        assert wanted is None or terms[name].item() == pytest.approx(wanted.item())
        advance([search])
        assert search._image_optimizer is not None
        rates = [o.param_groups[0]["lr"] for o in (search._image_optimizer, search._blur_optimizer)]
        rate = optimizer.param_groups[0]["lr"]
        assert rates == pytest.approx([rate, rate / 100])
        optimizer.step()
        schedule.step()
    options = SearchOptions.resolve("selfdeblur")
    assert (options.operator, options.iterations, options.prior_width) == ("convolution", 5000, 128)
    assert (options.image_rate, options.kernel_rate) == (1e-2, 1e-4)
    assert options.switch_at * options.iterations == 1000


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_algorithm_1_searches_the_blur_anew_for_each_step_of_the_image() -> None:
    shared = context(preset="paper", kernel_steps=3, iterations=2, warm_up=0)
    (search,) = TiledSearch(record(), shared).searches
    search.begin()
    kinds, begun = [], []
    while not search.finished:
        kinds.append(search.kind)
        before, moved = weights(search.image), weights(search.blur)
        if len(kinds) > 1 and kinds[-2:] == ["image", "blur"]:
            begun.append(search.blur)
        advance([search])
        if kinds[-1] == "blur":
            assert same(before, weights(search.image))
        elif not search.finished:
            assert same(moved, weights(search.blur))
            assert not same(before, weights(search.image))
    assert kinds == 2 * ["blur", "blur", "blur", "image"]
    assert len(begun) == 1


def test_without_restarts_the_blur_goes_on_where_it_was() -> None:
    shared = context(search="alternating", kernel_steps=2, iterations=3, first_turn="image")
    (search,) = TiledSearch(record(), shared).searches
    search.begin()
    blur, kinds = search.blur, []
    while not search.finished:
        kinds.append(search.kind)
        advance([search])
        assert search.finished or search.blur is blur
    assert kinds == 2 * ["image warm-up"] + 3 * ["image", "blur", "blur"]


@pytest.mark.slow
def test_the_warm_up_nears_the_photo_and_the_start() -> None:
    shared = context(
        "kernel-space", warm_up=30, start_gaussian=1.5, image_rate=0.01, kernel_rate=0.01
    )
    (search,) = TiledSearch(record(height=256, width=256), shared).searches
    search.begin()
    assert search._start is not None

    def far() -> tuple[float, float]:
        with torch.no_grad():
            image, blur = search.image(search.source), search.blur(search.source)
        return (image - search.photo).std().item(), (blur - search._start).std().item()

    before = far()
    while search.kind.endswith("warm-up"):
        advance([search])
    after = far()
    assert after[0] < 0.8 * before[0] and after[1] < 0.5 * before[1]


def test_a_released_code_is_a_start(tmp_path: Path) -> None:
    code = torch.randn(1, 16, 2, 2)
    torch.save(code, tmp_path / "kernel.pth")
    shared = context("kernel-space", start_code_file=str(tmp_path / "kernel.pth"))
    start = shared.operator.starting_blur(torch.zeros(1, 3, 256, 384))
    assert start is not None and start.shape == (1, 16, 2, 3)
    # Between two places in the middle lies their mean; at the border is what was there.
    assert torch.allclose(start[..., 1], code.mean(3)) and torch.allclose(
        start[..., 0], code[..., 0]
    )


def test_the_half_decides_on_the_weights() -> None:
    shared = context(charbonnier=(1, 0), squared=(0, 1), gradient=(0, 1), warm_up=0, patience=0)
    (search,) = TiledSearch(record(), shared).searches
    search.begin()
    names = []
    for _ in range(6):
        late = search.second_half
        image, blur = search.generate("joint")
        blurred = shared.operator.blur(image, blur)
        terms = shared.objective.terms(
            blurred, search.target(blurred), image, blur, late, None, None, None
        )
        names.append(set(terms) - {"code_norm"})
        advance([search])
    assert names == 3 * [{"charbonnier"}] + 3 * [{"squared", "gradient"}]


def test_objectives_are_those_of_the_paper_and_of_the_released_code() -> None:
    paper = Objective.from_options(SearchOptions.resolve("paper"))
    assert paper == OBJECTIVES["paper"]
    official = Objective.from_options(SearchOptions.resolve("official"))
    assert official == OBJECTIVES["official"]
    style = Objective.from_options(SearchOptions.resolve("official", prior="stylegan"))
    assert style == Objective(code_norm=(1e-4, 1e-4), squared=(100, 100), geocross=(0.1, 0.1))
    given = Objective.from_options(
        SearchOptions.resolve("official", similarity=(0, 3), gradient_power=0.8)
    )
    assert given.similarity == (0, 3) and given.power == 0.8
    assert given.perceptual == (0.6, 1)


# ---- several -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "operator", ["convolution", pytest.param("kernel-space", marks=pytest.mark.slow)]
)
def test_two_together_end_as_each_alone(operator: str) -> None:
    shared = context(operator, iterations=4)
    records = [record("a"), record("b", top=90)]
    alone = [searched(TiledSearch(each, shared)).images["restored"] for each in records]
    jobs = [TiledSearch(each, shared) for each in records]
    together = [job.result("test").images["restored"] for job in run_searches(jobs, batch=2)]
    for one, other in zip(alone, together, strict=True):
        assert np.abs(one.astype(int) - other).max() <= 1
    assert np.abs(alone[0].astype(int) - alone[1]).mean() > 1


def test_a_seed_gives_one_picture_to_the_bit() -> None:
    pictures = [
        searched(TiledSearch(record(), context(seed=seed))).images["restored"] for seed in (1, 1, 2)
    ]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])


def test_what_is_searched_before_changes_nothing() -> None:
    shared = context()
    torch.manual_seed(0)
    first = searched(TiledSearch(record(), shared)).images["restored"]
    torch.manual_seed(1)
    searched(TiledSearch(record("other"), shared))
    assert np.array_equal(searched(TiledSearch(record(), shared)).images["restored"], first)


# ---- its end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"average_decay": 0.9}, marks=pytest.mark.slow),
        {"search": "alternating", "kernel_steps": 3, "restart_blur": True},
        {"prior": "stylegan", "image_steps": 2, "kernel_steps": 2, "iterations": 6},
    ],
)
def test_a_state_goes_on_bit_for_bit(options: dict[str, object]) -> None:
    def job() -> TiledSearch:
        return TiledSearch(record(), context(**options))

    whole = job()
    (search,) = whole.searches
    search.begin()
    steps = 0
    while not search.finished:
        advance([search])
        steps += 1
    for stop in (1, steps // 2, steps - 1):
        half = job()
        half.searches[0].begin()
        for _ in range(stop):
            advance(half.searches)
        file = io.BytesIO()
        torch.save(half.state_dict(), file)
        file.seek(0)
        rest = job()
        rest.load_state_dict(torch.load(file, weights_only=True))
        (finished,) = run_searches([rest])
        assert torch.equal(finished.searches[0].found.picture, search.found.picture)
        assert finished.searches[0].found.terms == search.found.terms


def test_the_state_of_another_photo_is_refused() -> None:
    shared = context()
    job = TiledSearch(record(), shared)
    with pytest.raises(BlurkitError, match="belongs to another photo"):
        TiledSearch(record(top=9), shared).load_state_dict(job.state_dict())


@pytest.mark.slow
def test_a_search_that_falls_no_more_ends() -> None:
    # Without a step there is nothing to gain; the second half begins with iteration 100.
    still = {"image_rate": 0.0, "kernel_rate": 0.0, "step_noise": 0.0, "warm_up": 0}
    result = searched(TiledSearch(record(), context(iterations=200, patience=30, **still)))
    assert 130 <= result.attrs["blind_iterations"] <= 150
    result = searched(TiledSearch(record(), context(iterations=160, patience=0, **still)))
    assert result.attrs["blind_iterations"] == 160


def test_the_average_follows_the_images() -> None:
    shared = context(average_decay=0.75, iterations=5, warm_up=0)
    (search,) = TiledSearch(record(), shared).searches
    search.begin()
    average: Tensor | None = None
    taken: list[Tensor] = []
    search.image.register_forward_hook(lambda module, given, image: taken.append(image.detach()))
    for _ in range(5):
        advance([search])
        image = taken[-1][:, :, 3:-3, 3:-3]
        average = image if average is None else 0.75 * average + 0.25 * image
        assert torch.allclose(search.picture, average, atol=1e-6)


@pytest.mark.parametrize("warm_up", [0, 3])
def test_a_diverged_search_keeps_its_last_good_picture(warm_up: int) -> None:
    job = TiledSearch(record(), context(image_rate=1e30, iterations=30, warm_up=warm_up))
    result = searched(job)
    found = job.searches[0].found
    assert result.attrs["blind_diverged"] > result.attrs["blind_iterations"]
    assert torch.isfinite(found.picture).all()
    if warm_up:  # nothing was ever good: the photo as it is
        assert np.array_equal(result.images["restored"], photo())
    else:
        assert math.isfinite(result.attrs["blind_objective"])
        assert not np.array_equal(result.images["restored"], photo())


def test_one_that_diverges_leaves_the_other_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    shared = context(iterations=12)
    bad, good = TiledSearch(record("bad"), shared), TiledSearch(record("good", top=90), shared)
    alone = searched(TiledSearch(record("good", top=90), shared)).images["restored"]
    bad.searches[0].begin()
    next(bad.searches[0].image.parameters()).data.fill_(math.nan)
    done = {job.record.name: job.result("test") for job in run_searches([bad, good], batch=2)}
    assert "blind_diverged" in done["bad"].attrs and "blind_diverged" not in done["good"].attrs
    assert np.abs(alone.astype(int) - done["good"].images["restored"]).max() <= 1


# ---- a StyleGAN ----------------------------------------------------------------------------------


def test_a_stylegan_is_searched_on_its_spheres() -> None:
    shared = context(prior="stylegan", image_steps=3, kernel_steps=2, iterations=9, noise_maps=4)
    (search,) = TiledSearch(record(), shared).searches
    search.begin()
    v = search.image.v.detach().clone()
    noises = [noise.detach().clone() for noise in search.image.noises]
    kinds = []
    for _ in range(12):
        kinds.append(search.kind)
        advance([search])
    assert kinds[:5] == ["image", "image", "image", "blur", "blur"]
    moved = search.image.v.detach()
    assert not torch.allclose(moved, v, atol=1e-3)
    assert torch.allclose(moved.norm(dim=2), v.norm(dim=2), rtol=1e-4)
    for number, (noise, before) in enumerate(zip(search.image.noises, noises, strict=True)):
        assert torch.equal(noise, before) == (number >= 4)
    assert search.found.terms is not None
    assert set(search.found.terms) == {"code_norm", "squared", "geocross"}
    for _ in range(3):  # the last turn of the image and that of its blur
        assert not search.finished
        advance([search])
    assert search.finished


def test_a_photo_of_a_part_of_the_generators_size_is_searched_at_that() -> None:
    shared = context(prior="stylegan", sides=6, image_steps=2, kernel_steps=2, iterations=4)
    result = searched(TiledSearch(record(), shared))
    assert result.images["restored"].shape == (64, 64, 3)
    with pytest.raises(BlurkitError, match="is 64x48; this generator's images, 128x128"):
        TiledSearch(record(height=48), shared)


# ---- what comes of it ----------------------------------------------------------------------------

KERNEL = np.zeros((7, 7))
KERNEL[1, 2:5] = KERNEL[2:6, 4] = KERNEL[5, 5] = 1 / 8


def test_step_b_finds_the_kernel_of_a_known_pair() -> None:
    sharp = photo(96, 96) / np.float32(255)
    blurry = shaken(sharp, KERNEL).astype(np.float32)
    options = {"iterations": 600, "kernel_rate": 1e-3, "patience": 0, "code_norm": (0, 0)}
    pair = (torch.from_numpy(image.transpose(2, 0, 1).copy()[None]) for image in (blurry, sharp))
    found = find_blur(context(**options), *pair)
    assert found.blur is not None
    kernel = found.blur[0, 0].numpy()
    assert np.corrcoef(kernel.ravel(), KERNEL.ravel())[0, 1] > 0.95
    assert kernel.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_blurred_photo_is_nearer_to_the_sharp_one() -> None:
    sharp = photo(128, 128)
    blurry = np.rint(255 * shaken(sharp, KERNEL).clip(0, 1)).astype(np.uint8)
    shared = context(
        iterations=1500, prior_width=32, image_rate=5e-3, kernel_rate=5e-4, patience=0, average=0.9
    )
    result = searched(TiledSearch(Record("photo", {"blur": blurry}), shared))
    inside = (slice(4, -4), slice(4, -4))
    before = psnr(blurry[inside], sharp[inside])
    after = psnr(result.images["restored"][inside], sharp[inside])
    assert after > before + 1, (before, after)


# ---- wrong usage ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"kernel_size": 8}, "--kernel-size 8: must be odd"),
        ({"objective": "mine"}, "--objective mine: use one of paper, official"),
        ({"charbonnier": (1, -1)}, "charbonnier"),
        ({"restart_blur": True}, "restart_blur requires --search alternating"),
        ({"switch_at": 1.0}, "switch_at 1.0: must be at least 0 and below 1"),
        (
            {"start_estimate": True, "operator": "downsampling"},
            "--start-estimate requires --operator kernel-space or convolution",
        ),
        (
            {"start_estimate": True, "start_code_file": "k.pth"},
            "--start-estimate and start_code_file exclude each other",
        ),
        ({"steps": 3}, "unknown options: steps"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SearchOptions.resolve("small", **options)


def test_what_a_setting_lacks_is_told() -> None:
    with pytest.raises(UsageError, match="compares features"):
        make_context(SearchOptions.resolve("official", operator="convolution"))
    with pytest.raises(UsageError, match="requires a checkpoint"):
        make_context(SearchOptions.resolve())
    with pytest.raises(UsageError, match="--generator"):
        make_context(SearchOptions.resolve(operator="convolution", prior="stylegan"))
    with pytest.raises(UsageError, match="--start-estimate requires an estimator"):
        make_context(SearchOptions.resolve(operator="convolution", start_estimate=True))


def test_an_image_is_warmed_up_to_what_it_starts_from() -> None:
    assert SearchOptions.resolve().warm_up == 0
    assert SearchOptions.resolve(start_estimate=True).warm_up == 100
    assert SearchOptions.resolve("official", start_estimate=True).warm_up == 300
    assert SearchOptions.resolve("selfdeblur", start_estimate=True, warm_up=7).warm_up == 7


def test_tiles_are_of_a_size_that_f_takes() -> None:
    shared: SearchContext = context("kernel-space")
    with pytest.raises(UsageError, match="--tile 200: this search needs a multiple of 128"):
        TiledSearch(record(), shared, tile=200)
    job = TiledSearch(record(height=500, width=200), shared, tile=256)
    assert [search.photo.shape[-2:] for search in job.searches] == 3 * [(256, 256)]
    assert job.picture().shape == (500, 200, 3)
    assert np.array_equal(job.picture(), photo(500, 200))
