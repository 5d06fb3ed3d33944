"""A StyleGAN as the prior of blind deblurring: its latents, and the search among them.

"Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021), Section 3.3, as released, like
"PULSE: Self-Supervised Photo Upsampling via Latent Space Exploration of Generative Models" (CVPR
2020). The search is over normal numbers v for each layer: w = LeakyReLU(v * std + mean).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.blocks import SLOPE
from blurkit.systems.kernel_space.networks import by
from blurkit.systems.kernel_space.stylegan import StyleGAN2, StyleGANMapping, StyleGANSynthesis
from blurkit.systems.registry import describe_networks, load_networks

FIT_BATCH = 8192


class StylePrior(nn.Module):
    """StyleGAN's mapping and synthesis, or StyleGAN2, frozen: one interface to both.

    `layers` is the number of latents of an image, `latent` their length, `resolution` the image's
    side in pixels, `noise_sides` the noise maps' sides, in order, and `divisor` that of `geocross`.
    """

    def __init__(
        self, mapping: nn.Module, synthesis: StyleGANSynthesis | StyleGAN2, divisor: float
    ) -> None:
        super().__init__()
        self.mapping, self.synthesis, self.divisor = mapping, synthesis, divisor
        self.layers, self.resolution = synthesis.layers, synthesis.resolution
        self.latent: int = synthesis.options["latent"]
        self.noise_sides = synthesis.noise_sides
        self.requires_grad_(False).eval()

    @torch.no_grad()
    def fit_gaussian(self, samples: int = 1_000_000, seed: int = 0) -> tuple[Tensor, Tensor]:
        """Return the mean and unbiased standard deviation of the mapping's outputs, each (latent,).

        Outputs are taken before their last LeakyReLU, where they are close to normal. The result is
        the same on every device except for rounding; by default it takes a minute on a processor.
        """
        generator = torch.Generator().manual_seed(seed)
        device = next(self.mapping.parameters()).device
        total = torch.zeros(2, self.latent, dtype=torch.float64, device=device)
        for start in range(0, samples, FIT_BATCH):
            count = min(FIT_BATCH, samples - start)
            noise = torch.randn(count, self.latent, generator=generator)
            # A LeakyReLU of slope 5 undoes one of slope 0.2.
            values = F.leaky_relu(self.mapping(noise.to(device)), 1 / SLOPE).double()
            total += torch.stack([values.sum(0), values.square().sum(0)])
        mean = total[0] / samples
        variance = (total[1] - samples * mean.square()) / (samples - 1)
        return mean.float(), variance.clamp(min=0).sqrt().float()

    def latents(self, v: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Return the latents w (N, layers, latent) for normal numbers v of that shape."""
        return F.leaky_relu(v * std + mean, SLOPE)

    def image(self, latents: Tensor, noises: Sequence[Tensor]) -> Tensor:
        """Return the images (N, 3, resolution, resolution), about [0, 1] but not clamped.

        `latents` are (N, layers, latent), `noises` (N or 1, 1, side, side). Raises UsageError for
        other shapes, as from a search with another generator.
        """
        wanted = (self.layers, self.latent)
        if latents.shape[1:] != wanted:
            raise UsageError(
                f"latents of {by(latents.shape[1:])} for a generator of "
                f"{self.resolution}x{self.resolution} pixels, which takes {by(wanted)}"
            )
        sides = [noise.shape[-1] for noise in noises]
        if sides != self.noise_sides:
            raise UsageError(f"noise maps of sides {sides}; the generator takes {self.noise_sides}")
        return (self.synthesis(latents, noises) + 1) / 2


def load_style_prior(*paths: str | Path) -> StylePrior:
    """Return the prior in a file of StyleGAN2, or in two of StyleGAN's mapping and synthesis.

    Raises BlurkitError for files of other networks, incomplete files, and a missing part.
    """
    checkpoints = [load_checkpoint(path) for path in paths]
    networks = load_networks(*checkpoints)
    by_type = {type(network): network for network in networks.values()}
    generator = by_type.get(StyleGAN2)
    mapping, synthesis = by_type.get(StyleGANMapping), by_type.get(StyleGANSynthesis)
    where = " + ".join(checkpoint.where for checkpoint in checkpoints)
    if isinstance(generator, StyleGAN2):
        return StylePrior(generator.style, generator, divisor=6)
    if isinstance(mapping, StyleGANMapping) and isinstance(synthesis, StyleGANSynthesis):
        given, taken = mapping.options["latent"], synthesis.options["latent"]
        if given != taken:
            raise BlurkitError(
                f"{where}: the mapping gives latents of {given} values, "
                f"the synthesis takes {taken}; they belong to different generators"
            )
        return StylePrior(mapping, synthesis, divisor=8)
    if mapping is not None or synthesis is not None:
        have, need = ("synthesis", "mapping") if mapping is None else ("mapping", "synthesis")
        raise BlurkitError(f"{where}: holds only StyleGAN's {have}; add the file of its {need}")
    raise BlurkitError(f"{where}: holds {describe_networks(networks)}, but no StyleGAN generator")


def geocross(latents: Tensor, divisor: float) -> Tensor:
    """Return how far the latents of an image are from one another on the sphere, (N,).

    `latents` are (N, layers, latent). It is the mean over all pairs of layers of latent * angle^2
    / `divisor`: in the released code, which sums over the batch, 8 for StyleGAN, 6 for StyleGAN2.
    """
    first, second = latents[:, :, None], latents[:, None]
    difference = ((first - second).square().sum(-1) + 1e-9).sqrt()
    total = ((first + second).square().sum(-1) + 1e-9).sqrt()
    angle = 2 * torch.atan2(difference, total)
    return latents.shape[-1] * angle.square().mean((1, 2)) / divisor


def bicubic_downsample(image: Tensor, factor: int) -> Tensor:
    """Return `image` (N, C, H, W) at 1 / `factor` of its size, antialiased, with mirrored borders.

    Cubic convolution (Keys 1981, a = -0.5) over 4 * `factor` pixels a side, as in PULSE for even
    factors; a factor of 1 changes nothing. Raises UsageError for a side of 1.5 * `factor` or less.
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
    """Adam on spheres: each step ends by rescaling a variable to its initial radius.

    The radius is the norm over all dimensions but the first two: each layer's vector of v (N,
    layers, latent) and each noise map (N, 1, side, side) has its own, which is in the state dict.
    """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add variables to the search, on the spheres they are on now."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        group["radii"] = [_radius(variable) for variable in group["params"]]

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Make one step of Adam, then return to the spheres."""
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
    """Return the factor of the learning rate at `step` of `total` (PULSE's `linear1cycledrop`).

    In 9 / 10 of the steps it rises from 0.1 to 1 and falls again, then it falls to 0.001.
    """
    cycle = 0.9 * total
    if step < cycle:
        return (9 * (1 - 2 * abs(step / cycle - 0.5)) + 1) / 10
    return 0.1 + (0.001 - 0.1) * (step - cycle) / (total - cycle)
