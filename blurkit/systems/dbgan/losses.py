"""Adversarial losses on logits, one for each image: of the discriminator and of the generator.

"Deblurring by Realistic Blurring" (CVPR 2020) has the relativistic ones; the others are what its
released code offers, for its DBGAN(-). Logits are (N, 1); the label of real images is 1, of fake
ones 0, as in Eq. 5-6.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

RealismLoss = Callable[[Tensor, bool], Tensor]
"""How far logits are, on average, from saying that the images are real, or that they are not."""


class Adversarial(NamedTuple):
    """The losses of two opponents, each a scalar of the logits of real and of fake images.

    The generator's logits of real images get no gradient; for the discriminator's loss the fake
    images have to be without one.
    """

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]


# -- against fixed labels --------------------------------------------------------------------------


def cross_entropy(logits: Tensor, real: bool) -> Tensor:
    """The mean binary cross-entropy to the label (Goodfellow et al., NIPS 2014)."""
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def squared_error(logits: Tensor, real: bool) -> Tensor:
    """The mean squared distance to the label, without a sigmoid (Mao et al., ICCV 2017)."""
    return F.mse_loss(logits, torch.full_like(logits, float(real)))


def wasserstein(logits: Tensor, real: bool) -> Tensor:
    """The mean logit, negative for real images (Gulrajani et al., NIPS 2017); not bounded."""
    return -logits.mean() if real else logits.mean()


CRITERIA: dict[str, RealismLoss] = {
    "vanilla": cross_entropy,
    "lsgan": squared_error,
    "wgan-gp": wasserstein,
}
"""The traditional criteria by their names; `wgan-gp` wants `gradient_penalty` with it."""


def traditional(criterion: RealismLoss) -> Adversarial:
    """The discriminator tells real from fake images, the generator wants its own taken for real."""
    return Adversarial(
        discriminator=lambda real, fake: criterion(real, True) + criterion(fake, False),
        generator=lambda real, fake: criterion(fake, True),
    )


def gradient_penalty(
    discriminator: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor, share: Tensor
) -> Tensor:
    """The mean of (|gradient| - 1)^2 at share * real + (1 - share) * fake (Gulrajani et al.).

    Images are (N, C, H, W), `share` is (N, 1, 1, 1) in [0, 1]. The gradient is the discriminator's
    by its image, its norm over all values of one. Gradients flow to the discriminator alone.
    """
    images = (share * real + (1 - share) * fake).detach().requires_grad_()
    (gradients,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return (gradients.flatten(1).norm(dim=1) - 1).square().mean()


# -- relativistic ----------------------------------------------------------------------------------


def relativistic_discriminator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Eq. 7: real images are to look more real than the mean fake, fakes less than the mean real.

    Printed as the generator's loss; minimised by it, it would make fakes look faker. The sum of
    both terms, as printed; ESRGAN's training takes half of it.
    """
    return cross_entropy(real - fake.mean(), True) + cross_entropy(fake - real.mean(), False)


def relativistic_generator_loss(real: Tensor, fake: Tensor) -> Tensor:
    """Eq. 7 and 8 with the labels exchanged, which is what the text around them describes.

    It pushes fakes up and pulls what is said of real images down; no gradient flows into `real`.
    """
    real = real.detach()
    return cross_entropy(real - fake.mean(), False) + cross_entropy(fake - real.mean(), True)


ADVERSARIAL: dict[str, Adversarial] = {
    "relativistic": Adversarial(relativistic_discriminator_loss, relativistic_generator_loss),
    **{name: traditional(criterion) for name, criterion in CRITERIA.items()},
}
"""Every adversarial loss by its name."""
