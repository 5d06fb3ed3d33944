"""The network that undoes known blur: what it starts from, and how it comes back from a file."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.systems.deconvolution.fourier import measured_noise
from blurkit.systems.deconvolution.networks import (
    BRIGHTEST,
    DARKEST,
    SMOOTH_NOISE,
    SMOOTH_SCALE,
    Deconvolver,
    Fusion,
    LinearLight,
    unshuffled,
)
from blurkit.systems.registry import from_state_dict, load_networks
from blurkit.systems.system import load_shipped, shipped_file
from tests.benchmarks.inversion import total_variation
from tests.systems.deconvolution.photos import GAMMA, batch, photo, psnr, shake, taken


def photos(height: int, width: int, count: int = 2) -> Tensor:
    """Photos (N, 3, H, W) that a shaken camera took."""
    names = ("coffee", "astronaut", "chelsea")[:count]
    images = [taken(photo(name, height, width), shake(seed, 13)) for seed, name in enumerate(names)]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def kernels(count: int = 2) -> Tensor:
    return batch(*(shake(seed, 13) for seed in range(count)))


def trained(widths: Sequence[int], drafts: bool = False) -> Deconvolver:
    """A network all of whose layers do something."""
    torch.manual_seed(0)
    network = Deconvolver(widths, drafts).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(
    ("widths", "multiple"), [((4, 8), 4), ((4, 6, 8), 8), ((8, 12, 16, 20), 16)]
)
@torch.inference_mode()
def test_results_are_shaped_like_the_photos(widths: tuple[int, ...], multiple: int) -> None:
    network = trained(widths)
    assert network.multiple == multiple
    height, width = 5 * multiple, 7 * multiple
    given = photos(height, width)
    made = network(given, kernels(), torch.full((2,), 0.004), torch.full((2,), GAMMA))
    for image in (made.first, made.image):
        assert image.shape == given.shape and image.dtype == torch.float32
        assert torch.isfinite(image).all()
    assert not torch.equal(made.first, made.image)
    eighths = (-(-height // 8), -(-width // 8))
    assert made.errors.shape == (2, 2, *eighths) and torch.isfinite(made.errors).all()


@torch.inference_mode()
def test_a_new_network_returns_the_mean_of_its_candidates() -> None:
    """Its last layers are zero: every candidate has the same share and nothing is added."""
    torch.manual_seed(0)
    network = Deconvolver((8, 12, 16)).eval()
    given, blurs = photos(64, 80), kernels()
    deviation, gamma = torch.tensor([0.004, 0.01]), torch.tensor([GAMMA, 1.0])
    made = network(given, blurs, deviation, gamma)
    light = LinearLight(given, blurs, gamma)
    variance = deviation.view(-1, 1, 1, 1) ** 2
    inverted = light.inverted(variance, network.strengths.exp())
    first = torch.stack([given, *inverted, light.smooth(variance)]).mean(0)
    torch.testing.assert_close(made.first, first, atol=1e-5, rtol=0)
    candidates = [given, first, *light.tied(first, variance, network.ties.exp())]
    torch.testing.assert_close(made.image, torch.stack(candidates).mean(0), atol=1e-5, rtol=0)


@torch.inference_mode()
def test_photos_of_a_batch_do_not_mix() -> None:
    network, given, blurs = trained((8, 12, 16)), photos(48, 64, 3), kernels(3)
    deviation, gamma = torch.tensor([0.004, 0.02, 0.01]), torch.tensor([GAMMA, 1.0, 1.5])
    together = network(given, blurs, deviation, gamma)
    for one in (slice(0, 1), slice(1, 2), slice(2, 3)):
        alone = network(given[one], blurs[one], deviation[one], gamma[one])
        torch.testing.assert_close(together.image[one], alone.image, atol=1e-4, rtol=0)
        torch.testing.assert_close(together.errors[one], alone.errors, atol=1e-3, rtol=1e-3)
        noisier = network(given[one], blurs[one], 5 * deviation[one], gamma[one])
        assert (noisier.image - alone.image).abs().max() > 0.01


@torch.inference_mode()
def test_fusion_can_choose_a_candidate_and_add_to_it() -> None:
    fusion = Fusion(3, 0, (4, 8))
    images = list(torch.rand(3, 1, 3, 16, 24))
    mean, features = fusion(images, torch.tensor([0.01]))
    torch.testing.assert_close(mean, torch.stack(images).mean(0))
    assert features.shape == (1, 4, 8, 12)
    bias = fusion.network.last.bias
    bias[4:8] = 50  # the shares of the second, of the four pixels of every block
    bias[12:16] = 0.25  # added to red
    chosen, _ = fusion(images, torch.tensor([0.01]))
    torch.testing.assert_close(chosen, images[1] + torch.tensor([0.25, 0, 0]).view(3, 1, 1))


def test_training_reaches_every_parameter() -> None:
    network, given = trained((8, 12, 16)), photos(56, 72)
    made = network(given, kernels(), torch.full((2,), 0.01), torch.full((2,), GAMMA))
    (made.image.square().mean() + made.first.square().mean() + made.errors.mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
        assert torch.isfinite(parameter.grad).all(), name


@torch.inference_mode()
def test_a_draft_changes_the_result_and_what_it_is_compared_with() -> None:
    network, given = trained((8, 12, 16), drafts=True), photos(48, 64)
    known = given, kernels(), torch.full((2,), 0.01), torch.full((2,), GAMMA)
    alone = network(*known)
    drafts = given.flip(0)
    joined = network(*known, drafts)
    assert joined.image.shape == given.shape and joined.errors.shape == alone.errors.shape
    assert torch.equal(joined.first, alone.first)
    assert (joined.image - alone.image).abs().max() > 0.01
    assert not torch.equal(joined.errors, alone.errors)
    one = slice(1, 2)
    single = network(*(part[one] for part in known), drafts[one])
    torch.testing.assert_close(joined.image[one], single.image, atol=1e-4, rtol=0)


@pytest.mark.parametrize("gamma", [1.0, GAMMA])
@pytest.mark.parametrize("size", [1, 3, 9])
def test_no_blur_gives_the_photo_back(gamma: float, size: int) -> None:
    point = torch.zeros(1, size, size)
    point[0, size // 2, size // 2] = 1
    given = photos(48, 66, 1).clamp_min(0.02)  # DARKEST is that of light, too
    light = LinearLight(given, point, torch.tensor([gamma]))
    results = light.inverted(torch.full((1, 1, 1, 1), 1e-10), torch.tensor([0.1, 10.0]))
    assert len(results) == 2
    inside = (..., slice(size, -size), slice(size, -size))
    for result in results:
        torch.testing.assert_close(result[inside], given[inside], atol=1e-3, rtol=0)


def test_inverted_light_is_the_scene() -> None:
    """Blur of light is undone in its place, wherever in its square the kernel is."""
    sharp = photo("coffee", 160, 190)
    kernel = np.pad(shake(1, 11), ((0, 6), (4, 2)))  # its centroid is at (5, 9), of (17, 17)
    blurry = taken(sharp, kernel, 1e-4)
    given = torch.from_numpy(blurry).permute(2, 0, 1)[None]
    light = LinearLight(given, batch(kernel), torch.tensor([GAMMA]))
    (result,) = light.inverted(torch.full((1, 1, 1, 1), 1e-6), torch.ones(1))
    moved = np.roll(sharp, (-3, 1), (0, 1))
    image = result[0].permute(1, 2, 0).numpy()
    assert psnr(image, moved, 30) > psnr(blurry, moved, 30) + 8
    assert psnr(image, sharp, 30) < psnr(image, moved, 30) - 10


def test_a_strong_tie_holds_and_a_weak_one_inverts() -> None:
    sharp, kernel = photo("coffee", 160, 190), shake(1, 11)
    given = torch.from_numpy(taken(sharp, kernel, 1e-4)).permute(2, 0, 1)[None]
    light = LinearLight(given, batch(kernel), torch.tensor([GAMMA]))
    grey_one = torch.full_like(given, 0.5)
    strong, weak = light.tied(grey_one, torch.full((1, 1, 1, 1), 1e-4), torch.tensor([1e6, 1e-3]))
    torch.testing.assert_close(strong, grey_one, atol=1e-3, rtol=0)
    blurry, image = (picture[0].permute(1, 2, 0).numpy() for picture in (given, weak))
    assert psnr(image, sharp, 30) > psnr(blurry, sharp, 30) + 5
    assert weak.min() >= DARKEST ** (1 / GAMMA) * 0.99 and weak.max() <= BRIGHTEST


@pytest.mark.parametrize("widths", [(4, 8), (6, 10, 14), (32, 64, 96, 128)])
@pytest.mark.parametrize("drafts", [False, True])
@torch.inference_mode()
def test_a_state_dict_is_its_network(widths: tuple[int, ...], drafts: bool) -> None:
    network = trained(widths, drafts)
    loaded = from_state_dict(network.state_dict())
    assert isinstance(loaded, Deconvolver) and not loaded.training
    assert loaded.options == network.options == {"widths": list(widths), "drafts": drafts}
    images = photos(32, 48)
    given = images, kernels(), torch.full((2,), 0.01), torch.full((2,), GAMMA)
    given += (images.flip(0),) if drafts else ()
    expected, found = network(*given), loaded(*given)
    for part in ("first", "image", "errors"):
        assert torch.equal(getattr(found, part), getattr(expected, part))


@torch.inference_mode()
def test_the_network_that_comes_with_blurkit() -> None:
    assert shipped_file("deconvolution").stat().st_size < 14e6
    networks = load_networks(load_shipped("deconvolution"))
    assert set(networks) == {"deconvolution", "estimator"}
    network = networks["deconvolution"]
    sharp, kernel = photo("coffee", 160, 192), shake(1, 13)
    blurry = taken(sharp, kernel)
    given = torch.from_numpy(blurry).permute(2, 0, 1)[None]
    deviation = measured_noise(given)
    assert float(deviation) == pytest.approx(1 / 255, rel=0.3)
    made = network(given, batch(kernel), deviation, torch.tensor([GAMMA]))
    assert psnr(made.image[0].permute(1, 2, 0).numpy(), sharp) > psnr(blurry, sharp) + 3
    before, after = made.errors[0].mean((1, 2)).tolist()
    assert after < before - 0.1  # and it knows


def test_the_smooth_candidate_is_that_of_total_variation() -> None:
    """By an independent route: the photo's own frame, more steps, and an origin in the middle."""
    given, blurs = photos(96, 112)[:1], kernels()[:1]
    light = LinearLight(given, blurs, torch.ones(1))
    variance = torch.full((1, 1, 1, 1), 0.01**2)
    smooth = light.smooth(variance)
    strength = SMOOTH_SCALE / (0.01**2 + SMOOTH_NOISE**2)
    alone = total_variation(given[0], blurs.expand(3, -1, -1), strength)
    inside = (..., slice(16, -16), slice(16, -16))
    undone = (smooth - given)[inside].abs().mean()
    assert (smooth[0] - alone)[inside].abs().mean() < undone / 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_blocks_of_pixels_are_those_of_pixel_unshuffle(dtype: torch.dtype) -> None:
    images = photos(32, 48).to(dtype)
    plain = F.pixel_unshuffle(torch.cat([images, images[:, :1]], 1), 2)
    with torch.inference_mode():
        torch.testing.assert_close(unshuffled(images, images[:, :1]), plain, rtol=0, atol=0)
    torch.testing.assert_close(unshuffled(images, images[:, :1]), plain, rtol=0, atol=0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(unshuffled(images, images[:, :1]), plain.to(torch.bfloat16))
