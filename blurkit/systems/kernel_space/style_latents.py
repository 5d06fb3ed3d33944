"""A StyleGAN as the prior of blind deblurring: its latents, and the search among them.

Section 3.3 of "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021) as the released
code does it, which follows PULSE ("PULSE: Self-Supervised Photo Upsampling via Latent Space
Exploration of Generative Models", CVPR 2020). Searched are normal numbers v, one vector for each
layer of the generator: w = LeakyReLU(v * std + mean).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.blocks import SLOPE
from blurkit.systems.kernel_space.stylegan import StyleGANMapping, StyleGANSynthesis
from blurkit.systems.kernel_space.stylegan2 import StyleGAN2
from blurkit.systems.roles import held, load_networks

FIT_BATCH = 8192


class StylePrior(nn.Module):
    """StyleGAN's mapping and synthesis, or StyleGAN2, frozen: one interface to both.

    `layers` is the number of latents of an image, `latent` their length, `resolution` the image's
    side in pixels, `noise_sides` those of the noise maps, in order, and `divisor` what the released
    code divides `geocross` by. Raises BlurkitError when mapping and synthesis do not fit together.
    """

    def __init__(
        self, mapping: nn.Module, synthesis: StyleGANSynthesis | StyleGAN2, divisor: float
    ) -> None:
        super().__init__()
        self.mapping, self.synthesis, self.divisor = mapping, synthesis, divisor
        self.layers, self.resolution = synthesis.layers, synthesis.resolution
        self.latent: int = synthesis.options["latent"]
        self.noise_sides = synthesis.noise_sides
        if isinstance(mapping, StyleGANMapping) and mapping.options["latent"] != self.latent:
            raise BlurkitError(
                f"the mapping gives latents of {mapping.options['latent']} values, "
                f"the synthesis takes {self.latent}; they are not of one generator"
            )
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def fit_gaussian(self, samples: int = 1_000_000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Mean and unbiased standard deviation, each (latent,), of what the mapping gives.

        Its outputs are taken before their last LeakyReLU, where they are close to normal. The same
        on every device but for rounding; a minute on a processor by default.
        """
        generator = torch.Generator().manual_seed(seed)
        device = next(self.mapping.parameters()).device
        total = torch.zeros(2, self.latent, dtype=torch.float64, device=device)
        for start in range(0, samples, FIT_BATCH):
            count = min(FIT_BATCH, samples - start)
            noise = torch.randn(count, self.latent, generator=generator)
            # Of slope 0.2, what undoes it has slope 5.
            values = F.leaky_relu(self.mapping(noise.to(device)), 1 / SLOPE).double()
            total += torch.stack([values.sum(0), values.square().sum(0)])
        mean = total[0] / samples
        variance = (total[1] - samples * mean.square()) / (samples - 1)
        return mean.float(), variance.clamp(min=0).sqrt().float()

    def latents(self, v: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """The latents w (N, layers, latent) of normal numbers v of that shape."""
        return F.leaky_relu(v * std + mean, SLOPE)

    def image(self, latents: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """The images (N, 3, resolution, resolution), about [0, 1] but not clamped.

        `latents` are (N, layers, latent), `noises` (N or 1, 1, side, side). Raises UsageError for
        others, such as those that were searched with another generator.
        """
        wanted = (self.layers, self.latent)
        if latents.shape[1:] != wanted:
            raise UsageError(
                f"latents of {_by(latents.shape[1:])} for a generator of "
                f"{self.resolution}x{self.resolution} pixels, which takes {_by(wanted)}"
            )
        sides = [noise.shape[-1] for noise in noises]
        if sides != self.noise_sides:
            raise UsageError(f"noise maps of sides {sides}; the generator takes {self.noise_sides}")
        image: Tensor = (self.synthesis(latents, noises) + 1) / 2
        return image


def _by(sizes: Sequence[int]) -> str:
    return "x".join(map(str, sizes))


def load_style_prior(*paths: str | Path) -> StylePrior:
    """The prior in one StyleGAN2 file, or in StyleGAN's two (mapping and synthesis, in any order).

    Raises BlurkitError for files of other networks, that are not whole, or that lack a part.
    """
    checkpoints = [load_checkpoint(path) for path in paths]
    networks = load_networks(*checkpoints)
    found = {type(network): network for network in networks.values()}
    generator = found.get(StyleGAN2)
    mapping, synthesis = found.get(StyleGANMapping), found.get(StyleGANSynthesis)
    where = " + ".join(checkpoint.where for checkpoint in checkpoints)
    if isinstance(generator, StyleGAN2):
        return StylePrior(generator.style, generator, divisor=6)
    if mapping is not None and isinstance(synthesis, StyleGANSynthesis):
        try:
            return StylePrior(mapping, synthesis, divisor=8)
        except BlurkitError as error:
            raise BlurkitError(f"{where}: {error}") from error
    if mapping is not None or synthesis is not None:
        have, need = ("synthesis", "mapping") if mapping is None else ("mapping", "synthesis")
        raise BlurkitError(f"{where}: holds StyleGAN's {have} alone; name the file of its {need}")
    raise BlurkitError(f"{where}: holds {held(networks)}, but no StyleGAN generator")


# -- the search ------------------------------------------------------------------------------------


def geocross(latents: Tensor, divisor: float) -> Tensor:
    """How far the latents of an image are from one another on the sphere, (N,).

    `latents` are (N, layers, latent). The mean over all pairs of layers of latent * angle^2,
    divided by `divisor`: 8 for StyleGAN, 6 for StyleGAN2 in the released code, which sums over the
    batch.
    """
    first, second = latents[:, :, None], latents[:, None]
    apart = ((first - second).square().sum(-1) + 1e-9).sqrt()
    together = ((first + second).square().sum(-1) + 1e-9).sqrt()
    angle = 2 * torch.atan2(apart, together)
    return latents.shape[-1] * angle.square().mean((1, 2)) / divisor


def bicubic_downsample(image: Tensor, factor: int) -> Tensor:
    """`image` (N, C, H, W) at 1 / `factor` of its size, antialiased, its border mirrored.

    Cubic convolution (Keys 1981, a = -0.5) over 4 * `factor` pixels a side, as PULSE does it for
    even factors; 1 changes nothing. Raises UsageError for a side of 1.5 * `factor` or less.
    """
    height, width = image.shape[-2:]
    before, after = 3 * factor // 2, 3 * factor - 3 * factor // 2
    if min(height, width) <= after:
        raise UsageError(f"an image of {width}x{height} is too small to be made {factor}x smaller")
    x = ((torch.arange(4 * factor) - before - factor / 2 + 0.5) / factor).abs()
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    taps = torch.where(x <= 1, near, far)
    taps = (taps / taps.sum()).to(image).expand(image.shape[1], 1, 1, -1)
    down = F.pad(image, (0, 0, before, after), mode="reflect")
    down = F.conv2d(down, taps.transpose(2, 3), stride=(factor, 1), groups=len(taps))
    across = F.pad(down, (before, after, 0, 0), mode="reflect")
    return F.conv2d(across, taps, stride=(1, factor), groups=len(taps))


class SphericalAdam(torch.optim.Adam):
    """Adam on spheres: after each step a variable is scaled back to the radius it began with.

    The radius is the norm over all dimensions but the first two, so each layer's vector of v
    (N, layers, latent) and each noise map (N, 1, side, side) has its own. Radii are part of the
    state dict. Takes what `torch.optim.Adam` takes.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Variables to be searched too, on the spheres they are on now."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["radii"] = [_radius(variable) for variable in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step of Adam, then back to the spheres."""
        loss = super().step(closure)
        for group in self.param_groups:
            for variable, radius in zip(group["params"], group["radii"], strict=True):
                variable.mul_(radius.to(variable) / _radius(variable))
        return loss


@torch.no_grad()
def _radius(variable: Tensor) -> Tensor:
    squares = variable.square().flatten(2).sum(2) + 1e-9
    return squares.sqrt().reshape(*squares.shape, *[1] * (variable.dim() - 2))


def one_cycle_drop(step: int, total: int) -> float:
    """The factor of the learning rate at `step` of `total`: 0.1 up to 1 and down, then to 0.001.

    Up and down take 9 / 10 of the steps, the drop the last tenth (`linear1cycledrop` of PULSE).
    """
    cycle = 0.9 * total
    if step < cycle:
        return (9 * (1 - 2 * abs(step / cycle - 0.5)) + 1) / 10
    return 0.1 + (0.001 - 0.1) * (step - cycle) / (total - cycle)
