"""The training of BGAN and of DBGAN (CVPR 2020, Section 3)."""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import UsageError
from blurkit.nn.blocks import initialise
from blurkit.nn.features import PRE_ACTIVATION, FeatureNetwork
from blurkit.systems.dbgan import config
from blurkit.systems.dbgan.networks import BGAN, DBGAN, SpectralVGGDiscriminator, VGGDiscriminator
from blurkit.training.configuration import FeatureInputs, Run
from blurkit.training.recipe import Batch, Losses, Patience, Plan, Recipe, feature_network, weighted
from blurkit.training.steps import gather_values

# ---- Adversarial training ------------------------------------------------------------------------


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
    """The base of both trainings (Section 3.4): Eq. 9 and 10, and the discriminator's step."""

    def __init__(
        self, c: config.AdversarialConfiguration, network: FeatureNetwork | None, adversarial: str
    ) -> None:
        super().__init__(c)
        self.c = c
        self.adversarial = ADVERSARIAL[adversarial]
        self.penalised = adversarial == "wgan-gp"
        kind = SpectralVGGDiscriminator if c.discriminator == "spectral" else VGGDiscriminator
        self.discriminator: nn.Module = kind(c.crop, c.discriminator_width)
        self.use_features(network)
        if network is not None:
            network.normalise = True  # as the released extractor does, unlike MSDI-Net's
        self._patience = Patience()

    def begin(self, role: str, generator: nn.Module) -> None:
        """Give `generator` and the discriminator initial weights and optimisers."""
        self.networks = {role: generator, "discriminator": self.discriminator}
        for network in self.networks.values():
            if self.c.initial_weights == "kaiming":  # a tenth, as in the released code (ESRGAN's)
                initialise(network, kaiming=0.1 if network is generator else 1.0)
            elif self.c.initial_deviation:
                initialise(network, self.c.initial_deviation)
        self.optimizers = {name: self.adam(network) for name, network in self.networks.items()}

    @abstractmethod
    def judged(self, batch: Batch) -> Judged:
        """Return what the generator makes of a batch, and what that is compared with."""

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the generator's loss, or that of the discriminator on the same images."""
        if optimizer == "discriminator":
            return self._discriminator_loss(batch["judged_real"], batch["judged_fake"])
        judged = self.judged(batch)
        batch["judged_real"], batch["judged_fake"] = judged.real, judged.fake.detach()
        c, (fake, target, real, _) = self.c, judged
        terms: dict[str, tuple[float, Tensor]] = {}
        if self.features is not None and c.perceptual_weight:
            perceptual = self.features.distance(fake, self.features(target)).mean()
            terms["perceptual"] = c.perceptual_weight, perceptual
        if c.content_weight:
            terms["content"] = c.content_weight, self.content(judged).mean()
        adversarial = self.adversarial.generator(self._judge(real), self._judge(fake))
        return weighted({**terms, "adversarial": (c.adversarial_weight, adversarial)})

    def _discriminator_loss(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Losses]:
        on_real, on_fake = self._judge(real), self._judge(fake)
        total = self.adversarial.discriminator(on_real, on_fake)
        losses = {"discriminator": total}
        if self.penalised:
            share = torch.special.ndtr(self.noise(1, 1, 1)).to(real.device)
            losses["penalty"] = gradient_penalty(self.discriminator, real, fake, share)
            total = total + 10 * losses["penalty"]  # as in its paper
        losses["certainty"] = certainty(on_real, on_fake)
        return total, losses

    def check_collapse(self, losses: Mapping[str, float]) -> str:
        """Return a warning if the discriminator has won or lost for several log lines in a row."""
        undecided = self.penalised or 0.05 < losses["certainty"] < 0.999
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
        distance = F.mse_loss if self.c.content_loss == "l2" else F.l1_loss
        return distance(first, second, reduction="none").flatten(1).mean(1)

    def _judge(self, images: Tensor) -> Tensor:
        """Return the logits of all processes' crops; the relativistic losses take their mean."""
        return gather_values(self.discriminator(images).float())  # differences need float32


def certainty(on_real: Tensor, on_fake: Tensor) -> Tensor:
    """Return how sure a discriminator is: 1 if always right, 0.5 if undecided, 0 if always wrong.

    This is the mean of sigmoid(C(real) - E C(fake)) and 1 - sigmoid(C(fake) - E C(real)).
    """
    real = (on_real - on_fake.mean()).sigmoid().mean()
    fake = (on_real.mean() - on_fake).sigmoid().mean()
    return (real + fake) / 2


# ---- Recipes and plans ---------------------------------------------------------------------------

PLACE = 16
"""Side in pixels of the regions over which a blurry photo has the same mean as a sharp one."""


class BGANRecipe(AdversarialRecipe):
    """BGAN by Eq. 9: blurry images that show the sharp ones and look like real blurry photos.

    The real images are the records' own blurry ones; after the warm-up, those of a fraction of the
    crops are unrelated photos, `real` in a batch. A crop's target is its own blurry image if that
    is the real one, else its sharp image.
    """

    validation = "draws"
    c: config.BGANConfiguration

    def __init__(self, c: config.BGANConfiguration, network: FeatureNetwork | None = None) -> None:
        super().__init__(c, network, "relativistic")
        if not c.warm_up and c.real_share == 1:
            self.images = ("sharp",)
        self.generator = BGAN(c.width, c.blocks, c.noise_length)
        self.begin("bgan", self.generator)

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
    """DBGAN by Eq. 10; `minus` has a traditional loss, for `plus` the loop adds a BGAN's blur."""

    protocol = DBGAN.protocol

    def __init__(self, c: config.DBGANConfiguration, network: FeatureNetwork | None = None) -> None:
        minus = c.variant == "minus"
        super().__init__(c, network, c.traditional_loss if minus else "relativistic")
        self.generator = DBGAN(c.width, c.blocks, c.growth)
        self.begin("deblur", self.generator)

    def judged(self, batch: Batch) -> Judged:
        """Return restored images, to be compared with the sharp ones in every respect."""
        sharp = batch["sharp"]
        return Judged(self.generator(batch["blur"]), sharp, sharp)


def plan_bgan(
    inputs: config.BGANInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan of BGAN. Raises UsageError if blurry photos are missing or never used."""
    c = config.BGANConfiguration.resolve(preset, **overrides)
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
    inputs: FeatureInputs, preset: str, overrides: Mapping[str, Any], run: Run, dry_run: bool
) -> Plan:
    """Return the plan of DBGAN. Raises UsageError unless plus and a BGAN come together."""
    c = config.DBGANConfiguration.resolve(preset, **overrides)
    if (c.variant == "plus") != ("bgan" in run.augmentations):
        raise UsageError("--variant plus and --bgan FILE require each other with --system dbgan")
    return Plan(c, partial(DBGANRecipe, c, _features(c, inputs, run, dry_run)))


def _features(
    c: config.AdversarialConfiguration, inputs: FeatureInputs, run: Run, dry_run: bool
) -> FeatureNetwork | None:
    """Return the feature network of the perceptual loss, which compares pre-activation features."""
    want = c.perceptual if c.perceptual_weight else "none"
    return feature_network(want, inputs.features, run.quiet, dry_run, [PRE_ACTIVATION])


# ---- Losses --------------------------------------------------------------------------------------
# Adversarial losses, on one logit per image. The relativistic ones are those of "Deblurring by
# Realistic Blurring" (CVPR 2020); its released code offers the others for its DBGAN(-). Logits are
# (N, 1); real images have the label 1, fake ones 0, as in Eq. 5-6.


class Adversarial(NamedTuple):
    """The losses of discriminator and generator, each a scalar from the logits of real and fake.

    No gradient flows into the generator's logits of real images; a caller detaches fake ones for
    the discriminator's loss.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    """Return the mean binary cross-entropy to the label (Goodfellow et al., NIPS 2014)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def squared_error(logits: Tensor, real: bool) -> Tensor:
    """Return the mean squared distance to the label, without a sigmoid (Mao et al., ICCV 2017)."""
    return F.mse_loss(logits, torch.full_like(logits, float(real)))


def wasserstein(logits: Tensor, real: bool) -> Tensor:
    """Return the mean logit, negated for real images (Gulrajani et al., NIPS 2017); unbounded."""
    return -logits.mean() if real else logits.mean()


CRITERIA = {"vanilla": cross_entropy, "lsgan": squared_error, "wgan-gp": wasserstein}
"""The traditional criteria by name."""


def traditional(criterion: Callable[[Tensor, bool], Tensor]) -> Adversarial:
    """Return the losses by `criterion`, a mean loss of logits that are real (True) or fake."""
    return Adversarial(
        discriminator=lambda real, fake: criterion(real, True) + criterion(fake, False),
        generator=lambda real, fake: criterion(fake, True),
    )


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """Return the mean of (|gradient| - 1)^2 at share * real + (1 - share) * fake.

    Images are (N, C, H, W), `share` is (N, 1, 1, 1) in [0, 1]. The gradient is the discriminator's,
    to which alone gradients flow; its norm is over all values of one image (Gulrajani et al.).
    """
    with torch.enable_grad():
        images = (share * real + (1 - share) * fake).detach().requires_grad_()
        (gradients,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return (gradients.flatten(1).norm(dim=1) - 1).square().mean()


def relativistic(real: Tensor, fake: Tensor, exchanged: bool = False) -> Tensor:
    """Return Eq. 7: real images should look more real than the mean fake, fakes less so.

    Each fake is compared with the mean real image. The paper prints Eq. 7 as the generator's loss,
    which would make fakes look faker; as its text describes, the generator minimises Eq. 7 and 8
    with labels `exchanged`. It is the sum of both terms, as printed; ESRGAN uses half of it.
    """
    on_real = cross_entropy(real - fake.mean(), not exchanged)
    return on_real + cross_entropy(fake - real.mean(), exchanged)


ADVERSARIAL = {
    "relativistic": Adversarial(
        discriminator=relativistic,
        generator=lambda real, fake: relativistic(real.detach(), fake, exchanged=True),
    ),
    **{name: traditional(criterion) for name, criterion in CRITERIA.items()},
}
"""All adversarial losses by name; `wgan-gp` requires `gradient_penalty`."""
