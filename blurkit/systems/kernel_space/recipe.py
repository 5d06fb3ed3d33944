"""Training of F and G of the encoded blur kernel space (CVPR 2021, Section 3.1)."""

import math
from collections.abc import Callable, Sequence

from torch import Tensor

from blurkit.nn.blocks import charbonnier
from blurkit.systems.kernel_space.config import CODE_STRIDE, KernelSpaceConfiguration
from blurkit.systems.kernel_space.networks import EncodedBlur, KernelSpace, LightKernelSpace
from blurkit.training.recipe import Batch, Losses, Recipe, States, weighted

SUMMED_LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "charbonnier": lambda image, target: charbonnier(image, target).sum(),
    "l1": lambda image, target: (image - target).abs().sum(),
    "l2": lambda image, target: (image - target).square().sum(),
}


class KernelSpaceRecipe(Recipe):
    """Trains F and G together to minimise the distance of F(x, G(x, y)) to y (Eq. 4).

    With `variational` the code is drawn around its mean, and the loss includes the KL divergence of
    G's distribution from the standard normal. Losses are logged per crop.
    """

    validation = "reblurs"

    def __init__(self, c: KernelSpaceConfiguration) -> None:
        super().__init__(c)
        self.c = c
        self.network: EncodedBlur
        if c.network == "light":
            self.network = LightKernelSpace(c.width, c.code_length, c.back_blocks, c.variational)
        else:
            blocks = c.front_blocks, c.back_blocks, c.code_blocks
            self.network = KernelSpace(c.width, c.code_length, *blocks, c.variational)
        self.networks = {"kernel_space": self.network}
        self.optimizers = {"kernel_space": self.adam(self.network)}

    def may_differ(self, own: States, given: States) -> set[str]:
        """Return the keys of G's layers that a VAE widens, which start anew, as released."""
        head = (self.network.head,) if self.c.variational else ()
        both = [key for key in own.keys() & given.keys() if key.startswith(head)]
        return {key for key in both if own[key].shape != given[key].shape}

    def learning_rate(self, optimizer: str, step: int) -> float:
        """Return the learning rate at `step`: cosines, one after another."""
        c = self.c
        return cosine_with_restarts(
            step, c.learning_rate, c.final_learning_rate, c.restart_steps, c.iterations
        )

    def loss(self, optimizer: str, batch: Batch) -> tuple[Tensor, Losses]:
        """Return the distance from y and, with `variational`, the KL divergence."""
        blur, sharp = batch["blur"], batch["sharp"]
        noise = None
        if self.c.variational:
            places = [side // CODE_STRIDE for side in sharp.shape[-2:]]
            noise = self.noise(self.c.code_length, *places).to(sharp.device)
        result = self.network(sharp, blur, noise)
        name: str = self.c.pixel_loss
        distance = SUMMED_LOSSES[name](result.image.float(), blur) / len(blur)
        terms = {name: (self.c.pixel_weight, distance)}
        if self.c.variational:
            divergence = kl_divergence(result.code, result.deviation) / len(blur)
            terms["kl"] = self.c.kl_weight, divergence
        total, losses = weighted(terms)
        return total * self.c.batch, losses


def cosine_with_restarts(
    step: int, first: float, last: float, restarts: Sequence[int], steps: int
) -> float:
    """Return the learning rate at `step`: cosines from `first` to `last`, restarted at `restarts`.

    A cosine also ends at `steps`, so that a shorter run ends at `last` too. As in the released
    scheduler, it begins one step after its restart: all but the first end one step before `last`.
    """
    begun = [restart for restart in restarts if restart < step]
    begin = begun[-1] if begun else 0
    end = min(next((restart for restart in restarts if restart > begin), steps), steps)
    fraction = min((step - begin - bool(begun)) / max(1, end - begin), 1.0)
    return last + (first - last) * (1 + math.cos(math.pi * fraction)) / 2


# ---- Losses --------------------------------------------------------------------------------------


def kl_divergence(mean: Tensor, deviation: Tensor) -> Tensor:
    """Return the KL term of the VAE, twice the divergence from N(0, 1), summed over all values.

    `deviation` may have either sign. The released code has this (weight 10), the paper does not.
    """
    variance = deviation.square()
    return (mean.square() + variance - (variance + 1e-8).log() - 1).sum()
