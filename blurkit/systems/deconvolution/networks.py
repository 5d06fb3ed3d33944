"""A learned deconvolution network: it selects from inverse images and repairs the rest.

An unrolled network in the manner of half-quadratic splitting, after USRNet (Zhang, Van Gool and
Timofte, "Deep unfolding network for image super-resolution", CVPR 2020) and DWDN (Dong, Roth and
Schiele, "Deep Wiener deconvolution", NeurIPS 2020); docs/deconvolution.md describes its steps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from blurkit.engine.torch_runner import full_precision
from blurkit.nn.blocks import zero
from blurkit.systems.deconvolution.fourier import (
    centred_transfer,
    divergence,
    framed,
    gradient_power,
    gradients,
    irfft2,
    rfft2,
    unframed,
)
from blurkit.systems.system import Shapes

WIDTHS = (32, 64, 96, 128)
STRENGTHS = (-1.0, 1.0, 3.0)
"""Initial logarithms of the first step's regularisation, in units of the noise's variance."""

TIES = (0.0, 2.5)
"""Initial logarithms of the weight of the first step's image in the second step."""

SMOOTH_SCALE = 0.02
"""Mean gradient of pictures that total variation assumes: its strength is this divided by a
variance."""

SMOOTH_NOISE = 2.5e-3
"""Smallest standard deviation of the error, in addition to noise, that a kernel leaves
unexplained."""

SMOOTH_BETAS = (1.0, 4.0, 16.0, 64.0)
"""Weights of total variation's half-quadratic steps: fewer than when it is used alone."""

BETAS = tuple((2 * 2**0.5) ** step for step in range(6))
"""The weights of Krishnan and Fergus's half-quadratic steps: from 1 to below 256."""

DARKEST, BRIGHTEST = 1e-4, 1.5
"""Range to which pixel values are clamped before they are raised to a power."""

PAIRS = {2: torch.int32, 4: torch.int64, 8: torch.complex128}
"""Types that hold two numbers of so many bytes."""

LEAST_NOISE = 5e-4
NOISE_SCALE = 10.0
DECONVOLUTION_SLOPE = 0.1


class DeconvolutionResidualBlock(nn.Module):
    """Two 3x3 convolutions, added to their input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return features (N, width, H, W) from features of that shape."""
        return x + self.second(F.leaky_relu(self.first(x), DECONVOLUTION_SLOPE))


class UNet(nn.Module):
    """A U-Net of residual blocks without normalisation, one per level on either side."""

    def __init__(self, entering: int, leaving: int, widths: Sequence[int]) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.first = nn.Conv2d(entering, widths[0], 3, padding=1)
        self.encoder = nn.ModuleList(DeconvolutionResidualBlock(width) for width in widths[:-1])
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in steps)
        self.middle = nn.Sequential(*(DeconvolutionResidualBlock(widths[-1]) for _ in range(2)))
        self.up = nn.ModuleList(nn.ConvTranspose2d(b, a, 2, stride=2) for a, b in steps)
        self.decoder = nn.ModuleList(DeconvolutionResidualBlock(width) for width in widths[:-1])
        self.last = nn.Conv2d(widths[0], leaving, 3, padding=1)
        zero(self.last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the output (N, leaving, H, W) and the features before it, (N, widths[0], H, W)."""
        x = self.first(x)
        skips = []
        for block, down in zip(self.encoder, self.down, strict=True):
            skips.append(block(x))
            x = down(F.leaky_relu(skips[-1], DECONVOLUTION_SLOPE))
        x = self.middle(x)
        for level in reversed(range(len(skips))):
            x = self.up[level](F.leaky_relu(x, DECONVOLUTION_SLOPE)) + skips[level]
            x = self.decoder[level](x)
        return self.last(F.leaky_relu(x, DECONVOLUTION_SLOPE)), x


class Fusion(nn.Module):
    """Mixes candidate images pixel by pixel and adds to the mixture, by a U-Net on 2x2 blocks."""

    def __init__(self, candidates: int, features: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.candidates = candidates
        self.network = UNet(4 * (3 * candidates + 1) + features, 4 * (candidates + 3), widths)

    def forward(
        self, images: Sequence[Tensor], noise: Tensor, features: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the image (N, 3, H, W) made from the candidates, and features for the next step.

        `noise` (N,) is the standard deviation of the noise in the photos; `features` are those of
        the previous step.
        """
        noisy = (NOISE_SCALE * noise).view(-1, 1, 1, 1).expand_as(images[0][:, :1])
        x = unshuffled(*images, noisy)
        if features is not None:
            x = torch.cat([x, features.to(x.dtype)], 1)
        out, features = self.network(x)
        out = F.pixel_shuffle(out.float(), 2)
        weights = out[:, : self.candidates].softmax(1)
        mixed = out[:, self.candidates :]
        for number, image in enumerate(images):
            mixed = torch.addcmul(mixed, weights[:, number : number + 1], image)
        return mixed, features


@dataclass
class Restored:
    """The result of `Deconvolver` for photos (N, 3, H, W), and its expected errors.

    `first` and `image` are the results of the first and the last step, not clamped. `errors`
    (N, 2, H / 8, W / 8) are logarithms of the expected mean absolute error in blocks of 8x8 pixels,
    first that of the photo, or of the draft if there is one, then the result's. With drafts,
    `second` is the result of the second step, whose errors are predicted in training alone.
    """

    first: Tensor
    image: Tensor
    errors: Tensor
    second: Restored | None = None


class Deconvolver(nn.Module):
    """Restores photos whose kernels are known or estimated, and predicts its errors.

    Sides of photos must be multiples of 16 (2 to the power of the number of `widths`). `drafts`
    says whether the network has the step that joins drafts.
    """

    def __init__(self, widths: Sequence[int] = WIDTHS, drafts: bool = False) -> None:
        super().__init__()
        self.options: dict[str, Any] = {"widths": list(widths), "drafts": drafts}
        self.multiple = 2 ** len(widths)
        self.strengths = nn.Parameter(torch.tensor(STRENGTHS))
        self.ties = nn.Parameter(torch.tensor(TIES))
        self.one = Fusion(2 + len(STRENGTHS), 0, widths)
        self.two = Fusion(2 + len(TIES), widths[0], widths)
        self.judge = judge(widths[0])
        if drafts:
            self.draft_ties = nn.Parameter(torch.tensor(TIES))
            self.three = Fusion(3 + len(TIES), widths[0], widths)
            self.draft_judge = judge(widths[0])

    def judges(self) -> list[nn.Module]:
        """Return the parts that predict errors, with and without drafts."""
        return [self.judge, self.draft_judge] if self.options["drafts"] else [self.judge]

    @classmethod
    def from_shapes(cls, shapes: Shapes) -> Deconvolver:
        """Return the network whose state dict has these shapes."""
        levels = len(shapes.numbers(r"one\.network\.down\.(\d+)\.weight"))
        down = [shapes[f"one.network.down.{level}.weight"] for level in range(levels)]
        return cls([*(shape[1] for shape in down), down[-1][0]], "draft_ties" in shapes)

    def forward(
        self,
        photos: Tensor,
        kernels: Tensor,
        noise: Tensor,
        gamma: Tensor,
        drafts: Tensor | None = None,
    ) -> Restored:
        """Return photos without their blur.

        `photos` (N, 3, H, W) in [0, 1]; `kernels` (N, s, s); `noise` (N,), the standard deviation
        of the noise in the photos; `gamma` (N,), the exponent from pixel values to the light that
        was blurred; `drafts`, shaped like photos, what another network made of them.
        Pictures stay aligned with the photos: a kernel's origin is its centroid.
        """
        light, first, features = self.first_step(photos, kernels, noise, gamma)
        variance = noise_variance(noise)
        with full_precision(photos.device):
            tied = light.tied(first.float(), variance, self.ties.exp())
        image, features = self.two([light.photos, first, *tied], noise, features)
        second = Restored(first, image, torch.empty(0))
        if drafts is None or torch.is_grad_enabled():  # with drafts, only training looks at them
            second.errors = judged(self.judge, features, light.photos, image)
        if drafts is None:
            return second
        with full_precision(photos.device):
            tied = light.tied(drafts.float(), variance, self.draft_ties.exp())
        image, features = self.three([light.photos, image, *tied, drafts], noise, features)
        errors = judged(self.draft_judge, features, drafts, image)
        return Restored(first, image, errors, second)

    def first_step(
        self,
        photos: Tensor,
        kernels: Tensor,
        noise: Tensor,
        gamma: Tensor,
    ) -> tuple[LinearLight, Tensor, Tensor]:
        """Return the photos' light, the image (N, 3, H, W) and its features, as for `forward`."""
        with full_precision(photos.device):
            light = LinearLight(photos.float(), kernels.float(), gamma)
            variance = noise_variance(noise)
            inverted = light.inverted(variance, self.strengths.exp())
            smooth = light.smooth(variance)
        image, features = self.one([light.photos, *inverted, smooth], noise)
        return light, image, features


def noise_variance(noise: Tensor) -> Tensor:
    """Return the variances (N, 1, 1, 1) of standard deviations (N,), at least `LEAST_NOISE`."""
    return noise.float().view(-1, 1, 1, 1).clamp_min(LEAST_NOISE).square()


def unshuffled(*images: Tensor) -> Tensor:
    """Return blocks of 2x2 pixels of images (N, C, H, W) as channels (N, 4 C, H / 2, W / 2).

    It is `pixel_unshuffle` of all images together, in the type that convolutions take. Without a
    derivative it takes a fifth of the time: two neighbours in a row are moved as one number.
    """
    device = images[0].device.type
    half = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if half else images[0].dtype
    x = torch.cat([image.to(dtype) for image in images], 1)
    if torch.is_grad_enabled():
        return F.pixel_unshuffle(x, 2)
    n, channels, height, width = x.shape
    pairs = x.view(PAIRS[x.element_size()]).view(n, channels, height // 2, 2, width // 2)
    blocks = pairs.permute(0, 2, 4, 1, 3).contiguous().view(dtype)
    return blocks.view(n, height // 2, width // 2, 4 * channels).permute(0, 3, 1, 2)


def judge(width: int) -> nn.Sequential:
    """Return a network from `width` features and two images, at half size, to two errors."""
    return nn.Sequential(
        nn.Conv2d(width + 6, 32, 3, stride=2, padding=1),
        nn.LeakyReLU(DECONVOLUTION_SLOPE),
        nn.Conv2d(32, 32, 3, stride=2, padding=1),
        nn.LeakyReLU(DECONVOLUTION_SLOPE),
        nn.Conv2d(32, 2, 1),
    )


def judged(network: nn.Module, features: Tensor, *images: Tensor) -> Tensor:
    """Return the errors (N, 2, H / 8, W / 8) of two images (N, 3, H, W) that a `judge` expects."""
    with full_precision(features.device):
        seen = [F.avg_pool2d(image.float(), 2) for image in images]
        return network(torch.cat([features.float(), *seen], 1))


class LinearLight:
    """Photos in linear light, as spectra together with those of their kernels."""

    def __init__(self, photos: Tensor, kernels: Tensor, gamma: Tensor) -> None:
        self.photos, self.gamma = photos, gamma.view(-1, 1, 1, 1)
        self.margin = kernels.shape[-1] // 2 + 1
        self.picture = framed(self._light(photos), self.margin)
        self.sides = (self.picture.shape[-2], self.picture.shape[-1])
        transfer = centred_transfer(kernels, *self.sides)[:, None]
        self.data, self.gain = transfer.conj() * rfft2(self.picture), transfer.abs().square()

    def _light(self, images: Tensor) -> Tensor:
        return images.clamp(DARKEST, BRIGHTEST) ** self.gamma

    def _image(self, spectrum: Tensor) -> Tensor:
        return self._seen(irfft2(spectrum, s=self.sides))

    def _seen(self, light: Tensor) -> Tensor:
        image = unframed(light, *self.photos.shape[-2:])
        return image.clamp(DARKEST, BRIGHTEST) ** (1 / self.gamma)

    def inverted(self, variance: Tensor, strengths: Tensor) -> list[Tensor]:
        """Return the Wiener inverse for every strength, with a prior on values and gradients."""
        power = gradient_power(*self.sides, device=self.data.device)
        prior = variance * (10 * power + 0.05)
        return [self._image(self.data * (self.gain + s * prior).reciprocal()) for s in strengths]

    @torch.no_grad()
    def smooth(self, variance: Tensor) -> Tensor:
        """Return the image of least total variation, which is good if the kernel is right."""
        strength = SMOOTH_SCALE / (variance + SMOOTH_NOISE**2)
        steps = self.data, self.gain, strength, soft, SMOOTH_BETAS
        return self._seen(half_quadratic(self.picture, *steps))

    def tied(self, images: Tensor, variance: Tensor, ties: Tensor) -> list[Tensor]:
        """Return, for every tie, the image that explains the photos and is close to `images`."""
        near = rfft2(framed(self._light(images), self.margin))
        weights = [20 * variance * tie for tie in ties]
        return [self._image((self.data + w * near) * (self.gain + w).reciprocal()) for w in weights]


def half_quadratic(
    x: Tensor,
    data: Tensor,
    gain: Tensor,
    strength: float | Tensor,
    shrink: Callable[[Tensor, float], Tensor],
    betas: Sequence[float] = BETAS,
) -> Tensor:
    """Return the images (..., H, W) after half-quadratic steps that start from `x`.

    `data` is the photos' spectrum times the conjugates of the transfer functions, `gain` the
    squared magnitude of the latter; `shrink` maps gradients to those that the prior keeps at a
    given weight.
    """
    sides = x.shape[-2], x.shape[-1]
    power = gradient_power(*sides, x.device)
    for beta in betas:
        edges = rfft2(divergence(*(shrink(gradient, beta) for gradient in gradients(x))))
        weight = beta / strength
        x = irfft2((data + weight * edges) * (gain + weight * power).reciprocal(), s=sides)
    return x


def soft(gradient: Tensor, beta: float) -> Tensor:
    """Return argmin |w| + beta / 2 (w - v)^2, with v the gradient."""
    return F.softshrink(gradient, 1 / beta)
