"""F, G and the priors of blind deblurring: sizes, codes and how they are found again."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from blurkit.errors import UsageError
from blurkit.models import from_state_dict
from blurkit.models.image_prior import ImagePrior, NonLocal
from blurkit.models.kernel_space import CodeExtractor, KernelSpace

SMALL: dict[str, Any] = {
    "width": 4,
    "code": 16,
    "front_blocks": 1,
    "back_blocks": 2,
    "code_blocks": 3,
}


def small(variational: bool = False) -> KernelSpace:
    torch.manual_seed(1)
    return KernelSpace(**SMALL, variational=variational).eval()


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def test_they_have_as_many_parameters_as_the_official_ones() -> None:
    with torch.device("meta"):
        assert parameters(KernelSpace()) == 49_205_187
        assert parameters(KernelSpace(variational=True)) == 115_265_475
        assert parameters(CodeExtractor(64, 64, 512, 6, bias=True)) == 34_787_264
        assert parameters(ImagePrior()) == 2_365_779


@pytest.mark.parametrize("variational", [False, True])
def test_a_state_dict_is_found_again_with_its_options(variational: bool) -> None:
    network = small(variational)
    found = from_state_dict(network.state_dict())
    assert isinstance(found, KernelSpace) and found.options == network.options
    assert found.options == SMALL | {"variational": variational}
    image = torch.rand(1, 3, 256, 384)
    assert torch.equal(found(image, image), network(image, image))


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
    one = network.blur(sharp[:, :, :128, :128], code[:, :, :1, :1])
    assert one.shape == (1, 3, 128, 128)


def test_other_sizes_are_refused_in_a_line() -> None:
    network, code = small(), torch.zeros(1, 16, 1, 1)
    image = torch.zeros(1, 3, 128, 128)
    with pytest.raises(UsageError, match="an image of 128x128; blur codes take sides of 256"):
        network.encode(image, image)
    with pytest.raises(UsageError, match=r"an image of 64x128; .* multiples of 128"):
        network.blur(image[..., :64], code)
    with pytest.raises(UsageError, match="a blur code of 8x1x1 for an image that takes 16x1x1"):
        network.blur(image, code[:, :8])


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
