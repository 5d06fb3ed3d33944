"""The networks and latents that the blind search adjusts in place of an image and a blur.

Eq. 6 and 7 of "Explore Image Deblurring via Encoded Blur Kernel Space" (CVPR 2021): x and k are the
outputs of networks for fixed noise. A prior is a module; called with the `RandomSource` of the
search, it returns an image (1, 3, H, W), or a code or kernel (1, ...), in float32.
"""

import math
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.engine import SizeRequirement
from blurkit.engine.torch_runner import autocast, channels_last
from blurkit.nn.blocks import leaky
from blurkit.systems.kernel_space.networks import CodeExtractor
from blurkit.systems.kernel_space.style_prior import StylePrior, bicubic_downsample, geocross
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
