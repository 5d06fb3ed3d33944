"""The terms of the kernel space's objectives against official numbers and scipy."""

import re
from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
import torch
from scipy.ndimage import correlate
from torch import Tensor

from blurkit.nn.blocks import charbonnier
from blurkit.nn.features import BACKBONES, FeatureNetwork, features_from_state_dict, map_distance
from blurkit.systems.kernel_space import objective
from blurkit.systems.kernel_space.networks import KernelSpace
from blurkit.systems.kernel_space.objective import OBJECTIVES, Objective
from blurkit.systems.kernel_space.recipe import kl_divergence
from tests.systems.test_parity import FILL, Fixture, strided

OFFICIAL, PAPER = OBJECTIVES["official"], OBJECTIVES["paper"]


CHECKED_ELSEWHERE = {
    *("geocross18", "geocross14", "bicubic_down4", "sphere_p", "linear1cycledrop_mult"),
    *("dsd_l1", "dsd_l2", "cosine_restart_lr"),
}
"""Outputs of the fixture that are about the search with StyleGAN and the training's schedule."""


@pytest.fixture(scope="module")
def fixture() -> Fixture:
    return Fixture("kernel_losses")


@pytest.fixture(scope="module")
def features(fixture: Fixture) -> FeatureNetwork:
    return features_from_state_dict(fixture.weights(fixture.json["state_dict"]))


def check(fixture: Fixture, values: dict[str, Tensor]) -> None:
    for name, value in values.items():
        reference = fixture.arrays[f"output_{name}"]
        # Norms of gradients differ by 5e-5 with the number of threads and with float64: the signs
        # of tiny differences turn over in the L1 of features.
        bound = (1e-4 if name == "obj256_grad_norms" else 1e-5) * np.abs(reference)
        if name == "obj256_fake_y":
            bound = 1e-5 * np.abs(reference).max()
        assert (np.abs(strided(value, reference) - reference) <= bound).all(), name


def small_values(fixture: Fixture, features: FeatureNetwork) -> dict[str, Tensor]:
    x, y, k, sigma = fixture.given("x", "y", "k", "sigma")
    maps, weights = features(y), objective.PERCEPTUAL_WEIGHTS[features.name]
    single = np.eye(len(weights)).tolist()
    return {
        "charbonnier": charbonnier(x, y),
        "ssim": objective.structural_similarity(x, y),
        "hyper_laplacian_x": objective.hyper_laplacian_prior(x),
        "hyper_laplacian_y": objective.hyper_laplacian_prior(y),
        "perceptual": map_distance(features(x), maps, weights),
        "perceptual_l1_terms": torch.cat([map_distance(features(x), maps, one) for one in single]),
        "knorm": objective.code_norm(k),
        "kl_unweighted": kl_divergence(k, sigma),
        "total_stage1_F_identity_blur": total(OFFICIAL, x, y, x, k, False, features),
        "total_stage2_F_identity_blur": total(OFFICIAL, x, y, x, k, True, features),
    }


def large_values(fixture: Fixture, features: FeatureNetwork) -> dict[str, Tensor]:
    """The objective through F, with its gradients, as the fixture's json describes it."""
    x, y = large_images(fixture)
    (k,) = fixture.given("k")
    network = KernelSpace().requires_grad_(False)
    state_dict = FILL.fill(network.state_dict(), fixture.json["seed"])
    gain = re.search(r"multiplied by ([\d.]+)", fixture.json["outputs"]["output_obj256_*"])
    for name in ("weight", "bias"):
        state_dict[f"recon_trunk.28.{name}"] *= float(gain[1])
    x.requires_grad_()
    k.requires_grad_()
    blurred, maps = network.blur(x, k), features(y)
    weights = objective.PERCEPTUAL_WEIGHTS[features.name]
    totals = [total(OFFICIAL, blurred, y, x, k, second, features, maps) for second in (False, True)]
    gradients = [torch.autograd.grad(t, (x, k), retain_graph=True) for t in totals]
    values = {
        "perceptual": map_distance(features(blurred), maps, weights),
        "ssim": objective.structural_similarity(blurred, y),
        "knorm": objective.code_norm(k),
        "hyper_laplacian": objective.hyper_laplacian_prior(x),
        "charbonnier": objective.charbonnier(blurred, y),
        "total_stage1": totals[0],
        "total_stage2": totals[1],
        "grad_norms": torch.stack([g.norm() for pair in gradients for g in pair]),
        "fake_y": blurred,
    }
    return {f"obj256_{name}": value for name, value in values.items()}


def large_images(fixture: Fixture) -> list[Tensor]:
    text = fixture.json["input_description"]
    recipes = re.findall(r"[XY]\d+ = image\(\(([\d, ]+)\), (\d+)\)", text)
    assert len(recipes) == 2
    return [FILL.image([int(n) for n in shape.split(",")], int(seed)) for shape, seed in recipes]


def total(chosen: Objective, *arguments: object) -> Tensor:
    return sum(chosen.terms(*arguments).values())


def test_official_values(fixture: Fixture, features: FeatureNetwork) -> None:
    values = small_values(fixture, features) | large_values(fixture, features)
    outputs = {n.removeprefix("output_") for n in fixture.arrays if n.startswith("output_")}
    assert values.keys() == outputs - CHECKED_ELSEWHERE
    check(fixture, values)


PHOTOS = [skimage.data.astronaut, skimage.data.coffee]


def photos(size: tuple[int, int] = (60, 73)) -> tuple[np.ndarray, np.ndarray]:
    """Two sharp photos and what they are to be like, each (2, 3, H, W) in [0, 1], float64."""
    sharp = np.stack([photo()[100 : 100 + size[0], 150 : 150 + size[1]] for photo in PHOTOS])
    sharp = sharp.transpose(0, 3, 1, 2) / 255
    return sharp, correlate(sharp, np.full((1, 1, 3, 5), 1 / 15))


@pytest.mark.parametrize("power", [0.66, 0.8])
def test_hyper_laplacian_against_scipy(power: float) -> None:
    sharp, _ = photos()
    gray = sharp.sum(1)
    sobel = np.outer([1, 2, 1], [1, 0, -1])[None]
    across, down = (correlate(gray, s, mode="constant") for s in (sobel, sobel.transpose(0, 2, 1)))
    expected = (np.sqrt(across**2 + down**2 + 1e-6) ** power).mean(axis=(1, 2))
    ours = objective.hyper_laplacian_prior(torch.from_numpy(sharp), power)
    np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_gradients_against_differences() -> None:
    sharp, blur = (torch.from_numpy(x[..., :13, :12]) for x in photos())
    k = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 4, 1, 1)))
    terms: list[tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = [
        (charbonnier, (sharp, blur)),
        (objective.structural_similarity, (sharp, blur)),
        (objective.hyper_laplacian_prior, (sharp,)),
        (objective.code_norm, (k,)),
    ]
    for term, (first, *rest) in terms:
        torch.autograd.gradcheck(lambda x: term(x, *rest), first.clone().requires_grad_())  # noqa: B023


def test_flat_images_and_empty_codes_have_finite_gradients() -> None:
    flat, code = torch.full((1, 3, 20, 20), 0.5), torch.zeros(1, 8, 1, 1)
    x, k = flat.clone().requires_grad_(), code.requires_grad_()
    total(Objective((1, 1), (0, 0), (1, 1), (1, 1), (1, 1)), x, flat, x, k, False).backward()
    assert x.grad.isfinite().all() and k.grad.isfinite().all()


@pytest.fixture(scope="module")
def untrained() -> FeatureNetwork:
    torch.manual_seed(0)
    return FeatureNetwork(BACKBONES[1], ("relu1_1", "relu2_1"))


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_images_of_a_batch_are_apart(name: str, second: bool, untrained: FeatureNetwork) -> None:
    sharp, blur = (torch.from_numpy(x).float() for x in photos())
    code = torch.randn(2, 8, 1, 1, generator=torch.Generator().manual_seed(1))
    both = OBJECTIVES[name].terms(blur, sharp, blur, code, second, untrained)
    for part in (slice(0, 1), slice(1, 2)):
        b, s, k = blur[part], sharp[part], code[part]
        alone = OBJECTIVES[name].terms(b, s, b, k, second, untrained, untrained(s))
        assert alone.keys() == both.keys()
        for term, value in alone.items():
            assert value.shape == (1,)
            torch.testing.assert_close(value, both[term][part], rtol=1e-5, atol=1e-12, msg=term)


def test_the_paper_s_terms() -> None:
    sharp, blur = (torch.from_numpy(x) for x in photos())
    paper = PAPER.terms(blur, sharp, blur, torch.ones(2, 8, 1, 1), False)
    assert [*paper] == ["charbonnier", "code_norm", "gradient"]
    mean = np.sqrt((blur - sharp).numpy() ** 2 + 1e-6).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(paper["charbonnier"], mean, rtol=1e-12)
