"""The blind search: its steps against plain ones, and that it ends as it is said to."""

import copy
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.records import Record, to_float
from blurkit.metrics.psnr import psnr
from blurkit.systems.blind_search import TiledSearch, run_searches
from blurkit.systems.kernel_space.objective import SearchContext
from blurkit.systems.kernel_space.search import Search, SearchResult, advance, find_blur
from blurkit.systems.search_options import SearchOptions
from tests.systems.kernel_space.searches import (
    Moving,
    context,
    continued,
    convolved,
    photo,
    record,
    searched,
    shaken,
    style_prior,
)

TURNS: dict[str, Any] = {"prior": "stylegan", "image_steps": 2, "kernel_steps": 2}

WILD: dict[str, Any] = {"iterations": 40, "patience": 0, "rate_decay": 30.0, "rate_held_parts": 2}
"""Learning rates that rise in the end, so that the objective does too."""


def begun(shared: SearchContext | None = None, side: int = 64, **options: Any) -> Search:
    """A search that can make its first step."""
    (search,) = TiledSearch(record(height=side, width=side), shared or context(**options)).searches
    search.begin()
    return search


def run_to_its_end(search: Search) -> list[str]:
    """The kinds of its steps."""
    kinds = []
    while not search.finished:
        kinds.append(search.kind)
        advance([search])
    return kinds


def rates(search: Search) -> list[float]:
    """The learning rates of the image and of the blur."""
    return [o.param_groups[0]["lr"] for o in (search._image_optimizer, search._blur_optimizer)]


def weights(module: torch.nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in module.parameters()]


def same(first: list[Tensor], second: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


# ---- the steps -----------------------------------------------------------------------------------


def plain_joint_search(search: Search, steps: int) -> list[Tensor]:
    """The images of joint steps as the equations say them, from where `search` stands."""
    image, blur = copy.deepcopy(search.image.network), copy.deepcopy(search.blur.network)
    z_x, z_k = search.image.noise.clone(), search.blur.noise.clone()
    network, y = search.context.operator.network, search.photo
    optimizers = [torch.optim.Adam(part.parameters(), 1e-2) for part in (image, blur)]
    sobel = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    images = []
    for _ in range(steps):
        x, k = image(z_x), blur(z_k)
        images.append(x.detach())
        rho = ((network.blur(x, k) - y) ** 2 + 1e-6).sqrt().mean()
        gray = x.sum(1, keepdim=True)
        squares = sum(F.conv2d(gray, w[None, None], padding=1) ** 2 for w in (sobel, sobel.T))
        prior = (squares + 1e-6).sqrt().pow(0.66).mean()
        for optimizer in optimizers:
            optimizer.zero_grad()
        (rho + 0.1 * k.square().sum().sqrt() + 0.5 * prior).backward()
        for optimizer in optimizers:
            optimizer.step()
    return images


def test_joint_steps_are_those_of_equations_5_to_7() -> None:
    options = {"charbonnier": (1, 1), "code_norm": (0.1, 0.1), "gradient": (0.5, 0.5)}
    options |= {"image_rate": 1e-2, "kernel_rate": 1e-2, "rate_decay": 1.0}
    still = {"step_noise": 0.0, "warm_up": 0, "start_gaussian": 0.0}
    search = begun(context("kernel-space", **still, **options), 256)
    plain = plain_joint_search(search, 3)
    for number, wanted in enumerate(plain):
        advance([search])
        # Adam steps by the gradient's sign at first, whatever its size, rounding included: what
        # that leads to grows tenfold with every step.
        moved = (wanted - plain[0]).abs().mean() if number else 1e-3
        assert (search.picture - wanted).abs().mean() < 0.01 * moved


def test_learning_rates_fall_as_those_of_the_released_code() -> None:
    # Its StepLR moves before the step of each of 20 iterations, here in fifths.
    search = begun(iterations=20, warm_up=0, image_rate=0.5, kernel_rate=0.25, patience=0)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 0.5)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 4, 0.7)
    for _ in range(19):
        optimizer.step()
        schedule.step()
        advance([search])
        (rate,) = schedule.get_last_lr()
        assert rates(search) == pytest.approx([rate, rate / 2])


def test_selfdeblur_has_its_released_loss_and_schedule() -> None:
    # Of 25 steps as of 5000: a fifth by squared distances, rates halved after 2, 3 and 4 fifths.
    shared = context(preset="selfdeblur", iterations=25, warm_up=0)
    search = begun(shared)
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], 1e-2)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [9, 14, 19], 0.5)
    for step in range(24):
        image, blur = search.generate("joint")
        blurred = shared.operator.blur(image, blur)
        late, target = search.second_half, search.target(blurred)
        terms = shared.objective.terms(blurred, target, image, blur, late, None, None, None)
        (name,) = terms
        assert name == ("squared" if step < 5 else "similarity")
        wanted = (blurred - target).square().mean()
        assert step >= 5 or terms[name].item() == pytest.approx(wanted.item())
        advance([search])
        (rate,) = schedule.get_last_lr()
        assert rates(search) == pytest.approx([rate, rate / 100])
        optimizer.step()
        schedule.step()
    options = SearchOptions.resolve("selfdeblur")
    assert (options.operator, options.iterations, options.prior_width) == ("convolution", 5000, 128)
    assert (options.image_rate, options.kernel_rate) == (1e-2, 1e-4)
    assert options.switch_at * options.iterations == 1000


def test_algorithm_1_searches_the_blur_anew_for_each_step_of_the_image() -> None:
    search = begun(preset="paper", kernel_steps=3, iterations=2, warm_up=0)
    kinds, blurs = [], []
    while not search.finished:
        kinds.append(search.kind)
        before, moved = weights(search.image), weights(search.blur)
        advance([search])
        if kinds[-1] == "blur":
            assert same(before, weights(search.image))
            blurs.append(search.blur)
        elif not search.finished:
            assert same(moved, weights(search.blur))
            assert not same(before, weights(search.image))
    assert kinds == 2 * ["blur", "blur", "blur", "image"]
    assert [blur is blurs[0] for blur in blurs] == [True] * 3 + [False] * 3


def test_without_restarts_the_blur_goes_on_where_it_was() -> None:
    search = begun(search="alternating", kernel_steps=2, iterations=3, first_turn="image")
    blur, kinds = search.blur, []
    while not search.finished:
        kinds.append(search.kind)
        advance([search])
        assert search.finished or search.blur is blur
    assert kinds == 2 * ["image warm-up"] + 3 * ["image", "blur", "blur"]


@pytest.mark.slow
def test_the_warm_up_nears_the_photo_and_the_start() -> None:
    options = {"warm_up": 30, "start_gaussian": 1.5, "image_rate": 0.01, "kernel_rate": 0.01}
    search = begun(context("kernel-space", **options), 256)

    def far() -> tuple[float, float]:
        with torch.no_grad():
            image, blur = search.image(search.source), search.blur(search.source)
        return (image - search.photo).std().item(), (blur - search._start).std().item()

    before = far()
    while search.kind.endswith("warm-up"):
        advance([search])
    after = far()
    assert after[0] < 0.8 * before[0] and after[1] < 0.5 * before[1]


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


def test_a_seed_gives_one_picture_to_the_bit_whatever_was_searched_before() -> None:
    shared = context(seed=1)
    torch.manual_seed(0)
    first, _, again, other = (
        searched(TiledSearch(record(name), use)).images["restored"]
        for name, use in (
            *(("photo", shared), ("other", shared), ("photo", shared)),
            ("photo", context(seed=2)),
        )
    )
    assert np.array_equal(again, first)
    assert not np.array_equal(other, first)


# ---- its end -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        pytest.param({"average_decay": 0.9}, marks=pytest.mark.slow),
        {"search": "alternating", "kernel_steps": 3, "restart_blur": True},
        TURNS | {"iterations": 6},
        WILD,
    ],
)
def test_a_state_goes_on_bit_for_bit(options: dict[str, object]) -> None:
    search = begun(**options)
    steps = len(run_to_its_end(search))
    for stop in (37,) if options is WILD else (1, steps // 2, steps - 1):
        found = continued(lambda: TiledSearch(record(), context(**options)), stop).searches[0].found
        assert torch.equal(found.picture, search.found.picture)
        assert found.terms == search.found.terms


def test_the_state_of_another_photo_is_refused() -> None:
    shared = context()
    state = TiledSearch(record(), shared).state_dict()
    with pytest.raises(BlurkitError, match="belongs to another photo"):
        TiledSearch(record(top=9), shared).load_state_dict(state)


@pytest.mark.slow
def test_a_search_that_falls_no_more_ends() -> None:
    # Without a step there is nothing to gain; the second half begins with iteration 100.
    still = {"image_rate": 0.0, "kernel_rate": 0.0, "step_noise": 0.0, "warm_up": 0}
    for iterations, patience, least, most in ((200, 30, 130, 150), (160, 0, 160, 160)):
        shared = context(iterations=iterations, patience=patience, **still)
        result = searched(TiledSearch(record(), shared))
        assert least <= result.attrs["blind_iterations"] <= most


def test_the_average_follows_the_images() -> None:
    search = begun(average_decay=0.75, iterations=5, warm_up=0)
    average, taken = None, []
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
    search = begun(prior="stylegan", image_steps=3, kernel_steps=2, iterations=9, noise_maps=4)
    v = search.image.v.detach().clone()
    noises = [noise.detach().clone() for noise in search.image.noises]
    kinds = []
    for _ in range(12):
        kinds.append(search.kind)
        advance([search])
    assert kinds[:5] == 3 * ["image"] + 2 * ["blur"]
    moved = search.image.v.detach()
    assert not torch.allclose(moved, v, atol=1e-3)
    assert torch.allclose(moved.norm(dim=2), v.norm(dim=2), rtol=1e-4)
    for number, (noise, before) in enumerate(zip(search.image.noises, noises, strict=True)):
        assert torch.equal(noise, before) == (number >= 4)
    assert set(search.found.terms) == {"code_norm", "squared", "geocross"}
    assert len(run_to_its_end(search)) == 3  # the last turn of the image and that of its blur


def test_a_photo_of_a_part_of_the_generators_size_is_searched_at_that() -> None:
    shared = context(prior="stylegan", sides=6, image_steps=2, kernel_steps=2, iterations=4)
    assert searched(TiledSearch(record(), shared)).images["restored"].shape == (64, 64, 3)
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
    kernel = find_blur(context(**options), *pair).blur[0, 0].numpy()
    assert np.corrcoef(kernel.ravel(), KERNEL.ravel())[0, 1] > 0.95
    assert kernel.sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.slow
def test_a_blurred_photo_is_nearer_to_the_sharp_one() -> None:
    sharp = photo(128, 128)
    blurry = np.rint(255 * shaken(sharp, KERNEL).clip(0, 1)).astype(np.uint8)
    options = {"iterations": 1500, "prior_width": 32, "patience": 0, "average_decay": 0.9}
    shared = context(image_rate=5e-3, kernel_rate=5e-4, **options)
    result = searched(TiledSearch(Record("photo", {"blur": blurry}), shared))
    inside = (slice(4, -4), slice(4, -4))
    before, after = (
        psnr(image[inside], sharp[inside]) for image in (blurry, result.images["restored"])
    )
    assert after > before + 1, (before, after)


# ---- a StyleGAN under a kernel -------------------------------------------------------------------


@pytest.mark.parametrize("align", [False, True])
def test_a_stylegan_under_a_kernel_fills_the_whole_photo(align: bool) -> None:
    job = TiledSearch(record(), context(**TURNS, iterations=4, align_picture=align, result="last"))
    (search,) = job.searches
    search.begin()
    images: list[torch.Tensor] = []
    search.image.register_forward_hook(lambda module, given, image: images.append(image.detach()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(run_searches([job]))
        restored = job.result("test", keep_kernel=True)
    made, kernel = images[-1], restored.attrs["kernel"]
    picture = search.found.picture
    assert picture.shape == (1, 3, 64, 64)
    if not align:
        assert torch.equal(picture, made)
    else:  # moved as a whole, by less than half the kernel
        shifts = [(d, r) for d in range(-3, 4) for r in range(-3, 4)]
        moved = (picture[..., 8 + d : 56 + d, 8 + r : 56 + r] for d, r in shifts)
        assert any(torch.equal(each, made[..., 8:-8, 8:-8]) for each in moved)
    values = picture[0].permute(1, 2, 0).numpy()
    shown = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    np.testing.assert_array_equal(restored.images["restored"], shown)
    assert (shown[0] > 0).any() and (shown[-1] > 0).any() and (shown[:, -1] > 0).any()
    if not align:  # what it minimises is the distance to the photo without the kernel's border
        error = np.square(convolved(values, kernel) - to_float(photo())[3:-3, 3:-3]).mean()
        assert search.found.error == pytest.approx(error, rel=1e-4)


def test_one_z_on_its_sphere_makes_the_paper_s_image() -> None:
    search = begun(preset="paper", prior="stylegan", kernel_steps=2, iterations=3)
    z = search.image.v
    assert z.shape == (1, 1, 16) and z.norm().item() == pytest.approx(4, rel=1e-5)
    before = z.detach().clone()
    while not search.finished:
        prior = style_prior()
        with torch.no_grad():
            latents = prior.mapping(z[:, 0])[:, None].repeat(1, prior.layers, 1)
            wanted = prior.image(latents, list(search.image.noises))
        kind = search.kind
        advance([search])
        if kind == "image":
            assert torch.allclose(search.picture, wanted, atol=1e-5)
            assert z.norm().item() == pytest.approx(4, rel=1e-5)
    assert not torch.allclose(z.detach(), before, atol=1e-2)


# ---- what is kept --------------------------------------------------------------------------------


def objectives(search: Search, turns: bool) -> list[tuple[float, int]]:
    """Run a search to its end; return the objectives that it compares, with their iterations."""
    found = []
    while not search.finished:
        kind, last = search.kind, search.last
        advance([search])
        over = search.finished or search.kind != kind
        if search.last is not last and (over or not turns):
            found.append((search.last.objective, search.last.iteration))
    return found


def test_the_best_image_of_a_joint_search_is_kept() -> None:
    search = begun(**WILD)
    seen = objectives(search, turns=False)
    assert (search.found.objective, search.found.iteration) == min(seen)
    assert search.found.objective < search.last.objective
    assert torch.equal(search.picture, search.found.picture)


def test_the_best_turn_of_a_stylegan_search_is_kept() -> None:
    search = begun(**TURNS, iterations=12, kernel_rate=0.5, image_rate=1e-4)
    seen = objectives(search, turns=True)
    assert len(seen) == 12  # six turns of the image, and of the blur
    assert search.found.objective == min(seen)[0] < seen[-1][0]


def test_weights_that_change_make_a_new_best() -> None:
    search = begun(charbonnier=(1e-3, 1), iterations=40, warm_up=0)
    objectives(search, turns=False)
    assert search.found.iteration > 20 and search.found.second_half


def test_a_state_of_an_older_version_is_continued() -> None:
    half = begun(iterations=9, patience=0)
    for _ in range(5):
        advance([half])
    state = half.state_dict()
    del state["last"], state["_turn_best"]
    for added in ("second_half", "error"):
        del state["found"][added]
    (rest,) = TiledSearch(record(), context(iterations=9, patience=0)).searches
    rest.load_state_dict(state)
    run_to_its_end(rest)
    assert rest.last.iteration == 9


def blur_turns(search: Search, turns: int) -> list[int]:
    """The numbers of steps of the first turns of the blur."""
    lengths = [0]
    while len(lengths) <= turns:
        if search.kind == "blur":
            lengths[-1] += 1
        elif lengths[-1]:
            lengths.append(0)
        advance([search])
    return lengths[:turns]


def test_the_search_for_a_blur_ends_when_it_no_longer_gets_better() -> None:
    options = SearchOptions.resolve("paper")
    assert options.kernel_steps > 500 and options.kernel_patience and options.patience
    still = {"kernel_rate": 0.0, "kernel_patience": 4, "warm_up": 0, "iterations": 9}
    search = begun(preset="paper", **still)
    assert blur_turns(search, 3) == [5, 5, 5]  # the first step of each is the best
    falling = {"kernel_patience": 4, "tolerance": 0.0, "kernel_rate": 1e-3, "kernel_steps": 12}
    assert blur_turns(begun(preset="paper", **falling, warm_up=0, iterations=9), 2) == [12, 12]


def test_the_paper_s_search_ends_before_its_last_iteration() -> None:
    still = {"image_rate": 0.0, "kernel_rate": 0.0, "kernel_steps": 1, "restart_blur": False}
    job = TiledSearch(record(), context(preset="paper", **still, iterations=400, patience=30))
    assert 30 <= searched(job).attrs["blind_iterations"] <= 50


def test_a_search_that_ended_high_is_warned_of() -> None:
    said: list[str] = []
    (job,) = run_searches([TiledSearch(record(), context(iterations=2))], warn=said.append)
    reproduced = job.result("test").attrs["blind_reproduced"]
    (line,) = said
    assert line.startswith("photo: image and blur reproduce the photo with only")
    assert f"only {reproduced:.1f} dB (warn_below 30)" in line
    lower = context(iterations=2, warn_below=reproduced - 1)
    list(run_searches([TiledSearch(record(), lower)], warn=pytest.fail))


# ---- picture and blur together -------------------------------------------------------------------


@pytest.mark.parametrize("align", [True, False])
def test_picture_and_kernel_give_the_photo_again(align: bool) -> None:
    job = TiledSearch(record(), context(iterations=30, align_picture=align, patience=0))
    result = searched(job)
    kernel, found = job.kernel(), job.searches[0].found
    again = convolved(found.picture[0].permute(1, 2, 0).numpy(), kernel)
    side = (kernel.shape[0] - 1) // 2
    error = np.square(again - to_float(photo())[side:-side, side:-side]).mean()
    # The search's own error includes the border.
    assert -10 * math.log10(error) == pytest.approx(-10 * math.log10(found.error), abs=0.5)
    assert result.attrs["blind_reproduced"] > 15


@pytest.mark.parametrize("align", [True, False])
def test_picture_and_code_give_the_photo_again(align: bool) -> None:
    move = (5, -3)
    shared = context("kernel-space", align_picture=align)
    shared.operator.network = Moving(shared.operator.network, move)
    blurry = photo(256, 256)
    job = TiledSearch(Record("photo", {"blur": blurry}), shared)
    (search,) = job.searches
    unmoved = search.photo.roll((-move[0], -move[1]), (2, 3))
    code = torch.zeros(1, 16, 2, 2)
    search.found = search.last = SearchResult(unmoved, code, 1, {"charbonnier": 0.0}, error=1e-4)
    search._counts["joint"] = 1
    kept = job.result("test", keep_kernel=True)
    assert tuple(kept.attrs["kernel_move"]) == (move if align else (0, 0))
    restored = kept.images["restored"]
    aligned = np.abs(restored[16:-16, 16:-16].astype(int) - blurry[16:-16, 16:-16]).max() == 0
    assert aligned == align
    down, right = kept.attrs["kernel_move"]
    back = np.roll(restored, (-down, -right), (0, 1))
    batch = torch.from_numpy(to_float(back)).permute(2, 0, 1)[None]
    again = shared.operator.blur(batch, torch.from_numpy(kept.attrs["kernel"])[None])
    again = (255 * again[0].permute(1, 2, 0)).round().byte().numpy()
    np.testing.assert_array_equal(again[16:-16, 16:-16], blurry[16:-16, 16:-16])


# ---- by PULSE's operator ----


def test_a_search_makes_an_image_that_is_like_the_photo_once_small() -> None:
    shared = context("downsampling", iterations=40, image_rate=1e-2, patience=0)
    result = searched(TiledSearch(record(height=62, width=66), shared))
    assert result.images["restored"].shape == (62, 66, 3)
    assert result.attrs["blind_objective"] > 0
    small = [
        np.asarray(Image.fromarray(image).resize((16, 15), Image.Resampling.BICUBIC)).astype(int)
        for image in (result.images["restored"], photo(62, 66))
    ]
    assert np.abs(small[0] - small[1]).mean() < 20 < np.abs(128 - small[1]).mean()


# ---- wrong usage ----


@pytest.mark.parametrize(
    ("preset", "options", "words"),
    [
        ("official", {"operator": "convolution"}, "compares features"),
        ("small", {"operator": "convolution", "perceptual": (0, 1)}, "compares features"),
        ("small", {}, "requires a checkpoint"),
        ("small", {"operator": "convolution", "prior": "stylegan"}, "--generator"),
        (
            *("small", {"operator": "convolution", "start_estimate": True}),
            "--start-estimate requires an estimator",
        ),
    ],
)
def test_what_a_setting_lacks_is_told(preset: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        SearchContext(SearchOptions.resolve(preset, **options))


def test_tiles_are_of_a_size_that_f_takes() -> None:
    shared = context("kernel-space")
    with pytest.raises(UsageError, match="--tile 200: this search needs a multiple of 128"):
        TiledSearch(record(), shared, tile=200)
    job = TiledSearch(record(height=500, width=200), shared, tile=256)
    assert [search.photo.shape[-2:] for search in job.searches] == 3 * [(256, 256)]
    assert job.picture().shape == (500, 200, 3)
    assert np.array_equal(job.picture(), photo(500, 200))
