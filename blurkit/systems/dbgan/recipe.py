"""The training of BGAN and DBGAN (CVPR 2020, Section 3): generator and discriminator alternate."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import Protocol
from blurkit.errors import UsageError
from blurkit.nn.features import PRE_ACTIVATION, FeatureNetwork
from blurkit.systems.dbgan.config import (
    AdversarialConfiguration,
    BGANConfiguration,
    BGANInputs,
    DBGANConfiguration,
    DBGANInputs,
)
from blurkit.systems.dbgan.discriminators import SpectralVGGDiscriminator, VGGDiscriminator
from blurkit.systems.dbgan.losses import ADVERSARIAL, gradient_penalty
from blurkit.systems.dbgan.networks import BGAN, DBGAN, initialise
from blurkit.training.configuration import FeatureInputs, Run
from blurkit.training.features import feature_network
from blurkit.training.portions import gathered
from blurkit.training.recipe import (
    Batch,
    Losses,
    Plan,
    Recipe,
    ValidationKind,
)

CONTENT_LOSSES: dict[str, Callable[..., Tensor]] = {"l2": F.mse_loss, "l1": F.l1_loss}

PENALTY_WEIGHT = 10.0
"""The weight of wgan-gp's gradient penalty, as in its paper."""

PLACE = 16
"""Side in pixels of the regions over which a blurry photo has the same mean as a sharp one."""

CERTAIN = 0.999
"""The certainty of a discriminator above which the generator learns nothing from it."""

FOOLED = 0.05
"""The certainty below which a discriminator is as sure of the opposite."""

PATIENCE = 3
"""Consecutive log lines that count as a collapse; a single batch of four shows little."""

AnyGenerator = TypeVar("AnyGenerator", BGAN, DBGAN)


class Judged(NamedTuple):
    """Images that a generator made, and what they are compared with, all (N, 3, H, W).

    `target` is the content that `fake` should show, `real` the look that it should have. `paired`
    (N,) of bool says which crops are compared pixel by pixel; of the others, only the means of
    larger regions are compared, which no blur changes. The default is that all are paired.
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
        self._suspicious = 0

    def begin(self, role: str, generator: AnyGenerator) -> AnyGenerator:
        """Return `generator`, once it and the discriminator have initial weights and optimisers."""
        self.networks = {role: generator, "discriminator": self.discriminator}
        for network in self.networks.values():
            if self._c.initial_deviation:
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
        return self._generator_loss(*judged)

    def _generator_loss(
        self, fake: Tensor, target: Tensor, real: Tensor, paired: Tensor | None
    ) -> tuple[Tensor, Losses]:
        c = self._c
        losses: Losses = {}
        total = fake.new_zeros(())
        if self.features is not None and c.perceptual_weight:
            losses["perceptual"] = self.features.distance(fake, self.features(target)).mean()
            total = total + c.perceptual_weight * losses["perceptual"]
        if c.content_weight:
            losses["content"] = self._content(fake, target, paired).mean()
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
        if self.penalised or FOOLED < losses["certainty"] < CERTAIN:
            self._suspicious = 0
            return ""
        self._suspicious += 1
        if self._suspicious != PATIENCE:
            return ""
        what = "tells all crops apart" if losses["certainty"] > 0.5 else "takes real for made"
        return (
            f"the discriminator {what} (certainty {losses['certainty']:.3f}, its loss "
            f"{losses['discriminator']:.3g}): the generator learns little from it; try a lower "
            "--learning-rate or another --adversarial-weight"
        )

    def _content(self, fake: Tensor, target: Tensor, paired: Tensor | None) -> Tensor:
        """Return the distance of each crop's pixels, or of the means of its regions, (N,)."""

        def distances(first: Tensor, second: Tensor) -> Tensor:
            differences = CONTENT_LOSSES[self._c.content_loss](first, second, reduction="none")
            return differences.flatten(1).mean(1)

        if paired is None:
            return distances(fake, target)
        coarse = distances(F.avg_pool2d(fake, PLACE), F.avg_pool2d(target, PLACE))
        return torch.where(paired, distances(fake, target), coarse)

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


class BGANRecipe(AdversarialRecipe):
    """BGAN by Eq. 9: blurry images that show the sharp ones and look like real blurry photos.

    The real images are the records' own blurry ones; after the warm-up, those of a fraction of the
    crops are unrelated photos, `real` in a batch. A crop's target is its own blurry image if that
    is the real one, else its sharp image.
    """

    validation: ValidationKind = "draws"

    def __init__(
        self, configuration: BGANConfiguration, network: FeatureNetwork | None = None
    ) -> None:
        super().__init__(configuration, network, "relativistic")
        c = self.c = configuration
        if not c.warm_up and c.real_share == 1:
            self.images = ("sharp",)
        self.generator = self.begin("bgan", BGAN(c.width, c.blocks, c.noise_length))

    def judged(self, batch: Batch) -> Judged:
        """Return new blurry images, with a new noise vector for each crop."""
        c, sharp = self.c, batch["sharp"]
        drawn = self.noise(c.noise_tries * c.noise_length + 1).to(sharp.device)
        noise = drawn[:, :-1].unflatten(1, (c.noise_tries, c.noise_length))
        target, real = sharp, batch.get("real", sharp)
        paired = torch.zeros_like(drawn[:, -1], dtype=torch.bool)
        if "blur" in batch:
            share = 0.0 if self.drawing[0] < c.warm_up else c.real_share
            paired = torch.special.ndtr(drawn[:, -1]) >= share
            where = paired[:, None, None, None]
            target, real = (torch.where(where, batch["blur"], other) for other in (sharp, real))
        chosen = self._nearest(sharp, target, noise) * paired
        fake = self.generator(sharp, noise[torch.arange(len(noise)), chosen])
        return Judged(fake, target, real, paired)

    @torch.no_grad()
    def _nearest(self, sharp: Tensor, target: Tensor, noise: Tensor) -> Tensor:
        """Return, per crop, the index of the noise vector that comes nearest to its target, (N,).

        `noise` is (N, tries, L). Each vector thus specialises in the blurs that it makes best, not
        in the mean of all (the best-of-many loss of Gupta et al., CVPR 2018).
        """
        if noise.shape[1] == 1:
            return torch.zeros(len(noise), dtype=torch.long, device=noise.device)
        errors = [
            (self.generator(sharp, z) - target).abs().flatten(1).mean(1) for z in noise.unbind(1)
        ]
        return torch.stack(errors).argmin(0)


class DBGANRecipe(AdversarialRecipe):
    """DBGAN by Eq. 10; `variant="minus"` has a traditional adversarial loss.

    For `plus`, the training loop adds the blur of a BGAN to the batches.
    """

    protocol: Protocol = "whole"

    def __init__(
        self, configuration: DBGANConfiguration, network: FeatureNetwork | None = None
    ) -> None:
        c = self.c = configuration
        minus = c.variant == "minus"
        super().__init__(configuration, network, c.traditional_loss if minus else "relativistic")
        self.generator = self.begin("deblur", DBGAN(c.width, c.blocks, c.growth))

    def judged(self, batch: Batch) -> Judged:
        """Return restored images, to be compared with the sharp ones in every respect."""
        sharp = batch["sharp"]
        return Judged(self.generator(batch["blur"]), sharp, sharp)


def plan_bgan(
    inputs: BGANInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan for training BGAN; see `tasks.train.plan_training`.

    Raises UsageError if blurry photos are missing or would never be used.
    """
    c = BGANConfiguration.resolve(preset, **overrides)
    if "bgan" in run.augmentations:
        raise UsageError("--bgan is not an option of --system bgan")
    only_own = c.warm_up >= c.iterations or c.real_share == 0
    if not inputs.blurry and not only_own:
        raise UsageError(
            "--blurry SHARDS: name the blurry photos to learn from (blurkit prepare photos/ -o "
            "blurry/), or use --real-share 0 to learn from the records' own blur only"
        )
    if inputs.blurry and only_own:
        raise UsageError("--blurry: never used with --real-share 0 or so long a --warm-up")
    features = _features(c, inputs, run, dry_run)
    return Plan(c, partial(BGANRecipe, c, features), [*map(Path, inputs.blurry)])


def plan_dbgan(
    inputs: DBGANInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan for training DBGAN; see `tasks.train.plan_training`.

    Raises UsageError for variant plus without a BGAN, and for another variant with one.
    """
    c = DBGANConfiguration.resolve(preset, **overrides)
    if (c.variant == "plus") != ("bgan" in run.augmentations):
        raise UsageError("--variant plus and --bgan FILE require each other with --system dbgan")
    return Plan(c, partial(DBGANRecipe, c, _features(c, inputs, run, dry_run)))


def _features(
    c: AdversarialConfiguration, inputs: FeatureInputs, run: Run, dry_run: bool
) -> FeatureNetwork | None:
    """Return the feature network of the perceptual loss, which compares pre-activation features."""
    want = c.perceptual if c.perceptual_weight else "none"
    return feature_network(want, inputs.features, run.quiet, dry_run, [PRE_ACTIVATION])
