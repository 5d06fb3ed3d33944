"""What the trainings of BGAN and DBGAN share: a generator and a discriminator that alternate.

Section 3.4 of "Deblurring by Realistic Blurring" (CVPR 2020).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.nn.features import FeatureNetwork
from blurkit.systems.dbgan.config import AdversarialConfiguration
from blurkit.systems.dbgan.discriminators import SpectralVGGDiscriminator, VGGDiscriminator
from blurkit.systems.dbgan.losses import ADVERSARIAL, gradient_penalty
from blurkit.systems.dbgan.networks import BGAN, DBGAN, initialise, initialise_like_esrgan
from blurkit.training.recipe import Batch, Losses, Patience, Recipe
from blurkit.training.steps import gathered

CONTENT_LOSSES: dict[str, Callable[..., Tensor]] = {"l2": F.mse_loss, "l1": F.l1_loss}

PENALTY_WEIGHT = 10.0
"""The weight of wgan-gp's gradient penalty, as in its paper."""

GENERATOR_SCALE = 0.1
"""The factor on Kaiming's initial weights of the generator, as in the released code."""

CERTAIN = 0.999
"""The certainty of a discriminator above which the generator learns nothing from it."""

FOOLED = 0.05
"""The certainty below which a discriminator is as sure of the opposite."""

AnyGenerator = TypeVar("AnyGenerator", BGAN, DBGAN)


class Judged(NamedTuple):
    """Images that a generator made, and what they are compared with, all (N, 3, H, W).

    `target` is the content that `fake` should show, `real` the look that it should have. `paired`
    (N,) of bool says whose target has the same blur; the default is that all have.
    """

    fake: Tensor
    target: Tensor
    real: Tensor
    paired: Tensor | None = None


class AdversarialRecipe(Recipe):
    """The base of both trainings: Eq. 9 and 10, and the discriminator's step.

    The perceptual loss compares features of `network` before their activation; without a
    `network`, it is left out.
    """

    def __init__(
        self,
        configuration: AdversarialConfiguration,
        network: FeatureNetwork | None,
        adversarial: str,
    ) -> None:
        super().__init__(configuration)
        self._c = c = configuration
        self.adversarial = ADVERSARIAL[adversarial]
        self.penalised = adversarial == "wgan-gp"
        kind = SpectralVGGDiscriminator if c.discriminator == "spectral" else VGGDiscriminator
        self.discriminator: nn.Module = kind(c.crop, c.discriminator_width)
        self.features = network
        self.helpers = [network] if network is not None else []
        if network is not None:
            network.normalise = True  # as the released extractor does, unlike MSDI-Net's
        self.provenance = {"features": network.name if network is not None else "none"}
        self._patience = Patience()

    def begin(self, role: str, generator: AnyGenerator) -> AnyGenerator:
        """Return `generator`, once it and the discriminator have initial weights and optimisers."""
        self.networks = {role: generator, "discriminator": self.discriminator}
        for network in self.networks.values():
            if self._c.initial_weights == "kaiming":
                initialise_like_esrgan(network, GENERATOR_SCALE if network is generator else 1.0)
            elif self._c.initial_deviation:
                initialise(network, self._c.initial_deviation)
        self.optimizers = {
            role: self.adam(generator),
            "discriminator": self.adam(self.discriminator),
        }
        return generator

    @abstractmethod
    def judged(self, batch: Batch) -> Judged:
        """Return what the generator makes of a batch, and what that is compared with."""

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the generator's loss, or that of the discriminator on the same images."""
        if optimizer == "discriminator":
            return self._discriminator_loss(batch["judged_real"], batch["judged_fake"])
        judged = self.judged(batch)
        batch["judged_real"], batch["judged_fake"] = judged.real, judged.fake.detach()
        return self._generator_loss(judged)

    def _generator_loss(self, judged: Judged) -> tuple[Tensor, Losses]:
        c = self._c
        fake, target, real, _ = judged
        losses: Losses = {}
        total = fake.new_zeros(())
        if self.features is not None and c.perceptual_weight:
            losses["perceptual"] = self.features.distance(fake, self.features(target)).mean()
            total = total + c.perceptual_weight * losses["perceptual"]
        if c.content_weight:
            losses["content"] = self.content(judged).mean()
            total = total + c.content_weight * losses["content"]
        losses["adversarial"] = self.adversarial.generator(self._judge(real), self._judge(fake))
        return total + c.adversarial_weight * losses["adversarial"], losses

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Losses]:
        on_real, on_fake = self._judge(real), self._judge(fake)
        total = self.adversarial.discriminator(on_real, on_fake)
        losses = {"discriminator": total}
        if self.penalised:
            losses["penalty"] = gradient_penalty(
                self.discriminator, real, fake, self._shares(real.device)
            )
            total = total + PENALTY_WEIGHT * losses["penalty"]
        losses["certainty"] = certainty(on_real, on_fake)
        return total, losses

    def check_collapse(self, losses: Mapping[str, float]) -> str:
        """Return a warning if the discriminator has won or lost for several log lines in a row."""
        undecided = self.penalised or FOOLED < losses["certainty"] < CERTAIN
        if not self._patience.ends(not undecided):
            return ""
        what = "tells all crops apart" if losses["certainty"] > 0.5 else "takes real for made"
        return (
            f"the discriminator {what} (certainty {losses['certainty']:.3f}, its loss "
            f"{losses['discriminator']:.3g}): the generator learns little from it; try a lower "
            "--learning-rate or another --adversarial-weight"
        )

    def content(self, judged: Judged) -> Tensor:
        """Return the content loss of each crop, (N,)."""
        return self.distances(judged.fake, judged.target)

    def distances(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the mean distance of the pixels of each pair of crops (N, C, H, W), (N,)."""
        differences = CONTENT_LOSSES[self._c.content_loss](first, second, reduction="none")
        return differences.flatten(1).mean(1)

    def _judge(self, images: Tensor) -> Tensor:
        """Return the logits of the batch of all processes; the relativistic losses take its mean.

        They are float32, since their differences would be coarse in bfloat16.
        """
        return gathered(self.discriminator(images).float())

    def _shares(self, device: torch.device) -> Tensor:
        """Return the weights of real images for the gradient penalty, (N, 1, 1, 1) in [0, 1]."""
        return torch.special.ndtr(self.noise(1, 1, 1)).to(device)


def certainty(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Return how sure a discriminator is: 1 if always right, 0.5 if undecided, 0 if always wrong.

    This is the mean of sigmoid(C(real) - E C(fake)) and 1 - sigmoid(C(fake) - E C(real)), from
    logits.
    """
    real = (on_real - on_fake.mean()).sigmoid().mean()
    fake = (on_real.mean() - on_fake).sigmoid().mean()
    return (real + fake) / 2
