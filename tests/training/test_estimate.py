"""Sizes and memory, without memory: against the released networks and against counting by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blurkit.nn.features import BACKBONES, FeatureNetwork
from blurkit.systems.msdi.config import DeblurConfiguration, ReblurConfiguration
from blurkit.systems.msdi.networks import DegradationEncoder, PriorUpsampling
from blurkit.systems.msdi.recipe import DeblurRecipe, ReblurRecipe
from blurkit.training.configuration import Configuration
from blurkit.training.memory import GIB, estimate
from blurkit.training.recipe import Batch, Losses, Recipe

BATCH, CROP = 3, 32


class Chain(Recipe):
    """Three plain convolutions in a row."""

    channels = (3, 5, 7, 2)

    def __init__(self) -> None:
        super().__init__(Configuration(batch=BATCH, crop=CROP))
        pairs = zip(self.channels[:-1], self.channels[1:], strict=True)
        network = nn.Sequential(*(nn.Conv2d(a, b, 3, padding=1) for a, b in pairs))
        self.networks = {"chain": network}
        self.optimizers = {"chain": self.adam(network)}

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        loss = self.networks["chain"](batch["blur"]).mean()
        return loss, {"loss": loss}


def test_a_chain_of_convolutions_by_hand() -> None:
    needs = estimate(Chain)
    parameters = sum(9 * a * b + b for a, b in ((3, 5), (5, 7), (7, 2)))
    assert needs["parameters"] == {"chain": parameters}
    assert needs["trained"] == parameters
    assert needs["weights"] == 4 * parameters / GIB
    # Gradients and Adam's two moments.
    assert needs["optimizer"] == 3 * 4 * parameters / GIB
    # After the last convolution's backward pass: both images of the batch, the inputs of the other
    # convolutions, the gradients of its output, its input and its weights, the loss
    # and its gradient.
    values = BATCH * CROP * CROP * (2 * 3 + 5 + 7 + 2 + 7) + 9 * 7 * 2 + 2 + 2
    assert needs["activations"] == 4 * values / GIB
    assert needs["total"] == needs["weights"] + needs["optimizer"] + needs["activations"]


def test_the_released_networks_have_the_released_sizes() -> None:
    configuration = ReblurConfiguration.resolve("official", batch=2)
    needs = estimate(lambda: ReblurRecipe(configuration))
    sizes = needs["parameters"]
    assert sizes["discriminator"] == 5_533_826
    assert sum(sizes.values()) - sizes["discriminator"] == 284_184_198
    assert needs["trained"] == sum(sizes.values())


def test_activations_grow_with_the_batch_and_weights_do_not() -> None:
    small = {"width": 8, "hidden": 8, "crop": 64}
    one, two = (
        estimate(lambda n=n: ReblurRecipe(ReblurConfiguration.resolve("small", batch=n, **small)))
        for n in (8, 16)
    )
    assert one["weights"] == two["weights"]
    assert 1.8 < two["activations"] / one["activations"] <= 2


def test_a_feature_network_counts_but_is_not_trained() -> None:
    configuration = ReblurConfiguration.resolve("small", batch=2, reblur_loss="adversarial")
    with torch.device("meta"):  # VGG-19, whose weights take 20 s to draw
        features = FeatureNetwork(BACKBONES[0])
    without = estimate(lambda: ReblurRecipe(configuration))
    needs = estimate(lambda: ReblurRecipe(configuration, features))
    extra = sum(p.numel() for p in features.parameters())
    assert needs["weights"] - without["weights"] == 4 * extra / GIB
    assert needs["trained"] == without["trained"]
    assert needs["activations"] > without["activations"]


def test_a_helper_that_is_part_of_a_network_counts_once() -> None:
    def build() -> DeblurRecipe:
        stage_1 = {"encoder": DegradationEncoder(1, 12), "latents": PriorUpsampling(1, 12)}
        return DeblurRecipe(DeblurConfiguration.resolve("small", batch=1), stage_1)

    needs = estimate(build)
    assert needs["weights"] == 4 * needs["parameters"]["deblur"] / GIB


def test_an_estimate_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    estimate(Chain)
    assert torch.equal(torch.rand(3), expected)
