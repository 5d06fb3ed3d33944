"""The training of BGAN and of DBGAN (CVPR 2020, Section 3)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from blurkit.engine.engine import Protocol
from blurkit.errors import UsageError
from blurkit.nn.features import PRE_ACTIVATION, FeatureNetwork
from blurkit.systems.dbgan.adversarial import AdversarialRecipe, Judged
from blurkit.systems.dbgan.config import (
    AdversarialConfiguration,
    BGANConfiguration,
    BGANInputs,
    DBGANConfiguration,
    DBGANInputs,
)
from blurkit.systems.dbgan.networks import BGAN, DBGAN
from blurkit.training.configuration import FeatureInputs, Run
from blurkit.training.recipe import Batch, Plan, ValidationKind, feature_network

PLACE = 16
"""Side in pixels of the regions over which a blurry photo has the same mean as a sharp one."""


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

    def content(self, judged: Judged) -> Tensor:
        """Return the content loss of each crop, (N,); 0 for those that `content_crops` leaves out.

        It compares pixels where the target has the same blur, and elsewhere the means of larger
        regions, which no blur changes.
        """
        fake, target, _, paired = judged
        assert paired is not None
        means = self.distances(F.avg_pool2d(fake, PLACE), F.avg_pool2d(target, PLACE))
        losses = torch.where(paired, self.distances(fake, target), means)
        if self.c.content_crops == "all":
            return losses
        return losses * (paired == (self.c.content_crops == "paired"))

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
        raise UsageError(
            f"--blurry: never used with --real-share {c.real_share:g}, --warm-up {c.warm_up} and "
            f"--iterations {c.iterations}"
        )
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
