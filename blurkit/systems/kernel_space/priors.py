"""The networks and latents that the blind search adjusts in place of an image and a blur.

Eq. 6 and 7 of "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021): x and k are the
outputs of networks for fixed noise. A prior is a module; called with the `RandomSource` of the
search, it returns an image (1, 3, H, W), or a code or kernel (1, ...), in float32.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import SizeRequirement
from blurkit.engine.torch_runner import autocast, channels_last
from blurkit.errors import BlurkitError, UsageError
from blurkit.io.checkpoints import load_checkpoint
from blurkit.nn.blocks import SLOPE, leaky
from blurkit.systems.kernel_space.networks import CodeExtractor
from blurkit.systems.kernel_space.stylegan import StyleGAN2, StyleGANMapping, StyleGANSynthesis
from blurkit.systems.registry import describe_networks, load_networks
from blurkit.systems.search_options import SearchOptions

IMAGE_INPUTS = 8
KERNEL_INPUTS, KERNEL_HIDDEN = 200, 1000
"""The size of SelfDeblur's network for a kernel."""

SPREAD = 0.02
"""Fraction of an estimated starting kernel that is spread evenly: a softmax cannot grow from 0."""


class RandomSource:
    """The random numbers of one search, which depend on its own seed alone."""

    def __init__(self, seed: int, device: torch.device, options: SearchOptions) -> None:
        self.device, self.options = device, options
        self.generator = torch.Generator(device).manual_seed(seed)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers of this shape."""
        return torch.randn(shape, generator=self.generator, device=self.device)

    def noise(self, *shape: int) -> Tensor:
        """Return the input of a network, by the options `input_distribution` and `input_scale`."""
        draw = torch.randn if self.options.input_distribution == "normal" else torch.rand
        drawn = draw(shape, generator=self.generator, device=self.device)
        return self.options.input_scale * drawn

    def perturb(self, noise: Tensor) -> Tensor:
        """Return that input with the noise of one step added."""
        if not self.options.step_noise:
            return noise
        return noise + self.options.step_noise * self.normal(*noise.shape)

    @contextmanager
    def seed_weights(self) -> Iterator[None]:
        """Initialise the modules made in this context from the search's own random numbers."""
        seed = torch.randint(2**62, (), generator=self.generator, device=self.device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(seed))
            yield


class DeepImage(nn.Module):
    """G_x: the image as the output of an untrained network (Deep Image Prior)."""

    noise: Tensor

    def __init__(self, height: int, width: int, dtype: torch.dtype, source: RandomSource) -> None:
        super().__init__()
        self.height, self.width, self.dtype = height, width, dtype
        with source.seed_weights():
            network = ImagePrior(IMAGE_INPUTS, source.options.prior_width)
        # In training mode, as in the released code: statistics are always those of the picture.
        self.network = network.train().to(source.device)
        channels_last(self.network)
        rows, columns = ImagePrior.size.padded(height, width)
        self.register_buffer("noise", source.noise(1, IMAGE_INPUTS, rows, columns))

    def forward(self, source: RandomSource) -> Tensor:
        noise = source.perturb(self.noise).contiguous(memory_format=torch.channels_last)
        *layers, last, sigmoid = self.network.model.children()
        with autocast(source.device, self.dtype):
            for layer in layers:
                noise = layer(noise)
        # bfloat16 has 8 significant bits: as fine as an 8-bit picture only in the darkest tones.
        return sigmoid(last(noise.float()))[:, :, : self.height, : self.width]


class StyleImage(nn.Module):
    """The image that a StyleGAN makes from latents and noise maps (Section 3.3).

    With the option `latents` at `layers`, it is made from normal numbers v for each layer, as in
    the released code; at `sphere`, from one z of length sqrt(d), as in the paper. The photo's side
    is the generator's, divided by an integer. `mean` and `std` are from `StylePrior.fit_gaussian`.
    """

    def __init__(
        self, prior: StylePrior, side: int, mean: Tensor, std: Tensor, source: RandomSource
    ) -> None:
        super().__init__()
        # In a tuple, not as a submodule: the state of a search must not include the generator.
        self._prior, self._fitted = (prior,), (mean, std)
        self.factor = prior.resolution // side
        self.sphere = source.options.latents == "sphere"
        v = source.normal(1, 1 if self.sphere else prior.layers, prior.latent)
        self.v = nn.Parameter(math.sqrt(prior.latent) * F.normalize(v, dim=2) if self.sphere else v)
        maps = [source.normal(1, 1, edge, edge) for edge in prior.noise_sides]
        if len(maps) > 17:  # which the released code leaves at 0
            maps[17].zero_()
        searched = source.options.noise_maps
        self.noises = nn.ParameterList(
            nn.Parameter(noise, requires_grad=number < searched)
            for number, noise in enumerate(maps)
        )
        self.latent_distance: Tensor = self.v.new_zeros(1)

    def forward(self, source: RandomSource) -> Tensor:
        """Return the image of this step; set `latent_distance`, how far its latents are apart."""
        (prior,) = self._prior
        if self.sphere:
            latents = prior.mapping(self.v[:, 0])[:, None].expand(-1, prior.layers, -1)
        else:
            latents = prior.latents(self.v, *self._fitted)
            self.latent_distance = geocross(latents, prior.divisor)
        return bicubic_downsample(prior.image(latents, list(self.noises)), self.factor)


class KnownImage(nn.Module):
    """A known image: only its blur is searched (step B alone)."""

    image: Tensor

    def __init__(self, image: Tensor) -> None:
        super().__init__()
        self.register_buffer("image", image, persistent=False)

    def forward(self, source: RandomSource) -> Tensor:
        return self.image


class BlurPrior(nn.Module):
    """The module that generates the blur of a search."""

    def start_from(self, blur: Tensor) -> None:
        """Make `blur`, a code or kernel (1, ...), the first output instead of a random one."""
        raise NotImplementedError


class DeepCode(BlurPrior):
    """G_k: the code of a kernel space as the output of an untrained network."""

    noise: Tensor
    offset: Tensor

    def __init__(
        self, values: int, rows: int, columns: int, dtype: torch.dtype, source: RandomSource
    ) -> None:
        super().__init__()
        self.dtype = dtype
        # The released code's DIP for codes of 512 values; it is narrower for shorter codes.
        width = min(64, max(8, values // 8))
        with source.seed_weights():
            network = CodeExtractor(width, width, values, blocks=6, bias=True)
        self.network = channels_last(network.to(source.device))
        self.register_buffer("noise", source.noise(1, width, 32 * rows, 32 * columns))
        self.register_buffer("offset", torch.zeros(1, values, rows, columns, device=source.device))

    def forward(self, source: RandomSource) -> Tensor:
        """Return the code of this step, (1, values, rows, columns)."""
        return self._generate(source.perturb(self.noise)) + self.offset

    @torch.no_grad()
    def start_from(self, code: Tensor) -> None:
        """Make `code` the first output: changes of the network's output are added to it."""
        self.offset.copy_(code - self._generate(self.noise))

    def _generate(self, noise: Tensor) -> Tensor:
        noise = noise.contiguous(memory_format=torch.channels_last)
        with autocast(noise.device, self.dtype):
            return self.network(noise).float()


class DeepKernel(BlurPrior):
    """SelfDeblur's kernel ("Neural Blind Deconvolution Using Deep Priors", CVPR 2020), of sum 1."""

    noise: Tensor

    def __init__(self, side: int, source: RandomSource) -> None:
        super().__init__()
        self.side = side
        with source.seed_weights():
            network = nn.Sequential(
                *(nn.Linear(KERNEL_INPUTS, KERNEL_HIDDEN), nn.ReLU6()),
                *(nn.Linear(KERNEL_HIDDEN, side**2), nn.Softmax(1)),
            )
        self.network = network.to(source.device)
        self.register_buffer("noise", source.noise(1, KERNEL_INPUTS))

    def forward(self, source: RandomSource) -> Tensor:
        """Return the kernel of this step, (1, 1, side, side)."""
        return self.network(source.perturb(self.noise)).view(1, 1, self.side, self.side)

    @torch.no_grad()
    def start_from(self, kernel: Tensor) -> None:
        """Make `kernel` (1, 1, side, side), a little spread, the first output by the biases."""
        *hidden, last, _ = self.network
        assert isinstance(last, nn.Linear)
        wanted = (1 - SPREAD) * kernel.flatten(1) + SPREAD / self.side**2
        last.bias.add_((wanted.log() - last(nn.Sequential(*hidden)(self.noise)))[0])


class NoBlur(BlurPrior):
    """The blur of an operator that does not blur: (1, 1), always 0."""

    def __init__(self) -> None:
        super().__init__()
        self.zero = nn.Parameter(torch.zeros(1, 1))

    def forward(self, source: RandomSource) -> Tensor:
        return 0 * self.zero


# ---- Deep image prior ----------------------------------------------------------------------------
# The hourglass network of "Deep Image Prior" (Ulyanov et al., CVPR 2018) with non-local blocks at
# its three smallest sizes, as in the released code of the encoded blur kernel space and with its
# keys, which count layers from 1.

PRIOR_SCALES = 5
SKIP_WIDTH = 16


class ImagePrior(nn.Sequential):
    """Maps noise (N, in_channels, H, W) to images (N, 3, H, W) in [0, 1]; sides from 64 pixels."""

    size = SizeRequirement(minimum=64, multiple=32)
    model: nn.Sequential

    def __init__(self, in_channels: int = 8, width: int = 128) -> None:
        layers = *_level(in_channels, width, 0), nn.Sequential(nn.Conv2d(width, 3, 1)), nn.Sigmoid()
        super().__init__(OrderedDict(model=_number_layers(*layers)))


def _level(in_channels: int, width: int, scale: int) -> list[nn.Module]:
    """Return the layers of one size of the hourglass, including all smaller sizes."""
    skip = _number_layers(*_convolved(in_channels, SKIP_WIDTH, 1))
    deeper = _convolved(in_channels, width, 3, stride=2)
    if scale >= 2:
        deeper.append(NonLocal(width))
    deeper += _convolved(width, width, 3)
    if scale < PRIOR_SCALES - 1:
        deeper.append(_number_layers(*_level(width, width, scale + 1)))
    deeper.append(nn.Upsample(scale_factor=2, mode="bilinear"))
    return [
        ConcatenatedBranches(skip, _number_layers(*deeper)),
        nn.BatchNorm2d(SKIP_WIDTH + width),
        *_convolved(SKIP_WIDTH + width, width, 3),
        *_convolved(width, width, 1),
    ]


def _number_layers(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict((str(i), layer) for i, layer in enumerate(layers, 1)))


def _convolved(inputs: int, outputs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    # Zero padding: the released code requests reflection by a name that it does not recognise.
    convolution = nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
    return [nn.Sequential(convolution), nn.BatchNorm2d(outputs), leaky()]


class ConcatenatedBranches(nn.Sequential):
    """The concatenated outputs of two branches, the larger one cut to its middle."""

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to both branches' channels, at the smaller height and width."""
        parts = [branch(x) for branch in self]
        height, width = (min(part.shape[axis] for part in parts) for axis in (2, 3))
        return torch.cat([cut_to_middle(part, height, width) for part in parts], 1)


def cut_to_middle(images: Tensor, height: int, width: int) -> Tensor:
    """Return images (N, C, H, W) cut to their middle."""
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]


class NonLocal(nn.Module):
    """A non-local block (Wang et al., CVPR 2018) without softmax, initialised to the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = width // 2
        self.g = nn.Sequential(nn.Conv2d(width, inner, 1), nn.MaxPool2d(2))
        last = nn.BatchNorm2d(width)
        nn.init.zeros_(last.weight)
        self.W = nn.Sequential(nn.Conv2d(inner, width, 1), last)
        self.theta = nn.Conv2d(width, inner, 1)
        self.phi = nn.Sequential(nn.Conv2d(width, inner, 1), nn.MaxPool2d(2))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))
        similarity = queries.transpose(1, 2) @ keys / keys.shape[2]
        attended = (similarity @ values.transpose(1, 2)).transpose(1, 2)
        return x + self.W(attended.reshape(*attended.shape[:2], *x.shape[2:]))


# ---- StyleGAN ------------------------------------------------------------------------------------
# A StyleGAN as the prior of blind deblurring: its latents, and the search among them (Section 3.3),
# as released, like "PULSE: Self-Supervised Photo Upsampling via Latent Space Exploration of
# Generative Models" (CVPR 2020). The search is over normal numbers v for each layer:
# w = LeakyReLU(v * std + mean).

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

        `latents` are (N, layers, latent), `noises` (N or 1, 1, side, side), of `noise_sides`.
        """
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
    def step(self) -> None:  # type: ignore[override]
        super().step()
        for group in self.param_groups:
            for variable, radius in zip(group["params"], group["radii"], strict=True):
                variable.mul_(radius.to(variable) / _radius(variable))


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
