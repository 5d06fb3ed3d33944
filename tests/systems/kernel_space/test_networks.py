"""F, G and the priors of blind deblurring: sizes, codes, what they begin as."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import skimage.data
import torch

from blurkit.errors import UsageError
from blurkit.systems.kernel_space.networks import (
    CodeExtractor,
    EncodedBlur,
    KernelSpace,
    LightKernelSpace,
    residual_kernels,
)
from blurkit.systems.kernel_space.priors import ImagePrior, NonLocal
from tests.tools.pack import standardise

LIGHT: dict[str, Any] = {"width": 4, "code": 16, "back_blocks": 2}


def small(variational: bool = False) -> KernelSpace:
    torch.manual_seed(1)
    return KernelSpace(4, 16, 1, 2, 3, variational).eval()


def light(variational: bool = False) -> LightKernelSpace:
    """A light network whose F is no longer the identity that it begins as."""
    torch.manual_seed(1)
    network = LightKernelSpace(**LIGHT, variational=variational).eval()
    torch.nn.init.normal_(network.last.weight, std=0.1)
    return network


BOTH = pytest.mark.parametrize("make", [small, light])


@pytest.mark.parametrize(
    ("make", "parameters"),
    [
        (KernelSpace, 49_205_187),
        (partial(KernelSpace, variational=True), 115_265_475),
        (partial(CodeExtractor, 64, 64, 512, 6, bias=True), 34_787_264),
        (ImagePrior, 2_365_779),
    ],
)
def test_they_are_as_large_as_the_official_ones(make: Callable, parameters: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in make().parameters()) == parameters


@BOTH
@pytest.mark.parametrize("variational", [False, True])
def test_an_image_is_blurred_by_the_code_of_a_pair(
    make: Callable[[bool], EncodedBlur], variational: bool
) -> None:
    network = make(variational)
    sharp, blur = torch.rand(2, 1, 3, 256, 384)
    result = network(sharp, blur)
    code, deviation = network.encode(sharp, blur)
    assert torch.equal(result.code, code) and torch.equal(result.deviation, deviation)
    assert torch.equal(result.image, network.blur(sharp, code))
    drawn = network(sharp, blur, torch.full_like(code, 2.0))
    assert torch.equal(drawn.image, network.blur(sharp, code + 2 * deviation))
    assert torch.equal(drawn.image, result.image) is not variational


@torch.no_grad()
def test_codes_follow_the_size_of_the_image_and_only_what_is_positive_counts() -> None:
    network = small(variational=True)
    sharp, blur = torch.rand(2, 1, 3, 256, 384)
    code, deviation = network.encode(sharp, blur)
    assert code.shape == deviation.shape == (1, 16, 2, 3)
    code = torch.randn(1, 16, 2, 3)
    blurred = network.blur(sharp, code)
    assert blurred.shape == sharp.shape
    assert torch.equal(blurred, network.blur(sharp, code.relu()))
    assert not torch.equal(blurred, network.blur(sharp, code.relu() + 1))
    assert network.blur(sharp[:, :, :128, :128], code[:, :, :1, :1]).shape == (1, 3, 128, 128)


@BOTH
def test_other_sizes_are_refused_in_a_line(make: Callable[[], EncodedBlur]) -> None:
    network, code = make(), torch.zeros(1, 16, 1, 1)
    image = torch.zeros(1, 3, 128, 128)
    with pytest.raises(UsageError, match="an image of 128x128; blur codes need sides of 256"):
        network.encode(image, image)
    with pytest.raises(UsageError, match=r"an image of 64x128; .* multiples of 128"):
        network.blur(image[..., :64], code)
    with pytest.raises(UsageError, match="a blur code of 8x1x1 for an image that needs 16x1x1"):
        network.blur(image, code[:, :8])
    with pytest.raises(UsageError, match="sharp image of 256x256 and a blurry one of 384x256"):
        network.encode(torch.zeros(1, 3, 256, 256), torch.zeros(1, 3, 256, 384))


def test_a_new_light_network_changes_nothing() -> None:
    network, image = LightKernelSpace(**LIGHT), torch.rand(2, 3, 256, 256)
    assert torch.equal(network(image, image.flip(3)).image, image)


@torch.no_grad()
def test_the_kernel_of_a_pair_shows_in_the_quotient_of_its_spectra() -> None:
    """A photo moved by (3, -5) pixels: a kernel with its one value there, and -1 in the middle."""
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255
    moved = photo.roll((3, -5), (2, 3))
    kernels = residual_kernels(photo[..., 100:356, 100:484], moved[..., 100:356, 100:484])
    assert kernels.shape == (1, 2, 3, 64, 64)
    for kernel in kernels.flatten(0, 2):
        assert divmod(int(kernel.argmax()), 64) == (32 + 3, 32 - 5)
        assert divmod(int(kernel.argmin()), 64) == (32, 32)


def test_a_new_image_prior_is_not_yet_non_local() -> None:
    """The last normalisation of its non-local blocks starts at zero, so they pass all on."""
    torch.manual_seed(2)
    prior, noise = ImagePrior(), torch.rand(1, 8, 64, 96) / 10
    blocks = [m for m in prior.modules() if isinstance(m, NonLocal)]
    assert len(blocks) == 3
    image = prior(noise)
    assert image.shape == (1, 3, 64, 96) and 0 <= image.min() < image.max() <= 1
    for block in blocks:
        features = torch.randn(2, 128, 6, 8)
        assert torch.equal(block(features), features)


@pytest.mark.parametrize("variational", [False, True])
@torch.no_grad()
def test_standardised_codes_say_the_same(variational: bool) -> None:
    network, (sharp, blur) = light(variational), torch.rand(2, 2, 3, 256, 256)
    before = network(sharp, blur)
    mean, deviation = torch.randn(16), torch.rand(16) + 0.5
    standardise(network, mean, deviation)
    after = network(sharp, blur)
    places = (slice(None), None, None)
    assert torch.allclose(after.code, (before.code - mean[places]) / deviation[places], atol=1e-5)
    assert torch.allclose(after.deviation, before.deviation / deviation[places], atol=1e-6)
    assert torch.allclose(after.image, before.image, atol=1e-5)
