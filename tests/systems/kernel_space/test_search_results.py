"""What a blind search ends with: the image that is kept, where it is, and whether it was enough."""

from __future__ import annotations

import io
import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import convolve2d

from blurkit.errors import UsageError
from blurkit.io.records import Record, to_float
from blurkit.systems.blind_search import TiledSearch, run_searches
from blurkit.systems.kernel_space.objective import Objective
from blurkit.systems.kernel_space.operators import Convolution, EncodedOperator
from blurkit.systems.kernel_space.search import Search, SearchResult, advance
from blurkit.systems.search_options import SearchOptions
from tests.systems.kernel_space.searches import context, photo, record, searched, style_prior

TURNS: dict[str, Any] = {"prior": "stylegan", "image_steps": 2, "kernel_steps": 2}

WILD: dict[str, Any] = {"iterations": 40, "patience": 0, "rate_decay": 30.0, "rate_held_parts": 2}
"""Learning rates that rise in the end, so that the objective does too."""


def begun(**options: Any) -> Search:
    """A search that can make its first step."""
    (search,) = TiledSearch(record(), context(**options)).searches
    search.begin()
    return search


def convolved(picture: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The true convolution of a picture (H, W, 3), without what reaches beyond its border."""
    return np.stack([convolve2d(picture[..., c], kernel, "valid") for c in range(3)], 2)


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
        for _ in run_searches([job]):
            pass
        restored = job.result("test", keep_kernel=True)
    made, kernel = images[-1], restored.attrs["kernel"]
    picture = search.found.picture
    assert picture.shape == (1, 3, 64, 64)
    if not align:
        assert torch.equal(picture, made)
    else:  # moved as a whole, by less than half the kernel
        shifts = [(d, r) for d in range(-3, 4) for r in range(-3, 4)]
        middle = made[..., 8:-8, 8:-8]
        assert any(
            torch.equal(picture[..., 8 + d : 56 + d, 8 + r : 56 + r], middle) for d, r in shifts
        )
    values = picture[0].permute(1, 2, 0).numpy()
    shown = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    np.testing.assert_array_equal(restored.images["restored"], shown)
    assert (shown[0] > 0).any() and (shown[-1] > 0).any() and (shown[:, -1] > 0).any()
    if not align:  # what it minimises is the distance to the photo without the kernel's border
        error = np.square(convolved(values, kernel) - to_float(photo())[3:-3, 3:-3]).mean()
        assert search.found.error == pytest.approx(error, rel=1e-4)


# ---- the presets of a StyleGAN -------------------------------------------------------------------


def test_the_paper_s_stylegan_search_is_algorithm_1_on_the_sphere() -> None:
    options = SearchOptions.resolve("paper", prior="stylegan")
    assert (options.search, options.first_turn, options.image_steps) == ("alternating", "kernel", 1)
    assert options.restart_blur and options.latents == "sphere" and options.noise_maps == 0
    assert options.result == "last" and not options.align_picture
    objective = Objective.from_options(options)
    assert objective.geocross == objective.squared == (0, 0)
    assert objective.charbonnier == (1, 1)


def test_the_released_stylegan_search_takes_nothing_from_other_presets() -> None:
    options = SearchOptions.resolve("official", prior="stylegan")
    assert (options.first_turn, options.image_steps, options.kernel_steps) == ("image", 300, 200)
    assert not options.restart_blur and options.latents == "layers" and options.noise_maps == 5
    assert (options.input_distribution, options.input_scale, options.step_noise) == (
        "uniform",
        0.1,
        1e-3,
    )
    assert (options.rate_decay, options.rate_parts, options.start_gaussian) == (0.7, 5, 4.0)
    assert options.result == "best" and not options.align_picture
    with pytest.raises(UsageError, match="--preset selfdeblur: with --prior stylegan, use one of"):
        SearchOptions.resolve("selfdeblur", prior="stylegan")
    with pytest.raises(UsageError, match="latents sphere requires --prior stylegan"):
        SearchOptions.resolve(latents="sphere")


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
    found: dict[int, tuple[float, int]] = {}
    steps = 0
    while not search.finished:
        kind, last = search.kind, search.last
        advance([search])
        steps += 1
        over = (not search.finished and search.kind != kind) or search.finished
        if search.last is not last and (over or not turns):
            found[steps] = (search.last.objective, search.last.iteration)
    return list(found.values())


def test_the_best_image_of_a_joint_search_is_kept() -> None:
    search = begun(**WILD)
    seen = objectives(search, turns=False)
    assert (search.found.objective, search.found.iteration) == min(seen)
    assert search.found.objective < search.last.objective
    assert torch.equal(search.picture, search.found.picture)
    last = begun(**WILD, result="last")
    objectives(last, turns=False)
    assert last.found.iteration == 40 and last.found.objective == search.last.objective


def test_the_best_turn_of_a_stylegan_search_is_kept() -> None:
    search = begun(**TURNS, iterations=12, kernel_rate=0.5, image_rate=1e-4)
    seen = objectives(search, turns=True)
    assert len(seen) == 12  # six turns of the image, and of the blur
    assert search.found.objective == min(seen)[0] < seen[-1][0]


def test_weights_that_change_make_a_new_best() -> None:
    search = begun(charbonnier=(1e-3, 1), iterations=40, warm_up=0)
    objectives(search, turns=False)
    assert search.found.iteration > 20 and search.found.second_half


def test_the_best_image_survives_a_resumed_search() -> None:
    whole, half = begun(**WILD), begun(**WILD)
    objectives(whole, turns=False)
    assert 1 < whole.found.iteration < 35
    for _ in range(37):
        advance([half])
    file = io.BytesIO()
    torch.save(half.state_dict(), file)
    file.seek(0)
    (rest,) = TiledSearch(record(), context(**WILD)).searches
    rest.load_state_dict(torch.load(file, weights_only=True))
    objectives(rest, turns=False)
    assert rest.found.iteration == whole.found.iteration
    assert torch.equal(rest.found.picture, whole.found.picture)


def test_a_state_of_an_older_version_is_continued() -> None:
    half = begun(iterations=30, patience=0)
    for _ in range(20):
        advance([half])
    state = half.state_dict()
    del state["last"], state["_turn_best"]
    for added in ("second_half", "error"):
        del state["found"][added]
    (rest,) = TiledSearch(record(), context(iterations=30, patience=0)).searches
    rest.load_state_dict(state)
    while not rest.finished:
        advance([rest])
    assert rest.last.iteration == 30


# ---- its end -------------------------------------------------------------------------------------


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
    search = begun(preset="paper", **falling, warm_up=0, iterations=9)
    assert blur_turns(search, 2) == [12, 12]


def test_the_paper_s_search_ends_before_its_last_iteration() -> None:
    still = {"image_rate": 0.0, "kernel_rate": 0.0, "kernel_steps": 1, "restart_blur": False}
    job = TiledSearch(record(), context(preset="paper", **still, iterations=400, patience=30))
    assert 30 <= searched(job).attrs["blind_iterations"] <= 50


def warned(job: TiledSearch) -> list[str]:
    """What is said of a job that runs to its end."""
    said: list[str] = []
    list(run_searches([job], warn=said.append))
    return said


def test_a_search_that_ended_high_is_warned_of() -> None:
    job = TiledSearch(record(), context(iterations=2))
    (line,) = warned(job)
    assert line.startswith("photo: image and blur reproduce the photo with only")
    reproduced = job.result("test").attrs["blind_reproduced"]
    assert f"only {reproduced:.1f} dB (warn_below 30)" in line
    assert not warned(TiledSearch(record(), context(iterations=2, warn_below=reproduced - 1)))


# ---- picture and blur together -------------------------------------------------------------------


@pytest.mark.parametrize("align", [True, False])
def test_picture_and_kernel_give_the_photo_again(align: bool) -> None:
    job = TiledSearch(record(), context(iterations=30, align_picture=align, patience=0))
    result = searched(job)
    kernel = job.kernel()
    picture = job.searches[0].found.picture[0].permute(1, 2, 0).numpy()
    again = convolved(picture, kernel)
    side = (kernel.shape[0] - 1) // 2
    error = np.square(again - to_float(photo())[side:-side, side:-side]).mean()
    whole = job.searches[0].found.error  # which includes the border
    assert -10 * math.log10(error) == pytest.approx(-10 * math.log10(whole), abs=0.5)
    assert result.attrs["blind_reproduced"] > 15


@pytest.mark.parametrize("place", [(0, 0), (8, 0), (4, 8)])
def test_a_kernel_far_off_its_middle_is_centred_whole(place: tuple[int, int]) -> None:
    operator, image = Convolution(9), torch.rand(1, 3, 40, 48)
    blur = torch.zeros(1, 1, 9, 9)
    blur[0, 0, place[0], place[1]] = 0.8
    blur[0, 0, 8 - place[0], 8 - place[1]] = 0.2  # would leave the kernel at the other side
    picture, kernel = operator.crop_to_photo(image, blur, torch.empty(1, 3, 32, 40))
    blurred = operator.blur(image, blur)[0].permute(1, 2, 0).numpy()
    again = convolved(picture[0].permute(1, 2, 0).numpy(), kernel[0, 0].numpy())
    side = (kernel.shape[-1] - 1) // 2
    np.testing.assert_allclose(again, blurred[side:-side, side:-side], atol=1e-6)


class _Shifting(torch.nn.Module):
    """An F whose code moves what it blurs."""

    def __init__(self, network: torch.nn.Module, move: tuple[int, int]) -> None:
        super().__init__()
        self.size, self.options, self.move = network.size, network.options, move

    def blur(self, images: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        return images.roll(self.move, (2, 3))


@pytest.mark.parametrize("align", [True, False])
def test_picture_and_code_give_the_photo_again(align: bool) -> None:
    move = (5, -3)
    shared = context("kernel-space", align_picture=align)
    assert isinstance(shared.operator, EncodedOperator)
    shared.operator.network = _Shifting(shared.operator.network, move)  # type: ignore[assignment]
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


# ---- pictures of blurs ---------------------------------------------------------------------------


def test_a_kernel_is_shown_enlarged() -> None:
    kernel = torch.zeros(1, 1, 5, 5)
    kernel[0, 0, 1, 3], kernel[0, 0, 2, 2] = 0.5, 0.25
    shown = Convolution(5).draw_blur(kernel)
    assert shown.shape == (40, 40, 1) and shown.dtype == np.uint8
    assert (shown[8:16, 24:32] == 255).all() and (shown[16:24, 16:24] == 128).all()
    assert shown.astype(int).sum() == 64 * (255 + 128)


def test_a_code_is_shown_by_what_it_does_to_dots() -> None:
    shared = context("kernel-space")
    assert isinstance(shared.operator, EncodedOperator)
    shared.operator.network = _Shifting(shared.operator.network, (2, 1))  # type: ignore[assignment]
    shown = shared.operator.draw_blur(torch.zeros(1, 16, 2, 3))
    assert shown.shape == (256, 384, 1)
    rows, columns = np.nonzero(shown[..., 0])
    assert set(rows) == {34 + 64 * n + d for n in range(4) for d in (-1, 0, 1)}
    assert set(columns) == {33 + 64 * n + d for n in range(6) for d in (-1, 0, 1)}
    assert (shown[rows, columns] == 255).all()
