"""Adversarial losses of discriminator and generator, on one logit per image.

The relativistic ones are those of "Deblurring by Realistic Blurring" (CVPR 2020); its released code
offers the others for its DBGAN(-). Logits are (N, 1); real images have the label 1, fake ones 0, as
in Eq. 5-6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

RealismLoss = Callable[[Tensor, bool], Tensor]
"""The mean loss of logits for images that should be judged as real (True) or as fake (False)."""


class Adversarial(NamedTuple):
    """The losses of discriminator and generator, each a scalar from the logits of real and fake.

    In the generator's loss, no gradient flows into the logits of real images. For the
    discriminator's loss, the caller detaches the fake images.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


# -- against fixed labels --------------------------------------------------------------------------


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    """Return the mean binary cross-entropy to the label (Goodfellow et al., NIPS 2014)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def squared_error(logits: Tensor, real: bool) -> Tensor:
    """Return the mean squared distance to the label, without a sigmoid (Mao et al., ICCV 2017)."""
    return F.mse_loss(logits, torch.full_like(logits, float(real)))


def wasserstein(logits: Tensor, real: bool) -> Tensor:
    """Return the mean logit, negated for real images (Gulrajani et al., NIPS 2017); unbounded."""
    return -logits.mean() if real else logits.mean()


CRITERIA: dict[str, RealismLoss] = {
    "vanilla": cross_entropy,
    "lsgan": squared_error,
    "wgan-gp": wasserstein,
}
"""The traditional criteria by name; `wgan-gp` requires `gradient_penalty`."""


def traditional(criterion: RealismLoss) -> Adversarial:
    """Return the losses of a discriminator of real and fake, and of a generator that fools it."""
    return Adversarial(
        discriminator=lambda real, fake: criterion(real, True) + criterion(fake, False),
        generator=lambda real, fake: criterion(fake, True),
    )


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """Return the mean of (|gradient| - 1)^2 at share * real + (1 - share) * fake.

    Images are (N, C, H, W), `share` is (N, 1, 1, 1) in [0, 1]. The gradient is the discriminator's
    with respect to its input; its norm is over all values of one image. Gradients flow to the
    discriminator only (Gulrajani et al.).
    """
    with torch.enable_grad():
        images = (share * real + (1 - share) * fake).detach().requires_grad_()
        (gradients,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return (gradients.flatten(1).norm(dim=1) - 1).square().mean()


# -- relativistic ----------------------------------------------------------------------------------


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return Eq. 7: real images should look more real than the mean fake, fakes less so.

    Each fake is compared with the mean real image. The paper prints Eq. 7 as the generator's loss;
    minimised by the generator, it would make fakes look faker. It is the sum of both terms, as
    printed; ESRGAN's training uses half of it.
    """
    return cross_entropy(real - fake.mean(), True) + cross_entropy(fake - real.mean(), False)


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Return Eq. 7 and 8 with the labels exchanged, as the text around them describes.

    Fakes should look more real than the mean real image, and real images less real than the mean
    fake; no gradient flows into `real`.
    """
    real = real.detach()
    return cross_entropy(real - fake.mean(), False) + cross_entropy(fake - real.mean(), True)


ADVERSARIAL: dict[str, Adversarial] = {
    "relativistic": Adversarial(relativistic_discriminator_loss, relativistic_generator_loss),
    **{name: traditional(criterion) for name, criterion in CRITERIA.items()},
}
"""All adversarial losses by name."""
